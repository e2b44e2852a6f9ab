package datagram

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a UDP socket. One goroutine may read while others write.
type Socket struct {
	fd            int
	local, remote netip.AddrPort
	// watch is an epoll(7) instance that has fd alone; the runtime watches it. What is
	// done with fd is done by its RawConn: Close waits for that.
	watch *os.File
	raw   syscall.RawConn
	armed bool // a datagram wakes who waits for watch; the Reader's
}

// Take makes a Socket of a connection of package net, which is closed.
func Take(c *net.UDPConn) (*Socket, error) {
	defer c.Close()
	s := &Socket{fd: -1, local: addrPort(c.LocalAddr()), remote: addrPort(c.RemoteAddr())}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dup error
	if err := raw.Control(func(fd uintptr) { s.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dup != nil {
		return nil, os.NewSyscallError("fcntl", dup)
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, unix.Close(s.fd))
	}
	return s, nil
}

func (s *Socket) open() error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	// Without it the runtime does not watch the file.
	if err := unix.SetNonblock(epoll, true); err != nil {
		return errors.Join(os.NewSyscallError("fcntl", err), unix.Close(epoll))
	}
	s.watch = os.NewFile(uintptr(epoll), "epoll")
	if s.raw, err = s.watch.SyscallConn(); err == nil {
		err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{}))
	}
	if err == nil {
		err = s.watch.SetReadDeadline(time.Time{}) // it can be watched
	}
	if err != nil {
		return errors.Join(err, s.watch.Close())
	}
	return nil
}

// arm says whether datagrams wake who waits for the epoll instance.
func (s *Socket) arm(epoll uintptr, armed bool) {
	ev := unix.EpollEvent{}
	if armed {
		ev.Events = unix.EPOLLIN
	}
	s.armed = armed
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, epoll, unix.EPOLL_CTL_MOD, uintptr(s.fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
}

// LocalAddr and RemoteAddr are the ends; RemoteAddr is the zero AddrPort if the
// socket is not connected.
func (s *Socket) LocalAddr() netip.AddrPort  { return s.local }
func (s *Socket) RemoteAddr() netip.AddrPort { return s.remote }

// Control calls f with the descriptor, for its options.
func (s *Socket) Control(f func(fd int) error) error {
	var err error
	if closed := s.raw.Control(func(uintptr) { err = f(s.fd) }); closed != nil {
		return net.ErrClosed
	}
	return err
}

// SetReadDeadline is that of package net, for the Reader.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.watch.SetReadDeadline(t) }

// Close ends the socket, and the reading.
func (s *Socket) Close() error {
	if err := s.watch.Close(); err != nil {
		return err
	}
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// SendTo sends one datagram; a socket that has no room for it does not wait.
func (s *Socket) SendTo(to netip.AddrPort, b []byte) error {
	var addr unix.Sockaddr
	if s.local.Addr().Is4() {
		addr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	} else {
		addr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	return s.Control(func(fd int) error { return os.NewSyscallError("sendto", unix.Sendto(fd, b, unix.MSG_DONTWAIT, addr)) })
}

// Write sends one datagram over a connected socket, as SendTo does.
func (s *Socket) Write(b []byte) (int, error) {
	err := s.Control(func(fd int) error { return os.NewSyscallError("send", unix.Send(fd, b, unix.MSG_DONTWAIT)) })
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// mmsghdr is the kernel's struct of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// Reader is the memory of one goroutine that reads.
type Reader struct {
	socket *Socket
	size   int
	msgs   []mmsghdr
	iovs   []unix.Iovec
	names  []unix.RawSockaddrInet6
	data   []byte

	read  func(fd uintptr) bool // of the last call: n and errno
	n     int
	errno syscall.Errno
}

// Reader reads up to n datagrams of up to size bytes at once; longer ones are cut.
func (s *Socket) Reader(n, size int) *Reader {
	r := &Reader{socket: s, size: size, msgs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n), names: make([]unix.RawSockaddrInet6, n), data: make([]byte, n*size)}
	for i := range r.msgs {
		r.iovs[i].Base = &r.data[i*size]
		r.iovs[i].SetLen(size)
		r.msgs[i].hdr.Iov = &r.iovs[i]
		r.msgs[i].hdr.SetIovlen(1)
		r.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
	r.read = r.attempt
	return r
}

// attempt reports whether there is an answer, and sees to it that who waits for one is
// woken.
func (r *Reader) attempt(epoll uintptr) bool {
	for {
		r.receive()
		switch {
		case r.errno == syscall.EINTR:
		case r.errno != syscall.EAGAIN:
			return true
		case r.socket.armed:
			return false
		default:
			r.socket.arm(epoll, true)
		}
	}
}

// receive is one system call.
func (r *Reader) receive() {
	for i := range r.msgs {
		r.msgs[i].hdr.Namelen = uint32(unsafe.Sizeof(r.names[i]))
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.socket.fd), uintptr(unsafe.Pointer(&r.msgs[0])), uintptr(len(r.msgs)), unix.MSG_DONTWAIT, 0, 0)
	if r.n, r.errno = int(n), errno; errno != 0 {
		r.n = 0
	}
}

// Read waits for datagrams and reads as many as there are. The error may be that of a
// datagram that was sent before (ICMP); it wraps os.ErrDeadlineExceeded or net.ErrClosed
// when there is nothing more to read.
func (r *Reader) Read() (int, error) {
	switch err := r.socket.raw.Read(r.read); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, err
	case err != nil:
		return 0, net.ErrClosed
	}
	if r.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", r.errno)
	}
	return r.n, nil
}

// ReadNow reads what is there, whatever the deadline.
func (r *Reader) ReadNow() int {
	if r.socket.raw.Control(func(uintptr) { r.receive() }) != nil {
		return 0
	}
	return r.n
}

// Pause lets datagrams come for so long.
func (r *Reader) Pause(d time.Duration) {
	if d <= 0 {
		return
	}
	if r.socket.armed {
		_ = r.socket.raw.Control(func(epoll uintptr) { r.socket.arm(epoll, false) })
	}
	time.Sleep(d)
}

// Len is how many bytes the i-th datagram of the last call has.
func (r *Reader) Len(i int) int { return int(r.msgs[i].len) }

// Datagram is the i-th one of the last call, and its sender. It is valid until the next
// call.
func (r *Reader) Datagram(i int) ([]byte, netip.AddrPort) {
	start, end := i*r.size, i*r.size+int(r.msgs[i].len)
	data, name := r.data[start:end:end], &r.names[i]
	port := func(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return data, netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port(&v4.Port))
	case unix.AF_INET6:
		return data, netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), port(&name.Port))
	}
	return data, netip.AddrPort{}
}

