package mirror

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/compat/siptrace"
	"siptraced/hep"
	"siptraced/xheaders"
)

const options = "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=f\r\n" +
	"To: <sip:b@b>\r\nCall-ID: c@h\r\nCSeq: 1 OPTIONS\r\n\r\n"

var (
	a4, b4 = netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("192.0.2.2:5070")
	b6     = netip.MustParseAddrPort("[2001:db8::2]:5070")
)

func sample() siptrace.Record {
	return siptrace.Record{
		Time: time.Unix(1700000000, 42000), CallID: []byte("c@h"), Msg: []byte(options), Method: []byte("OPTIONS"),
		From: siptrace.Endpoint{Proto: siptrace.UDP, Addr: a4}, To: siptrace.Endpoint{Proto: siptrace.UDP, Addr: b4},
		Direction: siptrace.In, Meta: siptrace.Meta{CaptureID: 7}, Route: siptrace.Route{Sinks: siptrace.ToHEP},
	}
}

func encoderOf(protocol Protocol, change func(*Destination)) *encoder {
	d := &Destination{Protocol: protocol, Version: 2, CaptureID: 70001, Time: TimeOriginal}
	d.Transport = siptrace.UDP
	change(d)
	return &encoder{
		dst: d, local: netip.MustParseAddrPort("192.0.2.8:5060"), remote: netip.MustParseAddrPort("192.0.2.9:9060"),
	}
}

// What a record becomes as HEP: all that differs from the record itself.
func TestHEP(t *testing.T) {
	type want struct {
		version  int
		proto    hep.Proto
		src, dst string
		id       uint32
		typ      uint8
		corr     string // "-": none
		key      string
	}
	for _, tt := range []struct {
		name     string
		protocol Protocol
		change   func(*Destination)
		rec      func(*siptrace.Record)
		want     want
	}{
		{name: "hep1", protocol: HEP1, want: want{1, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 0, 1, "-", ""}},
		{name: "hep2 has the low bits", protocol: HEP2, want: want{2, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 4465, 1, "-", ""}},
		{name: "version of the parameters", want: want{2, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 4465, 1, "-", ""}},
		{name: "a stream takes version 3 only", change: func(d *Destination) { d.Transport = siptrace.TCP }, want: want{3, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 70001, 1, "-", ""}},
		{name: "hep3", protocol: HEP3, want: want{3, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 70001, 1, "-", ""}},
		{
			name: "key, correlation id", protocol: HEP3, change: func(d *Destination) { d.AuthKey = []byte("k") },
			rec:  func(r *siptrace.Record) { r.CorrelationID = []byte("c-1") },
			want: want{3, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 70001, 1, "c-1", "k"},
		},
		{name: "incoming id", protocol: HEP3, change: func(d *Destination) { d.Incoming = true }, want: want{3, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 7, 1, "-", ""}},
		{
			name: "no incoming id", protocol: HEP3, change: func(d *Destination) { d.Incoming = true },
			rec: func(r *siptrace.Record) { r.CaptureID = 0 }, want: want{3, hep.UDP, "192.0.2.1:5060", "192.0.2.2:5070", 70001, 1, "-", ""},
		},
		{
			name: "wss goes as tls", protocol: HEP3, rec: func(r *siptrace.Record) { r.From.Proto, r.To.Proto = siptrace.WSS, siptrace.WSS },
			want: want{3, hep.TLS, "192.0.2.1:5060", "192.0.2.2:5070", 70001, 1, "-", ""},
		},
		{name: "mixed ends", protocol: HEP2, rec: func(r *siptrace.Record) { r.To.Addr = b6 }, want: want{2, hep.UDP, "192.0.2.1:5060", "[2001:db8::2]:5070", 4465, 1, "-", ""}},
		{
			name: "address text", protocol: HEP3, rec: func(r *siptrace.Record) {
				r.From, r.To = siptrace.TextEndpoint("udp:10.0.0.1:1"), siptrace.TextEndpoint("tcp:::1:15060")
			},
			want: want{3, hep.TCP, "10.0.0.1:1", "[::1]:15060", 70001, 1, "-", ""},
		},
		{
			name: "unknown ends", protocol: HEP1, rec: func(r *siptrace.Record) { r.From, r.To.Addr = siptrace.TextEndpoint("hello"), netip.AddrPort{} },
			want: want{1, hep.UDP, "255.255.255.255:5060", "255.255.255.255:5060", 0, 1, "-", ""},
		},
		{
			name: "log line", protocol: HEP1, rec: func(r *siptrace.Record) {
				r.Type, r.Msg, r.CorrelationID = siptrace.TypeLog, []byte("text"), []byte{}
			},
			want: want{3, hep.UDP, "192.0.2.8:5060", "192.0.2.9:9060", 70001, 100, "", ""},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change == nil {
				tt.change = func(*Destination) {}
			}
			e, rec := encoderOf(tt.protocol, tt.change), sample()
			if tt.rec != nil {
				tt.rec(&rec)
			}
			out, err := e.appendHEP(nil, &rec)
			if err != nil {
				t.Fatal(err)
			}
			var p hep.Packet
			if err := p.Decode(out); err != nil {
				t.Fatal(err)
			}
			got := want{p.Version, p.Proto, p.Src.String(), p.Dst.String(), p.CaptureID, p.Type, string(p.CorrelationID), string(p.AuthKey)}
			if p.CorrelationID == nil {
				got.corr = "-"
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if !bytes.Equal(p.Payload, rec.Msg) {
				t.Errorf("payload %q", p.Payload)
			}
			if p.Version > 1 && (p.Sec != 1700000000 || p.Usec != 42) {
				t.Errorf("time %d.%06d", p.Sec, p.Usec)
			}
		})
	}
}

