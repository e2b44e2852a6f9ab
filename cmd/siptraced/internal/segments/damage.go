package segments

import (
	"cmp"
	"slices"
)

// damage is which records of a log are known to be missing, by their totals: those of
// a span are behind from, up to to. Spans are in order, and do not touch.
type damage struct{ spans []span }

type span struct{ from, to uint64 }

// add adds a span, and returns how many of its records were not known to be missing.
func (d *damage) add(s span) (more uint64) {
	i, _ := slices.BinarySearchFunc(d.spans, s.from, func(have span, from uint64) int { return cmp.Compare(have.to, from) })
	more = s.to - s.from
	j := i
	for ; j < len(d.spans) && d.spans[j].from <= s.to; j++ {
		have := d.spans[j]
		if over, until := max(have.from, s.from), min(have.to, s.to); until > over {
			more -= until - over
		}
		s = span{min(s.from, have.from), max(s.to, have.to)}
	}
	d.spans = slices.Replace(d.spans, i, j, s)
	return more
}

// forget lets go of what is missing up to a total.
func (d *damage) forget(upTo uint64) {
	n := 0
	for n < len(d.spans) && d.spans[n].to <= upTo {
		n++
	}
	d.spans = slices.Delete(d.spans, 0, n)
}
