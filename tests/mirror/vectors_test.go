package mirror

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"siptraced/tests/vectors"
)

// TestVectors uses every recording in every way that it allows: with the
// recorded configuration, the packets that are mirrored have to be those that
// the real module sent, and the rows those that it wrote.
func TestVectors(t *testing.T) {
	t.Parallel()
	list, err := vectors.Mirrors()
	if err != nil {
		t.Fatal(err)
	}
	packets, same := 0, 0
	for _, m := range list {
		packets += len(m.Out)
		for _, o := range m.Out {
			if o.Same {
				same++
			}
		}
	}
	t.Logf("%d ways, %d packets, %d of them exactly the module's; the others:\n%s", len(list), packets, same, vectors.MirrorTable())
	for _, m := range list {
		t.Run(m.Name+"/"+m.Way, func(t *testing.T) {
			t.Parallel()
			replay(t, m)
		})
	}
}

func replay(t *testing.T, m *vectors.Mirror) {
	t.Helper()
	wants, err := m.Wants(vectors.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	host := "127.0.0.1"
	if m.IPv6 {
		host = "::1"
	}
	sink := collect(t, m.Network, host)
	d := start(t, options{
		network: m.Input, config: m.Config,
		set: append([]string{"timezone=" + m.Location.String(), "siptrace.duplicate_uri=" + uri(sink, m.Network)}, m.Set...),
	})
	from := time.Now()
	source := d.feed(t, m.In...)
	await(t, d, len(m.Out), sink)
	d.settle(t)
	c := d.stop(t)
	window := vectors.Window{From: from, To: time.Now()}
	want := slices.Clone(m.Out)
	for i := range want {
		want[i] = want[i].At(source, d.addr)
	}
	report(t, "packets", vectors.CompareOut(want, closed(t, sink), window))
	if m.RowsOpen {
		return
	}
	if got := c["store.rows"]; got != int64(len(wants)) {
		t.Errorf("rows written: got %d, want %d (%v)", got, len(wants), c)
	}
	if len(wants) > 0 {
		report(t, "rows", vectors.Compare(wants, d.table.rows(t), window))
	}
	if m.Name == "hep3-send-sock" {
		for _, r := range sink.Received() {
			// The port is the proxy's, which runs beside.
			if want := netip.MustParseAddr("127.0.0.3"); r.From.Addr() != want {
				t.Errorf("a packet came from %v, want %v", r.From, want)
			}
		}
	}
}

// TestForms sends all recorded messages to one daemon that mirrors them in every
// form at once, each destination with its own.
func TestForms(t *testing.T) {
	t.Parallel()
	messages, err := vectors.Messages()
	if err != nil {
		t.Fatal(err)
	}
	forms := []struct {
		name, network, yaml string
		form                vectors.Form
		sink                *vectors.Sink
		want                []vectors.Out
	}{
		{name: "hep1", network: "udp", yaml: "protocol: hep1", form: vectors.Form{HEP: 1}},
		{name: "hep2", network: "udp", yaml: "protocol: hep2\n    capture_id: 70001", form: vectors.Form{HEP: 2, CaptureID: 70001}},
		{name: "hep3", network: "udp", yaml: "protocol: hep3\n    capture_id: 2001", form: vectors.Form{HEP: 3, CaptureID: 2001}},
		{name: "hep3-incoming", network: "tcp", yaml: "capture_id: incoming\n    auth_key: other secret", form: vectors.Form{HEP: 3, CaptureID: 77, Incoming: true, Key: "other secret"}},
		{name: "hep3-relay", network: "udp", yaml: "time: relay", form: vectors.Form{HEP: 3, CaptureID: 77, Relay: true}},
		{name: "sip-headers", network: "udp", yaml: "protocol: sip\n    xheaders: 1", form: vectors.Form{XHeaders: true}},
		{name: "sip-headers-tcp", network: "tcp", yaml: "protocol: sip\n    xheaders: 1", form: vectors.Form{XHeaders: true}},
		{name: "sip", network: "udp", yaml: "protocol: sip\n    xheaders: 0", form: vectors.Form{}},
	}
	text := "siptrace: {xheaders_read: 1, hep_capture_id: 77, trace_on: 1}\n" +
		`local: ["udp:127.0.0.1:15060", "tcp:127.0.0.1:15060", "udp:[::1]:15060", "udp:127.0.0.2:15062", "udp:127.0.0.3:15063", "tls:127.0.0.1:15061", "udp:0.0.0.0:15060", "udp:10.20.30.40:5060", "udp:203.0.113.7:5070"]` +
		"\ndestinations:\n"
	for i := range forms {
		f := &forms[i]
		f.sink = collect(t, f.network, "127.0.0.1")
		text += fmt.Sprintf("  - uri: %q\n    name: %s\n    %s\n", uri(f.sink, f.network), f.name, f.yaml)
	}
	d := start(t, options{yaml: text})
	from := time.Now()
	for len(messages) > 0 {
		// A recording at a time, so that no sink's socket overflows.
		n := slices.IndexFunc(messages, func(m vectors.Message) bool { return m.Scenario != messages[0].Scenario })
		if n < 0 {
			n = len(messages)
		}
		var in [][]byte
		for i := range messages[:n] {
			in = append(in, messages[i].Packet)
			for j := range forms {
				if o, ok := messages[i].As(forms[j].form); ok {
					forms[j].want = append(forms[j].want, o)
				}
			}
		}
		messages = messages[n:]
		d.feed(t, in...)
		for i := range forms {
			await(t, d, len(forms[i].want), forms[i].sink)
		}
		if t.Failed() {
			break
		}
	}
	d.settle(t)
	d.stop(t)
	window := vectors.Window{From: from, To: time.Now()}
	for _, f := range forms {
		t.Logf("%-16s %d packets", f.name, len(f.want))
		report(t, f.name, vectors.CompareOut(f.want, closed(t, f.sink), window))
	}
}
