package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// fakeMirrors has one socket.
type fakeMirrors struct {
	own     netip.AddrPort
	ensured []string
	marked  int
}

func (f *fakeMirrors) EnsureDestination(uri string)      { f.ensured = append(f.ensured, uri) }
func (f *fakeMirrors) IsOwnSocket(a netip.AddrPort) bool { return a == f.own }
func (f *fakeMirrors) MarkedCopies(*siptrace.Record) int { return f.marked }

// mirroring are the rules of a siptraced with a duplicate_uri.
func mirroring(p siptrace.Params, m Mirrors) Rules {
	p.DuplicateURI = []string{"sip:d"}
	r := rulesOf(p)
	r.Mirrors = m
	return r
}

// What passed this instance is dropped by its path, whatever it is, mirrors or
// none. What a delivery repeats is dropped by its number, unless it was refused.
func TestCameBefore(t *testing.T) {
	c, f, params := counters.New(), &fakeSpool{}, traced()
	params.HEPModeOn = true
	p := New(mirroring(params, &fakeMirrors{}), f, c)
	p.Loops = loop.New(loop.NewID(), "", c, slog.New(slog.DiscardHandler))
	p.Streams = loop.NewStreams()
	other := loop.NewID()
	here, elsewhere := p.Loops.Path(other.AppendTo(nil, nil), nil), other.AppendTo(nil, nil)
	packet := func(typ uint8, path []byte, number uint64) []byte {
		return wrap(t, func(p *hep.Packet) {
			if p.Type = typ; typ != hep.TypeSIP {
				p.Payload = []byte("{}")
			}
			p.Vendor = []hep.Chunk{
				{Vendor: hepmap.Vendor, Type: hepmap.ChunkPath, Data: path},
				{Vendor: hepmap.Vendor, Type: hepmap.ChunkOrigin, Data: loop.AppendOrigin(nil, 1, number)},
			}
		})
	}
	full := errors.New("full")
	for i, tt := range []struct {
		data []byte
		err  error
		want string
	}{
		{packet(hep.TypeSIP, elsewhere, 1), nil, ""},
		{packet(hep.TypeSIP, here, 2), nil, "dropped.loop"},
		{packet(hep.TypeRTCP, here, 3), nil, "dropped.loop"},
		{packet(hep.TypeLog, here, 4), nil, "dropped.loop"},
		{packet(hep.TypeRTCP, elsewhere, 5), nil, ""},
		{packet(hep.TypeSIP, elsewhere, 1), nil, "dropped.repeated"},
		{packet(hep.TypeRTCP, elsewhere, 5), nil, "dropped.repeated"},
		{packet(hep.TypeSIP, elsewhere, 6), full, "rejected.spool"},
		{packet(hep.TypeSIP, elsewhere, 6), nil, ""},
		{packet(hep.TypeSIP, elsewhere, 6), nil, "dropped.repeated"},
	} {
		f.err = tt.err
		before, spooled := c.Snapshot(), len(f.got)
		p.Handle(&ingest.Packet{Data: tt.data, Net: "tcp", Source: netip.MustParseAddrPort("127.0.0.1:1"), Time: time.Now()})
		got := ""
		for _, name := range []string{"dropped.loop", "dropped.repeated", "rejected.spool"} {
			if c.Snapshot()[name] > before[name] {
				got += name
			}
		}
		if got != tt.want || len(f.got)-spooled > 0 != (got == "") {
			t.Errorf("packet %d: counted %q, want %q; %d spooled", i, got, tt.want, len(f.got)-spooled)
		}
	}
}

// After a restart without its mirrors an instance still gets what it sent before,
// and knows it by the path.
func TestCameBeforeWithoutMirrors(t *testing.T) {
	c, f := counters.New(), &fakeSpool{}
	p := New(rulesOf(traced()), f, c)
	p.Loops = loop.New(loop.NewID(), "", c, slog.New(slog.DiscardHandler))
	for _, path := range [][]byte{p.Loops.Path(nil, nil), loop.NewID().AppendTo(nil, nil)} {
		data := wrap(t, func(p *hep.Packet) {
			p.Vendor = []hep.Chunk{{Vendor: hepmap.Vendor, Type: hepmap.ChunkPath, Data: path}}
		})
		p.Handle(&ingest.Packet{Data: data, Net: "tcp", Source: netip.MustParseAddrPort("127.0.0.1:1"), Time: time.Now()})
	}
	if n := c.Snapshot(); n["dropped.loop"] != 1 || len(f.got) != 1 {
		t.Errorf("of the copy that was here before and the one that was not, %d spooled; %v", len(f.got), n)
	}
}

