package hep

import (
	"encoding/binary"
	"net/netip"
)

// HEP1 and HEP2 (no document; as Kamailio's siptrace sends them). Ports and
// addresses in network order; the time header, HEP2 only, is in the byte order
// of the sender's machine, little-endian for all that matters.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| version 1, 2  | length 16, 40 | family 2, 10  |   protocol    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          source port          |       destination port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|               source address (4 or 16 bytes)                ...
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|             destination address (4 or 16 bytes)             ...
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     HEP2: seconds (32 bits, little-endian, like all below)    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      HEP2: microseconds                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|       HEP2: capture id        |        HEP2: not used         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|               payload, to the end of the datagram           ...
//
// The length doesn't count the time header, in either version.
const (
	headerIPv4 = 16
	headerIPv6 = 40
	headerTime = 12
)

// size12 returns the length that goes with a family, 0 if it is unknown.
func size12(family byte) int {
	switch family {
	case familyIPv4:
		return headerIPv4
	case familyIPv6, 24, 26, 28, 30: // Linux; OpenBSD and NetBSD, Solaris, FreeBSD, Darwin
		return headerIPv6
	}
	return 0
}

func (p *Packet) decode12(b []byte) error {
	p.Version, p.Type = int(b[0]), TypeSIP
	fail := func(what error, got, want int) error {
		return &Error{Err: what, Version: p.Version, Got: got, Want: want}
	}
	if len(b) < 3 {
		return fail(ErrTruncated, len(b), headerIPv4)
	}
	size := size12(b[2])
	if size == 0 {
		return fail(ErrFamily, int(b[2]), 0)
	}
	if int(b[1]) != size {
		return fail(ErrLength, int(b[1]), size)
	}
	all := size
	if p.Version == 2 {
		all += headerTime
	}
	if len(b) < all {
		return fail(ErrTruncated, len(b), all)
	}
	p.Proto = Proto(b[3])
	var src, dst netip.Addr
	if size == headerIPv4 {
		src, dst = addr4(b[8:12]), addr4(b[12:16])
	} else {
		src, dst = addr6(b[8:24]), addr6(b[24:40])
	}
	p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[4:]))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[6:]))
	if p.Version == 2 {
		t := b[size:all]
		p.HasTime = true
		p.Sec = binary.LittleEndian.Uint32(t)
		p.Usec = binary.LittleEndian.Uint32(t[4:])
		p.CaptureID = uint32(binary.LittleEndian.Uint16(t[8:]))
	}
	p.Payload = b[all:len(b):len(b)]
	return nil
}

func (p *Packet) append12(dst []byte) ([]byte, error) {
	from, to, family := p.ends()
	if !from.IsValid() || !to.IsValid() {
		return nil, &Error{Err: ErrNoAddress, Version: p.Version}
	}
	dst = append(dst, byte(p.Version), byte(size12(family)), family, byte(p.Proto))
	dst = binary.BigEndian.AppendUint16(dst, p.Src.Port())
	dst = binary.BigEndian.AppendUint16(dst, p.Dst.Port())
	dst = appendAddr(dst, from, family)
	dst = appendAddr(dst, to, family)
	if p.Version == 2 {
		dst = binary.LittleEndian.AppendUint32(dst, p.Sec)
		dst = binary.LittleEndian.AppendUint32(dst, p.Usec)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(p.CaptureID))
		dst = append(dst, 0, 0)
	}
	return append(dst, p.Payload...), nil
}
