package segments

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
)

// long reports whether the long forms of tests run.
func long() bool { return os.Getenv("SIPTEST_LONG") != "" }

const interval = 100 * time.Millisecond

// The disk loses power at random moments, while entries are appended and trimmed.
func TestPowerLoss(t *testing.T) {
	runs := 60
	if long() {
		runs = 500
	}
	for _, every := range []time.Duration{interval, 0} {
		lost, said := uint64(0), uint64(0)
		for seed := range uint64(runs) {
			synctest.Test(t, func(t *testing.T) {
				missing, unsynced := powerLoss(t, seed, every)
				lost, said = lost+missing, said+unsynced
			})
		}
		t.Logf("synced every %s: %d losses of power cost %d records of %d that were not synced", every, runs, lost, said)
	}
}

// busy appends, saves positions, trims and opens again at random. It returns the last
// entry, and the last position that was saved.
func (r *rig) busy(rng *rand.Rand) (last int, saved uint64) {
	ctx := context.Background()
	done := 0
	for range rng.IntN(60) + 1 {
		k := 1 + rng.IntN(12)
		r.append(last+1, last+k)
		last += k
		switch rng.IntN(8) {
		case 0:
			done = last - rng.IntN(min(last, 20))
			r.put("store.0", fmt.Sprint(done))
		case 1:
			if r.engine.Positions().Flush(ctx) == nil {
				saved = uint64(done)
			}
		case 2:
			r.trim(done)
		case 3:
			r.close()
			r.open(journal.Limits{})
		}
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
	}
	return last, saved
}

// missing is how many records the entries from first to last have that are not among
// got.
func missing(got []int, first, last int) (records uint64) {
	have := map[int]bool{}
	for _, k := range got {
		have[k] = true
	}
	for k := first; k <= last; k++ {
		if !have[k] {
			records += uint64(k%5 + 1)
		}
	}
	return records
}

func powerLoss(t *testing.T, seed uint64, every time.Duration) (lost, unsynced uint64) {
	d := faulty.New(seed)
	r := start(t, d.Start(), "spool", every, journal.Limits{})
	n, saved := r.busy(rand.New(rand.NewPCG(seed, 7)))
	was := r.bounds()
	after := d.CrashClone(seed)
	r.close()

	c := start(t, after.Start(), "spool", every, journal.Limits{})
	got, now := c.read(0), c.bounds()
	if lost = missing(got, int(was.First), n); lost > was.UnsyncedRecords {
		t.Fatalf("seed %d: %d records are missing, %d were not synced: of the entries from %d to %d there are %v\n%s", seed, lost, was.UnsyncedRecords, was.First, n, got, c.said)
	}
	front := c.log.trimmed.seq
	if len(c.log.segments) > 0 {
		front = max(front, c.log.segments[0].first-1)
	}
	if known := missing(got, int(front)+1, int(now.Last)); now.DamagedRecords != known {
		t.Errorf("seed %d: %d records counted as damaged, %d are missing: of the entries from %d to %d there are %v\n%s", seed, now.DamagedRecords, known, front+1, now.Last, got, c.said)
	}
	if now.Last < saved {
		t.Errorf("seed %d: the log ends with %d, position %d was saved", seed, now.Last, saved)
	}
	c.again(seed, n, got)
	return lost, was.UnsyncedRecords
}

// again appends to a log after a crash, and closes and opens it.
func (r *rig) again(seed uint64, n int, got []int) {
	r.t.Helper()
	r.append(n+1, n+40)
	want := append(got, numbers(n+1, n+40)...)
	same(r.t, fmt.Sprintf("seed %d: after the crash", seed), r.read(0), want)
	r.close()
	r.open(journal.Limits{})
	same(r.t, fmt.Sprintf("seed %d: opened again", seed), r.read(0), want)
	r.close()
}

