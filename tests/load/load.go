package load

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Message is one mirrored message.
type Message struct {
	CallID  string
	Index   int // position in its call, from 0
	Out     bool
	Payload string
	Packet  []byte // HEP3
}

// Proxy is the address of the proxy in the traffic: what is sent from there
// has the direction out.
var Proxy = netip.MustParseAddrPort("192.0.2.1:5060")

// The two ends of the calls, documentation addresses.
var (
	caller = netip.MustParseAddrPort("198.51.100.10:5062")
	callee = netip.MustParseAddrPort("203.0.113.20:5060")
)

// open is how many calls go on at the same time.
const open = 40

// Spec says what a call looks like. Empty fields have the values of Calls.
type Spec struct {
	CallID    string
	FromTag   string
	ToTag     string
	UserAgent string
	TLS       bool // between the caller and the proxy
}

// Call makes the messages of one call, a millisecond apart.
func Call(s Spec, at time.Time) []Message {
	c := newCall(0, s)
	var list []Message
	for c.next < len(steps) {
		list = append(list, c.step(at.Add(time.Duration(c.next)*time.Millisecond)))
	}
	return list
}

// Calls makes n messages of calls with the messages INVITE, 100, 180, 200,
// ACK, BYE and 200 on both sides of the proxy, about 900 bytes each on
// average. The first message has the time at, each following one is a
// millisecond later.
func Calls(n int, at time.Time) []Message {
	list := make([]Message, 0, n)
	calls := make([]*call, open)
	started := 0
	for i := 0; len(list) < n; i++ {
		c := calls[i%open]
		if c == nil || c.next == len(steps) {
			// Calls start one after the other, so that they are at different steps.
			if c == nil && i%open > i/open {
				continue
			}
			c = newCall(started, Spec{})
			started++
			calls[i%open] = c
		}
		list = append(list, c.step(at.Add(time.Duration(len(list))*time.Millisecond)))
	}
	return list
}

type call struct {
	Spec
	number, next int
}

func newCall(number int, s Spec) *call {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&s.CallID, fmt.Sprintf("load-%06d@198.51.100.10", number)},
		{&s.FromTag, fmt.Sprintf("c%d", number)},
		{&s.ToTag, fmt.Sprintf("e%d", number)},
		{&s.UserAgent, "Example Phone 12.4.1 (build 20518)"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return &call{Spec: s, number: number}
}

// step is one message of a call: who sends it to whom, and its first line.
type step struct {
	src, dst     netip.AddrPort
	first, cseq  string
	totag, body  bool
	viaProxy     bool
	contactOther bool
}

var steps = []step{
	{src: caller, dst: Proxy, first: "INVITE sip:bob@example.org SIP/2.0", cseq: "1 INVITE", body: true},
	{src: Proxy, dst: caller, first: "SIP/2.0 100 trying", cseq: "1 INVITE"},
	{src: Proxy, dst: callee, first: "INVITE sip:bob@203.0.113.20:5060 SIP/2.0", cseq: "1 INVITE", body: true, viaProxy: true},
	{src: callee, dst: Proxy, first: "SIP/2.0 180 Ringing", cseq: "1 INVITE", totag: true, viaProxy: true, contactOther: true},
	{src: Proxy, dst: caller, first: "SIP/2.0 180 Ringing", cseq: "1 INVITE", totag: true, contactOther: true},
	{src: callee, dst: Proxy, first: "SIP/2.0 200 OK", cseq: "1 INVITE", totag: true, body: true, viaProxy: true, contactOther: true},
	{src: Proxy, dst: caller, first: "SIP/2.0 200 OK", cseq: "1 INVITE", totag: true, body: true, contactOther: true},
	{src: caller, dst: Proxy, first: "ACK sip:bob@203.0.113.20:5060 SIP/2.0", cseq: "1 ACK", totag: true},
	{src: Proxy, dst: callee, first: "ACK sip:bob@203.0.113.20:5060 SIP/2.0", cseq: "1 ACK", totag: true, viaProxy: true},
	{src: caller, dst: Proxy, first: "BYE sip:bob@203.0.113.20:5060 SIP/2.0", cseq: "2 BYE", totag: true},
	{src: Proxy, dst: callee, first: "BYE sip:bob@203.0.113.20:5060 SIP/2.0", cseq: "2 BYE", totag: true, viaProxy: true},
	{src: callee, dst: Proxy, first: "SIP/2.0 200 OK", cseq: "2 BYE", totag: true, viaProxy: true, contactOther: true},
	{src: Proxy, dst: caller, first: "SIP/2.0 200 OK", cseq: "2 BYE", totag: true, contactOther: true},
}

