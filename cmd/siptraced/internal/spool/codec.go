package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// In the spool a record is a HEP3 packet, readable with the field's tools. What
// HEP3 has no chunk for is in chunks of siptraced's vendor id (package hepmap).
//
// HEP3 counts a whole packet in 16 bits. A record too large for one goes on in
// further packets with the chunks and the payload that are left; every packet
// but the last has the chunk chunkMore.
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
	chunkMore      // the record goes on in the next packet
	chunkSinks     // which sinks take it, one byte; absent: the database
	chunkTo        // a destination that a rule named, one chunk each
	chunkPacket    // the payload is a whole packet that came by HEP
	chunkSeconds   // seconds since 1970 in 64 bits, where the generic chunk's 32 don't do
	chunkVendor    // chunks of other vendors, each with its header
)

// Bounds of a record in bytes. A packet has 64 KiB for one part of the payload,
// some chunks, and what HEP3 always has.
const (
	maxPart   = 32 << 10 // payload of one packet
	maxChunks = 20 << 10 // chunks of one packet, if there are several
	maxField  = 4 << 10  // one field: far over any column
	maxVendor = 48 << 10 // chunks of other vendors
	// headerChunk is a chunk's header; fixed is the room that all else takes of a
	// packet but correlation id and node name: HEP3's own header and its chunks of
	// fixed size, with IPv6 131 bytes.
	headerChunk = 6
	fixed       = 256
)

// codec holds what encoding and decoding reuse. Not safe for concurrent use.
type codec struct {
	chunks []hep.Chunk
	vendor []hep.Chunk // of the packet in hand
	buf    []byte      // texts and numbers of the record in hand
	users  [][]byte
	to     []string
	text   textCache
	ends   siptrace.EndpointCache
	// foreign: the record being decoded is a packet that came by HEP.
	foreign bool
	// clipped: the record that was encoded last lost something for the bounds.
	clipped bool
}

// bytesOf is the field of rec that is the body of a chunk, nil for other chunks.
func bytesOf(rec *siptrace.Record, typ uint16) *[]byte {
	switch typ {
	case chunkCallID:
		return &rec.CallID
	case chunkMethod:
		return &rec.Method
	case chunkStatus:
		return &rec.Status
	case chunkFromTag:
		return &rec.FromTag
	case chunkToTag:
		return &rec.ToTag
	case chunkVendor:
		return &rec.Vendor
	case hepmap.ChunkPath:
		return &rec.Path
	case hepmap.ChunkOrigin:
		return &rec.Origin
	}
	return nil
}

// add adds a chunk, unless it is empty.
func (c *codec) add(typ uint16, data []byte) {
	if len(data) > 0 {
		c.chunks = append(c.chunks, hep.Chunk{Vendor: hepmap.Vendor, Type: typ, Data: c.clip(data)})
	}
}

// addText is add for what has to be copied first.
func (c *codec) addText(typ uint16, text string) {
	n := len(c.buf)
	c.buf = append(c.buf, text...)
	c.add(typ, c.buf[n:])
}

func (c *codec) clip(b []byte) []byte {
	if len(b) > maxField {
		c.clipped = true
		return b[:maxField]
	}
	return b
}

// gather makes the chunks of a record.
func (c *codec) gather(rec *siptrace.Record) {
	c.chunks, c.buf, c.clipped = c.chunks[:0], c.buf[:0], false
	for _, typ := range [...]uint16{chunkCallID, chunkMethod, chunkStatus, chunkFromTag, chunkToTag, hepmap.ChunkPath, hepmap.ChunkOrigin} {
		c.add(typ, *bytesOf(rec, typ))
	}
	c.addText(chunkDirection, rec.Direction)
	c.addText(chunkFromIP, rec.From.Text)
	c.addText(chunkToIP, rec.To.Text)
	for _, u := range rec.Users {
		c.chunks = append(c.chunks, hep.Chunk{Vendor: hepmap.Vendor, Type: chunkUser, Data: c.clip(u)})
	}
	if rec.Users != nil && len(rec.Users) == 0 {
		c.chunks = append(c.chunks, hep.Chunk{Vendor: hepmap.Vendor, Type: chunkNoUsers})
	}
	c.addText(chunkTable, rec.Table)
	for _, d := range rec.Destinations {
		c.addText(chunkTo, d)
	}
	if n := len(c.buf); rec.Source.IsValid() {
		a := rec.Source.Addr().As16()
		c.buf = binary.BigEndian.AppendUint16(append(c.buf, a[:]...), rec.Source.Port())
		c.add(chunkSource, c.buf[n:])
	}
	if n := len(c.buf); rec.Sinks != siptrace.ToStore {
		c.buf = append(c.buf, byte(rec.Sinks))
		c.add(chunkSinks, c.buf[n:])
	}
	if n, sec := len(c.buf), rec.Time.Unix(); sec != int64(uint32(sec)) {
		c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(sec))
		c.add(chunkSeconds, c.buf[n:])
	}
	if _, exact := hepmap.Proto(transport(rec)); !exact {
		c.addText(chunkTransport, string(transport(rec)))
	}
	if rec.Packet != nil {
		c.chunks = append(c.chunks, hep.Chunk{Vendor: hepmap.Vendor, Type: chunkPacket})
	}
	if len(rec.Vendor) > maxVendor {
		c.clipped = true
	} else if len(rec.Vendor) > 0 {
		c.chunks = append(c.chunks, hep.Chunk{Vendor: hepmap.Vendor, Type: chunkVendor, Data: rec.Vendor})
	}
}

