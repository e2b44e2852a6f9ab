package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
	"siptraced/rpc/flexicli"
)

// stream serves a listening stream socket. It is the net.Listener of its
// connections: Accept takes them in and keeps to their number.
type stream struct {
	srv      *Server
	l        Listener
	network  string // "unix" or "tcp"
	listener net.Listener

	mu      sync.Mutex // covers what follows, and what of a conn says so
	conns   map[*conn]struct{}
	closing bool
}

// conn is one accepted connection.
type conn struct {
	net.Conn // of the socket, below TLS
	owner    *stream

	// Under owner.mu, but that its own goroutine may read peer without.
	peer   rpc.Peer
	busy   bool      // a request is being answered
	served bool      // has asked something before
	since  time.Time // of the last change
}

func (s *Server) bindStream(ctx context.Context, l Listener, network, address string, a access) (service, error) {
	st := &stream{srv: s, l: l, network: network, conns: make(map[*conn]struct{})}
	if network == "unix" {
		listener, m, err := listenUnix(ctx, address, a)
		if err != nil {
			return nil, err
		}
		st.listener = listener
		s.made = append(s.made, m)
		if l.PIDFile != "" {
			m, err := writePIDFile(l.PIDFile, address)
			if err != nil {
				return nil, errors.Join(err, listener.Close())
			}
			s.made = append(s.made, m)
		}
		return st, nil
	}
	var lc net.ListenConfig
	var err error
	if st.listener, err = lc.Listen(ctx, "tcp", address); err != nil {
		return nil, err
	}
	if l.Protocol == HTTP {
		return newHTTP(st), nil
	}
	return st, nil
}

func (st *stream) address() string {
	return string(st.l.Protocol) + " " + st.network + ":" + st.listener.Addr().String()
}

// Addr and Close make st a net.Listener.
func (st *stream) Addr() net.Addr { return st.listener.Addr() }
func (st *stream) Close() error   { return st.listener.Close() }

// Accept returns the next connection, a *conn. With all places taken it closes
// the one that has been idle for longest, those before that never asked
// anything; if none is idle, the new one.
func (st *stream) Accept() (net.Conn, error) {
	for {
		raw, err := st.listener.Accept()
		if err != nil {
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) {
				time.Sleep(50 * time.Millisecond) // it stays in the queue; give others time to go
				continue
			}
			if errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			return nil, err
		}
		c := &conn{Conn: raw, owner: st, since: time.Now()}
		c.peer = st.peerOf(raw)
		if st.admit(c) {
			return c, nil
		}
		_ = raw.Close()
	}
}

func (st *stream) admit(c *conn) bool {
	var victim *conn
	st.mu.Lock()
	if st.closing {
		st.mu.Unlock()
		return false
	}
	if len(st.conns) >= st.srv.limits.Connections {
		for o := range st.conns {
			if !o.busy && (victim == nil || o.before(victim)) {
				victim = o
			}
		}
		if victim == nil {
			st.mu.Unlock()
			st.srv.refuse(st.l, CauseConnections, c.peer)
			return false
		}
		delete(st.conns, victim)
		_ = victim.Conn.Close()
		defer st.srv.refuse(st.l, CauseConnections, victim.peer)
	}
	st.conns[c] = struct{}{}
	st.mu.Unlock()
	return true
}

// before reports whether c is to make room rather than o.
func (c *conn) before(o *conn) bool {
	if c.served != o.served {
		return !c.served
	}
	return c.since.Before(o.since)
}

// Close is called by whoever serves the connection, when it is through.
func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// begin and end stand around the answering of a request. begin is false when
// the connection was closed to make room.
func (c *conn) begin() bool { return c.mark(true) }
func (c *conn) end() bool   { return c.mark(false) && !c.owner.stopping() }

func (c *conn) mark(busy bool) bool {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	c.busy, c.served, c.since = busy, true, time.Now()
	_, there := c.owner.conns[c]
	return there
}

func (st *stream) stopping() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.closing
}

// SetReadDeadline keeps what stop has set: then all reading is over.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	if c.owner.closing {
		t = past
	}
	return c.Conn.SetReadDeadline(t)
}

// Write counts replies that found no taker in time.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		c.owner.mu.Lock()
		served := c.served
		c.owner.mu.Unlock()
		if served {
			c.owner.srv.refuse(c.owner.l, CauseReply, c.peer)
		}
	}
	return n, err
}

// reply writes in one call: some clients read only once.
func (c *conn) reply(wire net.Conn, b []byte) bool {
	_ = c.SetWriteDeadline(time.Now().Add(c.owner.srv.limits.Write))
	_, err := wire.Write(b)
	return err == nil
}

var past = time.Unix(1, 0)

func (st *stream) serve() {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := st.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				st.srv.log.Error("rpc listener failed", "listener", st.l, "error", err)
			}
			return
		}
		wg.Go(func() {
			defer c.Close()
			st.talk(c.(*conn))
		})
	}
}

