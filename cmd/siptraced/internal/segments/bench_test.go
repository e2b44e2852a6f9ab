package segments

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLog appends rows of 1 KiB in batches, synced every 100 ms, and reads them
// back.
func BenchmarkLog(b *testing.B) {
	engine, err := Open(context.Background(), Config{FS: disk.OS, Dir: b.TempDir(), SyncInterval: interval})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close(context.Background())
	logs := 0
	for _, size := range []int{64 << 10, 256 << 10} {
		for name, run := range map[string]func(*testing.B, journal.Log, int){"append": benchAppend, "read": benchRead} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				l, err := engine.Open(context.Background(), logs, journal.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				logs++
				run(b, l, size)
				_ = l.Trim(context.Background(), uint64(b.N)) // room for the next one
			})
		}
	}
}

// perRow reports the processor time since began.
func perRow(b *testing.B, began time.Duration, size int) {
	b.ReportMetric((cpu()-began).Seconds()/float64(b.N*size>>10)*1e5, "cpu-s/100k-rows")
	b.SetBytes(int64(size))
	b.StopTimer()
}

func fill(b *testing.B, l journal.Log, size int) {
	e := entry(1, size)
	e.Records = size >> 10
	entries := []*journal.Entry{e}
	for range b.N {
		e.Total = 0
		if _, err := l.Append(context.Background(), entries); err != nil {
			b.Fatal(err)
		}
	}
}

func benchAppend(b *testing.B, l journal.Log, size int) {
	began := cpu()
	b.ResetTimer()
	fill(b, l, size)
	if err := l.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
	perRow(b, began, size)
}

func benchRead(b *testing.B, l journal.Log, size int) {
	fill(b, l, size)
	c, err := l.Read(context.Background(), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	began := cpu()
	b.ResetTimer()
	for n := range b.N {
		e, err := c.Next(context.Background())
		if err != nil {
			b.Fatalf("entry %d of %d: %v", n, b.N, err)
		}
		release(&e)
	}
	perRow(b, began, size)
}
