package mirror

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"siptraced/cmd/siptraced/internal/rawconn"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

const (
	dialTimeout = 5 * time.Second
	// userTimeout is how long the peer may leave what it was sent unacknowledged
	// (TCP_USER_TIMEOUT, RFC 5482).
	userTimeout = 20 * time.Second
)

// errSelf says that a destination turned out to be siptraced itself.
var errSelf = errors.New("it is an address that siptraced listens on: every message would come back")

// dial opens a socket to the first address that answers, from the w.turn-th on.
func (w *sender) dial(ctx context.Context, d *Destination, addrs []netip.AddrPort) (net.Conn, error) {
	var errs []error
	self := 0
	for i := range addrs {
		addr := addrs[(w.turn+i)%len(addrs)]
		if is := w.sink.m.isSelf; is != nil && is(d.Transport, addr) {
			self++
			errs = append(errs, fmt.Errorf("%s: %w", addr, errSelf))
			continue
		}
		c, err := w.dialOne(ctx, d, addr)
		if err == nil {
			w.turn = (w.turn + i) % len(addrs)
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if self == len(addrs) {
		errs = append(errs, spool.ErrDiscard)
	}
	return nil, errors.Join(errs...)
}

func (w *sender) dialOne(ctx context.Context, d *Destination, addr netip.AddrPort) (net.Conn, error) {
	network := "tcp"
	if !d.Stream() {
		network = "udp"
	}
	local := d.Local
	c, err := w.sink.m.dial(ctx, network, local, addr)
	if err != nil && local.Port() != 0 && (errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)) {
		// The proxy itself, or our other connection, has the port.
		c, err = w.sink.m.dial(ctx, network, netip.AddrPortFrom(local.Addr(), 0), addr)
		if err == nil && !w.portLogged {
			w.portLogged = true
			w.sink.log.Info("mirror: the port to send from is taken, another one is used", "local", local.String(), "used", c.LocalAddr().String())
		}
	}
	if err != nil || d.Transport != siptrace.TLS {
		return c, err
	}
	return handshake(ctx, d, c)
}

func handshake(ctx context.Context, d *Destination, raw net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	cfg := d.TLS.Clone()
	// One write is one record then, so that what the peer acknowledged can be told
	// from what it did not.
	cfg.DynamicRecordSizingDisabled = true
	c := tls.Client(&countedConn{Conn: raw}, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return c, nil
}

// systemDial opens a socket of the system.
func systemDial(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if local.Addr().IsValid() && !local.Addr().IsUnspecified() && local.Addr().Is4() == remote.Addr().Is4() {
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(local)
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(local)
		}
	}
	d.Control = func(_, _ string, rc syscall.RawConn) error {
		var err error
		ctl := rc.Control(func(fd uintptr) {
			switch {
			case network == "tcp":
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			case local.Port() != 0:
				// Several destinations may share the port.
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
		return errors.Join(ctl, err)
	}
	c, err := d.DialContext(ctx, network, remote.String())
	if tcp, ok := c.(*net.TCPConn); ok {
		return newTCPConn(tcp)
	}
	return c, err
}

// StreamConn is a connection that knows what its peer acknowledged.
type StreamConn interface {
	net.Conn
	// Unacknowledged is how many of the bytes that were written the peer's host has
	// not acknowledged, even after the peer has closed.
	Unacknowledged() (bytes int, err error)
	// Dead reports that no acknowledgement comes any more.
	Dead() bool
}

// tcpConn is a StreamConn of the system.
type tcpConn struct {
	net.Conn
	raw syscall.RawConn
}

func newTCPConn(c *net.TCPConn) (net.Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return tcpConn{rawconn.Wrap(c), raw}, nil
}

// Unacknowledged asks the kernel (tcp(7), SIOCOUTQ).
func (c tcpConn) Unacknowledged() (bytes int, err error) {
	ctl := c.raw.Control(func(fd uintptr) { bytes, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return bytes, errors.Join(ctl, err)
}

// tcpClose is the state of a socket that is done for (include/net/tcp_states.h).
const tcpClose = 7

func (c tcpConn) Dead() (dead bool) {
	err := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		dead = err != nil || info.State == tcpClose
	})
	return dead || err != nil
}

// addrOf is a socket's address.
func addrOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
