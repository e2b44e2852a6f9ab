package mirror

import (
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
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// testPatience is how long a test waits for what has to come.
const testPatience = 20 * time.Second

// rig is mirrors on a spool of their own.
type rig struct {
	*Mirrors
	spool *spool.Spool
	count *counters.Set
	dir   string
	n     int // records put
}

// base has the settings that every destination needs.
func base() Destination {
	return Destination{
		Protocol: HEP3, Version: 3, CaptureID: 1, Time: TimeOriginal, Ack: AckTCP, MaxBytes: 1 << 30, MaxAge: time.Hour,
		TLS: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
	}
}

// to is a destination that takes everything.
func to(t *testing.T, uri string, change func(*Destination)) Destination {
	t.Helper()
	d, err := base().At(uri)
	if err != nil {
		t.Fatal(err)
	}
	if d.Static = true; change != nil {
		change(&d)
	}
	return d
}

func newRig(t *testing.T, dir string, change func(*spool.Config, *Config), ds ...Destination) *rig {
	t.Helper()
	sc := spool.DefaultConfig()
	sc.Dir, sc.BatchAge = dir, 5*time.Millisecond
	dynamic := base()
	dynamic.Protocol = ByRecord
	mc := Config{Destinations: ds, Dynamic: dynamic, SpoolBytes: sc.MaxBytes}
	if change != nil {
		change(&sc, &mc)
	}
	log := slog.New(slog.DiscardHandler)
	r := &rig{count: counters.New(), dir: dir}
	var err error
	if r.spool, err = spool.Open(context.Background(), sc, log); err != nil {
		t.Fatal(err)
	}
	r.count.Func("spooled", r.spool.Stats.Spooled.Load)
	if r.Mirrors, err = Open(context.Background(), mc, r.spool, r.count, log); err != nil {
		t.Fatal(err)
	}
	return r
}

// stop drains for as long as it takes, or not at all.
func (r *rig) stop(t *testing.T, drain bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	if !drain {
		cancel()
	}
	r.spool.Flush(context.Background())
	r.Stop(ctx)
	r.balance(t)
	if err := r.spool.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// balance checks that every record that was spooled while a destination was there
// is in one of its places.
func (r *rig) balance(t *testing.T) {
	t.Helper()
	c := r.count.Snapshot()
	for _, s := range r.sinks {
		get := func(name string) uint64 { return c[s.name+"."+name] }
		in := get("backlog") + c["spooled"] - get("before")
		out := get("missed") + get("pending")
		for _, name := range countNames {
			out += get(name)
		}
		if in != out {
			t.Errorf("%s: backlog + spooled - before %d, but sent %d, skipped %d, filtered %d, too_large %d, failed %d, expired %d, missed %d, pending %d", s.name, in,
				get("sent"), get("skipped"), get("filtered"), get("too_large"), get("failed"), get("expired"), get("missed"), get("pending"))
		}
	}
}

func (r *rig) counter(name string) uint64 { return r.count.Snapshot()[name] }

// put puts n records of ten calls.
func (r *rig) put(t *testing.T, n int, change func(*siptrace.Record)) {
	t.Helper()
	for range n {
		rec := sample()
		rec.Sinks = siptrace.ToListed
		rec.CallID = fmt.Appendf(nil, "call-%d", r.n%10)
		rec.Msg = fmt.Appendf(nil, "OPTIONS sip:b SIP/2.0\r\nCall-ID: call-%d\r\nn: %d\r\n\r\n", r.n%10, r.n)
		if r.n++; change != nil {
			change(&rec)
		}
		if err := r.spool.Put(&rec); err != nil {
			t.Fatal(err)
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

// sink is the other end of a destination: it notes each HEP3 packet.
type collector struct {
	t    *testing.T
	addr string
	tls  *tls.Config
	echo bool   // answers keep-alives
	asks []byte // what it sends to whoever connects

	mu    sync.Mutex // covers what follows
	calls map[string][]int
	n     int
	asked int
	l     net.Listener
	conns map[net.Conn]struct{}
	done  sync.WaitGroup
}

func newCollector(t *testing.T, config *tls.Config) *collector {
	c := &collector{t: t, addr: "127.0.0.1:0", tls: config, calls: map[string][]int{}, conns: map[net.Conn]struct{}{}}
	c.listen()
	c.addr = c.l.Addr().String()
	t.Cleanup(func() { c.close(false) })
	return c
}

func (c *collector) uri() string {
	transport := "tcp"
	if c.tls != nil {
		transport = "tls"
	}
	return "sip:" + c.addr + ";transport=" + transport
}

func (c *collector) listen() {
	c.t.Helper()
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.l = l
	c.mu.Unlock()
	c.done.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			conn := raw
			if c.tls != nil {
				conn = tls.Server(raw, c.tls)
			}
			c.mu.Lock()
			c.conns[conn] = struct{}{}
			c.mu.Unlock()
			c.done.Go(func() { c.read(conn) })
		}
	})
}

func (c *collector) read(conn net.Conn) {
	defer conn.Close()
	_, _ = conn.Write(c.asks)
	var p hep.Packet
	buf := make([]byte, 0, 1<<17)
	for {
		for {
			n, err := hep.Split(buf)
			if err != nil {
				c.t.Errorf("collector: %v", err)
				return
			}
			if n == 0 {
				break
			}
			if err := p.Decode(buf[:n]); err != nil {
				c.t.Errorf("collector: %v", err)
				return
			}
			if p.Payload == nil {
				c.mu.Lock()
				c.asked++
				c.mu.Unlock()
				if c.echo {
					_, _ = conn.Write(buf[:n])
				}
			} else {
				c.note(p.Payload)
			}
			buf = append(buf[:0], buf[n:]...)
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			return
		}
	}
}

func (c *collector) note(payload []byte) {
	var call string
	var n int
	if _, err := fmt.Sscanf(string(payload), "OPTIONS sip:b SIP/2.0\r\nCall-ID: %s\r\nn: %d", &call, &n); err != nil {
		c.t.Errorf("collector: %q: %v", payload, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[call] = append(c.calls[call], n)
	c.n++
}

func (c *collector) got() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// close ends the collector. gently: it says first that it wants no more, and
// reads what was sent by then, as siptraced does.
func (c *collector) close(gently bool) {
	c.mu.Lock()
	_ = c.l.Close()
	for conn := range c.conns {
		if h, ok := conn.(interface{ CloseWrite() error }); ok && gently {
			_ = h.CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		} else {
			_ = conn.Close()
		}
	}
	clear(c.conns)
	c.mu.Unlock()
	c.done.Wait()
}

// check compares what came with what was put: all once, in order per call.
func (c *collector) check(t *testing.T, n int) {
	t.Helper()
	waitFor(t, "the last messages", func() bool { return c.got() >= n })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n != n {
		t.Errorf("got %d messages, want %d", c.n, n)
	}
	for call, seen := range c.calls {
		for i := 1; i < len(seen); i++ {
			if seen[i] <= seen[i-1] {
				t.Errorf("%s: %d after %d", call, seen[i], seen[i-1])
				return
			}
		}
	}
}

// certificate is a self-signed one for localhost, and the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"homer.example.com"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// datagramSink counts datagrams.
type datagramSink struct {
	conn *net.UDPConn
	mu   sync.Mutex // covers got
	got  [][]byte
	done sync.WaitGroup
}

func newDatagramSink(t *testing.T) *datagramSink {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(8 << 20)
	s := &datagramSink{conn: conn}
	s.done.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.got = append(s.got, append([]byte(nil), buf[:n]...))
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		conn.Close()
		s.done.Wait()
	})
	return s
}

func (s *datagramSink) uri() string { return "sip:" + s.conn.LocalAddr().String() }

func (s *datagramSink) count() int { return len(s.packets()) }

func (s *datagramSink) packets() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[:len(s.got):len(s.got)]
}

// freePort is a TCP address where nobody listens.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return addrOf(l.Addr())
}
