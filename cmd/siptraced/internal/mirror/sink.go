package mirror

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
)

// sink is one destination: its settings, its counters, and the Consumer that
// carries the spool to it.
type sink struct {
	m    *Mirrors
	name string // unique, and stays; begins with sinkPrefix
	log  *slog.Logger
	// settings are those in force. They are replaced as a whole, under Mirrors.mu.
	settings atomic.Pointer[Destination]
	// dynamic: it is here because a rule named it, or duplicate_uri did at some
	// time. It is removed when nobody names it any more. Covered by Mirrors.mu.
	dynamic bool
	// used is when it was named last, in Unix nanoseconds, or retired.
	used     atomic.Int64
	resolver atomic.Pointer[resolver]
	resolves context.CancelFunc // ends the resolver; covered by Mirrors.mu
	done     sync.WaitGroup     // of the resolvers

	consumer *spool.Consumer
	sender   *sender

	counts                                    [outcomes]*atomic.Uint64
	missed, refused, connects, bytes, backlog *atomic.Uint64
}

// retired is in sink.used of one that takes no new messages.
const retired = -1

// countNames are the counters of the outcomes.
var countNames = [outcomes]string{sent: "sent", skipped: "skipped", filtered: "filtered", tooLarge: "too_large", failed: "failed", expired: "expired"}

const (
	// maxFlight is how much may be on its way over one connection, in bytes of
	// the spool: more waits for acknowledgements.
	maxFlight = 1 << 20
	// ackPoll is how often the kernel is asked what was acknowledged.
	ackPoll = 10 * time.Millisecond
	// idlePoll is how often an idle connection is looked at.
	idlePoll = 200 * time.Millisecond
	// drainPatience is how long a destination that takes nothing is waited for at
	// the end: what is left stays in the spool.
	drainPatience = 2 * time.Second
	maxBackoff    = 5 * time.Second
)

// newSink makes the sink of a destination and starts it; m.mu is held. It does no
// I/O.
func (m *Mirrors) newSink(name string, d Destination, from spool.From, dynamic bool) *sink {
	s := &sink{m: m, name: sinkPrefix + name, dynamic: dynamic}
	s.log = m.log.With("sink", s.name)
	count := func(name string) *atomic.Uint64 { return m.counters.Counter(s.name + "." + name) }
	for o := range outcomes {
		s.counts[o] = count(countNames[o])
	}
	s.missed, s.refused, s.connects, s.bytes, s.backlog = count("missed"), count("refused"), count("connects"), count("bytes"), count("backlog")
	s.used.Store(time.Now().UnixNano())
	s.set(d)
	s.sender = &sender{sink: s, encoder: encoder{loops: m.loops}}
	s.consumer = m.spool.Run(s.sender, spool.Options{
		Log: m.log, OneWriter: true, Lazy: true, From: from,
		Bytes: maxFlight / 2, Age: 2 * ackPoll, Poll: ackPoll, IdlePoll: idlePoll, MaxInFlight: maxFlight,
		Backoff: maxBackoff, DrainPatience: drainPatience,
		MaxBytes: m.limit(d.MaxBytes), MaxAge: d.MaxAge, Expired: s.sender.expired, Skip: s.sender.skip,
		Count: spool.Counters{Backlog: s.backlog, Before: count("before"), Missed: s.missed, Retries: s.refused},
	})
	m.counters.Gauge(s.name+".pending", s.consumer.Pending)
	m.counters.Gauge(s.name+".lag_seconds", s.consumer.LagSeconds)
	return s
}

// set puts settings into force; m.mu is held, or the sink is new.
func (s *sink) set(d Destination) {
	old := s.settings.Load()
	if d.marks = time.Now(); old != nil && old.hepVersion() == 3 {
		d.marks = old.marks
	}
	s.settings.Store(&d)
	if s.consumer != nil {
		s.consumer.SetBounds(s.m.limit(d.MaxBytes), d.MaxAge)
		s.consumer.Retry()
	}
	if old != nil && old.Host == d.Host && old.Port == d.Port {
		return
	}
	if old != nil {
		s.resolves()
	}
	r := newResolver(d.Target, s.m.cfg.Lookup, s.log)
	s.resolver.Store(r)
	ctx, cancel := context.WithCancel(context.Background())
	s.resolves = cancel
	s.done.Go(func() { r.run(ctx) })
}

// stop lets the destination take what the spool holds until ctx ends.
func (s *sink) stop(ctx context.Context) {
	s.resolver.Load().giveUp()
	s.consumer.Stop(ctx)
	s.resolves()
	s.done.Wait()
}

// remove ends the destination at once, and drops what waits for it: it returns
// how many messages that was.
func (s *sink) remove() (dropped uint64) {
	dropped = s.consumer.Remove()
	s.resolves()
	s.done.Wait()
	return dropped
}

// limit is a destination's bound in bytes: all mirrors leave half of the spool to
// new messages.
func (m *Mirrors) limit(bytes int64) int64 {
	if m.cfg.SpoolBytes > 0 {
		bytes = min(bytes, m.cfg.SpoolBytes/2)
	}
	return bytes
}

// touch notes that somebody names the destination. It is false for one that is
// retired.
func (s *sink) touch() bool {
	now := time.Now().UnixNano()
	for {
		last := s.used.Load()
		switch {
		case last == retired:
			return false
		case now-last < int64(time.Second), s.used.CompareAndSwap(last, now):
			return true
		}
	}
}
