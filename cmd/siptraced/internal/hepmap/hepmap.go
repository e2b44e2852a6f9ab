// Package hepmap says how HEP writes what records hold: transports, times, and
// the vendor chunks that siptraced passes on or adds.
//
//	proto := hepmap.Transport(packet.Proto)          // siptrace.UDP, ...
//	n, exact := hepmap.Proto(siptrace.WSS)           // hep.TLS, false
//	raw = hepmap.AppendForeign(raw, packet.Vendor)   // for siptrace.Meta
//	chunks = hepmap.Chunks(chunks, raw)              // and back
//	hepmap.Fill(&packet, record)                     // a record as HEP3
package hepmap

import (
	"encoding/binary"
	"math"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// Vendor is siptraced's vendor id ("ST"). Between siptraceds, and in the spool,
// a HEP3 packet has chunks of it:
//
//	| vendor 0x5354 | type | length, header included | body ... |   big endian
const Vendor = 0x5354

// The types of chunks that go over the wire; the spool has more of its own, all
// below 0x100.
const (
	ChunkPath   = 0x100 + iota // siptrace.Meta.Path
	ChunkOrigin                // siptrace.Meta.Origin
	ChunkAnswer                // a mirror's answer to a question of the receiver (package loop)
)

// transports is which transport has which IP protocol number in HEP.
var transports = [...]struct {
	proto     hep.Proto
	transport siptrace.Proto
}{
	{hep.UDP, siptrace.UDP},
	{hep.TCP, siptrace.TCP},
	{hep.TLS, siptrace.TLS},
	{hep.SCTP, siptrace.SCTP},
}

// Proto is a transport's number in HEP. Kamailio sends WS and WSS as TLS, and
// what has no number as UDP: exact is false then.
func Proto(p siptrace.Proto) (n hep.Proto, exact bool) {
	for i := range transports {
		if transports[i].transport == p {
			return transports[i].proto, true
		}
	}
	if p == siptrace.WS || p == siptrace.WSS {
		return hep.TLS, false
	}
	return hep.UDP, false
}

// Transport is the transport of a number, Any for one that SIP does not use.
func Transport(n hep.Proto) siptrace.Proto {
	for i := range transports {
		if transports[i].proto == n {
			return transports[i].transport
		}
	}
	return siptrace.Any
}

// Time is a moment as HEP has it: seconds in 32 bits, the first or the last
// possible one for what is out of range (1970, 2106), and microseconds.
func Time(t time.Time) (sec, usec uint32) {
	return uint32(min(max(t.Unix(), 0), math.MaxUint32)), uint32(t.Nanosecond() / 1000)
}

// Fill makes p the HEP3 packet that says what rec holds: a SIP message or a log line,
// and what HEP brought beside it. Ends that nobody knows are as the module writes
// them. Who has a packet that came by HEP (Record.Packet) has no need of it.
// p.Vendor is used again.
func Fill(p *hep.Packet, rec *siptrace.Record) {
	from, to := rec.From.OrUnknown(), rec.To.OrUnknown()
	// The second address decides, as in the module.
	if to.Proto == siptrace.Any {
		to.Proto = from.Proto
	}
	proto, _ := Proto(to.Proto)
	sec, usec := Time(rec.Time)
	*p = hep.Packet{
		Version: 3, Type: hep.TypeSIP, Proto: proto, Src: from.Addr, Dst: to.Addr, HasTime: true, Sec: sec, Usec: usec,
		CaptureID: rec.CaptureID, CorrelationID: rec.CorrelationID, VLAN: rec.VLAN, NodeName: rec.NodeName,
		Payload: rec.Msg, Vendor: Chunks(p.Vendor[:0], rec.Vendor),
	}
	if rec.Type == siptrace.TypeLog {
		p.Type = hep.TypeLog
	}
}

// Generic chunks (HEP3 specification).
const (
	chunkAuthKey    = 14
	chunkPayload    = 15
	chunkCompressed = 16
)

const (
	packetHeader = 6
	chunkHeader  = 6
)

// AppendForeign appends the chunks of other vendors, each with its header.
func AppendForeign(dst []byte, chunks []hep.Chunk) []byte {
	for _, c := range chunks {
		if c.Vendor != Vendor {
			dst = appendChunk(dst, c)
		}
	}
	return dst
}

func appendChunk(dst []byte, c hep.Chunk) []byte {
	dst = binary.BigEndian.AppendUint16(dst, c.Vendor)
	dst = binary.BigEndian.AppendUint16(dst, c.Type)
	dst = binary.BigEndian.AppendUint16(dst, uint16(chunkHeader+len(c.Data)))
	return append(dst, c.Data...)
}

// AppendForwarded appends a HEP3 packet as it came, but for siptraced's chunks: add
// stand in their place, before the payload. A key gives way to ours, to none if
// there is none; a packet without a key stays without. Errors are those of
// [hep.Packet.Append]; what is no HEP3 packet stays as it is.
func AppendForwarded(dst, packet, key []byte, add ...hep.Chunk) ([]byte, error) {
	if n, _ := hep.Split(packet); n == 0 || n != len(packet) {
		return append(dst, packet...), nil
	}
	start := len(dst)
	dst = append(dst, packet[:packetHeader]...)
	for _, c := range Chunks(nil, packet[packetHeader:]) {
		switch {
		case c.Vendor == Vendor:
			continue
		case c.Vendor != 0:
		case c.Type == chunkAuthKey:
			if len(key) == 0 {
				continue
			}
			c.Data = key
		case c.Type == chunkPayload, c.Type == chunkCompressed:
			for _, a := range add {
				dst = appendChunk(dst, a)
			}
			add = nil
		}
		dst = appendChunk(dst, c)
	}
	for _, a := range add {
		dst = appendChunk(dst, a)
	}
	n := len(dst) - start
	if n > hep.MaxPacket {
		return dst[:start], &hep.Error{Err: hep.ErrTooLarge, Version: 3, Got: n, Want: hep.MaxPacket}
	}
	binary.BigEndian.PutUint16(dst[start+packetHeader-2:], uint16(n))
	return dst, nil
}

// Chunks appends the chunks in raw, which AppendForeign made and the chunks
// alias. What is cut off at the end is left out.
func Chunks(dst []hep.Chunk, raw []byte) []hep.Chunk {
	for len(raw) >= chunkHeader {
		n := int(binary.BigEndian.Uint16(raw[4:]))
		if n < chunkHeader || n > len(raw) {
			break
		}
		dst = append(dst, hep.Chunk{Vendor: binary.BigEndian.Uint16(raw), Type: binary.BigEndian.Uint16(raw[2:]), Data: raw[chunkHeader:n:n]})
		raw = raw[n:]
	}
	return dst
}
