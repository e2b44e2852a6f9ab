package mirror

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestPrograms has real programs read what is mirrored: sngrep listens for HEP3,
// once for the screen and once for a pcap file, which tshark reads; and tshark
// reads SIP duplicates with their headers as they went over the wire.
func TestPrograms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "sngrep.pcap")
	ports := servers.FreePorts(t, 2)
	written, screen := servers.StartSngrep(t, ports[0], file), servers.StartSngrepScreen(t, ports[1])
	sink := collect(t, "udp", "127.0.0.1")
	d := start(t, options{set: []string{
		"siptrace.hep_mode_on=1", "siptrace.hep_version=3", "siptrace.xheaders_write=1", "local=udp:" + load.Proxy.String(),
		fmt.Sprintf("siptrace.duplicate_uri=sip:127.0.0.1:%d,sip:127.0.0.1:%d", ports[0], ports[1]),
		"destinations=" + uri(sink, "udp") + ";protocol=sip;name=wire",
	}})
	begin := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	list := load.Call(load.Spec{}, begin)
	d.feed(t, packets(list)...)
	await(t, d, len(list), sink)
	d.settle(t)

	// The list of calls has methods, both users, the number of messages, both
	// ends of the first one and the state of the call.
	shows := regexp.MustCompile(fmt.Sprintf(`INVITE\s+alice@example\.org\s+bob@example\.org\s+%d\s+198\.51\.100\.10:5062\s+192\.0\.2\.1:5060\s+COMPLETED`, len(list)))
	servers.WaitFor(t, patience, "sngrep to show the call", func() bool { return shows.MatchString(plainText(screen.Stdout())) })
	t.Logf("sngrep shows: %s", shows.FindString(plainText(screen.Stdout())))
	servers.WaitFor(t, patience, "sngrep to have all packets", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && bytes.Count(b, []byte("Call-ID: "+list[0].CallID)) == len(list)
	})
	written.Stop(t)
	d.stop(t)

	t.Run("tshark of sngrep's file", func(t *testing.T) {
		out := servers.Run(t, "tshark", "-r", file, "-d", "udp.port==5060,sip", "-d", "udp.port==5062,sip", "-T", "fields",
			"-e", "frame.time_epoch", "-e", "ip.src", "-e", "udp.srcport", "-e", "ip.dst", "-e", "udp.dstport",
			"-e", "sip.Call-ID", "-e", "sip.CSeq.method", "-e", "sip.Status-Code", "-e", "_ws.malformed", "-e", "udp.payload")
		var want []string
		for _, m := range list {
			p, err := vectors.Decode(m.Packet)
			if err != nil {
				t.Fatal(err)
			}
			cseq := regexp.MustCompile(`(?m)^CSeq: \d+ (\w+)\r`).FindStringSubmatch(m.Payload)[1]
			status := ""
			if strings.HasPrefix(m.Payload, "SIP/2.0 ") {
				status = m.Payload[8:11]
			}
			want = append(want, fmt.Sprintf("%d.%09d\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t\t%x", p.Time.Unix(), p.Time.Nanosecond(),
				p.Src.Addr(), p.Src.Port(), p.Dst.Addr(), p.Dst.Port(), m.CallID, cseq, status, m.Payload))
		}
		if got := strings.Split(strings.TrimRight(out, "\n"), "\n"); !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("tshark of the duplicates", func(t *testing.T) {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
		pcap := pcapOf(t, received(sink))
		out := servers.Run(t, "tshark", "-r", pcap, "-d", fmt.Sprintf("udp.port==%d,sip", sink.Addr().Port()), "-T", "fields",
			"-e", "sip.Call-ID", "-e", "sip.msg_hdr", "-e", "_ws.malformed")
		lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
		if len(lines) != len(list) {
			t.Fatalf("tshark found %d messages, want %d:\n%s", len(lines), len(list), out)
		}
		for i, line := range lines {
			f := strings.Split(line, "\t")
			at := begin.Add(time.Duration(i) * time.Millisecond)
			want := fmt.Sprintf("X-Siptrace-Time: %d %d", at.Unix(), at.Nanosecond()/1000)
			if len(f) != 3 || f[0] != list[i].CallID || f[2] != "" || strings.Count(f[1], "X-Siptrace-") != 5 || !strings.Contains(f[1], want) {
				t.Errorf("message %d: got %q, want %q among the headers", i, line, want)
			}
		}
	})
}

var escape = regexp.MustCompile(`\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])`)

// plainText makes blanks of what moves the cursor of a terminal.
func plainText(s string) string { return escape.ReplaceAllString(s, " ") }

// datagram is one that went over the wire.
type datagram struct {
	at       time.Time
	from, to netip.AddrPort
	payload  []byte
}

// received are datagrams that came to a sink.
func received(s *vectors.Sink) (list []datagram) {
	for _, r := range s.Received() {
		list = append(list, datagram{r.At, r.From, s.Addr(), r.Packet})
	}
	return list
}

// pcapOf writes a pcap file of datagrams and returns its path.
func pcapOf(tb testing.TB, list []datagram) string {
	tb.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(1<<16, layers.LinkTypeRaw); err != nil {
		tb.Fatal(err)
	}
	for _, d := range list {
		udp := &layers.UDP{SrcPort: layers.UDPPort(d.from.Port()), DstPort: layers.UDPPort(d.to.Port())}
		src, dst := d.from.Addr().AsSlice(), d.to.Addr().AsSlice()
		var ip interface {
			gopacket.SerializableLayer
			gopacket.NetworkLayer
		} = &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
		if d.from.Addr().Is6() {
			ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
		}
		buf := gopacket.NewSerializeBuffer()
		err := udp.SetNetworkLayerForChecksum(ip)
		if err == nil {
			err = gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, udp, gopacket.Payload(d.payload))
		}
		if err == nil {
			err = w.WritePacket(gopacket.CaptureInfo{Timestamp: d.at, CaptureLength: len(buf.Bytes()), Length: len(buf.Bytes())}, buf.Bytes())
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return write(tb, filepath.Join(tb.TempDir(), "wire.pcap"), file.String())
}
