package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// refusing makes a table that takes no row of calls that begin with "bad"; allow
// takes that back.
func refusing(t *testing.T, d *database) (allow func()) {
	t.Helper()
	if d.kind == "sqlite" {
		d.exec(t, "CREATE TRIGGER nobad BEFORE INSERT ON sip_trace WHEN NEW.callid LIKE 'bad%' BEGIN SELECT RAISE(ABORT, 'no bad calls'); END")
		return func() { d.exec(t, "DROP TRIGGER nobad") }
	}
	d.exec(t, "ALTER TABLE sip_trace ADD CONSTRAINT nobad CHECK (callid NOT LIKE 'bad%')")
	return func() { d.exec(t, "ALTER TABLE sip_trace DROP CONSTRAINT nobad") }
}

// TestReplayRows: rows that the database refused go into the table once it takes them,
// as they would have been, each of them once: also when replay is killed, and when it
// runs again.
func TestReplayRows(t *testing.T) {
	t.Parallel()
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		replayRows(t, mariaDB(t, servers.StartMariaDB(t), "replay", "utf8mb4"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		replayRows(t, postgres(t, servers.StartPostgres(t), "replay"))
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		replayRows(t, sqliteFile(t, filepath.Join(t.TempDir(), "replay.db")))
	})
}

func replayRows(t *testing.T, d *database) {
	d.createTable(t, nil)
	if d.kind == "sqlite" {
		d.exec(t, "PRAGMA journal_mode=WAL")
	}
	allow := refusing(t, d)
	rules := write(t, filepath.Join(t.TempDir(), "rules.yaml"), "- {id: users, filter: \"request.method == 'INVITE'\", users: [alice, bob]}\n")
	run := start(t, options{dbURL: d.url, set: []string{"rules=" + rules, "siptrace.trace_on=1", "siptrace.trace_to_database=1"}})
	const calls, each = 60, 3 // rows of each: for nobody, for alice, for bob
	for i := range calls {
		run.feed(t, "udp", good(fmt.Sprintf("bad-%d", i)))
	}
	run.feed(t, "udp", good("fine"))
	d.await(t, run, "sip_trace", each, time.Minute)
	servers.WaitFor(t, time.Minute, "the rows to be refused", func() bool { return run.CountersNow(t)[servers.Aside] == calls })
	file := filepath.Join(run.Dir, "siptraced.rejects.jsonl")
	replay := servers.Command{Bin: program, Dir: run.Dir, Args: []string{"replay", file, "--set", "siptrace.db_url=" + d.url}}
	total := calls * each
	expect := func(code int, want ...string) {
		t.Helper()
		r := servers.RunSiptraced(t, replay)
		for _, w := range want {
			if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, w) {
				t.Errorf("exit code %d, want %d and %q\n%.2000s%s", r.Code, code, w, r.Stdout, r.Stderr)
			}
		}
	}
	expect(1, "rows: 0 put back, 0 were put back before", "NOT put back: 1: row of call \"bad-", "not everything was put back")
	if n := d.count("sip_trace"); n != each {
		t.Errorf("%d rows, want %d", n, each)
	}
	allow()
	for range 6 {
		p := servers.StartProgram(t, replay)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t, time.Minute)
	}
	expect(0, "rows: ")
	expect(0, fmt.Sprintf("rows: 0 put back, %d were put back before", total))
	if n := d.count("sip_trace"); n != total+each {
		t.Errorf("%d rows, want %d", n, total+each)
	}
	// As the ones that were taken at once.
	key := func(callid string) []string {
		return d.dump(t, "SELECT traced_user, direction, fromip, toip, method, fromtag <> '' AS tagged, msg LIKE '%"+callid+"%' AS message FROM sip_trace WHERE callid = '"+callid+"' ORDER BY traced_user")
	}
	fine := key("fine")
	for i := range calls {
		if got := key(fmt.Sprintf("bad-%d", i)); !slices.Equal(got, fine) {
			t.Fatalf("call %d: got\n%s\nwant\n%s", i, strings.Join(got, "\n"), strings.Join(fine, "\n"))
		}
	}
	run.stop(t)
}

// pcapFile writes frames.
type pcapFile struct {
	buf    bytes.Buffer
	w      *pcapgo.Writer
	at     time.Time
	id     uint16
	tcpSeq map[string]uint32
}

