package ingest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call reads at the most.
	batchSize = 32
	// maxDatagram is the largest UDP payload over IPv4; IPv6 carries 20 bytes more.
	maxDatagram = 65535
)

type udpSocket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
	// buffer is the size of the receive buffer, as the kernel counts it.
	buffer int
	inode  uint64
	final  atomic.Uint64 // drops, when the socket was closed
	batch  *mmsgBatch
}

func listenUDP(a Address, buffer int, log *slog.Logger) (*udpSocket, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(context.Background(), a.network(), a.HostPort())
	if err != nil {
		return nil, err
	}
	u := &udpSocket{conn: pc.(*net.UDPConn), batch: newBatch()}
	u.local = u.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	u.local = netip.AddrPortFrom(u.local.Addr().Unmap(), u.local.Port())
	if u.raw, err = u.conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, u.conn.Close())
	}
	var got int
	var st unix.Stat_t
	var optErr, statErr error
	err = u.raw.Control(func(fd uintptr) {
		// With CAP_NET_ADMIN the limit of net.core.rmem_max does not apply.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
			optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
		}
		got, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		statErr = unix.Fstat(int(fd), &st)
	})
	if err = errors.Join(err, optErr, statErr); err != nil {
		return nil, errors.Join(err, u.conn.Close())
	}
	u.inode, u.buffer = st.Ino, got
	// The kernel doubles the value for its own bookkeeping (socket(7)).
	if got /= 2; got < buffer {
		log.Warn("the kernel gives a smaller receive buffer than asked for (key receive_buffer)",
			"listen", a.String(), "asked", buffer, "got", got, "fix", "sysctl -w net.core.rmem_max="+strconv.Itoa(buffer))
	}
	return u, nil
}

// read hands datagrams on until the socket's read deadline is set, and then
// what the kernel still held at that moment.
func (u *udpSocket) read(s *Server) {
	p := &Packet{Net: "udp", Local: u.local, Ask: u.send}
	for {
		n, err := u.receive()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				break
			}
			s.counters.Counter("read_errors.udp").Add(1)
			s.log.Warn("reading datagrams failed, going on", "listen", "udp:"+u.local.String(), "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		u.handle(s, p, n)
	}
	u.drain(s, p)
}

// leastDatagram is what a datagram takes of the socket's buffer at least: the
// kernel counts its own structures too.
const leastDatagram = 256

// drain reads what the socket's buffer may have held when the intake ended, and
// no more: under a flood it is never found empty. Once the server halts, the
// datagrams are counted, and not handed on.
func (u *udpSocket) drain(s *Server, p *Packet) {
	for left := u.buffer; left > 0; {
		n := u.receiveNow()
		if n <= 0 {
			return
		}
		for i := range n {
			left -= max(leastDatagram, int(u.batch.msgs[i].len))
		}
		if s.halted() {
			s.received.Add(uint64(n))
			s.shutdown.Add(uint64(n))
			continue
		}
		u.handle(s, p, n)
	}
}

func (u *udpSocket) handle(s *Server, p *Packet, n int) {
	p.Time = time.Now()
	for i := range n {
		p.Data, p.Source = u.batch.datagram(i)
		s.handle(p)
	}
}

func (u *udpSocket) send(to netip.AddrPort, b []byte) error {
	_, err := u.conn.WriteToUDPAddrPort(b, to)
	return err
}

// receive waits for datagrams and reads as many as there are, up to a batch.
func (u *udpSocket) receive() (n int, err error) {
	var errno syscall.Errno
	err = u.raw.Read(func(fd uintptr) bool {
		n, errno = u.batch.recv(fd)
		return errno != syscall.EAGAIN && errno != syscall.EINTR
	})
	if err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, fmt.Errorf("recvmmsg: %w", errno)
	}
	return n, nil
}

// receiveNow reads what is there without waiting.
func (u *udpSocket) receiveNow() (n int) {
	_ = u.raw.Control(func(fd uintptr) { n, _ = u.batch.recv(fd) })
	return n
}

// mmsghdr is the kernel's struct of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// mmsgBatch is the memory of one reader's system calls.
type mmsgBatch struct {
	msgs  [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	names [batchSize]unix.RawSockaddrInet6
	data  []byte
}

func newBatch() *mmsgBatch {
	b := &mmsgBatch{data: make([]byte, batchSize*maxDatagram)}
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i*maxDatagram]
		b.iovs[i].SetLen(maxDatagram)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
		b.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&b.names[i]))
	}
	return b
}

func (b *mmsgBatch) recv(fd uintptr) (int, syscall.Errno) {
	for i := range b.msgs {
		b.msgs[i].hdr.Namelen = uint32(unsafe.Sizeof(b.names[i]))
	}
	n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// datagram is the i-th one of the last call, and its sender.
func (b *mmsgBatch) datagram(i int) ([]byte, netip.AddrPort) {
	start := i * maxDatagram
	data := b.data[start : start+int(b.msgs[i].len) : start+int(b.msgs[i].len)]
	name := &b.names[i]
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

// drops is how many datagrams the kernel dropped on this socket since it was
// opened: the last column of /proc/net/udp (proc(5)).
func (u *udpSocket) drops() uint64 {
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		if n, ok := procDrops(file, u.inode); ok {
			return n
		}
	}
	return u.final.Load()
}

func procDrops(file string, inode uint64) (uint64, bool) {
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	want := strconv.FormatUint(inode, 10)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// sl local rem st queues tr retrnsmt uid timeout inode ref pointer drops
		col := strings.Fields(sc.Text())
		if len(col) >= 13 && col[9] == want {
			n, err := strconv.ParseUint(col[12], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
