package spooltool

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/compat/siptrace"
)

// pcapEncoder writes each message as the frame that it might have come in: with its
// own ends, transport and time. TLS and WebSocket are TCP, since what the spool has is
// in clear; SCTP is UDP. What is no SIP is the HEP packet that brought it, as sent to
// the port of HEP.
type pcapEncoder struct {
	out  *pcapgo.NgWriter
	buf  gopacket.SerializeBuffer
	sent map[flow]uint32 // bytes of each direction of a TCP connection
	hepPacket
}

// flow is one direction of a TCP connection.
type flow struct{ from, to netip.AddrPort }

func newPCAPEncoder(out io.Writer) (*pcapEncoder, error) {
	section := pcapgo.NgSectionInfo{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "siptraced spool dump"}
	link := pcapgo.DefaultNgInterface
	link.LinkType, link.Name = layers.LinkTypeEthernet, "siptraced"
	w, err := pcapgo.NewNgWriterInterface(out, link, pcapgo.NgWriterOptions{SectionInfo: section})
	if err != nil {
		return nil, err
	}
	return &pcapEncoder{out: w, buf: gopacket.NewSerializeBuffer(), sent: map[flow]uint32{}}, nil
}

// What one datagram and one segment hold: 64 KiB with the headers of IPv6, TCP and UDP.
const (
	maxDatagram = 65535 - 40 - 8
	maxSegment  = 65535 - 40 - 20
)

// hepPort is where collectors take HEP.
const hepPort = 9060

func (e *pcapEncoder) write(m *message) error {
	rec := &m.rec
	body, comment := rec.Msg, ""
	f, proto := ends(rec)
	if rec.Packet != nil || rec.Type == siptrace.TypeLog {
		packet, err := e.of(rec)
		if err != nil {
			return err
		}
		body, proto = packet, siptrace.UDP
		f = pair(rec.Source, netip.AddrPortFrom(netip.Addr{}, hepPort))
	} else {
		comment = remark(rec, proto)
	}
	stream := len(body) > maxDatagram || isStream(proto) && delimits(body)
	for first := true; first || len(body) > 0; first = false {
		part := body[:min(len(body), maxSegment)]
		body = body[len(part):]
		var transport gopacket.SerializableLayer
		if stream {
			transport = e.segment(f, len(part))
		} else {
			transport = &layers.UDP{SrcPort: layers.UDPPort(f.from.Port()), DstPort: layers.UDPPort(f.to.Port())}
		}
		if err := e.frame(rec, f, transport, part, comment); err != nil {
			return err
		}
		comment = ""
	}
	return nil
}

// ends are those of a record, of one family, and the transport.
func ends(rec *siptrace.Record) (flow, siptrace.Proto) {
	from, to := rec.From.OrUnknown(), rec.To.OrUnknown()
	if to.Proto == siptrace.Any {
		to.Proto = from.Proto
	}
	return pair(from.Addr, to.Addr), to.Proto
}

// pair makes ends of one family; an address that is missing is the unspecified one.
func pair(from, to netip.AddrPort) flow {
	a, b := from.Addr().Unmap(), to.Addr().Unmap()
	switch {
	case a.Is6() && !b.Is6():
		b = unspecified(b, netip.IPv6Unspecified())
	case b.Is6() && !a.Is6():
		a = unspecified(a, netip.IPv6Unspecified())
	case !a.Is6():
		a, b = unspecified(a, netip.IPv4Unspecified()), unspecified(b, netip.IPv4Unspecified())
	}
	return flow{netip.AddrPortFrom(a, from.Port()), netip.AddrPortFrom(b, to.Port())}
}

// unspecified is none if a is no address, else a in the family of none.
func unspecified(a, none netip.Addr) netip.Addr {
	switch {
	case !a.IsValid():
		return none
	case none.Is6():
		return netip.AddrFrom16(a.As16())
	}
	return a
}

func isStream(p siptrace.Proto) bool {
	switch p {
	case siptrace.TCP, siptrace.TLS, siptrace.WS, siptrace.WSS:
		return true
	}
	return false
}

// delimits reports whether a message tells where it ends, so that the next one on its
// connection can be found.
func delimits(msg []byte) bool {
	skip, n, err := ingest.Split(msg)
	return err == nil && skip == 0 && n == len(msg)
}

// remark is what a frame can't show.
func remark(rec *siptrace.Record, proto siptrace.Proto) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", name, value))
		}
	}
	if proto != siptrace.UDP && proto != siptrace.TCP {
		add("transport", string(proto))
	}
	add("direction", rec.Direction)
	for _, u := range rec.Users {
		add("traced_user", string(u))
	}
	add("correlation id", string(rec.CorrelationID))
	add("node", string(rec.NodeName))
	return strings.Join(parts, ", ")
}

// segment is the next one of a connection, n bytes long.
func (e *pcapEncoder) segment(f flow, n int) *layers.TCP {
	seq := e.sent[f]
	e.sent[f] = seq + uint32(n)
	return &layers.TCP{
		SrcPort: layers.TCPPort(f.from.Port()), DstPort: layers.TCPPort(f.to.Port()), Window: 65535, ACK: true, PSH: true,
		Seq: 1 + seq, Ack: 1 + e.sent[flow{f.to, f.from}],
	}
}

// frame writes one frame.
func (e *pcapEncoder) frame(rec *siptrace.Record, f flow, transport gopacket.SerializableLayer, body []byte, comment string) error {
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	stack := []gopacket.SerializableLayer{eth}
	ip, family, err := network(f, transport)
	if err != nil {
		return err
	}
	if eth.EthernetType = family; rec.VLAN != 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: rec.VLAN & 0xfff, Type: family})
	}
	stack = append(stack, ip, transport, gopacket.Payload(body))
	if err := gopacket.SerializeLayers(e.buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		return err
	}
	data := e.buf.Bytes()
	options := pcapgo.NgPacketOptions{}
	if comment != "" {
		options.Comments = []string{comment}
	}
	info := gopacket.CaptureInfo{Timestamp: rec.Time, CaptureLength: len(data), Length: len(data)}
	return e.out.WritePacketWithOptions(info, data, options)
}

// network makes the header of IP, and has transport know it for its checksum.
func network(f flow, transport gopacket.SerializableLayer) (gopacket.SerializableLayer, layers.EthernetType, error) {
	var ip gopacket.SerializableLayer
	var checked gopacket.NetworkLayer
	proto := layers.IPProtocolUDP
	if _, tcp := transport.(*layers.TCP); tcp {
		proto = layers.IPProtocolTCP
	}
	family := layers.EthernetTypeIPv4
	src, dst := f.from.Addr().AsSlice(), f.to.Addr().AsSlice()
	if f.from.Addr().Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: src, DstIP: dst, Flags: layers.IPv4DontFragment}
		ip, checked = v4, v4
	} else {
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src, DstIP: dst}
		ip, checked, family = v6, v6, layers.EthernetTypeIPv6
	}
	check, ok := transport.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	})
	if !ok {
		return nil, 0, fmt.Errorf("%T has no checksum", transport)
	}
	return ip, family, check.SetNetworkLayerForChecksum(checked)
}

func (e *pcapEncoder) close() error { return e.out.Flush() }
