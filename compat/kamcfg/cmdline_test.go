package kamcfg

import (
	"strings"
	"testing"
)

// defineFacts is a table of facts: what "kamailio -c -A ..." of 5.6.3 says.
var defineFacts = []defineFact{
	{"value", `X=a`, "alias=X", "a", "", ""},
	{"string", `X="a b"`, "alias=X", "a b", "", ""},
	{"= in the value", `X="a=b"`, "alias=X", "a=b", "", ""},
	{"space before the value", `X= a`, "alias=X", "a", "", ""},
	{"without value", "X", "alias=a X\n#!ifdef X\nalias=b\n#!endif\n", "a b", "", ""},
	{"empty value", "X=", "alias=a X\n#!ifdef X\nalias=b\n#!endif\n", "a b", "", ""},
	{"several", "X=a Y=b", "alias=X alias=Y", "a b", "", ""},
	{"before #!trydef", "X=a", "#!trydef X b\nalias=X", "a", "", ""},
	{"before #!redef", "X=a", "#!redef X b\nalias=X", "b", "", ""},
	{"before #!define", "X=a", "#!define X b\nalias=X", "", "kamailio.cfg:1: X is already defined; it is given by --define", ""},
	{"before #!substdef", "X=a", "\n#!substdef \"!X!b!g\"\n", "", "kamailio.cfg:2: X is already defined; it is given by --define", ""},
	{"twice", "X=a X=b", "", "", "--define X: X is already defined; give it once", ""},
	{"one of Kamailio's own", "KAMAILIO_5=1", "", "", "--define KAMAILIO_5: KAMAILIO_5 is already defined", ""},
	{"no name", "=a", "", "", "--define : there is no name to define; write NAME or NAME=VALUE", ""},
	{"hyphen", "A-B=a", "", "", "--define A-B: there is no name to define", nothingMeans},
	{"digit first", "1X=a", "", "", "--define 1X: there is no name to define", nothingMeans},
}

const nothingMeans = "Kamailio defines a name that nothing in the file can mean"

type defineFact struct{ name, defines, src, want, err, differs string }

func (f defineFact) list() []string {
	if strings.ContainsAny(f.defines, `"`) || f.defines == "X= a" {
		return []string{f.defines}
	}
	return strings.Fields(f.defines)
}

func TestDefines(t *testing.T) {
	for _, tt := range defineFacts {
		t.Run(tt.name, func(t *testing.T) {
			aliases(t, tt.src, Options{CommandLine: CommandLine{Defines: tt.list()}}, tt.want, tt.err)
		})
	}
}

// listenFacts is a table of facts: what "kamailio -c -l ..." of 5.6.3 listed under
// "Listening on".
var listenFacts = []struct{ name, src, listens, local, err, differs string }{
	{"beside the file's", "listen=udp:127.0.0.3", "udp:127.0.0.1:5070", "udp:127.0.0.3:5060 udp:127.0.0.1:5070", "", ""},
	{"alone", "", "udp:127.0.0.1", "udp:127.0.0.1:5060", "", ""},
	{"without protocol", "", "127.0.0.1", "udp:127.0.0.1:5060 tcp:127.0.0.1:5060", "", ""},
	{"with TLS", "enable_tls=1 port=5099", "127.0.0.1", "udp:127.0.0.1:5099 tcp:127.0.0.1:5099 tls:127.0.0.1:5061", "", ""},
	{"TLS port", "enable_tls=1 tls_port_no=5555", "127.0.0.1 tls:127.0.0.2", "udp:127.0.0.1:5060 tcp:127.0.0.1:5060 tls:127.0.0.1:5555 tls:127.0.0.2:5555", "", ""},
	{"port behind it", "port=5099", "127.0.0.1", "udp:127.0.0.1:5099 tcp:127.0.0.1:5099", "", ""},
	{"port 0 is the default", "", "udp:127.0.0.1:0", "udp:127.0.0.1:5060", "", ""},
	{"no octal port", "", "UDP:127.0.0.1:05061", "udp:127.0.0.1:5061", "", ""},
	{"list", "", "udp:(lo,127.0.0.2):5066", "udp:127.0.0.1:5066 udp:127.0.0.2:5066", "", ""},
	{"interface", "", "lo", "udp:127.0.0.1:5060 tcp:127.0.0.1:5060", "", ""},
	{"IPv6", "", "udp:[::1] [::1]:5063", "udp:[::1]:5060 udp:[::1]:5063 tcp:[::1]:5063", "", ""},
	{"advertise", "", "udp:127.0.0.1:5080/192.0.2.4:5060", "udp:127.0.0.1:5080", "", ""},
	{"twice", "", "udp:127.0.0.1 udp:127.0.0.1", "udp:127.0.0.1:5060", "", ""},

	{"IPv6 without brackets", "", "udp:::1", "", "-l udp:::1: address is malformed; write [proto:]host", ""},
	{"bracket open", "", "udp:[::1", "", "malformed", ""},
	{"bracket and text", "", "udp:[::1]x", "", "malformed", ""},
	{"any protocol", "", "*:127.0.0.1:5061", "", "malformed", ""},
	{"websocket", "", "ws:127.0.0.1:80", "", "malformed", ""},
	{"range", "", "udp:127.0.0.1:5070-5072", "", "malformed", ""},
	{"port too large", "", "udp:127.0.0.1:70000", "", "malformed", "Kamailio listens on 4464"},
	{"advertise nothing", "", "udp:127.0.0.1/", "", "malformed", ""},
	{"list open", "", "udp:(127.0.0.1", "", "malformed", ""},
	{"list of nothing", "", "udp:()", "", "malformed", ""},
}

func TestListenOption(t *testing.T) {
	for _, tt := range listenFacts {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseBytes("kamailio.cfg", []byte(tt.src), Options{CommandLine: CommandLine{Listens: strings.Fields(tt.listens)}, Interfaces: host})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Local(), " "); got != tt.local {
				t.Errorf("local:\n got %s\nwant %s", got, tt.local)
			}
		})
	}
	c, err := ParseBytes("kamailio.cfg", nil, Options{CommandLine: CommandLine{Listens: []string{"udp: 127.0.0.1:5080 / [::1]:5061"}}})
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Listens[0]; l.AdvertiseHost != "::1" || l.AdvertisePort != 5061 || l.Pos.String() != "-l udp: 127.0.0.1:5080 / [::1]:5061" {
		t.Errorf("got %+v", l)
	}
	if _, err := ParseBytes("kamailio.cfg", nil, Options{CommandLine: CommandLine{Listens: []string{""}}}); err == nil {
		t.Error("an empty address is accepted")
	}
}
