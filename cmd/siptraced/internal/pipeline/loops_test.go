package pipeline

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// fakeMirrors has one socket, and one host to send to.
type fakeMirrors struct {
	own     netip.AddrPort
	host    netip.Addr
	ensured []string
}

func (f *fakeMirrors) EnsureDestination(uri string)        { f.ensured = append(f.ensured, uri) }
func (f *fakeMirrors) IsOwnSocket(a netip.AddrPort) bool   { return a == f.own }
func (f *fakeMirrors) IsDestinationHost(a netip.Addr) bool { return a == f.host }

// mirroring are the rules of a siptraced with a duplicate_uri.
func mirroring(p siptrace.Params, m Mirrors) Rules {
	p.DuplicateURI = []string{"sip:d"}
	r := rulesOf(p)
	r.Mirrors = m
	return r
}

// What comes back is dropped, and what is sent again is not.
func TestLoops(t *testing.T) {
	agent, peer, own := netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("192.0.2.50:40000"), netip.MustParseAddrPort("192.0.2.99:1234")
	other := netip.MustParseAddrPort("192.0.2.1:40001") // of the agent's host, after it connected anew
	type packet struct {
		from netip.AddrPort
		data []byte
		at   time.Duration
		drop string
	}
	hep3 := func(change func(*hep.Packet)) []byte { return wrap(t, change) }
	same := hep3(func(*hep.Packet) {})
	later := hep3(func(p *hep.Packet) { p.Usec++ })
	hep1 := hep3(func(p *hep.Packet) { p.Version = 1 })
	marked, text := plain(xset), plain("")
	rtcp := hep3(func(p *hep.Packet) { p.Type, p.Payload = 5, []byte("{}") })
	tests := map[string][]packet{
		"from our own socket":              {{own, same, 0, "loop"}},
		"HEP that comes back":              {{agent, same, 0, ""}, {peer, same, time.Second, "loop"}},
		"an agent that sends twice":        {{agent, same, 0, ""}, {agent, same, time.Second, ""}},
		"a retransmission":                 {{agent, same, 0, ""}, {agent, later, 0, ""}, {peer, later, 0, "loop"}},
		"long after":                       {{agent, same, 0, ""}, {peer, same, 2 * recentAge, ""}},
		"HEP of SIP with headers":          {{agent, marked, 0, ""}, {peer, marked, time.Second, "loop"}},
		"other types":                      {{agent, rtcp, 0, ""}, {peer, rtcp, 0, "loop"}, {agent, rtcp, 0, ""}},
		"sent again by another connection": {{agent, same, 0, ""}, {other, same, 0, ""}},
		"two proxies, without time":        {{agent, hep1, 0, ""}, {peer, hep1, 0, ""}},
		"retransmissions of a phone":       {{agent, text, 0, ""}, {agent, text, 500 * time.Millisecond, ""}, {agent, text, 1500 * time.Millisecond, ""}, {agent, text, 3500 * time.Millisecond, ""}, {agent, text, 7500 * time.Millisecond, ""}},
	}
	for name, data := range map[string][]byte{"HEP1 that goes round": hep1, "SIP that goes round": text} {
		round := []packet{{agent, data, 0, ""}}
		for i := range 20 {
			p := packet{peer, data, time.Duration(i) * 20 * time.Millisecond, "loop"}
			if i < mostAgainSoon {
				p.drop = ""
			}
			if p.at >= againSoon && i < mostAgain {
				p.drop = ""
			}
			round = append(round, p)
		}
		tests[name] = round
		// The first one came with the time of its capture, long ago.
		if name == "HEP1 that goes round" {
			tests[name+", after HEP3"] = append([]packet{{agent, same, 0, ""}}, round[1:]...)
		}
	}
	for i := range 100 {
		at := time.Duration(i) * time.Millisecond
		tests["one that says the same all the time"] = append(tests["one that says the same all the time"], packet{agent, hep1, at, ""}, packet{agent, text, at, ""}, packet{agent, same, at, ""})
	}
	for name, packets := range tests {
		t.Run(name, func(t *testing.T) {
			params := siptrace.DefaultParams()
			params.TraceOn, params.HEPModeOn = true, true
			c, f := counters.New(), &fakeSpool{}
			p := New(mirroring(params, &fakeMirrors{own: own, host: peer.Addr()}), f, c)
			start, taken := time.Unix(1800000000, 0), 0
			for i, in := range packets {
				before := c.Snapshot()["dropped.loop"]
				p.Handle(&ingest.Packet{Data: in.data, Net: "udp", Source: in.from, Local: netip.MustParseAddrPort("192.0.2.99:9060"), Time: start.Add(in.at)})
				dropped := c.Snapshot()["dropped.loop"] > before
				if dropped != (in.drop == "loop") {
					t.Errorf("packet %d: dropped is %v", i, dropped)
				}
				if !dropped {
					taken++
				}
			}
			if len(f.got) != taken {
				t.Errorf("%d spooled, want %d", len(f.got), taken)
			}
		})
	}
}

// What may have been refused is no loop when it is sent again.
func TestLoopsRefused(t *testing.T) {
	params := siptrace.DefaultParams()
	params.TraceOn, params.HEPModeOn = true, true
	host := netip.MustParseAddr("127.0.0.1")
	c, f := counters.New(), &fakeSpool{}
	p := New(mirroring(params, &fakeMirrors{host: host}), f, c)
	now := time.Unix(1800000000, 0)
	handle := func(port uint16) {
		now = now.Add(time.Millisecond)
		p.Handle(&ingest.Packet{Data: wrap(t, func(*hep.Packet) {}), Net: "tcp", Source: netip.AddrPortFrom(host, port), Time: now})
	}
	handle(1)
	f.mark++ // the spool refused what it had taken
	handle(2)
	if n := c.Snapshot()["dropped.loop"]; n != 0 || len(f.got) != 2 {
		t.Errorf("sent again: dropped %d, spooled %d", n, len(f.got))
	}
	handle(3)
	if n := c.Snapshot()["dropped.loop"]; n != 1 || len(f.got) != 2 {
		t.Errorf("came back: dropped %d, spooled %d", n, len(f.got))
	}
	// However often, each time over another connection.
	for port := range uint16(2 * mostAgain) {
		f.mark++
		handle(10 + port)
	}
	if n := c.Snapshot()["dropped.loop"]; n != 1 || len(f.got) != 2+2*mostAgain {
		t.Errorf("sent again and again: dropped %d, spooled %d", n, len(f.got))
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
	p.Rejects = rejects.Open(path, c)
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
