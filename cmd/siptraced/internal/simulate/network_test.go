//go:build simulation

package simulate

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"siptraced/hep"
)

// errRefused is what a host answers on which nobody listens.
var errRefused error = syscall.ECONNREFUSED

// peer is a host on the other side of the network, with a HEP3 server on it.
type peer struct {
	w *world

	down   bool // nobody listens
	frozen bool // the server reads nothing
	cut    bool // nothing comes through, in neither direction
	change signal

	conns []*netConn
	// arrived are the messages of which the host's TCP acknowledged the last byte, in
	// order; acked says of each how often, and read how often the server read it.
	arrived     []int
	acked, read map[int]int
}

func newPeer(w *world) *peer {
	return &peer{w: w, change: newSignal(), acked: map[int]int{}, read: map[int]int{}}
}

// signal wakes all who wait for a change.
type signal struct{ c *chan struct{} }

func newSignal() signal                { c := make(chan struct{}); return signal{&c} }
func (s signal) wait() <-chan struct{} { return *s.c }
func (s signal) wake()                 { close(*s.c); *s.c = make(chan struct{}) }

// set changes how the host does.
func (p *peer) set(f func()) {
	f()
	p.change.wake()
}

// crash ends the server and all connections; what it has not read is gone.
func (p *peer) crash(err error) {
	for _, c := range slices.Clone(p.conns) {
		c.reset(err)
	}
}

// closeAll ends all connections in order: what was sent is read first.
func (p *peer) closeAll() {
	for _, c := range slices.Clone(p.conns) {
		c.finish = true
		c.change.wake()
	}
}

const (
	// netBuffer is what a host keeps of a connection, in bytes, on either side.
	netBuffer = 128 << 10
	segment   = 16 << 10
)

// dial is mirror.Config.Dial.
func (p *peer) dial(ctx context.Context, _ string, _, remote netip.AddrPort) (net.Conn, error) {
	if err := sleep(ctx, p.w.latency(2*time.Millisecond)); err != nil {
		return nil, err
	}
	if p.cut {
		if err := sleep(ctx, 5*time.Second); err != nil {
			return nil, err
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ETIMEDOUT}
	}
	if p.down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errRefused}
	}
	p.w.ports++
	c := &netConn{peer: p, change: newSignal(), local: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), p.w.ports), remote: remote}
	p.conns = append(p.conns, c)
	go c.carry()
	go c.serve()
	return c, nil
}

// netConn is our side of a connection, a mirror.StreamConn, and the host's.
type netConn struct {
	peer          *peer
	local, remote netip.AddrPort
	change        signal

	out       []byte // written, and not acknowledged by the host
	kernel    []byte // acknowledged, and not read by the server
	in        []byte // sent by the server, and not read by us
	parsed    []byte // what was acknowledged since the last whole packet
	err       error  // the connection is broken
	eof       bool   // the server closed it
	finish    bool   // the server closes it when it has read all
	closed    bool   // by us
	readUntil time.Time
	sendUntil time.Time
}

func (c *netConn) reset(err error) {
	if c.err == nil {
		c.err = err
	}
	c.kernel = nil
	c.peer.conns = slices.DeleteFunc(c.peer.conns, func(o *netConn) bool { return o == c })
	c.change.wake()
}

func (c *netConn) over() bool {
	return c.err != nil || c.closed && (len(c.out) == 0 || c.eof)
}

