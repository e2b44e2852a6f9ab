package mirror

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// kamcmd runs the real program and returns what it printed on both outputs.
func (d *daemon) kamcmd(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("/usr/sbin/kamcmd", append([]string{"-s", "unix:" + d.ctl}, args...)...).CombinedOutput()
	return string(out), err
}

// TestEvents sends what is HEP and not SIP: reports, log lines and types that
// nobody knows, with chunks that nobody knows. HEP mirrors have to send them on
// as they came, nothing of them goes to the table or to SIP mirrors, and log
// lines are kept beside.
func TestEvents(t *testing.T) {
	t.Parallel()
	udp, tcp, sip := collect(t, "udp", "127.0.0.1"), collect(t, "tcp", "127.0.0.1"), collect(t, "udp", "127.0.0.1")
	d := start(t, options{set: []string{
		"siptrace.duplicate_uri=" + uri(udp, "udp"), "siptrace.hep_mode_on=1", "siptrace.hep_version=1", "siptrace.auth_key=mine", "siptrace.hep_capture_id=5",
		"destinations=" + uri(tcp, "tcp") + ";name=tcp," + uri(sip, "udp") + ";name=sip;protocol=sip",
	}})
	a, b := netip.MustParseAddrPort("192.0.2.7:4001"), netip.MustParseAddrPort("192.0.2.8:4003")
	v6 := netip.MustParseAddrPort("[2001:db8::7]:4001")
	now := time.Now().Add(-time.Hour)
	event := func(kind byte, src, dst netip.AddrPort, correlation, payload string) []byte {
		return vectors.HEP{
			Version: 3, Proto: 17, Src: src, Dst: dst, Time: now, Type: kind, CaptureID: 2002,
			Correlation: []byte(correlation), Payload: []byte(payload),
		}.Encode()
	}
	rtcp := event(5, a, b, "call-1@192.0.2.7", `{"sender_information":{"packets":12},"type":200}`)
	events := [][]byte{
		rtcp,
		event(100, a, b, "call-1@192.0.2.7", "a line of the proxy's log"),
		event(100, v6, v6, "", "without a call, über IPv6"),
		event(4, a, b, "call-2@192.0.2.7", "\x80\x00\x12\x34 RTP"),
		event(34, v6, v6, "call-2@192.0.2.7", `{"MOS":4.31}`),
		event(99, a, b, "call-3@192.0.2.7", "any other"),
		event(200, a, b, "call-3@192.0.2.7", "\x00\xff"),
		vendorChunks(rtcp),
	}
	call := load.Call(load.Spec{}, now)
	d.feed(t, append(slices.Clone(events), packets(call)...)...)
	all := len(events) + len(call)
	await(t, d, all, udp, tcp)
	await(t, d, len(call), sip)
	d.settle(t)
	c := d.stop(t)
	t.Logf("%v", c)
	for name, s := range map[string]*vectors.Sink{"udp": udp, "tcp": tcp} {
		got := closed(t, s)
		for i, e := range events {
			if n := count(got, e); n != 1 {
				t.Errorf("%s: event %d came %d times as it was: %q", name, i, n, e)
			}
		}
		if len(got) != all {
			t.Errorf("%s: %d packets, want %d", name, len(got), all)
		}
	}
	if got := closed(t, sip); len(got) != len(call) {
		t.Errorf("SIP mirror: %d packets, want %d", len(got), len(call))
	}
	if rows := d.table.rows(t); len(rows) != len(call) {
		t.Errorf("%d rows, want those of the call, %d", len(rows), len(call))
	}
	want := []string{"call-1@192.0.2.7: a line of the proxy's log", ": without a call, über IPv6"}
	sameLines(t, d.table.logLines(t), want)
}

// sameLines compares the log lines that are kept, of which only those of one
// call have an order.
func sameLines(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("log lines kept: got %q, want %q", got, want)
	}
}

func count(list [][]byte, p []byte) int {
	n := 0
	for _, q := range list {
		if bytes.Equal(p, q) {
			n++
		}
	}
	return n
}

