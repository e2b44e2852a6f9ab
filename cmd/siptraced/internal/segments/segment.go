package segments

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
)

// The names of a log's files. The name of a segment has the number of its first entry,
// the total before that, the ordinal of the file in the log, and the timeline of its
// entries. What is in a later file counts, where two have the same numbers.
const (
	segmentSuffix = ".log"
	indexSuffix   = ".idx"
	// tempPrefix begins the names of files that are not complete yet.
	tempPrefix = "new-"
	spareName  = "spare"
	tailName   = "tail"
)

// state is how far something came in a segment.
type state struct {
	end         int64 // behind the last record
	last, total uint64
}

// mark is where an entry begins. before is the total before it.
type mark struct {
	seq, before uint64
	off         int64
}

// markEvery is how many bytes lie between two marks, at least.
const markEvery = 256 << 10

// segment is one file of a log. Its fields are covered by the mutex of the log, but
// those that never change.
type segment struct {
	first      uint64
	ordinal    uint32
	timeline   uint64
	timelineID string
	next       uint64 // the number of the first entry of the segment behind it
	before     uint64 // the total before the first entry

	// written is what the file has; of that readers get what is published, and a loss
	// of power costs what is not synced.
	written, published, synced state

	size   int64 // of the file
	dead   int64 // bytes of published that were given up
	oldest int64 // when the first entry was taken, and when the last one: Unix
	newest int64 // nanoseconds. 0: there is none

	file    disk.File // open while it is written or synced
	named   bool      // the name is synced
	sealed  bool      // nothing is added any more
	indexed bool      // the index is written
	retired bool      // not of the log any more
	cut     bool      // there may be records behind its end that don't count
	marks   []mark    // while it is not indexed
}

func (s *segment) stem() string {
	return fmt.Sprintf("%020d-%020d-%06d-%016x", s.first, s.before, s.ordinal, s.timeline)
}

func (s *segment) name() string  { return s.stem() + segmentSuffix }
func (s *segment) index() string { return s.stem() + indexSuffix }

// parseSegment reads the name of a segment.
func parseSegment(name string) (s *segment, ok bool) {
	stem, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return nil, false
	}
	parts := strings.Split(stem, "-")
	if len(parts) != 4 {
		return nil, false
	}
	first, err1 := strconv.ParseUint(parts[0], 10, 64)
	before, err2 := strconv.ParseUint(parts[1], 10, 64)
	ordinal, err3 := strconv.ParseUint(parts[2], 10, 32)
	timeline, err4 := strconv.ParseUint(parts[3], 16, 64)
	s = &segment{first: first, before: before, ordinal: uint32(ordinal), timeline: timeline, next: noNext}
	return s, errors.Join(err1, err2, err3, err4) == nil && first > 0 && s.name() == name
}

func (s *segment) live() int64 { return s.published.end - s.dead }

// add notes a record that was written at off.
func (s *segment) add(h *header) {
	if n := len(s.marks); n == 0 || h.off-s.marks[n-1].off >= markEvery {
		s.marks = append(s.marks, mark{h.seq, h.before(), h.off})
	}
	if s.oldest == 0 {
		s.oldest = h.taken
	}
	s.newest = h.taken
	s.written = state{h.off + h.size(), h.seq, h.total}
}

// supersede leaves of segments what counts, in their order: from the first number of a
// later file on, earlier ones have nothing to say.
func supersede(all []*segment) (kept, gone []*segment) {
	slices.SortFunc(all, func(a, b *segment) int { return int(int64(a.ordinal) - int64(b.ordinal)) })
	for _, s := range all {
		for len(kept) > 0 && kept[len(kept)-1].first >= s.first {
			gone = append(gone, kept[len(kept)-1])
			kept = kept[:len(kept)-1]
		}
		kept = append(kept, s)
	}
	return kept, gone
}

func timelineName(log int, id uint64) string { return fmt.Sprintf("SIPTRACED_%d@%016x", log, id) }

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// maxRoom is that of a log without bounds.
const maxRoom = math.MaxInt64
