package spool

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// worker carries some shards to one Writer at a time. One goroutine owns it.
type worker struct {
	*Consumer
	parts  []*part
	shards []Shard
	wake   chan struct{} // a shard has a batch
	retry  chan struct{} // another attempt is wanted now
	state  atomic.Pointer[State]

	inflight []*Batch // in the order of writing
	bytes    int      // of them
	// Written since the last flush: records, bytes, and when the first one was.
	rows, size int
	began      time.Time
	flushed    time.Time

	progress bool      // a record was settled since the last Open
	moved    time.Time // when that was last, or when the drain began
	draining bool      // the drain was seen
	discard  error     // nothing can be delivered: the last error of Open
	replay   bool      // what is in flight goes to a new Writer
	opened   bool      // there was a Writer since the last attempt began
	again    bool      // it failed while draining: one more attempt
	failures int       // since it worked
	timer    *time.Timer
}

// part is one shard, as its worker sees it.
type part struct {
	reader  *reader
	head    *Batch    // the next one
	excess  int64     // bytes beyond the bound
	checked time.Time // when that was worked out
	open    bool      // collect: a batch of it is not done
}

const (
	firstBackoff   = 100 * time.Millisecond
	standbyBackoff = time.Second
	// tickInterval is how often a worker that can't write looks at its bounds and
	// at its end, and drainInterval the same once it drains.
	tickInterval  = 200 * time.Millisecond
	drainInterval = 20 * time.Millisecond
	// lastAttempt bounds a try to connect again once the consumer is to end.
	lastAttempt = time.Second
)

func newWorker(c *Consumer) *worker {
	w := &worker{Consumer: c, wake: make(chan struct{}, 1), retry: make(chan struct{}, 1)}
	w.timer = time.NewTimer(0)
	w.state.Store(&State{Since: time.Now()})
	return w
}

// errDrained ends a worker: its consumer drains, and there is nothing to do any
// more, or nothing that can be done now.
var errDrained = errors.New("drained")

// run writes until ctx ends, or until the consumer is drained.
func (w *worker) run(ctx context.Context) {
	first := min(firstBackoff, w.opt.Backoff)
	backoff := first
	for {
		err := w.session(ctx)
		w.connected(false, err)
		if ctx.Err() != nil || errors.Is(err, errDrained) {
			return
		}
		if w.progress {
			backoff = first
		}
		failed := w.failed(err)
		if w.hasToEnd() && !w.progress {
			if !w.opened || w.again {
				return // that was the last attempt
			}
			w.again = true
		}
		if errors.Is(err, ErrStandby) {
			backoff = min(backoff, standbyBackoff)
		} else if !failed {
			backoff = first
		}
		// Jitter keeps the workers from knocking at the same moment.
		if w.pause(ctx, backoff/2+w.spool.jitter(backoff)) != nil {
			return
		}
		backoff = min(2*backoff, w.opt.Backoff)
	}
}

// session opens a Writer and uses it until it fails.
func (w *worker) session(ctx context.Context) error {
	w.progress, w.opened = false, false
	if err := w.awaitWork(ctx); err != nil {
		return err
	}
	wr, err := w.open(ctx)
	w.discard = nil
	if errors.Is(err, ErrDiscard) {
		w.discard = err
	}
	if err != nil {
		return err
	}
	w.opened = true
	w.connected(true, nil)
	err = w.serve(ctx, wr)
	err = errors.Join(err, wr.Close())
	w.collect() // what Close found to be done
	return err
}

// awaitWork returns when a Lazy sink has something to write.
func (w *worker) awaitWork(ctx context.Context) error {
	for w.opt.Lazy && len(w.inflight) == 0 {
		p := w.oldest()
		switch {
		case p == nil:
			if w.drained() {
				return errDrained
			}
			if err := w.wait(ctx, w.idleInterval()); err != nil {
				return err
			}
		case w.opt.Skip != nil && w.opt.Skip(p.head):
			w.take(p).Done()
			w.collect()
		default:
			w.take(p)
		}
	}
	return nil
}

// open calls Open, and looks at the bounds and at the drain meanwhile.
func (w *worker) open(ctx context.Context) (wr Writer, err error) {
	select {
	case <-w.retry: // this is the attempt
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		wr, err = w.sink.Open(ctx, w.shards)
	}()
	for {
		w.expire()
		if w.drained() || w.failing() && w.hasToEnd() && time.Since(w.moved) > lastAttempt {
			cancel()
			<-ended
			if err == nil {
				err = wr.Close()
			}
			return nil, errors.Join(errDrained, err)
		}
		t := time.NewTimer(w.idleInterval())
		select {
		case <-ended:
			t.Stop()
			return wr, err
		case <-w.retry:
			cancel()
			<-ended
			if err == nil {
				err = wr.Close()
			}
			return nil, errors.Join(ErrReopen, err)
		case <-w.drainSoon():
		case <-t.C:
		}
		t.Stop()
	}
}

