package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// In the spool a record is a HEP3 packet, readable with the field's tools. What
// HEP3 has no chunk for is in chunks of our own vendor id:
//
//	| vendor 0x5354 | type | length, header included | body ... |   big endian
//
// A message too large for one packet (HEP3 counts the whole packet in 16 bits)
// goes on in further packets that hold nothing but payload; every packet but
// the last has the chunk chunkMore.
const vendorID = 0x5354

const (
	chunkCallID = iota + 1
	chunkMethod
	chunkStatus
	chunkFromTag
	chunkToTag
	chunkDirection
	chunkFromIP    // fromip as text
	chunkToIP      // toip as text
	chunkUser      // traced_user, one chunk per row
	chunkNoUsers   // no row at all
	chunkTable     // table name
	chunkSource    // address (16 bytes) and port (2) of who sent the packet to us
	chunkTransport // ws, wss and whatever else has no IP protocol number
	chunkMore      // payload goes on in the next packet
	chunkSinks     // which sinks take it, one byte; absent: the database
	chunkTo        // a destination that a rule named, one chunk each
	chunkPacket    // the payload is a whole packet that came by HEP
)

// maxPart is how much payload one packet of a record takes; the rest of its 64
// KiB is room for the chunks.
const maxPart = 32 << 10

var directionIn, directionOut = []byte(siptrace.In), []byte(siptrace.Out)

// codec holds what encoding and decoding reuse. Not safe for concurrent use.
type codec struct {
	packet hep.Packet
	chunks []hep.Chunk
	source [18]byte
	sinks  [1]byte
	users  [][]byte
	to     []string
	text   textCache
	// foreign: the record being decoded is a packet that came by HEP.
	foreign bool
}

// append appends rec to dst as one or more HEP3 packets.
func (c *codec) append(dst []byte, rec *siptrace.Record) ([]byte, error) {
	chunks := c.chunks[:0]
	add := func(typ uint16, data []byte) {
		if len(data) > 0 {
			chunks = append(chunks, hep.Chunk{Vendor: vendorID, Type: typ, Data: clip(data)})
		}
	}
	add(chunkCallID, rec.CallID)
	add(chunkMethod, rec.Method)
	add(chunkStatus, rec.Status)
	add(chunkFromTag, rec.FromTag)
	add(chunkToTag, rec.ToTag)
	switch rec.Direction {
	case siptrace.In:
		add(chunkDirection, directionIn)
	case siptrace.Out:
		add(chunkDirection, directionOut)
	default:
		add(chunkDirection, []byte(rec.Direction))
	}
	add(chunkFromIP, []byte(rec.From.Text))
	add(chunkToIP, []byte(rec.To.Text))
	for _, u := range rec.Users {
		chunks = append(chunks, hep.Chunk{Vendor: vendorID, Type: chunkUser, Data: clip(u)})
	}
	if rec.Users != nil && len(rec.Users) == 0 {
		chunks = append(chunks, hep.Chunk{Vendor: vendorID, Type: chunkNoUsers})
	}
	add(chunkTable, []byte(rec.Table))
	if rec.Source.IsValid() {
		a := rec.Source.Addr().As16()
		copy(c.source[:], a[:])
		binary.BigEndian.PutUint16(c.source[16:], rec.Source.Port())
		add(chunkSource, c.source[:])
	}
	if rec.Sinks > siptrace.ToStore {
		c.sinks[0] = byte(rec.Sinks)
		add(chunkSinks, c.sinks[:])
	}
	for _, d := range rec.Destinations {
		add(chunkTo, []byte(d))
	}
	proto, exact := hepProto(rec.From.Proto)
	if !exact {
		add(chunkTransport, []byte(rec.From.Proto))
	}
	payload := rec.Msg
	if rec.Packet != nil {
		payload = rec.Packet
		chunks = append(chunks, hep.Chunk{Vendor: vendorID, Type: chunkPacket})
	}
	// Whatever the type, the chunks stand in the order of a SIP packet.
	typ := rec.Type
	if typ == 0 {
		typ = hep.TypeSIP
	}
	usec := rec.Time.UnixMicro()
	c.packet = hep.Packet{
		Version: 3, Type: typ, Proto: proto,
		Src: rec.From.Addr, Dst: rec.To.Addr,
		HasTime: true, Sec: uint32(usec / 1e6), Usec: uint32(usec % 1e6),
		CaptureID: rec.CaptureID, CorrelationID: rec.CorrelationID,
	}
	rest := payload
	for {
		c.packet.Payload, rest = rest, nil
		if len(c.packet.Payload) > maxPart {
			c.packet.Payload, rest = c.packet.Payload[:maxPart], c.packet.Payload[maxPart:]
			chunks = append(chunks, hep.Chunk{Vendor: vendorID, Type: chunkMore})
		}
		c.packet.Vendor, c.chunks = chunks, chunks
		var err error
		if dst, err = c.packet.Append(dst); err != nil {
			return dst, fmt.Errorf("spool: record of %d bytes: %w", len(payload), err)
		}
		if rest == nil {
			return dst, nil
		}
		c.packet = hep.Packet{Version: 3, Type: typ, Proto: proto, Src: rec.From.Addr, Dst: rec.To.Addr}
		chunks = chunks[:0]
	}
}

