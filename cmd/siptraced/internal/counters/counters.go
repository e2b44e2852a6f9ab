// Package counters is the accounting: every message that is read has exactly one
// [Outcome], which is counted, and [Accounting] says which sums are equal.
//
//	c := counters.New()
//	rejected := c.Counter("rejected.hep_truncated")
//	rejected.Add(1)
//	snapshot := c.Snapshot()
package counters

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// Set is a group of named counters. Names have a place and, after a dot, a
// cause. Safe for concurrent use.
type Set struct {
	mu     sync.RWMutex // covers the maps
	own    map[string]*atomic.Uint64
	funcs  map[string]func() uint64
	gauges map[string]struct{}
}

// New makes an empty set.
func New() *Set {
	return &Set{own: map[string]*atomic.Uint64{}, funcs: map[string]func() uint64{}, gauges: map[string]struct{}{}}
}

// Counter returns the counter of that name, made at first use. What counts per
// message keeps the pointer.
func (s *Set) Counter(name string) *atomic.Uint64 {
	s.mu.RLock()
	c := s.own[name]
	s.mu.RUnlock()
	if c != nil {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c = s.own[name]; c == nil {
		c = new(atomic.Uint64)
		s.own[name] = c
	}
	return c
}

// Func adds a counter that somebody else keeps.
func (s *Set) Func(name string, f func() uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.funcs[name] = f
}

// Gauge adds a value of the moment that somebody else knows: it may fall, and begins
// at no zero.
func (s *Set) Gauge(name string, f func() uint64) {
	s.Func(name, f)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gauges[name] = struct{}{}
}

// IsGauge reports whether a name is that of a value of the moment.
func (s *Set) IsGauge(name string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.gauges[name]
	return ok
}

// Snapshot is the present value of each counter.
func (s *Set) Snapshot() map[string]uint64 {
	s.mu.RLock()
	out := make(map[string]uint64, len(s.own)+len(s.funcs))
	for n, c := range s.own {
		out[n] = c.Load()
	}
	funcs := maps.Clone(s.funcs)
	s.mu.RUnlock()
	// They take locks of their own, below which others ask for counters.
	for n, f := range funcs {
		out[n] = f()
	}
	return out
}

// Fold adds the counters whose names begin with prefix to those of the same name
// under another prefix, and forgets them.
func (s *Set) Fold(prefix, into string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.own {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		delete(s.own, name)
		sum := s.own[into+rest]
		if sum == nil {
			sum = new(atomic.Uint64)
			s.own[into+rest] = sum
		}
		sum.Add(c.Load())
	}
	for name := range s.funcs {
		if strings.HasPrefix(name, prefix) {
			delete(s.funcs, name)
			delete(s.gauges, name)
		}
	}
}
