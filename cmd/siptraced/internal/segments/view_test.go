package segments

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// files lists the segments of the first log.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "shard-0", "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func flip(t *testing.T, file string, off int64, mask byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= mask
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, dir string) *Report {
	t.Helper()
	v, err := OpenView(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	var read int64
	r, err := v.Check(context.Background(), func(n int64) { read += n })
	if err != nil {
		t.Fatal(err)
	}
	if size := sizeOfSegments(r); read != size {
		t.Errorf("progress: %d of %d bytes", read, size)
	}
	return r
}

func sizeOfSegments(r *Report) (n int64) {
	for _, l := range r.Logs {
		for _, s := range l.Segments {
			n += s.Size
		}
	}
	return n
}

func TestView(t *testing.T) {
	dir := t.TempDir()
	r := start(t, disk.OS, dir, 10*time.Millisecond, journal.Limits{})
	r.append(1, 300)
	r.put("store.0", "7 20 x")
	if err := r.engine.Positions().Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"running", "closed"} {
		if state == "closed" {
			r.close()
		}
		got := check(t, dir)
		l := got.Logs[0]
		if len(got.Logs) != 1 || l.First != 1 || l.Last != 300 || l.Entries != 300 || l.Records != totalOf(300) || l.Damaged != 0 || len(l.Gaps) != 0 || l.ID != r.log.ID() {
			t.Errorf("%s: %+v", state, l)
		}
		if got.Positions.Values["store.0"] != "7 20 x" || len(got.Positions.Values) != 1 || got.Positions.Damaged {
			t.Errorf("%s: positions %+v", state, got.Positions)
		}
		for i, s := range l.Segments {
			if want := map[bool]IndexState{true: IndexNone, false: IndexGood}[state == "running" && i == len(l.Segments)-1]; s.Index != want && state == "closed" {
				t.Errorf("%s: segment %d: index %s, want %s", state, i, s.Index, want)
			}
		}
	}
	v, _ := OpenView(nil, dir)
	// Of a running one files change their size at any time.
	if size := sizeOfSegments(check(t, dir)); v.Size() != size {
		t.Errorf("size %d, want %d", v.Size(), size)
	}
	c, err := v.Read(0, time.Unix(250, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := 250; n <= 300; n++ {
		e, err := c.Next(context.Background())
		if err != nil || int(binary.LittleEndian.Uint64(e.Data)) != n {
			t.Fatalf("entry of %d: %+v, %v", n, e, err)
		}
	}
	if _, err := c.Next(context.Background()); !errors.Is(err, journal.ErrEnd) {
		t.Errorf("behind the last one: %v", err)
	}
}

func TestViewRefuses(t *testing.T) {
	former := t.TempDir()
	if err := os.Mkdir(filepath.Join(former, "jetstream"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir  string
		want error
	}{
		{former, ErrFormerEdition},
		{filepath.Join(former, "none"), fs.ErrNotExist},
	} {
		if _, err := OpenView(nil, c.dir); !errors.Is(err, c.want) {
			t.Errorf("OpenView(%s) = %v, want %v", c.dir, err, c.want)
		}
	}
	_, err := Open(context.Background(), Config{Dir: former})
	if !errors.Is(err, ErrFormerEdition) || !strings.Contains(err.Error(), former) {
		t.Errorf("Open = %v, want %v", err, ErrFormerEdition)
	}
	names, _ := os.ReadDir(former)
	if len(names) != 1 {
		t.Errorf("Open left %v", names)
	}
}

func TestRepair(t *testing.T) {
	dir := t.TempDir()
	r := start(t, disk.OS, dir, 10*time.Millisecond, journal.Limits{})
	r.append(1, 300)
	if _, err := OpenRepairer(nil, dir, "aside"); !errors.As(err, new(*disk.LockedError)) {
		t.Errorf("of a running daemon: %v, want a *disk.LockedError", err)
	}
	r.close()
	all := files(t, dir)
	second := filepath.Base(all[1])
	flip(t, all[1], 5000, 0xff)
	os.Remove(strings.TrimSuffix(all[0], segmentSuffix) + indexSuffix)
	flip(t, filepath.Join(dir, positionsName), 40, 0xff)

	was := check(t, dir)
	l := was.Logs[0]
	if len(l.Gaps) != 1 || l.Gaps[0].Segment != second || l.Segments[0].Index != IndexNone || !was.Positions.Damaged {
		t.Fatalf("damaged: %+v %+v", l, was.Positions)
	}
	rep, err := OpenRepairer(nil, dir, "aside")
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.RebuildIndex(0, l.Segments[0].Name); err != nil {
		t.Error(err)
	}
	if n, err := rep.Rewrite(0, second); err != nil || n != l.Segments[1].Entries {
		t.Errorf("Rewrite = %d, %v; want %d", n, err, l.Segments[1].Entries)
	}
	p, err := rep.Positions(r.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Put(context.Background(), "x", "y"), p.Flush(context.Background())); err != nil {
		t.Error(err)
	}
	if err := rep.Close(); err != nil {
		t.Error(err)
	}
	now := check(t, dir).Logs[0]
	if now.Damaged != l.Damaged || now.Entries != l.Entries || now.Segments[0].Index != IndexGood || now.Segments[1].Index != IndexGood {
		t.Errorf("repaired: %+v\nwas: %+v", now, l)
	}
	for _, name := range []string{"shard-0/" + second, positionsName} {
		if _, err := os.Stat(filepath.Join(dir, "aside", name)); err != nil {
			t.Errorf("not aside: %v", err)
		}
	}
	r.open(journal.Limits{})
	if got := len(r.read(0)); uint64(got) != l.Entries {
		t.Errorf("%d entries, want %d", got, l.Entries)
	}
	if b := r.bounds(); b.DamagedRecords != l.Damaged {
		t.Errorf("%d records damaged, want %d", b.DamagedRecords, l.Damaged)
	}
	r.close()
}
