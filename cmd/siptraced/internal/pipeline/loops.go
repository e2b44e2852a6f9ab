package pipeline

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/compat/siptrace"
)

const (
	// recentSlots is how many messages are remembered: the last ones at 1,000 per
	// second of recentAge.
	recentSlots = 1 << 16
	recentAge   = time.Minute
)

// recent remembers messages of the last minute by their hash, in bounded
// memory: a newer one takes an older one's place. Safe for concurrent use.
type recent struct {
	seed  maphash.Seed
	slots []slot
}

// slot is one message. Its three words are not changed together: what is read
// of two messages at once matches neither.
type slot struct{ hash, sender, at atomic.Uint64 }

func newRecent() *recent {
	return &recent{seed: maphash.MakeSeed(), slots: make([]slot, recentSlots)}
}

// note remembers a message, unless it is remembered already: then fromOther
// reports whether that one had another sender. What was noted before since counts
// as forgotten.
func (r *recent) note(hash uint64, sender netip.AddrPort, now, since time.Time) (fromOther bool) {
	s := &r.slots[hash%recentSlots]
	who := maphash.Comparable(r.seed, sender)
	if at := time.Unix(0, int64(s.at.Load())); s.hash.Load() == hash && now.Sub(at) < recentAge && !at.Before(since) {
		return s.sender.Load() != who
	}
	s.hash.Store(hash)
	s.sender.Store(who)
	s.at.Store(uint64(now.UnixNano()))
	return false
}

// has reports whether a message is remembered.
func (r *recent) has(hash uint64, now time.Time) bool {
	s := &r.slots[hash%recentSlots]
	return s.hash.Load() == hash && now.Sub(time.Unix(0, int64(s.at.Load()))) < recentAge
}

// moment is the hash of a message at the moment it was captured: text, ends and
// time to the microsecond. A retransmission has another time.
func (r *recent) moment(rec *siptrace.Record) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	var b [8 + 18 + 18]byte
	binary.LittleEndian.PutUint64(b[:], uint64(rec.Time.UnixMicro()))
	putEnd(b[8:], rec.From)
	putEnd(b[26:], rec.To)
	h.Write(b[:])
	h.Write(rec.Msg)
	return h.Sum64()
}

func putEnd(b []byte, e siptrace.Endpoint) {
	ip := e.Addr.Addr().As16()
	copy(b, ip[:])
	binary.LittleEndian.PutUint16(b[16:], e.Addr.Port())
}

// text is the hash of a message's text from one host.
func (r *recent) text(payload []byte, host netip.Addr) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	ip := host.As16()
	h.Write(ip[:])
	h.Write(payload)
	return h.Sum64()
}

// How often others than the first sender may send a message: the next proxy
// mirrors it too, and over UDP it is retransmitted 10 times in 32 seconds at the
// most, at intervals that begin with half a second (RFC 3261 §17.1). What goes
// round between two mirrors comes every few milliseconds, and for ever.
const (
	mostAgain      = 12
	againAge       = 10 * time.Second
	mostAgainSoon  = 3
	againSoon      = 250 * time.Millisecond
	repeatersSlots = 1 << 14
)

// repeats finds messages that go round where nothing but their text is left to
// know them by: HEP1, SIP without headers, HEP with the time of relaying. It is
// bounded; what a message's first sender sends again is never held against it.
type repeats struct {
	seed maphash.Seed

	mu    sync.Mutex // covers slots
	slots []repeat
}

// repeat is one message: who sent it first, and when it came last, by our clock;
// of the copies of others, when the first and the latest were captured.
type repeat struct {
	hash        uint64
	sender      netip.AddrPort
	seen        time.Time
	first, last int64 // Unix nanoseconds
	copies      int
}

func newRepeats() *repeats {
	return &repeats{seed: maphash.MakeSeed(), slots: make([]repeat, repeatersSlots)}
}

// tooMany notes a copy that was captured at a moment and came now, and reports
// whether it is one of too many. What came before since counts as forgotten.
func (r *repeats) tooMany(payload []byte, sender netip.AddrPort, moment, now, since time.Time) bool {
	// The ends are no help: a message that came by HEP may come back as SIP.
	hash, at := maphash.Bytes(r.seed, payload), moment.UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.slots[hash%repeatersSlots]
	if s.hash != hash || now.Sub(s.seen) > recentAge || s.seen.Before(since) {
		*s = repeat{hash: hash, sender: sender}
	}
	s.seen = now
	if s.sender == sender {
		return false
	}
	if s.copies == 0 || at-s.last > int64(againAge) || at < s.first {
		s.first, s.copies = at, 0
	}
	s.last = at
	s.copies++
	return s.copies > mostAgain || s.copies > mostAgainSoon && at-s.first < int64(againSoon)
}