// transport is that of a record's ends. An end that came as text has its own in
// the text.
func transport(rec *siptrace.Record) siptrace.Proto {
	if rec.From.Text != "" {
		return rec.To.Proto
	}
	return rec.From.Proto
}

// append appends rec to dst as one or more HEP3 packets.
func (c *codec) append(dst []byte, rec *siptrace.Record) ([]byte, error) {
	c.gather(rec)
	chunks, payload := c.chunks, rec.Msg
	if rec.Packet != nil {
		payload = rec.Packet
	}
	proto, _ := hepmap.Proto(transport(rec))
	p := hep.Packet{
		Version: 3, Type: rec.Type, Proto: proto, Src: rec.From.Addr, Dst: rec.To.Addr,
		HasTime: true, Sec: uint32(rec.Time.Unix()), Usec: uint32(rec.Time.Nanosecond() / 1000),
		CaptureID: rec.CaptureID, CorrelationID: c.clip(rec.CorrelationID), VLAN: rec.VLAN, NodeName: c.clip(rec.NodeName),
	}
	// Whatever the type, the chunks stand in the order of a SIP packet.
	if p.Type == 0 {
		p.Type = hep.TypeSIP
	}
	for {
		n, size := fitting(chunks)
		p.Vendor, chunks = chunks[:n], chunks[n:]
		room := hep.MaxPacket - fixed - len(p.CorrelationID) - len(p.NodeName) - size
		part := min(len(payload), maxPart, max(room, 0))
		p.Payload, payload = payload[:part], payload[part:]
		if more := len(chunks) > 0 || len(payload) > 0; more {
			c.vendor = append(append(c.vendor[:0], p.Vendor...), hep.Chunk{Vendor: hepmap.Vendor, Type: chunkMore})
			p.Vendor = c.vendor
		}
		var err error
		if dst, err = p.Append(dst); err != nil {
			return dst, fmt.Errorf("spool: record of %d bytes: %w", len(rec.Msg)+len(rec.Packet), err)
		}
		if len(chunks) == 0 && len(payload) == 0 {
			return dst, nil
		}
		p = hep.Packet{Version: 3, Type: p.Type, Proto: proto, Src: rec.From.Addr, Dst: rec.To.Addr}
	}
}

// fitting is how many of the chunks go into one packet, and their size.
func fitting(chunks []hep.Chunk) (n, size int) {
	for i := range chunks {
		add := headerChunk + len(chunks[i].Data)
		if i > 0 && size+add > maxChunks {
			return i, size
		}
		size += add
	}
	return len(chunks), size
}

var errContinued = errors.New("spool: a record ends before its last part")

// next decodes the record at the start of b into rec, which aliases b and c,
// and returns what follows it.
func (c *codec) next(b []byte, rec *siptrace.Record) (rest []byte, err error) {
	*rec = siptrace.Record{Route: siptrace.Route{Sinks: siptrace.ToStore}}
	c.users, c.to, c.foreign = c.users[:0], c.to[:0], false
	for first := true; ; first = false {
		n, err := hep.Split(b)
		if err != nil || n == 0 {
			return nil, errors.Join(errContinued, err)
		}
		p := hep.Packet{Vendor: c.vendor}
		if err := p.Decode(b[:n]); err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
		c.vendor = p.Vendor
		b = b[n:]
		if first {
			header(rec, &p)
			rec.Msg = p.Payload
		} else {
			// Force a copy: b goes on behind the first part.
			rec.Msg = append(rec.Msg[:len(rec.Msg):len(rec.Msg)], p.Payload...)
		}
		if more := c.fields(rec, &p); !more {
			if c.foreign {
				rec.Packet, rec.Msg = rec.Msg, nil
			}
			return b, nil
		}
	}
}

// header gives rec what HEP3 has chunks for.
func header(rec *siptrace.Record, p *hep.Packet) {
	rec.Time = time.Unix(int64(p.Sec), int64(p.Usec)*1000)
	proto := hepmap.Transport(p.Proto)
	rec.From, rec.To = siptrace.Endpoint{Proto: proto, Addr: p.Src}, siptrace.Endpoint{Proto: proto, Addr: p.Dst}
	rec.CaptureID, rec.CorrelationID, rec.VLAN, rec.NodeName = p.CaptureID, p.CorrelationID, p.VLAN, p.NodeName
	if rec.Type = p.Type; rec.Type == hep.TypeSIP {
		rec.Type = 0
	}
}

// fields gives rec what one of its packets has in chunks of ours, and reports
// whether another packet follows.
func (c *codec) fields(rec *siptrace.Record, p *hep.Packet) (more bool) {
	for i := range p.Vendor {
		ch := &p.Vendor[i]
		if ch.Vendor != hepmap.Vendor {
			continue
		}
		if f := bytesOf(rec, ch.Type); f != nil {
			*f = ch.Data
			continue
		}
		switch ch.Type {
		case chunkDirection:
			rec.Direction = c.text.get(ch.Data)
		case chunkFromIP:
			rec.From = c.ends.Get(ch.Data)
		case chunkToIP:
			rec.To = c.ends.Get(ch.Data)
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
		case chunkTransport:
			proto := siptrace.Proto(c.text.get(ch.Data))
			if rec.From.Text == "" {
				rec.From.Proto = proto
			}
			if rec.To.Text == "" {
				rec.To.Proto = proto
			}
		case chunkSeconds:
			if len(ch.Data) == 8 {
				rec.Time = time.Unix(int64(binary.BigEndian.Uint64(ch.Data)), int64(rec.Time.Nanosecond()))
			}
		case chunkPacket:
			c.foreign = true
		case chunkMore:
			more = true
		}
	}
	return more
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
