package mirror

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// message is a SIP request of its own call, padded to a size.
func message(call, headers string, size int) string {
	m := func(body int) string {
		return "MESSAGE sip:b@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK" + call + "\r\nFrom: <sip:a@example.org>;tag=a\r\n" +
			"To: <sip:b@example.org>\r\nCall-ID: " + call + "\r\nCSeq: 1 MESSAGE\r\n" + headers + fmt.Sprintf("Content-Length: %5d\r\n\r\n", body)
	}
	body := max(0, size-len(m(0)))
	return m(body) + strings.Repeat("x", body)
}

// TestEdges mirrors what the real module drops without a word: a message with one
// IPv4 and one IPv6 end goes out with a mapped address, and one that as HEP is too
// large for a datagram goes out as SIP, and by HEP to another siptraced; elsewhere it
// is counted, and told of once.
func TestEdges(t *testing.T) {
	t.Parallel()
	udp, tcp, sip := collect(t, "udp", "127.0.0.1"), collect(t, "tcp", "127.0.0.1"), collect(t, "tcp", "127.0.0.1")
	next := start(t, options{network: "tcp"})
	d := start(t, options{set: []string{
		"siptrace.xheaders_read=1",
		"destinations=" + uri(udp, "udp") + ";name=udp," + uri(tcp, "tcp") + ";name=tcp," + uri(sip, "tcp") + ";name=sip;protocol=sip;xheaders=1," +
			"sip:" + next.addr + ";transport=tcp;name=next;ack=keepalive",
	}})
	begin := time.Now()
	at := begin.Add(-time.Hour).Truncate(time.Microsecond)
	mixed := message("mixed@192.0.2.7", "", 0)
	headers := fmt.Sprintf("X-Siptrace-Fromip: udp:192.0.2.7:5060\r\nX-Siptrace-Toip: udp:[2001:db8::7]:5070\r\n"+
		"X-Siptrace-Time: %d %d\r\nX-Siptrace-Method: MESSAGE\r\nX-Siptrace-Dir: in\r\n", at.Unix(), at.Nanosecond()/1000)
	marked := strings.Replace(mixed, "\r\n\r\n", "\r\n"+headers+"\r\n", 1)
	// As HEP1 they fit into a datagram, as HEP3 they don't.
	var large []string
	for i := range 3 {
		large = append(large, message(fmt.Sprintf("large-%d@192.0.2.7", i), "", 65430))
	}
	src, dst := netip.MustParseAddrPort("192.0.2.7:5060"), netip.MustParseAddrPort("192.0.2.1:5060")
	d.feed(t, []byte(marked))
	for _, m := range large {
		d.feed(t, vectors.HEP{Version: 1, Proto: load.UDP, Src: src, Dst: dst, Type: 1, Payload: []byte(m)}.Encode())
	}
	await(t, d, 1, udp, tcp)
	await(t, d, 1+len(large), sip)
	d.settle(t)
	c := d.stop(t)
	t.Logf("%v", c)
	next.table.await(t, 1+len(large))
	next.stop(t)

	mapped := vectors.HEP{
		Version: 3, Proto: load.UDP, Src: src, Dst: netip.MustParseAddrPort("[2001:db8::7]:5070"), Time: at, Type: 1, CaptureID: 1, Payload: []byte(mixed),
	}.Encode()
	if !bytes.Contains(mapped, netip.MustParseAddr("::ffff:192.0.2.7").AsSlice()) {
		t.Fatal("the test's own packet has no mapped address")
	}
	want := []vectors.Out{{Packet: mapped}}
	report(t, "over UDP", vectors.CompareOut(want, closed(t, udp), vectors.Window{}))
	report(t, "over TCP", vectors.CompareOut(want, closed(t, tcp), vectors.Window{}))
	wantSIP := []vectors.Out{{Packet: []byte(marked)}}
	for _, m := range large {
		wantSIP = append(wantSIP, vectors.Out{Arrival: true, Packet: []byte(strings.Replace(m, "\r\n\r\n", "\r\n"+
			"X-Siptrace-Fromip: udp:192.0.2.7:5060\r\nX-Siptrace-Toip: udp:192.0.2.1:5060\r\nX-Siptrace-Time: 0 0\r\n"+
			"X-Siptrace-Method: MESSAGE\r\nX-Siptrace-Dir: in\r\n\r\n", 1))})
	}
	report(t, "as SIP over TCP", vectors.CompareOut(wantSIP, closed(t, sip), vectors.Window{From: begin, To: time.Now()}))
	var rows []string
	for _, r := range next.table.rows(t) {
		rows = append(rows, r.Msg)
	}
	slices.Sort(rows)
	if wantRows := slices.Sorted(slices.Values(append(large, mixed))); !slices.Equal(rows, wantRows) {
		t.Errorf("the next siptraced has %d rows, or other texts than the %d that were sent", len(rows), len(wantRows))
	}
	for _, name := range []string{"udp", "tcp"} {
		if got := c["mirror."+name+".too_large"]; got != int64(len(large)) {
			t.Errorf("too large for %s: %d, want %d", name, got, len(large))
		}
		if got := strings.Count(d.Stderr(), "sink=mirror."+name+" cause=too_large"); got != 1 {
			t.Errorf("%s: told of %d times that messages are too large, want once:\n%s", name, got, d.Stderr())
		}
	}
}

