package segments

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
)

// spoiled is a directory of which many copies are damaged.
type spoiled struct {
	entries int
	records []uint64 // of each entry, from 1 on
	files   []string // with their directories
	sizes   []int64
	bytes   int64
	// copy makes a copy in which one file may be changed; drop removes it.
	copy func(t *testing.T, change string) (fs disk.FS, drop func())
}

const spoiledDir = "spool"

// spoil makes a directory of about so many bytes; killed: as after a kill of the
// process, which leaves the active segment and no index of it. The short one is on a
// disk in memory.
func spoil(t *testing.T, bytes int64, killed bool) *spoiled {
	t.Helper()
	s := &spoiled{records: []uint64{0}}
	if long() {
		root := rooted{disk.OS, t.TempDir()}
		r := start(t, root, spoiledDir, interval, journal.Limits{}, func(c *Config) { c.SegmentSize = 0 })
		s.fill(t, r, bytes, 64<<10, 130<<10)
		if !killed {
			r.close()
		}
		kept := t.TempDir()
		if err := os.CopyFS(kept, os.DirFS(root.dir)); err != nil {
			t.Fatal(err)
		}
		if killed {
			r.close()
		}
		s.copy = func(t *testing.T, change string) (disk.FS, func()) { return s.link(t, kept, change) }
	} else {
		d := faulty.New(1)
		r := start(t, d.Start(), spoiledDir, interval, journal.Limits{})
		s.fill(t, r, bytes, 100, 3000)
		kept := d.Clone(1)
		r.close()
		if !killed {
			kept = d.Clone(1)
		}
		s.copy = func(*testing.T, string) (disk.FS, func()) { return kept.Clone(1).Start(), func() {} }
	}
	fs, drop := s.copy(t, "")
	defer drop()
	for _, dir := range []string{spoiledDir, spoiledDir + "/shard-0"} {
		names, err := fs.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if name == "shard-0" || name == lockName {
				continue
			}
			f, err := fs.Open(filepath.Join(dir, name), os.O_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			size, _ := f.Size()
			f.Close()
			s.files, s.sizes, s.bytes = append(s.files, filepath.Join(dir, name)), append(s.sizes, size), s.bytes+size
		}
	}
	return s
}

// fill appends entries of some sizes.
func (s *spoiled) fill(t *testing.T, r *rig, bytes int64, least, spread int) {
	t.Helper()
	data := make([]byte, least+spread)
	for written := int64(0); written < bytes; s.entries++ {
		n := s.entries + 1
		k := least + n*977%spread
		binary.LittleEndian.PutUint64(data, uint64(n))
		e := &journal.Entry{Records: n%5 + 1, Taken: time.Unix(int64(n), 0), Data: data[:k:k]}
		if _, err := r.log.Append(context.Background(), []*journal.Entry{e}); err != nil {
			t.Fatal(err)
		}
		s.records = append(s.records, uint64(e.Records))
		written += recordSize(k)
	}
	if err := r.log.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// rooted is the operating system's file system below a directory, without waiting for
// the disk.
type rooted struct {
	disk.FS
	dir string
}

type hastyFile struct{ disk.File }

func (hastyFile) Sync() error { return nil }

func (r rooted) at(name string) string { return filepath.Join(r.dir, name) }

func (r rooted) Open(name string, flag int) (disk.File, error) {
	file, err := r.FS.Open(r.at(name), flag)
	return hastyFile{file}, err
}

func (r rooted) List(dir string) ([]string, error)               { return r.FS.List(r.at(dir)) }
func (r rooted) MkdirAll(dir string) error                       { return r.FS.MkdirAll(r.at(dir)) }
func (r rooted) Rename(from, to string) error                    { return r.FS.Rename(r.at(from), r.at(to)) }
func (r rooted) Remove(name string) error                        { return r.FS.Remove(r.at(name)) }
func (r rooted) SyncDir(string) error                            { return nil }
func (r rooted) Space(dir string) (size, free uint64, err error) { return r.FS.Space(r.at(dir)) }
func (r rooted) Lock(name string) (io.Closer, error)             { return r.FS.Lock(r.at(name)) }

// link copies a directory. Segments that have an index are never written: those are
// links.
func (s *spoiled) link(t *testing.T, from, change string) (disk.FS, func()) {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o750)
		}
		stem, segment := strings.CutSuffix(name, segmentSuffix)
		_, err = os.Stat(filepath.Join(from, stem+indexSuffix))
		if segment && err == nil && stem != strings.TrimSuffix(strings.TrimSuffix(change, segmentSuffix), indexSuffix) {
			return os.Link(path, filepath.Join(to, name))
		}
		return copyFile(path, filepath.Join(to, name))
	})
	if err != nil {
		t.Fatal(err)
	}
	return rooted{disk.OS, to}, func() { os.RemoveAll(to) }
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// place is a random byte of all the files.
func (s *spoiled) place(rng *rand.Rand) (file string, off, size int64) {
	at := rng.Int64N(s.bytes)
	for i, n := range s.sizes {
		if at < n {
			return s.files[i], at, n
		}
		at -= n
	}
	panic("not reached")
}