// A sync fails once, for a while, and for good.
func TestFailedSync(t *testing.T) {
	for _, c := range []struct {
		name  string
		lasts time.Duration // 0: once; over an hour: for good
		every time.Duration
	}{
		{"once", 0, interval},
		{"for 5 s", 5 * time.Second, interval},
		{"for good", 24 * time.Hour, interval},
		{"once, always", 0, 0},
		{"for 5 s, always", 5 * time.Second, 0},
		{"for good, always", 24 * time.Hour, 0},
	} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { failedSync(t, seed, c.lasts, c.every) })
			})
		}
	}
}

func failedSync(t *testing.T, seed uint64, lasts, every time.Duration) {
	d := faulty.New(seed)
	r := start(t, d.Start(), "spool", every, journal.Limits{})
	r.append(1, 50)
	time.Sleep(time.Second)
	fault := faulty.Fault{Ops: faulty.Sync, Path: "shard-0", Err: syscall.EIO, Lose: true, Times: 1}
	if lasts > 0 {
		fault.Times = 0
	}
	heal := d.Inject(fault)
	began := time.Now()
	n, refused := 50, 0
	for time.Since(began) < min(lasts, 10*time.Second)+time.Second {
		if lasts > 0 && time.Since(began) > lasts {
			heal()
		}
		e := entry(n+1, sizeOf(n+1))
		if k, _ := r.log.Append(context.Background(), []*journal.Entry{e}); k == 1 {
			n++
		} else {
			refused++
		}
		time.Sleep(20 * time.Millisecond)
	}
	same(t, "read while the disk fails", r.read(0), numbers(1, n))
	b := r.bounds()
	if lasts > time.Hour {
		if every > 0 && (b.UncertainRecords != totalOf(n)-totalOf(50) || b.UncertainRecords == 0) || every == 0 && (n != 50 || b.UncertainRecords != 0) {
			t.Errorf("%d records are uncertain, %d entries", b.UncertainRecords, n)
		}
		// When the sinks are done with them nothing is uncertain any more.
		r.trim(n)
		if b := r.bounds(); b.UncertainRecords != 0 || b.UnsyncedRecords != 0 {
			t.Errorf("all is done: %+v", b)
		}
		d.Heal()
		r.close()
		t.Logf("%d entries were taken, %d refused; %d records were uncertain until the sinks had them", n, refused, b.UncertainRecords)
		return
	}
	if lasts > 0 && refused == 0 || n < 60 {
		t.Errorf("%d entries, %d refused", n, refused)
	}
	time.Sleep(3 * time.Second)
	if b := r.bounds(); b.UncertainRecords != 0 || b.UnsyncedRecords != 0 || b.DamagedRecords != 0 {
		t.Errorf("after it was over: %+v\n%s", b, r.said)
	}
	after := d.CrashClone(seed)
	r.close()
	c := start(t, after.Start(), "spool", every, journal.Limits{})
	got := c.read(0)
	same(t, "after a loss of power", got, numbers(1, n))
	if b := c.bounds(); b.DamagedRecords != 0 {
		t.Errorf("after a loss of power %d records are damaged", b.DamagedRecords)
	}
	c.again(seed, n, got)
	t.Logf("%d entries were taken, %d attempts refused; after a loss of power %d are there", n, refused, len(got))
}

// A file that was used again has both its names after a loss of power: it is not used
// once more.
func TestTwoNames(t *testing.T) {
	root := rooted{disk.OS, t.TempDir()}
	r := start(t, root, "spool", interval, journal.Limits{})
	r.append(1, 200)
	r.close()
	all := files(t, root.at("spool"))
	if err := os.Link(all[len(all)-1], filepath.Join(filepath.Dir(all[0]), spareName)); err != nil {
		t.Fatal(err)
	}
	r.open(journal.Limits{})
	r.append(201, 400)
	same(t, "all", r.read(0), numbers(1, 400))
	r.close()
}

