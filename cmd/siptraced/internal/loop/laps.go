package loop

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLaps is how often within lapTime a sender may repeat a text that it was not
	// the first to send. Over UDP a request is sent 11 times at the most (RFC 3261
	// §17.1), by each of its branches.
	maxLaps = 64
	lapTime = time.Minute
	// firstSlots and lapSlots bound the memory; a newer text takes an older one's
	// place.
	firstSlots = 1 << 16
	lapSlots   = 1 << 14
)

// laps counts how often senders that do not answer return a text. It is what ends
// a loop by way of other programs.
type laps struct {
	seed   uint64
	firsts [firstSlots]atomic.Uint64 // text and first sender
	slots  [lapSlots]lap             // the caller of tooMany holds a lock
}

type lap struct {
	key   uint64 // text and sender
	since int64  // Unix nanoseconds
	count int
}

func newLaps() *laps { return &laps{seed: rand.Uint64()} }

func (l *laps) key(hash uint64, from netip.AddrPort) uint64 {
	a := from.Addr().As16()
	return hash ^ mix(word(a[:])^l.seed^uint64(from.Port()), word(a[8:])^l.seed)
}

// first notes the sender of a text that is not out.
func (l *laps) first(hash uint64, from netip.AddrPort) {
	l.firsts[hash%firstSlots].Store(l.key(hash, from))
}

// tooMany counts a text that was sent from here before, and reports whether its
// sender returns it over and over.
func (l *laps) tooMany(hash uint64, from netip.AddrPort, now time.Time) bool {
	key := l.key(hash, from)
	if l.firsts[hash%firstSlots].Load() == key {
		return false
	}
	s := &l.slots[key%lapSlots]
	if s.key != key || now.UnixNano()-s.since > int64(lapTime) {
		*s = lap{key: key, since: now.UnixNano()}
	}
	s.count++
	return s.count > maxLaps
}

// noticeInterval is how often one thing is logged.
const noticeInterval = time.Minute

// notice counts messages that something is done with, which is logged now and then.
type notice struct {
	mu   sync.Mutex // covers what follows
	n    uint64
	next time.Time
}

// count is how many there are with this one, and whether to log that.
func (n *notice) count(now time.Time) (soFar uint64, due bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n++
	if due = !now.Before(n.next); due {
		n.next = now.Add(noticeInterval)
	}
	return n.n, due
}
