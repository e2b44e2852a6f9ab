package siptrace

import (
	"hash/maphash"
	"sync"
	"time"

	"siptraced/compat/sipmsg"
)

const (
	// spiralAge is how long the second copy of a message may take: the life of
	// a transaction over UDP (RFC 3261 §17.1.1.2, Timer B, 64*T1).
	spiralAge = 32 * time.Second
	// maxSpirals bounds the first copies that wait for their second one.
	maxSpirals = 16384
)

// spirals pairs the two mirror copies of messages that the proxy sent to
// itself. The zero value is ready.
type spirals struct {
	mu    sync.Mutex // covers all below
	seed  maphash.Seed
	first map[uint64]time.Time
	queue []spiral // in order of time; those before head have left
	head  int
}

type spiral struct {
	key  uint64
	time time.Time
}

// second reports whether c is the second of two copies of a message, and
// remembers it if it is the first. Copies are told by what makes a message what
// it is, not byte by byte: a script that mirrors a received message after it
// lowered Max-Forwards shows the lowered value.
func (s *spirals) second(c *Capture, m *sipmsg.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		s.seed, s.first = maphash.MakeSeed(), map[uint64]time.Time{}
	}
	var h maphash.Hash
	h.SetSeed(s.seed)
	field := func(b []byte) {
		n := len(b)
		h.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16)})
		h.Write(b)
	}
	ends := [...]byte{byte(c.Src.Port()), byte(c.Src.Port() >> 8), byte(c.Dst.Port()), byte(c.Dst.Port() >> 8)}
	src, dst := c.Src.Addr().As16(), c.Dst.Addr().As16()
	h.Write(ends[:])
	h.Write(src[:])
	h.Write(dst[:])
	if len(m.Via.Branch) == 0 {
		field(c.Payload)
	} else {
		for _, b := range [...][]byte{m.Via.Branch, m.Via.Host, m.Via.Port, m.Method, m.RequestURI, m.Status, m.CSeqNumber, m.CSeqMethod, m.CallID, m.From.Tag, m.To.Tag} {
			field(b)
		}
	}
	key := h.Sum64()

	s.expire(c.Time)
	if t, ok := s.first[key]; ok {
		delete(s.first, key)
		return c.Time.Sub(t) <= spiralAge
	}
	s.first[key] = c.Time
	s.queue = append(s.queue, spiral{key, c.Time})
	return false
}

func (s *spirals) expire(now time.Time) {
	for s.head < len(s.queue) {
		e := s.queue[s.head]
		if len(s.queue)-s.head < maxSpirals && now.Sub(e.time) <= spiralAge {
			break
		}
		if t, ok := s.first[e.key]; ok && t.Equal(e.time) {
			delete(s.first, e.key)
		}
		s.head++
	}
	if s.head > 1024 && s.head > len(s.queue)/2 {
		s.queue = append(s.queue[:0], s.queue[s.head:]...)
		s.head = 0
	}
}
