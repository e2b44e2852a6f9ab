package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"siptraced/tests/load"
)

// proxy is the host whose traffic it is.
var proxy = load.Proxy

// HEP3 chunk types of the packets of package load.
const (
	chunkProto   = 2
	chunkSrc     = 3
	chunkDst     = 4
	chunkSrcPort = 7
	chunkDstPort = 8
	chunkSec     = 9
	chunkUsec    = 10
	chunkPayload = 15
)

// traffic makes any number of messages out of few: each time round, the
// Call-IDs are other ones.
type traffic struct{ templates []*template }

// template is one message, changed in place for each use.
type template struct {
	packet    []byte // HEP3
	payload   []byte // its SIP message
	callID    []byte // the value in it
	original  string // the same, as it was made
	sec, usec []byte

	// What the row of it has beside callid, msg and time.
	method, status, fromIP, toIP, fromTag, toTag, direction string
}

// width of the Call-IDs; package load writes load-NNNNNN@198.51.100.10.
const width = 25

// newTraffic prepares n different messages of interleaved calls.
func newTraffic(n int) (*traffic, error) {
	t := &traffic{}
	for _, m := range load.Calls(n, time.Unix(1_700_000_000, 0)) {
		p, err := newTemplate(m)
		if err != nil {
			return nil, err
		}
		t.templates = append(t.templates, p)
	}
	return t, nil
}

// prepared is how many different messages the traffic has: enough for 100
// calls, few enough to stay in the processor's cache beside what is measured.
const prepared = 1300

func newTemplate(m load.Message) (*template, error) {
	p := &template{packet: m.Packet, direction: "in"}
	if m.Out {
		p.direction = "out"
	}
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	proto := "udp"
	for at := 6; at < len(p.packet); {
		size := int(binary.BigEndian.Uint16(p.packet[at+4:]))
		body := p.packet[at+6 : at+size]
		switch binary.BigEndian.Uint16(p.packet[at+2:]) {
		case chunkProto:
			if body[0] == load.TLS {
				proto = "tls"
			}
		case chunkSrc:
			src = netip.AddrFrom4([4]byte(body))
		case chunkDst:
			dst = netip.AddrFrom4([4]byte(body))
		case chunkSrcPort:
			srcPort = binary.BigEndian.Uint16(body)
		case chunkDstPort:
			dstPort = binary.BigEndian.Uint16(body)
		case chunkSec:
			p.sec = body
		case chunkUsec:
			p.usec = body
		case chunkPayload:
			p.payload = body
		}
		at += size
	}
	p.fromIP = fmt.Sprintf("%s:%v", proto, netip.AddrPortFrom(src, srcPort))
	p.toIP = fmt.Sprintf("%s:%v", proto, netip.AddrPortFrom(dst, dstPort))
	start := bytes.Index(p.payload, []byte("\r\nCall-ID: "))
	if start < 0 || p.sec == nil || p.usec == nil {
		return nil, fmt.Errorf("message without Call-ID or time: %q", p.payload)
	}
	rest := p.payload[start+len("\r\nCall-ID: "):]
	if end := bytes.IndexByte(rest, '\r'); end != width {
		return nil, fmt.Errorf("Call-ID of %d bytes, want %d", end, width)
	}
	p.callID = rest[:width:width]
	p.original = string(p.callID)
	text := string(p.payload)
	first, _, _ := strings.Cut(text, " ")
	p.method = first
	if strings.HasPrefix(first, "SIP/2.0") {
		p.status = strings.Fields(text)[1]
		_, p.method, _ = strings.Cut(header(text, "CSeq"), " ")
	}
	p.fromTag, p.toTag = tag(header(text, "From")), tag(header(text, "To"))
	return p, nil
}

func header(message, name string) string {
	_, rest, _ := strings.Cut(message, "\r\n"+name+": ")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

func tag(value string) string {
	_, rest, _ := strings.Cut(value, ";tag=")
	tag, _, _ := strings.Cut(rest, ";")
	return tag
}

// at is message i, from 0, with the time at which it is sent. It is valid until
// as many more messages were asked for as the traffic has.
func (t *traffic) at(i int, now time.Time) *template {
	p := t.templates[i%len(t.templates)]
	p.stamp(now)
	copy(p.callID, p.original) // a probe may have been here
	digits(p.callID[:len("load")], i/len(t.templates))
	return p
}

func (p *template) stamp(now time.Time) {
	binary.BigEndian.PutUint32(p.sec, uint32(now.Unix()))
	binary.BigEndian.PutUint32(p.usec, uint32(now.Nanosecond()/1000))
}

// A probe is a message whose Call-ID says when it was sent: pNNNNNNNN-MICROSECONDS,
// the number of the probe and the time since an agreed moment. Call-IDs of
// probes sort behind all others, and in the order in which they are sent.
const probePrefix = "p"

func (p *template) probe(number int, since time.Duration) {
	p.callID[0] = probePrefix[0]
	digits(p.callID[1:9], number)
	p.callID[9] = '-'
	digits(p.callID[10:], int(since.Microseconds()))
}

// parseProbe reads the Call-ID of a probe.
func parseProbe(callID string) (number int, since time.Duration, err error) {
	first, second, _ := strings.Cut(strings.TrimPrefix(callID, probePrefix), "-")
	number, err1 := strconv.Atoi(first)
	us, err2 := strconv.ParseInt(second, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("Call-ID %q is not that of a probe: %w", callID, err)
	}
	return number, time.Duration(us) * time.Microsecond, nil
}

// digits writes n in decimal, with leading zeros; what does not fit is cut at
// the front.
func digits(dst []byte, n int) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = '0' + byte(n%10)
		n /= 10
	}
}

// keepAlive is a HEP3 packet without payload. Over a stream, siptraced sends it
// back when everything before it is in the spool.
func keepAlive(number uint32) []byte {
	p := append(make([]byte, 0, 16), "HEP3\x00\x10\x00\x00\x00\x0c\x00\x0a"...)
	return binary.BigEndian.AppendUint32(p, number) // chunk 12, the capture id
}
