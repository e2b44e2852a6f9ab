package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// returns is how many copies of a text a mirror at from may return before one of
// them is a message of its own.
func returns(t *testing.T, d *loop.Detector, from netip.AddrPort, text []byte) (n int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	defer run.Wait()
	defer stop()
	handle := func(*ingest.Packet) {}
	run.Go(func() { d.Run(ctx, handle) })
	asked := make(chan []byte, 1)
	in := &ingest.Packet{Data: text, Time: time.Now(), Source: from, Ask: func(_ netip.AddrPort, q []byte) error {
		select {
		case asked <- append([]byte(nil), q...):
		default:
		}
		return nil
	}}
	if v := d.Check(in, text, nil); v != loop.Parked {
		t.Fatalf("%q from somebody unknown: verdict %d, want it to be parked", text, v)
	}
	if !d.Answered(from, <-asked, time.Now(), handle) {
		t.Fatal("the answer is not known")
	}
	in.Ask = nil
	for d.Check(in, text, nil) == loop.Returned {
		n++
	}
	return n
}

// Each record is noted once, with the copies of all destinations that send it with
// a path, whichever comes first; a batch that is sent again counts again.
func TestNotes(t *testing.T) {
	loops := loop.New(loop.NewID(), "", counters.New(), slog.New(slog.DiscardHandler))
	m := &Mirrors{}
	for _, d := range []Destination{
		{Static: true, Protocol: HEP3},
		{Static: true, Protocol: HEP3},
		{Static: true, Protocol: HEP3},
		{Static: true, Protocol: HEP1},
		{Static: true, Protocol: SIP},
		{Duplicate: true, Version: 3},
	} {
		s := &sink{m: m}
		s.settings.Store(&d)
		s.sender = &sender{sink: s, begun: make([]uint64, 2), encoder: encoder{loops: loops, dst: &d}}
		m.sinks = append(m.sinks, s)
	}
	routes := []siptrace.Route{
		{Sinks: siptrace.ToListed},
		{Sinks: siptrace.ToHEP},
		{Sinks: siptrace.ToListed | siptrace.ToHEP},
		{Sinks: siptrace.ToHEP, Destinations: []string{"sip:192.0.2.1", "sip:192.0.2.2"}},
	}
	send := func(s *sink, b *spool.Batch) {
		e := &s.sender.encoder
		e.batch = s.sender.noted(b)
		for e.index = range b.Records {
			i := e.index % len(routes)
			e.note(&siptrace.Record{Msg: fmt.Appendf(nil, "%d %d %d", b.Shard, b.Seq, e.index), Route: routes[i]}, true)
		}
	}
	at := func(shard int, seq uint64) *spool.Batch { return &spool.Batch{Shard: shard, Seq: seq, Records: 40} }
	for _, s := range m.sinks[:3] {
		send(s, at(0, 7))
		send(s, at(1, 7))
	}
	send(m.sinks[0], at(1, 7)) // over another connection
	send(m.sinks[0], at(0, 7+maxNoted))
	send(m.sinks[1], at(0, 7+maxNoted))
	late := &sink{m: m, sender: &sender{begun: make([]uint64, 2), encoder: encoder{loops: loops}}}
	late.sender.sink = late
	send(late, at(0, 7)) // far behind
	for i, tt := range []struct {
		text string
		want int
	}{
		{"0 7 0", 3 + 1},
		{"0 7 1", 1 + 1},
		{"0 7 2", 4 + 1},
		{"0 7 3", 2 + 1},
		{"0 7 39", 2 + 1},
		{"1 7 0", 3 + 1},
		{"1 7 36", 3 + 1},
		{fmt.Sprintf("0 %d 0", 7+maxNoted), 3},
	} {
		from := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), uint16(1000+i))
		if got := returns(t, loops, from, []byte(tt.text)); got != tt.want {
			t.Errorf("%s: %d copies, want %d", tt.text, got, tt.want)
		}
	}
}
