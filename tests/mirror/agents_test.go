package mirror

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// The proxy's address in the calls over IPv6.
var proxy6 = netip.MustParseAddrPort("[2001:db8::1]:5060")

// agentTraffic is what agents get to see: calls, and a large message. It fits into the
// buffer that a socket has by default, as no agent waits for its receiver.
func agentTraffic(begin time.Time) []load.Message {
	list := load.Calls(60, begin)
	at := begin.Add(time.Second)
	large := message("large@198.51.100.10", "", 3100)
	src := netip.MustParseAddrPort("198.51.100.10:5062")
	return append(list, load.Message{CallID: "large@198.51.100.10", Payload: large, Packet: load.HEP3(load.UDP, src, load.Proxy, at, []byte(large))})
}

// over6 is a call over IPv6.
func over6(tb testing.TB, begin time.Time) []load.Message {
	tb.Helper()
	list := load.Call(load.Spec{CallID: "six@2001:db8::10"}, begin)
	for i, m := range list {
		p := decoded(tb, m.Packet)
		six := func(a netip.AddrPort) netip.AddrPort {
			if a == load.Proxy {
				return proxy6
			}
			return netip.AddrPortFrom(netip.MustParseAddr("2001:db8::10"), a.Port())
		}
		list[i].Packet = load.HEP3(p.Proto, six(p.Src), six(p.Dst), p.Time, p.Payload)
	}
	return list
}

