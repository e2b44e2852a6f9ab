package hep_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"siptraced/hep"
)

// captured returns packets of a real Kamailio by name.
func captured(tb testing.TB) map[string][]byte {
	tb.Helper()
	text, err := os.ReadFile("testdata/packets.txt")
	if err != nil {
		tb.Fatal(err)
	}
	packets := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) == 0 {
			tb.Fatalf("packets.txt: %s: %v", name, err)
		}
		packets[name] = b
	}
	return packets
}

// chunk is one HEP3 chunk.
func chunk(vendor, typ uint16, value string) []byte {
	b := binary.BigEndian.AppendUint16(nil, vendor)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(6+len(value)))
	return append(b, value...)
}

// hep3 is a HEP3 packet of chunks, which may be broken ones.
func hep3(chunks ...[]byte) []byte {
	body := bytes.Join(chunks, nil)
	b := binary.BigEndian.AppendUint16([]byte("HEP3"), uint16(6+len(body)))
	return append(b, body...)
}

func mustAppend(tb testing.TB, p hep.Packet) []byte {
	tb.Helper()
	b, err := p.Append(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func mustDecode(tb testing.TB, b []byte) *hep.Packet {
	tb.Helper()
	p := &hep.Packet{}
	if err := p.Decode(b); err != nil {
		tb.Fatal(err)
	}
	return p
}

var (
	a4 = netip.MustParseAddrPort("192.0.2.1:5060")
	b4 = netip.MustParseAddrPort("192.0.2.2:5080")
	a6 = netip.MustParseAddrPort("[2001:db8::1]:5060")
	b6 = netip.MustParseAddrPort("[2001:db8::2]:5080")
)

// Append(Decode(x)) is x for whatever Kamailio sends.
func TestCaptured(t *testing.T) {
	var p hep.Packet // one for all, as in use
	for name, in := range captured(t) {
		if err := p.Decode(in); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := hep.Detect(in); got != p.Version {
			t.Errorf("%s: Detect = %d, Version = %d", name, got, p.Version)
		}
		got, err := p.Append([]byte("kept"))
		if err != nil || !bytes.Equal(got, append([]byte("kept"), in...)) {
			t.Errorf("%s: Append(Decode)\n got %x, %v\nwant %x", name, got, err, in)
		}
	}
}

func TestCapturedFields(t *testing.T) {
	loopback := func(port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	}
	loopback6 := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv6Loopback(), port) }
	packets := captured(t)
	tests := []struct {
		name string
		want hep.Packet // Payload: only its start
	}{
		{"edge-hep1/1", hep.Packet{
			Version: 1, Proto: hep.UDP, Type: hep.TypeSIP, Src: loopback(15110), Dst: loopback(15060),
			Payload: []byte("OPTIONS sip:"),
		}},
		{"hep2-capture-id-300/1", hep.Packet{
			Version: 2, Proto: hep.UDP, Type: hep.TypeSIP, Src: loopback(15110), Dst: loopback(15060),
			HasTime: true, CaptureID: 300, Payload: []byte("REGISTER sip:"),
		}},
		{"hep2-capture-id-70001/1", hep.Packet{
			Version: 2, Proto: hep.UDP, Type: hep.TypeSIP, Src: loopback(15110), Dst: loopback(15060),
			HasTime: true, CaptureID: 70001 & 0xffff, Payload: []byte("REGISTER sip:"),
		}},
		{"hep2-ipv6/1", hep.Packet{
			Version: 2, Proto: hep.UDP, Type: hep.TypeSIP, Src: loopback6(15110), Dst: loopback6(15060),
			HasTime: true, CaptureID: 1, Payload: []byte("REGISTER sip:"),
		}},
		{"hep3-auth/1", hep.Packet{
			Version: 3, Proto: hep.UDP, Type: hep.TypeSIP, Src: loopback(15110), Dst: loopback(15060),
			HasTime: true, CaptureID: 70001, Payload: []byte("REGISTER sip:"), AuthKey: []byte("s3cr3t-auth-key"),
		}},
		{"sip-trace-msg-v614/2", hep.Packet{
			Version: 3, Proto: hep.UDP, Type: hep.TypeSIP,
			Src: netip.MustParseAddrPort("[2001:db8::1]:5060"), Dst: netip.MustParseAddrPort("[2001:db8::2]:5070"),
			HasTime: true, CaptureID: 9, Payload: []byte("free text, not SIP"),
		}},
		{"hlog/3", hep.Packet{ // an empty correlation id, present
			Version: 3, Proto: hep.UDP, Type: hep.TypeLog, Src: loopback(15060), Dst: loopback(15090),
			HasTime: true, CaptureID: 2001, Payload: []byte("empty correlation id"), CorrelationID: []byte{},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := packets[tt.name]
			got := mustDecode(t, in)
			if got.HasTime && (got.Sec < 1795000000 || got.Sec > 1796000000 || got.Usec > 999999) {
				t.Errorf("time %d.%d", got.Sec, got.Usec)
			}
			if !bytes.HasPrefix(got.Payload, tt.want.Payload) || !bytes.HasSuffix(in, got.Payload) {
				t.Errorf("payload %q", got.Payload)
			}
			got.Sec, got.Usec, got.Payload = 0, 0, tt.want.Payload
			if !reflect.DeepEqual(got, &tt.want) {
				t.Errorf("\n got %+v\nwant %+v", got, &tt.want)
			}
		})
	}
}