// serve gives batches to a Writer until it fails or the consumer is drained.
func (w *worker) serve(ctx context.Context, wr Writer) error {
	for _, b := range w.inflight {
		b.given = b.done
	}
	w.replay = true
	w.rows, w.size, w.flushed = 0, 0, time.Now()
	for {
		if b := w.next(); b != nil {
			if err := w.write(ctx, wr, b); err != nil {
				return err
			}
			continue
		}
		if left := w.untilFlush(time.Now(), w.hasToEnd()); left <= 0 {
			if err := w.flush(ctx, wr); err != nil {
				return err
			}
		} else if w.drained() {
			return errDrained
		} else {
			if len(w.inflight) == 0 {
				w.works()
			}
			if err := w.wait(ctx, left); err != nil {
				return err
			}
		}
	}
}

// next is the batch to write now: what is in flight and was not given to this
// Writer, then the oldest one that waits.
func (w *worker) next() *Batch {
	if w.replay {
		if i := slices.IndexFunc(w.inflight, func(b *Batch) bool { return !b.given }); i >= 0 {
			return w.inflight[i]
		}
		w.replay = false
	}
	if w.opt.MaxInFlight > 0 && w.bytes > w.opt.MaxInFlight {
		return nil
	}
	if p := w.oldest(); p != nil {
		return w.take(p)
	}
	return nil
}

func (w *worker) write(ctx context.Context, wr Writer, b *Batch) error {
	if w.over(b) {
		w.giveUp(b)
		return nil
	}
	if w.rows == 0 {
		w.began = time.Now()
	}
	b.given = true
	w.rows, w.size = w.rows+max(1, b.Records), w.size+b.Size()
	if err := wr.Write(ctx, b); err != nil {
		return err
	}
	if b.done {
		w.collect()
	}
	if g := w.gather.Load(); g.rows > 0 && w.rows >= g.rows || g.bytes > 0 && w.size >= g.bytes || g.age > 0 && time.Since(w.began) >= g.age {
		return w.flush(ctx, wr)
	}
	return nil
}

func (w *worker) flush(ctx context.Context, wr Writer) error {
	err := wr.Flush(ctx)
	w.rows, w.size, w.flushed = 0, 0, time.Now()
	w.collect()
	if w.progress {
		w.works()
	}
	return err
}

// untilFlush is how long the next Flush has time; draining ones do not wait for
// more to gather.
func (w *worker) untilFlush(now time.Time, draining bool) time.Duration {
	left := w.idleInterval()
	if w.rows > 0 {
		left = w.began.Add(w.gather.Load().age).Sub(now)
		if draining && w.opt.Poll == 0 {
			return 0
		}
	}
	poll := w.opt.IdlePoll
	if len(w.inflight) > 0 {
		poll = w.opt.Poll
	}
	if poll > 0 {
		left = min(left, w.flushed.Add(poll).Sub(now))
	}
	return left
}

// take puts the next batch of a shard in flight.
func (w *worker) take(p *part) *Batch {
	b := p.head
	p.head = nil
	b.part, b.early = p, &w.early
	w.inflight = append(w.inflight, b)
	w.bytes += b.Size()
	return b
}

// oldest is the shard whose next batch was spooled first, of those that have
// one.
func (w *worker) oldest() (first *part) {
	for _, p := range w.parts {
		if p.head == nil {
			select {
			case p.head = <-p.reader.batches:
			default:
				continue
			}
		}
		if first == nil || p.head.taken.Before(first.head.taken) {
			first = p
		}
	}
	return first
}

// collect lets go of the batches that are done, in the order of each shard.
func (w *worker) collect() {
	for _, p := range w.parts {
		p.open = false
	}
	w.inflight = slices.DeleteFunc(w.inflight, func(b *Batch) bool {
		if b.settled > b.seen {
			b.seen = b.settled
			w.progress, w.moved = true, time.Now()
		}
		if b.part.open || !b.done {
			b.part.open = true
			return false
		}
		w.progress, w.moved = true, time.Now()
		w.finish(b)
		return true
	})
}

func (w *worker) finish(b *Batch) {
	if b.Missed > 0 && (!b.Contended || w.opt.OwnsOffset) {
		if n := w.opt.Count.Missed; n != nil {
			n.Add(b.Missed)
		}
		w.log.Error("spool: messages are gone before the sink had them: the spool reached its bounds, or its files are damaged", "shard", b.Shard, "messages_lost", b.Missed)
	}
	w.bytes -= b.Size()
	b.part.reader.Done(b)
	w.early.Add(-int64(b.settled))
	b.Release()
}

// expire gives up what is beyond the bounds while nothing can be written.
func (w *worker) expire() {
	if w.opt.Expired == nil {
		return
	}
	for _, p := range w.parts {
		for {
			var b *Batch
			if i := slices.IndexFunc(w.inflight, func(b *Batch) bool { return b.part == p && !b.done }); i >= 0 {
				b = w.inflight[i]
			} else {
				w.oldest() // fills the heads
				b = p.head
			}
			if b == nil || !w.overPart(p, b) {
				break
			}
			if b == p.head {
				w.take(p)
			}
			w.giveUp(b)
		}
	}
}

