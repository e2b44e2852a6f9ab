package sipmsg

import (
	"strings"
	"testing"
)

// invite is a call as it comes from a desk phone through a proxy, about 900 bytes.
var invite = crlf(`INVITE sip:bob@biloxi.example.com;transport=udp SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK3f9a.7d21;rport
Via: SIP/2.0/UDP 198.51.100.20:5060;received=203.0.113.9;branch=z9hG4bK776asdhds
Record-Route: <sip:192.0.2.10;lr>
Max-Forwards: 69
From: "Alice" <sip:alice@atlanta.example.com>;tag=1928301774
To: <sip:bob@biloxi.example.com>
Call-ID: a84b4c76e66710@pc33.atlanta.example.com
CSeq: 314159 INVITE
Contact: <sip:alice@198.51.100.20:5060;transport=udp>
User-Agent: Deskphone 9000/4.2.1
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, REFER
Supported: replaces, timer
Content-Type: application/sdp
Content-Length: 220

v=0
o=alice 2890844526 2890844526 IN IP4 198.51.100.20
s=-
c=IN IP4 198.51.100.20
t=0 0
m=audio 49170 RTP/AVP 0 8 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
`)

var ok200 = crlf(`SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK3f9a.7d21;rport=5060
From: "Alice" <sip:alice@atlanta.example.com>;tag=1928301774
To: <sip:bob@biloxi.example.com>;tag=a6c85cf
Call-ID: a84b4c76e66710@pc33.atlanta.example.com
CSeq: 314159 INVITE
Contact: <sip:bob@203.0.113.30>
Content-Length: 0

`)

// crlf gives a message written with LF the line ends of SIP.
func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct {
		name string
		msg  []byte
	}{{"INVITE", invite}, {"200", ok200}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bb.msg)))
			var m Message
			for b.Loop() {
				if err := m.Parse(bb.msg); err != nil || m.Defects != 0 {
					b.Fatal(err, m.Defects)
				}
			}
		})
	}
}

func BenchmarkSplit(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(invite)))
	for b.Loop() {
		if _, n, err := Split(invite); err != nil || n != len(invite) {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkHeader(b *testing.B) {
	var m Message
	if err := m.Parse(invite); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := m.Header("Supported"); !ok {
			b.Fatal("not found")
		}
	}
}
