package scope

import (
	"bytes"
	"unsafe"

	"siptraced/compat/siptrace"
)

// ring keeps copies of the messages of the last moments. Their bytes lie one
// after another in a circle of memory; the oldest give way to new ones.
type ring struct {
	entries []entry // a circle too
	head, n int     // oldest, and how many
	mem     []byte
	end     int // of the newest in mem
}

type entry struct {
	call       uint64
	wall       int64
	start, end int      // in mem
	given      []uint64 // rules that Start handed it back for
	rec        siptrace.Record
}

// at returns the i-th entry, oldest first.
func (g *ring) at(i int) *entry { return &g.entries[(g.head+i)%len(g.entries)] }

// put keeps a copy of r, all in all in limit bytes, and drops what is older than since.
func (g *ring) put(call uint64, now, since int64, limit int, r *siptrace.Record) {
	if g.mem == nil {
		g.mem = make([]byte, limit*5/8) // a record beside each 800 bytes of text
		g.entries = make([]entry, max(1, limit*3/8/int(unsafe.Sizeof(entry{}))))
	}
	g.trim(since)
	size := r.Size()
	if size > len(g.mem)/2 {
		return // nothing of the rest would be left
	}
	start := g.end
	if start+size > len(g.mem) {
		// What lies there is older than everything at the front.
		for g.n > 0 && g.at(0).start >= g.end {
			g.drop()
		}
		start = 0
	}
	for g.n > 0 && (g.n == len(g.entries) || g.at(0).start < start+size && g.at(0).end > start) {
		g.drop()
	}
	g.n++
	e := g.at(g.n - 1)
	e.call, e.wall, e.start, e.end = call, now, start, start+size
	r.CloneInto(&e.rec, g.mem[start:start:start+size])
	g.end = start + size
}

func (g *ring) trim(since int64) {
	for g.n > 0 && g.at(0).wall < since {
		g.drop()
	}
}

func (g *ring) drop() {
	g.at(0).rec, g.at(0).given = siptrace.Record{}, nil
	g.head = (g.head + 1) % len(g.entries)
	if g.n--; g.n == 0 {
		g.end = 0
	}
}

// newest returns the newest copy of r itself, nil if there is none.
func (g *ring) newest(call uint64, r *siptrace.Record) *entry {
	for i := g.n - 1; i >= 0; i-- {
		e := g.at(i)
		if e.call == call && e.rec.Time.Equal(r.Time) && e.rec.From == r.From && e.rec.To == r.To && bytes.Equal(e.rec.Msg, r.Msg) {
			return e
		}
	}
	return nil
}
