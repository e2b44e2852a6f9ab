package serve

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

const (
	// A writer that has begun a request has this long to go on with it: all
	// clients write theirs in one call.
	fifoPause = time.Second
	// Clients write their request before they have opened their reply FIFO.
	// Kamailio and OpenSER try 4 times more, 80 ms apart; we give as much
	// time and look more often.
	replyWait = 4 * 80 * time.Millisecond
	replyPoll = 8 * time.Millisecond
	// maxQueue is how many requests may wait for one reply FIFO.
	maxQueue = 64
	// fifoDrain is how long a FIFO is still read after it was unlinked.
	fifoDrain = 20 * time.Millisecond
)

// framer cuts what is read from a FIFO into requests.
type framer interface {
	write(p []byte)
	// next returns the next request, or why one was dropped; ok is false
	// when more has to be read.
	next() (r fifoRequest, ok bool)
	// pause forgets a request that was begun, and reports whether one was.
	pause() bool
}

// fifoRequest is one request from a FIFO.
type fifoRequest struct {
	cause string // not "": something was dropped. A request with answer set is answered all the same.
	name  string // of the reply FIFO
	// mustReply: without a reply name the command does not run.
	mustReply bool
	answer    func(ctx context.Context, peer rpc.Peer) []byte
}

// fifo serves a command FIFO. One goroutine reads; requests for different reply
// FIFOs are served side by side, those for the same one in order.
type fifo struct {
	srv  *Server
	l    Listener
	path string
	peer rpc.Peer
	in   framer
	file *os.File

	slots   chan struct{} // one per worker
	workers sync.WaitGroup

	mu      sync.Mutex // covers what follows
	queues  map[string][]fifoRequest
	replies map[*os.File]struct{} // open for writing
	closing bool
}

func (s *Server) bindFIFO(l Listener, path string, a access) (service, error) {
	file, m, err := makeFIFO(path, a)
	if err != nil {
		return nil, err
	}
	s.made, s.fifos = append(s.made, m), append(s.fifos, m.id)
	f := &fifo{
		srv: s, l: l, path: path, peer: rpc.NewPeer("fifo", path), file: file,
		slots: make(chan struct{}, s.limits.InFlight), queues: make(map[string][]fifoRequest), replies: make(map[*os.File]struct{}),
	}
	f.in = &jsonFramer{codec: s.json}
	if l.Protocol == MI {
		f.in = &miFramer{srv: s}
	}
	return f, nil
}

func (f *fifo) address() string { return string(f.l.Protocol) + " fifo:" + f.path }

func (f *fifo) serve() {
	defer f.workers.Wait()
	defer f.file.Close()
	buf := make([]byte, 64<<10)
	wait := time.Time{}
	for {
		f.readBy(wait)
		n, err := f.file.Read(buf)
		f.in.write(buf[:n])
		f.dispatch()
		switch {
		case err == nil:
			wait = time.Now().Add(fifoPause)
		case f.stopping():
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			if f.in.pause() {
				f.srv.refuse(f.l, CauseUnfinished, f.peer)
			}
			wait = time.Time{}
		default:
			f.srv.log.Error("rpc listener failed", "listener", f.l, "error", err)
			return
		}
	}
}

// readBy sets the time until which the next read may wait.
func (f *fifo) readBy(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closing { // else it is as stop has set it
		_ = f.file.SetReadDeadline(t)
	}
}

func (f *fifo) stopping() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closing
}

// stop ends the reading a moment later: who has written a request before the
// FIFO was unlinked waits for the answer, without a timeout.
func (f *fifo) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closing = true
	_ = f.file.SetReadDeadline(time.Now().Add(fifoDrain))
}

func (f *fifo) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.file.Close()
	for w := range f.replies {
		_ = w.SetWriteDeadline(past)
	}
}

// dispatch hands all requests that are whole to their workers. All of a read
// are queued before one starts, so that those for the same reply FIFO are
// answered through one opening of it.
func (f *fifo) dispatch() {
	var fresh []string
	for {
		r, ok := f.in.next()
		if !ok {
			break
		}
		if r.cause != "" {
			f.srv.refuse(f.l, r.cause, f.peer)
		}
		if r.answer == nil {
			continue
		}
		err := jsonrpc.CheckReplyName(f.l.ReplyDir, r.name) // before anything is done
		if err != nil && (r.name != "" || r.mustReply) {
			f.srv.refuse(f.l, CauseReplyName, f.peer)
			continue
		}
		f.mu.Lock()
		queue, running := f.queues[r.name]
		full := len(queue) >= maxQueue
		if !full {
			f.queues[r.name] = append(queue, r)
		}
		f.mu.Unlock()
		if full {
			f.srv.refuse(f.l, CauseBusy, f.peer)
		}
		if !running {
			fresh = append(fresh, r.name)
		}
	}
	for _, name := range fresh {
		f.slots <- struct{}{} // waits for a worker to be through: each has its deadlines
		f.workers.Go(func() {
			defer func() { <-f.slots }()
			f.work(name)
		})
	}
}

// work answers the requests for one reply FIFO until there are no more.
func (f *fifo) work(name string) {
	var w *os.File
	for {
		f.mu.Lock()
		queue := f.queues[name]
		if len(queue) == 0 || f.srv.calls.Err() != nil {
			delete(f.queues, name)
			f.mu.Unlock()
			f.closeReply(w)
			return
		}
		r := queue[0]
		f.queues[name] = queue[1:]
		f.mu.Unlock()

		if w == nil && name != "" {
			var cause string
			if w, cause = f.openReply(name); w == nil {
				f.srv.refuse(f.l, cause, f.peer)
				continue
			}
		}
		ctx, cancel := f.srv.call()
		reply := r.answer(ctx, f.peer)
		cancel()
		if w == nil || len(reply) == 0 {
			continue
		}
		_ = w.SetWriteDeadline(time.Now().Add(f.srv.limits.Write))
		if _, err := w.Write(reply); err != nil {
			f.srv.refuse(f.l, CauseReply, f.peer)
			f.closeReply(w)
			w = nil
		}
	}
}

// openReply opens the client's FIFO for writing, and waits a little for the
// client to open it for reading.
func (f *fifo) openReply(name string) (w *os.File, cause string) {
	path := f.l.ReplyDir + name
	for end := time.Now().Add(replyWait); ; {
		w, err := openFIFO(path, unix.O_WRONLY)
		switch {
		case err == nil && f.ours(w):
			_ = w.Close()
			return nil, CauseReplyFIFO
		case err == nil:
			f.mu.Lock()
			f.replies[w] = struct{}{}
			f.mu.Unlock()
			return w, ""
		case !errors.Is(err, unix.ENXIO):
			return nil, CauseReplyFIFO
		case time.Now().After(end):
			return nil, CauseNoReader
		}
		select {
		case <-time.After(replyPoll):
		case <-f.srv.calls.Done():
			return nil, CauseNoReader
		}
	}
}

// ours reports whether a reply FIFO is a command FIFO of this server: an answer
// there would be read as a request.
func (f *fifo) ours(w *os.File) bool {
	fi, err := w.Stat()
	if err != nil || fi.Mode().Type() != fs.ModeNamedPipe {
		return true
	}
	id := identify(fi)
	return slices.ContainsFunc(f.srv.fifos, func(own identity) bool { return own == id })
}

func (f *fifo) closeReply(w *os.File) {
	if w == nil {
		return
	}
	f.mu.Lock()
	delete(f.replies, w)
	f.mu.Unlock()
	_ = w.Close()
}