// What a killed process left can't be synced at start: it is written again, and what the
// disk lost of it is counted.
func TestFailedSyncAtStart(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			d := faulty.New(seed)
			r := start(t, d.Start(), "spool", time.Hour, journal.Limits{})
			r.append(1, 100)
			killed := d.Clone(seed)
			r.close()
			lose := seed%2 == 1
			killed.Inject(faulty.Fault{Ops: faulty.Sync, Path: segmentSuffix, Err: syscall.EIO, Times: 1, Lose: lose, After: int(seed % 3)})
			c := start(t, killed.Start(), "spool", interval, journal.Limits{})
			after := killed.CrashClone(seed)
			c.close()
			c = start(t, after.Start(), "spool", interval, journal.Limits{})
			got := c.read(0)
			if lost, counted := missing(got, 1, 100), c.bounds().DamagedRecords; lost != counted || lost > 0 && !lose {
				t.Errorf("seed %d: %d records are missing, %d counted\n%s", seed, lost, counted, c.said)
			}
			c.again(seed, 100, got)
		})
	}
}

// More is not synced than is held in memory: the rest is read from the file. What the
// disk lost of it is counted.
func TestRewriteFromFile(t *testing.T) {
	for _, lose := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := faulty.New(3)
			r := start(t, d.Start(), "spool", time.Hour, journal.Limits{}, func(c *Config) { c.SegmentSize = 2 << 20 })
			const size, last = 100 << 10, 400
			d.Inject(faulty.Fault{Ops: faulty.Sync, Path: segmentSuffix, Err: syscall.EIO, After: 11, Times: 1, Lose: lose})
			for n := 1; n <= last; n++ {
				if _, err := r.log.Append(context.Background(), []*journal.Entry{entry(n, size)}); err != nil {
					t.Fatal(err)
				}
			}
			if r.log.held.bytes > mostHeld || r.log.held.bytes < mostHeld-size-perHeld {
				t.Errorf("%d bytes are held", r.log.held.bytes)
			}
			if err := r.log.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			after := d.CrashClone(1)
			lost := r.bounds().DamagedRecords
			r.close()
			if (lost > 0) != lose {
				t.Errorf("%d records are lost, the disk lost some: %v", lost, lose)
			}
			r = start(t, after.Start(), "spool", time.Hour, journal.Limits{})
			c, _ := r.log.Read(context.Background(), 0)
			defer c.Close()
			have := uint64(0)
			for {
				e, err := c.Next(context.Background())
				if errors.Is(err, journal.ErrEnd) {
					break
				}
				if err != nil || !bytes.Equal(e.Data, entry(int(e.Seq), size).Data) {
					t.Fatalf("entry %d: %v", e.Seq, err)
				}
				have += uint64(e.Records)
				release(&e)
			}
			if have+lost != totalOf(last) {
				t.Errorf("%d records are there, %d lost, of %d", have, lost, totalOf(last))
			}
			r.close()
		})
	}
}

// Entries of one call go to two segments, and one of these can't be synced: none of them
// is kept, though the first segment was synced already.
func TestFailedSyncOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", 0, journal.Limits{})
		r.append(1, 35)
		var entries []*journal.Entry
		for n := 36; n < 60; n++ {
			entries = append(entries, entry(n, sizeOf(n)))
		}
		second := false
		d.Watch(func(c faulty.Call) {
			if c.Op == faulty.Allocate && !second {
				second = true
				if err := r.log.syncAll(); err != nil { // as in the background
					t.Error(err)
				}
				d.Inject(faulty.Fault{Ops: faulty.Sync, Path: segmentSuffix, Err: syscall.EIO, Times: 1})
			}
		})
		if n, err := r.log.Append(context.Background(), entries); n != 0 || !errors.Is(err, syscall.EIO) || !second {
			t.Fatalf("append: %d, %v", n, err)
		}
		time.Sleep(time.Second)
		same(t, "after the failure", r.read(0), numbers(1, 35))
		r.append(36, 100)
		r.trim(70)
		time.Sleep(time.Second)
		if b := r.bounds(); b.First < 36 || b.DamagedRecords != 0 {
			t.Errorf("bounds %+v", b)
		}
		after := d.CrashClone(1)
		r.close()
		c := start(t, after.Start(), "spool", 0, journal.Limits{})
		c.again(1, 100, c.read(0))
	})
}

