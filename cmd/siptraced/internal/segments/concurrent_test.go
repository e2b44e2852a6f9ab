package segments

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
)

// Cursors read while entries are appended, trimmed and dropped, and segments are used
// again: each entry is what was appended.
func TestReadWhileTrimmed(t *testing.T) {
	const last = 6000
	r := start(t, rooted{disk.OS, t.TempDir()}, "spool", time.Millisecond, journal.Limits{})
	ctx := context.Background()
	var at [3]atomic.Uint64 // how far each cursor came
	var wg sync.WaitGroup
	for i := range at {
		wg.Go(func() {
			c, _ := r.log.Read(ctx, 0)
			defer c.Close()
			seen, total := uint64(0), uint64(0)
			for seen < last {
				e, err := c.Next(ctx)
				if errors.Is(err, journal.ErrEnd) {
					if at[0].Load() == last && at[1].Load() == last {
						return // what the slow one has not seen is gone
					}
					time.Sleep(100 * time.Microsecond)
					continue
				}
				if err != nil {
					t.Errorf("cursor %d: %v", i, err)
					at[i].Store(last)
					return
				}
				n := int(binary.LittleEndian.Uint64(e.Data))
				if n != int(e.Seq) || e.Seq <= seen || i < 2 && e.Seq != seen+1 || !bytes.Equal(e.Data, entry(n, sizeOf(n)).Data) {
					t.Errorf("cursor %d: entry %d behind %d is %d with total %d", i, e.Seq, seen, n, e.Total)
				}
				if i < 2 && e.Total-uint64(e.Records) != total {
					t.Errorf("cursor %d: entries are missing before %d", i, e.Seq)
				}
				seen, total = e.Seq, e.Total
				release(&e)
				at[i].Store(seen)
				if i == 2 && seen%5 == 0 { // this one is too slow, and misses some
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Go(func() {
		for done := uint64(0); done < last; {
			done = min(at[0].Load(), at[1].Load())
			if err := r.log.Trim(ctx, done); err != nil {
				t.Error(err)
			}
			time.Sleep(200 * time.Microsecond)
		}
	})
	r.append(1, last)
	wg.Wait()
	if b := r.bounds(); b.DamagedRecords != 0 {
		t.Errorf("%d records are damaged\n%s", b.DamagedRecords, r.said)
	}
	r.close()
}

// A sync that does not come back holds up neither appending nor reading.
func TestStuckSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", interval, journal.Limits{})
		r.append(1, 10)
		time.Sleep(time.Second)
		d.Inject(faulty.Fault{Ops: faulty.Sync, Path: segmentSuffix, Delay: time.Hour})
		began := time.Now()
		r.append(11, 2000)
		same(t, "read", r.read(0), numbers(1, 2000))
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %s", took)
		}
		time.Sleep(time.Minute)
		if b := r.bounds(); b.UnsyncedRecords != totalOf(2000)-totalOf(10) || time.Since(b.UnsyncedSince) < 59*time.Second || b.UncertainRecords != 0 {
			t.Errorf("bounds %+v", b)
		}
		if !strings.Contains(r.said.String(), "takes long to sync") {
			t.Errorf("said: %s", r.said)
		}
		if err := r.log.Trim(context.Background(), 1500); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.log.Sync(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Sync = %v", err)
		}
		d.Heal()
		if err := r.log.Sync(context.Background()); err != nil {
			t.Errorf("Sync afterwards = %v", err)
		}
		if b := r.bounds(); b.UnsyncedRecords != 0 {
			t.Errorf("afterwards: %+v", b)
		}
		r.close()
	})
}

// Close ends with its context, however the disk is.
func TestCloseOnStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faulty.New(1)
		r := start(t, d.Start(), "spool", interval, journal.Limits{})
		r.append(1, 10)
		d.Inject(faulty.Fault{Ops: faulty.Sync, Delay: time.Hour})
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		began := time.Now()
		if err := r.engine.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 3*time.Second {
			t.Errorf("Close = %v after %s", err, time.Since(began))
		}
		d.Heal()
		time.Sleep(time.Second) // what was left behind ends
	})
}

// What is appended does not touch the garbage collector.
func TestAppendAllocates(t *testing.T) {
	r := start(t, rooted{disk.OS, t.TempDir()}, "spool", time.Hour, journal.Limits{}, func(c *Config) { c.SegmentSize = 0 })
	entries := []*journal.Entry{entry(1, 100<<10), entry(2, 1001)}
	n := 0
	if got := testing.AllocsPerRun(300, func() {
		entries[0].Total, entries[1].Total = 0, 0
		if k, err := r.log.Append(context.Background(), entries); k != 2 || err != nil {
			t.Fatal(k, err)
		}
		n++
	}); got != 0 {
		t.Errorf("%v allocations per append", got)
	}
	c, _ := r.log.Read(context.Background(), 0)
	if got := testing.AllocsPerRun(n, func() {
		e, err := c.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		release(&e)
	}); got != 0 {
		t.Errorf("%v allocations per entry that is read", got)
	}
	c.Close()
	r.close()
}