func newPcap(t *testing.T, at time.Time) *pcapFile {
	t.Helper()
	p := &pcapFile{at: at, tcpSeq: map[string]uint32{}}
	p.w = pcapgo.NewWriter(&p.buf)
	if err := p.w.WriteFileHeader(65536, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pcapFile) frame(t *testing.T, layer ...gopacket.SerializableLayer) {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, layer...); err != nil {
		t.Fatal(err)
	}
	p.at = p.at.Add(time.Millisecond)
	if err := p.w.WritePacket(gopacket.CaptureInfo{Timestamp: p.at, CaptureLength: len(b.Bytes()), Length: len(b.Bytes())}, b.Bytes()); err != nil {
		t.Fatal(err)
	}
}

func (p *pcapFile) ip(src, dst netip.AddrPort, proto layers.IPProtocol) *layers.IPv4 {
	p.id++
	return &layers.IPv4{Version: 4, TTL: 64, Id: p.id, Protocol: proto, SrcIP: net.IP(src.Addr().AsSlice()), DstIP: net.IP(dst.Addr().AsSlice())}
}

// udp writes a datagram, in fragments if it is larger than an Ethernet frame.
func (p *pcapFile) udp(t *testing.T, src, dst netip.AddrPort, payload []byte) {
	t.Helper()
	ip := p.ip(src, dst, layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	const most = 1400
	if len(payload) <= most {
		p.frame(t, ip, udp, gopacket.Payload(payload))
		return
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, udp, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	rest := b.Bytes()
	for at := 0; at < len(rest); at += most {
		part := *ip
		end := min(at+most, len(rest))
		if part.FragOffset = uint16(at / 8); end < len(rest) {
			part.Flags = layers.IPv4MoreFragments
		}
		p.frame(t, &part, gopacket.Payload(rest[at:end]))
	}
}

// tcp writes segments of one direction, of so many bytes each; swap lets two of them
// change places.
func (p *pcapFile) tcp(t *testing.T, src, dst netip.AddrPort, data []byte, size int, swap bool) {
	t.Helper()
	type segment struct {
		seq  uint32
		data []byte
	}
	key := src.String() + dst.String()
	if p.tcpSeq[key] == 0 {
		p.tcpSeq[key] = 1000
	}
	var list []segment
	for part := range slices.Chunk(data, size) {
		list = append(list, segment{p.tcpSeq[key], part})
		p.tcpSeq[key] += uint32(len(part))
	}
	if n := len(list); swap && n > 2 {
		list[n-1], list[n-2] = list[n-2], list[n-1]
	}
	for _, s := range list {
		ip := p.ip(src, dst, layers.IPProtocolTCP)
		tcp := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: s.seq, ACK: true, Ack: 1, Window: 65535}
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		p.frame(t, ip, tcp, gopacket.Payload(s.data))
	}
}

// options are a SIP request of a call.
func optionsOf(callID string, body int) []byte {
	return fmt.Appendf(nil, "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK%s\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\n"+
		"Call-ID: %s\r\nCSeq: 1 OPTIONS\r\nContent-Length: %d\r\n\r\n%s", callID, callID, body, strings.Repeat("x", body))
}

// TestReplayCapture: the messages of a capture become rows with the ends and times
// that they had, each of them once.
func TestReplayCapture(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)
	phone, proxy := netip.MustParseAddrPort("192.0.2.9:5062"), netip.MustParseAddrPort("192.0.2.1:5060")
	agent, collector := netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("192.0.2.2:9060")
	inHEP := func(callID string) []byte {
		return load.HEP3(load.UDP, phone, proxy, at.Add(-time.Hour), optionsOf(callID, 0))
	}
	p := newPcap(t, at)
	p.udp(t, phone, proxy, optionsOf("sip-udp", 10))
	p.udp(t, phone, proxy, optionsOf("sip-fragments", 5000))
	p.tcp(t, phone, proxy, slices.Concat(optionsOf("sip-tcp-1", 3000), optionsOf("sip-tcp-2", 20)), 700, true)
	p.tcp(t, proxy, phone, optionsOf("sip-tcp-back", 100), 90, false)
	p.udp(t, agent, collector, inHEP("hep3-udp"))
	p.tcp(t, agent, collector, slices.Concat(inHEP("hep3-tcp-1"), inHEP("hep3-tcp-2")), 100, true)
	p.udp(t, agent, collector, hep1(phone, proxy, optionsOf("hep1", 0)))
	p.udp(t, phone, proxy, []byte("\x80\x00 RTP and its kin"))
	p.tcp(t, netip.MustParseAddrPort("192.0.2.9:50000"), netip.MustParseAddrPort("192.0.2.1:443"), []byte("\x16\x03\x01 something in TLS"), 100, false)
	var stream []byte
	for i := range 700 { // more than one acknowledgement
		stream = append(stream, inHEP(fmt.Sprintf("stream-%d", i))...)
	}
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pcap, hep3 := file("calls.pcap", p.buf.Bytes()), file("stream.hep", stream)
	run := start(t, options{network: "tcp", env: []string{"TZ=UTC"}, set: []string{"local=udp:192.0.2.1:5060"}})
	db := sqliteFile(t, filepath.Join(run.Dir, "siptraced.db"))
	replay := func(code int, want string, args ...string) {
		t.Helper()
		r := siptraced(t, code, append([]string{"replay", "--to", run.addr}, args...)...)
		if !strings.Contains(r.Stdout+r.Stderr, want) {
			t.Errorf("%q: %q is not in\n%s%s", args, want, r.Stdout, r.Stderr)
		}
	}
	replay(0, "messages: 9 acknowledged", pcap)
	replay(0, "left out: 2 (neither SIP nor HEP)", pcap)
	db.await(t, run, "sip_trace", 9, time.Minute)
	replay(0, "messages: 700 acknowledged", hep3)
	db.await(t, run, "sip_trace", 709, time.Minute)
	servers.WaitFor(t, time.Minute, "the second time to be dropped", func() bool { return run.CountersNow(t)["dropped.repeated"] == 9 })
	for _, tt := range []struct{ call, from, to, time string }{
		{"sip-udp", "udp:192.0.2.9:5062", "udp:192.0.2.1:5060", "2025-03-04 05:06:07"},
		{"sip-fragments", "udp:192.0.2.9:5062", "udp:192.0.2.1:5060", "2025-03-04 05:06:07"},
		{"sip-tcp-1", "tcp:192.0.2.9:5062", "tcp:192.0.2.1:5060", "2025-03-04 05:06:07"},
		{"sip-tcp-2", "tcp:192.0.2.9:5062", "tcp:192.0.2.1:5060", "2025-03-04 05:06:07"},
		{"sip-tcp-back", "tcp:192.0.2.1:5060", "tcp:192.0.2.9:5062", "2025-03-04 05:06:07"},
		{"hep3-udp", "udp:192.0.2.9:5062", "udp:192.0.2.1:5060", "2025-03-04 04:06:07"},
		{"hep3-tcp-2", "udp:192.0.2.9:5062", "udp:192.0.2.1:5060", "2025-03-04 04:06:07"},
		{"hep1", "udp:192.0.2.9:5062", "udp:192.0.2.1:5060", "2025-03-04 05:06:07"},
	} {
		got := db.value(t, "SELECT fromip || ' ' || toip || ' ' || time_stamp FROM sip_trace WHERE callid = ?", tt.call)
		if want := tt.from + " " + tt.to + " " + tt.time; got != want {
			t.Errorf("%s: got %s, want %s", tt.call, got, want)
		}
	}
	if got, want := db.value(t, "SELECT msg FROM sip_trace WHERE callid = 'sip-fragments'"), string(optionsOf("sip-fragments", 5000)); got != want {
		t.Errorf("the message in fragments: %d bytes, want %d", len(got), len(want))
	}
	replay(0, "left out: 5 (sip, which was not asked for)", "--only", "hep", pcap)
	cut := newPcap(t, at)
	cut.udp(t, agent, collector, inHEP("cut")[:80])
	replay(1, "NOT put back: 1: message: hep:", file("cut.pcap", cut.buf.Bytes()))
	replay(0, "messages: 9 acknowledged", "--again", pcap)
	db.await(t, run, "sip_trace", 718, time.Minute)

	// One that is killed on the way, and a siptraced that is.
	more := file("more.hep", bytes.ReplaceAll(stream, []byte("stream-"), []byte("second-")))
	for range 4 {
		p := servers.StartProgram(t, servers.Command{Bin: program, Args: []string{"replay", "--to", run.addr, more}})
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t, time.Minute)
	}
	replay(0, "messages: 700 acknowledged", more)
	db.await(t, run, "sip_trace", 1418, time.Minute)

	// Files that end within a message, as one does that is still being written: what is whole is put back.
	half := newPcap(t, at)
	for _, call := range []string{"half-1", "half-2", "half-3"} {
		half.udp(t, phone, proxy, optionsOf(call, 10))
	}
	replay(1, "messages: 2 acknowledged", file("half.pcap", half.buf.Bytes()[:half.buf.Len()-5]))
	replay(1, "messages: 2 acknowledged", file("half.hep", slices.Concat(inHEP("half-4"), inHEP("half-5"), inHEP("half-6")[:80])))
	db.await(t, run, "sip_trace", 1422, time.Minute)
	run.stop(t)
	if n := db.count("sip_trace"); n != 1422 {
		t.Errorf("%d rows, want 1422", n)
	}
	replay(1, "start siptraced, or name its listener", hep3)
	replay(1, "the last 256", hep3)
	replay(1, "no such file", filepath.Join(dir, "none"))
	replay(1, "neither pcap", file("text", []byte("something else")))
	replay(1, "is no plain file", dir)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	replay(1, "is no plain file", fifo) // nobody writes it: that would never end
	siptraced(t, 2, "replay")
	siptraced(t, 2, "replay", "--only", "rtp", pcap)
	r := siptraced(t, 1, "replay", "--set", "listen=udp:127.0.0.1:9", hep3)
	if !strings.Contains(r.Stderr, "--to") {
		t.Errorf("no TCP listener: %s", r.Stderr)
	}
}

