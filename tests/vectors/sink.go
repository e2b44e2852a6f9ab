package vectors

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Sink is the other end of a mirror: it keeps every packet that comes to one
// address, in the order of arrival; over streams, packets are cut by the length
// of HEP3 and by Content-Length.
type Sink struct {
	network string
	addr    netip.AddrPort
	tls     *tls.Config
	done    sync.WaitGroup

	mu     sync.Mutex // covers all below
	got    []Received
	faults []error
	socket io.Closer
	conns  []net.Conn
	count  int // of connections
}

// Received is a packet that a Sink got.
type Received struct {
	Packet []byte
	From   netip.AddrPort
	At     time.Time
}

// Collect opens a sink; network is udp, tcp or tls, and config is for tls.
func Collect(network, addr string, config *tls.Config) (*Sink, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	s := &Sink{network: network, addr: a, tls: config}
	return s, s.Open()
}

// Stream reports whether the sink listens on TCP or TLS.
func (s *Sink) Stream() bool { return s.network != "udp" }

// Open starts to take packets, again after Close as well.
func (s *Sink) Open() error {
	if s.network == "udp" {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.addr))
		if err != nil {
			return err
		}
		if err := c.SetReadBuffer(4 << 20); err != nil {
			return errors.Join(err, c.Close())
		}
		s.addr = c.LocalAddr().(*net.UDPAddr).AddrPort()
		s.set(c)
		s.done.Go(func() { s.datagrams(c) })
		return nil
	}
	l, err := net.Listen("tcp", s.addr.String())
	if err != nil {
		return err
	}
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	if s.network == "tls" {
		l = tls.NewListener(l, s.tls)
	}
	s.set(l)
	s.done.Go(func() { s.accept(l) })
	return nil
}

func (s *Sink) set(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.socket = c
}

// Close closes the socket and all connections in order: each peer is told, and
// what it sends until it closes as well is kept. Over UDP Close tells when the
// kernel had no room for a datagram.
func (s *Sink) Close() error {
	var err error
	if s.network == "udp" {
		err = s.drain()
	}
	s.mu.Lock()
	if s.socket != nil {
		_ = s.socket.Close()
	}
	open := s.conns
	s.socket, s.conns = nil, nil
	s.mu.Unlock()
	for _, c := range open {
		if w, ok := c.(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite() // it may be gone already
		}
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	}
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(append(s.faults, err)...)
}

// drain waits until the socket is empty.
func (s *Sink) drain() error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		queued, dropped, err := socketQueue(int(s.addr.Port()))
		switch {
		case err != nil:
			return err
		case dropped > 0:
			return fmt.Errorf("vectors: the kernel dropped %d datagrams at port %d", dropped, s.addr.Port())
		case queued == 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("vectors: %d bytes wait unread at port %d", queued, s.addr.Port())
		}
	}
}

// Addr is where the sink takes packets.
func (s *Sink) Addr() netip.AddrPort { return s.addr }

// Len is how many packets came.
func (s *Sink) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// Connections is how many connections came.
func (s *Sink) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Received returns the packets that came.
func (s *Sink) Received() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// Packets returns the bytes of the packets that came.
func (s *Sink) Packets() [][]byte {
	var list [][]byte
	for _, r := range s.Received() {
		list = append(list, r.Packet)
	}
	return list
}

func (s *Sink) keep(p []byte, from net.Addr) {
	a, err := netip.ParseAddrPort(from.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.faults = append(s.faults, err)
	}
	s.got = append(s.got, Received{Packet: p, From: a, At: time.Now()})
}

func (s *Sink) datagrams(c *net.UDPConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		s.keep(bytes.Clone(b[:n]), from)
	}
}

func (s *Sink) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.count++
		late := s.socket == nil
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		if late { // accepted while the sink closes
			_ = c.Close()
			return
		}
		s.done.Go(func() { s.stream(c) })
	}
}

func (s *Sink) stream(c net.Conn) {
	defer c.Close()
	var buf []byte
	b := make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		buf = append(buf, b[:n]...)
		for {
			size, bad := packetSize(buf)
			if bad != nil {
				s.mu.Lock()
				s.faults = append(s.faults, bad)
				s.mu.Unlock()
				return
			}
			if size == 0 || size > len(buf) {
				break
			}
			s.keep(bytes.Clone(buf[:size]), c.RemoteAddr())
			buf = buf[size:]
		}
		if err != nil { // what is left is the start of a packet that will come again
			return
		}
	}
}

var contentLength = regexp.MustCompile(`(?im)^(?:content-length|l)[ \t]*:[ \t]*(\d+)[ \t]*\r?$`)

// packetSize is the length of the packet that a stream starts with, or 0 if too
// little of it is there.
func packetSize(b []byte) (int, error) {
	switch {
	case len(b) < 6:
		return 0, nil
	case string(b[:4]) == "HEP3":
		return int(binary.BigEndian.Uint16(b[4:])), nil
	case b[0] < 'A' || b[0] > 'Z':
		return 0, fmt.Errorf("vectors: a stream with %q in the place of a packet", b[:min(len(b), 40)])
	}
	// RFC 3261 §18.3: Content-Length must be there over streams.
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil
	}
	m := contentLength.FindSubmatch(b[:end+2])
	if m == nil {
		return 0, fmt.Errorf("vectors: SIP in a stream without Content-Length: %q", b[:end])
	}
	n, err := strconv.Atoi(string(m[1]))
	return end + 4 + n, err
}
