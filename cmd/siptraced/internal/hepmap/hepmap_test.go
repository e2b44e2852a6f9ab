package hepmap_test

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

func TestTransports(t *testing.T) {
	for _, tt := range []struct {
		transport siptrace.Proto
		number    hep.Proto
		exact     bool
	}{
		{siptrace.UDP, 17, true},
		{siptrace.TCP, 6, true},
		{siptrace.TLS, 22, true},
		{siptrace.SCTP, 132, true},
		{siptrace.WS, 22, false},
		{siptrace.WSS, 22, false},
		{siptrace.Any, 17, false},
		{"", 17, false},
	} {
		n, exact := hepmap.Proto(tt.transport)
		if n != tt.number || exact != tt.exact {
			t.Errorf("Proto(%q) = %d, %v, want %d, %v", tt.transport, n, exact, tt.number, tt.exact)
		}
		if got := hepmap.Transport(n); exact && got != tt.transport {
			t.Errorf("Transport(%d) = %q, want %q", n, got, tt.transport)
		}
	}
	if got := hepmap.Transport(1); got != siptrace.Any {
		t.Errorf("Transport(1) = %q", got)
	}
}

func TestTime(t *testing.T) {
	for _, tt := range []struct {
		sec       int64
		want, sub uint32
	}{{1700000000, 1700000000, 42}, {math.MaxUint32, math.MaxUint32, 42}, {math.MaxUint32 + 1, math.MaxUint32, 42}, {253402214399, math.MaxUint32, 42}, {-1, 0, 42}} {
		if sec, usec := hepmap.Time(time.Unix(tt.sec, 42000)); sec != tt.want || usec != tt.sub {
			t.Errorf("%d: got %d, %d, want %d, %d", tt.sec, sec, usec, tt.want, tt.sub)
		}
	}
}

// Chunks of others come back as they were, those of siptraced stay out, and raw
// bytes that are damaged do no harm.
func TestForeign(t *testing.T) {
	others := []hep.Chunk{{Vendor: 3, Type: 1, Data: []byte("three")}, {Vendor: 0, Type: 33, Data: []byte{}}, {Vendor: 65535, Type: 65535, Data: []byte("last")}}
	raw := hepmap.AppendForeign(nil, append([]hep.Chunk{{Vendor: hepmap.Vendor, Type: 1, Data: []byte("own")}}, others...))
	if got := hepmap.Chunks(nil, raw); !reflect.DeepEqual(got, others) {
		t.Errorf("got %v, want %v", got, others)
	}
	for n := range raw {
		if got := hepmap.Chunks(nil, raw[:n]); len(got) >= len(others) {
			t.Errorf("%d of %d bytes: got %v", n, len(raw), got)
		}
	}
	if got := hepmap.Chunks(nil, []byte{0, 1, 0, 1, 0, 5, 0, 0}); got != nil {
		t.Errorf("a length that is too short: got %v", got)
	}
}

// A packet goes on as it came, compressed or not, but for the key and the chunks of siptraced.
func TestAppendForwarded(t *testing.T) {
	packet := func(key string, vendor ...hep.Chunk) []byte {
		p := hep.Packet{Version: 3, Type: 5, NodeName: []byte("n"), Vendor: vendor, Payload: []byte("{}")}
		if key != "" {
			p.AuthKey = []byte(key)
		}
		b, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	own, other := hep.Chunk{Vendor: hepmap.Vendor, Type: 1, Data: []byte("own")}, hep.Chunk{Vendor: 3, Type: 1, Data: []byte("x")}
	key := []byte("ours")
	path := hep.Chunk{Vendor: hepmap.Vendor, Type: hepmap.ChunkPath, Data: []byte("path")}

	out, err := hepmap.AppendForwarded([]byte("kept"), packet("theirs", own, other), nil)
	if want := "kept" + string(packet("", other)); err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	// Where the same key stands for itself, nothing changes.
	if out, err = hepmap.AppendForwarded(nil, packet("ours", other), key); err != nil || string(out) != string(packet("ours", other)) {
		t.Errorf("got %q, %v", out, err)
	}
	var p hep.Packet
	// A packet without a key stays without; what is added stands before the payload.
	out, err = hepmap.AppendForwarded(nil, packet("", other), key, path)
	if i := bytes.Index(out, path.Data); err != nil || i < 0 || i > bytes.LastIndex(out, []byte("{}")) || bytes.Contains(out, key) {
		t.Errorf("got %q, %v", out, err)
	}
	if out, err = hepmap.AppendForwarded(nil, packet("theirs", own, other), key, path); err != nil {
		t.Fatal(err)
	}
	if err := p.Decode(out); err != nil || string(p.AuthKey) != "ours" || !reflect.DeepEqual(p.Vendor, []hep.Chunk{other, path}) || string(p.Payload) != "{}" {
		t.Errorf("got %+v, %v", p, err)
	}
	if out, err = hepmap.AppendForwarded(nil, []byte("HEP3 as it came"), key); err != nil || string(out) != "HEP3 as it came" {
		t.Errorf("no packet: got %q, %v", out, err)
	}
	big := packet("", hep.Chunk{Vendor: 3, Type: 1, Data: make([]byte, 65400)})
	if out, err = hepmap.AppendForwarded([]byte("kept"), big, nil, hep.Chunk{Vendor: hepmap.Vendor, Data: make([]byte, 100)}); string(out) != "kept" || !errors.Is(err, hep.ErrTooLarge) {
		t.Errorf("too large: got %d bytes, %v", len(out), err)
	}
}
