package hep_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"siptraced/hep"
)

// What decodes can be appended and decodes to the same; appending that again
// gives the same bytes.
func FuzzDecode(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b)
	}
	f.Add(hep3(chunk(0, 16, string(deflate(f, "zlib", 100)))))
	f.Add(hep3(chunk(0, 16, string(deflate(f, "gzip", 100)))))
	f.Add(hep3(chunk(0, 3, "\xc0\x00\x02\x01"), chunk(0, 6, string(b6.Addr().AsSlice())), chunk(1, 1, "v"), chunk(0, 19, "n")))
	f.Add(append(hep3(chunk(0, 15, "x"), chunk(0, 13, "\x00\x05"), chunk(0, 18, "\x00\x07")), "rest"...))
	reused := &hep.Packet{}
	f.Fuzz(func(t *testing.T, in []byte) {
		first, second := &hep.Packet{}, &hep.Packet{}
		err, again := first.Decode(in), reused.Decode(in)
		if hep.Cause(err) != hep.Cause(again) {
			t.Fatalf("fresh packet: %v, used one: %v", err, again)
		}
		if err != nil && hep.Cause(err) == "" {
			t.Fatalf("error without cause: %#v", err)
		}
		if err != nil && !errors.Is(err, hep.ErrTrailing) {
			return
		}
		if !equal(first, reused) {
			t.Fatalf("used packet\n got %+v\nwant %+v", reused, first)
		}
		if first.Version != hep.Detect(in) {
			t.Fatalf("Version = %d, Detect = %d", first.Version, hep.Detect(in))
		}
		out, err := first.Append(nil)
		if errors.Is(err, hep.ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatalf("Append: %v", err)
		}
		if err := second.Decode(out); err != nil {
			t.Fatalf("second Decode: %v", err)
		}
		out2, err := second.Append(nil)
		if err != nil || !bytes.Equal(out2, out) {
			t.Fatalf("second Append: %v\n got %x\nwant %x", err, out2, out)
		}
		if !equal(first, second) {
			t.Fatalf("\n got %+v\nwant %+v", second, first)
		}
	})
}

// equal compares all but whether the payload came compressed.
func equal(a, b *hep.Packet) bool {
	if len(a.Vendor) != len(b.Vendor) {
		return false
	}
	for i := range a.Vendor {
		if !reflect.DeepEqual(a.Vendor[i], b.Vendor[i]) {
			return false
		}
	}
	bare := func(p *hep.Packet) hep.Packet {
		return hep.Packet{
			Version: p.Version, Proto: p.Proto, Src: p.Src, Dst: p.Dst,
			HasTime: p.HasTime, Sec: p.Sec, Usec: p.Usec,
			Type: p.Type, CaptureID: p.CaptureID, KeepAlive: p.KeepAlive, VLAN: p.VLAN,
			AuthKey: p.AuthKey, Payload: p.Payload, CorrelationID: p.CorrelationID, NodeName: p.NodeName,
		}
	}
	return reflect.DeepEqual(bare(a), bare(b))
}

// A packet that Split finds has its stated length, doesn't depend on what
// follows, and is not found in less.
func FuzzSplit(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b, []byte("HEP3"))
	}
	f.Add([]byte("HEP3\x00\x06"), []byte(nil))
	f.Fuzz(func(t *testing.T, buf, more []byte) {
		n, err := hep.Split(buf)
		if n < 0 || n > len(buf) || n != 0 && n < 6 || n > hep.MaxPacket || err != nil && n != 0 {
			t.Fatalf("Split = %d, %v of %d bytes", n, err, len(buf))
		}
		if n == 0 {
			if err == nil && len(buf) >= hep.MaxPacket {
				t.Fatal("more than the largest packet is asked for")
			}
			return
		}
		if again, err := hep.Split(append(bytes.Clone(buf), more...)); again != n || err != nil {
			t.Fatalf("with more: %d, %v, want %d", again, err, n)
		}
		if less, err := hep.Split(buf[:n-1]); less != 0 || err != nil {
			t.Fatalf("with less: %d, %v", less, err)
		}
		var p hep.Packet
		if err := p.Decode(buf[:n]); errors.Is(err, hep.ErrTrailing) || errors.Is(err, hep.ErrLength) {
			t.Fatalf("Decode: %v", err)
		}
	})
}
