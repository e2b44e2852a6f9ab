package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

type fakeSpool struct {
	got  []siptrace.Record
	err  error
	mark uint64 // beside the first 7
}

func (f *fakeSpool) Put(r *siptrace.Record) error {
	if f.err != nil {
		return f.err
	}
	f.got = append(f.got, r.Clone())
	return nil
}

func (f *fakeSpool) Mark() uint64 { return 7 + f.mark }

func (f *fakeSpool) Sync(_ context.Context, mark uint64) error {
	if mark != 7 {
		return errors.New("mark of another connection")
	}
	return f.err
}

const sip = "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=f\r\n" +
	"To: <sip:b@b>\r\nCall-ID: c@h\r\nCSeq: 1 OPTIONS\r\n%sContent-Length: 0\r\n\r\n"

const xset = "X-Siptrace-Fromip: udp:192.0.2.9:5060\r\nX-Siptrace-Toip: udp:192.0.2.1:5060\r\nX-Siptrace-Time: 1700000000 42\r\n" +
	"X-Siptrace-Method: OPTIONS\r\nX-Siptrace-Dir: out\r\n"

func plain(extra string) []byte { return []byte(strings.Replace(sip, "%s", extra, 1)) }

func wrap(t *testing.T, change func(*hep.Packet)) []byte {
	t.Helper()
	p := hep.Packet{
		Version: 3, Proto: hep.UDP, Type: hep.TypeSIP, HasTime: true, Sec: 1700000000, Usec: 42, CaptureID: 1, Payload: plain(""),
		Src: netip.MustParseAddrPort("192.0.2.9:5060"), Dst: netip.MustParseAddrPort("192.0.2.1:5060"),
	}
	change(&p)
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHandle(t *testing.T) {
	arrival := time.Unix(1800000000, 0)
	hepTime := time.Unix(1700000000, 42000)
	on := func(*siptrace.Params) {}
	reads := func(p *siptrace.Params) { p.XHeadersRead = true }
	tests := []struct {
		name  string
		set   func(*siptrace.Params)
		data  []byte
		err   error          // of the spool
		place string         // counter; empty: spooled
		want  string         // from > to direction
		at    time.Time      // time of the record
		also  map[string]int // further counters
	}{
		{name: "hep3", set: on, data: wrap(t, func(*hep.Packet) {}), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: hepTime},
		{name: "hep2", set: on, data: wrap(t, func(p *hep.Packet) { p.Version = 2 }), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: hepTime},
		{name: "hep1 has no time", set: on, data: wrap(t, func(p *hep.Packet) { p.Version = 1 }), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: arrival},
		{name: "no protocol type", set: on, data: wrap(t, func(p *hep.Packet) { p.Type = 0 }), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: hepTime},
		{name: "trailing bytes", set: on, data: append(wrap(t, func(*hep.Packet) {}), 'x'), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: hepTime, also: map[string]int{"accepted.hep_trailing": 1}},
		{name: "hep1 with NULs behind the message", set: on, data: append(wrap(t, func(p *hep.Packet) { p.Version = 1 }), make([]byte, 8)...), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: arrival, also: map[string]int{"accepted.hep_padded": 1}},
		{name: "hep2 with NULs behind the message", set: on, data: append(wrap(t, func(p *hep.Packet) { p.Version = 2 }), make([]byte, 8)...), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: hepTime, also: map[string]int{"accepted.hep_padded": 1}},
		{name: "sip duplicate", set: on, data: plain(""), want: "udp:198.51.100.1:5060 > udp:198.51.100.2:9060 in", at: arrival},
		{name: "headers not read", set: on, data: plain(xset), want: "udp:198.51.100.1:5060 > udp:198.51.100.2:9060 in", at: arrival},
		{name: "headers", set: reads, data: plain(xset), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 out", at: hepTime},
		{name: "headers of trace_mode 4", set: reads, data: plain(strings.NewReplacer("1700000000 42", "0 0", "Method: OPTIONS", "Method: ").Replace(xset)), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 out", at: arrival},
		{name: "hep needs no headers", set: reads, data: wrap(t, func(*hep.Packet) {}), want: "udp:192.0.2.9:5060 > udp:192.0.2.1:5060 in", at: hepTime},
		{name: "no headers", set: reads, data: plain(""), place: "dropped.no_xheaders"},
		{name: "incomplete headers", set: reads, data: plain(strings.Replace(xset, "X-Siptrace-Dir: out\r\n", "", 1)), place: "rejected.xheaders_missing_dir"},
		{name: "off", set: func(p *siptrace.Params) { p.TraceOn = false }, data: plain(""), place: "dropped.trace_off"},
		{name: "no sink", set: func(p *siptrace.Params) { p.TraceToDatabase = false }, data: plain(""), place: "dropped.no_sink"},
		{name: "empty", set: on, data: nil, place: "dropped.keepalive"},
		{name: "keepalive", set: on, data: []byte("\r\n\r\n"), place: "dropped.keepalive"},
		{name: "nul keepalive", set: on, data: make([]byte, 4), place: "dropped.keepalive"},
		{name: "one byte", set: on, data: []byte("x"), place: "rejected.not_sip"},
		{name: "http", set: on, data: []byte("GET / HTTP/1.1\r\n\r\n"), place: "rejected.not_sip"},
		{name: "length lie", set: on, data: wrap(t, func(*hep.Packet) {})[:50], place: "rejected.hep_truncated"},
		{name: "hep with text", set: on, data: wrap(t, func(p *hep.Packet) { p.Payload = []byte("hello") }), place: "rejected.not_sip"},
		{name: "log event, no database", set: func(p *siptrace.Params) { p.TraceToDatabase = false }, data: wrap(t, func(p *hep.Packet) { p.Type = hep.TypeLog }), place: "dropped.hep_not_sip"},
		{name: "rtcp, no mirror", set: on, data: wrap(t, func(p *hep.Packet) { p.Type = hep.TypeRTCP }), place: "dropped.hep_not_sip"},
		{name: "hep keepalive", set: on, data: wrap(t, func(p *hep.Packet) { p.Payload = nil }), place: "dropped.hep_keepalive"},
		{name: "spool closed", set: on, data: plain(""), err: errors.New("closed"), place: "rejected.spool"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			params := siptrace.DefaultParams()
			params.TraceOn = true
			tt.set(&params)
			f, c := &fakeSpool{err: tt.err}, counters.New()
			own := siptrace.NewSockets([]siptrace.Socket{{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.1:5060")}}, false)
			p := New(Rules{Params: params, Own: own, Routing: params.Routing(siptrace.Mirroring{})}, f, c)
			p.Handle(&ingest.Packet{
				Data: tt.data, Time: arrival, Net: "udp",
				Source: netip.MustParseAddrPort("198.51.100.1:5060"), Local: netip.MustParseAddrPort("198.51.100.2:9060"),
			})
			want := map[string]uint64{}
			want["traced_requests"] = 1
			if tt.place != "" {
				want = map[string]uint64{tt.place: 1}
			}
			for k, n := range tt.also {
				want[k] = uint64(n)
			}
			got := c.Snapshot()
			maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
			if !maps.Equal(got, want) {
				t.Errorf("counters: got %v, want %v", got, want)
			}
			if tt.place != "" {
				if len(f.got) != 0 {
					t.Errorf("spooled %d records", len(f.got))
				}
				return
			}
			if len(f.got) != 1 {
				t.Fatalf("got %d records", len(f.got))
			}
			r := f.got[0]
			if s := r.From.String() + " > " + r.To.String() + " " + r.Direction; s != tt.want {
				t.Errorf("got %s, want %s", s, tt.want)
			}
			if !r.Time.Equal(tt.at) || string(r.Method) != "OPTIONS" {
				t.Errorf("time %v, method %q; want %v", r.Time, r.Method, tt.at)
			}
			if params.XHeadersRead && strings.Contains(string(r.Msg), "X-Siptrace") {
				t.Errorf("headers not cut: %q", r.Msg)
			}
			if !bytes.HasSuffix(r.Msg, []byte("\r\n\r\n")) {
				t.Errorf("bytes behind the message: %q", r.Msg)
			}
		})
	}
}

// decideFunc decides on every message alike.
type decideFunc func(rec *siptrace.Record, msg *sipmsg.Message) (counters.Outcome, []siptrace.Record)

func (f decideFunc) Decide(rec *siptrace.Record, msg *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
	return f(rec, msg)
}

func passes(*siptrace.Record, *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
	return counters.Spooled, nil
}

// rulesOf are the rules of parameters without mirrors.
func rulesOf(p siptrace.Params) Rules {
	return Rules{Params: p, Own: siptrace.NewSockets(nil, false), Routing: p.Routing(siptrace.Mirroring{})}
}

// static are the rules of a siptraced with a destination that takes everything.
func static() Rules {
	r := rulesOf(traced())
	r.Routing, r.Mirrors = r.Params.Routing(siptrace.Mirroring{Static: true}), &fakeMirrors{}
	return r
}

// What rules say of a message, and what trace_on makes of its users: N+1 rows,
// N, or none (vectors fact 41).
func TestDecide(t *testing.T) {
	users := func(names ...string) decideFunc {
		return func(rec *siptrace.Record, _ *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
			for _, n := range names {
				rec.Users = append(rec.Users, []byte(n))
			}
			return counters.Spooled, nil
		}
	}
	for _, tt := range []struct {
		name   string
		set    func(*siptrace.Params)
		off    bool
		decide decideFunc
		want   []string // per record: users, table, destinations, sinks
		place  string
	}{
		{name: "no user", decide: users(), want: []string{"[]  [] 1"}},
		{name: "no user, off", off: true, decide: users(), place: "dropped.trace_off"},
		{name: "users", decide: users("c", "b", "a"), want: []string{"[ c b a]  [] 1"}},
		{name: "users, off", off: true, decide: users("c", "b", "a"), want: []string{"[c b a]  [] 1"}},
		{name: "dropped", decide: func(*siptrace.Record, *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
			return counters.EventRoute, nil
		}, place: "dropped.event_route"},
		{name: "destination", decide: func(rec *siptrace.Record, msg *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
			rec.Table, rec.Destinations = string(msg.Method), []string{"sip:h"}
			return counters.Spooled, nil
		}, want: []string{"[] OPTIONS [sip:h] 5"}},
		{name: "sinks of the rules", decide: func(rec *siptrace.Record, _ *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
			rec.Sinks = siptrace.ToHEP
			return counters.Spooled, nil
		}, want: []string{"[]  [] 2"}},
		{name: "further records", decide: func(*siptrace.Record, *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
			return counters.Spooled, []siptrace.Record{
				{Route: siptrace.Route{Table: "more"}}, {Route: siptrace.Route{Table: "dest", Destinations: []string{"sip:x"}}}, {Type: siptrace.TypeLog},
			}
		}, want: []string{"[] more [] 1", "[] dest [sip:x] 5", "[]  [] 1", "[]  [] 1"}},
		{name: "a further record without a sink", set: func(p *siptrace.Params) { p.TraceToDatabase = false }, decide: func(*siptrace.Record, *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
			return counters.InitMode, []siptrace.Record{{}}
		}, place: "dropped.no_sink"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			params := siptrace.DefaultParams()
			if params.TraceOn = !tt.off; tt.set != nil {
				tt.set(&params)
			}
			f, c := &fakeSpool{}, counters.New()
			r := rulesOf(params)
			r.NewDecision = func() Decision { return tt.decide }
			New(r, f, c).Handle(&ingest.Packet{Data: plain(""), Net: "udp"})
			var got []string
			for _, r := range f.got {
				got = append(got, fmt.Sprintf("%s %s %s %d", r.Users, r.Table, r.Destinations, r.Sinks))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			n := c.Snapshot()
			n["received"], n["spooled"] = 1, uint64(len(got))
			intake := counters.Accounting()[0]
			if in, out := intake.Sums(n, ""); in != out {
				t.Errorf("%s: %d, but %d: %v", intake, in, out, n)
			}
			if tt.place != "" && n[tt.place] != 1 {
				t.Errorf("%s is not counted: %v", tt.place, n)
			}
		})
	}
}

// Rules that were replaced decide on nothing more, and what decides is made once
// for many messages.
func TestSetRules(t *testing.T) {
	made := 0
	use := func(name string) Rules {
		r := rulesOf(traced())
		r.NewDecision = func() Decision {
			made++
			return decideFunc(func(rec *siptrace.Record, _ *sipmsg.Message) (counters.Outcome, []siptrace.Record) {
				rec.Table = name
				return counters.Spooled, nil
			})
		}
		return r
	}
	f := &fakeSpool{}
	p := New(use("first"), f, counters.New())
	w := p.work.Get().(*work)
	for i, want := range []string{"first", "first", "second", ""} {
		switch i {
		case 2:
			p.SetRules(use(want))
		case 3:
			p.SetRules(rulesOf(traced()))
		}
		if o := p.handle(w, &ingest.Packet{Data: plain(""), Net: "udp"}); o != counters.Spooled || f.got[i].Table != want {
			t.Errorf("message %d: %s, table %q, want %q", i, o, f.got[i].Table, want)
		}
	}
	if made != 2 {
		t.Errorf("%d made, want 2", made)
	}
}

// What HEP3 says beside the message comes along; chunks of siptraced's vendor id
// only if they are for the wire.
func TestMeta(t *testing.T) {
	const ours = hepmap.Vendor
	other := hep.Chunk{Vendor: 3, Type: 1, Data: []byte("x")}
	in := wrap(t, func(p *hep.Packet) {
		p.NodeName, p.VLAN, p.CorrelationID, p.AuthKey = []byte("node"), 7, []byte("c-1"), []byte("key")
		p.Vendor = []hep.Chunk{
			{Vendor: ours, Type: 15, Data: []byte{1}},
			{Vendor: ours, Type: hepmap.ChunkPath, Data: []byte("path")},
			other,
			{Vendor: ours, Type: hepmap.ChunkOrigin, Data: []byte("origin")},
		}
	})
	source := netip.MustParseAddrPort("192.0.2.7:9060")
	want := siptrace.Meta{
		Source: source, CorrelationID: []byte("c-1"), CaptureID: 1, NodeName: []byte("node"), VLAN: 7,
		Vendor: hepmap.AppendForeign(nil, []hep.Chunk{other}), Path: []byte("path"), Origin: []byte("origin"),
	}
	f := &fakeSpool{}
	p := New(static(), f, counters.New())
	p.Handle(&ingest.Packet{Data: in, Net: "udp", Source: source})
	// A packet that is no SIP has them too.
	p.Handle(&ingest.Packet{Data: bytes.Replace(in, []byte("\x00\x0b\x00\x07\x01"), []byte("\x00\x0b\x00\x07\x05"), 1), Net: "udp", Source: source})
	p.Handle(&ingest.Packet{Data: wrap(t, func(*hep.Packet) {}), Net: "udp", Source: source})
	if len(f.got) != 3 || f.got[1].Packet == nil {
		t.Fatalf("got %+v", f.got)
	}
	for i := range 2 {
		if got := f.got[i].Meta; !reflect.DeepEqual(got, want) {
			t.Errorf("record %d\n got %+v\nwant %+v", i, got, want)
		}
	}
	if got := f.got[2].Meta; !reflect.DeepEqual(got, siptrace.Meta{Source: source, CaptureID: 1}) {
		t.Errorf("the next message has %+v", got)
	}
}

// The ends that X-Siptrace headers name are read once, with their addresses.
func TestRelayedEnds(t *testing.T) {
	for _, tt := range []struct{ from, want, addr string }{
		{"tcp:192.0.2.9:5070", "tcp", "192.0.2.9:5070"}, {"hello", "", "invalid AddrPort"},
	} {
		f, params := &fakeSpool{}, traced()
		params.XHeadersRead = true
		p := New(rulesOf(params), f, counters.New())
		p.Handle(&ingest.Packet{Data: plain(strings.Replace(xset, "udp:192.0.2.9:5060", tt.from, 1)), Net: "udp", Source: netip.MustParseAddrPort("192.0.2.7:5060")})
		if len(f.got) != 1 {
			t.Fatalf("%s: got %d records", tt.from, len(f.got))
		}
		if e := f.got[0].From; e.Text != tt.from || string(e.Proto) != tt.want || e.Addr.String() != tt.addr {
			t.Errorf("got %+v", e)
		}
	}
}

func traced() siptrace.Params {
	p := siptrace.DefaultParams()
	p.TraceOn = true
	return p
}

type sink struct{}

func (sink) Put(*siptrace.Record) error         { return nil }
func (sink) Mark() uint64                       { return 0 }
func (sink) Sync(context.Context, uint64) error { return nil }

// A keep-alive over a stream comes back when all before it is safe; when it is
// not the stream is closed. Over UDP nothing comes back.
func TestAcknowledge(t *testing.T) {
	alive := wrap(t, func(k *hep.Packet) { k.Payload, k.KeepAlive = nil, 30 })
	for _, tt := range []struct {
		name string
		err  error
		udp  bool
		want string
	}{
		{"stream", nil, false, string(alive)},
		{"spool refuses", errors.New("full"), false, ""},
		{"udp", nil, true, ""},
	} {
		f, c := &fakeSpool{err: tt.err}, counters.New()
		p := New(rulesOf(siptrace.DefaultParams()), f, c)
		got := ""
		in := &ingest.Packet{Data: alive, Net: "tcp", Reply: func(b []byte) error { got += string(b); return nil }}
		if tt.udp {
			in.Reply = nil
		}
		p.Handle(in)
		if n := c.Snapshot()["dropped.hep_keepalive"]; n != 1 || got != tt.want {
			t.Errorf("%s: got %q, counted %d, want %q", tt.name, got, n, tt.want)
		}
		if in.Close != (tt.err != nil) {
			t.Errorf("%s: close is %t", tt.name, in.Close)
		}
	}
}

func BenchmarkHandle(b *testing.B) {
	params := siptrace.DefaultParams()
	params.TraceOn = true
	own := siptrace.NewSockets([]siptrace.Socket{{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.1:5060")}}, false)
	k := hep.Packet{
		Version: 3, Proto: hep.UDP, Type: hep.TypeSIP, HasTime: true, Sec: 1700000000, Payload: plain(strings.Repeat("X-Filler: 0123456789\r\n", 30)),
		Src: netip.MustParseAddrPort("192.0.2.9:5060"), Dst: netip.MustParseAddrPort("192.0.2.1:5060"),
	}
	data, err := k.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	in := &ingest.Packet{Data: data, Time: time.Unix(1, 0), Net: "udp"}
	for _, bm := range []struct {
		name        string
		newDecision func() Decision
	}{
		{"no rules", nil},
		{"a judge", func() Decision { return decideFunc(passes) }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			p := New(Rules{Params: params, Own: own, Routing: params.Routing(siptrace.Mirroring{}), NewDecision: bm.newDecision}, sink{}, counters.New())
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				p.Handle(in)
			}
		})
	}
}
