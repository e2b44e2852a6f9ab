package spooltool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/capture"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 123457000, time.UTC)

// sip is a message of that many bytes in its body.
func sip(callID string, body int) []byte {
	text := strings.Repeat("x", body)
	return fmt.Appendf(nil, "MESSAGE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%s\r\nFrom: <sip:alice@example.net>;tag=1\r\n"+
		"To: <sip:bob@example.net>\r\nCall-ID: %s\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", callID, callID, body, text)
}

// record is a message between two ends, i milliseconds after the start.
func record(callID string, proto siptrace.Proto, from, to string, i, body int) siptrace.Record {
	return siptrace.Record{
		Time: start.Add(time.Duration(i) * time.Millisecond), CallID: []byte(callID), Method: []byte("MESSAGE"), Msg: sip(callID, body),
		From: siptrace.Endpoint{Proto: proto, Addr: netip.MustParseAddrPort(from)}, To: siptrace.Endpoint{Proto: proto, Addr: netip.MustParseAddrPort(to)},
		FromTag: []byte("1"), Direction: siptrace.In, Route: siptrace.Route{Sinks: siptrace.ToStore},
	}
}

// foreign is a packet of RTCP as it came by HEP.
func foreign(t testing.TB) siptrace.Record {
	t.Helper()
	p := hep.Packet{
		Version: 3, Type: hep.TypeRTCP, Proto: hep.UDP, Src: netip.MustParseAddrPort("192.0.2.1:4001"), Dst: netip.MustParseAddrPort("192.0.2.2:4001"),
		HasTime: true, Sec: uint32(start.Unix()), AuthKey: []byte("secret"), CorrelationID: []byte("rtcp"), Payload: []byte("{}"),
	}
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := siptrace.Record{Time: start, CallID: []byte("rtcp"), Packet: b, Type: hep.TypeRTCP, Route: siptrace.Route{Sinks: siptrace.ToHEP}}
	rec.Source = netip.MustParseAddrPort("192.0.2.9:33000")
	return rec
}

