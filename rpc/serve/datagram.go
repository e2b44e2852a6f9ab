package serve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
)

// maxUDPReply is what one UDP datagram can carry over IPv4, in bytes.
const maxUDPReply = 65507

// datagram serves a unix datagram or UDP socket: one request, one reply, each a
// datagram.
type datagram struct {
	srv     *Server
	l       Listener
	network string // "unixd" or "udp"
	unix    *net.UnixConn
	udp     *net.UDPConn
	slots   chan struct{}
}

func (s *Server) bindDatagram(ctx context.Context, l Listener, network, address string, a access) (service, error) {
	d := &datagram{srv: s, l: l, network: network, slots: make(chan struct{}, s.limits.InFlight)}
	if network == "unixd" {
		c, m, err := listenUnixgram(ctx, address, a)
		if err != nil {
			return nil, err
		}
		d.unix = c
		// Replies that clients have not read yet share this buffer.
		_ = c.SetWriteBuffer(1 << 20)
		s.made = append(s.made, m)
		return d, nil
	}
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	d.udp = c.(*net.UDPConn)
	return d, nil
}

func (d *datagram) socket() net.PacketConn {
	if d.unix != nil {
		return d.unix
	}
	return d.udp
}

func (d *datagram) address() string {
	return string(d.l.Protocol) + " " + d.network + ":" + d.socket().LocalAddr().String()
}

func (d *datagram) stop() { _ = d.socket().SetReadDeadline(past) }
func (d *datagram) kill() { _ = d.socket().Close() }

func (d *datagram) serve() {
	defer d.socket().Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	buf := make([]byte, maxRequest+1)
	for {
		request, peer, reply, err := d.read(buf)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) && !isTimeout(err) {
				d.srv.log.Error("rpc listener failed", "listener", d.l, "error", err)
			}
			return
		}
		if len(request) > maxRequest {
			d.srv.refuse(d.l, CauseTooLong, peer)
			continue
		}
		if d.srv.tooFast(d.l, peer, false) {
			continue
		}
		select {
		case d.slots <- struct{}{}:
		default:
			d.srv.refuse(d.l, CauseBusy, peer)
			continue
		}
		request = append([]byte(nil), request...)
		wg.Go(func() {
			defer func() { <-d.slots }()
			ctx, cancel := d.srv.call()
			defer cancel()
			if answer := d.answer(ctx, peer, request); len(answer) > 0 {
				if err := reply(answer); err != nil {
					d.srv.refuse(d.l, CauseReply, peer)
				}
			}
		})
	}
}

func (d *datagram) answer(ctx context.Context, peer rpc.Peer, request []byte) []byte {
	maxReply := maxUnixReply
	if d.udp != nil {
		maxReply = maxUDPReply
	}
	if d.l.Protocol == JSONRPC {
		return d.srv.answerJSON(ctx, d.l, peer, request, maxReply).Body
	}
	codec := binrpc.Server{Registry: d.srv.handlers.Registry, MaxReply: min(maxReply, binrpc.MaxReply)}
	answer, n, err := codec.Answer(ctx, peer, nil, request)
	switch {
	case err != nil:
		d.srv.refuse(d.l, causeOf(err), peer)
	case n == 0:
		d.srv.refuse(d.l, CauseUnfinished, peer) // cut on its way
	}
	return answer
}

// read returns one datagram, who sent it, and how to reply.
func (d *datagram) read(buf []byte) ([]byte, rpc.Peer, func([]byte) error, error) {
	if d.udp != nil {
		n, from, err := d.udp.ReadFromUDPAddrPort(buf)
		reply := func(b []byte) error { return sendUDP(d.udp, b, from) }
		return buf[:n], rpc.NewPeer("udp", from.String()), reply, err
	}
	// Room for credentials and nothing else: descriptors that a client
	// passes along have no place.
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, _, from, err := d.unix.ReadMsgUnix(buf, oob)
	peer := rpc.NewPeer("unixgram", d.unix.LocalAddr().String())
	if err != nil {
		return nil, peer, nil, err
	}
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) > 0 {
		if cred, err := unix.ParseUnixCredentials(&messages[0]); err == nil {
			peer.UID, peer.GID, peer.PID = int(cred.Uid), int(cred.Gid), int(cred.Pid)
		}
	}
	return buf[:n], peer, func(b []byte) error { return sendUnix(d.unix, b, from) }, nil
}

func sendUDP(c *net.UDPConn, b []byte, to netip.AddrPort) error {
	_, err := c.WriteToUDPAddrPort(b, to)
	return err
}

var errNoAddress = errors.New("client has no address to reply to")

// sendUnix replies without waiting: who doesn't empty his socket loses it, and
// holds up nobody.
func sendUnix(c *net.UnixConn, b []byte, to *net.UnixAddr) error {
	if to == nil || to.Name == "" {
		return errNoAddress
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: to.Name})
		return true
	})
	return errors.Join(err, sent)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}