// outcome opens a damaged copy, reads all of it, and returns which entries are missing
// and how many records were counted as damaged.
func (s *spoiled) outcome(t *testing.T, fs disk.FS) (missing []int, lost, counted uint64) {
	t.Helper()
	t.Helper()
	r := start(t, fs, spoiledDir, interval, journal.Limits{}, func(c *Config) { c.SegmentSize = leastSegment })
	defer r.close()
	c, _ := r.log.Read(context.Background(), 0)
	defer c.Close()
	next := 1
	for {
		e, err := c.Next(context.Background())
		if errors.Is(err, journal.ErrEnd) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n := int(binary.LittleEndian.Uint64(e.Data))
		if n != int(e.Seq) || n < next || n > s.entries || uint64(e.Records) != s.records[n] {
			t.Fatalf("entry %d is %d with %d records", e.Seq, n, e.Records)
		}
		for ; next < n; next++ {
			missing, lost = append(missing, next), lost+s.records[next]
		}
		next = n + 1
		release(&e)
	}
	for ; next <= s.entries; next++ {
		missing, lost = append(missing, next), lost+s.records[next]
	}
	return missing, lost, r.bounds().DamagedRecords
}

func change(t *testing.T, fs disk.FS, name string, f func(disk.File) error) {
	t.Helper()
	file, err := fs.Open(name, os.O_RDWR)
	if err == nil {
		defer file.Close()
		err = f(file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// places is how many places are damaged, and of how large a log.
func places() (n int, bytes int64) {
	if long() {
		return 200, 1 << 30
	}
	return 200, 2 << 20
}

// One bit of the directory is another one: that costs no more than one entry, which is
// counted.
func TestFlippedBit(t *testing.T) {
	for _, killed := range []bool{true, false} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			n, bytes := places()
			s := spoil(t, bytes, killed)
			rng := rand.New(rand.NewPCG(11, 1))
			harmless, total := 0, uint64(0)
			for i := range n {
				file, off, _ := s.place(rng)
				if i < len(s.files) && i%4 == 0 { // the small ones, too
					file, off = s.files[len(s.files)-1-i/4], rng.Int64N(40)
				}
				bit := rng.IntN(8)
				fs, drop := s.copy(t, file)
				change(t, fs, file, func(f disk.File) error {
					b := []byte{0}
					if _, err := f.ReadAt(b, off); err != nil {
						return err
					}
					b[0] ^= 1 << bit
					_, err := f.WritevAt([][]byte{b}, off)
					return err
				})
				missing, lost, counted := s.outcome(t, fs)
				if len(missing) > 1 || lost != counted {
					t.Errorf("bit %d of %s at %d: entries %v are missing with %d records, %d counted", bit, file, off, missing, lost, counted)
				}
				if lost == 0 {
					harmless++
				}
				total += lost
				drop()
			}
			if harmless == n {
				t.Error("no flip did any harm: the test does not reach the entries")
			}
			t.Logf("%d flips in %d MiB: %d did no harm, the others cost %d of %d records, all counted", n, s.bytes>>20, harmless, total, sum(s.records))
		})
	}
}

func sum(all []uint64) (n uint64) {
	for _, k := range all {
		n += k
	}
	return n
}

// A file ends at a random place: that costs what is behind it, which is counted.
func TestTruncated(t *testing.T) {
	for _, killed := range []bool{true, false} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			n, bytes := places()
			s := spoil(t, bytes, killed)
			rng := rand.New(rand.NewPCG(12, 1))
			for range n {
				file, off, size := s.place(rng)
				fs, drop := s.copy(t, file)
				change(t, fs, file, func(f disk.File) error { return f.Truncate(off) })
				missing, lost, counted := s.outcome(t, fs)
				if lost != counted {
					t.Errorf("%s cut at %d of %d: entries %v are missing with %d records, %d counted", file, off, size, missing, lost, counted)
				}
				for i := 1; i < len(missing); i++ {
					if missing[i] != missing[i-1]+1 {
						t.Errorf("%s cut at %d of %d: entries %v are missing", file, off, size, missing)
						break
					}
				}
				drop()
			}
		})
	}
}
