package segments

import (
	"context"
	"errors"
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
	for _, size := range []int{64 << 10, 256 << 10} {
		rows := size >> 10
		perRow := func(b *testing.B, began time.Duration) {
			b.ReportMetric((cpu()-began).Seconds()/float64(b.N*rows)*1e5, "cpu-s/100k-rows")
			b.SetBytes(int64(size))
		}
		engine, err := Open(context.Background(), Config{FS: disk.OS, Dir: b.TempDir(), SyncInterval: interval})
		if err != nil {
			b.Fatal(err)
		}
		defer engine.Close(context.Background())
		log := 0
		open := func(b *testing.B) journal.Log {
			l, err := engine.Open(context.Background(), log, journal.Limits{})
			if err != nil {
				b.Fatal(err)
			}
			log++
			return l
		}
		fill := func(b *testing.B, l journal.Log) {
			e := entry(1, size)
			e.Records = rows
			entries := []*journal.Entry{e}
			for range b.N {
				e.Total = 0
				if _, err := l.Append(context.Background(), entries); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(fmt.Sprintf("append/%dKiB", rows), func(b *testing.B) {
			l := open(b)
			began := cpu()
			b.ResetTimer()
			fill(b, l)
			if err := l.Sync(context.Background()); err != nil {
				b.Fatal(err)
			}
			perRow(b, began)
			b.StopTimer()
			_ = l.Trim(context.Background(), uint64(b.N)) // room for the next one
		})
		b.Run(fmt.Sprintf("read/%dKiB", rows), func(b *testing.B) {
			l := open(b)
			fill(b, l)
			c, err := l.Read(context.Background(), 0)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			began := cpu()
			b.ResetTimer()
			n := 0
			for ; ; n++ {
				e, err := c.Next(context.Background())
				if errors.Is(err, journal.ErrEnd) {
					break
				}
				if err != nil {
					b.Fatal(err)
				}
				release(&e)
			}
			if n != b.N {
				b.Fatalf("%d of %d entries", n, b.N)
			}
			perRow(b, began)
			b.StopTimer()
			_ = l.Trim(context.Background(), uint64(b.N)) // room for the next one
		})
	}
}
