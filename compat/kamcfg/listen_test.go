package kamcfg

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// listenLines is a table of facts like preprocessFacts: local is what "kamailio
// -c" of 5.6.3 listed under "Listening on", put to this host's interfaces; for a
// wildcard the host's addresses come besides, and a name that isn't this host's
// gives nothing.
var listenLines = []struct {
	name, src string
	local     string
	first     string // proto host port advertise port name virtual
}{
	{"all", "listen=udp:127.0.0.1:5061", p61, "udp 127.0.0.1 5061  0 "},
	{"spaces and semicolon", "listen = udp : 127.0.0.1 : 5061 ;", p61, "udp 127.0.0.1 5061  0 "},
	{"capital protocol", "listen=UDP:127.0.0.1:5061", p61, "udp 127.0.0.1 5061  0 "},
	{"without protocol", "listen=127.0.0.1", p60 + " tcp:127.0.0.1:5060", " 127.0.0.1 5060  0 "},
	{"any protocol", "listen=*:127.0.0.1:5061", p61 + " tcp:127.0.0.1:5061", " 127.0.0.1 5061  0 "},
	{"without TCP", "disable_tcp=yes\nlisten=127.0.0.1", p60, ""},
	{"TLS on the next port", "enable_tls=yes\nlisten=127.0.0.1:5070", "udp:127.0.0.1:5070 tcp:127.0.0.1:5070 tls:127.0.0.1:5071", ""},
	{"TLS beyond the last port", "enable_tls=yes\nlisten=127.0.0.1:65535", "udp:127.0.0.1:65535 tcp:127.0.0.1:65535 tls:127.0.0.1:5061", ""},
	{"TLS by default", "enable_tls=1\nport=5080\nlisten=127.0.0.1", "udp:127.0.0.1:5080 tcp:127.0.0.1:5080 tls:127.0.0.1:5061", ""},
	{"TLS port", "enable_tls=1\ntls_port_no=5099\nlisten=127.0.0.1", p60 + " tcp:127.0.0.1:5060 tls:127.0.0.1:5099", ""},
	{"TLS", "enable_tls=1 listen=tls:127.0.0.1 listen=tls:127.0.0.1:5062", "tls:127.0.0.1:5061 tls:127.0.0.1:5062", ""},
	{"port 0 is the default", "listen=udp:127.0.0.1:0", p60, ""},
	{"port before", "port=5099\nlisten=udp:127.0.0.1", "udp:127.0.0.1:5099", ""},
	{"port after", "listen=udp:127.0.0.1\nport=5099", "udp:127.0.0.1:5099", ""},
	{"port before and after", "port=5098\nlisten=udp:127.0.0.1\nport=5099", "udp:127.0.0.1:5098", ""},
	{"octal port", "listen=udp:127.0.0.1:011702", "udp:127.0.0.1:5058", ""},
	{"hexadecimal port", "listen=udp:127.0.0.1:0x13bA", "udp:127.0.0.1:5050", ""},
	{"defines", "#!define P 5077\n#!define A 127.0.0.1\n#!define L udp:A:P\nlisten=L", "udp:127.0.0.1:5077", ""},
	{"define with a string", "#!define A \"127.0.0.1\"\nlisten=udp:A:5061", p61, ""},
	{"define with a list", "#!define A (127.0.0.1, 127.0.0.2)\nlisten=udp:A:5061", p61 + " udp:127.0.0.2:5061", ""},
	{"substdef", "#!substdef \"!ADDR!127.0.0.1!g\"\nlisten=udp:ADDR:5061", p61, ""},

	{"IPv6", "listen=udp:[::1]:5061", "udp:[::1]:5061", "udp ::1 5061  0 "},
	{"IPv6, capitals", "listen=udp:[2001:DB8::9]:5061", "udp:[2001:db8::9]:5061", ""},
	{"IPv6 without port", "listen=[::1]", "udp:[::1]:5060 tcp:[::1]:5060", ""},
	{"IPv6 without brackets", "listen=3ffe:400:190:56:201:2ff:fedd:52b5", "udp:[3ffe:400:190:56:201:2ff:fedd:52b5]:5060 tcp:[3ffe:400:190:56:201:2ff:fedd:52b5]:5060", " 3ffe:400:190:56:201:2ff:fedd:52b5 5060  0 "},
	{"IPv6 without brackets, short", "listen=::1", "udp:[::1]:5060 tcp:[::1]:5060", ""},
	{"IPv6 without brackets, any", "listen=::", "udp:[::]:5060 udp:[::1]:5060 udp:[2001:db8::2]:5060 udp:[fe80::2]:5060 tcp:[::]:5060 tcp:[::1]:5060 tcp:[2001:db8::2]:5060 tcp:[fe80::2]:5060", ""},
	{"IPv6 without brackets, all groups and a port", "listen=udp:0:0:0:0:0:0:0:1:5061", "udp:[::1]:5061", "udp ::1 5061  0 "},
	{"IPv6 without brackets, no port for a short one", "listen=tcp:2001:db8::1:5061", "tcp:[2001:db8::1:5061]:5060", ""},
	{"IPv6 without brackets, protocol and space", "listen=udp: ::1", "udp:[::1]:5060", ""},
	{"IPv6 without brackets, letters", "listen=udp:dead::beef", "udp:[dead::beef]:5060", ""},
	{"IPv6 without brackets, list", "listen=udp:(::1, 127.0.0.1):5061", "udp:[::1]:5061 " + p61, ""},
	{"IPv6 without brackets, second", "listen=udp:127.0.0.1:5061 ::1", p61 + " udp:[::1]:5060 tcp:[::1]:5060", ""},
	{"IPv6 without brackets, advertise", "listen=udp:0:0:0:0:0:0:0:1 advertise 203.0.113.7:5070", "udp:[::1]:5060", "udp ::1 5060 203.0.113.7 5070 "},
	{"IPv6 in a string", "listen=udp:\"[::1]\":5061 listen=udp:\"::1\":5062", "udp:[::1]:5061 udp:[::1]:5062", ""},

	{"list", "listen=udp:(127.0.0.1, \"127.0.0.2\", [::1]):5061", p61 + " udp:127.0.0.2:5061 udp:[::1]:5061", ""},
	{"list of one", "listen=udp:(127.0.0.1)", p60, ""},
	{"several addresses", "listen=udp:127.0.0.1:5061\n tcp:127.0.0.1:5062 127.0.0.2", p61 + " tcp:127.0.0.1:5062 udp:127.0.0.2:5060 tcp:127.0.0.2:5060", ""},
	{"twice the same", "listen=udp:lo:5061\nlisten=udp:127.0.0.1:5061", p61, ""},
	{"next statement", "listen=udp:127.0.0.1:5061\ngroup=\"root\"\nlisten=udp:127.0.0.1:5060; my.var=1 loadmodule \"pv\" flags a:1", p61 + " " + p60, ""},

	{"interface", "listen=lo:5061", p61 + " tcp:127.0.0.1:5061", " lo 5061  0 "},
	{"interface, IPv4 only", "listen=udp:eth0", "udp:192.0.2.2:5060", ""},
	{"interface with auto_bind_ipv6", "auto_bind_ipv6=1\nlisten=udp:eth0", "udp:192.0.2.2:5060 udp:[2001:db8::2]:5060 udp:[fe80::2]:5060", ""},
	{"VLAN", "listen=udp:eth0.100:5061", "udp:198.51.100.2:5061", ""},
	{"wildcard", "listen=udp:0.0.0.0:5061", "udp:0.0.0.0:5061 " + p61 + " udp:192.0.2.2:5061 udp:198.51.100.2:5061", ""},
	{"wildcard IPv6", "listen=udp:[::]:5061", "udp:[::]:5061 udp:[::1]:5061 udp:[2001:db8::2]:5061 udp:[fe80::2]:5061", ""},
	{"localhost", "listen=udp:localhost:5061", p61, ""},
	{"name", "listen=udp:proxy-1.example.com:5061", "", "udp proxy-1.example.com 5061  0 "},
	{"nothing", "disable_tcp=1", "udp:127.0.0.1:5060 udp:192.0.2.2:5060 udp:198.51.100.2:5060", ""},
	{"nothing but a port", "port=5070", "udp:127.0.0.1:5070 udp:192.0.2.2:5070 udp:198.51.100.2:5070 tcp:127.0.0.1:5070 tcp:192.0.2.2:5070 tcp:198.51.100.2:5070", ""},

	{"advertise", "listen=udp:127.0.0.1:5061 advertise 203.0.113.7:5070", p61, "udp 127.0.0.1 5061 203.0.113.7 5070 "},
	{"advertise a name", "listen=udp:127.0.0.1:5061 ADVERTISE sip-a.example.com:5070", p61, "udp 127.0.0.1 5061 sip-a.example.com 5070 "},
	{"advertise a string", "listen=udp:127.0.0.1:5061 advertise \"sip.dns.example\":5070", p61, "udp 127.0.0.1 5061 sip.dns.example 5070 "},
	{"advertise IPv6", "listen=udp:[::1]:5061 advertise [2001:db8::1]:5070", "udp:[::1]:5061", "udp ::1 5061 2001:db8::1 5070 "},
	{"advertise without port", "listen=udp:127.0.0.1:5061 advertise 203.0.113.7", p61, "udp 127.0.0.1 5061 203.0.113.7 0 "},
	{"advertise for all of a line", "listen=udp:127.0.0.2:5061 udp:127.0.0.1:5062 advertise 203.0.113.7:5070\nlisten=udp:127.0.0.1:5061", "udp:127.0.0.2:5061 udp:127.0.0.1:5062 " + p61, "udp 127.0.0.2 5061 203.0.113.7 5070 "},
	{"name of a socket", "listen=udp:127.0.0.1:5061 name \"a\" \"b\"", p61, "udp 127.0.0.1 5061  0 ab"},
	{"all of it", "listen=udp:127.0.0.1:5061 advertise 203.0.113.7:5070 NAME \"s1\" virtual", p61, "udp 127.0.0.1 5061 203.0.113.7 5070 s1"},

	// Since 6.0; 5.6.3 knows no variable "socket".
	{"socket", "socket = {\n bind = udp:127.0.0.1:5061;\n advertise = 203.0.113.7:5070;\n name = \"s1\";\n agname = \"g\";\n virtual = yes;\n}", p61, "udp 127.0.0.1 5061 203.0.113.7 5070 s1"},
	{"socket of 6.1", "socket={bind=udp:127.0.0.1:5061; vrf=\"mgmt\"; workers=4; virtual=no}", p61, ""},
	{"advertise with protocol, since 6.2", "listen=udp:127.0.0.1:5061 advertise udp:203.0.113.7:5070", p61, "udp 127.0.0.1 5061 203.0.113.7 5070 "},
	{"socket with a range", "socket={bind=udp:127.0.0.1:5061-5063; advertise=203.0.113.7:5071; name=\"s\"}", p61 + " udp:127.0.0.1:5062 udp:127.0.0.1:5063", "udp 127.0.0.1 5061 203.0.113.7 5071 s5061"},
}