// A sender that mirrors what was mirrored to it is asked, and its copies are
// dropped, those that came before its answer too. Whoever sends the question back
// mirrors everything.
func TestReturned(t *testing.T) {
	siptraced := func(q []byte) []byte { return loop.AppendAnswer(nil, q) }
	for _, tt := range []struct {
		name   string
		marked int // copies that go out by HEP3; 0: two without a path
		answer func(q []byte) []byte
		rows   int
	}{
		{"a siptraced", 0, siptraced, 1},
		{"a siptraced that has it by HEP3", 2, siptraced, 1},
		{"a siptraced that has it by HEP3 once", 1, siptraced, 2},
		{"a reflector", 0, func(q []byte) []byte { return q }, 1},
		{"an agent", 0, func([]byte) []byte { return []byte("\r\n\r\n") }, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, f := counters.New(), &fakeSpool{}
				p := New(mirroring(traced(), &fakeMirrors{marked: tt.marked}), f, c)
				p.Loops = loop.New(loop.NewID(), "", c, slog.New(slog.DiscardHandler))
				ctx, cancel := context.WithCancel(t.Context())
				var done sync.WaitGroup
				done.Go(func() { p.Loops.Run(ctx, p.Resume) })
				text := wrap(t, func(p *hep.Packet) { p.Version = 1 })
				come := func(port uint16, data []byte, ask func(netip.AddrPort, []byte) error) {
					p.Handle(&ingest.Packet{Data: data, Net: "udp", Source: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), Time: time.Now(), Ask: ask})
				}
				come(1, text, nil)
				for range 2 - min(2, 2*tt.marked) {
					p.Loops.Sent(f.got[0].Msg, false)
				}
				answers := 0
				for range 2 {
					come(2, text, func(_ netip.AddrPort, q []byte) error {
						answers++
						come(2, tt.answer(q), nil)
						return nil
					})
				}
				time.Sleep(time.Minute)
				cancel()
				done.Wait()
				n := c.Snapshot()
				if len(f.got) != tt.rows || n["dropped.loop"] != uint64(3-tt.rows) || answers == 0 || n["dropped.keepalive"]+n["dropped.hep_keepalive"] != uint64(answers) {
					t.Errorf("%d spooled, %d answers, %v", len(f.got), answers, n)
				}
			})
		})
	}
}

