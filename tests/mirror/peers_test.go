package mirror

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/vectors"
)

// Generic chunks of HEP3 that Kamailio does not send.
const (
	chunkVLAN     = 18
	chunkNodeName = 19
)

// withChunks adds generic chunks to a HEP3 packet.
func withChunks(packet []byte, chunks map[byte]string) []byte {
	p := bytes.Clone(packet)
	for kind, body := range chunks {
		p = append(p, 0, 0, 0, kind)
		p = append(binary.BigEndian.AppendUint16(p, uint16(6+len(body))), body...)
	}
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	return p
}

// fromOpenSIPS is what OpenSIPS reports of a request that it sends over TCP: the
// connection's own port is its source.
const fromOpenSIPS = "484550330112000000010007020000000200070600000003000ac000020100000004000ac6336401000000070008b37f00000008000813c4" +
	"00000009000a6b0b167a0000000a000a0003c6a90000000b0007010000000c000a0000004d00000013000b6e6f6465580000000f00aa494e5649544520" +
	"7369703a624078205349502f322e300d0a5669613a205349502f322e302f544350203139322e302e322e313a353036303b6272616e63683d7a39684734" +
	"624b310d0a46726f6d3a203c7369703a6140783e3b7461673d310d0a546f3a203c7369703a6240783e0d0a43616c6c2d49443a206570682d310d0a4353" +
	"65713a203120494e564954450d0a436f6e74656e742d4c656e6774683a20300d0a0d0a"

// TestPeers sends what other programs than Kamailio send, and looks at the rows and
// at what a mirror gets.
func TestPeers(t *testing.T) {
	t.Parallel()
	sink := collect(t, "udp", "127.0.0.1")
	d := start(t, options{set: []string{
		"local=tcp:192.0.2.1:5060,udp:192.0.2.1:5060,tls:192.0.2.1:5061", "destinations=" + uri(sink, "udp") + ";capture_id=incoming",
	}})
	openSIPS, err := hex.DecodeString(fromOpenSIPS)
	if err != nil {
		t.Fatal(err)
	}
	phone, proxy, proxyTLS := netip.MustParseAddrPort("198.51.100.1:5060"), netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("192.0.2.1:5061")
	at := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	hep := func(version int, proto byte, src, dst netip.AddrPort, text string) []byte {
		return vectors.HEP{Version: version, Proto: proto, Src: src, Dst: dst, Time: at, Type: 1, CaptureID: 77, Payload: []byte(text)}.Encode()
	}
	plain := func(call string) string { return message(call+"@198.51.100.1", "", 0) }
	secure := strings.Replace(plain("tls"), "SIP/2.0/UDP", "SIP/2.0/TLS", 1)
	counted := message("nuls@198.51.100.1", "", 400)
	counted = counted[:len(counted)-2] + "\x00\x00" // of the body
	const nuls = "\x00\x00\x00\x00\x00\x00\x00\x00"
	node := map[byte]string{chunkNodeName: "nodeX", chunkVLAN: "\x00\x07"}
	rtcp := vectors.HEP{Version: 3, Proto: load.UDP, Src: phone, Dst: proxy, Time: at, Type: 5, CaptureID: 77, Payload: []byte("{}")}.Encode()
	for _, tt := range []struct {
		name, want string // row: fromip toip direction, "" for none
		packet     []byte
		text       string
		chunks     map[byte]string
	}{
		{name: "OpenSIPS sends over TCP", packet: openSIPS, want: "tcp:192.0.2.1:45951 tcp:198.51.100.1:5060 out", chunks: map[byte]string{chunkNodeName: "nodeX"}},
		{name: "OpenSIPS gets an answer there", packet: hep(3, 6, phone, netip.MustParseAddrPort("192.0.2.1:45951"), plain("answer")), want: "tcp:198.51.100.1:5060 tcp:192.0.2.1:45951 in"},
		{name: "HEP1 of OpenSIPS", packet: hep(1, load.UDP, phone, proxy, plain("hep1")+nuls), text: plain("hep1"), want: "udp:198.51.100.1:5060 udp:192.0.2.1:5060 in"},
		{name: "HEP2 of OpenSIPS", packet: hep(2, load.UDP, phone, proxy, counted+nuls), text: counted, want: "udp:198.51.100.1:5060 udp:192.0.2.1:5060 in"},
		{name: "NULs in HEP3 are of the message", packet: hep(3, load.UDP, phone, proxy, plain("hep3")+nuls), want: "udp:198.51.100.1:5060 udp:192.0.2.1:5060 in"},
		{name: "TLS as protocol 6", packet: hep(3, 6, phone, proxyTLS, secure), want: "tls:198.51.100.1:5060 tls:192.0.2.1:5061 in"},
		{name: "node name and VLAN of SIP", packet: withChunks(hep(3, load.UDP, proxy, phone, plain("node")), node), want: "udp:192.0.2.1:5060 udp:198.51.100.1:5060 out", chunks: node},
		{name: "node name and VLAN of RTCP", packet: withChunks(rtcp, node), chunks: node},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows := d.table.number("SELECT COUNT(*) FROM sip_trace")
			d.feed(t, tt.packet)
			await(t, d, d.fed, sink)
			d.settle(t)
			sent := decoded(t, tt.packet)
			if tt.text == "" {
				tt.text = string(sent.Payload)
			}
			if got := d.table.rows(t)[max(rows, 0):]; tt.want != "" {
				if row := fmt.Sprintf("%s %s %s", got[0].FromIP, got[0].ToIP, got[0].Direction); len(got) != 1 || row != tt.want || got[0].Msg != tt.text {
					t.Errorf("got %d rows, %s %q\nwant %s %q", len(got), row, got[0].Msg, tt.want, tt.text)
				}
			} else if len(got) != 0 {
				t.Errorf("got %d rows, want none", len(got))
			}
			out := sink.Packets()[d.fed-1]
			chunks, err := vectors.Chunks(out)
			if err != nil {
				t.Fatal(err)
			}
			mirrored := decoded(t, out)
			if string(mirrored.Payload) != tt.text || mirrored.Src != sent.Src || mirrored.Dst != sent.Dst || mirrored.Type != sent.Type {
				t.Errorf("mirrored: got %+v, want the text %q and %+v", mirrored, tt.text, sent)
			}
			for _, kind := range []byte{chunkVLAN, chunkNodeName} {
				if string(chunks[kind]) != tt.chunks[kind] {
					t.Errorf("mirrored: chunk %d: got %q, want %q", kind, chunks[kind], tt.chunks[kind])
				}
			}
		})
	}
	if c := d.stop(t); c["accepted.hep_padded"] != 2 {
		t.Errorf("accepted.hep_padded: got %d, want 2", c["accepted.hep_padded"])
	}
}