// TestReplayProgress: on a terminal replay shows how far it is, and nothing of that
// where its output goes elsewhere.
func TestReplayProgress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "rejects.jsonl"), strings.Repeat(`{"id":"s/1/0","reason":"x","table":"sip_trace","packet":"bm8gcmVjb3Jk"}`+"\n", 5000))
	r := servers.RunSiptraced(t, servers.Command{Bin: "/usr/bin/script", Dir: dir, Args: []string{"-qfec", program + " replay " + file, "/dev/null"}})
	if !strings.Contains(r.Stdout, "% |") || !strings.Contains(r.Stdout, "NOT put back: 5000") && !strings.Contains(r.Stdout, "and 4900 more") {
		t.Errorf("on a terminal: %.500q", r.Stdout)
	}
	if r := siptraced(t, 1, "replay", file); strings.Contains(r.Stdout+r.Stderr, "%") {
		t.Errorf("to a file: %.500q %.500q", r.Stdout, r.Stderr)
	}
}

// hep1 is a packet of HEP version 1, which has no time (HEP specification, version 1).
func hep1(src, dst netip.AddrPort, payload []byte) []byte {
	b := []byte{1, 16, 2, 17}
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	return append(b, payload...)
}

// TestReplayNoted: a message that was refused for its X-Siptrace headers is in the
// reject file, and goes back in as it came.
func TestReplayNoted(t *testing.T) {
	t.Parallel()
	run := start(t, options{network: "tcp", set: []string{"siptrace.xheaders_read=1"}})
	db := sqliteFile(t, filepath.Join(run.Dir, "siptraced.db"))
	message := bytes.Replace(optionsOf("noted", 0), []byte("CSeq:"), []byte("X-Siptrace-Method: OPTIONS\r\nCSeq:"), 1)
	c := run.dial(t)
	if _, err := c.Write(message); err != nil {
		t.Fatal(err)
	}
	servers.WaitFor(t, time.Minute, "the message to be noted", func() bool {
		return strings.Contains(run.Stderr(), "they are noted in the reject file")
	})
	rejects := filepath.Join(run.Dir, "siptraced.rejects.jsonl")
	for range 2 {
		siptraced(t, 0, "replay", "--to", run.addr, rejects)
	}
	db.await(t, run, "sip_trace", 1, time.Minute)
	run.stop(t)
	if n, from := db.count("sip_trace"), db.value(t, "SELECT fromip FROM sip_trace"); n != 1 || !strings.HasSuffix(from, c.LocalAddr().String()) {
		t.Errorf("%d rows, from %s; want one, from %s", n, from, c.LocalAddr())
	}
	if got := db.value(t, "SELECT msg FROM sip_trace"); got != string(message) {
		t.Errorf("got %q, want %q", got, message)
	}
}
