package hep_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"siptraced/hep"
)

func TestDecodeErrors(t *testing.T) {
	v4 := "\x01\x10\x02\x11\x13\xc4\x13\xd8\xc0\x00\x02\x01\xc0\x00\x02\x02"
	tests := []struct {
		name  string
		in    string
		err   error
		cause string
		text  string
	}{
		{"empty", "", hep.ErrTruncated, "hep_truncated", "hep: packet: length 1, have 0"},
		{"SIP", "OPTIONS sip:a SIP/2.0", hep.ErrVersion, "hep_bad_version", "hep: packet: neither HEP1, HEP2 nor HEP3 (0x4f)"},
		{"version 4", "HEP4\x00\x06", hep.ErrVersion, "hep_bad_version", "hep: packet: neither HEP1, HEP2 nor HEP3 (0x34)"},
		{"old form, version 3", "\x03" + v4[1:], hep.ErrVersion, "hep_bad_version", "hep: packet: neither HEP1, HEP2 nor HEP3 (0x03)"},

		{"HEP1 one byte", "\x01", hep.ErrTruncated, "hep_truncated", "hep: version 1 packet: length 16, have 1"},
		{"HEP2 one byte", "\x02", hep.ErrTruncated, "hep_truncated", "hep: version 2 packet: length 16, have 1"},
		{"HEP1 no family", "\x01\x10", hep.ErrTruncated, "hep_truncated", "hep: version 1 packet: length 16, have 2"},
		{"HEP1 cut in the address", v4[:15], hep.ErrTruncated, "hep_truncated", "hep: version 1 packet: length 16, have 15"},
		{"HEP1 IPv6 cut", "\x01\x28\x0a" + v4[3:], hep.ErrTruncated, "hep_truncated", "hep: version 1 packet: length 40, have 16"},
		{"HEP2 no time", "\x02" + v4[1:], hep.ErrTruncated, "hep_truncated", "hep: version 2 packet: length 28, have 16"},
		{"HEP2 cut in the time", "\x02" + v4[1:] + "12345678901", hep.ErrTruncated, "hep_truncated", "hep: version 2 packet: length 28, have 27"},
		{"HEP1 length of IPv6", "\x01\x28" + v4[2:], hep.ErrLength, "hep_bad_length", "hep: version 1 packet: length 40, want 16"},
		{"HEP1 length 0", "\x01\x00" + v4[2:], hep.ErrLength, "hep_bad_length", "hep: version 1 packet: length 0, want 16"},
		{"HEP2 length counts the time", "\x02\x1c" + v4[2:], hep.ErrLength, "hep_bad_length", "hep: version 2 packet: length 28, want 16"},
		{"HEP1 family 0", "\x01\x10\x00" + v4[3:], hep.ErrFamily, "hep_bad_family", "hep: version 1 packet: address family 0, want 2 or 10"},
		{"HEP2 family 9", "\x02\x10\x09" + v4[3:], hep.ErrFamily, "hep_bad_family", "hep: version 2 packet: address family 9, want 2 or 10"},
		{"HEP1 family and no length 0", "\x01\x00\x00" + v4[3:], hep.ErrFamily, "hep_bad_family", "hep: version 1 packet: address family 0, want 2 or 10"},

		{"HEP3 one byte", "H", hep.ErrTruncated, "hep_truncated", "hep: version 3 packet: length 6, have 1"},
		{"HEP3 no length", "HEP3\x00", hep.ErrTruncated, "hep_truncated", "hep: version 3 packet: length 6, have 5"},
		{"HEP3 length 5", "HEP3\x00\x05", hep.ErrLength, "hep_bad_length", "hep: version 3 packet: length 5, want 6"},
		{"HEP3 longer than the datagram", "HEP3\x03\x84\x00", hep.ErrTruncated, "hep_truncated", "hep: version 3 packet: length 900, have 7"},
		{"HEP3 trailing", string(hep3(chunk(0, 15, "x"))) + "yz", hep.ErrTrailing, "hep_trailing", "hep: version 3 packet: 15 bytes, length 13"},
		{"chunk header cut", string(hep3([]byte("\x00\x00\x00\x0f\x00"))), hep.ErrTruncated, "hep_truncated", "hep: chunk 0x0000 at 6: length 6, have 5"},
		{
			"chunk header cut by the total, not by the datagram", "HEP3\x00\x0b" + string(chunk(0, 15, "x")),
			hep.ErrTruncated, "hep_truncated", "hep: chunk 0x0000 at 6: length 6, have 5",
		},
		{"chunk longer than the packet", string(hep3(chunk(0, 11, "\x01"), []byte("\x00\x00\x00\x0f\x03\x84x"))), hep.ErrTruncated, "hep_truncated", "hep: chunk 0x000f at 13: length 900, have 7"},
		{"vendor chunk longer than the packet", string(hep3([]byte("\x53\x54\x00\x01\x00\x07"))), hep.ErrTruncated, "hep_truncated", "hep: vendor 0x5354 chunk 0x0001 at 6: length 7, have 6"},
		{"chunk length 5", string(hep3([]byte("\x00\x00\x00\x0f\x00\x05x"))), hep.ErrChunk, "hep_bad_chunk", "hep: chunk 0x000f at 6: length 5, want 6"},
		{"chunk length 0", string(hep3([]byte("\x00\x00\x00\x63\x00\x00"))), hep.ErrChunk, "hep_bad_chunk", "hep: chunk 0x0063 at 6: length 0, want 6"},
		{"address without value", string(hep3(chunk(0, 3, ""))), hep.ErrChunk, "hep_bad_chunk", "hep: chunk 0x0003 at 6: length 6, want 10"},
		{"IPv6 in an IPv4 chunk", string(hep3(chunk(0, 4, "0123456789abcdef"))), hep.ErrChunk, "hep_bad_chunk", "hep: chunk 0x0004 at 6: length 22, want 10"},
		{"IPv4 in an IPv6 chunk", string(hep3(chunk(0, 6, "0123"))), hep.ErrChunk, "hep_bad_chunk", "hep: chunk 0x0006 at 6: length 10, want 22"},
		{"not compressed", string(hep3(chunk(0, 16, "plain"))), hep.ErrInflate, "hep_inflate", "hep: chunk 0x0010 at 6: inflating 5 bytes: zlib: invalid header"},
		{"compressed, empty", string(hep3(chunk(0, 16, ""))), hep.ErrInflate, "hep_inflate", "hep: chunk 0x0010 at 6: inflating 0 bytes: unexpected EOF"},
		{"gzip cut", string(hep3(chunk(0, 16, "\x1f\x8b"))), hep.ErrInflate, "hep_inflate", "hep: chunk 0x0010 at 6: inflating 2 bytes: unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p hep.Packet
			err := p.Decode([]byte(tt.in))
			checkError(t, err, tt.err, tt.cause, tt.text)
		})
	}
}

