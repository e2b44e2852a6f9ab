package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// good is a packet that has to lead to a row, whatever came before it.
func good(callID string) []byte {
	return load.Call(load.Spec{CallID: callID}, time.Now())[0].Packet
}

// TestHostileInput sends what no proxy sends. The daemon has to live, count
// each packet under its cause, and go on writing rows.
func TestHostileInput(t *testing.T) {
	t.Parallel()
	run := start(t, options{network: "udp", set: []string{"spool.dir=" + t.TempDir()}})
	db := sqliteFile(t, run.Dir+"/siptraced.db")
	run.feed(t, "udp", good("first"))
	db.await(t, run, "sip_trace", 1, 2*time.Minute)

	lie := func(length uint16) []byte {
		p := bytes.Clone(good("lie"))
		binary.BigEndian.PutUint16(p[4:], length)
		return p
	}
	chunkLie := func(length uint16) []byte {
		p := bytes.Clone(good("lie"))
		binary.BigEndian.PutUint16(p[10:], length) // of the first chunk
		return p
	}
	hep2 := append([]byte{2, 16, 2, 17, 19, 196, 19, 196, 192, 0, 2, 1, 192, 0, 2, 2}, make([]byte, 11)...) // time header one byte short
	largest := bytes.Repeat([]byte{'A'}, 65507)
	rejected := []struct {
		name   string
		packet []byte
	}{
		{"one byte", []byte{'H'}},
		{"one byte, HEP2", []byte{2}},
		{"HEP3 and nothing else", []byte("HEP3")},
		{"HEP3 longer than the packet", lie(60000)},
		{"HEP3 shorter than its header", lie(3)},
		{"HEP3 chunk longer than the packet", chunkLie(65535)},
		{"HEP3 chunk shorter than its header", chunkLie(2)},
		{"HEP2 cut in the time header", hep2},
		{"65,507 bytes of nothing", largest},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")},
		{"SIP/3.0", []byte("OPTIONS sip:a SIP/3.0\r\nCall-ID: x\r\n\r\n")},
		{"HEP3 around no SIP", load.HEP3(load.UDP, load.Proxy, load.Proxy, time.Now(), []byte("no SIP at all"))},
		{"HEP3 around nothing", load.HEP3(load.UDP, load.Proxy, load.Proxy, time.Now(), nil)},
	}
	causes := make(map[string]string)
	before := run.CountersNow(t)
	for _, r := range rejected {
		run.feed(t, "udp", r.packet)
		after := run.CountersNow(t)
		up := increased(before, after)
		if len(up) != 1 || after[servers.Received] != before[servers.Received]+1 {
			t.Errorf("%s: counted as %v, want received and one cause", r.name, up)
		} else {
			causes[r.name] = up[0]
		}
		before = after
	}
	for _, pair := range [][2]string{
		{"one byte", "HEP3 longer than the packet"},
		{"HEP3 longer than the packet", "HEP3 around no SIP"},
	} {
		if causes[pair[0]] == causes[pair[1]] {
			t.Errorf("%q and %q have the same cause, %s", pair[0], pair[1], causes[pair[0]])
		}
	}
	t.Logf("causes: %v", causes)

	// Keepalives are no messages of anybody; they may be counted, but not as errors of HEP.
	run.feed(t, "udp", []byte("\r\n\r\n"), []byte{0}, []byte("\r\n"))

	// The largest datagram that there is, with a message in it.
	p := load.HEP3(load.UDP, load.Proxy, load.Proxy, time.Now(), nil)
	head := "MESSAGE sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKl\r\nFrom: <sip:a@example.org>;tag=l\r\n" +
		"To: <sip:b@example.org>\r\nCall-ID: largest\r\nCSeq: 1 MESSAGE\r\n\r\n"
	body := head + strings.Repeat("b", 65507-len(p)-len(head))
	p = load.HEP3(load.UDP, load.Proxy, load.Proxy, time.Now(), []byte(body))
	if len(p) != 65507 {
		t.Fatalf("packet of %d bytes, want 65507", len(p))
	}
	run.feed(t, "udp", p)
	db.await(t, run, "sip_trace", 2, 2*time.Minute)

	random(t, run)
	run.feed(t, "udp", good("last"))
	servers.WaitFor(t, 30*time.Second, "the last row", func() bool {
		return db.value(t, "SELECT COUNT(*) FROM sip_trace WHERE callid = 'last'") == "1"
	})
	run.stop(t)
	if got := db.value(t, "SELECT length(CAST(msg AS BLOB)) FROM sip_trace WHERE callid = 'largest'"); got != fmt.Sprint(len(body)) {
		t.Errorf("largest message: %s bytes stored, want %d", got, len(body))
	}
	for _, bad := range []string{"panic:", "fatal error:", "DATA RACE"} {
		if strings.Contains(run.Stderr(), bad) {
			t.Errorf("%s\n%s", bad, run.Tail(60))
		}
	}
}