const sdp = "v=0\r\n" +
	"o=- 20518 0 IN IP4 203.0.113.1\r\n" +
	"s= \r\n" +
	"c=IN IP4 203.0.113.1\r\n" +
	"t=0 0\r\n" +
	"m=audio 49172 RTP/AVP 8 0 18 101\r\n" +
	"a=rtpmap:8 PCMA/8000\r\n" +
	"a=rtpmap:0 PCMU/8000\r\n" +
	"a=rtpmap:18 G729/8000\r\n" +
	"a=fmtp:18 annexb=no\r\n" +
	"a=rtpmap:101 telephone-event/8000\r\n" +
	"a=fmtp:101 0-15\r\n" +
	"a=ptime:20\r\n" +
	"a=maxptime:40\r\n" +
	"a=sendrecv\r\n" +
	"a=rtcp:49173\r\n" +
	"a=candidate:1 1 UDP 2130706431 198.51.100.10 49172 typ host\r\n" +
	"a=candidate:2 1 UDP 1694498815 203.0.113.1 49172 typ srflx raddr 198.51.100.10 rport 49172\r\n"

func (c *call) step(at time.Time) Message {
	s := steps[c.next]
	m := Message{CallID: c.CallID, Index: c.next, Out: s.src == Proxy}
	c.next++
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("%s", s.first)
	if s.viaProxy {
		line("Via: SIP/2.0/UDP %v;branch=z9hG4bK%04x.%08x.0", Proxy, c.number, m.Index)
	}
	line("Via: SIP/2.0/UDP %v;received=198.51.100.10;rport=5062;branch=z9hG4bK-%d-%s", caller, c.number, strings.Fields(s.cseq)[0])
	line("Max-Forwards: 69")
	line("Record-Route: <sip:%v;lr;ftag=%s>", Proxy, c.FromTag)
	line(`From: "Alice Example" <sip:alice@example.org>;tag=%s`, c.FromTag)
	if s.totag {
		line("To: <sip:bob@example.org>;tag=%s", c.ToTag)
	} else {
		line("To: <sip:bob@example.org>")
	}
	line("Call-ID: %s", m.CallID)
	line("CSeq: %s", s.cseq)
	contact := caller
	if s.contactOther {
		contact = callee
	}
	line("Contact: <sip:user@%v;transport=udp>", contact)
	line("User-Agent: %s", c.UserAgent)
	line("Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, MESSAGE, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER")
	line("Supported: replaces, 100rel, timer, outbound, path")
	line("Session-Expires: 1800;refresher=uac")
	line("P-Asserted-Identity: <sip:+15550100@example.org;user=phone>")
	body := ""
	if s.body {
		body = sdp
		line("Content-Type: application/sdp")
	}
	line("Content-Length: %d", len(body))
	line("")
	b.WriteString(body)
	m.Payload = b.String()
	proto := UDP
	if c.TLS && (s.src == caller || s.dst == caller) {
		proto = TLS
	}
	m.Packet = HEP3(proto, s.src, s.dst, at, []byte(m.Payload))
	return m
}

// IP protocol numbers as HEP carries them.
const (
	UDP byte = 17
	TLS byte = 22
)

// HEP3 wraps a SIP message. Both addresses are of one family.
func HEP3(proto byte, src, dst netip.AddrPort, at time.Time, payload []byte) []byte {
	p := append(make([]byte, 0, 128+len(payload)), "HEP3\x00\x00"...)
	chunk := func(kind uint16, body []byte) {
		p = append(p, 0, 0)
		p = binary.BigEndian.AppendUint16(p, kind)
		p = binary.BigEndian.AppendUint16(p, uint16(6+len(body)))
		p = append(p, body...)
	}
	family, first := byte(2), uint16(3)
	if src.Addr().Is6() {
		family, first = 10, 5
	}
	chunk(1, []byte{family})
	chunk(2, []byte{proto})
	chunk(first, src.Addr().AsSlice())
	chunk(first+1, dst.Addr().AsSlice())
	chunk(7, binary.BigEndian.AppendUint16(nil, src.Port()))
	chunk(8, binary.BigEndian.AppendUint16(nil, dst.Port()))
	chunk(9, binary.BigEndian.AppendUint32(nil, uint32(at.Unix())))
	chunk(10, binary.BigEndian.AppendUint32(nil, uint32(at.Nanosecond()/1000)))
	chunk(11, []byte{1})
	chunk(12, []byte{0, 0, 0, 1})
	chunk(15, payload)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	return p
}