// As long as nothing can be written, that is said once; giving up what is old makes room
// at once.
func TestNothingCanBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", interval, journal.Limits{})
		r.append(1, 200)
		heal := d.Inject(faulty.Fault{Ops: faulty.Write, Err: syscall.EDQUOT})
		for range 500 {
			if _, err := r.log.Append(context.Background(), []*journal.Entry{entry(201, sizeOf(201))}); !errors.Is(err, journal.ErrFull) {
				t.Fatalf("append: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := strings.Count(r.said.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d errors are logged\n%s", n, r.said)
		}
		heal()
		began := time.Now()
		if any, err := r.log.DropOldest(context.Background()); !any || err != nil {
			t.Errorf("DropOldest = %v, %v", any, err)
		}
		synctest.Wait()
		if _, err := r.log.Append(context.Background(), []*journal.Entry{entry(201, sizeOf(201))}); err != nil || time.Since(began) != 0 {
			t.Errorf("append after %s: %v", time.Since(began), err)
		}
		r.close()
	})
}

// A disk that takes nothing for a while does not cost the backlog of a log that drops
// the oldest entries.
func TestDropWhileNothingCanBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", interval, journal.Limits{DropOldest: true})
		r.append(1, 800)
		d.Inject(faulty.Fault{Ops: faulty.Write, Err: syscall.EDQUOT})
		dropped := 0
		for range 100 {
			if _, err := r.log.Append(context.Background(), []*journal.Entry{entry(801, sizeOf(801))}); errors.Is(err, journal.ErrFull) {
				any, err := r.log.DropOldest(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if any {
					dropped++
				}
			} else if err == nil {
				t.Fatal("append to a disk that takes nothing")
			}
		}
		// One at first, and one for each attempt to write that failed behind that.
		r.log.appending.Lock()
		attempts := r.log.attempts
		r.log.appending.Unlock()
		if dropped == 0 || dropped > attempts+1 {
			t.Errorf("%d segments are dropped in %d attempts", dropped, attempts)
		}
		d.Heal()
		time.Sleep(3 * time.Second)
		r.append(801, 810)
		r.close()
	})
}

// A write fails, and leaves a part of what it should write.
func TestFailedWrite(t *testing.T) {
	for _, failure := range []error{syscall.EIO, syscall.ENOSPC} {
		for _, every := range []time.Duration{interval, 0} {
			for seed := range uint64(8) {
				synctest.Test(t, func(t *testing.T) {
					d := faulty.New(seed)
					r := start(t, d.Start(), "spool", every, journal.Limits{})
					r.append(1, 40)
					d.Inject(faulty.Fault{Ops: faulty.Write, Path: segmentSuffix, Err: failure, Partial: true, After: int(seed % 3), Times: 2})
					n := 40
					for failed := 0; n < 100; {
						var entries []*journal.Entry
						for i := range 5 {
							entries = append(entries, entry(n+1+i, sizeOf(n+1+i)))
						}
						k, err := r.log.Append(context.Background(), entries)
						n += k
						if err == nil {
							continue
						}
						if errors.Is(failure, syscall.ENOSPC) != errors.Is(err, journal.ErrFull) {
							t.Errorf("append: %v", err)
						}
						if failed++; failed > 100 {
							t.Fatalf("it goes on failing: %v", err)
						}
						time.Sleep(50 * time.Millisecond)
					}
					want := numbers(1, n)
					same(t, "read", r.read(0), want)
					time.Sleep(time.Second)
					killed, lost := d.Clone(1), d.CrashClone(1)
					for _, after := range []*faulty.Disk{killed, lost} {
						c := start(t, after.Start(), "spool", every, journal.Limits{})
						same(t, "after a crash", c.read(0), want)
						if b := c.bounds(); b.DamagedRecords != 0 {
							t.Errorf("%d records are damaged", b.DamagedRecords)
						}
						c.again(seed, n, want)
					}
					r.close()
				})
			}
		}
	}
}