func checkError(t *testing.T, err, want error, cause, text string) {
	t.Helper()
	if e, ok := errors.AsType[*hep.Error](err); !ok || e.Error() != text {
		t.Errorf("got error %v, want %s", err, text)
	}
	if !errors.Is(err, want) {
		t.Errorf("error is not %v", want)
	}
	if got := hep.Cause(fmt.Errorf("listener: %w", err)); got != cause {
		t.Errorf("Cause = %q, want %q", got, cause)
	}
}

// Every chunk of fixed size, one byte short and one byte long.
func TestChunkSizes(t *testing.T) {
	sizes := map[uint16]int{1: 1, 2: 1, 3: 4, 4: 4, 5: 16, 6: 16, 7: 2, 8: 2, 9: 4, 10: 4, 11: 1, 12: 4, 13: 2, 18: 2}
	var p hep.Packet
	for typ, size := range sizes {
		for _, n := range []int{size - 1, size, size + 1} {
			err := p.Decode(hep3(chunk(0, typ, strings.Repeat("\x01", n))))
			if n == size && err != nil || n != size && !errors.Is(err, hep.ErrChunk) {
				t.Errorf("chunk %d of %d bytes: %v", typ, n, err)
			}
		}
	}
}

// A packet cut anywhere is refused.
func TestCutAnywhere(t *testing.T) {
	var p hep.Packet
	for _, name := range []string{"hep3-auth/1", "hlog/3", "hep3-ipv6-script/1"} {
		in := captured(t)[name]
		for n := range in {
			if err := p.Decode(in[:n]); !errors.Is(err, hep.ErrTruncated) {
				t.Fatalf("%s cut to %d: %v", name, n, err)
			}
		}
	}
}

