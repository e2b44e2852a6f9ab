package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// FS is a file system. Errors are those of package os: fs.ErrNotExist,
// syscall.ENOSPC and so on can be asked for with errors.Is.
type FS interface {
	// Open opens a file; flag is of package os (O_RDONLY, O_RDWR, O_CREATE, O_EXCL).
	// New files have mode 0640. That a file was made is safe after SyncDir.
	Open(name string, flag int) (File, error)
	// List is the names of what a directory holds, sorted.
	List(dir string) ([]string, error)
	// MkdirAll makes a directory, mode 0750, and those above it.
	MkdirAll(dir string) error
	// Rename and Remove are safe after SyncDir of the directories; until then a crash
	// may leave the names as they were.
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(dir string) error
	// Space is the size of the file system that has the directory, and what of it is
	// free for everybody, in bytes.
	Space(dir string) (size, free uint64, err error)
	// Lock keeps other processes that ask for it off a file, which it makes if there is
	// none. It ends with Close, or with the process. The error is a *LockedError where
	// another one has it.
	Lock(name string) (io.Closer, error)
}

// LockedError says that another process has a lock.
type LockedError struct {
	Name string
	PID  int // 0: not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return e.Name + " is locked by another process"
	}
	return fmt.Sprintf("%s is locked by process %d", e.Name, e.PID)
}

// File is an open file. Its methods may be called concurrently.
type File interface {
	io.ReaderAt
	io.Closer
	// WritevAt writes the buffers one after the other, beginning at off. n is how many
	// bytes were written, if err is not nil. A crash before Sync may keep any part of
	// them.
	WritevAt(bufs [][]byte, off int64) (n int, err error)
	// Size is the length in bytes.
	Size() (int64, error)
	// Allocate makes the file at least n bytes long, with blocks on the disk for all
	// of them. What was not written reads as zeros.
	Allocate(n int64) error
	Truncate(n int64) error
	// Sync returns when what was written is on the disk, and Size with it. After an
	// error nothing that was written since the last good Sync is sure to be there,
	// whatever a later Sync says.
	Sync() error
}

// OS is the operating system's.
var OS FS = osFS{}

type osFS struct{}

type osFile struct{ *os.File }

func (osFS) Open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

func (osFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o750) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (osFS) Space(dir string) (size, free uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		text := make([]byte, 32)
		n, _ := f.ReadAt(text, 0)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		return nil, &LockedError{name, pid}
	}
	// For who finds it locked; a full disk must not keep anybody from starting.
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}

// mostBuffers is how many buffers one call takes (IOV_MAX of Linux).
const mostBuffers = 1024

func (f osFile) WritevAt(bufs [][]byte, off int64) (n int, err error) {
	for len(bufs) > 0 {
		take := min(len(bufs), mostBuffers)
		done, err := unix.Pwritev(int(f.Fd()), bufs[:take], off+int64(n))
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return n, &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		if done == 0 && len(behind(bufs, 0)) > 0 {
			return n, &os.PathError{Op: "write", Path: f.Name(), Err: io.ErrShortWrite}
		}
		n += done
		bufs = behind(bufs, done)
	}
	return n, nil
}

// behind is what is left of the buffers behind the first n bytes.
func behind(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs = slices.Clone(bufs)
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) Allocate(n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, n)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP):
			// A file system that can't keep blocks for a file: it grows as it is written.
			size, err := f.Size()
			if err != nil || size >= n {
				return err
			}
			return f.Truncate(n)
		}
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
}

func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}