// vendorChunks puts chunks of other makers and unknown ones around those of a
// packet.
func vendorChunks(p []byte) []byte {
	q := append([]byte("HEP3\x00\x00"), "\x00\x0a\x00\x11\x00\x09abc"...)
	q = append(append(q, p[6:]...), "\x00\x00\x7f\x00\x00\x07z"...)
	binary.BigEndian.PutUint16(q[4:], uint16(len(q)))
	return q
}

// TestCommands has kamcmd send log lines and made-up messages. What goes over
// the wire has to be what hlog() and sip_trace_msg() of the real module send.
func TestCommands(t *testing.T) {
	t.Parallel()
	for version, on := range map[int]bool{1: false, 2: true, 3: true} {
		t.Run(fmt.Sprintf("hep_version %d, tracing %t", version, on), func(t *testing.T) {
			t.Parallel()
			commands(t, version, on)
		})
	}
}

func commands(t *testing.T, version int, on bool) {
	t.Helper()
	sink, named, local := collect(t, "udp", "127.0.0.1"), collect(t, "udp", "127.0.0.1"), servers.FreePort(t)
	d := start(t, options{set: []string{
		"siptrace.duplicate_uri=" + uri(sink, "udp"), "siptrace.hep_mode_on=1", "siptrace.hep_capture_id=70001",
		"siptrace.auth_key=s3cr3t-auth-key", fmt.Sprintf("siptrace.hep_version=%d", version),
		"siptrace.trace_on=" + map[bool]string{true: "1", false: "0"}[on],
		fmt.Sprintf("siptrace.send_sock_addr=sip:127.0.0.1:%d", local),
	}})
	from := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(local))
	log := func(correlation, text string) vectors.HEP {
		return vectors.HEP{
			Version: 3, Proto: 17, Src: from, Dst: sink.Addr(), Type: 100, CaptureID: 70001,
			Correlation: []byte(correlation), Key: []byte("s3cr3t-auth-key"), Payload: []byte(text),
		}
	}
	const options = "OPTIONS sip:b@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKm\r\nFrom: <sip:a@example.org>;tag=m\r\n" +
		"To: <sip:b@example.org>\r\nCall-ID: made-up@192.0.2.1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
	message := func(proto byte, src, dst, correlation, text string) vectors.HEP {
		h := vectors.HEP{
			Version: version, Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Type: 1, CaptureID: 70001,
			Key: []byte("s3cr3t-auth-key"), Payload: []byte(text),
		}
		if correlation != "" {
			h.Correlation = []byte(correlation)
		}
		return h
	}
	to := fmt.Sprintf("sip:%s", named.Addr())
	steps := []struct {
		args  []string
		want  *vectors.HEP
		named bool // goes to the address that the command names
	}{
		{args: []string{"siptrace.hlog", "a line"}, want: ptr(log("", "a line"))},
		{args: []string{"siptrace.hlog", "call-1@192.0.2.7", "a line of a call"}, want: ptr(log("call-1@192.0.2.7", "a line of a call"))},
		{args: []string{"siptrace.hlog_cid", "call-1@192.0.2.7", "utf-8: héllo 日本"}, want: ptr(log("call-1@192.0.2.7", "utf-8: héllo 日本"))},
		{args: []string{"siptrace.hlog_cid", "", "empty correlation id"}, want: ptr(log("", "empty correlation id"))},
		{args: []string{"hlog", "by its bare name"}, want: ptr(log("", "by its bare name"))},
		{
			args: []string{"siptrace.sip_trace_msg", options, "udp:192.0.2.1:5060", "tcp:192.0.2.2:5070", to, "corr-made-up"},
			want: ptr(message(6, "192.0.2.1:5060", "192.0.2.2:5070", "corr-made-up", options)), named: true,
		},
		{
			args: []string{"siptrace.sip_trace_msg", "free text, not SIP", "udp:[2001:db8::1]:5060", "udp:[2001:db8::2]:5070", to, ""},
			want: ptr(message(17, "[2001:db8::1]:5060", "[2001:db8::2]:5070", "", "free text, not SIP")), named: true,
		},
		{args: []string{"siptrace.sip_trace_msg", "x", "192.0.2.1:5060", "192.0.2.2:5070", to, "y"}}, // no protocol: refused
		{args: []string{"siptrace.hlog"}},
		{args: []string{"siptrace.hlog_cid", "one"}},
	}
	var wantSink, wantNamed [][]byte
	begin := time.Now()
	for _, s := range steps {
		out, err := d.kamcmd(t, s.args...)
		if refused := strings.Contains(out, "error: 4") || strings.Contains(out, "error: 5"); refused != (s.want == nil) {
			t.Errorf("%q: %v, printed %q", s.args, err, out)
		}
		if s.want == nil {
			continue
		}
		if s.named {
			wantNamed = append(wantNamed, s.want.Encode())
		} else {
			wantSink = append(wantSink, s.want.Encode())
		}
	}
	await(t, d, len(wantSink), sink)
	await(t, d, len(wantNamed), named)
	c := d.stop(t)
	t.Logf("%v", c)
	report(t, "hlog", atAnyTime(t, wantSink, closed(t, sink), begin))
	report(t, "sip_trace_msg", atAnyTime(t, wantNamed, closed(t, named), begin))
	if got := c["store.rows"]; got != 0 {
		t.Errorf("%d rows, want none", got)
	}
	want := []string{
		": a line", "call-1@192.0.2.7: a line of a call", "call-1@192.0.2.7: utf-8: héllo 日本", ": empty correlation id", ": by its bare name",
	}
	sameLines(t, d.table.logLines(t), want)
}

