package vectors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
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
}

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
	}
	m.payload = b[end:]
	return m, nil
}

func decodeHEP3(b []byte) (*message, error) {
	m := &message{version: 3}
	if int(binary.BigEndian.Uint16(b[4:])) != len(b) {
		return nil, fmt.Errorf("vectors: HEP3 length %d in a packet of %d bytes", binary.BigEndian.Uint16(b[4:]), len(b))
	}
	var chunks [256][]byte
	for rest := b[6:]; len(rest) > 0; {
		if len(rest) < 6 {
			return nil, errNotHEP
		}
		n := int(binary.BigEndian.Uint16(rest[4:]))
		if n < 6 || n > len(rest) {
			return nil, fmt.Errorf("vectors: HEP3 chunk of %d bytes, %d left", n, len(rest))
		}
		if rest[0] == 0 && rest[1] == 0 && rest[2] == 0 { // generic, type below 256
			chunks[rest[3]] = rest[6:n]
		}
		rest = rest[n:]
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
	m.payload = chunks[15]
	return m, nil
}

func addrPort(ip, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip) // a wrong length leaves the zero Addr, which equals no row
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// endpoint writes proto:address:port as the table has it.
func endpoint(proto byte, a netip.AddrPort) string {
	name := map[byte]string{17: "udp", 6: "tcp", 22: "tls", 132: "sctp"}[proto]
	return name + ":" + a.String()
}