func decoded(tb testing.TB, packet []byte) vectors.HEP {
	tb.Helper()
	p, err := vectors.Decode(packet)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// rowsOf are the rows that messages have to give.
func rowsOf(tb testing.TB, list []load.Message) []vectors.Row {
	tb.Helper()
	var rows []vectors.Row
	for _, m := range list {
		r, err := vectors.RowOf(m.Packet)
		if err != nil {
			tb.Fatal(err)
		}
		if r.Direction = "in"; m.Out {
			r.Direction = "out"
		}
		rows = append(rows, r)
	}
	return rows
}

// wire are messages as they went over the wire.
func wire(tb testing.TB, list []load.Message) []datagram {
	tb.Helper()
	var out []datagram
	for _, m := range list {
		p := decoded(tb, m.Packet)
		out = append(out, datagram{p.Time, p.Src, p.Dst, p.Payload})
	}
	return out
}

// hepJSInfo is what hep-js knows of a packet beside its payload.
type hepJSInfo struct {
	ProtocolFamily int    `json:"protocolFamily"`
	Protocol       byte   `json:"protocol"`
	SrcIP          string `json:"srcIp"`
	DstIP          string `json:"dstIp"`
	SrcPort        uint16 `json:"srcPort"`
	DstPort        uint16 `json:"dstPort"`
	TimeSeconds    int64  `json:"timeSeconds"`
	TimeUseconds   int    `json:"timeUseconds"`
	PayloadType    byte   `json:"payloadType"`
	CaptureID      uint32 `json:"captureId"`
	CapturePass    string `json:"capturePass"`
	HEPNodeName    string `json:"hepNodeName,omitempty"`
}

type hepJSMessage struct {
	RCInfo  hepJSInfo `json:"rcinfo"`
	Payload string    `json:"payload"`
}

// forHEPJS are messages as hep-js has them.
func forHEPJS(tb testing.TB, list []load.Message, id uint32, pass, node string) (out []hepJSMessage) {
	tb.Helper()
	for _, m := range list {
		p := decoded(tb, m.Packet)
		out = append(out, hepJSMessage{Payload: m.Payload, RCInfo: hepJSInfo{
			ProtocolFamily: 2, Protocol: p.Proto, SrcIP: p.Src.Addr().String(), DstIP: p.Dst.Addr().String(), SrcPort: p.Src.Port(), DstPort: p.Dst.Port(),
			TimeSeconds: p.Time.Unix(), TimeUseconds: p.Time.Nanosecond() / 1000, PayloadType: p.Type, CaptureID: id, CapturePass: pass, HEPNodeName: node,
		}})
	}
	return out
}

// text is a message to be compared.
func (m hepJSMessage) text() []byte { return fmt.Appendf(nil, "%+v: %s", m.RCInfo, m.Payload) }

// agent is a program that captures, and what it sends.
type agent struct {
	name, network string
	fed6, sends6  bool // it gets to see IPv6, and sends it
	captureID     uint32
	nodeName      string
	send          func(t *testing.T, list []load.Message, port int)
}

func agents(js *servers.NodeScript) []agent {
	capture := func(name, url string, args ...string) func(*testing.T, []load.Message, int) {
		return func(t *testing.T, list []load.Message, port int) {
			t.Helper()
			servers.Run(t, name, append(args, "-I", pcapOf(t, wire(t, list)), "-H", url+strconv.Itoa(port))...)
		}
	}
	encode := func(network string) func(*testing.T, []load.Message, int) {
		return func(t *testing.T, list []load.Message, port int) {
			t.Helper()
			var lines bytes.Buffer
			enc := json.NewEncoder(&lines)
			for _, m := range forHEPJS(t, list, 2222, "secret", "sbc-berlin") {
				if err := enc.Encode(m); err != nil {
					t.Fatal(err)
				}
			}
			js.Run(t, lines.String(), "encode", network, strconv.Itoa(port))
		}
	}
	return []agent{
		// These two shift their ids, 2002 and 101, by 16 bits.
		{name: "sngrep", network: "udp", fed6: true, sends6: true, captureID: 2002 << 16, send: capture("sngrep", "udp:127.0.0.1:", "-F", "-N", "-q")},
		{name: "sipgrep", network: "udp", fed6: true, captureID: 101 << 16, send: capture("sipgrep", "udp:127.0.0.1:", "-R")},
		{name: "hep-js over UDP", network: "udp", captureID: 2222, nodeName: "sbc-berlin", send: encode("udp")},
		{name: "hep-js over TCP", network: "tcp", captureID: 2222, nodeName: "sbc-berlin", send: encode("tcp")},
	}
}

// TestAgents has programs that capture send HEP3 to siptraced: the rows have to be
// those of the wire, and a mirror has to get what the agent sent, its capture id and
// node name among it. hep-js reads what siptraced mirrors, too.
func TestAgents(t *testing.T) {
	t.Parallel()
	js := servers.NewNodeScript(t, "testdata/hepjs", "hepjs.js")
	for _, a := range agents(js) {
		t.Run(a.name, a.test)
	}
	t.Run("hep-js reads", func(t *testing.T) { hepJSReads(t, js) })
}

func (a agent) test(t *testing.T) {
	port, sink := servers.FreePort(t), collect(t, "udp", "127.0.0.1")
	d := start(t, options{network: a.network, port: port, set: []string{
		fmt.Sprintf("local=udp:%v,udp:%v", load.Proxy, proxy6), "destinations=" + uri(sink, "udp") + ";capture_id=incoming",
	}})
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	want := agentTraffic(begin)
	fed := want
	if a.fed6 {
		fed = append(slices.Clone(want), over6(t, begin.Add(2*time.Second))...)
	}
	if a.sends6 {
		want = fed
	}
	a.send(t, fed, port)
	d.fed = len(want)
	await(t, d, len(want), sink)
	d.settle(t)
	if c := d.stop(t); c[servers.Received] != int64(len(want)) {
		t.Errorf("received %d packets, want %d", c[servers.Received], len(want))
	}
	report(t, "rows", diffRows(rowsOf(t, want), d.table.rows(t)))

	line := func(p vectors.HEP, id uint32, node []byte) []byte {
		return fmt.Appendf(nil, "%v>%v %d %d %v id %d node %q: %s", p.Src, p.Dst, p.Proto, p.Type, p.Time, id, node, p.Payload)
	}
	var wantOut, gotOut [][]byte
	for _, m := range want {
		wantOut = append(wantOut, line(decoded(t, m.Packet), a.captureID, []byte(a.nodeName)))
	}
	for _, p := range closed(t, sink) {
		chunks, err := vectors.Chunks(p)
		if err != nil {
			t.Fatal(err)
		}
		h := decoded(t, p)
		gotOut = append(gotOut, line(h, h.CaptureID, chunks[chunkNodeName]))
	}
	report(t, "mirrored", diffCalls(wantOut, gotOut))
}

func hepJSReads(t *testing.T, js *servers.NodeScript) {
	ports := servers.FreePorts(t, 2)
	collectors := map[string]*servers.Process{}
	text := "destinations:\n"
	for i, network := range []string{"udp", "tcp"} {
		collectors[network] = js.Listen(t, network, ports[i], "decode", network, strconv.Itoa(ports[i]))
		text += fmt.Sprintf("  - {uri: \"sip:127.0.0.1:%d;transport=%s\", name: %s, capture_id: 2001, auth_key: secret}\n", ports[i], network, network)
	}
	d := start(t, options{yaml: text})
	list := agentTraffic(time.Now().Add(-time.Hour).Truncate(time.Second))
	for part := range slices.Chunk(list, 30) { // its socket is small
		d.feed(t, packets(part)...)
		for network, p := range collectors {
			servers.WaitFor(t, patience, "hep-js over "+network+" to have the packets", func() bool {
				return !p.Running() || strings.Count(p.Stdout(), "\n") >= d.fed
			})
		}
	}
	var want [][]byte
	for _, m := range forHEPJS(t, list, 2001, "secret", "") {
		want = append(want, m.text())
	}
	for network, p := range collectors {
		var got [][]byte
		for line := range strings.Lines(p.Stdout()) {
			var m hepJSMessage
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("%s: %q: %v", network, line, err)
			}
			got = append(got, m.text())
		}
		report(t, network, diffCalls(want, got))
	}
	d.stop(t)
}

