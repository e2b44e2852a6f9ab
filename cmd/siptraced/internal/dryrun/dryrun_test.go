package dryrun

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"siptraced/cmd/siptraced/internal/config"
)

const message = "%s sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nFrom: <sip:alice@example.com>;tag=f\r\n" +
	"To: <sip:bob@example.com>\r\nCall-ID: c@h\r\nCSeq: 1 %[1]s\r\n%sContent-Length: 0\r\n\r\n"

const route = `event_route[siptrace:msg] {
	if (is_method("REGISTER")) drop();
	$avp(u) = "a";
	sip_trace("sip:h:1", "$ci-x");
}
`

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// frames makes the frames of a UDP datagram, in fragments of IPv4 if it is large.
func frames(t *testing.T, payload string) [][]byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{192, 0, 2, 9}, DstIP: net.IP{192, 0, 2, 1}}
	udp := &layers.UDP{SrcPort: 5060, DstPort: 5060}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	serialize := func(parts ...gopacket.SerializableLayer) []byte {
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(buf.Bytes())
	}
	whole := serialize(udp, gopacket.Payload(payload))
	var out [][]byte
	const mtu = 1480
	for at := 0; at < len(whole); at += mtu {
		part := *ip
		part.FragOffset = uint16(at / 8)
		if at+mtu < len(whole) {
			part.Flags = layers.IPv4MoreFragments
		}
		out = append(out, serialize(eth, &part, gopacket.Payload(whole[at:min(at+mtu, len(whole))])))
	}
	return out
}

func TestRun(t *testing.T) {
	small, large := fmt.Sprintf(message, "OPTIONS", ""), fmt.Sprintf(message, "INVITE", "X-Fill: "+strings.Repeat("x", 4000)+"\r\n")
	register := fmt.Sprintf(message, "REGISTER", "")
	var pcap, ng bytes.Buffer
	w := pcapgo.NewWriter(&pcap)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	n, err := pcapgo.NewNgWriter(&ng, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, m := range []string{small, register, large, "\r\n\r\n"} {
		fmt.Fprintf(&lines, "{\"t\":1700000000.5,\"transport\":\"udp\",\"src\":\"192.0.2.9:5060\",\"dst\":\"192.0.2.1:5060\",\"hex\":%q}\n", hex.EncodeToString([]byte(m)))
		for _, f := range frames(t, m) {
			info := gopacket.CaptureInfo{Timestamp: time.Unix(1700000000, 5e8), CaptureLength: len(f), Length: len(f)}
			if err := w.WritePacket(info, f); err != nil {
				t.Fatal(err)
			}
			if err := n.WritePacket(info, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := n.Flush(); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Sources{Set: []string{
		"event_route=" + write(t, "route.cfg", []byte(route)), "siptrace.traced_user_avp=$avp(u)", "local=udp:192.0.2.1:5060",
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		file []byte
	}{{"pcap", pcap.Bytes()}, {"pcapng", ng.Bytes()}, {"lines", []byte(lines.String())}} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := Run(cfg, write(t, "capture", tt.file), &out); err != nil {
				t.Fatal(err)
			}
			got := out.String()
			for _, want := range []string{
				"1 2023-11-14 22:13:20.500000 192.0.2.9:5060 > 192.0.2.1:5060 OPTIONS sip:bob@example.com SIP/2.0\n",
				`if (is_method("REGISTER")) false`,
				`$avp(u) = "a"`,
				`-> in udp:192.0.2.9:5060 > udp:192.0.2.1:5060 -> the table (2 rows, traced_user ["" "a"]); SIP to sip:h:1, correlation id "c@h-x"`,
				"2 2023-11-14 22:13:20.500000 192.0.2.9:5060 > 192.0.2.1:5060 REGISTER",
				"    -> dropped.event_route\n",
				"3 2023-11-14 22:13:20.500000 192.0.2.9:5060 > 192.0.2.1:5060 INVITE",
				"4 messages, 1 dropped.event_route, 1 dropped.keepalive, 2 taken\n",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}

// A relay that has neither a database nor a duplicate_uri mirrors every message to
// the destinations of its configuration.
func TestDestinations(t *testing.T) {
	for _, tt := range []struct {
		set  []string
		want string
	}{
		{nil, "    -> dropped.no_sink\n"},
		{[]string{"destinations=sip:192.0.2.50:9060,sip:192.0.2.51:9060;transport=tcp"}, "udp:192.0.2.1:5060 -> mirror 192.0.2.50-9060-udp 192.0.2.51-9060-tcp\n"},
	} {
		cfg, err := config.Load(config.Sources{Set: append([]string{"siptrace.trace_on=1", "siptrace.trace_to_database=0"}, tt.set...)})
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf(`{"src":"192.0.2.9:5060","dst":"192.0.2.1:5060","transport":"udp","hex":%q}`, hex.EncodeToString([]byte(fmt.Sprintf(message, "OPTIONS", ""))))
		var out strings.Builder
		if err := Run(cfg, write(t, "capture", []byte(line)), &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), tt.want) {
			t.Errorf("no %q in\n%s", tt.want, out.String())
		}
	}
}

func TestNoCapture(t *testing.T) {
	cfg, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"empty": "", "text": "hello, world", "no hex": `{"hex":"zz"}`, "no JSON": `{"hex":`} {
		if err := Run(cfg, write(t, "capture", []byte(text)), new(strings.Builder)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