func TestDetect(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want int
	}{
		{"HEP1 IPv4", "\x01\x10\x02\x11", 1},
		{"HEP1 IPv6", "\x01\x28\x0a\x11", 1},
		{"HEP2 IPv4, three bytes", "\x02\x10\x02", 2},
		{"HEP2 IPv6 of FreeBSD", "\x02\x28\x1c\x11", 2},
		{"HEP3", "HEP3", 3},
		{"empty", "", 0},
		{"one byte", "\x01", 0},
		{"two bytes", "\x02\x10", 0},
		{"HEP3 cut", "HEP", 0},
		{"length of the other family", "\x01\x28\x02\x11", 0},
		{"unknown family, no length", "\x01\x00\x00\x11", 0},
		{"version 3 in old form", "\x03\x10\x02\x11", 0},
		{"SIP request", "HELLO sip:a SIP/2.0\r\n", 0},
		{"SIP reply", "SIP/2.0 200 OK\r\n", 0},
		{"STUN binding request", "\x00\x01\x00\x00\x21\x12\xa4\x42", 0},
		{"STUN binding response", "\x01\x01\x02\x10\x21\x12\xa4\x42", 0},
		{"STUN binding error", "\x01\x11\x00\x10\x21\x12\xa4\x42", 0},
		{"keepalive", "\r\n\r\n", 0},
		{"noise", "\x00\x01\x02\x03\x04\x05", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := hep.Detect([]byte(tt.in)); got != tt.want {
				t.Errorf("Detect(%q) = %d, want %d", tt.in, got, tt.want)
			}
		})
	}
}

func TestProtoString(t *testing.T) {
	for p, want := range map[hep.Proto]string{
		hep.UDP: "udp", hep.TCP: "tcp", hep.TLS: "tls", hep.SCTP: "sctp", 47: "47", 0: "0",
	} {
		if got := p.String(); got != want {
			t.Errorf("Proto(%d) = %q, want %q", p, got, want)
		}
	}
}

