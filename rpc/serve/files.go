package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// InUseError says why a path was left alone: what stands there is not a stale
// thing of ours.
type InUseError struct{ Path, Why string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s: %s; remove it or choose another path", e.Path, e.Why)
}

// access is who may use a socket or FIFO.
type access struct {
	mode     fs.FileMode
	uid, gid int // -1 = as the process
}

// resolveAccess takes names or numbers, as Kamailio's parameters do.
func resolveAccess(mode fs.FileMode, owner, group string) (a access, err error) {
	a = access{mode: mode.Perm(), uid: -1, gid: -1}
	if owner != "" {
		if a.uid, err = strconv.Atoi(owner); err != nil {
			u, err := user.Lookup(owner)
			if err != nil {
				return a, err
			}
			if a.uid, err = strconv.Atoi(u.Uid); err != nil {
				return a, fmt.Errorf("user %s: id %q", owner, u.Uid)
			}
		}
	}
	if group != "" {
		if a.gid, err = strconv.Atoi(group); err != nil {
			g, err := user.LookupGroup(group)
			if err != nil {
				return a, err
			}
			if a.gid, err = strconv.Atoi(g.Gid); err != nil {
				return a, fmt.Errorf("group %s: id %q", group, g.Gid)
			}
		}
	}
	return a, nil
}

// identity is one file, whatever its name.
type identity struct{ dev, ino uint64 }

func identify(fi fs.FileInfo) identity {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return identity{st.Dev, st.Ino}
	}
	return identity{}
}

// made is a file that this process has made, to be removed at the end.
type made struct {
	path string
	id   identity
}

func remember(path string) (made, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return made{}, err
	}
	return made{path, identify(fi)}, nil
}

// remove unlinks the file unless somebody has put another in its place.
func (m made) remove() error {
	fi, err := os.Lstat(m.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && identify(fi) != m.id {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(m.path)
}

// makeRoom makes room at path: a file of the type want that nobody answers at is a
// stale one and is removed; anything else stays and is an error. A run folder
// that is missing is made, as /run is empty after a boot.
func makeRoom(path string, want fs.FileMode, answers func() (bool, error)) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != want {
		return &InUseError{path, "is there and is " + kindName(fi.Mode())}
	}
	switch answering, err := answers(); {
	case err != nil:
		return &InUseError{path, "is there and can't be tried: " + err.Error()}
	case answering:
		return &InUseError{path, "is there and another program answers at it"}
	}
	return os.Remove(path)
}

func kindName(m fs.FileMode) string {
	switch m.Type() {
	case 0:
		return "a plain file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeSocket:
		return "a socket"
	case fs.ModeNamedPipe:
		return "a FIFO"
	}
	return "of another kind (" + m.String() + ")"
}

// socketAnswers tries a unix socket of that network, "unix" or "unixgram".
func socketAnswers(network, path string) (bool, error) {
	c, err := net.Dial(network, path)
	switch {
	case err == nil:
		return true, c.Close()
	case errors.Is(err, unix.ECONNREFUSED):
		return false, nil
	case errors.Is(err, unix.EPROTOTYPE), errors.Is(err, unix.EAGAIN): // another type, or its queue is full
		return true, nil
	}
	return false, err
}

// prepareSocket is for net.ListenConfig.Control: bind makes the file with the
// mode that the socket has, so it is never open to more than it should be.
func (a access) prepareSocket(_, _ string, raw syscall.RawConn) error {
	var err error
	if err2 := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(a.mode)) }); err2 != nil {
		return err2
	}
	return err
}

// apply sets owner and mode of a socket at path, which can't be done by its
// descriptor.
func (a access) apply(path string) error {
	if a.uid >= 0 || a.gid >= 0 {
		if err := os.Lchown(path, a.uid, a.gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, a.mode) // for what umask took away
}

func listenUnix(ctx context.Context, path string, a access) (*net.UnixListener, made, error) {
	err := makeRoom(path, fs.ModeSocket, func() (bool, error) { return socketAnswers("unix", path) })
	if err != nil {
		return nil, made{}, err
	}
	lc := net.ListenConfig{Control: a.prepareSocket}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, made{}, err
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false) // the path may be another's by then
	m, err := remember(path)
	if err == nil {
		err = a.apply(path)
	}
	if err != nil {
		return nil, made{}, errors.Join(err, ul.Close(), os.Remove(path))
	}
	return ul, m, nil
}

