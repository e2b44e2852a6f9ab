package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"siptraced/cmd/siptraced/internal/disk"
)

func create(t *testing.T, name string) disk.File {
	t.Helper()
	f, err := disk.OS.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// More buffers than one call of the system takes, some of them empty.
func TestWritevAt(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1023, 1024, 1025, 3000} {
		f := create(t, filepath.Join(t.TempDir(), "file"))
		want := []byte("0123456789")
		if _, err := f.WritevAt([][]byte{want}, 0); err != nil {
			t.Fatal(err)
		}
		var bufs [][]byte
		for i := range n {
			b := bytes.Repeat([]byte{byte(i)}, i%7)
			bufs, want = append(bufs, b), append(want, b...)
		}
		done, err := f.WritevAt(bufs, 10)
		if err != nil || done != len(want)-10 {
			t.Errorf("%d buffers: %d bytes, %v; want %d", n, done, err, len(want)-10)
		}
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d buffers: read %d bytes, %v: not what was written", n, len(got), err)
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	create(t, name)
	f, err := disk.OS.Open(name, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var path *os.PathError
	if _, err := f.WritevAt([][]byte{{1}}, 0); !errors.Is(err, syscall.EBADF) || !errors.As(err, &path) || path.Path != name {
		t.Errorf("WritevAt of a file to read: %v", err)
	}
	if _, err := disk.OS.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Open of a file that is there: %v", err)
	}
	if _, err := disk.OS.List(name + "-none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of nothing: %v", err)
	}
}

func TestAllocate(t *testing.T) {
	dir := t.TempDir()
	f := create(t, filepath.Join(dir, "file"))
	if _, err := f.WritevAt([][]byte{{1, 2, 3}}, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ n, want int64 }{{10_000, 10_000}, {5_000, 10_000}} {
		if err := f.Allocate(c.n); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Size(); err != nil || got != c.want {
			t.Errorf("after Allocate(%d): %d bytes, %v; want %d", c.n, got, err, c.want)
		}
	}
	got := make([]byte, 10_000)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, append([]byte{1, 2, 3}, make([]byte, 9_997)...)) {
		t.Errorf("read %v: not what was written, and zeros", err)
	}
	if err := f.Truncate(2); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Size(); err != nil || got != 2 {
		t.Errorf("after Truncate(2): %d bytes, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := disk.OS.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"2", "1", "3"} {
		create(t, filepath.Join(dir, name))
	}
	err := errors.Join(disk.OS.Rename(filepath.Join(dir, "3"), filepath.Join(dir, "1")), disk.OS.Remove(filepath.Join(dir, "2")), disk.OS.SyncDir(dir))
	got, listErr := disk.OS.List(dir)
	if err != nil || listErr != nil || !slices.Equal(got, []string{"1"}) {
		t.Errorf("names %q, %v, %v; want 1", got, err, listErr)
	}
	if size, free, err := disk.OS.Space(dir); err != nil || size == 0 || free > size {
		t.Errorf("Space = %d, %d, %v", size, free, err)
	}
}

func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		held, err := disk.OS.Lock(name)
		if err != nil {
			t.Fatal(err)
		}
		var locked *disk.LockedError
		if _, err := disk.OS.Lock(name); !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Name != name {
			t.Errorf("the second one: %v, want a *LockedError with this process", err)
		}
		if err := held.Close(); err != nil {
			t.Error(err)
		}
	}
}
