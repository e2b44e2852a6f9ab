package mirror

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// One of each kind: everything arrives once and in order, and the counters balance.
func TestEachTransport(t *testing.T) {
	cert, pool := certificate(t)
	tcp := newCollector(t, nil)
	secure := newCollector(t, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert})
	udp := newDatagramSink(t)
	r := newRig(t, t.TempDir(), nil,
		to(t, tcp.uri(), nil),
		to(t, secure.uri(), func(d *Destination) {
			d.TLS = &tls.Config{RootCAs: pool, ServerName: "homer.example.com", Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		}),
		to(t, udp.uri(), nil))
	const n = 5000
	r.put(t, n, nil)
	r.spool.Flush(context.Background())
	waitFor(t, "all messages", func() bool { return tcp.got() == n && secure.got() == n && udp.count() == n })
	r.stop(t, true)
	tcp.check(t, n)
	secure.check(t, n)
	for _, s := range r.sinks {
		if got := r.counter(s.name + ".sent"); got != n {
			t.Errorf("%s: sent %d", s.name, got)
		}
	}
}

// The destination is away again and again, at any moment, and gets everything
// once and in order.
func TestOutages(t *testing.T) {
	cert, _ := certificate(t)
	for name, config := range map[string]*tls.Config{"tcp": nil, "tls": {Certificates: []tls.Certificate{cert}}} {
		t.Run(name, func(t *testing.T) {
			c := newCollector(t, config)
			r := newRig(t, t.TempDir(), nil, to(t, c.uri(), nil))
			for range 8 {
				before := c.got()
				r.put(t, 700, nil)
				waitFor(t, "a message", func() bool { return c.got() > before })
				c.close(true)
				r.put(t, 300, nil)
				c.listen()
			}
			r.stop(t, true)
			c.check(t, 8000)
		})
	}
}

// A peer that answers keep-alives loses nothing, even if its kernel has what it
// never read.
func TestKeepAlive(t *testing.T) {
	c := newCollector(t, nil)
	c.echo = true
	r := newRig(t, t.TempDir(), nil, to(t, c.uri(), func(d *Destination) { d.Ack = AckKeepAlive }))
	r.put(t, 1000, nil)
	waitFor(t, "the answers", func() bool { return c.got() == 1000 && r.Pending() == 0 })
	c.mu.Lock()
	asked := c.asked
	c.mu.Unlock()
	if asked == 0 {
		t.Error("nobody asked")
	}
	// From now on it reads nothing: what it is sent stays in its kernel.
	c.close(true)
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, 500, nil)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	written, before := r.sinks[0].bytes, uint64(1000*100)
	waitFor(t, "much to be written", func() bool { return written.Load() > before })
	conn.Close()
	l.Close()
	c.listen()
	r.stop(t, true)
	c.check(t, 1500)
}

// Nobody but a siptraced is sent a HEP3 packet over 65,507 bytes: it is counted, and
// what comes behind it goes on over the same connection.
func TestTooLargeForOthers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*collector, *Destination)
		takes  int // of the large ones
	}{
		{"another program", func(*collector, *Destination) {}, 0},
		{"a siptraced, as configured", func(c *collector, d *Destination) { c.echo, d.Ack = true, AckKeepAlive }, 2},
		{"a siptraced, as it asked", func(c *collector, _ *Destination) { c.asks = []byte("\r\n\r\n\r\r\n\n\r\n\n\n\r\r\r\n") }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCollector(t, nil)
			r := newRig(t, t.TempDir(), nil, to(t, c.uri(), func(d *Destination) { tt.change(c, d) }))
			r.put(t, 10, nil)
			waitFor(t, "the first messages, and the answer to the question", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.n == 10 && (c.asks == nil || c.asked > 0)
			})
			for range 2 {
				r.put(t, 1, func(rec *siptrace.Record) {
					rec.Msg = append(rec.Msg, bytes.Repeat([]byte("x"), 65420-len(rec.Msg))...)
				})
				r.put(t, 10, nil)
			}
			r.stop(t, true)
			c.check(t, 30+tt.takes)
			name := r.sinks[0].name
			if got := r.counter(name + ".too_large"); got != uint64(2-tt.takes) {
				t.Errorf("too large: got %d, want %d", got, 2-tt.takes)
			}
			if got := r.counter(name + ".connects"); got != 1 {
				t.Errorf("connections: got %d, want 1", got)
			}
		})
	}
}

