package replay

import (
	"errors"
	"fmt"
	"net/netip"

	"siptraced/cmd/siptraced/internal/capture"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// Kinds of messages.
const (
	kindHEP = "hep"
	kindSIP = "sip"
)

// encoder makes the HEP3 packets that go to siptraced: with the ends and the time that
// the message had.
type encoder struct {
	stream, number uint64         // of the origin
	to             netip.AddrPort // the end of messages that came to siptraced itself
	packet         hep.Packet
	msg            sipmsg.Message
	buf            []byte
}

// encode makes a packet, which is valid until the next call. The error wraps
// [capture.ErrOther] for what is no message.
func (e *encoder) encode(p *ingest.Packet) (packet []byte, kind string, err error) {
	if hep.Detect(p.Data) != 0 {
		packet, err = e.hep(p)
		return packet, kindHEP, err
	}
	if err := e.msg.Parse(p.Data); err != nil {
		return nil, kindSIP, fmt.Errorf("%w: %w", capture.ErrOther, err)
	}
	transport, known := siptrace.ParseProto(p.Net)
	if !known {
		transport = siptrace.UDP
	}
	proto, _ := hepmap.Proto(transport)
	e.packet = hep.Packet{Type: hep.TypeSIP, Proto: proto, Src: p.Source, Dst: p.Local, Payload: p.Data}
	if !e.packet.Dst.IsValid() {
		e.packet.Dst = e.to
	}
	if !e.packet.Src.IsValid() {
		return nil, kindSIP, errors.New("a SIP message without the address that it came from: src is missing, or is not address:port")
	}
	if e.packet.Src.Addr().Is4() != e.packet.Dst.Addr().Is4() { // HEP has one family for both
		e.packet.Src, e.packet.Dst = in6(e.packet.Src), in6(e.packet.Dst)
	}
	packet, err = e.finish(p)
	return packet, kindSIP, err
}

func in6(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// hep makes a packet of one that came by HEP.
func (e *encoder) hep(p *ingest.Packet) ([]byte, error) {
	if err := e.packet.Decode(p.Data); err != nil && !errors.Is(err, hep.ErrTrailing) {
		if hep.Detect(p.Data) == 3 {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", capture.ErrOther, err) // the older versions begin as much else does
	}
	if e.packet.Payload == nil {
		return nil, fmt.Errorf("%w: a HEP keep-alive", capture.ErrOther)
	}
	if e.packet.Version != 3 || !e.packet.HasTime {
		e.packet.Vendor = foreign(e.packet.Vendor)
		return e.finish(p)
	}
	data := p.Data
	if n, err := hep.Split(data); err == nil && n > 0 {
		data = data[:n]
	}
	var err error
	e.buf, err = hepmap.AppendForwarded(e.buf[:0], data, nil, e.origin())
	return e.buf, err
}

// foreign are the chunks of others than siptraced.
func foreign(chunks []hep.Chunk) (out []hep.Chunk) {
	for _, c := range chunks {
		if c.Vendor != hepmap.Vendor {
			out = append(out, c)
		}
	}
	return out
}

// finish writes e.packet as HEP3, with the time of the capture where it has none.
func (e *encoder) finish(p *ingest.Packet) (_ []byte, err error) {
	k := &e.packet
	k.Version = 3
	if !k.HasTime {
		k.HasTime = true
		k.Sec, k.Usec = hepmap.Time(p.Time)
	}
	k.Vendor = append(k.Vendor, e.origin())
	e.buf, err = k.Append(e.buf[:0])
	return e.buf, err
}

// origin is the chunk by which siptraced knows a packet that it has already.
func (e *encoder) origin() hep.Chunk {
	e.number++
	return hep.Chunk{Vendor: hepmap.Vendor, Type: hepmap.ChunkOrigin, Data: loop.AppendOrigin(nil, e.stream, e.number)}
}
