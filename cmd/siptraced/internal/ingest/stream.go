package ingest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"time"

	"siptraced/compat/sipmsg"
	"siptraced/hep"
)

const (
	readSize = 64 << 10
	// tlsHandshake bounds how long a peer may take to say who it is.
	tlsHandshake = 10 * time.Second
	// replyTimeout bounds how long a sender may take to read an answer.
	replyTimeout = 5 * time.Second
)

func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.counters.Counter("read_errors.accept").Add(1)
			s.log.Warn("accepting a connection failed, going on", "listen", l.Addr().String(), "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if !s.admit(c) {
			s.counters.Counter("refused.connections").Add(1)
			_ = c.Close()
			continue
		}
		s.readers.Go(func() {
			defer s.leave(c)
			s.serveConn(c)
		})
	}
}

func (s *Server) admit(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.conns) >= s.cfg.MaxConnections {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) leave(c net.Conn) {
	_ = c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// lastWords is how long a sender may take to end a stream that we want to end,
// and lastQuestion how long one that asks may take to ask again.
const (
	lastWords    = time.Second
	lastQuestion = 5 * time.Second
)

// ending is the end of a stream, so that the sender can know exactly what we
// took. One that asks for acknowledgements is read up to its next question; any
// other is told that we want no more, and read to its end.
type ending struct {
	asked bool // it has asked
	since int  // packets since its last question
	begun bool
}

// wait reports whether to read on, after a read that was stopped, and for how
// long.
func (e *ending) wait(c net.Conn) bool {
	if e.begun || e.asked && e.since == 0 {
		return false
	}
	e.begun = true
	if e.asked {
		_ = c.SetReadDeadline(time.Now().Add(lastQuestion))
		return true
	}
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(lastWords))
	return true
}

// serveConn cuts a stream into packets until it ends or can't be followed any
// more: after an error nobody knows where the next packet starts.
func (s *Server) serveConn(c net.Conn) {
	p := &Packet{Net: "tcp", Source: addrPort(c.RemoteAddr()), Local: addrPort(c.LocalAddr())}
	if tlsConn, ok := c.(handshaker); ok {
		p.Net = "tls"
		_ = c.SetDeadline(time.Now().Add(tlsHandshake))
		if err := tlsConn.Handshake(); err != nil {
			s.counters.Counter("refused.tls_handshake").Add(1)
			s.log.Warn("TLS handshake failed", "peer", c.RemoteAddr().String(), "err", err)
			return
		}
		_ = c.SetDeadline(time.Time{})
		s.mu.Lock()
		if s.closing {
			_ = c.SetReadDeadline(time.Now())
		}
		s.mu.Unlock()
	}
	var end ending
	ask := func(_ netip.AddrPort, b []byte) error {
		_ = c.SetWriteDeadline(time.Now().Add(replyTimeout))
		_, err := c.Write(b)
		return err
	}
	p.Reply = func(b []byte) error {
		end.asked, end.since = true, -1 // the question itself is counted yet
		return ask(p.Source, b)
	}
	buf := make([]byte, 0, readSize)
	for {
		rest, err := s.cut(p, buf, ask, &end)
		if p.Close || end.begun && end.asked && end.since == 0 {
			return
		}
		if err != nil {
			s.log.Warn("stream can't be followed any more, closing it", "peer", c.RemoteAddr().String(), "err", err)
			return
		}
		// The sinks get their turn: what they fall behind with has to be read back.
		runtime.Gosched()
		buf = append(buf[:0], rest...)
		if cap(buf)-len(buf) < readSize/2 {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && isTimeout(err) && end.wait(c) {
			continue
		}
		if n == 0 && err != nil {
			if len(buf) > 0 {
				s.received.Add(1)
				s.counters.Counter("rejected.stream_cut").Add(1)
			}
			if !errors.Is(err, io.EOF) && !isTimeout(err) && !errors.Is(err, net.ErrClosed) {
				s.log.Info("connection lost", "peer", c.RemoteAddr().String(), "err", err)
			}
			return
		}
	}
}

type handshaker interface{ Handshake() error }

// cut hands on every whole packet of buf and returns what is left.
func (s *Server) cut(p *Packet, buf []byte, ask func(netip.AddrPort, []byte) error, end *ending) ([]byte, error) {
	for len(buf) > 0 {
		skip, n, err := Split(buf)
		if err != nil {
			s.received.Add(1)
			s.counters.Counter("rejected." + cause(err)).Add(1)
			return nil, err
		}
		buf = buf[skip:]
		if n == 0 {
			break
		}
		p.Time = time.Now()
		p.Data = buf[:n:n]
		if p.Ask = nil; hep.Detect(p.Data) == 0 { // whoever sends HEP waits for answers alone
			p.Ask = ask
		}
		s.handle(p)
		end.since++
		if p.Close || end.begun && end.asked && end.since == 0 {
			return nil, nil
		}
		buf = buf[n:]
	}
	return buf, nil
}

// Split finds the next packet of a stream, HEP3 or SIP: n bytes behind skip, or none
// while it is not whole. What is skipped are the line ends that keep a connection
// alive (RFC 3261 §7.5, RFC 5626 §3.5.1).
func Split(buf []byte) (skip, n int, err error) {
	for skip < len(buf) && (buf[skip] == '\r' || buf[skip] == '\n') {
		skip++
	}
	if hep.Detect(buf[skip:]) == 3 {
		n, err = hep.Split(buf[skip:])
		return skip, n, err
	}
	more, n, err := sipmsg.Split(buf[skip:])
	return skip + more, n, err
}

// cause names an error for the counters.
func cause(err error) string {
	var length *sipmsg.LengthError
	var size *sipmsg.SizeError
	switch {
	case hep.Cause(err) != "":
		return hep.Cause(err)
	case errors.As(err, &length):
		return "sip_bad_length"
	case errors.As(err, &size):
		return "sip_too_large"
	default:
		return "not_sip"
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
