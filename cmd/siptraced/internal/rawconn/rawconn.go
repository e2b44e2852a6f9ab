// Package rawconn is stream sockets whose system calls are not announced to the
// scheduler.
//
//	c := rawconn.Wrap(conn) // a *net.TCPConn or *net.UnixConn; others stay as they are
//
// Before each system call of package net the runtime notes that it may last, and a
// thread of the runtime (sysmon) wakes to look after it, every 20 µs. For sockets that
// are never waited for in the call itself, that costs more than the call: a client
// that asks a database a thousand times a second spends a fifth of its time there.
package rawconn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a stream socket. It is used as the net.Conn that it was made of.
type Conn struct {
	net.Conn
	raw syscall.RawConn
}

// Wrap is c with calls of its own for reading and writing.
func Wrap(c net.Conn) net.Conn {
	var s syscall.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		s = c
	case *net.UnixConn:
		s = c
	default:
		return c
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c
	}
	return &Conn{c, raw}
}

// Listener accepts such sockets.
type Listener struct{ net.Listener }

// Accept is that of package net.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Wrap(c), nil
}

// most bounds what one system call reads or writes, in bytes: it has a processor to
// itself.
const most = 64 << 10

// Read is that of package net.
func (c *Conn) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = c.raw.Read(func(fd uintptr) bool {
		n, errno = call(unix.SYS_READ, fd, b)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case errno != 0:
		return 0, c.failed("read", os.NewSyscallError("read", errno))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write is that of package net.
func (c *Conn) Write(b []byte) (n int, err error) {
	var errno syscall.Errno
	err = c.raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			var wrote int
			if wrote, errno = call(unix.SYS_WRITE, fd, b[n:]); errno != 0 {
				return errno != syscall.EAGAIN
			}
			n += wrote
		}
		return true
	})
	switch {
	case err != nil:
		return n, c.failed("write", err)
	case errno != 0:
		return n, c.failed("write", os.NewSyscallError("write", errno))
	}
	return n, nil
}

// call reads into b, or writes it, as far as one system call does.
func call(trap, fd uintptr, b []byte) (n int, errno syscall.Errno) {
	for {
		r, _, errno := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(min(len(b), most)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), 0
	}
}

// failed names the operation as package net does.
func (c *Conn) failed(op string, err error) error {
	var e *net.OpError
	if errors.As(err, &e) {
		err = e.Err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// SyscallConn gives access to the socket (syscall.Conn).
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// CloseWrite ends what is written.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}
