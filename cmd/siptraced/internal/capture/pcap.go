package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/ip4defrag"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/gopacket/gopacket/reassembly"

	"siptraced/cmd/siptraced/internal/ingest"
)

// frames is a pcap or pcapng file.
type frames interface {
	gopacket.PacketDataSource
	LinkType() layers.LinkType
}

// pcapngMagic begins a pcapng file: the type of its section header block.
var pcapngMagic = []byte{0x0A, 0x0D, 0x0D, 0x0A}

// How long a stream may lack a segment, in the time of the capture, and how often
// that is looked at, in frames.
const (
	segmentAge  = 10 * time.Second
	segmentLook = 10000
)

func readPcap(in io.Reader, head []byte, handle func(Item) error) error {
	var src frames
	var err error
	if bytes.Equal(head, pcapngMagic) {
		src, err = pcapgo.NewNgReader(in, pcapgo.DefaultNgReaderOptions)
	} else {
		src, err = pcapgo.NewReader(in)
	}
	if err != nil {
		return fmt.Errorf("neither pcap, pcapng, lines of JSON nor HEP3: %w", err)
	}
	r := &pcapReader{handle: handle, fragments: ip4defrag.NewIPv4Defragmenter()}
	r.streams = reassembly.NewAssembler(reassembly.NewStreamPool(r))
	for r.err == nil {
		data, info, err := src.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("frame %d: %w", r.number+1, err)
		}
		r.number++
		r.frame(gopacket.NewPacket(data, src.LinkType(), gopacket.DecodeOptions{Lazy: true, NoCopy: true}), info)
		if r.number%segmentLook == 0 {
			r.streams.FlushCloseOlderThan(info.Timestamp.Add(-segmentAge))
		}
	}
	r.streams.FlushAll()
	return r.err
}

// pcapReader reads one file.
type pcapReader struct {
	handle    func(Item) error
	number    int // of the frame in hand
	fragments *ip4defrag.IPv4Defragmenter
	streams   *reassembly.Assembler
	err       error // the handler's
}

// tcpHeader is the least size of a TCP header (RFC 9293 §3.1).
const tcpHeader = 20

func (r *pcapReader) give(i Item) {
	if r.err == nil {
		i.Number = r.number
		r.err = r.handle(i)
	}
}

// frame takes one frame apart.
func (r *pcapReader) frame(packet gopacket.Packet, info gopacket.CaptureInfo) {
	udp, _ := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
	tcp, _ := packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
	var src, dst net.IP
	switch ip := packet.NetworkLayer().(type) {
	case *layers.IPv4:
		src, dst = ip.SrcIP, ip.DstIP
		whole, err := r.fragments.DefragIPv4WithTimestamp(ip, info.Timestamp)
		if err != nil {
			r.give(Item{Problem: fmt.Errorf("%w: IP fragment: %w", ErrOther, err)})
			return
		}
		if whole == nil {
			return // more of it comes
		}
		if whole != ip {
			udp, tcp = new(layers.UDP), nil
			if whole.Protocol != layers.IPProtocolUDP || udp.DecodeFromBytes(whole.Payload, gopacket.NilDecodeFeedback) != nil {
				udp = nil
			}
		}
	case *layers.IPv6:
		src, dst = ip.SrcIP, ip.DstIP
	}
	switch {
	case udp != nil:
		r.give(Item{Packet: &ingest.Packet{
			Data: udp.Payload, Time: info.Timestamp, Net: "udp", Source: addrPort(src, uint16(udp.SrcPort)), Local: addrPort(dst, uint16(udp.DstPort)),
		}})
	case tcp != nil && len(tcp.Contents) >= tcpHeader && packet.NetworkLayer() != nil:
		r.streams.AssembleWithContext(packet.NetworkLayer().NetworkFlow(), tcp, context(info))
	default:
		r.give(Item{Problem: ErrOther})
	}
}

// context is when a segment came (reassembly.AssemblerContext).
type context gopacket.CaptureInfo

func (c context) GetCaptureInfo() gopacket.CaptureInfo { return gopacket.CaptureInfo(c) }

// New makes the memory of one connection (reassembly.StreamFactory).
func (r *pcapReader) New(netFlow, tcpFlow gopacket.Flow, _ *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	end := func(ip, port gopacket.Endpoint) netip.AddrPort {
		p := port.Raw()
		return addrPort(net.IP(ip.Raw()), uint16(p[0])<<8|uint16(p[1]))
	}
	return &connection{reader: r, client: end(netFlow.Src(), tcpFlow.Src()), server: end(netFlow.Dst(), tcpFlow.Dst())}
}

// connection cuts the two directions of a TCP connection into packets.
type connection struct {
	reader         *pcapReader
	client, server netip.AddrPort
	rest           [2][]byte // what is not a whole packet yet, from the client and from the server
}

// Accept takes every segment, also of a connection that is older than the capture.
func (c *connection) Accept(_ *layers.TCP, _ gopacket.CaptureInfo, _ reassembly.TCPFlowDirection, _ reassembly.Sequence, start *bool, _ reassembly.AssemblerContext) bool {
	*start = true
	return true
}

// ReassembledSG takes the next bytes of one direction.
func (c *connection) ReassembledSG(sg reassembly.ScatterGather, ac reassembly.AssemblerContext) {
	direction, _, _, lost := sg.Info()
	p := ingest.Packet{Net: "tcp", Source: c.client, Local: c.server, Time: ac.GetCaptureInfo().Timestamp}
	rest := &c.rest[0]
	if direction == reassembly.TCPDirServerToClient {
		p.Source, p.Local, rest = c.server, c.client, &c.rest[1]
	}
	if lost != 0 && len(*rest) > 0 {
		c.reader.give(Item{Problem: fmt.Errorf("%w: a segment before it is missing", ErrOther)})
		*rest = nil
	}
	n, _ := sg.Lengths()
	b := append(*rest, sg.Fetch(n)...)
	for len(b) > 0 {
		skip, n, err := ingest.Split(b)
		if err != nil {
			// Not a message, or not from its beginning: the next segment may begin one.
			c.reader.give(Item{Problem: fmt.Errorf("%w: %w", ErrOther, err)})
			b = nil
			break
		}
		b = b[skip:]
		if n == 0 {
			break
		}
		if p.Data = b[:n:n]; len(bytes.TrimSpace(p.Data)) > 0 {
			c.reader.give(Item{Packet: &p})
		}
		b = b[n:]
	}
	*rest = append((*rest)[:0:0], b...)
}

// ReassemblyComplete lets go of the connection.
func (c *connection) ReassemblyComplete(reassembly.AssemblerContext) bool {
	for _, rest := range c.rest {
		if len(rest) > 0 {
			c.reader.give(Item{Problem: fmt.Errorf("%w: the connection ends within a message", ErrOther)})
		}
	}
	return true
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, err := netip.ParseAddrPort(net.JoinHostPort(ip.String(), strconv.Itoa(int(port))))
	if err != nil {
		return netip.AddrPort{}
	}
	return a
}
