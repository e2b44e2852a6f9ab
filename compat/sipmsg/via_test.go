package sipmsg

import (
	"strings"
	"testing"
)

func TestVia(t *testing.T) {
	tests := []struct {
		name, in  string
		transport string
		host      string
		port      string
		branch    string
		bad       bool
	}{
		{name: "plain", in: "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport", transport: "UDP", host: "192.0.2.1", port: "5060", branch: "z9hG4bK1"},
		{name: "host only", in: "SIP/2.0/WSS df7jal23ls0d.invalid", transport: "WSS", host: "df7jal23ls0d.invalid"},
		{name: "IPv6", in: "SIP/2.0/TCP [2001:db8::1];received=[::1];branch=b", transport: "TCP", host: "[2001:db8::1]", branch: "b"},
		{name: "IPv6 and port", in: "SIP/2.0/TLS [::1]:5061 ;branch=b", transport: "TLS", host: "[::1]", port: "5061", branch: "b"},
		{name: "blanks everywhere", in: "SIP / 2.0\r\n /\tUDP  a : 5060 ; Branch = b , SIP/2.0/UDP c", transport: "UDP", host: "a", port: "5060", branch: "b"},
		{name: "first of two", in: "SIP/2.0/UDP a,SIP/2.0/TCP b;branch=c", transport: "UDP", host: "a"},
		{name: "branch in quotes", in: `SIP/2.0/UDP a;x=",";branch="b"`, transport: "UDP", host: "a", branch: "b"},

		{name: "empty", in: "", bad: true},
		{name: "no transport", in: "SIP/2.0/ ", bad: true},
		{name: "one slash", in: "SIP/UDP a", bad: true},
		{name: "slash in a parameter", in: "a;b=/2.0/UDP c", bad: true},
		{name: "no host", in: "SIP/2.0/UDP ;branch=b", transport: "UDP", bad: true},
		{name: "port not a number", in: "SIP/2.0/UDP a:b;branch=c", transport: "UDP", host: "a", bad: true},
		{name: "two hosts", in: "SIP/2.0/UDP a b;branch=c", transport: "UDP", host: "a", bad: true},
		{name: "quote without end", in: `SIP/2.0/UDP a;x=";branch=c`, transport: "UDP", host: "a", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var v Via
			_, ok := v.parse([]byte(tt.in))
			if string(v.Raw) != tt.in || string(v.Transport) != tt.transport || string(v.Host) != tt.host ||
				string(v.Port) != tt.port || string(v.Branch) != tt.branch || ok == tt.bad {
				t.Errorf("got %q %q %q %q, %v", v.Transport, v.Host, v.Port, v.Branch, ok)
			}
		})
	}
}

// TestVias: values of one header and of several are one list.
func TestVias(t *testing.T) {
	for _, tt := range []struct{ headers, want string }{
		{"", ""},
		{"Via: SIP/2.0/UDP a;branch=1\r\n", "a 1"},
		{"Via: SIP/2.0/UDP a;branch=1\r\nTo: x\r\nv: SIP/2.0/UDP b;branch=2\r\n", "a 1|b 2"},
		{"via: SIP/2.0/UDP a;x=\",\";branch=1,\r\n SIP/2.0/UDP b;branch=2 , SIP/2.0/UDP c\r\nVia: SIP/2.0/UDP d\r\n", "a 1|b 2|c |d "},
		{"Via: broken;branch=1, SIP/2.0/UDP b;branch=2\r\n", " |b 2"},
		{"Via: SIP/2.0/UDP a b;branch=1, SIP/2.0/UDP c;branch=2\r\n", "a |c 2"},
		{"Via:\r\nVia: SIP/2.0/UDP b\r\n", " |b "},
		{"Via: SIP/2.0/UDP a,\r\n", "a | "},
	} {
		var m Message
		if err := m.Parse([]byte("SIP/2.0 200 OK\r\n" + tt.headers + "\r\n")); err != nil {
			t.Fatal(err)
		}
		var got []string
		for v := range m.Vias() {
			got = append(got, string(v.Host)+" "+string(v.Branch))
		}
		if s := strings.Join(got, "|"); s != tt.want {
			t.Errorf("%q: got %q, want %q", tt.headers, s, tt.want)
		}
		for v := range m.Vias() {
			if string(v.Raw) != string(m.Via.Raw) {
				t.Errorf("%q: the first is not the top one", tt.headers)
			}
			break
		}
	}
}
