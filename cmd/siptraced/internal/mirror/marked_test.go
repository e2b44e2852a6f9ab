package mirror

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// The copies that will have a path are those of the destinations that a record is
// for and that speak HEP3.
func TestMarkedCopies(t *testing.T) {
	for _, tt := range []struct {
		name string
		rec  siptrace.Record
		want int
	}{
		{"listed", siptrace.Record{Route: siptrace.Route{Sinks: siptrace.ToListed}}, 2},
		{"duplicate_uri", siptrace.Record{Route: siptrace.Route{Sinks: siptrace.ToHEP}}, 1},
		{"both", siptrace.Record{Route: siptrace.Route{Sinks: siptrace.ToListed | siptrace.ToHEP}}, 3},
		{"by a rule", siptrace.Record{Route: siptrace.Route{Sinks: siptrace.ToHEP, Destinations: []string{"sip:192.0.2.1", "sip:192.0.2.2"}}}, 2},
		{"as SIP", siptrace.Record{Route: siptrace.Route{Sinks: siptrace.ToSIP}}, 0},
		{"stored alone", siptrace.Record{Route: siptrace.Route{Sinks: siptrace.ToStore}}, 0},
		{"a log line", siptrace.Record{Type: siptrace.TypeLog, Route: siptrace.Route{Sinks: siptrace.ToListed}}, 0},
		{"RTCP", siptrace.Record{Packet: []byte("x"), Route: siptrace.Route{Sinks: siptrace.ToListed}}, 0},
	} {
		m := &Mirrors{spool: &spool.Spool{}}
		for _, d := range []Destination{
			{Static: true, Protocol: HEP3},
			{Static: true, Protocol: HEP3},
			{Static: true, Protocol: HEP1},
			{Static: true, Protocol: SIP},
			{Duplicate: true, Version: 3},
			{Duplicate: true, Version: 2},
			{Static: true, Protocol: HEP3, Name: "retired"},
		} {
			s := &sink{m: m}
			d.Transport = siptrace.UDP
			s.settings.Store(&d)
			if d.Name == "retired" {
				s.used.Store(retired)
			}
			m.sinks = append(m.sinks, s)
		}
		m.countMarking()
		if got := m.MarkedCopies(&tt.rec); got != tt.want {
			t.Errorf("%s: %d copies, want %d", tt.name, got, tt.want)
		}
	}
}

// What the intake could not count is noted when it is sent: a batch that is sent
// again, one that others took in, and one of before the destination spoke HEP3.
func TestUncounted(t *testing.T) {
	before, since := &Destination{}, &Destination{marks: time.Now()}
	w := &sender{begun: make([]uint64, 2)}
	for i, tt := range []struct {
		dst   *Destination
		batch spool.Batch // taken long ago
		want  bool
	}{
		{before, spool.Batch{Seq: 1}, false},
		{before, spool.Batch{Seq: 2}, false},
		{before, spool.Batch{Seq: 1}, true},
		{before, spool.Batch{Seq: 2}, true},
		{before, spool.Batch{Seq: 1, Shard: 1}, false},
		{before, spool.Batch{Seq: 3, Contended: true}, true},
		{before, spool.Batch{Seq: 4}, false},
		{since, spool.Batch{Seq: 5}, true},
	} {
		w.encoder.dst = tt.dst
		if got := w.uncounted(&tt.batch); got != tt.want {
			t.Errorf("batch %d: %v, want %v", i, got, tt.want)
		}
	}
	loops := loop.New(loop.NewID(), "", counters.New(), slog.New(slog.DiscardHandler))
	for i, tt := range []struct{ hasPath, uncounted, want bool }{{true, false, false}, {true, true, true}, {false, false, true}} {
		e := &encoder{loops: loops, uncounted: tt.uncounted}
		text := []byte{byte(i)}
		e.note(&siptrace.Record{Msg: text}, tt.hasPath)
		in := &ingest.Packet{Data: text, Time: time.Now(), Source: netip.MustParseAddrPort("192.0.2.9:1"), Ask: func(netip.AddrPort, []byte) error { return nil }}
		if v, _ := loops.Check(in, text, nil); v == loop.Parked != tt.want {
			t.Errorf("%+v: verdict %d", tt, v)
		}
		loops.Answered(in.Source, nil, time.Now(), nil)
	}
}

// A destination is counted since it speaks HEP3, whatever else changes.
func TestMarksSince(t *testing.T) {
	m := &Mirrors{}
	s := &sink{m: m, log: slog.New(slog.DiscardHandler), resolves: func() {}}
	at := func(version int) time.Time {
		s.set(Destination{Version: version, Target: Target{Transport: siptrace.UDP}})
		return s.settings.Load().marks
	}
	first := at(3)
	if again := at(3); !again.Equal(first) {
		t.Error("settings that change nothing begin anew")
	}
	at(2)
	if later := at(3); !later.After(first) {
		t.Error("what was spooled for HEP2 counts as noted")
	}
	s.resolves()
	s.done.Wait()
}
