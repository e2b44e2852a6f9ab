package mirror

import (
	"errors"
	"net/netip"
	"time"

	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
	"siptraced/hep"
	"siptraced/xheaders"
)

// outcome is what became of a record at a destination.
type outcome uint8

const (
	sent     outcome = iota
	skipped          // not for this destination
	filtered         // the filter said no
	tooLarge         // for the protocol or one datagram
	failed           // the kernel did not take it, or it can't be written
	expired          // beyond the bounds in bytes and age
	outcomes         // how many there are
)

// encoder turns records into what goes over the wire to one destination. It
// belongs to one goroutine.
type encoder struct {
	dst           *Destination
	local, remote netip.AddrPort // of the socket in use
	toSiptraced   bool           // another siptraced reads at the other end of a stream
	packet        hep.Packet     // in hand
	headers       xheaders.Headers
	from, to, cut []byte
	msg           sipmsg.Message

	loops *loop.Detector // nil: packets are not marked
	// stream and number are the origin of the record in hand; stream 0: it has none.
	stream, number uint64
	// uncounted: MarkedCopies does not count the record in hand.
	uncounted    bool
	path, origin []byte
	marked       bool // the last packet has the path
}

// want says what of a record goes to the destination.
func (e *encoder) want(rec *siptrace.Record) (asHEP, asSIP bool) {
	notSIP := rec.Packet != nil || rec.Type == siptrace.TypeLog
	switch e.dst.Protocol {
	case ByRecord:
		// A log line goes by HEP, whatever the mode (hlog).
		return rec.Sinks&siptrace.ToHEP != 0, rec.Sinks&siptrace.ToSIP != 0 && !notSIP
	case SIP:
		return false, !notSIP
	default:
		return true, false
	}
}

// pass asks the filter.
func (e *encoder) pass(rec *siptrace.Record) bool {
	if e.dst.Filter == nil || rec.Packet != nil || rec.Type == siptrace.TypeLog {
		return true
	}
	if err := e.msg.Parse(rec.Msg); err != nil {
		return true // a text of sip_trace_msg: somebody meant it to go
	}
	return e.dst.Filter.Match(&e.msg, rec)
}

// maxOther is the longest HEP3 packet that others than siptraced take from a
// stream: that of a datagram. heplify-server closes the connection at a longer one.
const maxOther = maxUDP4

// appendHEP appends rec as HEP, in version 3 with the marks that siptraceds know
// it by, unless it has no room for them.
func (e *encoder) appendHEP(dst []byte, rec *siptrace.Record) ([]byte, error) {
	most := maxOther
	if e.toSiptraced {
		most = hep.MaxPacket
	}
	e.marked = rec.Packet != nil || rec.Type == siptrace.TypeLog || e.dst.hepVersion() == 3
	out, err := e.appendWithin(dst, rec)
	tooLarge := errors.Is(err, hep.ErrTooLarge) || err == nil && len(out)-len(dst) > most
	if e.marked && tooLarge {
		e.marked = false
		out, err = e.appendWithin(dst, rec)
	}
	// What a datagram takes is the socket's to say.
	if n := len(out) - len(dst); err == nil && n > most && e.dst.Stream() {
		return dst, &hep.Error{Err: hep.ErrTooLarge, Version: 3, Got: n, Want: most}
	}
	return out, err
}

func (e *encoder) appendWithin(dst []byte, rec *siptrace.Record) ([]byte, error) {
	if rec.Packet != nil {
		return e.appendPacket(dst, rec)
	}
	p := &e.packet
	hepmap.Fill(p, rec)
	p.Version, p.AuthKey = e.dst.hepVersion(), e.dst.AuthKey
	if e.dst.Time == TimeRelay {
		p.Sec, p.Usec = hepmap.Time(time.Now())
	}
	if !e.dst.Incoming || rec.CaptureID == 0 {
		p.CaptureID = e.dst.CaptureID
	}
	p.Vendor = e.appendMarks(p.Vendor, rec)
	if p.Type == hep.TypeLog {
		// From the socket that sends it to the collector (vectors fact 32).
		p.Version, p.Src, p.Dst = 3, e.local, e.remote
		p.Proto, _ = hepmap.Proto(e.dst.Transport)
	}
	return p.Append(dst)
}

// appendPacket appends a packet that came by HEP and is not SIP as it came, but
// without the key of who sent it: ours, if there is one, stands in its place.
func (e *encoder) appendPacket(dst []byte, rec *siptrace.Record) ([]byte, error) {
	return hepmap.AppendForwarded(dst, rec.Packet, e.dst.AuthKey, e.appendMarks(nil, rec)...)
}

// appendMarks appends the chunks with the instances that a message passed, this
// one included, and with the stream and number of the packet.
func (e *encoder) appendMarks(chunks []hep.Chunk, rec *siptrace.Record) []hep.Chunk {
	if !e.marked {
		return chunks
	}
	if e.loops != nil {
		e.path = e.loops.Path(e.path[:0], rec.Path)
	} else {
		e.path = append(e.path[:0], rec.Path...)
	}
	if len(e.path) > 0 {
		chunks = append(chunks, hep.Chunk{Vendor: hepmap.Vendor, Type: hepmap.ChunkPath, Data: e.path})
	}
	if e.stream == 0 {
		return chunks
	}
	e.origin = loop.AppendOrigin(e.origin[:0], e.stream, e.number)
	return append(chunks, hep.Chunk{Vendor: hepmap.Vendor, Type: hepmap.ChunkOrigin, Data: e.origin})
}

// note has loops know that a copy of rec is about to be sent, unless they know it
// from the intake.
func (e *encoder) note(rec *siptrace.Record, hasPath bool) {
	if e.loops != nil && rec.Packet == nil && rec.Type != siptrace.TypeLog && (!hasPath || e.uncounted) {
		e.loops.Sent(rec.Msg, hasPath)
	}
}

// hepVersion is the version in which SIP goes to the destination by HEP; 0: none.
func (d *Destination) hepVersion() int {
	switch d.Protocol {
	case SIP:
		return 0
	case HEP1:
		return 1
	case HEP2:
		return 2
	case HEP3:
		return 3
	}
	if d.Stream() {
		return 3 // the others can't be found in a stream again
	}
	return d.Version
}

// appendSIP appends rec as a SIP duplicate, with the X-Siptrace headers where
// they are asked for. A message that has a set already keeps it, unless that
// says nothing of the time and method (trace_mode 4) or can't be read. Where the
// headers can't be put, the message goes without.
func (e *encoder) appendSIP(dst []byte, rec *siptrace.Record) []byte {
	if !e.dst.XHeaders || len(rec.Method) == 0 {
		return append(dst, rec.Msg...)
	}
	msg, h := rec.Msg, &e.headers
	switch err := xheaders.Read(msg, h); {
	case errors.Is(err, xheaders.ErrNone):
	case err == nil && h.HasTime && len(h.Method) > 0:
		return append(dst, msg...)
	default:
		e.cut = xheaders.Cut(e.cut[:0], msg)
		msg = e.cut
	}
	e.from, e.to = rec.From.Append(e.from[:0]), rec.To.Append(e.to[:0])
	*h = xheaders.Headers{
		FromIP: e.from, ToIP: e.to, Method: rec.Method, Dir: rec.Direction,
		HasTime: true, Sec: rec.Time.Unix(), Usec: uint32(rec.Time.Nanosecond() / 1000),
	}
	out, err := xheaders.Append(dst, msg, h)
	if err != nil {
		return append(dst, rec.Msg...)
	}
	return out
}
