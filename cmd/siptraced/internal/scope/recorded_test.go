package scope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// recorded reads what a real Kamailio mirrored by HEP in one scenario.
func recorded(t *testing.T, scenario string) (all []*message) {
	t.Helper()
	file, err := os.ReadFile("../../../../tests/vectors/data/" + scenario + "/datagrams.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	own := siptrace.NewSockets([]siptrace.Socket{{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("127.0.0.1:15060")}}, false)
	b := siptrace.Builder{Own: own}
	for line := range bytes.Lines(file) {
		var d struct{ Hex string }
		if err := json.Unmarshal(line, &d); err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(d.Hex)
		if err != nil {
			t.Fatal(err)
		}
		var p hep.Packet
		if err := p.Decode(raw); err != nil {
			t.Fatal(err)
		}
		m := &message{}
		if err := m.msg.Parse(p.Payload); err != nil {
			t.Fatal(err)
		}
		c := siptrace.Capture{Time: time.Unix(int64(p.Sec), int64(p.Usec)*1000), Proto: siptrace.UDP, Src: p.Src, Dst: p.Dst, Payload: p.Payload}
		b.Build(&m.rec, &c, &m.msg)
		first, _, _ := strings.Cut(string(p.Payload), "\r\n")
		m.text = m.rec.Direction + " " + first
		all = append(all, m)
	}
	return all
}

func received(method string) func(*message) bool {
	return func(m *message) bool {
		return m.rec.Direction == siptrace.In && m.msg.IsRequest && string(m.msg.Method) == method && m.msg.To.Tag == nil
	}
}

// In these scenarios the script of the proxy called sip_trace() for some
// requests, and everything recorded belongs to their scopes; in those of
// trace_mode everything was recorded, and one call after another is traced here.
func TestRecorded(t *testing.T) {
	request := func(m *message) bool { return m.rec.Direction == siptrace.In && m.msg.IsRequest }
	tests := []struct {
		scenario string
		kind     Kind
		starts   func(*message) bool
		all      bool // every message is in a scope; otherwise those with the Call-ID of a scope
	}{
		{"script-transaction", Transaction, request, true},
		{"script-transaction-v614", Transaction, request, true},
		{"script-dialog", Dialog, received("INVITE"), true},
		{"script-dialog-v614", Dialog, received("INVITE"), true},
		{"script-fork", Transaction, request, true},
		{"retransmit-script", Transaction, request, true},
		{"spiral-script", Transaction, request, true},
		{"script-onsend", Transaction, func(m *message) bool { return m.msg.IsRequest }, false},
		{"fork-mode3", Dialog, received("INVITE"), false},
		{"spiral-mode3", Dialog, received("INVITE"), false},
		{"retransmit-mode3", Dialog, received("INVITE"), false},
		{"hep3-core", Dialog, received("INVITE"), false},
		{"hep3-core", Transaction, request, true},
	}
	for _, tt := range tests {
		t.Run(tt.scenario+" "+tt.kind.String(), func(t *testing.T) {
			tr := New(Config{})
			traced := map[string]bool{}
			n := 0
			for i, m := range recorded(t, tt.scenario) {
				found := tr.Find(nil, &m.msg, &m.rec)
				if tt.starts(m) {
					tr.Start(tt.kind, 1, nil, &m.msg, &m.rec)
					traced[string(m.msg.CallID)] = true
					found = tr.Find(nil, &m.msg, &m.rec)
				}
				want := 1
				if !tt.all && !traced[string(m.msg.CallID)] {
					want = 0
				}
				if len(found) != want {
					t.Errorf("%d: %s: in %d scopes, want %d", i+1, m.text, len(found), want)
				}
				n += len(found)
			}
			if n == 0 {
				t.Error("nothing found")
			}
		})
	}
}

// trace_sl_acks=0: of the recorded transactions one row is missing, that of the
// ACK for the 404 of the proxy itself.
func TestStatelessACKsRecorded(t *testing.T) {
	for scenario, want := range map[string]int{
		"script-transaction-nodest": 1, "script-sl-acks-off": 0, "script-transaction": 1, "script-dialog": 1, "spiral-mode3": 0,
		"retransmit-mode3": 0, "fork-mode3": 0, "script-fork": 0,
	} {
		// Once as it was, once as from a proxy whose tags nobody knows.
		for _, known := range []bool{true, false} {
			var a StatelessACKs
			got := 0
			for _, m := range recorded(t, scenario) {
				if !known && len(m.msg.To.Tag) > 32 && m.msg.To.Tag[32] == '.' {
					m.msg.To.Tag = append([]byte("x"), m.msg.To.Tag...)
				}
				if a.Has(&m.msg, &m.rec) {
					if !strings.HasPrefix(string(m.msg.RequestURI), "sip:nobody@") {
						t.Errorf("%s: %s", scenario, m.text)
					}
					got++
				}
			}
			if got != want {
				t.Errorf("%s (tags known: %v): %d ACKs, want %d", scenario, known, got, want)
			}
		}
	}
}

// The second way of a request through the same proxy, of the first call of the
// scenario.
func TestSkipSpiralRecorded(t *testing.T) {
	const want = `in INVITE sip:bob@vec.example
out SIP/2.0 100 trying -- your call is important to us
out INVITE sip:bob@127.0.0.1:15120
in SIP/2.0 180 Ringing
out SIP/2.0 180 Ringing
in SIP/2.0 200 OK
out SIP/2.0 200 OK
`
	var skipped strings.Builder
	kept := 0
	tr := New(Config{})
	tr.SetOptions(Options{SkipSpiral: true})
	call := ""
	for _, m := range recorded(t, "spiral-mode3") {
		if call == "" && received("INVITE")(m) {
			call = string(m.msg.CallID)
			tr.Start(Dialog, 1, nil, &m.msg, &m.rec)
		}
		if string(m.msg.CallID) != call {
			continue
		}
		if string(m.msg.MethodName()) != "INVITE" {
			continue
		}
		if len(tr.Find(nil, &m.msg, &m.rec)) == 0 {
			skipped.WriteString(strings.TrimSuffix(m.text, " SIP/2.0") + "\n")
		} else {
			kept++
		}
	}
	if skipped.String() != want || kept != 8 {
		t.Errorf("%d kept, want 8; left out:\n%s\nwant:\n%s", kept, skipped.String(), want)
	}
}

// trace_dialog_ack=0 is how 5.6.3 was: the ACK for a 2xx is left out, those
// between neighbours stay.
func TestSkipACKRecorded(t *testing.T) {
	for _, scenario := range []string{"script-dialog", "script-dialog-v614", "hep3-core"} {
		acks := map[bool]int{}
		for _, skip := range []bool{false, true} {
			tr := New(Config{})
			tr.SetOptions(Options{SkipACK: skip})
			for _, m := range recorded(t, scenario) {
				if received("INVITE")(m) {
					tr.Start(Dialog, 1, nil, &m.msg, &m.rec)
				}
				found := tr.Find(nil, &m.msg, &m.rec)
				if string(m.msg.Method) == "ACK" {
					acks[skip] += len(found)
				}
			}
		}
		want := map[string][2]int{"script-dialog": {5, 5}, "script-dialog-v614": {7, 5}, "hep3-core": {12, 4}}[scenario]
		if got := [2]int{acks[false], acks[true]}; got != want {
			t.Errorf("%s: %v ACKs, %v without those for 2xx; want %v", scenario, got[0], got[1], want)
		}
	}
}
