package flexisip

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

const register = `REGISTER sip:192.0.2.20 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.8:5062;rport;branch=z9hG4bK1439638806
From: <sip:jehan-mac@sip.example.org;user=phone>;tag=465687829
To: <sip:jehan-mac@sip.example.org>
Call-ID: 1053183492
CSeq: 1 REGISTER
Contact: <sip:jehan-mac@192.0.2.8:5062;transport=tcp>
User-Agent: Linphone/3.3.99.10 (eXosip2/3.3.0)
Content-Type: application/sdp ; charset=utf-8
Content-Length: 0

`

const ringing = `SIP/2.0 180 Ringing
Via: SIP/2.0/UDP 192.0.2.73:5060;branch=z9hG4bK.hhdJx4~kD;rport
From: <sip:granny2@sip.example.org>;tag=5DuaoDRru
To: <sip:+33123@sip.example.org>;tag=PelIhu0
Call-ID: e-2Q~fxwNs
CSeq: 21 INVITE
Content-Length: 0

`

func read(t testing.TB, text string) (*sipmsg.Message, *siptrace.Record) {
	t.Helper()
	m := new(sipmsg.Message)
	if err := m.Parse([]byte(strings.ReplaceAll(text, "\n", "\r\n"))); err != nil {
		t.Fatal(err)
	}
	return m, &siptrace.Record{
		Direction: siptrace.In,
		From:      siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.8:5062")},
		To:        siptrace.Endpoint{Proto: siptrace.TLS, Addr: netip.MustParseAddrPort("[2001:db8::1]:5061")},
	}
}

var matchTests = []struct {
	expr           string
	request, reply bool
}{
	// Flexisip's own cases, of the domains that may stand in a test.
	{"true", true, true},
	{"is_request", true, false},
	{"direction == 'request'", true, false},
	{"'toto' == 'titi'", false, false},
	{"is_response", false, true},
	{"from.uri.domain == 'sip.example.org'", true, true},
	{"from.uri.user == 'jehan-mac'", true, false},
	{"from.uri.user contains 'jehan'", true, false},
	{"to.uri.domain contains 'example'", true, true},
	{"to.uri.user == 'jehan-claude'", false, false},
	{"to.uri.user != 'jehan-jacques'", true, true},
	{"to.uri.user regex 'jehan-*'", false, false},
	{"to.uri.user regexp 'jehan-.*'", true, false},
	{"from.uri.domain regex '^(?!kijou).*$'", true, true},
	{"from.uri.domain regex '^(?!sip\\.).*$'", false, false},
	{"from.uri.user regex '(?=jehan)(?![^-]*-pc).+'", true, false},
	{"request.method == 'REGISTER'", true, false},
	{"request.method-name == 'REGISTER'", true, false},
	{"defined request.uri.user", false, false},
	{"user-agent contains 'Linphone'", true, false},
	{"is_response && status.code == '180'", false, true},
	{"numeric call-id", true, false},
	{"!(defined request.uri.user) && (from.uri.user in 'jehan-mac jehan-michel') && user-agent contains 'Linphone'", true, false},
	{"(from.uri.user in 'jehan-kevin jehan-patrick') && user-agent contains 'Linphone'", false, false},
	{"((from.uri.user in 'jehan-kevin jehan-patrick') && user-agent contains 'Linphone' ) || request.method == 'REGISTER'", true, false},
	{"!(from.uri.user in 'jehan-kevin jehan-patrick') && request.method != 'REGISTER'", false, true},

	// One precedence, grouped to the right.
	{"false && true || true", false, false},
	{"(false && true) || true", true, true},
	{"true || false && false", true, true},
	{"(true || false) && false", false, false},
	{"true || true && false", true, true},
	{"false && false || true && true", false, false},
	{"true && false || true && false || true", true, true},
	{"false || true && false || true", true, true},

	// ! takes its neighbour.
	{"!false && false", false, false},
	{"!true || true", true, true},
	{"!from.uri.user == 'jehan-mac' || false", false, true},
	{"!!is_request", true, false},
	{"! ( false || false ) && is_request", true, false},
	{"!defined user-agent && is_response", false, true},

	// Absent is empty.
	{"request.uri.user == ''", true, true},
	{"status.code == ''", true, false},
	{"user-agent == content-type", false, true},
	{"numeric request.uri.user", true, true},
	{"contact.uri.domain in ''", false, false},
	{"contact.uri.domain nin '192.0.2.9'", true, true},

	{"request.uri.domain == '192.0.2.20'", true, false},
	{"from.uri.params == 'user=phone'", true, false},
	{"to.uri.params == ''", true, true},
	{"contact.uri.user == 'jehan-mac' && contact.uri.params == 'transport=tcp' && contact.uri.domain == '192.0.2.8'", true, false},
	{"content-type == 'application/sdp'", true, false},
	{"status.phrase == 'Ringing'", false, true},
	{"call-id == 'e-2Q~fxwNs'", false, true},
	{"call-id.hash == '2180541256'", true, false},
	{"defined $siptraced(defects)", false, false},
	{"$siptraced(defects) == ''", true, true},
	{"'jehan' in 'a  jehan\tb'", true, true},
	{"'jeh' in 'a jehan b'", false, false},
	{"'jehan-mac' in from.uri.user", true, false},
	{"'mac' notin from.uri.user", true, true},
	{"from.uri.user in'jehan-mac'&&from.uri.user!='x'", true, false},
	{"from.uri.user contains 'jehan'\n&&\tis_request", true, false},
	{"'it && is (not' == user-agent || true", true, true},
	{"user-agent regex '.*(eXosip|sofia).*\\)'", true, false},
	{"from.uri.user contains from.uri.user", true, true},
	{"", true, true},
	{"  ", true, true},

	{"$siptrace(src_addr) == 'udp:192.0.2.8:5062'", true, true},
	{"$siptrace(src_host) == '192.0.2.8' && $siptrace(src_hostip) == '192.0.2.8'", true, true},
	{"$siptrace(dst_addr) == 'tls:[2001:db8::1]:5061'", true, true},
	{"$siptrace(dst_host) == '[2001:db8::1]'", true, true},
	{"$siptrace(dst_hostip) == '2001:db8::1'", true, true},
	{"$siptrace(src_port) == '5062' && $siptrace(dst_port) == '5061'", true, true},
	{"$siptrace(src_proto) == 'udp' && $siptrace(dst_proto) == 'tls'", true, true},
	{"$siptrace(src_port) == $siptrace(dst_port)", false, false},
	{"$siptrace(direction) in 'in'", true, true},
}

