package pipeline

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
)

const (
	// pairSlots is how many messages are remembered: the last ones at 1,000 per
	// second of pairAge.
	pairSlots = 1 << 16
	pairAge   = time.Minute
)

// pairs remembers what came by HEP in the last minute, in bounded memory: a newer
// message takes an older one's place. Where a proxy mirrors each message by HEP
// and as SIP, the second one is no other message. Safe for concurrent use.
type pairs struct {
	seed  maphash.Seed
	slots [pairSlots]pair
}

// pair is one message. Its two words are not changed together: what is read of
// two messages at once matches neither.
type pair struct{ hash, at atomic.Uint64 }

func newPairs() *pairs { return &pairs{seed: maphash.MakeSeed()} }

// seen reports whether a text came by HEP from the same host lately, and does not
// come by HEP now.
func (p *pairs) seen(text []byte, in *ingest.Packet, isHEP bool) bool {
	var h maphash.Hash
	h.SetSeed(p.seed)
	ip := in.Source.Addr().As16()
	h.Write(ip[:])
	h.Write(text)
	hash := h.Sum64()
	s := &p.slots[hash%pairSlots]
	if isHEP {
		s.hash.Store(hash)
		s.at.Store(uint64(in.Time.UnixNano()))
		return false
	}
	return s.hash.Load() == hash && in.Time.Sub(time.Unix(0, int64(s.at.Load()))) < pairAge
}
