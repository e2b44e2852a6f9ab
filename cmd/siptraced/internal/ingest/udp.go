package ingest

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"siptraced/cmd/siptraced/internal/datagram"
)

const (
	// batchSize is how many datagrams one system call reads at the most.
	batchSize = 64
	// maxDatagram is the largest UDP payload over IPv4; IPv6 carries 20 bytes more.
	maxDatagram = 65535
)

type udpSocket struct {
	*datagram.Socket
	reader *datagram.Reader
	local  netip.AddrPort
	// buffer is the size of the receive buffer, as the kernel counts it.
	buffer int
	inode  uint64
	final  atomic.Uint64 // drops, when the socket was closed
	rhythm rhythm
}

func listenUDP(a Address, buffer int, log *slog.Logger) (*udpSocket, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(context.Background(), a.network(), a.HostPort())
	if err != nil {
		return nil, err
	}
	s, err := datagram.Take(pc.(*net.UDPConn))
	if err != nil {
		return nil, err
	}
	u := &udpSocket{Socket: s, reader: s.Reader(batchSize, maxDatagram), local: s.LocalAddr()}
	var st unix.Stat_t
	err = s.Control(func(fd int) error {
		// With CAP_NET_ADMIN the limit of net.core.rmem_max does not apply.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
				return err
			}
		}
		u.buffer, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return unix.Fstat(fd, &st)
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	u.inode = st.Ino
	// The kernel doubles the value for its own bookkeeping (socket(7)).
	if got := u.buffer / 2; got < buffer {
		log.Warn("the kernel gives a smaller receive buffer than asked for (key receive_buffer)",
			"listen", a.String(), "asked", buffer, "got", got, "fix", "sysctl -w net.core.rmem_max="+strconv.Itoa(buffer))
	}
	return u, nil
}

// read hands datagrams on until the intake ends, and then what the kernel still held
// at that moment.
func (u *udpSocket) read(s *Server) {
	p := &Packet{Net: "udp", Local: u.local, Ask: u.SendTo}
	for {
		n, err := u.reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			s.counters.Counter("read_errors.udp").Add(1)
			s.log.Warn("reading datagrams failed, going on", "listen", "udp:"+u.local.String(), "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		u.handle(s, p, n)
		if n < batchSize {
			u.reader.Pause(u.rhythm.pause(time.Now(), u.buffer))
		}
	}
	u.drain(s, p)
}

// rhythm decides how long to let datagrams gather in the socket's buffer. Waking for
// each one costs more than reading it, so where they come thick they are read in
// bunches.
type rhythm struct {
	emptied time.Time // when the socket was found empty the last time
	count   int       // datagrams since then
	bytes   int       // that they took of the buffer
}

const (
	// longestPause is how much later a datagram may be read.
	longestPause = 2 * time.Millisecond
	// worthPause is how many datagrams a pause has to gather.
	worthPause = 8
	// bufferShare is the share of the buffer that may fill meanwhile: bursts come.
	bufferShare = 8
)

// add counts a datagram of n bytes, which takes up to twice that of the buffer, and
// the kernel's own structures.
func (r *rhythm) add(n int) {
	r.count++
	r.bytes += 2*n + 768
}

// pause is how long to wait now that the socket is empty; buffer is its size in bytes.
func (r *rhythm) pause(now time.Time, buffer int) time.Duration {
	since := now.Sub(r.emptied)
	count, bytes := float64(r.count), float64(r.bytes)
	*r = rhythm{emptied: now}
	// What comes in a pause, if it goes on like this.
	share := float64(longestPause) / float64(max(since, 1))
	if room := float64(buffer) / bufferShare; bytes*share > room {
		share = room / bytes
	}
	if count*share < worthPause {
		return 0
	}
	return time.Duration(share * float64(since))
}

// leastDatagram is what a datagram takes of the socket's buffer at least: the
// kernel counts its own structures too.
const leastDatagram = 256

// drain reads what the socket's buffer may have held when the intake ended, and
// no more: under a flood it is never found empty. Once the server halts, the
// datagrams are counted, and not handed on.
func (u *udpSocket) drain(s *Server, p *Packet) {
	for left := u.buffer; left > 0; {
		n := u.reader.ReadNow()
		if n <= 0 {
			return
		}
		for i := range n {
			left -= max(leastDatagram, u.reader.Len(i))
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
		p.Data, p.Source = u.reader.Datagram(i)
		u.rhythm.add(len(p.Data))
		s.handle(p)
	}
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
