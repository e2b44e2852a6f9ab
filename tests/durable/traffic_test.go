package durable

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"testing"
	"time"

	"siptraced/tests/load"
)

// traffic is the endless traffic of one sender: the calls of package load, a
// few dozen at a time, with the sender and the call in the Call-ID, and the
// message's number and the attempt to send it in the User-Agent:
//
//	Call-ID: durable-01-00000042@198.51.100.10
//	User-Agent: number 0000000551 attempt 00003
type traffic struct {
	sender int
	steps  []step // of a call, in order
}

// step is one message of a call, with zeros where the digits go.
type step struct {
	packet                        []byte
	payload                       int // where the message starts
	call, number, attempt, moment int // where the digits and the time start
}

const (
	callIDText = "durable-%02d-%08d@198.51.100.10"
	agentText  = "number %010d attempt %05d"
	// open is how many calls go on at the same time.
	open = 40
)

func newTraffic(tb testing.TB, sender int) *traffic {
	tb.Helper()
	t := &traffic{sender: sender}
	place := func(p []byte, before string) int {
		i := bytes.Index(p, []byte(before))
		if i < 0 || bytes.Count(p, []byte(before)) != 1 {
			tb.Fatalf("traffic: %q is not in the message exactly once: %q", before, p)
		}
		return i + len(before)
	}
	spec := load.Spec{CallID: fmt.Sprintf(callIDText, sender, 0), FromTag: "caller", ToTag: "callee", UserAgent: fmt.Sprintf(agentText, 0, 0)}
	for _, m := range load.Call(spec, time.Unix(0, 0)) {
		t.steps = append(t.steps, step{
			packet:  m.Packet,
			payload: len(m.Packet) - len(m.Payload),
			call:    place(m.Packet, fmt.Sprintf("Call-ID: durable-%02d-", sender)),
			number:  place(m.Packet, "User-Agent: number "),
			attempt: place(m.Packet, " attempt "),
			// Chunk 9, ten bytes long, has the seconds and chunk 10 behind it the
			// microseconds.
			moment: place(m.Packet, "\x00\x00\x00\x09\x00\x0a"),
		})
	}
	return t
}

// call is the call of a message and its place there. Calls go on side by side.
func (t *traffic) call(number int) (call, index int) {
	round := open * len(t.steps)
	within := number % round
	return number/round*open + within%open, within / open
}

// append appends a message as a HEP3 packet.
func (t *traffic) append(dst []byte, number, attempt int, at time.Time) []byte {
	call, index := t.call(number)
	s := &t.steps[index]
	n := len(dst)
	dst = append(dst, s.packet...)
	p := dst[n:]
	digits(p[s.call:s.call+8], call)
	digits(p[s.number:s.number+10], number)
	digits(p[s.attempt:s.attempt+5], attempt)
	binary.BigEndian.PutUint32(p[s.moment:], uint32(at.Unix()))
	binary.BigEndian.PutUint32(p[s.moment+10:], uint32(at.Nanosecond()/1000))
	return dst
}

// message is the SIP message that row number, attempt should hold.
func (t *traffic) message(dst []byte, number, attempt int) []byte {
	_, index := t.call(number)
	return t.append(dst, number, attempt, time.Unix(0, 0))[len(dst)+t.steps[index].payload:]
}

// callID is the Call-ID of a message.
func (t *traffic) callID(number int) string {
	call, _ := t.call(number)
	return fmt.Sprintf(callIDText, t.sender, call)
}

// digits writes a number with leading zeros.
func digits(dst []byte, n int) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
}

// identify reads which message of which sender a text is.
func identify(msg []byte) (sender, number, attempt int, ok bool) {
	field := func(before string, n int) int {
		i := bytes.Index(msg, []byte(before))
		if i < 0 || len(msg) < i+len(before)+n {
			return -1
		}
		v, err := strconv.ParseUint(string(msg[i+len(before):i+len(before)+n]), 10, 63)
		if err != nil {
			return -1
		}
		return int(v)
	}
	sender, number, attempt = field("Call-ID: durable-", 2), field("User-Agent: number ", 10), field(" attempt ", 5)
	return sender, number, attempt, sender >= 0 && number >= 0 && attempt >= 0
}

func TestTraffic(t *testing.T) {
	tr := newTraffic(t, 7)
	next := map[string]int{}
	at := time.Unix(1795240062, 250_000_000)
	for n := range 3 * open * len(tr.steps) {
		p := tr.append(nil, n, 12, at)
		msg := tr.message(nil, n, 12)
		if !bytes.HasSuffix(p, msg) || int(binary.BigEndian.Uint16(p[4:])) != len(p) {
			t.Fatalf("message %d: the packet of %d bytes does not end in the message", n, len(p))
		}
		sender, number, attempt, ok := identify(msg)
		if !ok || sender != 7 || number != n || attempt != 12 {
			t.Fatalf("message %d: identified as sender %d, number %d, attempt %d, %v", n, sender, number, attempt, ok)
		}
		id := tr.callID(n)
		_, index := tr.call(n)
		if !bytes.Contains(msg, []byte("Call-ID: "+id+"\r\n")) || index != next[id] {
			t.Fatalf("message %d: index %d of call %s, want %d", n, index, id, next[id])
		}
		next[id]++
		if got := load.HEP3(load.UDP, load.Proxy, load.Proxy, at, nil); !bytes.Equal(p[62:66], got[62:66]) || !bytes.Equal(p[72:76], got[72:76]) {
			t.Fatalf("message %d: time in the packet: got %x, want %x", n, p[62:76], got[62:76])
		}
	}
	if len(next) != 3*open {
		t.Errorf("calls: got %d, want %d", len(next), 3*open)
	}
	if _, _, _, ok := identify([]byte("OPTIONS sip:a SIP/2.0\r\nCall-ID: durable-1")); ok {
		t.Error("a message of somebody else is identified as ours")
	}
}
