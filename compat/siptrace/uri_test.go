package siptrace

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestParseSIPURI(t *testing.T) {
	for in, want := range map[string]string{
		"sip:h": "h 5060 udp", "SIP:H": "h 5060 udp", "sips:h": "h 5061 tls", "sip:h;Transport=TCP": "h 5060 tcp", "sip:h;transport=tls": "h 5061 tls",
		"sips:h:5062": "h 5062 tls", "sip:u;x=1:pw@[2001:DB8::1]:9060;lr": "2001:db8::1 9060 udp", "sip:h;transport = udp": "", "sip:h;lr;transport=tls:5": "",
		"sip:": "", "sip:?": "", "sip:?x=y": "", "sip::5060": "", "sip:@": "", "sip:h:": "", "sip:h:0": "", "sip:h:65536": "", "sip:h:5o60": "", "sip:h;transport=SCTP": "h 5060 sctp", "sip:h;transport=wss": "h 5061 wss", "sip:h;transport=any": "", "sip:h;transport=x": "", "sip:h;transport": "",
		"tel:123": "", "urn:x": "", "h:5060": "", "10.0.0.1": "", "": "", "sip:a b": "", "<sip:h>": "", "sip:h\r\nX: y": "", "sip:[::1": "", "sipx:h": "",
	} {
		u, err := ParseSIPURI([]byte(in))
		got := ""
		if err == nil {
			got = fmt.Sprint(u.HostName(), " ", u.Port, " ", u.Transport)
		}
		if got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := ParseMirrorURI([]byte("sip:h;transport=sctp")); err == nil || err.Error() != `"sip:h;transport=sctp": mirrors go over udp, tcp or tls, not "sctp"` {
		t.Error(err)
	}
	uri := []byte("sip:10.0.0.1:9060;transport=tcp")
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseSIPURI(uri) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestListenerURI: a proxy can send to what comes out, which is one of ParseMirrorURI's.
func TestListenerURI(t *testing.T) {
	for _, c := range []struct {
		proto Proto
		bound string
		want  string
		every bool
	}{
		{UDP, "127.0.0.1:9060", "sip:127.0.0.1:9060", false},
		{TCP, "192.0.2.1:9060", "sip:192.0.2.1:9060;transport=tcp", false},
		{TLS, "[2001:db8::1]:9061", "sip:[2001:db8::1]:9061;transport=tls", false},
		{UDP, "[::ffff:192.0.2.1]:9060", "sip:192.0.2.1:9060", false},
		{UDP, "0.0.0.0:9060", "sip:127.0.0.1:9060", true},
		{TCP, "[::]:9060", "sip:127.0.0.1:9060;transport=tcp", true},
	} {
		bound := netip.MustParseAddrPort(c.bound)
		got, every := ListenerURI(c.proto, bound)
		if got != c.want || every != c.every {
			t.Errorf("%s %s: got %s, %v, want %s, %v", c.proto, c.bound, got, every, c.want, c.every)
		}
		if u, err := ParseMirrorURI([]byte(got)); err != nil || u.Port != bound.Port() || u.Transport != c.proto {
			t.Errorf("%s is read as port %d, transport %s, error %v", got, u.Port, u.Transport, err)
		}
	}
}

func TestSplitEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"udp:10.0.0.1:5060": "udp 10.0.0.1 5060", "tls:[::1]:5061": "tls [::1] 5061", "tcp:[::1]": "tcp [::1] ", "udp:h": "udp h ", "udp:::1:5060": "udp ::1 5060",
		"udp:*:9060": "udp * 9060", "udp::9060": "udp  9060", "h": " h ", "": "  ", "udp:": "udp  ",
	} {
		proto, host, port := SplitEndpoint(in)
		if got := proto + " " + host + " " + port; got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"[::1]": "::1", "h": "h", "": "", "::1": "no", "[::1": "no"} {
		host, ok := Unbracket(in)
		if !ok {
			host = "no"
		}
		if host != want {
			t.Errorf("%q: got %q, want %q", in, host, want)
		}
	}
}
