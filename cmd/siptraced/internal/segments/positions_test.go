package segments

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
)

func TestPositions(t *testing.T) {
	ctx := context.Background()
	const file = "/spool/" + positionsName
	damage := func(d *faulty.Disk, off int64) {
		if err := d.Flip(file, off, 4); err != nil {
			t.Error(err)
		}
	}
	// save saves two generations of one position.
	save := func(r *rig) {
		for _, v := range []string{"old", "new"} {
			r.put("store.0", v)
			if err := r.engine.Positions().Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(d *faulty.Disk)
		want   string
		says   string
	}{
		{"whole", func(*faulty.Disk) {}, "new", ""},
		{"the newer slot damaged", func(d *faulty.Disk) { damage(d, 40) }, "old", "a slot"},
		{"the older slot damaged", func(d *faulty.Disk) { damage(d, leastSlot+40) }, "new", "a slot"},
		{"both damaged", func(d *faulty.Disk) { damage(d, 40); damage(d, leastSlot+40) }, "", "begun anew"},
		{"empty", func(d *faulty.Disk) { d.SetContents(file, nil) }, "", "begun anew"},
		{"cut", func(d *faulty.Disk) { b, _ := d.Contents(file); d.SetContents(file, b[:leastSlot+1000]) }, "new", "a slot"},
		{"of a page", func(d *faulty.Disk) { d.SetContents(file, make([]byte, 4096)) }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := faulty.New(1)
				r := start(t, d.Start(), "spool", interval, journal.Limits{})
				save(r)
				after := d.Clone(1)
				r.close()
				c.damage(after)
				r = start(t, after.Start(), "spool", interval, journal.Limits{})
				got, _, _ := r.engine.Positions().Get(ctx, "store.0")
				if got != c.want || (c.says == "") != (r.said.String() == "") || !strings.Contains(r.said.String(), c.says) {
					t.Errorf("got %q, want %q; said %q", got, c.want, r.said)
				}
				save(r)
				r.close()
				r.open(journal.Limits{})
				if got, _, _ := r.engine.Positions().Get(ctx, "store.0"); got != "new" {
					t.Errorf("saved again: %q", got)
				}
				r.close()
			})
		})
	}
}

// A slot is written in place; the file grows when it must, and a crash at any time
// leaves one of the generations.
func TestPositionsCrash(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			d := faulty.New(seed)
			r := start(t, d.Start(), "spool", interval, journal.Limits{})
			saved := map[string]string{}
			p := r.engine.Positions()
			for i := range 8 {
				if i == int(seed%8) {
					d.Inject(faulty.Fault{Ops: faulty.Sync | faulty.Write, Path: positionsName, Err: syscall.EIO, Times: 1, Partial: true, Lose: true})
				}
				for k := range 20 * i * i {
					r.put(fmt.Sprintf("key-%d-%d", i, k), strings.Repeat("x", 100))
				}
				if p.Flush(ctx) == nil {
					keys, _ := p.Keys(ctx)
					clear(saved)
					for _, key := range keys {
						saved[key], _, _ = p.Get(ctx, key)
					}
				}
			}
			r.put("one", "more")
			d.Inject(faulty.Fault{Ops: faulty.Sync, Path: positionsName, Err: syscall.EIO, Partial: true, Lose: true})
			if err := p.Flush(ctx); err == nil {
				t.Error("positions are saved on a disk that fails")
			}
			after := d.CrashClone(seed)
			d.Heal()
			r.close()
			r = start(t, after.Start(), "spool", interval, journal.Limits{})
			keys, _ := r.engine.Positions().Keys(ctx)
			got := map[string]string{}
			for _, key := range keys {
				got[key], _, _ = r.engine.Positions().Get(ctx, key)
			}
			delete(got, "one") // it may be there or not
			if !maps.Equal(got, saved) {
				t.Errorf("seed %d: %d positions, %d were saved\n%s", seed, len(got), len(saved), r.said)
			}
			r.close()
		})
	}
}

// Two directories that were one have timelines of their own from then on.
func TestClonedDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), filepath.Join("var", "spool"), interval, journal.Limits{})
		r.append(1, 20)
		r.close()
		var lines []string
		for i := range uint64(2) {
			c := start(t, d.Clone(i).Start(), filepath.Join("var", "spool"), interval, journal.Limits{})
			c.append(21, 30)
			tl := c.log.Timelines()
			if len(tl) != 2 || tl[0].Last != 20 || tl[1].Last != 30 {
				t.Errorf("timelines %+v", tl)
			}
			lines = append(lines, tl[0].ID, tl[1].ID)
			same(t, "clone", c.read(0), numbers(1, 30))
			c.close()
		}
		if lines[0] != lines[2] || lines[1] == lines[3] || lines[0] == lines[1] {
			t.Errorf("timelines of the clones: %q", lines)
		}
	})
}

// The whole directory in an older state has the numbers of the older one, and another
// timeline; Skip goes behind what somebody else has seen.
func TestSkip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", interval, journal.Limits{})
		r.append(1, 20)
		r.log.Skip(1000)
		if b := r.bounds(); b.Last != 1000 || b.UnsyncedRecords != totalOf(20) {
			t.Errorf("bounds %+v", b)
		}
		e := entry(21, sizeOf(21))
		if _, err := r.log.Append(context.Background(), []*journal.Entry{e}); err != nil || e.Seq != 1001 || e.Total != totalOf(21) {
			t.Errorf("entry %d with total %d, %v", e.Seq, e.Total, err)
		}
		r.log.Skip(2000)
		r.close()
		r.open(journal.Limits{})
		if b := r.bounds(); b.Last != 2000 || b.DamagedRecords != 0 || b.First != 1 {
			t.Errorf("bounds %+v", b)
		}
		same(t, "read", r.read(0), numbers(1, 21))
		same(t, "read behind 500", r.read(500), []int{21})
		r.close()
	})
}