// wait waits for a change of the connection or of the host, or for a deadline.
func (c *netConn) wait(until time.Time) error {
	var deadline <-chan time.Time
	if !until.IsZero() {
		d := time.Until(until)
		if d <= 0 {
			return os.ErrDeadlineExceeded
		}
		t := time.NewTimer(d)
		defer t.Stop()
		deadline = t.C
	}
	select {
	case <-c.change.wait():
	case <-c.peer.change.wait():
	case <-deadline:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// carry carries what was written to the host, which acknowledges it.
func (c *netConn) carry() {
	for !c.over() {
		if c.peer.cut || len(c.out) == 0 || len(c.kernel) >= netBuffer || c.eof {
			_ = c.wait(time.Time{})
			continue
		}
		time.Sleep(c.peer.w.latency(300 * time.Microsecond))
		if c.err != nil || c.peer.cut {
			continue
		}
		n := min(len(c.out), segment)
		c.kernel = append(c.kernel, c.out[:n]...)
		c.acknowledge(c.out[:n])
		c.out = c.out[n:]
		c.change.wake()
	}
	c.change.wake()
}

// acknowledge notes which messages the host has got whole.
func (c *netConn) acknowledge(b []byte) {
	c.parsed = append(c.parsed, b...)
	c.parsed = packets(c.parsed, func(p *hep.Packet) {
		if id, _ := identify(string(p.Payload)); id > 0 {
			c.peer.acked[id]++
			c.peer.arrived = append(c.peer.arrived, id)
		}
	}, c.peer.w)
}

// packets takes the whole packets off the beginning of b.
func packets(b []byte, f func(*hep.Packet), w *world) []byte {
	for {
		n, err := hep.Split(b)
		if err != nil {
			w.find("the peer got what is no HEP3: %v", err)
			return nil
		}
		if n == 0 || n > len(b) {
			return b
		}
		var p hep.Packet
		if err := p.Decode(b[:n]); err != nil {
			w.find("the peer got a packet that is none: %v", err)
		}
		f(&p)
		b = b[n:]
	}
}

// serve is the host's server: it reads, and answers keep-alives.
func (c *netConn) serve() {
	var b []byte
	for c.err == nil {
		if c.peer.frozen || len(c.kernel) == 0 {
			if c.closed && len(c.out) == 0 || c.finish {
				c.eof = true
				c.peer.conns = slices.DeleteFunc(c.peer.conns, func(o *netConn) bool { return o == c })
				c.change.wake()
				return
			}
			_ = c.wait(time.Time{})
			continue
		}
		time.Sleep(c.peer.w.latency(300 * time.Microsecond))
		if c.err != nil {
			return
		}
		b, c.kernel = append(b, c.kernel...), nil
		b = packets(b, func(p *hep.Packet) {
			if p.KeepAlive != 0 {
				answer, _ := p.Append(nil)
				c.in = append(c.in, answer...)
				return
			}
			id, _ := identify(string(p.Payload))
			c.peer.read[id]++
		}, c.peer.w)
		c.change.wake()
	}
}

func (c *netConn) Read(b []byte) (int, error) {
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case len(c.in) > 0 && !c.peer.cut:
			n := copy(b, c.in)
			c.in = c.in[n:]
			return n, nil
		case c.err != nil:
			return 0, c.err
		case c.eof:
			return 0, io.EOF
		}
		if err := c.wait(c.readUntil); err != nil {
			return 0, err
		}
	}
}

func (c *netConn) Write(b []byte) (n int, err error) {
	for {
		switch {
		case c.closed:
			return n, net.ErrClosed
		case c.err != nil:
			return n, c.err
		case c.eof:
			c.reset(syscall.EPIPE)
			return n, c.err
		}
		take := min(len(b)-n, netBuffer-len(c.out))
		c.out = append(c.out, b[n:n+take]...)
		if n += take; take > 0 {
			c.change.wake()
		}
		if n == len(b) {
			return n, nil
		}
		if err := c.wait(c.sendUntil); err != nil {
			return n, err
		}
	}
}

func (c *netConn) Close() error {
	c.closed = true
	c.change.wake()
	return nil
}

func (c *netConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *netConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *netConn) SetDeadline(t time.Time) error {
	c.readUntil, c.sendUntil = t, t
	c.change.wake()
	return nil
}

func (c *netConn) SetReadDeadline(t time.Time) error {
	c.readUntil = t
	c.change.wake()
	return nil
}

func (c *netConn) SetWriteDeadline(t time.Time) error {
	c.sendUntil = t
	c.change.wake()
	return nil
}

// Unacknowledged and Dead are those of mirror.StreamConn.
func (c *netConn) Unacknowledged() (int, error) { return len(c.out), nil }
func (c *netConn) Dead() bool                   { return c.err != nil }
