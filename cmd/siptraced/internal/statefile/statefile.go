// Package statefile keeps a small value over a restart, as JSON that an operator
// can read and fix.
//
//	err := statefile.Write("siptraced.rules.json", list)
//	...
//	var list []Rule
//	err = statefile.Read("siptraced.rules.json", &list)
//
// It leaves out locks: one goroutine at a time writes a file.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mode is that of files with messages in them: not for every user of the host.
const Mode fs.FileMode = 0o640

// Open opens a file for reading and for appending, and makes it where it is missing:
// with Mode, whatever the umask is. One that is there keeps its mode.
func Open(path string) (*os.File, error) {
	const flags = os.O_APPEND | os.O_RDWR
	f, err := os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, Mode)
	if errors.Is(err, fs.ErrExist) {
		return os.OpenFile(path, flags|os.O_CREATE, Mode) // a symbolic link may lead to nothing
	}
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(Mode); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Make makes an empty file with Mode where none is, whatever the umask is, and opens
// none: closing a descriptor of a file that is there would end the locks that this
// process holds on it (fcntl(2), advisory record locking), as SQLite does.
func Make(path string) error {
	for range mostLinks {
		err := unix.Mknod(path, unix.S_IFREG|uint32(Mode), 0)
		if err == nil {
			return os.Chmod(path, Mode)
		}
		if !errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		target, err := os.Readlink(path)
		if err != nil {
			return nil //nolint:nilerr // it is no link: the file is there
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

// mostLinks is how many symbolic links Linux follows (path_resolution(7)).
const mostLinks = 40

// Write replaces the file as a whole, so that a crash leaves the old or the new
// one. Only its owner may read it.
func Write(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Read fills v, a pointer; a file that is not there leaves it alone. The error
// begins with the path.
func Read(path string, v any) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; fix or remove it", path, err)
	}
	return nil
}
