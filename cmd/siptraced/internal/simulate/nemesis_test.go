//go:build simulation

package simulate

import (
	"strings"
	"syscall"
	"time"

	"siptraced/cmd/siptraced/internal/disk/faulty"
)

// damage is what was done to the disk that may cost what is on it.
type damage struct {
	rots      int  // each may cost one entry
	rotten    bool // there was one
	unbounded bool // a write went to the wrong place: it may cost all that was there
	positions bool // the file of positions may be damaged
	flaky     bool // a read may have been wrong: what was missing may be there again
}

// diskTrouble has the disk do something wrong for a while, or once.
func (w *world) diskTrouble(d *faulty.Disk, dmg *damage) {
	ops := []faulty.Op{faulty.Write, faulty.Sync, faulty.Write | faulty.Sync, faulty.Allocate, faulty.Open, faulty.Rename, faulty.Remove, faulty.SyncDir, faulty.Truncate, faulty.Read, faulty.List, faulty.Any}
	f := faulty.Fault{Ops: ops[w.rand.IntN(len(ops))], After: w.rand.IntN(20), Partial: w.chance(2), Lose: w.chance(2)}
	f.Err = []error{syscall.EIO, syscall.ENOSPC, syscall.EIO, syscall.EDQUOT}[w.rand.IntN(4)]
	switch w.rand.IntN(10) {
	case 0, 1:
		f.Times = 1
	case 2:
		f.Times = 1 + w.rand.IntN(6)
	case 3:
		f.Chance = 0.05 + w.rand.Float64()/2
	case 4: // for good, or until somebody mends it
	case 5: // slow
		f.Err, f.Delay, f.Ops, f.Times = nil, w.between(100*time.Millisecond, 5*time.Second), []faulty.Op{faulty.Sync, faulty.Write, faulty.Any}[w.rand.IntN(3)], 1+w.rand.IntN(3)
	case 6: // stuck
		f.Err, f.Delay, f.Ops, f.Times = nil, time.Hour, []faulty.Op{faulty.Sync, faulty.Write, faulty.SyncDir, faulty.Allocate}[w.rand.IntN(4)], 1
	case 7:
		w.fill(d)
		return
	case 8:
		if w.chance(3) {
			w.hurt(d, dmg)
		}
		return
	case 9:
		w.stepClock([]time.Duration{-time.Hour, time.Hour, -time.Second, 10 * time.Second, -48 * time.Hour}[w.rand.IntN(5)])
		return
	}
	if f.Err != nil && f.Ops&faulty.Read != 0 && f.Times != 1 {
		// What can't be read, however often it is tried, counts as damaged.
		dmg.unbounded, dmg.positions, dmg.flaky = true, true, true
	}
	w.note("disk trouble: %s err %v times %d chance %.2f delay %s", f.Ops, f.Err, f.Times, f.Chance, f.Delay)
	remove := d.Inject(f)
	w.after(w.between(10*time.Millisecond, 4*time.Second), func() {
		if f.Delay == time.Hour {
			d.Heal()
		}
		remove()
		w.note("disk trouble over: %s", f.Ops)
	})
}

// fill has others use the file system up, to the last byte or nearly, for a while.
func (w *world) fill(d *faulty.Disk) {
	leave := []int64{0, 4096, 100 << 10, 2 << 20}[w.rand.IntN(4)]
	d.SetSize(diskSize, max(0, diskSize-d.Used()-leave))
	w.note("disk full, but for %d bytes", leave)
	w.after(w.between(100*time.Millisecond, 5*time.Second), func() {
		d.SetSize(diskSize, 0)
		w.note("disk has room again")
	})
}

const diskSize = 256 << 20

// hurt damages what is on the disk.
func (w *world) hurt(d *faulty.Disk, dmg *damage) {
	switch w.rand.IntN(8) {
	case 0:
		w.note("a write will go to the wrong place")
		dmg.unbounded, dmg.positions = true, true
		d.Inject(faulty.Fault{Ops: faulty.Write, Misdirect: true, Times: 1, After: w.rand.IntN(10)})
	case 1:
		w.note("a read will be wrong")
		dmg.rots, dmg.rotten, dmg.flaky, dmg.positions = dmg.rots+1, true, true, true
		d.Inject(faulty.Fault{Ops: faulty.Read, Rot: true, Times: 1, After: w.rand.IntN(10)})
	default:
		part := []string{"", ".log", ".log", ".idx", "positions"}[w.rand.IntN(5)]
		name, off, ok := d.Rot(part)
		if ok {
			// What is beside the entries can be made again.
			if strings.HasSuffix(name, ".log") || strings.HasSuffix(name, "/spare") {
				dmg.rots++
			}
			dmg.rotten = true
			dmg.positions = dmg.positions || name == spoolDir+"/positions"
			w.note("rot in %s at %d", name, off)
		}
	}
}

const spoolDir = "/spool"