func listenUnixgram(ctx context.Context, path string, a access) (*net.UnixConn, made, error) {
	err := makeRoom(path, fs.ModeSocket, func() (bool, error) { return socketAnswers("unixgram", path) })
	if err != nil {
		return nil, made{}, err
	}
	lc := net.ListenConfig{Control: func(network, address string, raw syscall.RawConn) error {
		var err error
		if err2 := raw.Control(func(fd uintptr) {
			// Each datagram then says who sent it.
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		}); err2 != nil {
			return err2
		}
		return errors.Join(err, a.prepareSocket(network, address, raw))
	}}
	c, err := lc.ListenPacket(ctx, "unixgram", path)
	if err != nil {
		return nil, made{}, err
	}
	uc := c.(*net.UnixConn)
	m, err := remember(path)
	if err == nil {
		err = a.apply(path)
	}
	if err != nil {
		return nil, made{}, errors.Join(err, uc.Close(), os.Remove(path))
	}
	return uc, m, nil
}

// makeFIFO makes a command FIFO and opens it for reading and writing, so that
// it never comes to its end and clients never wait in their open.
func makeFIFO(path string, a access) (*os.File, made, error) {
	err := makeRoom(path, fs.ModeNamedPipe, func() (bool, error) {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENXIO) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, unix.Close(fd)
	})
	if err != nil {
		return nil, made{}, err
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, made{}, &fs.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	m, err := remember(path)
	if err != nil {
		return nil, made{}, err
	}
	f, err := openFIFO(path, unix.O_RDWR)
	if err == nil && (a.uid >= 0 || a.gid >= 0) {
		err = f.Chown(a.uid, a.gid)
	}
	if err == nil {
		err = f.Chmod(a.mode)
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, made{}, errors.Join(err, m.remove())
	}
	return f, m, nil
}

// errNotFIFO and errHardLink are why openFIFO refuses a name.
var (
	errNotFIFO  = errors.New("not a FIFO, or exchanged while it was opened")
	errHardLink = errors.New("has more than one name")
)

// openFIFO opens a FIFO that is there, without waiting, and makes sure that it
// is one: not a symbolic link, not hard-linked, and the one that the name says.
// It never creates and never opens anything else.
func openFIFO(path string, flag int) (*os.File, error) {
	var before, after unix.Stat_t
	if err := unix.Lstat(path, &before); err != nil {
		return nil, err
	}
	if before.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, errNotFIFO
	}
	fd, err := unix.Open(path, flag|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(fd, &after); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if after.Dev != before.Dev || after.Ino != before.Ino {
		return nil, errors.Join(errNotFIFO, unix.Close(fd))
	}
	if after.Nlink > 1 {
		return nil, errors.Join(errHardLink, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// writePIDFile writes the process id. A file that is there stays when the socket
// of the process that it names answers: that server is running. socket is ours.
func writePIDFile(path, socket string) (made, error) {
	fi, err := os.Lstat(path)
	if err == nil {
		if !fi.Mode().IsRegular() {
			return made{}, &InUseError{path, "is there and is " + kindName(fi.Mode())}
		}
		if other := socketOf(path, socket); other != "" {
			return made{}, &InUseError{path, "is of a running server, which answers at " + other}
		}
		if err := os.Remove(path); err != nil {
			return made{}, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return made{}, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return made{}, err
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	if err = errors.Join(err, f.Close()); err != nil {
		return made{}, errors.Join(err, os.Remove(path))
	}
	return remember(path)
}

// socketOf returns the path of the socket that answers for the process in a pid
// file, "" if none does. The socket's path ends in the process id, as ours.
func socketOf(pidFile, socket string) string {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return ""
	}
	base, found := strings.CutSuffix(socket, strconv.Itoa(os.Getpid()))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !found || pid == os.Getpid() {
		return ""
	}
	other := base + strconv.Itoa(pid)
	if answering, err := socketAnswers("unix", other); err != nil || !answering {
		return ""
	}
	return other
}
