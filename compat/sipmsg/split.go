package sipmsg

import "bytes"

// Bounds of a message on a stream.
const (
	MaxHeaders = 64 << 10 // start line and headers with the blank line, bytes
	MaxMessage = 1 << 20  // whole message, bytes
)

// Split finds the first message on a stream (RFC 3261 §18.3). buf is everything read and not yet consumed.
//
// skip is the number of bytes before the message, all of them white space: keepalives (RFC 5626 §3.5.1) and
// what senders leave between messages (RFC 3261 §7.5). n is the length of the message, which is
// buf[skip : skip+n]; 0 means that more bytes are needed. The caller consumes skip+n bytes in either case.
//
// A message ends Content-Length bytes after its blank line. Without Content-Length it has no body, though
// RFC 3261 §20.14 wants the header on streams: if a body does follow, the next call finds no SIP in it and
// says so. (Kamailio refuses such a message unless tcp_accept_no_cl is set.)
//
// Errors end the stream, as the start of the next message is unknown: [*NotSIPError] for a first line that is
// not SIP, as soon as it is whole; [*LengthError] for a Content-Length that is no number or of which there
// are two that differ (RFC 4475 §3.3.9); [*SizeError] for more than MaxHeaders or MaxMessage. n is 0 then.
// Line ends may be LF alone. A call looks at the header section from its start; n may be asked for again after
// each read, as its cost is bounded by MaxHeaders.
func Split(buf []byte) (skip, n int, err error) {
	skip = skipLWS(buf, 0)
	b := buf[skip:]
	window := b[:min(len(b), MaxHeaders)]

	i := bytes.IndexByte(window, '\n') + 1
	if i == 0 {
		return skip, 0, headersTooLong(b)
	}
	var m Message
	if reason := m.startLine(window[:i-1]); reason != "" {
		return skip, 0, &NotSIPError{Offset: skip, Size: len(buf), Reason: reason}
	}
	length := -1
	for {
		h, next, k := nextHeader(window, i)
		if k == endOfHeaders {
			i = next
			break
		}
		// Unless the line after it has begun, a header may still be folded, or not have ended at all.
		if k == endOfInput || next == len(window) {
			return skip, 0, headersTooLong(b)
		}
		i = next
		if identify(window[h.name:h.nameEnd]) != hdrContentLength {
			continue
		}
		v := trim(window[h.value:h.end])
		l := number(v)
		reason := ""
		switch {
		case l < 0:
			reason = "not a number of bytes"
		case length >= 0 && l != length:
			reason = "differs from the one before it"
		}
		if reason != "" {
			return skip, 0, &LengthError{
				Offset: skip + skipLWS(window, h.value), Value: string(v[:min(len(v), 32)]), Reason: reason,
			}
		}
		length = l
	}
	if n = i + max(length, 0); n > MaxMessage {
		return skip, 0, &SizeError{What: "message", Size: n, Max: MaxMessage}
	}
	if n > len(b) {
		return skip, 0, nil
	}
	return skip, n, nil
}

// headersTooLong judges a message of which b is the beginning and has no end of headers within the bound.
func headersTooLong(b []byte) error {
	if len(b) < MaxHeaders {
		return nil
	}
	return &SizeError{What: "header section", Size: MaxHeaders + 1, Max: MaxHeaders}
}
