package pipeline

import (
	"net/netip"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/hep"
)

// What is known of a sender: since when it sends, how, and how much of it was of no
// use.
func TestSources(t *testing.T) {
	p := New(Rules{Params: traced(), Own: static().Own}, sink{}, counters.New())
	first := time.Unix(1700000000, 0)
	a, b := netip.MustParseAddrPort("192.0.2.7:1000"), netip.MustParseAddrPort("192.0.2.8:1000")
	for i, in := range []ingest.Packet{
		{Net: "udp", Source: a, Data: plain("")},
		{Net: "udp", Source: a, Data: []byte("no SIP at all")},
		{Net: "tcp", Source: b, Data: wrap(t, func(*hep.Packet) {})},
		{Net: "udp", Source: a, Data: wrap(t, func(k *hep.Packet) { k.Version = 2 })},
		{Net: "tcp", Source: b, Data: wrap(t, func(*hep.Packet) {})[:20]},
		{Net: "tcp", Source: b, Data: wrap(t, func(*hep.Packet) {})},
		{Net: "tcp", Source: b, Data: wrap(t, func(*hep.Packet) {})},
	} {
		in.Time = first.Add(time.Duration(i) * time.Second)
		p.Handle(&in)
	}
	want := []Source{
		{Addr: b, Packets: 4, Rejected: 1, Transport: "tcp", Protocol: "hep3", FirstSeen: first.Add(2 * time.Second), LastSeen: first.Add(6 * time.Second)},
		{Addr: a, Packets: 3, Rejected: 1, Transport: "udp", Protocol: "hep2", FirstSeen: first, LastSeen: first.Add(3 * time.Second)},
	}
	got := p.Sources.List()
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i, w := range want {
		if got[i] != w {
			t.Errorf("source %d: got %+v, want %+v", i, got[i], w)
		}
	}
}
