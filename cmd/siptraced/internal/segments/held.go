package segments

import "siptraced/cmd/siptraced/internal/journal"

// mostHeld bounds what is held of entries that are not synced, in bytes. Beyond it they
// are read from the file, should they be needed. perHeld is what each takes beside its
// bytes.
const (
	mostHeld = 16 << 20
	perHeld  = 256
)

// held keeps entries in memory until they are synced.
type held struct {
	entries []journal.Entry // in their order
	bytes   int64
}

func (h *held) add(e *journal.Entry) {
	size := int64(len(e.Data)) + perHeld
	if h.bytes+size > mostHeld {
		return
	}
	if e.Memory != nil {
		e.Memory.Retain()
	}
	h.bytes += size
	h.entries = append(h.entries, *e)
}

// release lets go of the entries up to a number.
func (h *held) release(upTo uint64) {
	n := 0
	for ; n < len(h.entries) && h.entries[n].Seq <= upTo; n++ {
		e := &h.entries[n]
		h.bytes -= int64(len(e.Data)) + perHeld
		release(e)
	}
	left := copy(h.entries, h.entries[n:])
	clear(h.entries[left:])
	h.entries = h.entries[:left]
}