// Whatever a packet can hold, in each version, comes back.
func TestRoundTrip(t *testing.T) {
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:5060")
	full := hep.Packet{
		Version: 3, Proto: hep.SCTP, Src: a6, Dst: b6, HasTime: true, Sec: 1<<32 - 1, Usec: 1_000_000,
		Type: hep.TypeRTCP, CaptureID: 1<<32 - 1, KeepAlive: 30, VLAN: 4094,
		AuthKey: []byte("key"), Payload: []byte("payload"), CorrelationID: []byte("id"), NodeName: []byte("edge1"),
		Vendor: []hep.Chunk{{Vendor: 0, Type: 0, Data: []byte{}}, {Vendor: 0, Type: 20, Data: []byte("12345678")}, {Vendor: 0x5354, Type: 15, Data: []byte("own")}},
	}
	tests := []struct {
		name     string
		in, want hep.Packet // want: zero Version = like in
	}{
		{"3 full", full, hep.Packet{}},
		{"3 empty", hep.Packet{Version: 3}, hep.Packet{}},
		{"3 empty values", hep.Packet{Version: 3, AuthKey: []byte{}, Payload: []byte{}, CorrelationID: []byte{}, NodeName: []byte{}}, hep.Packet{}},
		{"3 no source", hep.Packet{Version: 3, Dst: b4}, hep.Packet{}},
		{"3 only IPv6 source", hep.Packet{Version: 3, Src: a6}, hep.Packet{}},
		{"3 port without address", hep.Packet{Version: 3, Src: netip.AddrPortFrom(netip.Addr{}, 5060), Dst: b4}, hep.Packet{}},
		{"3 IPv4 to IPv6", hep.Packet{Version: 3, Src: a4, Dst: b6}, hep.Packet{}},
		{"3 mapped", hep.Packet{Version: 3, Src: mapped, Dst: b4}, hep.Packet{Version: 3, Src: a4, Dst: b4}},
		{
			"3 zone lost",
			hep.Packet{Version: 3, Src: netip.MustParseAddrPort("[fe80::1%eth0]:1"), Dst: b6},
			hep.Packet{Version: 3, Src: netip.MustParseAddrPort("[fe80::1]:1"), Dst: b6},
		},
		{"3 no time, microseconds lost", hep.Packet{Version: 3, Usec: 5}, hep.Packet{Version: 3}},
		{"3 never compressed", hep.Packet{Version: 3, Compressed: true, Payload: []byte("x")}, hep.Packet{Version: 3, Payload: []byte("x")}},
		{"1", hep.Packet{Version: 1, Proto: hep.TLS, Src: a4, Dst: b4, Type: hep.TypeSIP, Payload: []byte("x")}, hep.Packet{}},
		{"1 IPv6 to IPv4", hep.Packet{Version: 1, Src: a6, Dst: b4, Type: hep.TypeSIP, Payload: []byte{}}, hep.Packet{}},
		{
			"2 loses what it has no place for",
			hep.Packet{
				Version: 2, Proto: hep.TCP, Src: a4, Dst: b6, HasTime: true, Sec: 5, Usec: 6, Type: hep.TypeLog, CaptureID: 70001,
				AuthKey: []byte("key"), CorrelationID: []byte("id"), VLAN: 1, KeepAlive: 1, Vendor: full.Vendor,
			},
			hep.Packet{
				Version: 2, Proto: hep.TCP, Src: a4, Dst: b6, HasTime: true, Sec: 5, Usec: 6, Type: hep.TypeSIP, CaptureID: 4465,
				Payload: []byte{},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if want.Version == 0 {
				want = tt.in
			}
			if got := mustDecode(t, mustAppend(t, tt.in)); !reflect.DeepEqual(got, &want) {
				t.Errorf("\n got %+v\nwant %+v", got, &want)
			}
		})
	}
}

