package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/rawconn"
)

// Packet is one HEP packet or SIP message as it was read. Data is valid until
// the handler returns.
type Packet struct {
	Data   []byte
	Time   time.Time // of arrival
	Net    string    // "udp", "tcp" or "tls": what the mirror came over
	Source netip.AddrPort
	Local  netip.AddrPort
	// Reply writes to the sender; nil for datagrams. Mark and Marked are the
	// handler's, and kept from one packet of a connection to the next. Close is
	// how it asks for the connection to be closed.
	Reply func([]byte) error
	// Ask sends to a sender what it does not wait for; nil where it can't be.
	Ask    func(to netip.AddrPort, b []byte) error
	Mark   uint64
	Marked bool
	Close  bool
}

// Handler takes every packet that was read. It is called from several
// goroutines at once.
type Handler interface{ Handle(p *Packet) }

// Config is what the listeners need to know.
type Config struct {
	Listen []Address
	// ReceiveBuffer is SO_RCVBUF of UDP sockets, in bytes.
	ReceiveBuffer int
	// TLS serves tls entries; nil when there are none.
	TLS *tls.Config
	// MaxConnections bounds the stream connections open at once.
	MaxConnections int
}

// DefaultConfig listens on the loopback interface, UDP and TCP.
func DefaultConfig() Config {
	return Config{
		Listen: []Address{
			{Net: "udp", Host: "127.0.0.1", Port: DefaultPort},
			{Net: "tcp", Host: "127.0.0.1", Port: DefaultPort},
		},
		// Half a second of 15,000 messages of 1 KiB.
		ReceiveBuffer:  8 << 20,
		MaxConnections: 1024,
	}
}

// Validate reports the first value that can't work.
func (c Config) Validate() error {
	switch {
	case len(c.Listen) == 0:
		return errors.New("listen is empty: nothing would come in")
	case c.ReceiveBuffer < 4<<10 || c.ReceiveBuffer > 1<<30:
		return fmt.Errorf("receive_buffer is %d: 4 KiB to 1 GiB are possible", c.ReceiveBuffer)
	case c.MaxConnections < 1 || c.MaxConnections > 1<<20:
		return fmt.Errorf("max_connections is %d: 1 to 1048576 are possible", c.MaxConnections)
	}
	return nil
}

// Server owns the listening sockets.
type Server struct {
	cfg      Config
	handler  Handler
	counters *counters.Set
	log      *slog.Logger

	received *atomic.Uint64
	shutdown *atomic.Uint64 // read, and not handed on: the end came first
	udp      []*udpSocket
	streams  []stream

	mu      sync.Mutex // covers conns, closing and cfg.MaxConnections
	conns   map[net.Conn]struct{}
	closing bool

	halting chan struct{} // closed when there is no time left
	readers sync.WaitGroup
	watch   sync.WaitGroup
	stop    context.CancelFunc
}

// stream is a listening socket of TCP, or of TLS on it.
type stream struct {
	net.Listener
	net string // "tcp" or "tls"
}

// Listen binds every address; one that can't be bound fails the whole call.
func Listen(cfg Config, h Handler, c *counters.Set, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, handler: h, counters: c, log: log, received: c.Counter("received"), shutdown: c.Counter("rejected.shutdown"), conns: map[net.Conn]struct{}{}, halting: make(chan struct{})}
	for _, a := range cfg.Listen {
		if err := s.bind(a); err != nil {
			s.closeSockets()
			return nil, fmt.Errorf("listen %s: %w", a, err)
		}
	}
	return s, nil
}

func (s *Server) bind(a Address) error {
	if a.Net == "udp" {
		u, err := listenUDP(a, s.cfg.ReceiveBuffer, s.log)
		if err != nil {
			return err
		}
		s.udp = append(s.udp, u)
		s.counters.Func("kernel_drops."+u.local.String(), u.drops)
		return nil
	}
	if a.Net == "tls" && s.cfg.TLS == nil {
		return errors.New("a certificate is needed: set tls.certificate and tls.private_key")
	}
	l, err := net.Listen(a.network(), a.HostPort())
	if err != nil {
		return err
	}
	l = rawconn.Listener{Listener: l}
	if a.Net == "tls" {
		l = tls.NewListener(l, s.cfg.TLS)
	}
	s.streams = append(s.streams, stream{l, a.Net})
	return nil
}

// Socket is a bound socket.
type Socket struct {
	Net  string // "udp", "tcp" or "tls"
	Addr netip.AddrPort
}

// String is the socket as it is configured, such as udp:127.0.0.1:9060.
func (s Socket) String() string { return s.Net + ":" + s.Addr.String() }

// Sockets are the bound sockets.
func (s *Server) Sockets() []Socket {
	var out []Socket
	for _, u := range s.udp {
		out = append(out, Socket{"udp", u.local})
	}
	for _, l := range s.streams {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			out = append(out, Socket{l.net, netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())})
		}
	}
	return out
}

// Serve starts the readers and returns.
func (s *Server) Serve() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, u := range s.udp {
		s.readers.Go(func() { u.read(s) })
	}
	for _, l := range s.streams {
		s.readers.Go(func() { s.accept(l) })
	}
	if len(s.udp) > 0 {
		s.watch.Go(func() { s.watchDrops(ctx) })
	}
}

// SetMaxConnections changes the bound of the connections open at once. Those over
// it stay.
func (s *Server) SetMaxConnections(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.MaxConnections = n
}

// haltGrace is how long the readers may take to end after the context.
const haltGrace = 300 * time.Millisecond

// Close stops the listeners, handles what the kernel still holds for them, and
// waits for the readers. When ctx ends, connections are cut, and datagrams are
// counted as rejected.shutdown.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	s.closing = true
	for c := range s.conns {
		_ = c.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
	for _, u := range s.udp {
		_ = u.SetReadDeadline(time.Now())
	}
	for _, l := range s.streams {
		_ = l.Close()
	}
	ended := make(chan struct{})
	go func() {
		s.readers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		s.cutOff(ended)
	}
	if s.stop != nil {
		s.stop()
	}
	s.watch.Wait()
	s.closeSockets()
}

// cutOff ends the readers without regard for what they read.
func (s *Server) cutOff(ended <-chan struct{}) {
	close(s.halting)
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(haltGrace):
		s.log.Warn("intake: a reader is stuck, going on without it")
	}
}

func (s *Server) halted() bool {
	select {
	case <-s.halting:
		return true
	default:
		return false
	}
}

func (s *Server) closeSockets() {
	for _, u := range s.udp {
		u.final.Store(u.drops())
		_ = u.Close()
	}
	for _, l := range s.streams {
		_ = l.Close()
	}
}

// handle counts a packet and hands it on.
func (s *Server) handle(p *Packet) {
	s.received.Add(1)
	s.handler.Handle(p)
}

// dropsInterval is how often the kernel's drop counters are looked at.
const dropsInterval = 10 * time.Second

// watchDrops says when the kernel dropped datagrams because nobody read them in
// time.
func (s *Server) watchDrops(ctx context.Context) {
	tick := time.NewTicker(dropsInterval)
	defer tick.Stop()
	last := make([]uint64, len(s.udp))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for i, u := range s.udp {
				if n := u.drops(); n > last[i] {
					s.log.Warn("the kernel dropped datagrams: the receive buffer was full (key receive_buffer)",
						"listen", "udp:"+u.local.String(), "dropped", n-last[i])
					last[i] = n
				}
			}
		}
	}
}