// written is what an encoder makes of records.
func written(t testing.TB, f Format, recs ...siptrace.Record) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := newEncoder(f, &out)
	if err != nil {
		t.Fatal(err)
	}
	for i := range recs {
		if err := e.write(&message{rec: recs[i], taken: recs[i].Time.Add(time.Second), shard: 1, seq: 7}); err != nil && !errors.Is(err, errTooLarge) {
			t.Fatal(err)
		}
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read is what replay finds in a dump: transport, ends, time and payload.
func read(t testing.TB, dump []byte, empty ...bool) (got []string) {
	t.Helper()
	err := capture.Read(bytes.NewReader(dump), func(i capture.Item) error {
		if i.Packet == nil {
			got = append(got, fmt.Sprint(i.Problem))
			return nil
		}
		p := hep.Packet{Payload: i.Packet.Data, Src: i.Packet.Source, Dst: i.Packet.Local}
		at, proto := i.Packet.Time, i.Packet.Net
		if hep.Detect(i.Packet.Data) == 3 {
			if err := p.Decode(i.Packet.Data); err != nil {
				return err
			}
			at, proto = time.Unix(int64(p.Sec), int64(p.Usec)*1000), string(hepmap.Transport(p.Proto))
		}
		if p.AuthKey != nil {
			t.Errorf("a dump has the key %q", p.AuthKey)
		}
		got = append(got, fmt.Sprintf("%s %s %s %s %d %x", proto, p.Src, p.Dst, at.Sub(start), len(p.Payload), p.Payload[max(0, len(p.Payload)-3):]))
		return nil
	})
	if err != nil && !(errors.Is(err, capture.ErrEmpty) && slices.Contains(empty, true)) {
		t.Error(err)
	}
	return got
}

// TestReadBack: what a dump has is what the records have, whatever the format.
func TestReadBack(t *testing.T) {
	const a, b, a6, b6 = "192.0.2.1:5060", "192.0.2.2:5070", "[2001:db8::1]:5060", "[2001:db8::2]:5061"
	noLength := record("nolength", siptrace.TCP, a, b, 6, 10)
	noLength.Msg = bytes.Replace(noLength.Msg, []byte("Content-Length: 10"), []byte("Content-Length: 99"), 1)
	size := func(body int) int { return len(sip("c", body)) }
	hepOf := func(rec siptrace.Record) int {
		p := hep.Packet{}
		if err := p.Decode(rec.Packet); err != nil {
			t.Fatal(err)
		}
		return len(p.Payload)
	}
	rtcp := foreign(t)
	tests := []struct {
		name                 string
		rec                  siptrace.Record
		hep, pcapng, jsonOut string // "" as hep
	}{
		{"UDP", record("c", siptrace.UDP, a, b, 0, 10), fmt.Sprintf("udp %s %s 0s %d 787878", a, b, size(10)), "", ""},
		{"UDP over IPv6", record("c", siptrace.UDP, a6, b6, 1, 10), fmt.Sprintf("udp %s %s 1ms %d 787878", a6, b6, size(10)), "", ""},
		{"TCP", record("c", siptrace.TCP, a, b, 2, 10), fmt.Sprintf("tcp %s %s 2ms %d 787878", a, b, size(10)), "", ""},
		{"TCP once more", record("c", siptrace.TCP, a, b, 3, 20), fmt.Sprintf("tcp %s %s 3ms %d 787878", a, b, size(20)), "", ""},
		{"TCP the other way", record("c", siptrace.TCP, b, a, 4, 20), fmt.Sprintf("tcp %s %s 4ms %d 787878", b, a, size(20)), "", ""},
		{"TLS", record("c", siptrace.TLS, a6, b6, 5, 10), fmt.Sprintf("tls %s %s 5ms %d 787878", a6, b6, size(10)), fmt.Sprintf("tcp %s %s 5ms %d 787878", a6, b6, size(10)), ""},
		{"TCP with a length that is wrong", noLength, fmt.Sprintf("tcp %s %s 6ms %d 787878", a, b, len(noLength.Msg)), fmt.Sprintf("udp %s %s 6ms %d 787878", a, b, len(noLength.Msg)), ""},
		{"SCTP", record("c", siptrace.SCTP, a, b, 7, 10), fmt.Sprintf("sctp %s %s 7ms %d 787878", a, b, size(10)), fmt.Sprintf("udp %s %s 7ms %d 787878", a, b, size(10)), ""},
		{
			"two families", record("c", siptrace.UDP, a, b6, 8, 10), fmt.Sprintf("udp %s %s 8ms %d 787878", a, b6, size(10)),
			fmt.Sprintf("udp %s %s 8ms %d 787878", a, b6, size(10)), "",
		},
		{
			"larger than HEP", record("c", siptrace.TCP, a, b, 9, 100_000), "",
			fmt.Sprintf("tcp %s %s 9ms %d 787878", a, b, size(100_000)), fmt.Sprintf("tcp %s %s 9ms %d 787878", a, b, size(100_000)),
		},
		{"RTCP", rtcp, fmt.Sprintf("udp 192.0.2.1:4001 192.0.2.2:4001 -123.457ms %d 7b7d", hepOf(rtcp)), "", ""},
	}
	want, recs := map[Format][]string{}, []siptrace.Record(nil)
	for _, tt := range tests {
		recs = append(recs, tt.rec)
		for f, text := range map[Format]string{HEP: tt.hep, PCAPNG: tt.pcapng, JSON: tt.jsonOut} {
			if text == "" {
				text = tt.hep
			}
			if text != "" {
				want[f] = append(want[f], text)
			}
		}
	}
	for _, f := range Formats() {
		got := read(t, written(t, f, recs...))
		for i := range max(len(got), len(want[f])) {
			if g, w := at(got, i), at(want[f], i); g != w {
				t.Errorf("%s %d:\n got %s\nwant %s", f, i, g, w)
			}
		}
	}
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "nothing"
}

// TestWireshark: tshark dissects each message of a pcapng dump as SIP, with its
// transport and ends, whatever the port; what is no SIP is HEP for the port that HEP has.
func TestWireshark(t *testing.T) {
	rec := func(proto siptrace.Proto, from, to string, i, body int) siptrace.Record {
		return record("c", proto, from, to, i, body)
	}
	tagged := rec(siptrace.UDP, "192.0.2.1:5060", "192.0.2.2:5060", 0, 10)
	tagged.VLAN = 17
	tests := []struct {
		rec  siptrace.Record
		want string
	}{
		{tagged, "17 1772366400.123457000 192.0.2.1  192.0.2.2  5060 5060   MESSAGE c"},
		{rec(siptrace.UDP, "[2001:db8::1]:5060", "[2001:db8::2]:5090", 1, 10), " 1772366400.124457000  2001:db8::1  2001:db8::2 5060 5090   MESSAGE c"},
		{rec(siptrace.TCP, "192.0.2.1:5060", "192.0.2.2:5070", 2, 10), " 1772366400.125457000 192.0.2.1  192.0.2.2    5060 5070 MESSAGE c"},
		{rec(siptrace.TCP, "192.0.2.1:5060", "192.0.2.2:5070", 3, 20), " 1772366400.126457000 192.0.2.1  192.0.2.2    5060 5070 MESSAGE c"},
		{rec(siptrace.TCP, "192.0.2.2:5070", "192.0.2.1:5060", 4, 20), " 1772366400.127457000 192.0.2.2  192.0.2.1    5070 5060 MESSAGE c"},
		{rec(siptrace.TLS, "[2001:db8::1]:40000", "[2001:db8::2]:5061", 5, 10), " 1772366400.128457000  2001:db8::1  2001:db8::2   40000 5061 MESSAGE c"},
		{rec(siptrace.WSS, "192.0.2.1:40001", "192.0.2.2:443", 6, 10), " 1772366400.129457000 192.0.2.1  192.0.2.2    40001 443 MESSAGE c"},
		{rec(siptrace.UDP, "192.0.2.1:40001", "192.0.2.2:40002", 7, 30_000), " 1772366400.130457000 192.0.2.1  192.0.2.2  40001 40002   MESSAGE c"},
		{foreign(t), " 1772366400.123457000 192.0.2.9  0.0.0.0  33000 9060    "},
	}
	var recs []siptrace.Record
	for _, tt := range tests {
		recs = append(recs, tt.rec)
	}
	file := filepath.Join(t.TempDir(), "dump.pcapng")
	if err := os.WriteFile(file, written(t, PCAPNG, recs...), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-r", file, "-n", "-T", "fields", "-E", "separator= "}
	for _, f := range []string{"vlan.id", "frame.time_epoch", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "udp.srcport", "udp.dstport", "tcp.srcport", "tcp.dstport", "sip.Method", "sip.Call-ID"} {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	for i, tt := range tests {
		if at(got, i) != tt.want {
			t.Errorf("%d:\n got %q\nwant %q", i, at(got, i), tt.want)
		}
	}
	if len(got) != len(tests) {
		t.Errorf("%d frames, want %d", len(got), len(tests))
	}
	// What Wireshark's expert finds suspicious: checksums, lengths, order.
	out, err = exec.Command("tshark", "-r", file, "-n", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-Y", "_ws.malformed or _ws.expert.severity >= 6291456", "-V").Output()
	if err != nil || len(out) > 0 {
		t.Errorf("the expert says: %v\n%s", err, out)
	}
}

// TestLine: a line of JSON has the columns of the row.
func TestLine(t *testing.T) {
	rec := record("c", siptrace.WSS, "192.0.2.1:5060", "192.0.2.2:443", 0, 0)
	rec.Users, rec.Table, rec.Status = [][]byte{[]byte("alice"), []byte("bob")}, "sip_trace_2", []byte("")
	rec.Sinks |= siptrace.ToListed
	var got map[string]any
	if err := json.Unmarshal(written(t, JSON, rec), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"time": "2026-03-01T12:00:00.123457Z", "t": "1.772366400123457e+09", "callid": "c", "method": "MESSAGE", "fromip": "wss:192.0.2.1:5060", "toip": "wss:192.0.2.2:443",
		"fromtag": "1", "direction": "in", "table": "sip_trace_2", "users": "[alice bob]", "sinks": "[database destinations]", "spooled": "2026-03-01T12:00:01.123457Z",
		"shard": "1", "batch": "7", "transport": "wss", "src": "192.0.2.1:5060", "dst": "192.0.2.2:443", "msg": string(rec.Msg),
	} {
		if text := fmt.Sprint(got[name]); text != want {
			t.Errorf("%s: got %q, want %q", name, text, want)
		}
		delete(got, name)
	}
	delete(got, "hex") // TestReadBack
	if len(got) > 0 {
		t.Errorf("also there: %v", got)
	}
	if _, err := newEncoder("pcap", nil); err == nil || !strings.Contains(err.Error(), "pcapng") {
		t.Errorf("another format: %v", err)
	}
	if !slices.Equal(Formats(), []Format{HEP, PCAPNG, JSON}) {
		t.Errorf("formats %v", Formats())
	}
}
