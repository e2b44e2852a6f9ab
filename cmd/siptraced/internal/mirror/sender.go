package mirror

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	// maxFlight is how much may be on its way over one connection, in bytes of
	// the spool: more waits for acknowledgements.
	maxFlight = 1 << 20
	// ackPoll is how often the kernel is asked what was acknowledged.
	ackPoll = 10 * time.Millisecond
	// idlePoll is how often a sender looks at its bounds and at its end.
	idlePoll = 200 * time.Millisecond
	// drainPoll is the same once the mirrors drain.
	drainPoll = 20 * time.Millisecond
)

// sender carries all shards of the spool to one destination. One goroutine owns
// it.
type sender struct {
	sink     *sink
	log      *slog.Logger
	shards   []*shard
	wake     chan struct{} // a shard has a batch
	resolver *resolver
	encoder  encoder
	decoder  spool.Decoder
	buf      []byte

	inflight []*flight // read and not done with, in the order of sending
	free     []*flight
	bytes    int // of the inflight batches

	turn       int // of the addresses, the one in use
	portLogged bool
	isSelf     bool   // the destination is siptraced itself: nothing can go there
	lastErr    string // the failure that was logged last
	drain      <-chan struct{}
	draining   bool
	moved      time.Time // when a message was settled last, or the drain began
}

// shard is one shard of the spool, as the sender sees it.
type shard struct {
	reader  *spool.Reader
	slot    chan *spool.Batch // from the feeder
	head    *spool.Batch      // the next one to send
	excess  int64             // what has to expire for the bound in bytes
	checked time.Time         // when that was worked out
	behind  bool              // a batch of it is not settled; of settle alone
}