// What waits too long, or is too much, expires and is counted; the rest comes.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Destination)
	}{
		{"age", func(d *Destination) { d.MaxAge = time.Second }},
		{"bytes", func(d *Destination) { d.MaxBytes = 1 << 20 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := freePort(t)
			uri := "sip:" + addr.String() + ";transport=tcp"
			r := newRig(t, t.TempDir(), nil, to(t, uri, tt.change))
			big := bytes.Repeat([]byte("x"), 10<<10)
			put := func(n int) {
				r.put(t, n, func(rec *siptrace.Record) { rec.Msg = append(rec.Msg, big...) })
			}
			put(400)
			expired := r.sinks[0].name + ".expired"
			waitFor(t, "messages to expire", func() bool { return r.counter(expired) > 100 })
			if tt.name == "age" {
				waitFor(t, "all to expire", func() bool { return r.Pending() == 0 })
			}
			c := &collector{t: t, addr: addr.String(), calls: map[string][]int{}, conns: map[net.Conn]struct{}{}}
			c.listen()
			defer c.close(false)
			// Between two attempts to connect more may become too old.
			waitFor(t, "a message to arrive", func() bool {
				put(1)
				return c.got() > 0
			})
			r.stop(t, true)
			c.check(t, r.n-int(r.counter(expired)))
		})
	}
}

// A dead name, an address that swallows everything and one that nobody listens
// on hold up nobody.
func TestDeadOnes(t *testing.T) {
	live := newCollector(t, nil)
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close() // accepted by the kernel, read by nobody
	r := newRig(t, t.TempDir(), nil,
		to(t, "sip:nobody.invalid:9060", nil),
		to(t, "sip:nobody.invalid:9060;transport=tcp", nil),
		to(t, "sip:"+hole.Addr().String()+";transport=tcp", nil),
		to(t, "sip:"+freePort(t).String()+";transport=tcp", nil),
		to(t, live.uri(), nil))
	const n = 3000
	r.put(t, n, nil)
	r.spool.Flush(context.Background())
	waitFor(t, "the live one to have all", func() bool { return live.got() == n })
	r.stop(t, false)
	live.check(t, n)
	if got := r.counter(sinkPrefix + "nobody.invalid-9060-udp.pending"); got != n {
		t.Errorf("%d wait for the dead name, want %d", got, n)
	}
}

// What did not go out before a stop goes out after the next start.
func TestRestart(t *testing.T) {
	dir, addr := t.TempDir(), freePort(t)
	d := to(t, "sip:"+addr.String()+";transport=tcp", nil)
	r := newRig(t, dir, nil, d)
	r.put(t, 1000, nil)
	r.stop(t, false)
	c := &collector{t: t, addr: addr.String(), calls: map[string][]int{}, conns: map[net.Conn]struct{}{}}
	c.listen()
	defer c.close(false)
	again := newRig(t, dir, nil, d)
	again.n = 1000
	again.put(t, 1000, nil)
	again.stop(t, true)
	c.check(t, 2000)
}

func TestUDPRefusedAndTooLarge(t *testing.T) {
	gone, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := gone.LocalAddr().String()
	gone.Close()
	r := newRig(t, t.TempDir(), nil, to(t, "sip:"+addr, func(d *Destination) { d.Name = "gone" }))
	for i := range 20 {
		r.put(t, 1, nil)
		waitFor(t, "a datagram", func() bool { return r.counter("mirror.gone.sent") == uint64(i+1) })
	}
	r.put(t, 1, func(rec *siptrace.Record) { rec.Msg = append(rec.Msg, bytes.Repeat([]byte("x"), 65450)...) })
	r.put(t, 1, func(rec *siptrace.Record) { rec.Msg = append(rec.Msg, bytes.Repeat([]byte("x"), 70000)...) })
	r.stop(t, true)
	if sent, large, refused := r.counter("mirror.gone.sent"), r.counter("mirror.gone.too_large"), r.counter("mirror.gone.refused"); sent != 20 || large != 2 || refused == 0 {
		t.Errorf("sent %d, too_large %d, refused %d", sent, large, refused)
	}
}

// filter takes one call.
type filter struct{ call string }

func (f filter) Match(m *sipmsg.Message, _ *siptrace.Record) bool { return string(m.CallID) == f.call }

