package dryrun

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/ip4defrag"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"siptraced/cmd/siptraced/internal/ingest"
)

// readCapture hands every datagram of a file on.
func readCapture(file string, handle func(*ingest.Packet)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<16)
	head, err := in.Peek(4)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if bytes.HasPrefix(bytes.TrimLeft(head, " \r\n\t"), []byte("{")) {
		err = readLines(in, handle)
	} else {
		err = readPcap(in, head, handle)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// line is one packet as a line of JSON.
type line struct {
	T         float64
	Transport string
	Src, Dst  string
	Hex       string
}

const maxLine = 1 << 20

func readLines(in io.Reader, handle func(*ingest.Packet)) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, maxLine)
	for n := 1; sc.Scan(); n++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		p := ingest.Packet{Time: time.UnixMicro(int64(l.T * 1e6)), Net: l.Transport}
		var err error
		if p.Data, err = hex.DecodeString(l.Hex); err != nil {
			return fmt.Errorf("line %d: hex: %w", n, err)
		}
		// Without addresses a packet is still read: HEP brings its own.
		p.Source, _ = netip.ParseAddrPort(l.Src)
		p.Local, _ = netip.ParseAddrPort(l.Dst)
		handle(&p)
	}
	return sc.Err()
}

// packets is a pcap or pcapng file.
type packets interface {
	gopacket.PacketDataSource
	LinkType() layers.LinkType
}

// pcapngMagic begins a pcapng file: the type of its section header block.
var pcapngMagic = []byte{0x0A, 0x0D, 0x0D, 0x0A}

func readPcap(in io.Reader, head []byte, handle func(*ingest.Packet)) error {
	var src packets
	var err error
	if bytes.Equal(head, pcapngMagic) {
		src, err = pcapgo.NewNgReader(in, pcapgo.DefaultNgReaderOptions)
	} else {
		src, err = pcapgo.NewReader(in)
	}
	if err != nil {
		return fmt.Errorf("neither pcap, pcapng nor lines of JSON: %w", err)
	}
	fragments := ip4defrag.NewIPv4Defragmenter()
	for {
		data, info, err := src.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if p := datagram(data, src.LinkType(), fragments); p != nil {
			p.Time = info.Timestamp
			handle(p)
		}
	}
}

// datagram is the UDP datagram of a frame, nil when it has none or not all of it.
func datagram(data []byte, link layers.LinkType, fragments *ip4defrag.IPv4Defragmenter) *ingest.Packet {
	packet := gopacket.NewPacket(data, link, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	var src, dst net.IP
	udp, _ := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
	switch ip := packet.NetworkLayer().(type) {
	case *layers.IPv4:
		src, dst = ip.SrcIP, ip.DstIP
		whole, err := fragments.DefragIPv4(ip)
		if err != nil || whole == nil {
			return nil
		}
		if whole != ip {
			udp = new(layers.UDP)
			if whole.Protocol != layers.IPProtocolUDP || udp.DecodeFromBytes(whole.Payload, gopacket.NilDecodeFeedback) != nil {
				return nil
			}
		}
	case *layers.IPv6:
		src, dst = ip.SrcIP, ip.DstIP
	}
	if udp == nil {
		return nil
	}
	return &ingest.Packet{Data: udp.Payload, Net: "udp", Source: addrPort(src, uint16(udp.SrcPort)), Local: addrPort(dst, uint16(udp.DstPort))}
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, err := netip.ParseAddrPort(net.JoinHostPort(ip.String(), strconv.Itoa(int(port))))
	if err != nil {
		return netip.AddrPort{}
	}
	return a
}
