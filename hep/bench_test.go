package hep_test

import (
	"testing"

	"siptraced/hep"
)

func BenchmarkDecode(b *testing.B) {
	packets := captured(b)
	benchmarks := []struct {
		name string
		in   []byte
	}{
		{"v1", packets["edge-hep1/1"]},
		{"v2", packets["hep2-capture-id-300/1"]},
		{"v3", packets["hep3-auth/1"]},
		{"v3-ipv6", packets["hep3-ipv6-script/1"]},
		{"v3-vendor", hep3(packets["hep3-auth/1"][6:], chunk(1, 1, "a"), chunk(1, 2, "b"), chunk(1, 3, "c"))},
		{"v3-zlib", hep3(chunk(0, 16, string(deflate(b, "zlib", 1000))))},
	}
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			var p hep.Packet
			b.ReportAllocs()
			b.SetBytes(int64(len(bm.in)))
			for b.Loop() {
				if err := p.Decode(bm.in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	packets := captured(b)
	for name, in := range map[string][]byte{
		"v1": packets["edge-hep1/1"], "v2": packets["hep2-capture-id-300/1"], "v3": packets["hep3-auth/1"],
	} {
		b.Run(name, func(b *testing.B) {
			p := mustDecode(b, in)
			out := make([]byte, 0, hep.MaxPacket)
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if _, err := p.Append(out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