// Which records go to which destination.
func TestChoice(t *testing.T) {
	all, some, dup, named := newDatagramSink(t), newDatagramSink(t), newDatagramSink(t), newDatagramSink(t)
	r := newRig(t, t.TempDir(), nil,
		to(t, all.uri(), nil),
		to(t, some.uri(), func(d *Destination) { d.Filter = filter{"call-3"} }),
		to(t, dup.uri(), func(d *Destination) { d.Static, d.Duplicate, d.Protocol = false, true, ByRecord }))
	r.EnsureDestination(named.uri() + ";transport=UDP")
	r.EnsureDestination(named.uri() + ";transport=UDP")
	put := func(n int, sinks siptrace.Sinks, destinations ...string) {
		r.put(t, n, func(rec *siptrace.Record) { rec.Sinks, rec.Destinations = sinks, destinations })
	}
	put(10, siptrace.ToStore|siptrace.ToListed)
	put(10, siptrace.ToHEP|siptrace.ToListed)
	put(10, siptrace.ToHEP|siptrace.ToSIP|siptrace.ToListed, named.uri())
	put(10, siptrace.ToStore)
	put(1, siptrace.ToHEP, "sip:192.0.2.1:1")
	r.stop(t, true)
	waitFor(t, "the datagrams", func() bool {
		return all.count() == 30 && some.count() == 3 && dup.count() == 10 && named.count() == 20
	})
	for name, want := range map[string]uint64{"sent": 10, "skipped": 31} {
		if got := r.counter(r.sinks[2].name + "." + name); got != want {
			t.Errorf("duplicate_uri: %s %d, want %d", name, got, want)
		}
	}
	if got := r.counter(r.sinks[1].name + ".filtered"); got != 27 {
		t.Errorf("filtered %d", got)
	}
}

// Destinations that rules name: bounded, there again after a restart while
// something waits, gone when they are idle.
func TestDynamic(t *testing.T) {
	dir, addr := t.TempDir(), freePort(t)
	uri := "sip:" + addr.String() + ";transport=tcp"
	r := newRig(t, dir, nil)
	r.EnsureDestination(uri)
	r.put(t, 100, func(rec *siptrace.Record) { rec.Sinks, rec.Destinations = siptrace.ToHEP, []string{uri} })
	r.spool.Flush(context.Background())
	r.EnsureDestination("sip:no host")
	r.EnsureDestination("mailto:x")
	for i := range MaxDynamic + 3 {
		r.EnsureDestination(fmt.Sprintf("sip:192.0.2.1:%d", 1000+i))
	}
	if got := r.counter("mirrors.too_many"); got != 4 {
		t.Errorf("too many: got %d, want 4", got)
	}
	if got := r.counter("mirrors.bad_uri"); got != 2 {
		t.Errorf("bad: got %d, want 2", got)
	}
	for _, s := range r.sinks {
		s.used.Store(0)
	}
	r.retire()
	if len(r.sinks) != 1 {
		t.Errorf("%d destinations left, want the one for which something waits", len(r.sinks))
	}
	for name := range r.count.Snapshot() {
		if strings.Contains(name, "192.0.2.1") {
			t.Errorf("counter %s is still there", name)
		}
	}
	r.stop(t, false)

	c := &collector{t: t, addr: addr.String(), calls: map[string][]int{}, conns: map[net.Conn]struct{}{}}
	c.listen()
	defer c.close(false)
	again := newRig(t, dir, nil)
	waitFor(t, "the rest", func() bool { return c.got() == 100 })
	again.stop(t, true)
	c.check(t, 100)
}

