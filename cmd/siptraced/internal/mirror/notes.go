package mirror

import (
	"sync/atomic"

	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// maxNoted is how many batches are remembered: destinations that keep up are less
// apart.
const maxNoted = 128

// notes is the accounting of the copies that carry a path, for the loop detector.
// Whichever destination sends a record first notes the copies of all of them, so
// that a text is hashed once. The zero value is ready; safe for concurrent use.
type notes struct {
	batches [maxNoted]atomic.Pointer[noted]
}

// noted says which records of a batch are noted already.
type noted struct {
	shard             int
	seq               uint64
	listed, duplicate int // destinations that send what is listed, or meant for duplicate_uri, with a path
	records           []atomic.Uint32
}

// of is what the destinations have in common of a batch. It is nil where each
// notes its own copies: there is one destination, it is far behind the others, or
// other instances send the batch too.
func (n *notes) of(b *spool.Batch, m *Mirrors) *noted {
	if b.Shared {
		return nil
	}
	const wordBits = 32
	place := &n.batches[(b.Seq+uint64(b.Shard)*(maxNoted/8))%maxNoted]
	for {
		old := place.Load()
		switch {
		case old == nil || old.shard != b.Shard || old.seq < b.Seq:
		case old.seq > b.Seq:
			return nil
		default:
			return old
		}
		listed, duplicate, all := m.marking()
		if all < 2 {
			return nil
		}
		fresh := &noted{shard: b.Shard, seq: b.Seq, listed: listed, duplicate: duplicate, records: make([]atomic.Uint32, (b.Records+wordBits-1)/wordBits)}
		if place.CompareAndSwap(old, fresh) {
			return fresh
		}
	}
}

// marking counts the destinations that send HEP3, and all.
func (m *Mirrors) marking() (listed, duplicate, all int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.sinks {
		switch d := s.settings.Load(); {
		case d.hepVersion() != 3:
		case d.Static:
			listed++
		case d.Duplicate:
			duplicate++
		}
	}
	return listed, duplicate, len(m.sinks)
}

// note has loops know that copies of a record of the batch, the i-th from 0 on, are
// about to be sent. A destination that comes later finds it noted only when loops
// know it: what is sent may come back at once.
func (n *noted) note(loops *loop.Detector, rec *siptrace.Record, i int) {
	word, bit := &n.records[i/32], uint32(1)<<(i%32)
	if word.Load()&bit == 0 {
		loops.SentMarked(rec.Msg, n.copies(rec))
		word.Or(bit)
	}
}

// copies is how many destinations send a record with a path, at the most: a filter
// may say no.
func (n *noted) copies(rec *siptrace.Record) (copies int) {
	if rec.Sinks&siptrace.ToListed != 0 {
		copies = n.listed
	}
	switch {
	case rec.Sinks&siptrace.ToHEP == 0:
	case rec.Destinations == nil:
		copies += n.duplicate
	default:
		copies += len(rec.Destinations)
	}
	return max(copies, 1)
}