// HEP1 and HEP2 written with one mapped end, byte for byte.
func TestAppendMixed(t *testing.T) {
	p := hep.Packet{Version: 1, Proto: hep.UDP, Src: a4, Dst: b6, Payload: []byte("x")}
	want := "\x01\x28\x0a\x11" + "\x13\xc4\x13\xd8" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "x"
	if got := mustAppend(t, p); string(got) != want {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

func TestDecode3Chunks(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want hep.Packet
	}{
		{"no chunks", hep3(), hep.Packet{}},
		{
			"any order",
			hep3(chunk(0, 15, "x"), chunk(0, 8, "\x13\xd8"), chunk(0, 4, "\xc0\x00\x02\x02"), chunk(0, 1, "\x02")),
			hep.Packet{Payload: []byte("x"), Dst: b4},
		},
		{
			"mixed families",
			hep3(
				chunk(0, 3, "\xc0\x00\x02\x01"), chunk(0, 7, "\x13\xc4"),
				chunk(0, 6, string(b6.Addr().AsSlice())), chunk(0, 8, "\x13\xd8"),
			),
			hep.Packet{Src: a4, Dst: b6},
		},
		{
			"mapped becomes IPv4",
			hep3(chunk(0, 5, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01"), chunk(0, 7, "\x13\xc4")),
			hep.Packet{Src: a4},
		},
		{
			"repeated: the last counts",
			hep3(
				chunk(0, 15, "first"), chunk(0, 15, "last"), chunk(0, 14, "key"), chunk(0, 14, ""),
				chunk(0, 7, "\x13\xc4"), chunk(0, 5, string(a6.Addr().AsSlice())), chunk(0, 3, "\xc0\x00\x02\x01"),
			),
			hep.Packet{Payload: []byte("last"), AuthKey: []byte{}, Src: a4},
		},
		{"compressed before plain", hep3(chunk(0, 16, "damaged"), chunk(0, 15, "plain")), hep.Packet{Payload: []byte("plain")}},
		{"family is not asked", hep3(chunk(0, 1, "\x63"), chunk(0, 3, "\xc0\x00\x02\x01"), chunk(0, 7, "\x13\xc4")), hep.Packet{Src: a4}},
		{"microseconds alone", hep3(chunk(0, 10, "\x00\x00\x00\x05")), hep.Packet{}},
		{"seconds alone", hep3(chunk(0, 9, "\x00\x00\x00\x00")), hep.Packet{HasTime: true}},
		{
			"vendor and unknown kept",
			hep3(chunk(1, 1, "long enough"), chunk(0, 15, "x"), chunk(0, 0x20, ""), chunk(0xffff, 0xffff, "y")),
			hep.Packet{Payload: []byte("x"), Vendor: []hep.Chunk{
				{Vendor: 1, Type: 1, Data: []byte("long enough")},
				{Vendor: 0, Type: 0x20, Data: []byte{}},
				{Vendor: 0xffff, Type: 0xffff, Data: []byte("y")},
			}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Version = 3
			if got := mustDecode(t, tt.in); !reflect.DeepEqual(got, &tt.want) {
				t.Errorf("\n got %+v\nwant %+v", got, &tt.want)
			}
		})
	}
}

// Nothing of one packet shows in the next.
func TestDecodeReset(t *testing.T) {
	full := hep.Packet{
		Version: 3, Proto: hep.TCP, Src: a4, Dst: b4, HasTime: true, Sec: 1, Usec: 2, Type: 1, CaptureID: 3,
		KeepAlive: 4, VLAN: 5, AuthKey: []byte("a"), Payload: []byte("b"), CorrelationID: []byte("c"), NodeName: []byte("d"),
		Vendor: []hep.Chunk{{Vendor: 1, Type: 1, Data: []byte("e")}},
	}
	p := mustDecode(t, mustAppend(t, full))
	if err := p.Decode(hep3()); err != nil {
		t.Fatal(err)
	}
	if want := (&hep.Packet{Version: 3, Vendor: []hep.Chunk{}}); !reflect.DeepEqual(p, want) {
		t.Errorf("got %+v", p)
	}
}

// What is appended to a decoded field must not run into the next chunk.
func TestDecodeAliases(t *testing.T) {
	in := hep3(chunk(0, 17, "id"), chunk(1, 1, "v"), chunk(0, 15, "x"))
	before := bytes.Clone(in)
	p := mustDecode(t, in)
	if &p.Payload[0] != &in[len(in)-1] {
		t.Error("payload was copied")
	}
	_ = append(p.CorrelationID, "overwritten"...)
	_ = append(p.Vendor[0].Data, "overwritten"...)
	if !bytes.Equal(in, before) {
		t.Errorf("input changed: %q", in)
	}
}

func TestNoAllocs(t *testing.T) {
	packets := captured(t)
	tests := map[string][]byte{
		"1": packets["edge-hep1/1"], "2": packets["edge-hep2/1"], "2 IPv6": packets["hep2-ipv6/1"],
		"3": packets["hep3-auth/1"], "3 IPv6": packets["hep3-ipv6-script/1"],
		"3 vendor": hep3(chunk(1, 1, "a"), chunk(1, 2, "b"), chunk(0, 20, "c"), chunk(0, 15, "x")),
		"3 gzip":   hep3(chunk(0, 16, string(deflate(t, "gzip", 1000)))),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			p := mustDecode(t, in)
			out := make([]byte, 0, 2048)
			if n := testing.AllocsPerRun(100, func() {
				if err := p.Decode(in); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("Decode: %v allocations", n)
			}
			if n := testing.AllocsPerRun(100, func() {
				if _, err := p.Append(out); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("Append: %v allocations", n)
			}
		})
	}
}