// Writer is the memory of one goroutine that writes.
type Writer struct {
	socket *Socket
	msgs   []mmsghdr
	iovs   []unix.Iovec
	none   byte // the address of no bytes
}

// Writer writes up to n datagrams at once.
func (s *Socket) Writer(n int) *Writer {
	w := &Writer{socket: s, msgs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n)}
	for i := range w.msgs {
		w.msgs[i].hdr.Iov = &w.iovs[i]
		w.msgs[i].hdr.SetIovlen(1)
	}
	return w
}

// Write sends datagrams over a connected socket, up to as many as the Writer has room
// for, and returns how many the kernel took. It waits while the socket has no room. The
// error is that of the datagram behind those, or of one that was sent before (ICMP).
func (w *Writer) Write(datagrams [][]byte) (n int, err error) {
	count := min(len(datagrams), len(w.msgs))
	if count == 0 {
		return 0, nil
	}
	for i, b := range datagrams[:count] {
		w.iovs[i].Base = &w.none
		if len(b) > 0 {
			w.iovs[i].Base = &b[0]
		}
		w.iovs[i].SetLen(len(b))
	}
	err = w.socket.Control(func(fd int) error {
		for {
			sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&w.msgs[0])), uintptr(count), unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				n = int(sent)
				return nil
			case syscall.EAGAIN:
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(fullPause.Milliseconds()))
			case syscall.EINTR:
			default:
				return os.NewSyscallError("sendmmsg", errno)
			}
		}
	})
	clear(w.iovs[:count])
	return n, err
}

// fullPause is how often a socket without room is looked at again.
const fullPause = 100 * time.Millisecond

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok || u == nil {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