// Not a byte is free any more: what all are done with is given back, and taken in its
// place is what room that makes.
func TestNoByteFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", interval, journal.Limits{})
		ctx := context.Background()
		r.append(1, 200)
		r.put("store.0", "0")
		if err := r.engine.Positions().Flush(ctx); err != nil {
			t.Fatal(err)
		}
		d.SetSize(1<<30, 1<<30-d.Used()) // the others take all there is
		n, err := 200, error(nil)
		for err == nil {
			_, err = r.log.Append(ctx, []*journal.Entry{entry(n+1, sizeOf(n+1))})
			if err == nil {
				n++
			}
		}
		if !errors.Is(err, journal.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("append to a full disk: %v", err)
		}
		used := d.Used()
		r.put("store.0", fmt.Sprint(n))
		if err := r.engine.Positions().Flush(ctx); err != nil {
			t.Errorf("positions on a full disk: %v", err)
		}
		r.trim(n)
		time.Sleep(time.Second)
		if now, want := d.Used(), int64(2*leastSlot+2*64<<10+4*pageSize); now > want {
			t.Errorf("%d bytes are used, want no more than positions and two segments, %d; it was %d", now, want, used)
		}
		// The others take that, too.
		d.SetSize(1<<30, 1<<30-d.Used())
		taken := 0
		for round := range 50 {
			k, err := r.log.Append(ctx, []*journal.Entry{entry(n+1, sizeOf(n+1))})
			if err != nil {
				t.Fatalf("append in the place of what is done, round %d: %v", round, err)
			}
			n, taken = n+k, taken+k
			if round%10 == 9 {
				r.trim(n)
			}
		}
		r.close()
		r.open(journal.Limits{}) // a full disk keeps nobody from starting
		r.close()
	})
}

func TestSmallFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		d.SetSize(32<<20, 0)
		r := start(t, d.Start(), "spool", interval, journal.Limits{}, func(c *Config) { c.SegmentSize = 0 })
		n, err := 0, error(nil)
		for err == nil {
			_, err = r.log.Append(context.Background(), []*journal.Entry{entry(n+1, 100<<10)})
			n++
		}
		if free := 32<<20 - d.Used(); !errors.Is(err, journal.ErrFull) || free < int64(Reserve(32<<20)) || free > int64(Reserve(32<<20))+2<<20 {
			t.Errorf("full with %d bytes free: %v", free, err)
		}
		if !strings.Contains(err.Error(), "file system") {
			t.Errorf("the error names no cause: %v", err)
		}
		r.close()
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, faulty.New(1).Start(), "spool", interval, journal.Limits{Bytes: 1 << 20})
		ctx := context.Background()
		n := 0
		fill := func() {
			for {
				if _, err := r.log.Append(ctx, []*journal.Entry{entry(n+1, sizeOf(n+1))}); err != nil {
					if !errors.Is(err, journal.ErrFull) || errors.Is(err, syscall.ENOSPC) {
						t.Fatalf("at the bound: %v", err)
					}
					return
				}
				n++
			}
		}
		fill()
		if b := r.bounds(); b.Bytes > 1<<20 || b.Bytes < 1<<20-8<<10 {
			t.Errorf("full with %d bytes", b.Bytes)
		}
		first := r.bounds().First
		if any, err := r.log.DropOldest(ctx); !any || err != nil {
			t.Fatalf("DropOldest = %v, %v", any, err)
		}
		b := r.bounds()
		if b.First <= first || b.Bytes > 1<<20-32<<10 {
			t.Errorf("after DropOldest: %+v", b)
		}
		same(t, "what is left", r.read(0), numbers(int(b.First), n))
		fill()
		if err := r.engine.SetLimits(ctx, 0, journal.Limits{Bytes: 2 << 20}); err != nil {
			t.Fatal(err)
		}
		fill()
		if b := r.bounds(); b.Bytes < 2<<20-8<<10 {
			t.Errorf("with a larger bound: %d bytes", b.Bytes)
		}
		for any := true; any; {
			any, _ = r.log.DropOldest(ctx)
		}
		if b := r.bounds(); b.First != uint64(n+1) || b.Bytes != 0 {
			t.Errorf("all dropped: %+v", b)
		}
		r.append(n+1, n+5)
		same(t, "after all was dropped", r.read(0), numbers(n+1, n+5))
		r.close()
	})
}

