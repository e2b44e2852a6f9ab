package vectors

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Feed sends packets to a collector, in order. UDP packets leave one socket,
// paced so that the collector's socket always has room: what is missing
// afterwards was lost by the collector, not by the kernel. For TCP there is one
// connection, which is closed in the end.
func Feed(ctx context.Context, network, addr string, packets [][]byte) error {
	if network != "udp" {
		return feedTCP(ctx, addr, packets)
	}
	f, err := NewUDPFeeder(addr)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range packets {
		if err := f.Send(ctx, p); err != nil {
			return err
		}
	}
	return f.Wait(ctx)
}

func feedTCP(ctx context.Context, addr string, packets [][]byte) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	for _, p := range packets {
		if _, err := c.Write(p); err != nil {
			_ = c.Close()
			return err
		}
	}
	return c.Close()
}

// Packets returns the bytes of the recorded packets.
func (s *Scenario) Packets() [][]byte {
	list := make([][]byte, len(s.Datagrams))
	for i := range s.Datagrams {
		list[i] = s.Datagrams[i].Packet
	}
	return list
}

// UDPFeeder sends datagrams to one socket of this machine.
type UDPFeeder struct {
	conn    net.Conn
	port    int
	pending int // bytes sent since the socket was last seen empty
}

// window is how much may be on its way to the socket. The smallest buffer that
// a socket has by default on Linux, 212,992 bytes, counts the kernel's own
// memory for each packet, which may be more than twice the packet.
const window = 128 << 10

// NewUDPFeeder opens a socket for sending to addr.
func NewUDPFeeder(addr string) (*UDPFeeder, error) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return nil, err
	}
	return &UDPFeeder{conn: c, port: c.RemoteAddr().(*net.UDPAddr).Port}, nil
}

// Source is the address that the datagrams come from.
func (f *UDPFeeder) Source() string { return f.conn.LocalAddr().String() }

// Close closes the socket.
func (f *UDPFeeder) Close() error { return f.conn.Close() }

// Send sends one datagram, once there is room for it.
func (f *UDPFeeder) Send(ctx context.Context, p []byte) error {
	const overhead = 1024
	if f.pending > 0 && f.pending+len(p)+overhead > window {
		if err := f.Wait(ctx); err != nil {
			return err
		}
	}
	f.pending += len(p) + overhead
	_, err := f.conn.Write(p)
	return err
}

// Wait waits until the collector has read everything from its socket.
func (f *UDPFeeder) Wait(ctx context.Context) error {
	missed := 0
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		queued, dropped, err := socketQueue(f.port)
		if err != nil {
			// The kernel's tables are read in pieces: while other sockets come and go, one
			// can be passed over.
			if missed++; missed < 20 {
				time.Sleep(pause)
				continue
			}
			return err
		}
		if dropped > 0 {
			return fmt.Errorf("vectors: the kernel dropped %d datagrams at port %d", dropped, f.port)
		}
		if queued == 0 {
			f.pending = 0
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("vectors: %d bytes wait unread at port %d: %w", queued, f.port, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// socketQueue reads from the kernel's tables how many bytes wait in the UDP
// sockets bound to the port, and how many datagrams found no room there. A table
// that changes while it is read can lack a socket, so it is read again then.
func socketQueue(port int) (queued, dropped int64, err error) {
	for range 20 {
		var found bool
		if queued, dropped, found, err = readQueue(port); found || err != nil {
			return queued, dropped, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, 0, fmt.Errorf("vectors: no UDP socket at port %d", port)
}

func readQueue(port int) (queued, dropped int64, found bool, err error) {
	want := fmt.Sprintf(":%04X", port)
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a machine without IPv6 has no udp6
		}
		for line := range strings.Lines(string(b)) {
			// sl local rem st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops
			f := strings.Fields(line)
			if len(f) < 13 || !strings.HasSuffix(f[1], want) {
				continue
			}
			var tx, rx, d int64
			if _, err := fmt.Sscanf(f[4]+" "+f[12], "%x:%x %d", &tx, &rx, &d); err != nil {
				return 0, 0, false, fmt.Errorf("vectors: %s: %q: %w", file, line, err)
			}
			found = true
			queued += rx
			dropped += d
		}
	}
	return queued, dropped, found, nil
}