func TestMatch(t *testing.T) {
	request, rec := read(t, register)
	reply, _ := read(t, ringing)
	for _, tt := range matchTests {
		f, err := Compile(tt.expr)
		if err != nil {
			t.Errorf("%s: %v", tt.expr, err)
			continue
		}
		if got := f.Match(request, rec); got != tt.request {
			t.Errorf("%s: %v for the request", tt.expr, got)
		}
		if got := f.Match(reply, rec); got != tt.reply {
			t.Errorf("%s: %v for the reply", tt.expr, got)
		}
		if f.String() != tt.expr {
			t.Errorf("%s: String gives %q", tt.expr, f)
		}
	}
}

func TestAddressesAsText(t *testing.T) {
	tests := []struct{ text, host, hostip, port, proto string }{
		{"udp:10.20.30.40:5060", "10.20.30.40", "10.20.30.40", "5060", "udp"},
		{"udp:10.20.30.40", "10.20.30.40", "10.20.30.40", "", "udp"},
		{"tcp:[2001:db8::1]", "[2001:db8::1]", "2001:db8::1", "", "tcp"},
		{"udp:::1:15060", "::1", "::1", "15060", "udp"},
		{"hello", "hello", "hello", "", ""},
	}
	m, r := read(t, register)
	for _, tt := range tests {
		r.From.Text = tt.text
		for name, want := range map[string]string{"addr": tt.text, "host": tt.host, "hostip": tt.hostip, "port": tt.port, "proto": tt.proto} {
			f, err := Compile("$siptrace(src_" + name + ") == '" + want + "'")
			if err != nil {
				t.Fatal(err)
			}
			if !f.Match(m, r) {
				t.Errorf("%s: src_%s is not %q", tt.text, name, want)
			}
		}
	}
}

