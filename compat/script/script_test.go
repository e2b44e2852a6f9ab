package script_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// options is a request as the live tests send it.
var options = crlf(`OPTIONS sip:bob@vec.example:5070;transport=udp;x=1 SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:17110;branch=z9hG4bK1
From: "Alice A" <sip:alice@atlanta.example:5062;p=q>;tag=ft1
To: "Bob" <sip:bob@vec.example;user=phone>
Call-ID: cid1@host
CSeq: 1 OPTIONS
X-A:  one 
X-A: two
X-A: three, four
X-Empty:
Max-Forwards: 70
Contact: <sip:alice@127.0.0.1:17110>
User-Agent: Test UA/1.0
Content-Type: text/plain
Content-Length: 5

hello`)

var ok200 = crlf(`SIP/2.0 200 OK
Via: SIP/2.0/UDP 127.0.0.1:17110;branch=z9hG4bK1
From: "Alice A" <sip:alice@atlanta.example:5062;p=q>;tag=ft1
To: "Bob" <sip:bob@vec.example;user=phone>;tag=tt1
Call-ID: cid1@host
CSeq: 1 OPTIONS
Content-Length: 0

`)

func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

// parse makes message and record of a request from 127.0.0.1:17110 to the proxy,
// or of a reply back.
func parse(tb testing.TB, raw []byte) (*sipmsg.Message, *siptrace.Record) {
	tb.Helper()
	m := new(sipmsg.Message)
	if err := m.Parse(raw); err != nil {
		tb.Fatal(err)
	}
	rec := &siptrace.Record{
		Time: time.Unix(1795267924, 123456000), Msg: raw, Direction: siptrace.In,
		From: siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("127.0.0.1:17110")},
		To:   siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("127.0.0.1:17060")},
	}
	if !m.IsRequest {
		rec.From, rec.To, rec.Direction = rec.To, rec.From, siptrace.Out
	}
	return m, rec
}

// route reads the text of an event route from a file that begins at line 1.
func route(text string) (kamcfg.Route, error) {
	cfg, err := kamcfg.ParseBytes("k.cfg", []byte("event_route[siptrace:msg] {"+text+"}"), kamcfg.Options{})
	if err != nil {
		return kamcfg.Route{}, err
	}
	r, _ := cfg.EventRoute("siptrace:msg")
	return r, nil
}

// try reads and compiles a text.
func try(text string, opt script.Options) (*script.Program, error) {
	r, err := route(text)
	if err != nil {
		return nil, err
	}
	return script.Compile(r, opt)
}

func compile(tb testing.TB, text string, opt script.Options) *script.Program {
	tb.Helper()
	p, err := try(text, opt)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return p
}

func TestRefusedByKamailio(t *testing.T) {
	for _, e := range lines(t, "testdata/refused.txt") {
		if _, err := try("if ("+e+") drop;", script.Options{}); err == nil {
			t.Errorf("%s: compiled, Kamailio refuses it", e)
		} else {
			t.Log(err)
		}
	}
}