// An entry that is larger than the bound does not stop a log for ever.
func TestLargerThanBound(t *testing.T) {
	r := start(t, faulty.New(1).Start(), "spool", interval, journal.Limits{Bytes: 100 << 10})
	for n := 1; n <= 3; n++ {
		if k, err := r.log.Append(context.Background(), []*journal.Entry{entry(n, 200<<10)}); k != 1 {
			t.Fatalf("append to an empty log: %v", err)
		}
		if _, err := r.log.Append(context.Background(), []*journal.Entry{entry(n, 100)}); !errors.Is(err, journal.ErrFull) {
			t.Errorf("append to a full one: %v", err)
		}
		if any, err := r.log.DropOldest(context.Background()); !any || err != nil {
			t.Errorf("DropOldest = %v, %v", any, err)
		}
	}
	if _, err := r.log.Append(context.Background(), []*journal.Entry{entry(4, maxEntry+1)}); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("append of more than MaxEntry: %v", err)
	}
	r.close()
}

// When all is done and the process ends well, the disk is empty but for a few pages.
func TestEmptyAfterClose(t *testing.T) {
	d := faulty.New(1)
	r := start(t, d.Start(), "spool", interval, journal.Limits{})
	for n := 1; n <= 300; n += 100 {
		r.append(n, n+99)
		r.trim(n + 99)
	}
	r.close()
	if got := d.Used(); got > 2*leastSlot+2*pageSize {
		t.Errorf("%d bytes are used: %v", got, d.Files())
	}
	r.open(journal.Limits{})
	if b := r.bounds(); b.First != 301 || b.Total != totalOf(300) || b.DamagedRecords != 0 {
		t.Errorf("opened again: %+v\n%s", b, r.said)
	}
	r.append(301, 310)
	same(t, "opened again", r.read(0), numbers(301, 310))
	r.close()
}

func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, faulty.New(1).Start(), "spool", interval, journal.Limits{Age: time.Minute})
		ctx := context.Background()
		add := func(n int) {
			e := entry(n, 100)
			e.Taken = time.Now()
			if _, err := r.log.Append(ctx, []*journal.Entry{e}); err != nil {
				t.Fatal(err)
			}
		}
		for n := 1; n <= 180; n++ {
			add(n)
			time.Sleep(time.Second)
		}
		c, _ := r.log.Read(ctx, 0)
		defer c.Close()
		e, err := c.Next(ctx)
		if err != nil || e.Seq < 119 || e.Seq > 122 {
			t.Errorf("the oldest entry is %d, %v; want about 121", e.Seq, err)
		}
		if b := r.bounds(); b.First < 112 || b.First > 122 {
			t.Errorf("bounds %+v", b)
		}
		time.Sleep(2 * time.Minute)
		if b := r.bounds(); b.First != 181 || b.Bytes != 0 {
			t.Errorf("all is old: %+v", b)
		}
		r.close()
	})
}

// A place of the disk can't be read: that costs what is there. All of it can't be read
// for a while: that costs nothing.
func TestUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", interval, journal.Limits{})
		r.append(1, 300)
		r.close()
		r.open(journal.Limits{})
		remove := d.Inject(faulty.Fault{Ops: faulty.Read, Path: segmentSuffix, Err: syscall.EIO})
		c, _ := r.log.Read(context.Background(), 0)
		defer c.Close()
		for range 20 {
			if e, err := c.Next(context.Background()); !errors.Is(err, syscall.EIO) {
				t.Fatalf("read %+v, %v", e, err)
			}
		}
		remove()
		for n := 1; n <= 300; n++ {
			e, err := c.Next(context.Background())
			if err != nil || int(binary.LittleEndian.Uint64(e.Data)) != n {
				t.Fatalf("entry %d: %+v, %v", n, e, err)
			}
		}
		r.close()
	})
}

