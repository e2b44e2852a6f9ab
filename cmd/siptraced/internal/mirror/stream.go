package mirror

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/hep"
)

const (
	// stall is how long a peer may take nothing at all, and patience how long one
	// write may take while it takes a little: meanwhile nothing is given up.
	stall    = 5 * time.Second
	patience = 20 * time.Second
	// keepAliveTimeout is how long a peer may take to answer a HEP3 keep-alive.
	keepAliveTimeout = 60 * time.Second
	// maxTLSRecord is the most that one TLS record carries (RFC 8446 §5.1).
	maxTLSRecord = 16 << 10
	chunkSize    = 64 << 10
)

// countedConn counts what it gave to the kernel, and is patient with a peer that
// reads slowly, until it is aborted.
type countedConn struct {
	net.Conn
	written atomic.Uint64
	aborted atomic.Bool
}

func (c *countedConn) Write(b []byte) (int, error) {
	began, done := time.Now(), 0
	for {
		_ = c.SetWriteDeadline(time.Now().Add(stall))
		if c.aborted.Load() {
			return done, context.Canceled
		}
		n, err := c.Conn.Write(b[done:])
		c.written.Add(uint64(n))
		done += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || time.Since(began) > patience {
			return done, err
		}
	}
}

// abort ends a Write that waits, and every later one.
func (c *countedConn) abort() {
	c.aborted.Store(true)
	_ = c.SetWriteDeadline(time.Unix(1, 0))
}

// streamWriter sends batches over one TCP or TLS connection (spool.Writer). They
// are done when the peer acknowledged them.
type streamWriter struct {
	connection
	*stream
	flights []*flight
	free    []*flight
}

// flight is a batch on its way: what became of its records from the first one on
// that was not settled before, and where each ends in the connection's bytes.
type flight struct {
	batch *spool.Batch
	first int
	what  []outcome
	ends  []uint64
	done  int // of what: they are acknowledged and counted
}

func newStreamWriter(c net.Conn, conn connection) (*streamWriter, error) {
	s, err := newStream(c, conn.settings.Ack)
	return &streamWriter{connection: conn, stream: s}, err
}

// Write sends a batch, gathered into few large writes.
func (w *streamWriter) Write(ctx context.Context, b *spool.Batch) error {
	if w.isBroken() {
		return w.closed()
	}
	if err := w.begin(); err != nil {
		w.await(ctx)
		return err
	}
	w.encoder.toSiptraced = w.toSiptraced.Load()
	defer context.AfterFunc(ctx, w.raw.abort)()
	w.writing.Lock()
	defer w.writing.Unlock()
	f := w.flight(b)
	out := w.sink.m.buffer()
	defer w.sink.m.release(out)
	end := w.offset
	var err error
	f.what, err = w.encode(b, f.what, func(i int, p []byte) (outcome, error) {
		for len(f.ends) < i {
			f.ends = append(f.ends, end)
		}
		out.b = append(out.b, p...)
		end += uint64(len(p))
		w.sink.bytes.Add(uint64(len(p)))
		if len(out.b) < chunkSize {
			return sent, nil
		}
		err := w.write(out.b)
		out.b = out.b[:0]
		return sent, err
	})
	if err == nil {
		err = w.write(out.b)
	}
	for len(f.ends) < len(f.what) {
		f.ends = append(f.ends, end)
	}
	if err == nil {
		err = w.ask()
	}
	if err != nil {
		w.settleLocked()
	}
	return err
}

func (w *streamWriter) flight(b *spool.Batch) *flight {
	f := &flight{}
	if n := len(w.free); n > 0 {
		f, w.free = w.free[n-1], w.free[:n-1]
	}
	*f = flight{batch: b, first: b.Settled(), what: f.what[:0], ends: f.ends[:0]}
	w.flights = append(w.flights, f)
	return f
}

// Flush asks what the peer acknowledged.
func (w *streamWriter) Flush(context.Context) error {
	if w.isBroken() {
		return w.closed()
	}
	w.settle()
	if w.silent() {
		return errSilent
	}
	if len(w.flights) == 0 {
		return w.begin()
	}
	return nil
}

var (
	errSilent     = errors.New("the peer does not answer HEP3 keep-alives: it is no siptraced; use ack: tcp")
	errPeerClosed = errors.New("the peer closed the connection")
)

// settle counts what the peer acknowledged.
func (w *streamWriter) settle() {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.settleLocked()
}

func (w *streamWriter) settleLocked() {
	acked := w.acked()
	w.flights = slices.DeleteFunc(w.flights, func(f *flight) bool {
		for f.done < len(f.ends) && f.ends[f.done] <= acked {
			w.count(f.what[f.done], 1)
			f.done++
		}
		f.batch.Settle(f.first + f.done)
		if f.first+f.done < f.batch.Records {
			return false
		}
		f.batch.Done()
		f.batch = nil
		w.free = append(w.free, f)
		return true
	})
}

// await waits a moment for what is on its way: other settings want another
// connection, over which it would go again.
func (w *streamWriter) await(ctx context.Context) {
	for until := time.Now().Add(stall); time.Now().Before(until) && ctx.Err() == nil && !w.isBroken(); time.Sleep(ackPoll) {
		if w.settle(); len(w.flights) == 0 {
			return
		}
	}
}

