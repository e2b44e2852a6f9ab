package spool

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Consumer carries the spool to one sink: it gathers batches, keeps those in
// flight, and gives them again after a failure.
type Consumer struct {
	spool   *Spool
	sink    Sink
	opt     Options
	log     *slog.Logger
	readers []*reader
	workers []*worker
	gather  atomic.Pointer[gather]
	// early are records that are settled, in batches that still count as waiting.
	early atomic.Int64

	// bounds are those of the backlog, in force at this moment.
	bounds atomic.Pointer[bounds]

	outage outage

	drain     chan struct{} // closed when the consumer is to end
	drainOnce sync.Once
	cancel    context.CancelFunc
	ended     chan struct{} // closed when all workers and readers ended
}

// gather is when Flush is called: Options.Rows, Bytes and Age.
type gather struct {
	rows, bytes int
	age         time.Duration
}

// SetGather changes the Rows, Bytes and Age of its Options, from the next batch on.
func (c *Consumer) SetGather(rows, bytes int, age time.Duration) {
	c.gather.Store(&gather{rows, bytes, age})
}

// Run starts to consume for a sink, where it stopped the last time. It does no
// I/O and waits for nothing: offsets and connections come later, in the
// background. From this moment on the spool keeps what the sink needs.
func (s *Spool) Run(k Sink, opt Options) *Consumer {
	c := &Consumer{spool: s, sink: k, opt: opt, log: opt.Log, drain: make(chan struct{}), ended: make(chan struct{})}
	c.SetGather(opt.Rows, opt.Bytes, opt.Age)
	if c.log == nil {
		c.log = s.log
	}
	c.log = c.log.With("sink", k.Name())
	if c.opt.Backoff == 0 {
		c.opt.Backoff = 10 * time.Second
	}
	c.SetBounds(opt.MaxBytes, opt.MaxAge)
	run, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	var all sync.WaitGroup
	var w *worker
	for _, sh := range s.shards {
		if w == nil || !opt.OneWriter {
			w = newWorker(c)
			c.workers = append(c.workers, w)
		}
		r := s.reserve(k.Name(), sh, opt.From)
		r.wake, r.resumed = w.wake, func() { c.countBacklog(r) }
		c.readers = append(c.readers, r)
		w.parts = append(w.parts, &part{reader: r})
		w.shards = append(w.shards, Shard{Index: sh.index, ID: sh.log.ID(), Contended: r.contended(), reader: r})
	}
	for _, r := range c.readers {
		if r.known && !r.contended() {
			c.countBacklog(r)
		}
	}
	s.register(c.readers)
	for _, r := range c.readers {
		r.start(run)
	}
	for _, w := range c.workers {
		all.Go(func() { w.run(run) })
	}
	go func() {
		all.Wait()
		cancel()
		for _, r := range c.readers {
			<-r.stopped
		}
		close(c.ended)
	}()
	return c
}

func (c *Consumer) countBacklog(r *reader) {
	waiting, before := r.began()
	if n := c.opt.Count.Backlog; n != nil {
		n.Add(waiting)
	}
	if n := c.opt.Count.Before; n != nil {
		n.Add(before)
	}
}

// bounds are those of a backlog; 0: none.
type bounds struct {
	bytes int64
	age   time.Duration
}

// Retry has the sink try to connect at once: what kept it from that may have been
// mended.
func (c *Consumer) Retry() {
	for _, w := range c.workers {
		select {
		case w.retry <- struct{}{}:
		default:
		}
	}
}

// WaitingBytes estimates what waits for the sink, in bytes of the spool.
func (c *Consumer) WaitingBytes() (n int64) {
	for _, r := range c.readers {
		n += r.Waiting()
	}
	return n
}

// SetBounds replaces Options.MaxBytes and MaxAge.
func (c *Consumer) SetBounds(bytes int64, age time.Duration) { c.bounds.Store(&bounds{bytes, age}) }

// Name is the sink's name.
func (c *Consumer) Name() string { return c.sink.Name() }

// Pending is how many records wait for the sink.
func (c *Consumer) Pending() (n uint64) {
	for _, r := range c.readers {
		n += r.Pending()
	}
	return n - min(n, uint64(max(0, c.early.Load())))
}

// Lag is the age of the oldest message that waits for the sink: how long ago the
// spool took it. 0: none waits.
func (c *Consumer) Lag() (d time.Duration) {
	for _, r := range c.readers {
		d = max(d, r.Lag())
	}
	return d
}

// LagSeconds is the lag in whole seconds.
func (c *Consumer) LagSeconds() uint64 { return uint64(c.Lag().Seconds()) }

// State is how the sink does: of several Writers, the one that fails longest.
func (c *Consumer) State() State {
	var worst State
	for i, w := range c.workers {
		st := *w.state.Load()
		if i == 0 || worst.Connected && !st.Connected || worst.Connected == st.Connected && st.Since.Before(worst.Since) {
			worst = st
		}
	}
	return worst
}

// stopGrace is how long a Writer may take to come back after its context ended.
const stopGrace = 500 * time.Millisecond

// Stop lets the sink take what the spool holds, until ctx ends, and ends the
// consumer. It does not wait for a sink that fails: what is left, and the
// offset, stay in the spool.
func (c *Consumer) Stop(ctx context.Context) {
	c.drainOnce.Do(func() { close(c.drain) })
	if n := c.Pending(); n > 0 {
		c.log.Info("sink: waiting for it to take what the spool holds", "messages", n)
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.halt()
	}
	if n := c.Pending(); n > 0 {
		c.log.Warn("sink: not everything was delivered in time, the rest stays in the spool for the next start", "messages", n)
	}
}

// halt ends the consumer at once.
func (c *Consumer) halt() {
	c.drainOnce.Do(func() { close(c.drain) })
	c.cancel()
	select {
	case <-c.ended:
	case <-time.After(stopGrace):
		c.log.Warn("sink: it is stuck, going on without it", "messages", c.Pending())
	}
}

// Remove ends the consumer at once and forgets its offset: the spool keeps
// nothing for it any longer. It returns how many records waited.
func (c *Consumer) Remove() (dropped uint64) {
	c.halt()
	dropped = c.Pending()
	c.spool.remove(c.readers)
	return dropped
}