// A siptraced that sends HEP and SIP over one stream gets its acknowledgement when
// what was parked of it is in the spool; that it asks for one says who it is.
func TestAcknowledgedAreSpooled(t *testing.T) {
	c, f := counters.New(), &fakeSpool{}
	p := New(mirroring(traced(), &fakeMirrors{}), f, c)
	p.Loops = loop.New(loop.NewID(), "", c, slog.New(slog.DiscardHandler))
	stream := &ingest.Packet{Net: "tcp", Source: netip.MustParseAddrPort("127.0.0.1:1"), Time: time.Now()}
	come := func(data []byte, ask bool, reply func([]byte) error) {
		stream.Data, stream.Ask, stream.Reply = data, nil, reply
		if ask {
			stream.Ask = func(netip.AddrPort, []byte) error { return nil }
		}
		p.Handle(stream)
	}
	none := func([]byte) error { t.Error("a reply to what is no question"); return nil }
	returned, fresh := fmt.Appendf(nil, sip, "X: returned\r\n"), fmt.Appendf(nil, sip, "X: new\r\n")
	p.Loops.Sent(returned, false)
	for _, text := range [][]byte{returned, fresh, fresh} {
		come(text, true, none)
	}
	if n := c.Snapshot(); len(f.got) != 0 || n["dropped.loop"] != 0 {
		t.Fatalf("%d spooled, %v: want three packets to be parked", len(f.got), n)
	}
	keepAlive, err := (&hep.Packet{Version: 3, KeepAlive: 1}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	replies := 0
	come(keepAlive, false, func([]byte) error { replies++; return nil })
	if n := c.Snapshot(); replies != 1 || len(f.got) != 2 || n["dropped.loop"] != 1 {
		t.Errorf("%d replies, %d spooled, %v: want both new messages to be in the spool", replies, len(f.got), n)
	}
}

// What the spool did not take is not out: when it comes again, from whomever, it is
// stored, and nobody is asked.
func TestRefusedIsNotOut(t *testing.T) {
	c, f := counters.New(), &fakeSpool{}
	p := New(mirroring(traced(), &fakeMirrors{marked: 3}), f, c)
	p.Loops = loop.New(loop.NewID(), "", c, slog.New(slog.DiscardHandler))
	in := &ingest.Packet{Data: wrap(t, func(*hep.Packet) {}), Net: "udp", Source: netip.MustParseAddrPort("127.0.0.1:1"), Time: time.Now()}
	in.Ask = func(netip.AddrPort, []byte) error { return nil }
	for i, err := range []error{errors.New("full"), errors.New("full"), nil} {
		f.err = err
		p.Handle(in)
		if n := c.Snapshot(); n["rejected.spool"] != uint64(min(i+1, 2)) || len(f.got) != max(0, i-1) {
			t.Errorf("time %d: %d spooled, %v", i, len(f.got), n)
		}
	}
}

// What was parked is told apart as if it had not been: of the two copies of a
// message that the proxy sent to itself, the first goes out and the second comes in.
func TestParkedSpiral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := counters.New(), &fakeSpool{}
		own := netip.MustParseAddrPort("192.0.2.1:5060")
		r := mirroring(traced(), &fakeMirrors{marked: 1})
		r.Own = siptrace.NewSockets([]siptrace.Socket{{Addr: own}}, false)
		p := New(r, f, c)
		p.Loops = loop.New(loop.NewID(), "", c, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { p.Loops.Run(ctx, p.Resume) })
		asked := 0
		for range 2 {
			p.Handle(&ingest.Packet{
				Data: wrap(t, func(p *hep.Packet) { p.Src, p.Dst = own, own }), Net: "udp", Source: own, Time: time.Now(),
				Ask: func(netip.AddrPort, []byte) error { asked++; return nil },
			})
		}
		time.Sleep(time.Minute)
		cancel()
		done.Wait()
		if len(f.got) != 2 || asked == 0 || f.got[0].Direction != siptrace.Out || f.got[1].Direction != siptrace.In {
			t.Errorf("asked %d times, %+v", asked, f.got)
		}
	})
}

// Without a mirror nothing is a loop, whatever the rules are, and however often it
// comes from however many capture points.
func TestNoMirrorNoLoop(t *testing.T) {
	c, f := counters.New(), &fakeSpool{}
	r := rulesOf(traced())
	r.Mirrors, r.NewDecision = &fakeMirrors{}, func() Decision { return decideFunc(passes) }
	p := New(r, f, c)
	p.Loops = loop.New(loop.NewID(), "", c, slog.New(slog.DiscardHandler))
	want := 0
	for _, data := range [][]byte{wrap(t, func(*hep.Packet) {}), wrap(t, func(p *hep.Packet) { p.Version = 1 }), plain("")} {
		for i := range 100 {
			p.Handle(&ingest.Packet{Data: data, Net: "udp", Source: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1+i%3)), Time: time.Now()})
			want++
		}
	}
	if len(f.got) != want {
		t.Errorf("%d spooled of %d, %v", len(f.got), want, c.Snapshot())
	}
}