func TestDuplicateURI(t *testing.T) {
	a, b := newDatagramSink(t), newDatagramSink(t)
	r := newRig(t, t.TempDir(), nil, to(t, a.uri(), func(d *Destination) { d.Static, d.Duplicate, d.Protocol = false, true, ByRecord }))
	put := func() {
		r.put(t, 10, func(rec *siptrace.Record) { rec.Sinks = siptrace.ToHEP })
		waitFor(t, "the spool to be read", func() bool { return r.spool.Stats.Spooled.Load() == uint64(r.n) && r.Pending() == 0 })
	}
	put()
	for _, uris := range [][]string{{b.uri()}, {a.uri(), b.uri()}, nil} {
		cfg, err := r.cfg.WithDuplicateURI(uris, false)
		if err == nil {
			err = r.Apply(context.Background(), cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
		put()
	}
	if _, err := r.cfg.WithDuplicateURI([]string{"mailto:x"}, false); err == nil {
		t.Error("no error")
	}
	r.stop(t, true)
	waitFor(t, "the datagrams", func() bool { return a.count() == 20 && b.count() == 20 })
}

// A destination that turns out to be siptraced itself is not spoken to.
func TestSelf(t *testing.T) {
	own := newDatagramSink(t)
	self := addrOf(own.conn.LocalAddr())
	r := newRig(t, t.TempDir(), func(_ *spool.Config, c *Config) {
		c.Self = func(_ siptrace.Proto, a netip.AddrPort) bool { return a == self }
	}, to(t, fmt.Sprintf("sip:localhost:%d", self.Port()), nil))
	r.put(t, 1, nil)
	name := r.sinks[0].name
	waitFor(t, "a refusal", func() bool { return r.counter(name+".refused") > 0 })
	r.EnsureDestination("sip:" + self.String())
	if r.counter("mirrors.bad_uri") != 1 {
		t.Error("a rule may name it")
	}
	r.stop(t, false)
	if own.count() != 0 || r.counter(name+".sent") != 0 {
		t.Errorf("got %d datagrams", own.count())
	}
}

// The mirrors keep spool space back for half of what it has at the most: new
// messages are never refused for a dead one.
func TestNeverInTheWay(t *testing.T) {
	uri := "sip:" + freePort(t).String() + ";transport=tcp"
	r := newRig(t, t.TempDir(), func(s *spool.Config, m *Config) { s.MaxBytes, m.SpoolBytes = 32<<20, 32<<20 }, to(t, uri, nil))
	big := bytes.Repeat([]byte("x"), 32<<10)
	// The bounds are looked at once a second: an eighth of the spool per second.
	for range 100 {
		r.put(t, 8, func(rec *siptrace.Record) { rec.Msg = append(rec.Msg, big...) })
		time.Sleep(100 * time.Millisecond)
	}
	if n := r.counter(r.sinks[0].name + ".expired"); n == 0 {
		t.Error("nothing expired")
	}
	r.stop(t, false)
	if n := r.spool.Stats.Refused.Load(); n > 0 {
		t.Errorf("%d messages were refused", n)
	}
}

func TestOwnSockets(t *testing.T) {
	udp := newDatagramSink(t)
	r := newRig(t, t.TempDir(), nil, to(t, udp.uri(), nil))
	r.put(t, 1, nil)
	waitFor(t, "a datagram", func() bool { return udp.count() == 1 })
	m := r.sockets.now.Load()
	if m == nil || len(*m) != 1 {
		t.Fatalf("got %v", m)
	}
	for a := range *m {
		if !r.IsOwnSocket(a) || r.IsOwnSocket(netip.AddrPortFrom(a.Addr(), a.Port()+1)) {
			t.Errorf("own: %v", a)
		}
	}
	r.stop(t, true)
	if m := r.sockets.now.Load(); len(*m) != 0 {
		t.Errorf("left: %v", *m)
	}
}

// What the fuzzer finds in a spool must not stop a sender; a packet that is no
// SIP goes on as it is.
func TestOtherTypes(t *testing.T) {
	udp := newDatagramSink(t)
	r := newRig(t, t.TempDir(), nil, to(t, udp.uri(), nil))
	packet, err := (&hep.Packet{Version: 3, Type: 5, Src: a4, Dst: b4, Payload: []byte("{}")}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, 1, func(rec *siptrace.Record) {
		*rec = siptrace.Record{Type: 5, Packet: packet, CallID: rec.CallID, Route: siptrace.Route{Sinks: siptrace.ToListed}}
	})
	r.stop(t, true)
	waitFor(t, "the packet", func() bool { return udp.count() == 1 })
	if got := udp.packets()[0]; !bytes.Equal(got, packet) {
		t.Errorf("got %q", got)
	}
}

func TestErrSelf(t *testing.T) {
	c := Config{Dynamic: base(), Self: func(siptrace.Proto, netip.AddrPort) bool { return true }}
	if _, err := c.dynamic("sip:192.0.2.1"); !errors.Is(err, errSelf) {
		t.Errorf("got %v", err)
	}
}

// The end does not wait for destinations that take nothing: what is theirs stays
// in the spool.
func TestEndWithoutThem(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	_ = l.Close()
	r := newRig(t, t.TempDir(), nil, to(t, "sip:"+gone+";transport=tcp", nil), to(t, "sip:nobody.invalid:9060", nil))
	r.put(t, 10, nil)
	r.spool.Flush(context.Background())
	r.Stop(context.Background()) // comes back
	r.balance(t)
	for _, s := range r.sinks {
		if n := s.consumer.Pending(); n != 10 {
			t.Errorf("%s: %d wait, want 10", s.name, n)
		}
	}
	if err := r.spool.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
