// Package sipmsg reads what a tracer needs from one SIP message: start line, Call-ID, CSeq, From and To with
// their tags, top Via, Contact, User-Agent and the shape of the body. It reads a message the way Kamailio's
// siptrace module does, and gives more than that module where a message is broken: what can be read is
// there, and Defects says what was wrong.
//
//	var m sipmsg.Message // reuse it: Parse resets it and allocates nothing
//	if err := m.Parse(datagram); err != nil {
//		return err // not SIP at all
//	}
//	row(m.CallID, m.MethodName(), m.Status, m.From.Tag, m.To.Tag)
//
// On a TCP or TLS stream [Split] finds where a message begins and ends.
//
// It leaves out: checking a message against the grammar (syntax that does not touch what is read goes
// unmentioned), building messages, bodies (SDP, multipart), unescaping, and unfolding: every field is the
// bytes as they stood in the message, which need not be valid UTF-8.
package sipmsg