// tap passes on what comes to an address, and keeps a copy.
type tap struct {
	addr string
	mu   sync.Mutex // covers copy
	copy bytes.Buffer
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.copy.Write(b)
}

func (p *tap) bytes() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.copy.Bytes())
}

// newTap passes on the datagrams, or the bytes of one connection.
func newTap(t *testing.T, network, to string) *tap {
	t.Helper()
	p := &tap{addr: fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t))}
	out, err := net.Dial(network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	if network == "udp" {
		in, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(p.addr)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close() })
		go func() { _, _ = io.Copy(out, io.TeeReader(in, p)) }() // ends with the socket
		return p
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		if in, err := l.Accept(); err == nil {
			defer in.Close()
			_, _ = io.Copy(out, io.TeeReader(in, p))
		}
	}()
	return p
}

// senderReport is RTCP's SR with an SDES (RFC 3550 §6.4.1, §6.5).
func senderReport(ssrc, n uint32) []byte {
	b := []byte{0x80, 200, 0, 6}
	for _, v := range []uint32{ssrc, 0xe0000000 + n, 1 << 31, 1000 + n, 50 + n, 8000 + n} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(b, 0x81, 202, 0, 3)
	b = binary.BigEndian.AppendUint32(b, ssrc)
	return append(b, 1, 4, 'n', 'a', 'm', 'e', 0, 0)
}

// mediaCall has rtpengine set up a call between two phones, known by the addresses of
// their RTCP, and returns where each of them sends its own.
func mediaCall(t *testing.T, engine *servers.RTPEngine, call string, phones [2]net.PacketConn) (to [2]*net.UDPAddr) {
	t.Helper()
	for i, command := range [2][][2]string{
		{{"call-id", call}, {"command", "offer"}, {"from-tag", "a"}},
		{{"call-id", call}, {"command", "answer"}, {"from-tag", "a"}, {"to-tag", "b"}},
	} {
		rtcp := phones[i].LocalAddr().(*net.UDPAddr).Port
		sdp := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\na=rtcp:%d\r\n", rtcp-1, rtcp)
		answer := engine.Command(t, append(command, [2]string{"sdp", sdp})...)
		m := regexp.MustCompile(`a=rtcp:(\d+)`).FindStringSubmatch(answer)
		if m == nil {
			t.Fatalf("rtpengine: %s", answer)
		}
		port, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		to[1-i] = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	}
	return to
}

// TestRTPEngine has a real rtpengine report the RTCP of a call: what it sends is no
// SIP, and goes to a mirror as it came.
func TestRTPEngine(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) { testRTPEngine(t, network) })
	}
}

func testRTPEngine(t *testing.T, network string) {
	const reports, captureID, call = 5, 4711, "media@198.51.100.10"
	sink := collect(t, network, "127.0.0.1")
	d := start(t, options{network: network, set: []string{"destinations=" + uri(sink, network) + ";capture_id=2001"}})
	between := newTap(t, network, d.addr)
	engine := servers.StartRTPEngine(t, between.addr, network, captureID)
	var phones [2]net.PacketConn
	for i := range phones {
		c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		phones[i] = c
	}
	to := mediaCall(t, engine, call, phones)
	for n := range uint32(reports) {
		for i, c := range phones {
			if _, err := c.WriteTo(senderReport(0x1111*uint32(i+1), n), to[i]); err != nil {
				t.Fatal(err)
			}
		}
		// Over TCP rtpengine keeps its very first packet until it has another one.
		d.fed += len(phones)
		await(t, d, d.fed, sink)
	}
	d.settle(t)
	if c := d.stop(t); c[servers.Received] != int64(d.fed) || c["store.rows"] != 0 {
		t.Errorf("received %d packets, %d rows, want %d and none", c[servers.Received], c["store.rows"], d.fed)
	}
	got := closed(t, sink)
	if want := between.bytes(); !bytes.Equal(bytes.Join(got, nil), want) {
		t.Errorf("got\n%q\nwant\n%q", bytes.Join(got, nil), want)
	}
	left := map[string]bool{} // what the reports say; two phones' may overtake each other
	for i := range len(got) {
		left[fmt.Sprintf(`"packets":%d},"ssrc":%d,`, 50+i/2, 0x1111*(i%2+1))] = true
	}
	for i, p := range got {
		h := decoded(t, p)
		if h.Type != 5 || h.CaptureID != captureID || string(h.Correlation) != call {
			t.Errorf("packet %d: type %d, capture id %d, correlation id %q, want 5, %d, %q", i, h.Type, h.CaptureID, h.Correlation, captureID, call)
		}
		delete(left, regexp.MustCompile(`"packets":\d+},"ssrc":\d+,`).FindString(string(h.Payload)))
	}
	if len(left) > 0 {
		t.Errorf("%d reports are missing: %v", len(left), left)
	}
}