// giveUp gives the rest of a batch to Expired.
func (w *worker) giveUp(b *Batch) {
	cause := w.discard
	if cause == nil {
		cause = ErrExpired
	}
	w.opt.Expired(b, cause)
	b.part.excess -= int64(b.Size())
	b.Done()
	was := w.progress
	w.collect()
	w.progress = was
}

func (w *worker) over(b *Batch) bool {
	return w.opt.Expired != nil && w.overPart(b.part, b)
}

// overPart reports whether b, the oldest batch of a shard, is beyond the bounds.
func (w *worker) overPart(p *part, b *Batch) bool {
	bound := w.bounds.Load()
	if w.discard != nil || bound.age > 0 && b.Age() > bound.age {
		return true
	}
	if bound.bytes > 0 && time.Since(p.checked) > time.Second {
		p.checked = time.Now()
		n := p.reader.Waiting()
		limit := bound.bytes / int64(len(w.spool.shards))
		if w.spool.Full() {
			// Half of it goes, so that new messages have room again.
			limit = min(limit, n/2)
		}
		p.excess = n - limit
	}
	return p.excess > 0
}

// hasToEnd reports whether the consumer drains.
func (w *worker) hasToEnd() bool {
	select {
	case <-w.drain:
	default:
		return false
	}
	if !w.draining {
		w.draining, w.moved = true, time.Now()
	}
	return true
}

// drainSoon wakes a waiting worker once, when the drain begins.
func (w *worker) drainSoon() <-chan struct{} {
	if w.draining {
		return nil
	}
	return w.drain
}

// drained reports whether the consumer drains and nothing is left to do.
func (w *worker) drained() bool {
	if !w.hasToEnd() {
		return false
	}
	if p := w.opt.DrainPatience; p > 0 && time.Since(w.moved) > p {
		return true
	}
	if len(w.inflight) > 0 {
		return false
	}
	for _, p := range w.parts {
		// In a cluster the others go on with the rest.
		if p.reader.Pending() > 0 && !p.reader.contended() {
			return false
		}
	}
	return true
}

func (w *worker) idleInterval() time.Duration {
	if w.hasToEnd() {
		return drainInterval
	}
	return tickInterval
}

// wait returns when a shard has a batch, the drain begins, or d is over.
func (w *worker) wait(ctx context.Context, d time.Duration) error {
	w.timer.Reset(d)
	wake := w.wake
	if w.opt.MaxInFlight > 0 && w.bytes > w.opt.MaxInFlight {
		wake = nil
	}
	select {
	case <-wake:
	case <-w.drainSoon():
	case <-w.timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// pause waits between two attempts; the drain ends it.
func (w *worker) pause(ctx context.Context, d time.Duration) error {
	for until := time.Now().Add(d); ; {
		w.expire()
		left := time.Until(until)
		if left <= 0 || w.hasToEnd() {
			return nil
		}
		t := time.NewTimer(min(left, tickInterval))
		select {
		case <-t.C:
		case <-w.drain:
		case <-w.retry:
			t.Stop()
			return nil
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		t.Stop()
	}
}

func (w *worker) failing() bool { return w.state.Load().Err != "" }

// connected notes whether there is a Writer, or the error that ended it.
func (w *worker) connected(yes bool, err error) {
	st := *w.state.Load()
	if yes != st.Connected {
		st.Since = time.Now()
	}
	st.Connected = yes
	if err != nil && !errors.Is(err, errDrained) && !errors.Is(err, ErrReopen) && !errors.Is(err, context.Canceled) {
		st.Err = err.Error()
	}
	w.state.Store(&st)
}

// works notes that the sink takes what it is given, or has nothing to take.
func (w *worker) works() {
	if !w.failing() {
		return
	}
	st := *w.state.Load()
	st.Err = ""
	w.state.Store(&st)
	w.failures = 0
	if retries, told := w.outage.over(w); told {
		w.log.Info("sink: connected again", "pending", w.Pending(), "retries", retries)
	}
}

// failed counts a failure, and logs an outage once and then every minute. That a
// connection broke is none yet: the next attempt says what is wrong.
func (w *worker) failed(err error) bool {
	if errors.Is(err, ErrReopen) {
		return false
	}
	if n := w.opt.Count.Retries; n != nil {
		n.Add(1)
	}
	w.failures++
	if errors.Is(err, ErrStandby) || w.failures == 1 && w.opened {
		return true
	}
	retries, since, due := w.outage.failed(w, err.Error(), time.Now())
	if !due {
		return true
	}
	pending := w.Pending()
	attrs := []any{"err", err, "pending", pending, "retries", retries, "down_since", since.Format(time.DateTime)}
	if pending == 0 {
		w.log.Error("sink: not connected, trying again", attrs...)
	} else {
		w.log.Error("sink: messages wait in the spool, trying again", attrs...)
	}
	return true
}
