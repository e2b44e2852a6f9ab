package siptrace

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"siptraced/compat/sipmsg"
)

func ap(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(s)
}

func TestEndpoint(t *testing.T) {
	tests := []struct {
		e    Endpoint
		want string
	}{
		{Endpoint{Proto: UDP, Addr: ap("192.0.2.1:5060")}, "udp:192.0.2.1:5060"},
		{Endpoint{Proto: TLS, Addr: ap("[2001:db8::1]:5061")}, "tls:[2001:db8::1]:5061"},
		{Endpoint{Proto: TCP, Addr: ap("[::ffff:192.0.2.1]:0")}, "tcp:192.0.2.1:0"},
		{Endpoint{Proto: UDP, Addr: ap("[fe80::1%eth0]:5060")}, "udp:[fe80::1]:5060"},
		{Endpoint{Addr: ap("192.0.2.1:5060")}, "any:192.0.2.1:5060"},
		{Endpoint{Proto: UDP}, "any:255.255.255.255:5060"},
		{Endpoint{Proto: UDP, Addr: ap("192.0.2.1:5060"), Text: "hello"}, "hello"},
	}
	for _, tt := range tests {
		if got := tt.e.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"udp:192.0.2.1:5070": "udp:192.0.2.1:5070", "tcp:192.0.2.1": "tcp:192.0.2.1:5060", "TLS:192.0.2.1": "tls:192.0.2.1:5061",
		"udp:[::1]:15060": "udp:[::1]:15060", "wss:[::1]": "wss:[::1]:5061",
	} {
		got, err := ParseEndpoint(in)
		if err != nil || got.String() != want {
			t.Errorf("%q: got %q, error %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "192.0.2.1:5060", "udp:host:5060", "udp:192.0.2.1:x", "udp:192.0.2.1:70000", "icmp:192.0.2.1:1", "udp:"} {
		if got, err := ParseEndpoint(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

func message(t *testing.T, text string) *sipmsg.Message {
	t.Helper()
	m := new(sipmsg.Message)
	if err := m.Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return m
}

func request(via string) string {
	return "INVITE sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/" + via + " 192.0.2.9;branch=z9hG4bKx\r\n" +
		"From: <sip:a@example.com>;tag=f\r\nTo: <sip:b@example.com>\r\nCall-ID: c@h\r\nCSeq: 1 INVITE\r\n\r\n"
}

func TestBuild(t *testing.T) {
	own := []Socket{
		{Proto: UDP, Addr: ap("192.0.2.1:5060"), Advertised: ap("203.0.113.7:5070")},
		{Proto: TLS, Addr: ap("192.0.2.1:5061")},
		{Proto: Any, Addr: ap("[2001:db8::1]:5060")},
	}
	tests := []struct {
		name       string
		own        []Socket
		advertise  bool
		localIP    string
		duplicate  bool // SIP, not HEP
		proto      Proto
		src, dst   string
		source     string // of the mirror packet
		via        string
		from, to   string
		directions string
	}{
		{name: "in", proto: UDP, src: "192.0.2.9:5060", dst: "192.0.2.1:5060", from: "udp:192.0.2.9:5060", to: "udp:192.0.2.1:5060", directions: In},
		{name: "out", proto: UDP, src: "192.0.2.1:5060", dst: "192.0.2.9:5060", from: "udp:192.0.2.1:5060", to: "udp:192.0.2.9:5060", directions: Out},
		{name: "other port of the host", proto: UDP, src: "192.0.2.1:6000", dst: "192.0.2.1:5060", from: "udp:192.0.2.1:6000", to: "udp:192.0.2.1:5060", directions: In},
		{name: "neither end", proto: UDP, src: "192.0.2.8:1", dst: "192.0.2.9:2", from: "udp:192.0.2.8:1", to: "udp:192.0.2.9:2", directions: In},
		{name: "other transport", proto: TCP, src: "192.0.2.9:1", dst: "192.0.2.1:5060", from: "tcp:192.0.2.9:1", to: "tcp:192.0.2.1:5060", directions: In},
		{name: "out from a connection's own port", proto: TCP, src: "192.0.2.1:45951", dst: "192.0.2.9:5060", from: "tcp:192.0.2.1:45951", to: "tcp:192.0.2.9:5060", directions: Out},
		{name: "in to a connection's own port", proto: TLS, src: "192.0.2.9:5061", dst: "192.0.2.1:45951", from: "tls:192.0.2.9:5061", to: "tls:192.0.2.1:45951", directions: In},
		{name: "out from an advertised address", proto: TCP, src: "203.0.113.7:45951", dst: "192.0.2.9:5060", from: "tcp:203.0.113.7:45951", to: "tcp:192.0.2.9:5060", directions: Out},
		{name: "between ports of the proxy's host", proto: TCP, src: "192.0.2.1:45951", dst: "192.0.2.1:6000", from: "tcp:192.0.2.1:45951", to: "tcp:192.0.2.1:6000", directions: In},
		{name: "trace_local_ip, connection's own port", localIP: "tcp:10.0.0.1:5060", proto: TCP, src: "192.0.2.1:45951", dst: "192.0.2.9:1", from: "tcp:10.0.0.1:5060", to: "tcp:192.0.2.9:1", directions: Out},
		{name: "any transport", proto: TCP, src: "[2001:db8::1]:5060", dst: "[2001:db8::9]:1", from: "tcp:[2001:db8::1]:5060", to: "tcp:[2001:db8::9]:1", directions: Out},
		{name: "wildcard", proto: UDP, src: "0.0.0.0:5060", dst: "192.0.2.9:1", from: "udp:0.0.0.0:5060", to: "udp:192.0.2.9:1", directions: Out},
		{name: "wss on the tls socket", proto: TLS, via: "WSS", src: "192.0.2.1:5061", dst: "192.0.2.9:1", from: "wss:192.0.2.1:5061", to: "wss:192.0.2.9:1", directions: Out},
		{name: "ws", proto: TLS, via: "ws", src: "192.0.2.9:1", dst: "192.0.2.1:5061", from: "ws:192.0.2.9:1", to: "ws:192.0.2.1:5061", directions: In},
		{name: "tls as tcp", proto: TCP, via: "TLS", src: "192.0.2.1:5061", dst: "192.0.2.9:1", from: "tls:192.0.2.1:5061", to: "tls:192.0.2.9:1", directions: Out},
		{name: "duplicate over tcp", duplicate: true, proto: TCP, via: "TLS", src: "192.0.2.9:1", dst: "192.0.2.1:5061", from: "tcp:192.0.2.9:1", to: "tcp:192.0.2.1:5061", directions: In},
		{name: "duplicate over tls", duplicate: true, proto: TLS, via: "WSS", src: "192.0.2.9:1", dst: "192.0.2.1:5061", from: "tls:192.0.2.9:1", to: "tls:192.0.2.1:5061", directions: In},
		{name: "tcp", proto: TCP, via: "TCP", src: "192.0.2.9:1", dst: "192.0.2.1:5061", from: "tcp:192.0.2.9:1", to: "tcp:192.0.2.1:5061", directions: In},
		{name: "udp stays udp", proto: UDP, via: "TLS", src: "192.0.2.9:1", dst: "192.0.2.1:5060", from: "udp:192.0.2.9:1", to: "udp:192.0.2.1:5060", directions: In},
		{name: "advertised already", proto: UDP, src: "203.0.113.7:5070", dst: "192.0.2.9:1", from: "udp:203.0.113.7:5070", to: "udp:192.0.2.9:1", directions: Out},
		{name: "data_mode out", advertise: true, proto: UDP, src: "192.0.2.1:5060", dst: "192.0.2.9:1", from: "udp:203.0.113.7:5070", to: "udp:192.0.2.9:1", directions: Out},
		{name: "data_mode in", advertise: true, proto: UDP, src: "192.0.2.9:1", dst: "192.0.2.1:5060", from: "udp:192.0.2.9:1", to: "udp:203.0.113.7:5070", directions: In},
		{name: "trace_local_ip out", localIP: "udp:10.0.0.1:5060", proto: UDP, src: "192.0.2.1:5060", dst: "192.0.2.9:1", from: "udp:10.0.0.1:5060", to: "udp:192.0.2.9:1", directions: Out},
		{name: "trace_local_ip in", localIP: "udp:10.0.0.1:5060", proto: UDP, src: "192.0.2.9:1", dst: "192.0.2.1:5060", from: "udp:192.0.2.9:1", to: "udp:10.0.0.1:5060", directions: In},
		{name: "spiral", proto: UDP, src: "192.0.2.1:5060", dst: "192.0.2.1:5060", from: "udp:192.0.2.1:5060", to: "udp:192.0.2.1:5060", directions: "out in out in"},
		{name: "no sockets, sender is the source", own: []Socket{}, source: "127.0.0.1:5060", proto: UDP, src: "127.0.0.1:5060", dst: "127.0.0.1:6000", from: "udp:127.0.0.1:5060", to: "udp:127.0.0.1:6000", directions: Out},
		{name: "no sockets, sender is the destination", own: []Socket{}, source: "127.0.0.1:5060", proto: UDP, src: "127.0.0.1:6000", dst: "127.0.0.1:5060", from: "udp:127.0.0.1:6000", to: "udp:127.0.0.1:5060", directions: In},
		{name: "no sockets, sender's host", own: []Socket{}, source: "192.0.2.1:40000", proto: TCP, src: "192.0.2.1:5060", dst: "192.0.2.9:1", from: "tcp:192.0.2.1:5060", to: "tcp:192.0.2.9:1", directions: Out},
		{name: "no address", proto: UDP, from: "any:255.255.255.255:5060", to: "any:255.255.255.255:5060", directions: In},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.own == nil {
				tt.own = own
			}
			if tt.via == "" {
				tt.via = "UDP"
			}
			text := request(tt.via)
			b := &Builder{Own: NewSockets(tt.own, tt.advertise), LocalIP: TextEndpoint(tt.localIP)}
			var directions []string
			for range strings.Fields(tt.directions) {
				var rec Record
				b.Build(&rec, &Capture{Time: time.Unix(1, 0), Proto: tt.proto, Src: ap(tt.src), Dst: ap(tt.dst), Payload: []byte(text), HEP: !tt.duplicate, Meta: Meta{Source: ap(tt.source)}}, message(t, text))
				if from, to := rec.From.String(), rec.To.String(); from != tt.from || to != tt.to {
					t.Errorf("got %s -> %s, want %s -> %s", from, to, tt.from, tt.to)
				}
				directions = append(directions, rec.Direction)
			}
			if got := strings.Join(directions, " "); got != tt.directions {
				t.Errorf("direction: got %s, want %s", got, tt.directions)
			}
		})
	}
}

func TestBuildFields(t *testing.T) {
	b := &Builder{Own: NewSockets(nil, false)}
	var rec Record
	c := &Capture{Time: time.Unix(1, 2000), Proto: UDP, Src: ap("192.0.2.1:1"), Dst: ap("192.0.2.2:2"), Meta: Meta{CorrelationID: []byte("x"), CaptureID: 7}}
	text := "SIP/2.0 200 OK\r\nFrom: <sip:a@b>;tag=f\r\nTo: <sip:c@d>;tag=t\r\nCall-ID: c@h\r\nCSeq: 1 bye\r\n\r\n"
	c.Payload = []byte(text)
	b.Build(&rec, c, message(t, text))
	got := [...]string{string(rec.CallID), string(rec.Method), string(rec.Status), string(rec.FromTag), string(rec.ToTag), string(rec.Msg), string(rec.CorrelationID)}
	want := [...]string{"c@h", "bye", "200", "f", "t", text, "x"}
	if got != want || rec.CaptureID != 7 || rec.Rows() != 1 {
		t.Errorf("got %q, capture id %d, rows %d, want %q", got, rec.CaptureID, rec.Rows(), want)
	}
	text = request("UDP")
	b.Build(&rec, c, message(t, text))
	if len(rec.Status) != 0 || string(rec.Method) != "INVITE" || len(rec.ToTag) != 0 {
		t.Errorf("request after a reply: got %s, status %q, totag %q", rec.Method, rec.Status, rec.ToTag)
	}
}

// The two copies of a spiral are one message although a script lowered
// Max-Forwards in between; another transaction is another message.
func TestSpiralCopies(t *testing.T) {
	var s spirals
	second := func(text string) bool {
		c := &Capture{Time: time.Unix(1000, 0), Src: ap("192.0.2.1:1"), Dst: ap("192.0.2.1:1"), Payload: []byte(text)}
		return s.second(c, message(t, text))
	}
	with := func(forwards, branch string) string {
		return strings.NewReplacer("\r\nFrom", "\r\nMax-Forwards: "+forwards+"\r\nFrom", "z9hG4bKx", branch).Replace(request("UDP"))
	}
	steps := []struct {
		text string
		want bool
	}{
		{with("70", "z9hG4bKa"), false},
		{with("70", "z9hG4bKb"), false},
		{with("69", "z9hG4bKa"), true},
		{with("70", "z9hG4bKa"), false}, // retransmitted
		{with("69", "z9hG4bKb"), true},
		{with("69", "z9hG4bKa"), true},
		{strings.Replace(request("UDP"), ";branch=z9hG4bKx", "", 1), false},
		{strings.Replace(request("UDP"), ";branch=z9hG4bKx", "", 1), true},
	}
	for i, st := range steps {
		if got := second(st.text); got != st.want {
			t.Errorf("step %d: second copy: got %t, want %t", i, got, st.want)
		}
	}
}

// A first copy whose second one never comes is forgotten, by age and by number.
func TestSpiralsExpire(t *testing.T) {
	var s spirals
	at := time.Unix(1000, 0)
	c := &Capture{Time: at, Src: ap("192.0.2.1:1"), Dst: ap("192.0.2.1:1"), Payload: []byte("x")}
	m := new(sipmsg.Message) // without a Via: told by its bytes
	if s.second(c, m) {
		t.Fatal("the first copy is taken for the second")
	}
	c.Time = at.Add(spiralAge + time.Second)
	if s.second(c, m) {
		t.Error("a copy is remembered for too long")
	}
	for i := range 3 * maxSpirals {
		c.Payload = []byte{byte(i), byte(i >> 8), byte(i >> 16)}
		s.second(c, m)
	}
	if len(s.first) > maxSpirals || cap(s.queue) > 8*maxSpirals {
		t.Errorf("%d copies in mind, queue %d: bound is %d", len(s.first), cap(s.queue), maxSpirals)
	}
}

func BenchmarkBuild(b *testing.B) {
	builder := &Builder{Own: NewSockets([]Socket{{Proto: UDP, Addr: ap("192.0.2.1:5060")}}, false)}
	text := []byte(request("UDP"))
	m := new(sipmsg.Message)
	if err := m.Parse(text); err != nil {
		b.Fatal(err)
	}
	c := &Capture{Time: time.Unix(1, 0), Proto: UDP, Src: ap("192.0.2.9:5060"), Dst: ap("192.0.2.1:5060"), Payload: text}
	var rec Record
	b.ReportAllocs()
	for b.Loop() {
		builder.Build(&rec, c, m)
	}
}