func (st *stream) stop() {
	_ = st.listener.Close()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closing = true
	for c := range st.conns {
		_ = c.Conn.SetReadDeadline(past)
	}
}

func (st *stream) kill() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for c := range st.conns {
		_ = c.Conn.Close()
	}
}

// talk serves one connection.
func (st *stream) talk(c *conn) {
	wire := net.Conn(c)
	if st.l.TLS != nil {
		t := tls.Server(c, st.l.TLS)
		_ = c.SetReadDeadline(time.Now().Add(st.srv.limits.Read))
		_ = c.SetWriteDeadline(time.Now().Add(st.srv.limits.Read))
		if err := t.Handshake(); err != nil {
			st.srv.refuse(st.l, CauseAuth, c.peer)
			return
		}
		if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
			st.mu.Lock()
			c.peer.Addr += " CN=" + certs[0].Subject.CommonName
			st.mu.Unlock()
		}
		wire = t
	}
	switch st.l.Protocol {
	case Ctl:
		st.ctl(c, wire)
	case JSONRPC:
		st.once(c, wire, func(ctx context.Context, request []byte) []byte {
			return st.srv.answerJSON(ctx, st.l, c.peer, request, 0).Body
		})
	case Flexisip:
		st.once(c, wire, func(ctx context.Context, request []byte) []byte {
			return flexicli.Answer(ctx, st.srv.handlers.Flexisip, c.peer, request)
		})
	}
}

// once reads one request in one read, and writes its reply in one write. The
// clients of these protocols mark no end and read no further.
func (st *stream) once(c *conn, wire net.Conn, answer func(context.Context, []byte) []byte) {
	buf := make([]byte, maxRequest+1)
	_ = wire.SetReadDeadline(time.Now().Add(st.srv.limits.Read))
	n, err := wire.Read(buf)
	switch {
	case n == 0:
		if errors.Is(err, os.ErrDeadlineExceeded) && !st.stopping() {
			st.srv.refuse(st.l, CauseIdle, c.peer)
		}
		return
	case n > maxRequest:
		st.srv.refuse(st.l, CauseTooLong, c.peer)
		return
	}
	st.srv.tooFast(st.l, c.peer, true)
	if !c.begin() {
		return
	}
	ctx, cancel := st.srv.call()
	defer cancel()
	if reply := answer(ctx, buf[:n]); len(reply) > 0 {
		c.reply(wire, reply)
	}
}

// ctl serves BINRPC: any number of requests, one after the other.
func (st *stream) ctl(c *conn, wire net.Conn) {
	codec := binrpc.Server{Registry: st.srv.handlers.Registry}
	in := make([]byte, 0, 4096)
	var out []byte
	for {
		if n, err := binrpc.Split(in, binrpc.MaxPacket); n == 0 && err == nil {
			if !st.more(c, wire, &in) {
				return
			}
			continue
		}
		st.srv.tooFast(st.l, c.peer, true)
		if !c.begin() {
			return
		}
		ctx, cancel := st.srv.call()
		reply, n, err := codec.Answer(ctx, c.peer, out[:0], in)
		cancel()
		out = reply
		if len(out) > 0 && !c.reply(wire, out) {
			return
		}
		if err != nil {
			st.srv.refuse(st.l, causeOf(err), c.peer)
			return
		}
		in = append(in[:0], in[n:]...)
		if !c.end() {
			return
		}
	}
}

func causeOf(err error) string {
	if _, long := errors.AsType[*binrpc.SizeError](err); long {
		return CauseTooLong
	}
	return CauseBad
}

// more reads on. The first byte of a request may take as long as a connection
// may be idle; the rest comes within the time of a request.
func (st *stream) more(c *conn, wire net.Conn, in *[]byte) bool {
	if len(*in) == 0 {
		_ = wire.SetReadDeadline(time.Now().Add(st.srv.limits.Idle))
	}
	buf := slices.Grow(*in, 4096)
	n, err := wire.Read(buf[len(buf):cap(buf)])
	if len(*in) == 0 && n > 0 {
		_ = wire.SetReadDeadline(time.Now().Add(st.srv.limits.Read))
	}
	if n > 0 {
		*in = buf[:len(buf)+n]
		return true
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !st.stopping() {
		cause := CauseIdle
		if len(*in) > 0 {
			cause = CauseUnfinished
		}
		st.srv.refuse(st.l, cause, c.peer)
	}
	return false
}

// peerOf asks the kernel who is at the other end of a unix socket.
func (st *stream) peerOf(c net.Conn) rpc.Peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return rpc.NewPeer("tcp", c.RemoteAddr().String())
	}
	peer := rpc.NewPeer("unix", st.listener.Addr().String())
	raw, err := u.SyscallConn()
	if err != nil {
		return peer
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			peer.UID, peer.GID, peer.PID = int(cred.Uid), int(cred.Gid), int(cred.Pid)
		}
	})
	return peer
}
