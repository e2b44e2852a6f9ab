package segments

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
)

// openSmall opens a log of small segments.
func openSmall(fs *faulty.Process) (*Engine, journal.Log, error) {
	e, err := Open(context.Background(), Config{FS: fs, Dir: "spool", SyncInterval: time.Hour, SegmentSize: 4 << 10})
	if err != nil {
		return nil, nil, err
	}
	l, err := e.Open(context.Background(), 0, journal.Limits{})
	return e, l, err
}

// intact makes a disk as it is after a kill, and the entries that are on it.
func intact(f *testing.F) (*faulty.Disk, map[uint64]*journal.Entry) {
	f.Helper()
	d := faulty.New(1)
	e, l, err := openSmall(d.Start())
	if err != nil {
		f.Fatal(err)
	}
	appended := map[uint64]*journal.Entry{}
	for n := 1; n <= 30; n++ {
		one := entry(n, 100+n*50)
		if _, err := l.Append(context.Background(), []*journal.Entry{one}); err != nil {
			f.Fatal(err)
		}
		appended[one.Seq] = one
	}
	p := e.Positions()
	if err := errors.Join(p.Put(context.Background(), "store.0", "1 2 3"), p.Flush(context.Background())); err != nil {
		f.Fatal(err)
	}
	kept := d.Clone(1)
	if err := e.Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	return kept, appended
}

// FuzzRecovery takes any bytes for one of the files of a directory. Opening never fails,
// and what is read is what was appended.
func FuzzRecovery(f *testing.F) {
	kept, appended := intact(f)
	files := kept.Files()
	for i, name := range files {
		if data, err := kept.Contents(name); err == nil {
			f.Add(uint8(i), data[:min(len(data), 8<<10)])
		}
	}
	f.Fuzz(func(t *testing.T, file uint8, data []byte) {
		d := kept.Clone(2)
		name := files[int(file)%len(files)]
		d.SetContents(name, data)
		v, err := OpenView(d.Start(), "spool")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Check(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		e, l, err := openSmall(d.Start())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer e.Close(context.Background())
		n := readKnown(t, l, appended)
		if !strings.HasSuffix(name, segmentSuffix) && n != len(appended) {
			t.Fatalf("%s: %d entries", filepath.Base(name), n)
		}
		one := entry(31, 100)
		if _, err := l.Append(context.Background(), []*journal.Entry{one}); err != nil || one.Seq <= 30 && n == len(appended) {
			t.Fatalf("append behind it: %d, %v", one.Seq, err)
		}
	})
}

// readKnown reads a log, all of whose entries were appended, and returns how many there
// are.
func readKnown(t *testing.T, l journal.Log, appended map[uint64]*journal.Entry) (n int) {
	t.Helper()
	c, _ := l.Read(context.Background(), 0)
	defer c.Close()
	for last := uint64(0); ; n++ {
		got, err := c.Next(context.Background())
		if errors.Is(err, journal.ErrEnd) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		want := appended[got.Seq]
		if want == nil || got.Seq <= last || !bytes.Equal(got.Data, want.Data) || got.Total != want.Total || got.Records != want.Records {
			t.Fatalf("entry %d was not appended", got.Seq)
		}
		last = got.Seq
		release(&got)
	}
}