// What a failed write left is written again elsewhere, with other entries of the same
// numbers. After that is given up, a loss of power may bring back the names of files one
// by one: no more than what counted may be in them.
func TestFailedWriteComesBack(t *testing.T) {
	ctx := context.Background()
	for _, every := range []time.Duration{interval, 0} {
		for seed := range uint64(60) {
			synctest.Test(t, func(t *testing.T) {
				d := faulty.New(seed)
				p := d.Start()
				r := start(t, p, "spool", every, journal.Limits{})
				r.append(1, 50) // two segments
				d.Inject(faulty.Fault{Ops: faulty.Write, Path: segmentSuffix, Err: syscall.EIO, Partial: true, Times: 1})
				var entries []*journal.Entry
				for n := 101; n <= 120; n++ { // they are not kept, and not tried again
					entries = append(entries, entry(n, sizeOf(n)))
				}
				if n, err := r.log.Append(ctx, entries); n != 0 || err == nil {
					t.Fatalf("append: %d, %v", n, err)
				}
				time.Sleep(time.Second)
				r.append(51, 53)
				time.Sleep(time.Second)
				p.Kill()
				_ = r.engine.Close(ctx)
				r = start(t, d.Start(), "spool", every, journal.Limits{})
				r.append(54, 60)
				if err := r.log.Sync(ctx); err != nil {
					t.Fatal(err)
				}
				r.trim(45) // the next ones are not kept to be used again
				r.trim(53)
				after := d.CrashClone(seed)
				r.close()

				c := start(t, after.Start(), "spool", every, journal.Limits{})
				got := c.read(0)
				if n := len(got); n < 7 {
					t.Fatalf("seed %d: of the entries from 54 to 60 there are %v\n%s", seed, got, c.said)
				} else {
					same(t, fmt.Sprintf("seed %d: after the loss of power", seed), got[n-7:], numbers(54, 60))
				}
				if slices.Max(got) > 60 {
					t.Errorf("seed %d: there is what was never kept: %v", seed, got)
				}
				c.close()
			})
		}
	}
}

// The end of a segment is gone, and others are behind it: what is left of it can be given
// up like any other.
func TestTrimBehindLostEnd(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		give func(r *rig) error
	}{
		{"trimmed", func(r *rig) error { return r.log.Trim(ctx, 150) }},
		{"the oldest dropped", func(r *rig) error {
			for range 2 {
				if any, err := r.log.DropOldest(ctx); !any || err != nil {
					return fmt.Errorf("any %v: %w", any, err)
				}
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := faulty.New(1)
				r := start(t, d.Start(), "spool", interval, journal.Limits{})
				r.append(1, 150) // several segments
				r.close()
				first := ""
				for _, name := range d.Files() {
					if strings.HasSuffix(name, segmentSuffix) {
						first = name
						break
					}
				}
				b, err := d.Contents(first)
				if err != nil {
					t.Fatal(err)
				}
				d.SetContents(first, b[:len(b)-3000])
				if err := d.Start().Remove(strings.TrimSuffix(first, segmentSuffix) + indexSuffix); err != nil {
					t.Fatal(err)
				}
				r.open(journal.Limits{})
				was := r.bounds()
				if was.DamagedRecords == 0 {
					t.Fatal("nothing is missing")
				}
				if err := c.give(r); err != nil {
					t.Error(err)
				}
				if now := r.bounds(); now.First <= 50 || now.Bytes > was.Bytes-(64<<10) {
					t.Errorf("the log had %+v, and has %+v", was, now)
				}
				r.close()
			})
		})
	}
}
