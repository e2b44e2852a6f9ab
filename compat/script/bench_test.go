package script_test

import (
	"testing"

	"siptraced/compat/script"
)

// invite is a call as it comes from a desk phone through a proxy.
var invite = crlf(`INVITE sip:+4930123456@biloxi.example.com;transport=udp SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK3f9a.7d21;rport
Via: SIP/2.0/UDP 198.51.100.20:5060;received=203.0.113.9;branch=z9hG4bK776asdhds
Record-Route: <sip:192.0.2.10;lr>
Max-Forwards: 69
From: "Alice" <sip:alice@atlanta.example.com>;tag=1928301774
To: <sip:+4930123456@biloxi.example.com>
Call-ID: a84b4c76e66710@pc33.atlanta.example.com
CSeq: 314159 INVITE
Contact: <sip:alice@198.51.100.20:5060;transport=udp>
User-Agent: Deskphone 9000/4.2.1
X-Tenant: blue
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

// twenty is a route with twenty conditions, every one of which is reached.
const twenty = `
if (is_method("OPTIONS|REGISTER") && $ua =~ "friendly-scanner") drop;
if (is_method("SUBSCRIBE|NOTIFY|PUBLISH")) drop();
if ($ua =~ "sipvicious|sipcli|sundayddr") drop;
if ($si == "192.0.2.66") drop;
if ($siptrace(src_hostip) == "192.0.2.67" || $siptrace(dst_hostip) == "192.0.2.67") drop;
if ($fU == "healthcheck") drop;
if ($rU =~ "^(100|112|911)$") drop;
if ($fd =~ "\.test\.example$") drop;
if ($td == "lab.example.com") drop;
if ($hdr(X-Probe) == "1") drop;
if (is_present_hf("X-No-Trace")) drop;
if ($hdr(X-Tenant) == "green") drop;
if ($rs >= 500 && $rs < 600) drop;
if ($ml > 60000) drop;
if ($ru =~ "^sip:[0-9]+@10\.") drop;
if ($ci =~ "@probe\.example\.com$") drop;
if (!is_request() && has_totag() && $cs == "1") drop;
if (is_in_subnet("$si", "10.9.0.0/16, 172.20.0.0/14")) drop;
if ($hdr(X-Tenant) =~ "^bl") { $avp(s:tt) = "sip_trace_blue"; }
if ($tU =~ "^\+49") { $avp(s:tu) = $fU; }
`

func BenchmarkTwentyConditions(b *testing.B) {
	p := compile(b, twenty, script.Options{})
	sip, rec := parse(b, invite)
	var m script.Message
	if res := p.Run(&m, sip, rec); res.Dropped || res.Faults.Any() || len(m.Values(p.AVP("$avp(s:tu)"), nil)) != 1 || len(m.Values(p.AVP("$avp(s:tt)"), nil)) != 1 {
		b.Fatalf("%+v", res)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Run(&m, sip, rec)
	}
}

func BenchmarkOneCondition(b *testing.B) {
	p := compile(b, `if (is_method("REGISTER")) drop();`, script.Options{})
	sip, rec := parse(b, invite)
	var m script.Message
	b.ReportAllocs()
	for b.Loop() {
		p.Run(&m, sip, rec)
	}
}

// TestAllocations: the common path allocates nothing.
func TestAllocations(t *testing.T) {
	p := compile(t, twenty, script.Options{})
	sip, rec := parse(t, invite)
	var m script.Message
	if n := testing.AllocsPerRun(1000, func() { p.Run(&m, sip, rec) }); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}
