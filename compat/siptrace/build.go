package siptrace

import (
	"net/netip"
	"time"

	"siptraced/compat/sipmsg"
)

// Capture is one SIP message as it was mirrored to us, before the module's
// rules. Byte slices alias the receive buffer.
type Capture struct {
	Time     time.Time // moment of capture; time of arrival where the mirror has none
	Proto    Proto
	Src, Dst netip.AddrPort
	Payload  []byte
	// HEP: Proto is what HEP says of the hop on which the message was seen, and not
	// that of the socket to which a duplicate came.
	HEP bool

	Meta
}

// Builder turns captures into records. It is safe for concurrent use.
type Builder struct {
	Own *Sockets
	// LocalIP, unless it is the zero Endpoint, stands in place of the proxy's own
	// end (trace_local_ip).
	LocalIP Endpoint

	spirals spirals
}

// Build fills rec from a capture and its scanned message. rec aliases both.
func (b *Builder) Build(rec *Record, c *Capture, m *sipmsg.Message) {
	proto := c.Proto
	// HEP carries TLS, WS and WSS as IP protocol 22, and some agents carry them as
	// TCP; the top Via of a message, request or reply, names the transport of the
	// hop it was seen on.
	if c.HEP && (proto == TLS || proto == TCP) {
		switch {
		case equalFold(m.Via.Transport, "wss"):
			proto = WSS
		case equalFold(m.Via.Transport, "ws"):
			proto = WS
		case equalFold(m.Via.Transport, "tls"):
			proto = TLS
		}
	}
	*rec = Record{
		Time:    c.Time,
		CallID:  m.CallID,
		Msg:     c.Payload,
		Method:  m.MethodName(),
		From:    Endpoint{Proto: proto, Addr: c.Src},
		To:      Endpoint{Proto: proto, Addr: c.Dst},
		FromTag: m.From.Tag,
		ToTag:   m.To.Tag,
		Meta:    c.Meta,
	}
	if !m.IsRequest {
		rec.Status = m.Status
	}
	b.direct(rec, c, m)
}

// direct decides the direction and then names the proxy's own end.
func (b *Builder) direct(rec *Record, c *Capture, m *sipmsg.Message) {
	fromOwn, toOwn := b.Own.Own(c.Proto, c.Src), b.Own.Own(c.Proto, c.Dst)
	if !fromOwn && !toOwn {
		if b.Own.Len() == 0 {
			fromOwn, toOwn = bySender(c)
		} else {
			fromOwn, toOwn = b.byHost(c)
		}
	}
	rec.Direction = In
	if fromOwn {
		rec.Direction = Out
		// A message that the proxy sends to itself is mirrored twice with the
		// same two addresses: first as sent, then as received.
		if toOwn && b.spirals.second(c, m) {
			rec.Direction = In
		}
	}
	rec.From.Addr = b.Own.advertise(c.Proto, c.Src)
	rec.To.Addr = b.Own.advertise(c.Proto, c.Dst)
	switch {
	case b.LocalIP == Endpoint{}:
	case rec.Direction == Out:
		rec.From = b.LocalIP
	case toOwn:
		rec.To = b.LocalIP
	}
}

// byHost tells the proxy's end where neither is one of its sockets: TCP and TLS
// connections that the proxy opened have a port of their own. OpenSIPS and
// sniffers report it, and so does Kamailio with trace_ephemeral_socket.
func (b *Builder) byHost(c *Capture) (fromOwn, toOwn bool) {
	src, dst := b.Own.OwnHost(c.Src), b.Own.OwnHost(c.Dst)
	return src && !dst, dst && !src
}

// bySender tells the proxy's end when nobody said which sockets it has: HEP
// leaves Kamailio from one of its SIP sockets, other agents mirror from the
// host they watch.
func bySender(c *Capture) (fromOwn, toOwn bool) {
	if c.Src == c.Source || c.Dst == c.Source {
		return c.Src == c.Source, c.Dst == c.Source
	}
	src, dst, host := c.Src.Addr().Unmap(), c.Dst.Addr().Unmap(), c.Source.Addr().Unmap()
	return src == host && dst != host, dst == host && src != host
}

func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c|0x20 != lower[i] {
			return false
		}
	}
	return true
}