// closed is what to make of a peer that closed the connection: no failure, where
// it has all that it was sent.
func (w *streamWriter) closed() error {
	w.linger()
	w.settle()
	if w.isAcked() {
		return spool.ErrReopen
	}
	return errPeerClosed
}

// Close ends the connection; what is not acknowledged by now goes again over the
// next one.
func (w *streamWriter) Close() error {
	w.settle()
	w.close()
	w.sink.m.sockets.remove(w.local)
	return nil
}

// stream is one TCP or TLS connection to a destination. Offsets count the bytes
// of our packets that went into it.
type stream struct {
	conn    net.Conn // what is written to
	raw     *countedConn
	peer    StreamConn // that raw is
	offset  uint64
	tls     bool
	marks   []mark // TLS: where records end
	settled uint64 // acknowledged up to here

	// broken is closed when the peer has closed, or the connection failed.
	broken chan struct{}
	// toSiptraced: the peer is one. It is said to answer keep-alives, or it asked
	// whether we are a mirror.
	toSiptraced atomic.Bool

	// Of the HEP3 keep-alives: asked are the offsets at which one was sent,
	// answered the bytes that came back.
	keepAlive []byte
	asked     []uint64
	askedAt   time.Time
	answered  atomic.Uint64
	heard     uint64 // of them, those that are settled

	// writing is held while something is written and while the fields above are
	// used, but for answered: whoever reads may answer a question of the peer.
	writing sync.Mutex
}

// mark is the end of a TLS record, in our bytes and in those of the socket.
type mark struct{ plain, raw uint64 }

func newStream(c net.Conn, ack string) (*stream, error) {
	s := &stream{broken: make(chan struct{})}
	if t, ok := c.(*tls.Conn); ok {
		s.conn, s.raw, s.tls = t, t.NetConn().(*countedConn), true
	} else {
		s.raw = &countedConn{Conn: c}
		s.conn = s.raw
	}
	s.peer = s.raw.Conn.(StreamConn)
	if ack == AckKeepAlive {
		s.toSiptraced.Store(true)
		p := hep.Packet{Version: 3, KeepAlive: 1}
		var err error
		if s.keepAlive, err = p.Append(nil); err != nil {
			return nil, err
		}
	}
	go s.read()
	return s, nil
}

// read notices when the peer closes. What it sends is its answers to keep-alives,
// or the question whether we are a mirror.
func (s *stream) read() {
	defer close(s.broken)
	buf := make([]byte, 1<<10)
	for {
		n, err := s.conn.Read(buf)
		s.answered.Add(uint64(n))
		if err != nil {
			return
		}
		if q, ok := loop.LastQuestion(buf[:n]); ok && s.keepAlive == nil {
			s.toSiptraced.Store(true)
			s.writing.Lock()
			err = s.write(loop.AppendAnswer(nil, q))
			s.writing.Unlock()
			if err != nil {
				return
			}
		}
	}
}

func (s *stream) isBroken() bool {
	select {
	case <-s.broken:
		return true
	default:
		return false
	}
}

// write gives b to the connection.
func (s *stream) write(b []byte) error {
	most := chunkSize
	if s.tls {
		most = maxTLSRecord
	}
	for len(b) > 0 {
		n, err := s.conn.Write(b[:min(len(b), most)])
		s.offset += uint64(n)
		if s.tls && n > 0 {
			s.marks = append(s.marks, mark{s.offset, s.raw.written.Load()})
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// ask sends a keep-alive behind what was written, where they are in use.
func (s *stream) ask() error {
	if s.keepAlive == nil || len(s.asked) > 0 && s.asked[len(s.asked)-1] == s.offset {
		return nil
	}
	if err := s.write(s.keepAlive); err != nil {
		return err
	}
	if len(s.asked) == 0 {
		s.askedAt = time.Now()
	}
	s.asked = append(s.asked, s.offset)
	return nil
}

// acked is the offset up to which the peer has what it was sent.
func (s *stream) acked() uint64 {
	if s.keepAlive != nil {
		for n := uint64(len(s.keepAlive)); len(s.asked) > 0 && s.answered.Load()-s.heard >= n; s.heard += n {
			s.settled, s.asked, s.askedAt = s.asked[0], s.asked[1:], time.Now()
		}
		return s.settled
	}
	total, raw := s.raw.written.Load(), uint64(0)
	if queued, err := s.peer.Unacknowledged(); err == nil {
		raw = total - min(total, uint64(queued))
	}
	if !s.tls {
		s.settled = max(s.settled, raw)
		return s.settled
	}
	n := 0
	for n < len(s.marks) && s.marks[n].raw <= raw {
		s.settled = s.marks[n].plain
		n++
	}
	s.marks = append(s.marks[:0], s.marks[n:]...)
	return s.settled
}

// isAcked reports whether the peer has all that it was sent.
func (s *stream) isAcked() bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.acked() >= s.offset
}

// silent reports whether the peer does not answer keep-alives.
func (s *stream) silent() bool {
	return s.keepAlive != nil && len(s.asked) > 0 && time.Since(s.askedAt) > keepAliveTimeout
}

// linger waits a moment for the last acknowledgements of a peer that closes.
func (s *stream) linger() {
	for range 50 {
		if s.isAcked() || s.peer.Dead() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// close ends the connection and waits for its reader.
func (s *stream) close() {
	if t, ok := s.conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	_ = s.raw.Close()
	<-s.broken
}
