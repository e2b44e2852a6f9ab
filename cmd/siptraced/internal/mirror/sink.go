package mirror

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// sink is one destination: its sender and its counters.
type sink struct {
	Destination
	m   *Mirrors
	log *slog.Logger
	// duplicate: it is one of duplicate_uri, at this moment.
	duplicate atomic.Bool
	// dynamic: a rule named it. It is removed when it is idle. used is when it was
	// named last, in Unix nanoseconds.
	dynamic bool
	used    atomic.Int64

	resolver *resolver
	readers  []*spool.Reader
	sender   *sender

	counts                                    [outcomes]*atomic.Uint64
	missed, refused, connects, bytes, backlog *atomic.Uint64
	early                                     atomic.Int64 // counted, of batches that still count as pending

	mu       sync.Mutex // covers what follows
	texts    map[string]bool
	warnedAt [outcomes]time.Time

	drain chan struct{}
	stop  func()
	done  sync.WaitGroup
}

// countNames are the counters of the outcomes.
var countNames = [outcomes]string{sent: "sent", skipped: "skipped", filtered: "filtered", tooLarge: "too_large", failed: "failed", expired: "expired"}

// takes reports whether a record is meant for the destination.
func (s *sink) takes(rec *siptrace.Record) bool {
	switch {
	case s.Static:
		return rec.Sinks&siptrace.ToListed != 0
	case rec.Sinks&(siptrace.ToHEP|siptrace.ToSIP) == 0:
		return false
	case rec.Destinations == nil:
		return s.duplicate.Load()
	}
	for _, d := range rec.Destinations {
		if s.is(d) {
			return true
		}
	}
	return false
}

// maxTexts bounds the ways of writing a destination that are remembered.
const maxTexts = 256

// is reports whether a URI names the destination, in whatever way it is written.
func (s *sink) is(uri string) bool {
	if uri == s.URI {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	same, ok := s.texts[uri]
	if !ok {
		t, _, err := ParseTarget(uri)
		same = err == nil && t == s.Target
		if s.texts == nil || len(s.texts) >= maxTexts {
			s.texts = map[string]bool{}
		}
		s.texts[uri] = same
	}
	return same
}

// warnInterval is how often one cause is logged.
const warnInterval = time.Minute

// book counts what became of one record.
func (s *sink) count(o outcome) {
	s.counts[o].Add(1)
	s.early.Add(1)
	if o < tooLarge {
		return
	}
	s.mu.Lock()
	again := time.Since(s.warnedAt[o]) >= warnInterval
	if again {
		s.warnedAt[o] = time.Now()
	}
	s.mu.Unlock()
	if again {
		s.log.Warn("mirror: messages are not sent", "cause", countNames[o], "so_far", s.counts[o].Load())
	}
}

// pending is how many messages wait for the destination.
func (s *sink) pending() (n uint64) {
	for _, r := range s.readers {
		n += r.Pending()
	}
	return n - min(n, uint64(max(0, s.early.Load())))
}

// lagSeconds is how far the slowest shard is behind the intake.
func (s *sink) lagSeconds() (n uint64) {
	for _, r := range s.readers {
		n = max(n, uint64(max(0, r.Lag()).Seconds()))
	}
	return n
}
