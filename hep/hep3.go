package hep

import (
	"encoding/binary"
	"net/netip"
)

// HEP3 packet, big endian (HEP3 specification, section 2):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      'H'      |      'E'      |      'P'      |      '3'      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  total length, these included |           chunks            ...
//
// and each chunk, one after the other without padding:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      vendor, 0 = generic      |             type              |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| length, header of 6 included  |            value            ...
const (
	magic3      = "HEP3"
	header3     = 6
	headerChunk = 6
)

// Chunk is a chunk of HEP3 that has no field in [Packet].
type Chunk struct {
	Vendor uint16 // 0 = generic
	Type   uint16
	Data   []byte // without the chunk's header
}

// Generic chunk types (HEP3 specification, "generic chunk types").
const (
	chunkFamily        = 1
	chunkProto         = 2
	chunkSrc4          = 3
	chunkDst4          = 4
	chunkSrc6          = 5
	chunkDst6          = 6
	chunkSrcPort       = 7
	chunkDstPort       = 8
	chunkSec           = 9
	chunkUsec          = 10
	chunkType          = 11
	chunkCaptureID     = 12
	chunkKeepAlive     = 13
	chunkAuthKey       = 14
	chunkPayload       = 15
	chunkCompressed    = 16
	chunkCorrelationID = 17
	chunkVLAN          = 18
	chunkNodeName      = 19
	chunkLast          = chunkNodeName
)

// chunkSize is the size of each generic chunk's value in bytes, 0 where any
// will do.
var chunkSize = [chunkLast + 1]int{
	chunkFamily: 1, chunkProto: 1, chunkType: 1,
	chunkSrc4: 4, chunkDst4: 4, chunkSrc6: 16, chunkDst6: 16,
	chunkSrcPort: 2, chunkDstPort: 2,
	chunkSec: 4, chunkUsec: 4, chunkCaptureID: 4,
	chunkKeepAlive: 2, chunkVLAN: 2,
}

func (p *Packet) decode3(b []byte) error {
	total, err := length3(b)
	if err != nil {
		return err
	}
	if total == 0 {
		return &Error{Err: ErrTruncated, Version: 3, Got: len(b), Want: header3}
	}
	if total > len(b) {
		return &Error{Err: ErrTruncated, Version: 3, Got: len(b), Want: total}
	}
	p.Version = 3
	var (
		src, dst         netip.Addr
		srcPort, dstPort uint16
		payloadAt        int
	)
	others := p.Vendor
	for at := header3; at < total; {
		rest := b[at:total]
		if len(rest) < headerChunk {
			return &Error{Err: ErrTruncated, Version: 3, Offset: at, Got: len(rest), Want: headerChunk}
		}
		vendor, typ := binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		size := int(binary.BigEndian.Uint16(rest[4:]))
		if size < headerChunk {
			return &Error{Err: ErrChunk, Version: 3, Offset: at, Vendor: vendor, Chunk: typ, Got: size, Want: headerChunk}
		}
		if size > len(rest) {
			return &Error{Err: ErrTruncated, Version: 3, Offset: at, Vendor: vendor, Chunk: typ, Got: len(rest), Want: size}
		}
		v := rest[headerChunk:size:size]
		if vendor != 0 || typ == 0 || typ > chunkLast {
			others = append(others, Chunk{vendor, typ, v})
			at += size
			continue
		}
		if want := chunkSize[typ]; want != 0 && want != len(v) {
			return &Error{Err: ErrChunk, Version: 3, Offset: at, Vendor: vendor, Chunk: typ, Got: size, Want: headerChunk + want}
		}
		switch typ {
		case chunkFamily: // the address chunks tell
		case chunkProto:
			p.Proto = Proto(v[0])
		case chunkSrc4:
			src = addr4(v)
		case chunkDst4:
			dst = addr4(v)
		case chunkSrc6:
			src = addr6(v)
		case chunkDst6:
			dst = addr6(v)
		case chunkSrcPort:
			srcPort = binary.BigEndian.Uint16(v)
		case chunkDstPort:
			dstPort = binary.BigEndian.Uint16(v)
		case chunkSec:
			p.Sec, p.HasTime = binary.BigEndian.Uint32(v), true
		case chunkUsec:
			p.Usec = binary.BigEndian.Uint32(v)
		case chunkType:
			p.Type = v[0]
		case chunkCaptureID:
			p.CaptureID = binary.BigEndian.Uint32(v)
		case chunkKeepAlive:
			p.KeepAlive = binary.BigEndian.Uint16(v)
		case chunkAuthKey:
			p.AuthKey = v
		case chunkPayload, chunkCompressed:
			p.Payload, p.Compressed, payloadAt = v, typ == chunkCompressed, at
		case chunkCorrelationID:
			p.CorrelationID = v
		case chunkVLAN:
			p.VLAN = binary.BigEndian.Uint16(v)
		case chunkNodeName:
			p.NodeName = v
		}
		at += size
	}
	p.Vendor = others
	p.Src, p.Dst = netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)
	if !p.HasTime {
		p.Usec = 0 // says nothing alone
	}
	if p.Compressed {
		// Here, not in the loop: a packet full of compressed chunks must not cost
		// more than one.
		if err := p.inflate(payloadAt); err != nil {
			return err
		}
	}
	if len(b) > total {
		return &Error{Err: ErrTrailing, Version: 3, Got: len(b), Want: total}
	}
	return nil
}