// TestExpire keeps what waits for a destination within its bounds, in age or in
// bytes: the oldest are given up, for that destination only, and counted.
func TestExpire(t *testing.T) {
	t.Parallel()
	const part, parts = 400, 10
	there := collect(t, "tcp", "127.0.0.1")
	away := map[string]*vectors.Sink{"old": collect(t, "tcp", "127.0.0.1"), "many": collect(t, "tcp", "127.0.0.1")}
	text := fmt.Sprintf("destinations:\n  - {uri: %q, name: there}\n", uri(there, "tcp"))
	for name, bound := range map[string]string{"old": "max_age: 2s", "many": "max_bytes: 1MiB"} {
		if err := away[name].Close(); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("  - {uri: %q, name: %s, %s}\n", uri(away[name], "tcp"), name, bound)
	}
	d := start(t, options{yaml: text})
	list := load.Calls(part*parts, time.Now().Add(-time.Hour))
	for i := range parts {
		d.feed(t, packets(list[i*part:(i+1)*part])...)
		await(t, d, (i+1)*part, there)
	}
	servers.WaitFor(t, patience, "all to be too old", func() bool { return d.CountersNow(t)["mirror.old.expired"] == part*parts })
	for _, s := range away {
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
	}
	c := d.settle(t)
	d.stop(t)
	t.Logf("%v", c)
	if expired, sent := c["mirror.many.expired"], c["mirror.many.sent"]; expired < part*parts/2 || sent < part || expired+sent != part*parts {
		t.Errorf("too many: %d expired, %d sent", expired, sent)
	}
	if c["mirror.there.sent"] != part*parts || c["mirror.there.expired"] != 0 {
		t.Errorf("the one that was there: %v", c)
	}
	for name, s := range away {
		got, err := payloads(closed(t, s))
		if err != nil {
			t.Error(err)
		}
		if len(got) != int(c["mirror."+name+".sent"]) {
			t.Errorf("%s: %d packets, %d sent", name, len(got), c["mirror."+name+".sent"])
		}
		newest := len(got) == 0 || slices.ContainsFunc(got, func(m []byte) bool { return string(m) == list[len(list)-1].Payload })
		if !newest {
			t.Errorf("%s: the newest message was given up", name)
		}
		problems, repeated := cameAll(list, got)
		problems = slices.DeleteFunc(problems, func(p string) bool { return strings.HasSuffix(p, "did not come") })
		report(t, name, append(problems, repeated...))
	}
	got, err := payloads(closed(t, there))
	if err != nil {
		t.Error(err)
	}
	report(t, "the one that was there", inOrder(list, got))
}
