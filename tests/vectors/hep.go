package vectors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// message is what a HEP packet carries.
type message struct {
	version  int
	proto    byte // IP protocol number; 22 is TLS
	src, dst netip.AddrPort
	sec, us  uint32
	kind     byte // protocol type, 1 is SIP
	payload  []byte

	capture          uint32
	correlation, key []byte // nil: absent
}

// typeLog is the protocol type of hlog().
const typeLog = 100

func (m *message) time() time.Time {
	return time.Unix(int64(m.sec), int64(m.us)*1000)
}

var errNotHEP = errors.New("vectors: not a HEP packet")

func decodeHEP(b []byte) (*message, error) {
	switch {
	case len(b) > 6 && string(b[:4]) == "HEP3":
		return decodeHEP3(b)
	case len(b) > 16 && (b[0] == 1 || b[0] == 2) && (b[1] == 16 || b[1] == 40):
		return decodeHEP12(b)
	}
	return nil, errNotHEP
}

// decodeHEP12: version, length, family, protocol, two ports, two addresses;
// version 2 then has a time header of 12 bytes, little endian, that the length
// does not count.
func decodeHEP12(b []byte) (*message, error) {
	m := &message{version: int(b[0]), proto: b[3], kind: 1}
	size := 4
	if b[1] == 40 {
		size = 16
	}
	end := 8 + 2*size
	if m.version == 2 {
		end += 12
	}
	if len(b) < end {
		return nil, errNotHEP
	}
	m.src = addrPort(b[8:8+size], b[4:6])
	m.dst = addrPort(b[8+size:8+2*size], b[6:8])
	if m.version == 2 {
		m.sec = binary.LittleEndian.Uint32(b[end-12:])
		m.us = binary.LittleEndian.Uint32(b[end-8:])
		m.capture = uint32(binary.LittleEndian.Uint16(b[end-4:]))
	}
	m.payload = b[end:]
	return m, nil
}

func decodeHEP3(b []byte) (*message, error) {
	m := &message{version: 3}
	chunks, err := Chunks(b)
	if err != nil {
		return nil, err
	}
	src, dst := chunks[3], chunks[4]
	if len(src) == 0 {
		src, dst = chunks[5], chunks[6]
	}
	for _, want := range []struct{ chunk, size int }{{2, 1}, {7, 2}, {8, 2}, {9, 4}, {10, 4}, {11, 1}} {
		if len(chunks[want.chunk]) != want.size {
			return nil, fmt.Errorf("vectors: HEP3 chunk %d has %d bytes, want %d", want.chunk, len(chunks[want.chunk]), want.size)
		}
	}
	m.proto, m.kind = chunks[2][0], chunks[11][0]
	m.src, m.dst = addrPort(src, chunks[7]), addrPort(dst, chunks[8])
	m.sec, m.us = binary.BigEndian.Uint32(chunks[9]), binary.BigEndian.Uint32(chunks[10])
	m.payload, m.correlation, m.key = chunks[15], chunks[17], chunks[14]
	if len(chunks[12]) == 4 {
		m.capture = binary.BigEndian.Uint32(chunks[12])
	}
	return m, nil
}

// Chunks are the generic chunks of a HEP3 packet, by type.
func Chunks(p []byte) (chunks [256][]byte, err error) {
	if len(p) < 6 || int(binary.BigEndian.Uint16(p[4:])) != len(p) {
		return chunks, fmt.Errorf("vectors: HEP3 in a packet of %d bytes: %.6q", len(p), p)
	}
	for rest := p[6:]; len(rest) > 0; {
		if len(rest) < 6 {
			return chunks, errNotHEP
		}
		n := int(binary.BigEndian.Uint16(rest[4:]))
		if n < 6 || n > len(rest) {
			return chunks, fmt.Errorf("vectors: HEP3 chunk of %d bytes, %d left", n, len(rest))
		}
		if rest[0] == 0 && rest[1] == 0 && rest[2] == 0 { // generic, type below 256
			chunks[rest[3]] = rest[6:n]
		}
		rest = rest[n:]
	}
	return chunks, nil
}

