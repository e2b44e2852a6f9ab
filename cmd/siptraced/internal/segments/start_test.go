package segments

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// metered counts what is read.
type metered struct {
	disk.FS
	read *atomic.Int64
}

type meteredFile struct {
	disk.File
	read *atomic.Int64
}

func (m metered) Open(name string, flag int) (disk.File, error) {
	f, err := m.FS.Open(name, flag)
	return meteredFile{f, m.read}, err
}

func (f meteredFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.read.Add(int64(n))
	return n, err
}

// A log is opened after a kill: no more of it is read than the segment that was being
// written, and the indexes. The first entry is there at once.
func TestStart(t *testing.T) {
	bytes, segment, size := int64(8<<20), int64(256<<10), 3000
	if long() {
		bytes, segment, size = 8<<30, mostSegment, 256<<10
	}
	root := rooted{disk.OS, t.TempDir()}
	r := start(t, root, "spool", interval, journal.Limits{}, func(c *Config) { c.SegmentSize = segment })
	e := entry(1, size)
	for n := int64(0); n < bytes; n += recordSize(size) {
		e.Total = 0
		if _, err := r.log.Append(context.Background(), []*journal.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	want := r.bounds()
	if err := r.log.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	for !r.indexed() {
		time.Sleep(time.Millisecond)
	}
	killed := rooted{disk.OS, t.TempDir()}
	hardLinks(t, root.dir, killed.dir)
	r.close()

	var read atomic.Int64
	before := resident()
	began := time.Now()
	r = start(t, metered{killed, &read}, "spool", interval, journal.Limits{}, func(c *Config) { c.SegmentSize = segment })
	ready, atStart := time.Since(began), read.Load()
	got := r.bounds()
	if got.First != 1 || got.Last != want.Last || got.Total != want.Total || got.Bytes != want.Bytes || got.DamagedRecords != 0 {
		t.Errorf("bounds %+v, want %+v", got, want)
	}
	if most := 2*segment + bytes/100 + 1<<20; atStart > most {
		t.Errorf("%d bytes were read of %d at start, want %d at most", atStart, bytes, most)
	}
	c, _ := r.log.Read(context.Background(), 0)
	defer c.Close()
	if _, err := c.Next(context.Background()); err != nil {
		t.Error(err)
	}
	if n := read.Load() - atStart; n > 4*int64(size)+2*blockSize {
		t.Errorf("%d bytes were read for the first entry", n)
	}
	t.Logf("%d MiB waiting: ready after %s, first entry after %s; %d KiB were read; resident memory %d KiB more, %d KiB in all",
		bytes>>20, ready.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), read.Load()>>10, resident()-before, resident())
	r.close()
}

// indexed reports whether all segments but the active one have their indexes.
func (r *rig) indexed() bool {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	for _, s := range r.log.segments[:len(r.log.segments)-1] {
		if !s.indexed {
			return false
		}
	}
	return true
}

// hardLinks makes a second directory of the same files, and has the system forget what
// it knows of them.
func hardLinks(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		name, _ := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o750)
		}
		stem, segment := strings.CutSuffix(path, segmentSuffix)
		if _, err := os.Stat(stem + indexSuffix); segment && err == nil {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // it is a hint
			return os.Link(path, filepath.Join(to, name))
		}
		return copyFile(path, filepath.Join(to, name))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// resident is the memory of this process, in KiB.
func resident() int64 {
	runtime.GC()
	text, _ := os.ReadFile("/proc/self/statm")
	pages, _ := strconv.ParseInt(strings.Fields(string(text) + " 0 0")[1], 10, 64)
	return pages * int64(os.Getpagesize()) >> 10
}
