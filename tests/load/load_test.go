package load

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

func TestCalls(t *testing.T) {
	const n = 5000
	at := time.Unix(1795240062, 250_000_000)
	list := Calls(n, at)
	if len(list) != n {
		t.Fatalf("got %d messages, want %d", len(list), n)
	}
	next := make(map[string]int)
	seen := make(map[string]bool)
	size, switches := 0, 0
	for i, m := range list {
		if m.Index != next[m.CallID] {
			t.Errorf("message %d: index %d in %s, want %d", i, m.Index, m.CallID, next[m.CallID])
		}
		next[m.CallID]++
		if seen[m.Payload] {
			t.Errorf("message %d is not the only one of its text", i)
		}
		seen[m.Payload] = true
		size += len(m.Payload)
		if i > 0 && list[i-1].CallID != m.CallID {
			switches++
		}
		if got := int(binary.BigEndian.Uint16(m.Packet[4:])); got != len(m.Packet) {
			t.Errorf("message %d: HEP3 length %d, want %d", i, got, len(m.Packet))
		}
		if !bytes.HasSuffix(m.Packet, []byte(m.Payload)) {
			t.Errorf("message %d: packet does not end in the message", i)
		}
	}
	if mean := size / n; mean < 800 || mean > 1000 {
		t.Errorf("mean size: got %d bytes, want about 900", mean)
	}
	if switches < n/2 {
		t.Errorf("calls are hardly interleaved: %d changes of call in %d messages", switches, n)
	}
	for i, m := range Calls(n, at) {
		if !bytes.Equal(m.Packet, list[i].Packet) {
			t.Fatalf("message %d differs the second time", i)
		}
	}
}