// length3 returns the total length of the HEP3 packet that starts at b[0], 0 if
// b is too short to tell.
func length3(b []byte) (int, error) {
	for i := range min(len(b), len(magic3)) {
		if b[i] != magic3[i] {
			return 0, &Error{Err: ErrVersion, Got: int(b[i])}
		}
	}
	if len(b) < header3 {
		return 0, nil
	}
	total := int(binary.BigEndian.Uint16(b[len(magic3):]))
	if total < header3 {
		return 0, &Error{Err: ErrLength, Version: 3, Got: total, Want: header3}
	}
	return total, nil
}

// append3 writes the chunks in the order of Kamailio: 1 to 12, 17, 14, 15, with
// the ports the other way round from hlog(). Chunks that Kamailio doesn't know
// go before the payload.
func (p *Packet) append3(dst []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, magic3...)
	dst = append(dst, 0, 0) // total length, see below

	src, to, family := p.ends()
	dst = append8(dst, chunkFamily, family)
	dst = append8(dst, chunkProto, byte(p.Proto))
	srcType, dstType := byte(chunkSrc4), byte(chunkDst4)
	if family == familyIPv6 {
		srcType, dstType = chunkSrc6, chunkDst6
	}
	if src.IsValid() {
		dst = appendHeader(dst, srcType, chunkSize[srcType])
		dst = appendAddr(dst, src, family)
	}
	if to.IsValid() {
		dst = appendHeader(dst, dstType, chunkSize[dstType])
		dst = appendAddr(dst, to, family)
	}
	if p.Type == TypeLog {
		dst = append16(dst, chunkDstPort, p.Dst.Port())
		dst = append16(dst, chunkSrcPort, p.Src.Port())
	} else {
		dst = append16(dst, chunkSrcPort, p.Src.Port())
		dst = append16(dst, chunkDstPort, p.Dst.Port())
	}
	if p.HasTime {
		dst = append32(dst, chunkSec, p.Sec)
		dst = append32(dst, chunkUsec, p.Usec)
	}
	dst = append8(dst, chunkType, p.Type)
	dst = append32(dst, chunkCaptureID, p.CaptureID)
	dst = appendBytes(dst, chunkCorrelationID, p.CorrelationID)
	dst = appendBytes(dst, chunkAuthKey, p.AuthKey)
	if p.KeepAlive != 0 {
		dst = append16(dst, chunkKeepAlive, p.KeepAlive)
	}
	if p.VLAN != 0 {
		dst = append16(dst, chunkVLAN, p.VLAN)
	}
	dst = appendBytes(dst, chunkNodeName, p.NodeName)
	for _, c := range p.Vendor {
		if c.Vendor == 0 && c.Type != 0 && c.Type <= chunkLast {
			return nil, &Error{
				Err: ErrChunk, Version: 3, Offset: len(dst) - start, Chunk: c.Type,
				Got: headerChunk + len(c.Data),
			}
		}
		dst = binary.BigEndian.AppendUint16(dst, c.Vendor)
		dst = binary.BigEndian.AppendUint16(dst, c.Type)
		dst = binary.BigEndian.AppendUint16(dst, uint16(headerChunk+len(c.Data)))
		dst = append(dst, c.Data...)
	}
	dst = appendBytes(dst, chunkPayload, p.Payload)

	// Lengths that don't fit 16 bits are cut: Append then refuses the whole.
	binary.BigEndian.PutUint16(dst[start+len(magic3):], uint16(len(dst)-start))
	return dst, nil
}

// appendHeader appends the header of a generic chunk; size is the value's.
func appendHeader(dst []byte, typ byte, size int) []byte {
	size += headerChunk
	return append(dst, 0, 0, 0, typ, byte(size>>8), byte(size))
}

func append8(dst []byte, typ, v byte) []byte {
	return append(appendHeader(dst, typ, 1), v)
}

func append16(dst []byte, typ byte, v uint16) []byte {
	return binary.BigEndian.AppendUint16(appendHeader(dst, typ, 2), v)
}

func append32(dst []byte, typ byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, typ, 4), v)
}

// appendBytes appends nothing for nil.
func appendBytes(dst []byte, typ byte, v []byte) []byte {
	if v == nil {
		return dst
	}
	return append(appendHeader(dst, typ, len(v)), v...)
}