// A proxy with trace_mode 5 sends each message by HEP and as SIP: it is stored
// once.
func TestPairs(t *testing.T) {
	params := siptrace.DefaultParams()
	params.TraceOn, params.TraceMode = true, siptrace.ModeHEP|siptrace.ModeSIP
	c, f := counters.New(), &fakeSpool{}
	p := New(rulesOf(params), f, c)
	for i, data := range [][]byte{wrap(t, func(*hep.Packet) {}), plain(""), wrap(t, func(p *hep.Packet) { p.Usec++ }), plain(""), plain("X-Other: 1\r\n")} {
		p.Handle(&ingest.Packet{Data: data, Net: "udp", Source: netip.MustParseAddrPort("192.0.2.1:5060"), Time: time.Unix(int64(1800000000+i), 0)})
	}
	if n := c.Snapshot(); n["dropped.duplicate"] != 2 || len(f.got) != 3 {
		t.Errorf("spooled %d, %v", len(f.got), n)
	}
}

// Which sinks a record gets, and who is told of its destinations.
func TestSinks(t *testing.T) {
	for _, tt := range []struct {
		name      string
		set       func(*siptrace.Params)
		duplicate bool
		listed    bool
		rec       siptrace.Record
		want      siptrace.Sinks
		ensured   int
	}{
		{name: "database", want: siptrace.ToStore},
		{name: "SIP duplicate", duplicate: true, want: siptrace.ToStore | siptrace.ToSIP},
		{name: "HEP", set: func(p *siptrace.Params) { p.HEPModeOn = true }, duplicate: true, want: siptrace.ToStore | siptrace.ToHEP},
		{name: "trace_mode 5", set: func(p *siptrace.Params) { p.TraceMode = 5 }, duplicate: true, want: siptrace.ToStore | siptrace.ToHEP | siptrace.ToSIP},
		{name: "listed", listed: true, want: siptrace.ToStore | siptrace.ToListed},
		{name: "listed alone", set: func(p *siptrace.Params) { p.TraceToDatabase = false }, listed: true, want: siptrace.ToListed},
		{name: "named", rec: siptrace.Record{Route: siptrace.Route{Destinations: []string{"sip:x"}}}, want: siptrace.ToStore | siptrace.ToSIP, ensured: 1},
		{name: "named, and a rule's sinks", rec: siptrace.Record{Route: siptrace.Route{Destinations: []string{"sip:x"}, Sinks: siptrace.ToHEP}}, want: siptrace.ToHEP, ensured: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			params := siptrace.DefaultParams()
			if tt.set != nil {
				tt.set(&params)
			}
			m, f := &fakeMirrors{}, &fakeSpool{}
			if tt.duplicate {
				params.DuplicateURI = []string{"sip:d"}
			}
			r := rulesOf(params)
			r.Mirrors, r.Routing = m, params.Routing(siptrace.Mirroring{Static: tt.listed})
			New(r, f, counters.New()).Emit(&tt.rec)
			if len(f.got) != 1 || f.got[0].Sinks != tt.want {
				t.Fatalf("got %+v, want %d", f.got, tt.want)
			}
			if len(m.ensured) != tt.ensured {
				t.Errorf("ensured %q", m.ensured)
			}
		})
	}
}

// A malformed set is counted by its cause, and in the reject file with the
// reason.
func TestRejectFile(t *testing.T) {
	path, c, f := filepath.Join(t.TempDir(), "rejects.jsonl"), counters.New(), &fakeSpool{}
	params := siptrace.DefaultParams()
	params.TraceOn, params.XHeadersRead = true, true
	p := New(rulesOf(params), f, c)
	var err error
	if p.Rejects, err = rejects.Open(path, 0, c, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	data := plain(strings.Replace(xset, "X-Siptrace-Dir: out\r\n", "", 1))
	p.Handle(&ingest.Packet{Data: data, Net: "udp", Source: netip.MustParseAddrPort("192.0.2.1:5060"), Time: time.Unix(1800000000, 0)})
	if err := p.Rejects.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var line rejects.Line
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatal(err)
	}
	if line.Cause != "rejected.xheaders_missing_dir" || line.Reason == "" || line.CallID != "c@h" || !bytes.Equal(line.Packet, data) {
		t.Errorf("got %+v", line)
	}
	if len(f.got) != 0 || c.Snapshot()["rejected.xheaders_missing_dir"] != 1 {
		t.Errorf("spooled %d, %v", len(f.got), c.Snapshot())
	}
}
