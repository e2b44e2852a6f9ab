package ingest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/hep"
)

type collector struct {
	mu  sync.Mutex
	got []Packet
	seq chan struct{}
}

func (c *collector) Handle(p *Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := *p
	k.Data = bytes.Clone(p.Data)
	c.got = append(c.got, k)
	c.seq <- struct{}{}
}

func (c *collector) wait(t *testing.T, n int) []Packet {
	t.Helper()
	for range n {
		select {
		case <-c.seq:
		case <-time.After(10 * time.Second):
			t.Fatalf("got %d packets, want %d", len(c.got), n)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got
}

func start(t *testing.T, cfg Config, listen ...string) (*Server, *collector, *counters.Set) {
	t.Helper()
	def := DefaultConfig()
	cfg.ReceiveBuffer = def.ReceiveBuffer
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = def.MaxConnections
	}
	for _, l := range listen {
		a, err := ParseAddress(l)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen = append(cfg.Listen, a)
	}
	h, c := &collector{seq: make(chan struct{}, 100000)}, counters.New()
	s, err := Listen(cfg, h, c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	return s, h, c
}

// hostPort is where the i-th listener is.
func hostPort(s *Server, i int) string {
	return s.Sockets()[i].Addr.String()
}

func dialTo(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

const sip = "OPTIONS sip:b@b SIP/2.0\r\nCall-ID: %d\r\nContent-Length: 3\r\n\r\nabc"

func hep3(t *testing.T, payload string) []byte {
	t.Helper()
	p := hep.Packet{Version: 3, Proto: hep.UDP, Type: hep.TypeSIP, Payload: []byte(payload), Src: netip.MustParseAddrPort("192.0.2.1:1"), Dst: netip.MustParseAddrPort("192.0.2.2:2")}
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestUDP(t *testing.T) {
	for _, listen := range []string{"udp:127.0.0.1:0", "udp:[::1]:0"} {
		s, h, c := start(t, Config{}, listen)
		conn := dialTo(t, "udp", hostPort(s, 0))
		before := time.Now()
		sizes := []int{0, 1, 100, 1400, 65000, 65507}
		for i, n := range sizes {
			write(t, conn, bytes.Repeat([]byte{byte(i)}, n))
		}
		got := h.wait(t, len(sizes))
		for i, n := range sizes {
			p := got[i]
			if !bytes.Equal(p.Data, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Errorf("%s: packet %d: got %d bytes, want %d", listen, i, len(p.Data), n)
			}
			if p.Source.String() != conn.LocalAddr().String() || p.Local.String() != hostPort(s, 0) || p.Net != "udp" {
				t.Errorf("%s: packet %d: from %v to %v over %s", listen, i, p.Source, p.Local, p.Net)
			}
			if p.Time.Before(before) || p.Time.After(time.Now()) {
				t.Errorf("%s: packet %d: time %v", listen, i, p.Time)
			}
		}
		s.Close(context.Background())
		if n := c.Snapshot()["received"]; n != uint64(len(sizes)) {
			t.Errorf("%s: received %d, want %d", listen, n, len(sizes))
		}
	}
}

// What the kernel took before Close is handled, not thrown away.
func TestCloseDrains(t *testing.T) {
	const n = 500
	s, h, _ := start(t, Config{}, "udp:127.0.0.1:0")
	conn := dialTo(t, "udp", hostPort(s, 0))
	for i := range n {
		write(t, conn, fmt.Appendf(nil, "%d", i))
	}
	s.Close(context.Background())
	got := h.wait(t, n)
	for i, p := range got {
		if string(p.Data) != fmt.Sprint(i) {
			t.Fatalf("packet %d is %q", i, p.Data)
		}
	}
}

// handlerFunc is a Handler.
type handlerFunc func(*Packet)

func (f handlerFunc) Handle(p *Packet) { f(p) }

func serve(t *testing.T, h Handler) (*Server, *counters.Set) {
	t.Helper()
	cfg, c := DefaultConfig(), counters.New()
	cfg.ReceiveBuffer = 64 << 10
	cfg.Listen = []Address{{Net: "udp", Host: "127.0.0.1", Port: "0"}, {Net: "tcp", Host: "127.0.0.1", Port: "0"}}
	s, err := Listen(cfg, h, c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	return s, c
}

// A flood that goes on does not keep the intake from ending.
func TestCloseUnderFlood(t *testing.T) {
	s, _ := serve(t, handlerFunc(func(*Packet) { time.Sleep(200 * time.Microsecond) }))
	stop := make(chan struct{})
	var senders sync.WaitGroup
	defer senders.Wait()
	defer close(stop)
	for range 2 {
		conn := dialTo(t, "udp", hostPort(s, 0))
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = conn.Write([]byte("flood"))
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	ended := make(chan struct{})
	go func() {
		s.Close(context.Background())
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("Close waits for the end of the flood")
	}
}

// With a handler that is stuck the end comes with the context, and what was
// read, or waited in the kernel, is counted.
func TestCloseStuck(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var handled atomic.Uint64
	s, c := serve(t, handlerFunc(func(*Packet) {
		<-ctx.Done()
		time.Sleep(time.Millisecond)
		handled.Add(1)
	}))
	const n = 100
	conn := dialTo(t, "udp", hostPort(s, 0))
	for i := range n {
		write(t, conn, fmt.Appendf(nil, "%d", i))
		if i == 0 {
			for c.Snapshot()["received"] == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	stream := dialTo(t, "tcp", hostPort(s, 1))
	write(t, stream, fmt.Appendf(nil, sip, 1))
	for c.Snapshot()["received"] < 2 {
		time.Sleep(time.Millisecond)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	s.Close(ctx)
	got := c.Snapshot()
	if got["received"] != n+1 || got["rejected.shutdown"]+handled.Load() != n+1 || got["rejected.shutdown"] == 0 {
		t.Errorf("received %d, handled %d, rejected.shutdown %d of %d", got["received"], handled.Load(), got["rejected.shutdown"], n+1)
	}
}

// A handler that never comes back is left behind.
func TestCloseHung(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	s, c := serve(t, handlerFunc(func(*Packet) { <-release }))
	write(t, dialTo(t, "udp", hostPort(s, 0)), []byte("x"))
	for c.Snapshot()["received"] == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		s.Close(ctx)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for a reader that is stuck")
	}
}

func TestKernelDrops(t *testing.T) {
	a, err := ParseAddress("udp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := listenUDP(a, 4<<10, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	conn := dialTo(t, "udp", u.local.String())
	for range 100 {
		write(t, conn, make([]byte, 1400))
	}
	if n := u.drops(); n == 0 || n >= 100 {
		t.Errorf("drops: got %d of 100 into a 4 KiB buffer", n)
	}
}

func TestStream(t *testing.T) {
	msgs := [][]byte{fmt.Appendf(nil, sip, 1), hep3(t, "one"), hep3(t, strings.Repeat("x", 60000)), fmt.Appendf(nil, sip, 2)}
	whole := bytes.Join([][]byte{msgs[0], []byte("\r\n\r\n"), msgs[1], msgs[2], []byte("\r\n"), msgs[3]}, nil)
	for _, step := range []int{len(whole), 1000, 7, 1} {
		s, h, c := start(t, Config{}, "tcp:127.0.0.1:0")
		conn := dialTo(t, "tcp", hostPort(s, 0))
		for b := whole; len(b) > 0; b = b[min(step, len(b)):] {
			write(t, conn, b[:min(step, len(b))])
		}
		got := h.wait(t, len(msgs))
		for i := range msgs {
			if !bytes.Equal(got[i].Data, msgs[i]) || got[i].Net != "tcp" || got[i].Source.String() != conn.LocalAddr().String() {
				t.Errorf("step %d, packet %d: got %d bytes from %v, want %d", step, i, len(got[i].Data), got[i].Source, len(msgs[i]))
			}
		}
		s.Close(context.Background())
		if n := c.Snapshot()["received"]; n != uint64(len(msgs)) {
			t.Errorf("step %d: received %d", step, n)
		}
	}
}

func TestBrokenStream(t *testing.T) {
	lie := hep3(t, "x")
	lie[4], lie[5] = 0, 3
	tests := []struct {
		name, cause string
		data        []byte
		good        int
	}{
		{"text", "not_sip", []byte("hello there\r\n"), 0},
		{"hep3 length below its header", "hep_bad_length", lie, 0},
		{"good, then text", "not_sip", append(fmt.Appendf(nil, sip, 1), "GET / HTTP/1.1\r\n\r\n"...), 1},
		{"negative length", "sip_bad_length", []byte("OPTIONS sip:b@b SIP/2.0\r\nContent-Length: -1\r\n\r\n"), 0},
		{"endless header", "sip_too_large", append([]byte("OPTIONS sip:b@b SIP/2.0\r\nX: "), bytes.Repeat([]byte("x"), 2<<20)...), 0},
		{"hep1", "not_sip", []byte{1, 16, 2, 17, 0, 1, 0, 2, 127, 0, 0, 1, 127, 0, 0, 1, 'x', '\n'}, 0},
		{"cut", "stream_cut", fmt.Appendf(nil, sip, 1)[:40], 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, h, c := start(t, Config{}, "tcp:127.0.0.1:0")
			defer s.Close(context.Background())
			conn := dialTo(t, "tcp", hostPort(s, 0))
			_, _ = conn.Write(tt.data) // the server may close before it has read all
			_ = conn.(*net.TCPConn).CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Fatalf("the connection stays open: %v", err)
			}
			h.wait(t, tt.good)
			got := c.Snapshot()
			if got["rejected."+tt.cause] != 1 || got["received"] != uint64(tt.good+1) {
				t.Errorf("got %v, want one rejected.%s", got, tt.cause)
			}
		})
	}
}

func TestConnectionLimit(t *testing.T) {
	s, _, c := start(t, Config{MaxConnections: 1}, "tcp:127.0.0.1:0")
	defer s.Close(context.Background())
	first := dialTo(t, "tcp", hostPort(s, 0))
	write(t, first, []byte("\r\n"))
	second := dialTo(t, "tcp", hostPort(s, 0))
	_ = second.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := second.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the second connection stays open: %v", err)
	}
	if n := c.Snapshot()["refused.connections"]; n != 1 {
		t.Errorf("refused %d, want 1", n)
	}
	s.SetMaxConnections(2)
	third := dialTo(t, "tcp", hostPort(s, 0))
	write(t, third, []byte("\r\n"))
	_ = third.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := third.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("with a higher bound: %v, want that the connection stays open", err)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s, h, c := start(t, Config{TLS: server}, "tls:127.0.0.1:0")
	defer s.Close(context.Background())

	plainConn := dialTo(t, "tcp", hostPort(s, 0))
	write(t, plainConn, []byte("OPTIONS sip:b@b SIP/2.0\r\n\r\n"))
	_ = plainConn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		if _, err := plainConn.Read(make([]byte, 100)); err != nil {
			if isTimeout(err) {
				t.Error("a connection without TLS stays open")
			}
			break
		}
	}
	if n := c.Snapshot()["refused.tls_handshake"]; n != 1 {
		t.Errorf("refused %d, want 1", n)
	}

	roots := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(cert)
	conn, err := tls.Dial("tcp", hostPort(s, 0), &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	write(t, conn, hep3(t, "x"))
	if got := h.wait(t, 1); got[0].Net != "tls" || hep.Detect(got[0].Data) != 3 {
		t.Errorf("got %+v", got[0])
	}
}

func TestListenFails(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	a, err := ParseAddress("udp:" + busy.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	for _, l := range []Address{a, {Net: "tls", Host: "127.0.0.1", Port: "0"}} {
		cfg.Listen = []Address{l}
		if _, err := Listen(cfg, &collector{}, counters.New(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), l.String()) {
			t.Errorf("%v: got error %v", l, err)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"udp:127.0.0.1:9060": "udp:127.0.0.1:9060", "TCP:[::1]:9061": "tcp:[::1]:9061", "udp:127.0.0.1": "udp:127.0.0.1:9060",
		"udp:[::1]": "udp:[::1]:9060", "tls:*:9062": "tls::9062", "udp::9060": "udp::9060", "udp:localhost:1": "udp:localhost:1",
	} {
		if got, err := ParseAddress(in); err != nil || got.String() != want {
			t.Errorf("%q: got %q, error %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "127.0.0.1:9060", "sctp:127.0.0.1:1", "udp:::1:9060", "udp:127.0.0.1:x", "udp:127.0.0.1:70000"} {
		if got, err := ParseAddress(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

// Who writes an IPv4 address gets no IPv6 socket: 0.0.0.0 is every address of IPv4.
func TestEveryAddress(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range []struct {
			listen string
			ipv6   bool
		}{{"0.0.0.0:0", false}, {"127.0.0.1:0", false}, {"[::]:0", true}, {"*:0", true}} {
			s, _, _ := start(t, Config{}, network+":"+tt.listen)
			bound := s.Sockets()[0].Addr
			if bound.Addr().Is6() != tt.ipv6 {
				t.Errorf("%s:%s is bound to %s", network, tt.listen, bound)
			}
			c, err := net.Dial("tcp6", fmt.Sprintf("[::1]:%d", bound.Port()))
			if err == nil {
				_ = c.Close()
			}
			if takes := err == nil; network == "tcp" && takes != tt.ipv6 {
				t.Errorf("%s:%s takes IPv6: %v, want %v", network, tt.listen, takes, tt.ipv6)
			}
			s.Close(t.Context())
		}
	}
}
