package segments

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
)

// One wrong bit of a header does no harm, two are told from it, and a header that is
// whole counts at its place only.
func TestHeader(t *testing.T) {
	want := header{length: 70_000, seq: 77, total: 9_000, taken: 1_700_000_000_000_000_000, records: 64, sum: 0xdeadbeef, timeline: 0x123456789abcdef0, off: 4096}
	o := origin{timeline: want.timeline, first: 50, next: 100}
	var b [headerSize]byte
	want.put(b[:])
	for bit := range headerSize * 8 {
		wrong := bytes.Clone(b[:])
		wrong[bit/8] ^= 1 << (bit % 8)
		var got header
		if !o.find(&got, wrong, want.off) || got != want {
			t.Errorf("bit %d: %+v, want %+v", bit, got, want)
		}
		other := (bit + 1 + bit*bit%(headerSize*8-1)) % (headerSize * 8)
		wrong[other/8] ^= 1 << (other % 8)
		if other != bit && o.find(&got, wrong, want.off) {
			t.Errorf("bits %d and %d: %+v is taken for a header", bit, other, got)
		}
	}
	for name, c := range map[string]struct {
		o   origin
		off int64
	}{
		"another place":            {o, want.off + align},
		"another timeline":         {origin{want.timeline + 1, 50, 100}, want.off},
		"before the segment":       {origin{want.timeline, 78, 100}, want.off},
		"of the segment behind it": {origin{want.timeline, 50, 77}, want.off},
		"of an earlier segment":    {origin{want.timeline, 78, noNext}, want.off},
	} {
		var got header
		if c.o.find(&got, b[:], c.off) {
			t.Errorf("%s: %+v is taken", name, got)
		}
	}
}

// A write goes to another place of the file: what was there is damaged, and what was
// written is missing. All of it is counted, and nothing else is read.
func TestMisdirectedWrite(t *testing.T) {
	harmed := 0
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			d := faulty.New(seed)
			r := start(t, d.Start(), "spool", interval, journal.Limits{})
			rng := rand.New(rand.NewPCG(seed, 9))
			d.Inject(faulty.Fault{Ops: faulty.Write, Path: segmentSuffix, After: rng.IntN(20), Times: 1 + rng.IntN(2), Misdirect: true})
			n := 100 + rng.IntN(100)
			r.append(1, n)
			killed := d.Clone(seed)
			r.close()
			c := start(t, killed.Start(), "spool", interval, journal.Limits{})
			got := c.read(0)
			if lost, counted := missing(got, 1, n), c.bounds().DamagedRecords; lost != counted {
				t.Errorf("seed %d: %d records are missing, %d counted\n%s", seed, lost, counted, c.said)
			} else if lost > 0 {
				harmed++
			}
			c.again(seed, n, got)
		})
	}
	if harmed < 30 {
		t.Errorf("%d runs of 60 did harm: the test does not reach the entries", harmed)
	}
}