// maxField bounds what one field may take of a packet, far over any column.
const maxField = 4 << 10

func clip(b []byte) []byte { return b[:min(len(b), maxField)] }

var errContinued = errors.New("spool: a record ends before its last part")

// next decodes the record at the start of b into rec, which aliases b and c,
// and returns what follows it.
func (c *codec) next(b []byte, rec *siptrace.Record) (rest []byte, err error) {
	*rec = siptrace.Record{Sinks: siptrace.ToStore}
	c.users, c.to = c.users[:0], c.to[:0]
	for first := true; ; first = false {
		n, err := hep.Split(b)
		if err != nil || n == 0 {
			return nil, errors.Join(errContinued, err)
		}
		p := &c.packet
		if err := p.Decode(b[:n]); err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
		b = b[n:]
		if first {
			c.fields(rec, p)
			rec.Msg = p.Payload
		} else {
			// Its own memory: rec outlives the next call's packets.
			rec.Msg = append(rec.Msg[:len(rec.Msg):len(rec.Msg)], p.Payload...)
		}
		more := false
		for _, ch := range p.Vendor {
			more = more || ch.Vendor == vendorID && ch.Type == chunkMore
		}
		if !more {
			if c.foreign {
				rec.Packet, rec.Msg = rec.Msg, nil
			}
			return b, nil
		}
	}
}

func (c *codec) fields(rec *siptrace.Record, p *hep.Packet) {
	rec.Time = time.UnixMicro(int64(p.Sec)*1e6 + int64(p.Usec))
	proto := recordProto(p.Proto)
	rec.CaptureID, rec.CorrelationID = p.CaptureID, p.CorrelationID
	if rec.Type = p.Type; rec.Type == hep.TypeSIP {
		rec.Type = 0
	}
	c.foreign = false
	for _, ch := range p.Vendor {
		if ch.Vendor != vendorID {
			continue
		}
		switch ch.Type {
		case chunkCallID:
			rec.CallID = ch.Data
		case chunkMethod:
			rec.Method = ch.Data
		case chunkStatus:
			rec.Status = ch.Data
		case chunkFromTag:
			rec.FromTag = ch.Data
		case chunkToTag:
			rec.ToTag = ch.Data
		case chunkDirection:
			rec.Direction = c.text.get(ch.Data)
		case chunkFromIP:
			rec.From.Text = c.text.get(ch.Data)
		case chunkToIP:
			rec.To.Text = c.text.get(ch.Data)
		case chunkUser:
			c.users = append(c.users, ch.Data)
			rec.Users = c.users
		case chunkNoUsers:
			rec.Users = [][]byte{}
		case chunkTable:
			rec.Table = c.text.get(ch.Data)
		case chunkSource:
			if len(ch.Data) == 18 {
				a := netip.AddrFrom16([16]byte(ch.Data[:16])).Unmap()
				rec.Source = netip.AddrPortFrom(a, binary.BigEndian.Uint16(ch.Data[16:]))
			}
		case chunkSinks:
			if len(ch.Data) == 1 {
				rec.Sinks = siptrace.Sinks(ch.Data[0])
			}
		case chunkTo:
			c.to = append(c.to, c.text.get(ch.Data))
			rec.Destinations = c.to
		case chunkPacket:
			c.foreign = true
		case chunkTransport:
			proto = siptrace.Proto(c.text.get(ch.Data))
		}
	}
	rec.From.Proto, rec.From.Addr = proto, p.Src
	rec.To.Proto, rec.To.Addr = proto, p.Dst
}

// hepProto is the IP protocol number of a transport; exact is false where
// several transports share the number.
func hepProto(p siptrace.Proto) (n hep.Proto, exact bool) {
	switch p {
	case siptrace.UDP:
		return hep.UDP, true
	case siptrace.TCP:
		return hep.TCP, true
	case siptrace.TLS:
		return hep.TLS, true
	case siptrace.SCTP:
		return hep.SCTP, true
	case siptrace.WS, siptrace.WSS:
		return hep.TLS, false
	default:
		return hep.UDP, false
	}
}

func recordProto(n hep.Proto) siptrace.Proto {
	switch n {
	case hep.UDP:
		return siptrace.UDP
	case hep.TCP:
		return siptrace.TCP
	case hep.TLS:
		return siptrace.TLS
	case hep.SCTP:
		return siptrace.SCTP
	default:
		return siptrace.Any
	}
}

// textCache keeps the few strings that recur in every record (directions,
// transports, tables) from being allocated for each.
type textCache struct{ seen map[string]string }

func (t *textCache) get(b []byte) string {
	if s, ok := t.seen[string(b)]; ok {
		return s
	}
	s := string(b)
	if t.seen == nil || len(t.seen) > 256 {
		t.seen = map[string]string{}
	}
	t.seen[s] = s
	return s
}

// shardOf chooses the shard of a call: FNV-1a, so that every intake of a
// cluster chooses the same one.
func shardOf(callID []byte, n int) int {
	h := uint32(2166136261)
	for _, b := range callID {
		h = (h ^ uint32(b)) * 16777619
	}
	// FNV leaves the last bytes' differences out of the upper bits: mix.
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return int(uint64(h^h>>16) * uint64(n) >> 32)
}