// The numbers are those of Sofia-SIP's own function.
func TestHash(t *testing.T) {
	for id, want := range map[string]uint32{"": 4294967295, "1053183492": 2180541256, "caf\xe9": 2643119891} {
		if got := hash([]byte(id)); got != want {
			t.Errorf("%q: %d, want %d", id, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		expr   string
		offset int
		reason string
	}{
		{"!(defined request.uri.user) && (from.uri.user in jehan-mac jehan-michel) && true", 49, "no variable"},
		{"!(defined request.uri.user) && (from.uri.user == 'jehan-mac'", 31, "not closed"},
		{"request.method == 'SUBSCRIBE || request.method == 'NOTIFY'", 51, "want && or ||"},
		{"is_request)", 10, "no parenthesis is open"},
		{"is_request is_response", 11, "want && or ||"},
		{"(is_request is_response)", 12, "want &&, || or )"},
		{"is_request &&", 13, "missing"},
		{"&& is_request", 0, "want a variable"},
		{"is_request & true", 11, "want && or ||"},
		{"()", 1, "want a variable"},
		{"!", 1, "missing"},
		{"from.uri.user", 13, "want =="},
		{"from.uri.user = 'x'", 14, "want =="},
		{"from.uri.user == ", 17, "missing"},
		{"from.uri.user == 'x", 17, "quote is not closed"},
		{"from.uri.name == 'x'", 0, "from.uri.user"},
		{"from.uri.user like 'x'", 14, "want =="},
		{"user-agent regex from.uri.user", 17, "regular expression in single quotes"},
		{"user-agent regex 'a(b'", 18, "missing closing"},
		{"user-agent regex 'a)|(b'", 18, "unexpected )"},
		{"user-agent regex 'a(?!b)'", 18, "invalid or unsupported"},
		{`user-agent regex '(a)\1'`, 18, "invalid escape"},
		{"user-agent regex '((a{999}){999}){999}'", 18, "invalid repeat count"},
		{"user-agent regex '" + strings.Repeat("a", MaxPattern+1) + "'", 18, "over 1024"},
		{"$siptrace(src_mac) == 'x'", 0, "hostip"},
		{"$ru == 'x'", 0, "pseudo-variables"},
		{"$siptraced(flaws) == 'x'", 0, "there is $siptraced(defects)"},
		{"$siptrace(src_host == 'x'", 0, "hostip"},
		{"defined", 7, "missing"},
		{"true == 'true'", 5, "want && or ||"},
		{"is_request; drop", 10, "want && or ||"},
		{"\xff", 0, "want a variable"},
		{strings.Repeat("(", MaxDepth+2) + "true" + strings.Repeat(")", MaxDepth+2), MaxDepth + 1, "inside one another"},
		{strings.Repeat("!", 8000) + "true", MaxDepth + 1, "inside one another"},
		{strings.Repeat(" ", MaxLength) + "true", MaxLength, "longer than 8192"},
	}
	for _, tt := range tests {
		f, err := Compile(tt.expr)
		var se *SyntaxError
		if !errors.As(err, &se) {
			t.Errorf("%.60s: %v, %v", tt.expr, f, err)
			continue
		}
		if se.Offset != tt.offset || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%.60s: at %d: %v\nwant %d, %s", tt.expr, se.Offset, err, tt.offset, tt.reason)
		}
	}

	_, err := Compile("is_request && from.uri.nam == 'x'")
	if got, want := err.Error(), `flexisip: there is no variable "from.uri.nam" (there are from.uri.user, from.uri.domain, from.uri.params) at byte 14, "from.uri.nam == 'x'"`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"request.method == 'REGISTER' && (from.uri.user contains '+33')", "!!a||b&&(c)", "user-agent regex '^(?!x)(?=[)]).*'",
		"$siptrace(src_port) notin '5060 5062'", "defined x'", "numeric 'a'", strings.Repeat("(", 100), "call-id.hash == from.uri.params",
	} {
		f.Add(s, register)
	}
	f.Add("status.code in '180 183'", ringing)
	f.Fuzz(func(t *testing.T, expr, text string) {
		c, err := Compile(expr)
		if err != nil {
			var se *SyntaxError
			if !errors.As(err, &se) || se.Offset < 0 || se.Offset > len(expr) || se.Reason == "" {
				t.Fatalf("%#v", err)
			}
			return
		}
		m := new(sipmsg.Message)
		if m.Parse([]byte(text)) != nil {
			m, _ = read(t, register)
		}
		_, r := read(t, register)
		got := c.Match(m, r)
		if c.Match(m, r) != got {
			t.Fatal("two answers")
		}
		if len(expr) > MaxLength-4 || strings.Trim(expr, blanks) == "" {
			return
		}
		n, err := Compile("!(" + expr + ")")
		if err == nil && n.Match(m, r) == got {
			t.Fatalf("%q and its opposite agree", expr)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for name, expr := range map[string]string{
		"one":    "from.uri.user == 'jehan-mac'",
		"twenty": strings.Repeat("from.uri.user == 'x' || ", 19) + "user-agent contains 'Linphone'",
		"regex":  "user-agent regex '.*(eXosip|sofia).*'",
		"in":     "from.uri.domain in '" + strings.Repeat("a.example.com ", 50) + "sip.example.org'",
	} {
		b.Run(name, func(b *testing.B) {
			m, r := read(b, register)
			f, err := Compile(expr)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if !f.Match(m, r) {
					b.Fatal("no match")
				}
			}
		})
	}
}

// TestDefects: what is wrong with a message is a list of names.
func TestDefects(t *testing.T) {
	_, r := read(t, register)
	m := new(sipmsg.Message)
	if err := m.Parse([]byte("SIP/2.0 20\r\nFrom: a\r\nFrom: b\r\nTo: \"\r\nContent-Length: x\r\nstray\r\n")); err != nil {
		t.Fatal(err)
	}
	for expr, want := range map[string]bool{
		"defined $siptraced(defects)":                                    true,
		"$siptraced(defects) contains 'missing_call_id'":                 true,
		"$siptraced(defects) contains 'short_body'":                      false,
		"$siptraced(defects) regex '(.*,)?bad_(status|reason)(,.*)?'":    true,
		"$siptraced(defects) == '" + m.Defects.String() + "'":            true,
		"is_response && !($siptraced(defects) contains 'no_blank_line')": false,
	} {
		f, err := Compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Match(m, r); got != want {
			t.Errorf("%s: got %v with %v", expr, got, m.Defects)
		}
	}
}
