package hep

import (
	"net/netip"
	"strconv"
)

// MaxPacket is the largest packet in bytes: the total length of HEP3 has 16
// bits, and HEP1 and HEP2 must fit a datagram.
const MaxPacket = 1<<16 - 1

// Proto is the transport of the captured message: an IP protocol number, TLS
// being 22 and not TCP's 6. Kamailio sends WS and WSS as TLS.
type Proto uint8

// The transports of SIP.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	TLS  Proto = 22
	SCTP Proto = 132
)

// String returns "udp", "tcp", "tls" or "sctp", else the number.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case TLS:
		return "tls"
	case SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// Values of [Packet.Type] (HEP3 specification, capture protocol types).
const (
	TypeSIP  uint8 = 1
	TypeRTP  uint8 = 4
	TypeRTCP uint8 = 5   // as JSON
	TypeLog  uint8 = 100 // hlog() in Kamailio
)

// Packet is one HEP packet of any version. The zero value is ready for Decode;
// a Packet that is used again decodes without allocating (zlib: 4 bytes). Not
// safe for concurrent use.
type Packet struct {
	Version int // 1, 2, 3
	Proto   Proto
	// Src and Dst are the ends of the captured message. HEP3: the address is the
	// zero Addr, the port 0, if its chunk is missing. Never IPv4-mapped.
	Src, Dst netip.AddrPort

	HasTime   bool   // false: HEP1, or HEP3 without seconds
	Sec, Usec uint32 // since the epoch in UTC; Usec as received, also over 999999

	Type      uint8  // TypeSIP, ...; always TypeSIP in HEP1 and HEP2; 0 = chunk absent
	CaptureID uint32 // of the sender; HEP2 has the low 16 bits, HEP1 none
	KeepAlive uint16 // seconds; 0 = absent. HEP3 only, like all below but Payload
	VLAN      uint16 // 0 = absent

	// Of the next five, nil is absent and empty is a chunk without value. They
	// alias what was decoded, except for an inflated Payload.
	AuthKey       []byte // in clear
	Payload       []byte
	CorrelationID []byte
	NodeName      []byte // chunk 19: node name for Homer, group id in the specification

	// Compressed says that the payload came compressed. Payload is then inflated
	// and valid until the next Decode. Append ignores it and doesn't compress.
	Compressed bool

	// Vendor has the chunks with a vendor id, and generic ones over 19, in order.
	// The slice is reused by Decode, Data aliases what was decoded.
	Vendor []Chunk

	inflater *inflater
}

// Detect returns the HEP version of which b is the start, 0 for none. Three
// bytes decide for HEP1 and HEP2, four for HEP3; b can be longer or shorter.
// SIP never starts with the bytes 1 or 2; STUN would need the type 0x0110,
// 0x0128, 0x0210 or 0x0228, none of which is in use, and more than 511 bytes.
func Detect(b []byte) int {
	if len(b) >= len(magic3) && string(b[:len(magic3)]) == magic3 {
		return 3
	}
	if len(b) > 2 && (b[0] == 1 || b[0] == 2) && b[1] != 0 && int(b[1]) == size12(b[2]) {
		return int(b[0])
	}
	return 0
}

// Decode sets p to the packet in b, which p aliases from then on; nothing of
// the former content remains. Errors are of type *[Error]. After one, p is
// undefined, except after [ErrTrailing]: then p is the packet that b starts
// with.
func (p *Packet) Decode(b []byte) error {
	*p = Packet{Vendor: p.Vendor[:0], inflater: p.inflater}
	switch {
	case len(b) == 0:
		return &Error{Err: ErrTruncated, Want: 1}
	case b[0] == 1 || b[0] == 2:
		return p.decode12(b)
	case b[0] == magic3[0]:
		return p.decode3(b)
	default:
		return &Error{Err: ErrVersion, Got: int(b[0])}
	}
}

// Append appends p as a packet of p.Version to dst. Errors are of type
// *[Error], dst is then returned as it was: [ErrTooLarge] if the packet exceeds
// [MaxPacket], [ErrNoAddress] if Src or Dst has none and the version needs it,
// [ErrVersion], and [ErrChunk] if Vendor has a generic chunk from 1 to 19.
func (p *Packet) Append(dst []byte) ([]byte, error) {
	out, err := dst, error(nil)
	switch p.Version {
	case 1, 2:
		out, err = p.append12(dst)
	case 3:
		out, err = p.append3(dst)
	default:
		err = &Error{Err: ErrVersion, Got: p.Version}
	}
	if n := len(out) - len(dst); err == nil && n > MaxPacket {
		err = &Error{Err: ErrTooLarge, Version: p.Version, Got: n, Want: MaxPacket}
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Address families as Linux numbers them.
const (
	familyIPv4 = 2
	familyIPv6 = 10
)

// ends returns both addresses and the family in which both can be written. A
// zero Addr stays one.
func (p *Packet) ends() (src, dst netip.Addr, family byte) {
	src, dst = p.Src.Addr().Unmap(), p.Dst.Addr().Unmap()
	if src.Is6() || dst.Is6() {
		return src, dst, familyIPv6
	}
	return src, dst, familyIPv4
}

// appendAddr appends a, which must be valid, in 4 or 16 bytes.
func appendAddr(dst []byte, a netip.Addr, family byte) []byte {
	if family == familyIPv4 {
		b := a.As4()
		return append(dst, b[:]...)
	}
	b := a.As16() // IPv4 becomes IPv4-mapped
	return append(dst, b[:]...)
}

// addr4 and addr6 read an address; b has its 4 or 16 bytes.
func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }
func addr6(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b)).Unmap() }