// CutMarks removes from a HEP3 packet what siptraced adds to those of the module:
// the chunk with the instances that the message passed, here one of 8 bytes, and
// over a stream the one with stream and number, 16 bytes. They have to be there,
// once, unless a packet had no room for them, or is not HEP3 at all.
func CutMarks(p []byte, stream bool) ([]byte, error) {
	if len(p) < 6 || string(p[:4]) != "HEP3" {
		return p, nil
	}
	want := map[uint16]int{0x100: 6 + 8}
	if stream {
		want[0x101] = 6 + 16
	}
	out := append([]byte(nil), p[:6]...)
	for rest := p[6:]; len(rest) > 0; {
		if len(rest) < 6 {
			return nil, errNotHEP
		}
		n := int(binary.BigEndian.Uint16(rest[4:]))
		if n < 6 || n > len(rest) {
			return nil, errNotHEP
		}
		if kind := binary.BigEndian.Uint16(rest[2:]); binary.BigEndian.Uint16(rest) != 0x5354 {
			out = append(out, rest[:n]...)
		} else if want[kind] != n {
			return nil, fmt.Errorf("vectors: chunk 0x%x of siptraced with %d bytes: %.80q", kind, n, p)
		} else {
			delete(want, kind)
		}
		rest = rest[n:]
	}
	const room = 65507
	switch {
	case len(want) > 0 && len(out) == len(p) && len(p) > room-14-22:
	case len(want) > 0:
		return nil, fmt.Errorf("vectors: chunks of siptraced are missing: %.80q", p)
	}
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)))
	return out, nil
}

func addrPort(ip, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip) // a wrong length leaves the zero Addr, which equals no row
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// encode writes m as the module does in that version. One IPv4 and one IPv6 end
// are both written as IPv6.
func (m *message) encode(version int) []byte {
	src, dst, family := m.src.Addr(), m.dst.Addr(), byte(2)
	if src.Is6() || dst.Is6() {
		src, dst, family = netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16()), 10
	}
	if version < 3 {
		size := byte(8 + 2*len(src.AsSlice()))
		b := []byte{byte(version), size, family, m.proto}
		b = binary.BigEndian.AppendUint16(b, m.src.Port())
		b = binary.BigEndian.AppendUint16(b, m.dst.Port())
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		if version == 2 {
			b = binary.LittleEndian.AppendUint32(b, m.sec)
			b = binary.LittleEndian.AppendUint32(b, m.us)
			b = binary.LittleEndian.AppendUint16(b, uint16(m.capture))
			b = append(b, 0, 0)
		}
		return append(b, m.payload...)
	}
	b := []byte("HEP3\x00\x00")
	chunk := func(kind byte, body []byte) {
		b = append(b, 0, 0, 0, kind)
		b = append(binary.BigEndian.AppendUint16(b, uint16(6+len(body))), body...)
	}
	number := func(kind byte, n uint32) { chunk(kind, binary.BigEndian.AppendUint32(nil, n)) }
	port := func(kind byte, a netip.AddrPort) { chunk(kind, binary.BigEndian.AppendUint16(nil, a.Port())) }
	chunk(1, []byte{family})
	chunk(2, []byte{m.proto})
	first := byte(3)
	if family == 10 {
		first = 5
	}
	chunk(first, src.AsSlice())
	chunk(first+1, dst.AsSlice())
	if m.kind == typeLog { // hlog() has the other order
		port(8, m.dst)
		port(7, m.src)
	} else {
		port(7, m.src)
		port(8, m.dst)
	}
	number(9, m.sec)
	number(10, m.us)
	chunk(11, []byte{m.kind})
	number(12, m.capture)
	if m.correlation != nil {
		chunk(17, m.correlation)
	}
	if m.key != nil {
		chunk(14, m.key)
	}
	chunk(15, m.payload)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

// protocols are the IP protocol numbers of HEP.
var protocols = map[byte]string{17: "udp", 6: "tcp", 22: "tls", 132: "sctp"}

// endpoint writes proto:address:port as the table has it.
func endpoint(proto byte, a netip.AddrPort) string {
	return protocols[proto] + ":" + a.String()
}

// parseEndpoint reads proto:address:port, IPv6 with or without brackets.
func parseEndpoint(s string) (byte, netip.AddrPort, bool) {
	name, rest, _ := strings.Cut(bracketed(s), ":")
	a, err := netip.ParseAddrPort(rest)
	for n, p := range protocols {
		if p == name && err == nil {
			return n, a, true
		}
	}
	return 0, netip.AddrPort{}, false
}