const p60, p61 = "udp:127.0.0.1:5060", "udp:127.0.0.1:5061"

func TestListen(t *testing.T) {
	for _, tt := range listenLines {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, tt.src, Options{Interfaces: host})
			if got := strings.Join(c.Local(), " "); got != tt.local {
				t.Errorf("local:\n got %s\nwant %s", got, tt.local)
			}
			if tt.first == "" {
				return
			}
			l := c.Listens[0]
			if got := fmt.Sprint(l.Proto, " ", l.Host, " ", l.Port, " ", l.AdvertiseHost, " ", l.AdvertisePort, " ", l.Name); got != tt.first {
				t.Errorf("got %q, want %q", got, tt.first)
			}
		})
	}
}

func TestSocketRange(t *testing.T) {
	c := parse(t, "socket={bind=udp:127.0.0.1:5061-5063; advertise=203.0.113.7:5071; name=\"s\"}", Options{})
	if l := c.Listens[2]; l.Name != "s5063" || l.AdvertisePort != 5073 {
		t.Errorf("got %+v", l)
	}
}

// TestListenErrors: all of these are refused by 5.6.3 too, except where it says.
func TestListenErrors(t *testing.T) {
	tests := []struct{ name, src, want string }{
		{"comma", "listen=udp:127.0.0.1:5061, udp:127.0.0.2:5061", `unexpected ","`},
		{"IPv6 without brackets", "listen=udp:::1", "IPv6 in brackets"},
		{"IPv6 with zone", "listen=udp:[fe80::1%eth0]:5060", "without zone"},
		{"bracket open", "listen=udp:[::1:5060\n", "IPv6 address of listen is malformed"},
		{"IPv4", "listen=udp:127.0.0.256:5060", "127.0.0.256 is not an IPv4 address"},
		{"three numbers", "listen=udp:127.0.1:5060", "127.0.1 is not an IPv4 address"},
		{"number", "listen=5060", "5060 is not an IPv4 address"},
		{"star", "listen=udp:*:5060", "where a host of listen should be"},
		{"protocol", "listen=ws:127.0.0.1:5060", "websockets are tcp or tls"},
		{"alias interface", "listen=udp:eth0:1:5060", "address of listen is malformed"},
		{"all in quotes", `listen="udp:127.0.0.1:5060"`, `only the host may be in quotes`},
		{"port in quotes", `listen=udp:127.0.0.1:"5060"`, "where a port should be"},
		{"port a name", "listen=udp:127.0.0.1:sip", "where a port should be"},
		{"port with 0", "listen=udp:127.0.0.1:0589", "without a 0 before it"},
		{"port negative", "listen=udp:127.0.0.1:-3", "where a port should be"},
		{"port too large (5.6.3 listens on 4464)", "listen=udp:127.0.0.1:70000", "70000 is not a port; ports are 1 to 65535"},
		{"nothing", "listen=\nroute { exit; }", "where a host of listen should be"},
		{"no =", "listen udp:127.0.0.1", "write listen=udp:"},
		{"ports in a list", "listen=udp:(127.0.0.1:5061, 127.0.0.2)", "protocol and port stand outside"},
		{"no comma in a list", "listen=udp:(127.0.0.1 127.0.0.2)", "separated by commas"},
		{"empty list", "listen=udp:()", "where a host of listen should be"},
		{"advertise two", "listen=udp:127.0.0.1 advertise (1.2.3.4, 1.2.3.5)", "advertise takes one host"},
		{"advertise in quotes (5.6.3 drops the line)", `listen=udp:127.0.0.1 advertise "1.2.3.4:5070"`, "only the host may be in quotes"},
		{"order", `listen=udp:127.0.0.1 name "s1" advertise 1.1.1.1`, "their order is: advertise, name, virtual"},
		{"virtual first", "listen=udp:127.0.0.1 virtual advertise 1.1.1.1", "their order is"},
		{"name without quotes", "listen=udp:127.0.0.1 name s1", "put it in quotes"},
		{"define without value", "#!define A\nlisten=udp:A:5060", "where a host of listen should be"},
		{"alias", "alias=udp:", "where a host of alias should be"},
		{"socket without bind", "\nsocket={ name=\"x\" }", ":2: socket without bind"},
		{"socket attribute", "socket={ bnid=udp:127.0.0.1 }", "socket has no attribute bnid; did you mean bind?"},
		{"socket not closed", "socket={ bind=udp:127.0.0.1", "unexpected end of the file in a socket block"},
		{"range backwards", "socket={ bind=udp:127.0.0.1:5062-5061 }", "range of ports is empty"},
		{"range of advertise", "socket={ bind=udp:127.0.0.1:5061-5062; advertise=a:65535 }", "goes beyond 65535"},
		{"range of a listen", "listen=udp:127.0.0.1:5061-5062", `unexpected "-"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseBytes("kamailio.cfg", []byte(tt.src), Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	boom := errors.New("boom")
	_, err := ParseBytes("kamailio.cfg", []byte("listen=eth0"), Options{Interfaces: func() ([]Interface, error) { return nil, boom }})
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want the error of Interfaces", err)
	}
}

func TestAlias(t *testing.T) {
	const src = `alias=foo.example.com alias=foo.example.com:5060 alias=udp:foo.example.com
alias="bar.example.com":5060 "a-b" alias=[::1]:5060 alias=*:x.example alias=_sip.1a.example alias="tcp:odd:1"
my.var=1`
	var got []string
	for _, a := range parse(t, src, Options{}).Aliases {
		got = append(got, fmt.Sprintf("%s %s %d", a.Proto, a.Host, a.Port))
	}
	diff(t, "aliases", got, []string{
		" foo.example.com 0", " foo.example.com 5060", "udp foo.example.com 0", " bar.example.com 5060", " a-b 0",
		" ::1 5060", " x.example 0", " _sip.1a.example 0", " tcp:odd:1 0",
	})
}