// After ErrTrailing the packet is complete.
func TestTrailingIsDecoded(t *testing.T) {
	var p hep.Packet
	err := p.Decode(append(hep3(chunk(0, 15, "x"), chunk(0, 7, "\x13\xc4")), "rest"...))
	if !errors.Is(err, hep.ErrTrailing) || string(p.Payload) != "x" || p.Src.Port() != 5060 {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestAppendErrors(t *testing.T) {
	room := hep.MaxPacket - len(mustAppend(t, hep.Packet{Version: 3, Payload: []byte{}}))
	tests := []struct {
		name  string
		in    hep.Packet
		err   error
		cause string
		text  string
	}{
		{"no version", hep.Packet{}, hep.ErrVersion, "hep_bad_version", "hep: packet: neither HEP1, HEP2 nor HEP3 (0x00)"},
		{"HEP1 no source", hep.Packet{Version: 1, Dst: b4}, hep.ErrNoAddress, "hep_no_address", "hep: version 1 packet: source or destination without address"},
		{"HEP2 no destination", hep.Packet{Version: 2, Src: a6}, hep.ErrNoAddress, "hep_no_address", "hep: version 2 packet: source or destination without address"},
		{"HEP1 too large", hep.Packet{Version: 1, Src: a4, Dst: b4, Payload: make([]byte, 65520)}, hep.ErrTooLarge, "hep_too_large", "hep: version 1 packet: 65536 bytes, at most 65535"},
		{"HEP3 too large by one", hep.Packet{Version: 3, Payload: make([]byte, room+1)}, hep.ErrTooLarge, "hep_too_large", "hep: version 3 packet: 65536 bytes, at most 65535"},
		{
			"vendor chunk too large",
			hep.Packet{Version: 3, Vendor: []hep.Chunk{{Vendor: 1, Type: 1, Data: make([]byte, 1<<17)}}},
			hep.ErrTooLarge, "hep_too_large", "hep: version 3 packet: 131131 bytes, at most 65535",
		},
		{
			"generic chunk among vendor chunks",
			hep.Packet{Version: 3, Vendor: []hep.Chunk{{Type: 15, Data: []byte("x")}}},
			hep.ErrChunk, "hep_bad_chunk", "hep: chunk 0x000f at 53: has a field of its own in Packet",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.in.Append([]byte("kept"))
			checkError(t, err, tt.err, tt.cause, tt.text)
			if string(got) != "kept" {
				t.Errorf("returned %d bytes", len(got))
			}
		})
	}
	largest := hep.Packet{Version: 3, Payload: make([]byte, room)}
	if b := mustAppend(t, largest); len(b) != hep.MaxPacket || len(mustDecode(t, b).Payload) != room {
		t.Errorf("largest packet has %d bytes", len(b))
	}
}

func TestCauseOfOthers(t *testing.T) {
	for _, err := range []error{nil, io.EOF} {
		if got := hep.Cause(err); got != "" {
			t.Errorf("Cause(%v) = %q", err, got)
		}
	}
}