// feed puts batches of a shard where the sender finds them.
func (w *sender) feed(ctx context.Context, sh *shard) {
	for {
		var b *spool.Batch
		select {
		case b = <-sh.reader.Batches():
		case <-ctx.Done():
			return
		}
		select {
		case sh.slot <- b:
		case <-ctx.Done():
			return
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func newSender(s *sink) *sender {
	w := &sender{sink: s, log: s.log, wake: make(chan struct{}, 1), resolver: s.resolver, drain: s.drain}
	w.encoder = encoder{dst: &s.Destination, xheaders: func() bool { return s.XHeaders || s.Protocol == ByRecord && s.m.xheaders.Load() }}
	for _, r := range s.readers {
		w.shards = append(w.shards, &shard{reader: r, slot: make(chan *spool.Batch, 1)})
	}
	return w
}

// flight is a batch on its way.
type flight struct {
	shard *shard
	batch *spool.Batch
	// what became of each record, as far as they were written or expired, and
	// where each ended in the connection's bytes.
	what []outcome
	ends []uint64
	// done is how many are settled: they are not sent again.
	done    int
	written bool // over the present connection
}

// errDrained ends a sender: the mirrors drain, and nothing waits.
var errDrained = errors.New("nothing waits")

// run sends until ctx ends, or until nothing waits once the mirrors drain.
func (w *sender) run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	var feeders sync.WaitGroup
	defer feeders.Wait()
	defer stop()
	for _, sh := range w.shards {
		feeders.Go(func() { w.feed(ctx, sh) })
	}
	backoff := firstBackoff
	for {
		if err := w.await(ctx); err != nil {
			return
		}
		c, err := w.connect(ctx)
		w.isSelf = errors.Is(err, errSelf)
		switch {
		case errors.Is(err, errDrained) || ctx.Err() != nil:
			return
		case err == nil:
			w.sink.connects.Add(1)
			if w.lastErr != "" {
				w.log.Info("mirror: connected again", "to", c.RemoteAddr().String(), "pending", w.sink.pending())
				w.lastErr = ""
			}
			var progress bool
			if progress, err = w.serve(ctx, c); progress {
				backoff = firstBackoff
			}
			if errors.Is(err, errDrained) || ctx.Err() != nil {
				return
			}
		default:
			w.turn++
			w.resolver.refresh() // the host may have moved
		}
		if err != nil {
			w.sink.refused.Add(1)
			if text := err.Error(); text != w.lastErr {
				w.log.Warn("mirror: messages wait, trying again", "err", err)
				w.lastErr = text
			}
		}
		// Jitter keeps the senders from knocking at the same moment.
		if w.pause(ctx, backoff/2+rand.N(backoff)) != nil {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// serve uses a connection until it fails.
func (w *sender) serve(ctx context.Context, c net.Conn) (progress bool, err error) {
	local, remote := addrOf(c.LocalAddr()), addrOf(c.RemoteAddr())
	w.encoder.local, w.encoder.remote = local, remote
	w.sink.m.sockets.add(local)
	defer w.sink.m.sockets.remove(local)
	if !w.sink.Stream() {
		defer c.Close()
		return w.serveUDP(ctx, c.(*net.UDPConn))
	}
	s, err := newStream(c, w.sink.Ack)
	if err != nil {
		return false, err
	}
	defer s.close()
	return w.serveStream(ctx, s)
}

// await returns when there is something to send: connections are made no
// sooner.
func (w *sender) await(ctx context.Context) error {
	for len(w.inflight) == 0 {
		sh, err := w.next(ctx, nil)
		if err != nil {
			return err
		}
		if sh == nil {
			continue
		}
		f := w.hold(sh)
		if !w.concerns(f.batch) {
			for range f.batch.Records {
				f.what, f.ends = append(f.what, skipped), append(f.ends, 0)
			}
			f.written = true
			w.settle(0)
		}
	}
	return nil
}

// drainPatience is how long a destination that takes nothing is waited for at
// the end: what is left stays in the spool.
const drainPatience = 2 * time.Second

// drained reports whether the mirrors drain and nothing is left to do, or
// nothing that can be done now.
func (w *sender) drained() bool {
	select {
	case <-w.drain:
	default:
		return false
	}
	if !w.draining {
		w.draining, w.moved = true, time.Now()
	}
	if time.Since(w.moved) > drainPatience {
		return true
	}
	if len(w.inflight) > 0 {
		return false
	}
	for _, sh := range w.shards {
		// In a cluster the others go on with the rest.
		if sh.reader.Pending() > 0 && !sh.reader.Shared() {
			return false
		}
	}
	return true
}

// oldest is the shard whose next batch was spooled first, of those that have
// one.
func (w *sender) oldest() (first *shard) {
	for _, sh := range w.shards {
		if sh.head == nil {
			select {
			case sh.head = <-sh.slot:
			default:
				continue
			}
		}
		if first == nil || sh.head.Age() > first.head.Age() {
			first = sh
		}
	}
	return first
}

// next waits for a shard that has a batch; nil without an error means that it is
// time to look at other things. stop ends the wait too.
func (w *sender) next(ctx context.Context, stop <-chan struct{}) (*shard, error) {
	if w.drained() {
		return nil, errDrained
	}
	wake := w.wake
	if w.bytes > maxFlight {
		wake = nil
	} else if sh := w.oldest(); sh != nil {
		return sh, nil
	}
	poll := idlePoll
	select {
	case <-w.drain:
		poll = drainPoll
	default:
	}
	if len(w.inflight) > 0 {
		poll = ackPoll
	}
	t := time.NewTimer(poll)
	defer t.Stop()
	select {
	case <-wake:
	case <-stop:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
	}
	return nil, nil
}

// pause waits while nothing can be sent, and expires what is over the bounds
// meanwhile.
func (w *sender) pause(ctx context.Context, d time.Duration) error {
	return w.waitFor(ctx, time.After(d), nil)
}

func (w *sender) waitFor(ctx context.Context, over <-chan time.Time, done <-chan struct{}) error {
	tick := time.NewTicker(idlePoll)
	defer tick.Stop()
	for {
		w.expire(ctx)
		if w.drained() {
			return errDrained
		}
		select {
		case <-over:
			return nil
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// connect waits for the name and for a connection.
func (w *sender) connect(ctx context.Context) (net.Conn, error) {
	if err := w.waitFor(ctx, nil, w.resolver.ready); err != nil {
		return nil, err
	}
	type result struct {
		c   net.Conn
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, got := make(chan struct{}), result{}
	go func() {
		defer close(ended)
		got.c, got.err = w.dial(ctx)
	}()
	err := w.waitFor(ctx, nil, ended)
	if err != nil {
		cancel()
		<-ended
		if got.c != nil {
			_ = got.c.Close()
		}
		return nil, err
	}
	return got.c, got.err
}

// hold takes a shard's next batch.
func (w *sender) hold(sh *shard) *flight {
	f := &flight{}
	if n := len(w.free); n > 0 {
		f, w.free = w.free[n-1], w.free[:n-1]
	}
	*f = flight{shard: sh, batch: sh.head, what: f.what[:0], ends: f.ends[:0]}
	sh.head = nil
	w.inflight = append(w.inflight, f)
	w.bytes += f.batch.Size()
	return f
}

// concerns reports whether a batch has anything for the destination.
func (w *sender) concerns(b *spool.Batch) bool {
	found := false
	_ = w.decoder.Each(b, func(rec *siptrace.Record, _ []byte) error {
		found = found || w.sink.takes(rec)
		return nil
	})
	return found
}

// encode makes the packets of a batch, from its first record that is not
// settled on: put is called for each packet with the record's number. What
// becomes of a record that makes no packet is noted.
func (w *sender) encode(f *flight, put func(record int, p []byte) (outcome, error)) error {
	i := 0
	var stopped error
	err := w.decoder.Each(f.batch, func(rec *siptrace.Record, _ []byte) error {
		i++
		if i <= f.done {
			return nil
		}
		o, err := w.encodeRecord(rec, i-1, put)
		if err != nil {
			stopped = err
			return err
		}
		f.what = append(f.what, o)
		return nil
	})
	if stopped != nil {
		return stopped
	}
	if err != nil {
		w.log.Error("mirror: a damaged batch, what follows the damage is lost", "err", err)
	}
	for len(f.what) < f.batch.Records {
		f.what = append(f.what, failed)
	}
	return nil
}

func (w *sender) encodeRecord(rec *siptrace.Record, i int, put func(int, []byte) (outcome, error)) (outcome, error) {
	if !w.sink.takes(rec) {
		return skipped, nil
	}
	asHEP, asSIP := w.encoder.want(rec)
	if !asHEP && !asSIP {
		return skipped, nil
	}
	if !w.encoder.pass(rec) {
		return filtered, nil
	}
	all := sent
	if asHEP {
		var err error
		if w.buf, err = w.encoder.appendHEP(w.buf[:0], rec); err != nil {
			if all = failed; errors.Is(err, hep.ErrTooLarge) {
				all = tooLarge
			}
		} else if all, err = put(i, w.buf); err != nil {
			return all, err
		}
	}
	if asSIP {
		w.buf = w.encoder.appendSIP(w.buf[:0], rec)
		o, err := put(i, w.buf)
		if err != nil {
			return o, err
		}
		all = max(all, o)
	}
	return all, nil
}

// settle counts what is acknowledged, and lets go of batches that are done with,
// in the order of each shard.
func (w *sender) settle(acked uint64) {
	now := time.Now()
	for _, sh := range w.shards {
		sh.behind = false
	}
	w.inflight = slices.DeleteFunc(w.inflight, func(f *flight) bool {
		for f.done < len(f.what) && f.ends[f.done] <= acked {
			w.sink.count(f.what[f.done])
			f.done++
			w.moved = now
		}
		if f.shard.behind || !f.written || f.done < len(f.what) {
			f.shard.behind = true
			return false
		}
		w.finish(f)
		return true
	})
}

func (w *sender) finish(f *flight) {
	b := f.batch
	if b.Missed > 0 && !f.shard.reader.Shared() {
		w.sink.missed.Add(b.Missed)
		w.log.Error("spool: messages are gone before they were mirrored: the spool reached its bounds, or its files are damaged", "messages_lost", b.Missed)
	}
	w.bytes -= b.Size()
	f.shard.reader.Done(b)
	w.sink.early.Add(-int64(len(f.what)))
	b.Release()
	f.batch, f.shard = nil, nil
	w.free = append(w.free, f)
}

// rewind makes all that is inflight unwritten again: the connection is gone.
func (w *sender) rewind() {
	for _, f := range w.inflight {
		f.what, f.ends, f.written = f.what[:f.done], f.ends[:f.done], false
	}
}

// expireBatch counts what is left of a batch as expired, or as failed where nothing can
// ever go.
func (w *sender) expireBatch(f *flight, at uint64) {
	o := expired
	if w.isSelf {
		o = failed
	}
	for len(f.what) < f.batch.Records {
		f.what, f.ends = append(f.what, o), append(f.ends, at)
	}
	f.written = true
	f.shard.excess -= int64(f.batch.Size())
}

// over reports whether the oldest batch of a shard is beyond the bounds in age
// and bytes.
func (w *sender) over(ctx context.Context, sh *shard, b *spool.Batch) bool {
	if w.isSelf || b.Age() > w.sink.MaxAge {
		return true
	}
	if time.Since(sh.checked) > time.Second {
		sh.checked = time.Now()
		if n, err := sh.reader.Waiting(ctx); err == nil {
			limit := w.sink.m.limit(w.sink.MaxBytes)
			if w.sink.m.spool.Full() {
				// Half of it goes, so that new messages have room again.
				limit = min(limit, n/2)
			}
			sh.excess = n - limit
		}
	}
	return sh.excess > 0
}

// expire drops what is beyond the bounds while nothing can be sent.
func (w *sender) expire(ctx context.Context) {
	for _, sh := range w.shards {
		for {
			var f *flight
			if i := slices.IndexFunc(w.inflight, func(f *flight) bool { return f.shard == sh }); i >= 0 {
				f = w.inflight[i]
			}
			b := sh.head
			if f != nil {
				b = f.batch
			} else if b == nil {
				select {
				case b = <-sh.slot:
					sh.head = b
				default:
				}
			}
			if b == nil || !w.over(ctx, sh, b) {
				break
			}
			if f == nil {
				f = w.hold(sh)
			}
			w.expireBatch(f, 0)
			w.settle(0)
		}
	}
}

// serveStream sends over a TCP or TLS connection.
func (w *sender) serveStream(ctx context.Context, s *stream) (progress bool, err error) {
	before := w.sink.counts[sent].Load()
	defer func() {
		w.settle(s.acked())
		w.rewind()
		progress = w.sink.counts[sent].Load() > before
	}()
	settled := time.Now()
	for {
		for _, f := range w.inflight {
			if f.written {
				continue
			}
			select {
			case <-s.broken:
				return false, w.closed(s)
			default:
			}
			if err := w.writeStream(ctx, s, f); err != nil {
				return false, err
			}
		}
		sh, err := w.next(ctx, s.broken)
		if err != nil {
			return false, err
		}
		if sh != nil {
			w.hold(sh)
		}
		// The kernel is asked now and then, not for each batch.
		if sh == nil || w.bytes > maxFlight/2 || time.Since(settled) > 2*ackPoll {
			w.settle(s.acked())
			settled = time.Now()
		}
		select {
		case <-s.broken:
			return false, w.closed(s)
		default:
		}
		if s.silent() {
			return false, errors.New("the peer does not answer HEP3 keep-alives: it is no siptraced; use ack: tcp")
		}
	}
}

// closed is what to make of a peer that closed the connection: nothing, where
// that was idle.
func (w *sender) closed(s *stream) error {
	s.linger()
	if s.acked() >= s.offset {
		return nil
	}
	return errPeerClosed
}

var errPeerClosed = errors.New("the peer closed the connection")

// writeStream writes a batch, gathered into few large writes.
func (w *sender) writeStream(ctx context.Context, s *stream, f *flight) error {
	if w.over(ctx, f.shard, f.batch) {
		w.expireBatch(f, s.offset)
		return nil
	}
	out := w.sink.m.buffer()
	defer w.sink.m.release(out)
	end := s.offset
	err := w.encode(f, func(i int, p []byte) (outcome, error) {
		for len(f.ends) < i {
			f.ends = append(f.ends, end)
		}
		out.b = append(out.b, p...)
		end += uint64(len(p))
		w.sink.bytes.Add(uint64(len(p)))
		if len(out.b) < chunkSize {
			return sent, nil
		}
		err := s.write(out.b)
		out.b = out.b[:0]
		return sent, err
	})
	if err == nil {
		err = s.write(out.b)
	}
	for len(f.ends) < len(f.what) {
		f.ends = append(f.ends, end)
	}
	if err != nil {
		return err
	}
	f.written = true
	return s.ask()
}