func ptr[T any](v T) *T { return &v }

// atAnyTime compares packets in any order; their time has to be between begin and
// now.
func atAnyTime(t *testing.T, want, got [][]byte, begin time.Time) []string {
	t.Helper()
	var list []vectors.Out
	for _, w := range want {
		list = append(list, vectors.Out{Packet: w, Arrival: w[0] != 1}) // HEP1 has no time
	}
	sorted := func(a, b []byte) int { return bytes.Compare(a[len(a)-8:], b[len(b)-8:]) }
	slices.SortFunc(got, sorted)
	slices.SortFunc(list, func(a, b vectors.Out) int { return sorted(a.Packet, b.Packet) })
	return vectors.CompareOut(list, got, vectors.Window{From: begin, To: time.Now()})
}

// TestCommandVectors has kamcmd repeat what the scripts of the recordings did:
// each recorded log line by hlog_cid, each made-up message by sip_trace_msg, with
// the recorded configuration. The packets have to be the recorded ones but for
// their time and, of log lines, the two sockets.
func TestCommandVectors(t *testing.T) {
	t.Parallel()
	names, err := vectors.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		msg := strings.HasPrefix(name, "sip-trace-msg")
		if !msg && !strings.HasPrefix(name, "hlog") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := vectors.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			host := "127.0.0.1"
			if strings.HasPrefix(s.Datagrams[0].Dst, "[") {
				host = "::1"
			}
			sink := collect(t, "udp", host)
			to := uri(sink, "udp")
			d := start(t, options{config: s.Config, set: []string{"siptrace.duplicate_uri=" + to}})
			begin := time.Now()
			var recorded []vectors.HEP
			for _, g := range s.Datagrams {
				h, err := vectors.Decode(g.Packet)
				if err != nil {
					t.Fatal(err)
				}
				args := []string{"siptrace.hlog_cid", string(h.Correlation), string(h.Payload)}
				switch {
				case msg:
					proto := map[byte]string{17: "udp:", 6: "tcp:"}[h.Proto]
					args = []string{"siptrace.sip_trace_msg", string(h.Payload), proto + h.Src.String(), proto + h.Dst.String(), to, string(h.Correlation)}
				case h.Type != 100:
					continue // a message of the same run
				}
				if out, err := d.kamcmd(t, args...); err != nil || strings.Contains(out, "error") {
					t.Fatalf("%q: %v, %s", args, err, out)
				}
				recorded = append(recorded, h)
			}
			await(t, d, len(recorded), sink)
			d.stop(t)
			got := closed(t, sink)
			from := sink.Received()[0].From
			var want [][]byte
			for _, h := range recorded {
				if !msg {
					h.Src, h.Dst = from, sink.Addr()
				}
				want = append(want, h.Encode())
			}
			t.Logf("%d packets", len(got))
			report(t, "packets", atAnyTime(t, want, got, begin))
		})
	}
}