func TestHEPAsItCame(t *testing.T) {
	e, rec := encoderOf(HEP1, func(*Destination) {}), siptrace.Record{Type: 5, Packet: []byte("HEP3 as it came")}
	if out, err := e.appendHEP(nil, &rec); err != nil || string(out) != "HEP3 as it came" {
		t.Errorf("got %q, %v", out, err)
	}
}

// What HEP3 said beside the message goes on by HEP3; the sender's key never does.
func TestMetaGoesOn(t *testing.T) {
	other := hep.Chunk{Vendor: 3, Type: 1, Data: []byte("x")}
	path := hep.Chunk{Vendor: hepmap.Vendor, Type: hepmap.ChunkPath, Data: []byte("path")}
	rec := sample()
	rec.NodeName, rec.VLAN, rec.Path, rec.Vendor = []byte("node"), 7, path.Data, hepmap.AppendForeign(nil, []hep.Chunk{other})
	packet, err := (&hep.Packet{Version: 3, Type: 5, AuthKey: []byte("theirs"), NodeName: rec.NodeName, VLAN: 7, Vendor: []hep.Chunk{other}, Payload: []byte("{}")}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	log := rec
	log.Type, log.Packet = 5, packet
	for _, rec := range []siptrace.Record{rec, log} {
		e := encoderOf(HEP3, func(d *Destination) { d.AuthKey = []byte("ours") })
		var p hep.Packet
		for range 2 { // what the encoder reuses must not add up
			out, err := e.appendHEP(nil, &rec)
			if err == nil {
				err = p.Decode(out)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		slices.SortFunc(p.Vendor, func(a, b hep.Chunk) int { return int(a.Vendor) - int(b.Vendor) })
		if string(p.NodeName) != "node" || p.VLAN != 7 || string(p.AuthKey) != "ours" || !reflect.DeepEqual(p.Vendor, []hep.Chunk{other, path}) {
			t.Errorf("type %d: got %+v", rec.Type, p)
		}
		if rec.Packet == nil {
			continue
		}
		out, err := encoderOf(HEP3, func(*Destination) {}).appendHEP(nil, &rec)
		if err != nil || bytes.Contains(out, []byte("theirs")) {
			t.Errorf("without a key of ours: got %q, %v", out, err)
		}
	}
	for _, version := range []Protocol{HEP1, HEP2} {
		if _, err := encoderOf(version, func(*Destination) {}).appendHEP(nil, &rec); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func TestRelayTime(t *testing.T) {
	e, rec := encoderOf(HEP3, func(d *Destination) { d.Time = TimeRelay }), sample()
	before := time.Now().Unix()
	out, err := e.appendHEP(nil, &rec)
	var p hep.Packet
	if err == nil {
		err = p.Decode(out)
	}
	if err != nil || int64(p.Sec) < before {
		t.Errorf("got %d, %v, want at least %d", p.Sec, err, before)
	}
}

func TestSIP(t *testing.T) {
	const set = "X-Siptrace-Fromip: udp:192.0.2.1:5060\r\nX-Siptrace-Toip: udp:[2001:db8::2]:5070\r\nX-Siptrace-Time: 1700000000 42\r\n" +
		"X-Siptrace-Method: OPTIONS\r\nX-Siptrace-Dir: in\r\n"
	marked := func(set string) string { return options[:len(options)-2] + set + "\r\n" }
	other := "X-Siptrace-Fromip: tcp:a:1\r\nX-Siptrace-Toip: tcp:b:2\r\nX-Siptrace-Time: 1 2\r\nX-Siptrace-Method: OPTIONS\r\nX-Siptrace-Dir: out\r\n"
	unknown := "X-Siptrace-Fromip: tcp:a:1\r\nX-Siptrace-Toip: tcp:b:2\r\nX-Siptrace-Time: 0 0\r\nX-Siptrace-Method: \r\nX-Siptrace-Dir: out\r\n"
	for _, tt := range []struct {
		name, msg, want string
		off             bool
	}{
		{name: "off", msg: options, want: options, off: true},
		{name: "headers", msg: options, want: marked(set)},
		{name: "a set from before", msg: marked(other), want: marked(other)},
		{name: "a set of trace_mode 4", msg: marked(unknown), want: marked(set)},
		{name: "half a set", msg: marked("X-Siptrace-Dir: in\r\n"), want: marked(set)},
		{name: "no SIP", msg: "free text", want: "free text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, rec := encoderOf(SIP, func(d *Destination) { d.XHeaders = !tt.off }), sample()
			rec.Msg, rec.To.Addr = []byte(tt.msg), b6
			if got := string(e.appendSIP(nil, &rec)); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// What a record says of the protocol, and what a destination makes of it.
func TestWant(t *testing.T) {
	for _, tt := range []struct {
		protocol Protocol
		sinks    siptrace.Sinks
		typ      uint8
		hep, sip bool
	}{
		{ByRecord, siptrace.ToHEP, 0, true, false},
		{ByRecord, siptrace.ToSIP, 0, false, true},
		{ByRecord, siptrace.ToHEP | siptrace.ToSIP, 0, true, true},
		{ByRecord, siptrace.ToHEP | siptrace.ToSIP, siptrace.TypeLog, true, false},
		{HEP1, siptrace.ToSIP, 0, true, false},
		{SIP, siptrace.ToHEP, 0, false, true},
		{SIP, siptrace.ToHEP, siptrace.TypeLog, false, false},
	} {
		e, rec := encoderOf(tt.protocol, func(*Destination) {}), sample()
		rec.Sinks, rec.Type = tt.sinks, tt.typ
		if h, s := e.want(&rec); h != tt.hep || s != tt.sip {
			t.Errorf("%q %d %d: got %v %v, want %v %v", tt.protocol, tt.sinks, tt.typ, h, s, tt.hep, tt.sip)
		}
	}
}

// What xheaders_write puts in, xheaders_read has to find.
func TestHeadersRoundTrip(t *testing.T) {
	e, rec := encoderOf(SIP, func(d *Destination) { d.XHeaders = true }), sample()
	out := e.appendSIP(nil, &rec)
	var h xheaders.Headers
	if err := xheaders.Read(out, &h); err != nil || !h.Time().Equal(rec.Time) || string(h.FromIP) != rec.From.String() || h.Dir != rec.Direction {
		t.Errorf("got %+v, %v", h, err)
	}
	if plain := xheaders.Cut(nil, out); string(plain) != options {
		t.Errorf("got %q", plain)
	}
}

func TestNoAllocation(t *testing.T) {
	e, rec, buf := encoderOf(HEP3, func(d *Destination) { d.XHeaders = true }), sample(), make([]byte, 0, 4096)
	rec.From = siptrace.TextEndpoint("udp:10.0.0.1:5060")
	rec.NodeName, rec.VLAN, rec.Path = []byte("node"), 7, []byte("path")
	rec.Vendor = hepmap.AppendForeign(nil, []hep.Chunk{{Vendor: 3, Type: 1, Data: []byte("x")}})
	n := testing.AllocsPerRun(100, func() {
		if _, err := e.appendHEP(buf[:0], &rec); err != nil {
			t.Fatal(err)
		}
		e.appendSIP(buf[:0], &rec)
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// HEP3 has the marks by which siptraceds know a packet; one that would be too
// large with them goes without.
func TestMarks(t *testing.T) {
	loops := loop.New(loop.NewID(), "", counters.New(), slog.New(slog.DiscardHandler))
	before := loop.NewID()
	for _, tt := range []struct {
		name     string
		protocol Protocol
		over     siptrace.Proto
		stream   uint64
		size     int
		want     int // chunks
	}{
		{"over UDP", HEP3, siptrace.UDP, 0, 0, 1},
		{"over TCP", HEP3, siptrace.TCP, 7, 0, 2},
		{"HEP2", HEP2, siptrace.UDP, 0, 0, 0},
		{"full packet", HEP3, siptrace.TCP, 7, maxOther, 0},
		{"full packet to a siptraced", HEP3, siptrace.TCP, 7, hep.MaxPacket, 0},
		{"full datagram", HEP3, siptrace.UDP, 0, maxUDP4, 0},
	} {
		rec := sample()
		rec.Path = before.AppendTo(nil, nil)
		e := encoderOf(tt.protocol, func(d *Destination) { d.Transport = tt.over })
		if tt.size > 0 { // as large as it can be without marks
			rec.Path = nil
			out, err := e.appendHEP(nil, &rec)
			if err != nil {
				t.Fatal(err)
			}
			rec.Msg = append(rec.Msg[:len(rec.Msg):len(rec.Msg)], bytes.Repeat([]byte("x"), tt.size-len(out))...)
		}
		e.loops, e.stream, e.number = loops, tt.stream, 42
		e.toSiptraced = tt.size == hep.MaxPacket
		out, err := e.appendHEP(nil, &rec)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var p hep.Packet
		if err := p.Decode(out); err != nil {
			t.Fatal(err)
		}
		want := []hep.Chunk{
			{Vendor: hepmap.Vendor, Type: hepmap.ChunkPath, Data: loops.Path(nil, rec.Path)},
			{Vendor: hepmap.Vendor, Type: hepmap.ChunkOrigin, Data: loop.AppendOrigin(nil, tt.stream, 42)},
		}[:tt.want]
		if !slices.EqualFunc(p.Vendor, want, func(a, b hep.Chunk) bool { return reflect.DeepEqual(a, b) }) || e.marked != (tt.want > 0) || !bytes.Equal(p.Payload, rec.Msg) {
			t.Errorf("%s: marked %v, chunks %v, want %v", tt.name, e.marked, p.Vendor, want)
		}
	}
}

// Over a stream HEP3 goes no further than a datagram would, unless a siptraced
// reads it: heplify-server closes the connection.
func TestLongest(t *testing.T) {
	rtcp := hep.Packet{Version: 3, Type: 5, Payload: []byte{}}
	bare, err := rtcp.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		over        siptrace.Proto
		toSiptraced bool
		notSIP      bool
		size        int
		tooLarge    bool
	}{
		{name: "fits", over: siptrace.TCP, size: 65507},
		{name: "one byte more", over: siptrace.TCP, size: 65508, tooLarge: true},
		{name: "one byte more over TLS", over: siptrace.TLS, size: 65508, tooLarge: true},
		{name: "RTCP fits", over: siptrace.TCP, notSIP: true, size: 65507},
		{name: "RTCP, one byte more", over: siptrace.TCP, notSIP: true, size: 65508, tooLarge: true},
		{name: "to a siptraced", over: siptrace.TCP, toSiptraced: true, size: 65535},
		{name: "RTCP to a siptraced", over: siptrace.TCP, toSiptraced: true, notSIP: true, size: 65535},
		{name: "more than HEP3 has", over: siptrace.TCP, toSiptraced: true, size: 65536, tooLarge: true},
		{name: "over UDP the socket decides", over: siptrace.UDP, size: 65508},
	} {
		e, rec := encoderOf(HEP3, func(d *Destination) { d.Transport = tt.over }), sample()
		out, err := e.appendHEP(nil, &rec)
		if err != nil {
			t.Fatal(err)
		}
		e.toSiptraced = tt.toSiptraced
		if tt.notSIP {
			rtcp.Payload = bytes.Repeat([]byte("x"), tt.size-len(bare))
			if rec.Packet, err = rtcp.Append(nil); err != nil {
				t.Fatal(err)
			}
			rec.Type = 5
		} else {
			rec.Msg = append(rec.Msg[:len(rec.Msg):len(rec.Msg)], bytes.Repeat([]byte("x"), tt.size-len(out))...)
		}
		out, err = e.appendHEP([]byte("before"), &rec)
		if errors.Is(err, hep.ErrTooLarge) != tt.tooLarge || err != nil && !tt.tooLarge {
			t.Errorf("%s: got %v", tt.name, err)
		}
		want := len("before") + tt.size
		if tt.tooLarge {
			want = len("before")
		}
		if len(out) != want {
			t.Errorf("%s: got %d bytes, want %d", tt.name, len(out), want)
		}
	}
}