// random sends 10,000 datagrams of random bytes: all random, and good packets
// with some bytes changed.
func random(t *testing.T, run *daemon) {
	t.Helper()
	n := 10000
	if servers.Long() {
		n = 300000
	}
	before := run.CountersNow(t)
	rng := rand.New(rand.NewChaCha8([32]byte([]byte("siptraced hostile input, 32 byte"))))
	model := good("random")
	packets := make([][]byte, n)
	for i := range packets {
		switch i % 3 {
		case 0:
			packets[i] = make([]byte, 1+rng.IntN(1400))
			for j := range packets[i] {
				packets[i][j] = byte(rng.Uint32())
			}
		case 1: // the first bytes look right
			packets[i] = make([]byte, 8+rng.IntN(200))
			for j := range packets[i] {
				packets[i][j] = byte(rng.Uint32())
			}
			copy(packets[i], []string{"HEP3", "\x01\x10\x02\x11", "\x02\x28\x0a\x11", "SIP/2.0 "}[rng.IntN(4)])
		default:
			packets[i] = bytes.Clone(model)[:1+rng.IntN(len(model))]
			for range 1 + rng.IntN(5) {
				packets[i][rng.IntN(len(packets[i]))] = byte(rng.Uint32())
			}
		}
	}
	run.feed(t, "udp", packets...)
	servers.WaitFor(t, 30*time.Second, "all random datagrams to be counted", func() bool {
		return run.CountersNow(t)[servers.Received]-before[servers.Received] >= int64(n)
	})
	after := run.CountersNow(t)
	if got := after[servers.Received] - before[servers.Received]; got != int64(n) {
		t.Errorf("random datagrams: received %d, want %d", got, n)
	}
	if up := increased(before, after); len(up) < 2 {
		t.Errorf("%d random datagrams have only the causes %v", n, up)
	}
	t.Logf("%d random datagrams: %v", n, after)
}

// increased lists the counters of rejected and dropped messages that went up.
func increased(before, after servers.Counters) []string {
	var up []string
	for _, k := range slices.Sorted(maps.Keys(after)) {
		reason := strings.HasPrefix(k, servers.Rejected+".") || strings.HasPrefix(k, servers.Dropped+".")
		if reason && after[k] > before[k] {
			up = append(up, k)
		}
	}
	return up
}

// TestHostileStreams does the same over TCP: garbage, a length lie, a packet
// that never ends, connections that say nothing. Other connections must not
// notice.
func TestHostileStreams(t *testing.T) {
	t.Parallel()
	run := start(t, options{network: "tcp", set: []string{"spool.dir=" + t.TempDir()}})
	db := sqliteFile(t, run.Dir+"/siptraced.db")
	idle := run.dial(t)
	healthy := run.dial(t)
	send := func(c net.Conn, p []byte) {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(p); err != nil {
			t.Fatalf("healthy connection: %v\n%s", err, run.Tail(30))
		}
	}
	send(healthy, good("stream-1"))
	for _, garbage := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
		{0x16, 3, 1, 0, 200, 1, 0, 0, 196}, // a TLS client that took the wrong port
		append([]byte("HEP3\x00\x05"), good("x")...),
		append([]byte("HEP3\xff\xff"), bytes.Repeat([]byte{0}, 1000)...),
		[]byte("INVITE sip:a SIP/2.0\r\nContent-Length: 99999999999\r\n\r\n"),
		[]byte("INVITE sip:a SIP/2.0\r\nContent-Length: -5\r\n\r\n"),
		bytes.Repeat([]byte("A"), 300000), // a first line without end
	} {
		c := run.dial(t)
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = c.Write(garbage) // the daemon may hang up first
		_ = c.Close()
	}
	// A packet in pieces, one byte at a time, with a keepalive before it.
	slow := run.dial(t)
	send(slow, []byte("\r\n\r\n"))
	for _, b := range good("stream-2") {
		send(slow, []byte{b})
	}
	// Two packets and half of a third in one segment, the rest later.
	three := slices.Concat(good("stream-3"), good("stream-4"), good("stream-5"))
	send(healthy, three[:len(three)-100])
	time.Sleep(50 * time.Millisecond)
	send(healthy, three[len(three)-100:])
	db.await(t, run, "sip_trace", 5, 2*time.Minute)
	if !run.Running() {
		t.Fatalf("siptraced ended\n%s", run.Tail(60))
	}
	_ = idle.Close()
	run.stop(t)
	for i := 1; i <= 5; i++ {
		if got := db.value(t, fmt.Sprintf("SELECT COUNT(*) FROM sip_trace WHERE callid = 'stream-%d'", i)); got != "1" {
			t.Errorf("stream-%d: %s rows, want 1", i, got)
		}
	}
}

// TestKeepsUp sends a second's worth of a busy proxy at once, as fast as the
// socket takes it: nothing may be lost before the kernel loses it, and what the
// kernel loses has to be said.
func TestKeepsUp(t *testing.T) {
	t.Parallel()
	run := start(t, options{set: []string{"spool.dir=" + t.TempDir()}})
	db := sqliteFile(t, run.Dir+"/siptraced.db")
	list := load.Calls(5000, time.Now())
	c, err := net.Dial("udp", run.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, m := range list {
		if _, err := c.Write(m.Packet); err != nil {
			t.Fatal(err)
		}
	}
	f, err := vectors.NewUDPFeeder(run.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	lost := 0
	if err := f.Wait(ctx); err != nil {
		if _, scan := fmt.Sscanf(err.Error(), "vectors: the kernel dropped %d", &lost); scan != nil {
			t.Fatal(err)
		}
	}
	n := len(list) - lost
	db.await(t, run, "sip_trace", n, time.Minute)
	got := run.CountersNow(t)
	counters := run.stop(t)
	if counters[servers.Received] != int64(n) {
		t.Errorf("received %d of %d, the kernel lost %d", counters[servers.Received], len(list), lost)
	}
	if lost > 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(k string) bool { return strings.Contains(k, "kernel") && got[k] > 0 }) {
		t.Errorf("the kernel lost %d datagrams, and no counter says so: %v", lost, got)
	}
	if rows := db.count("sip_trace"); rows != n {
		t.Errorf("%d rows, want %d", rows, n)
	}
}
