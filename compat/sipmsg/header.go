package sipmsg

import (
	"bytes"
	"iter"
)

// Header is one header of a message.
type Header struct {
	Name []byte // as written, without the blanks before the colon; never empty
	Raw  []byte // the value as written: from the colon to the line's end, blanks included
}

// Value returns the value without the blanks around it. Folds inside are kept.
func (h Header) Value() []byte { return trim(h.Raw) }

// Is reports whether h has that name: in any letter case, and in its compact form too. name is a canonical
// one, as [CanonicalName] returns it.
func (h Header) Is(name string) bool {
	return (len(h.Name) == len(name) || len(h.Name) == 1) && isNamed(h.Name, name) // the lengths are compared inline
}

func isNamed(n []byte, name string) bool {
	if len(n) == 1 {
		return equalFold(CanonicalName(string(n)), name)
	}
	return len(n) > 0 && equalFold(n, name)
}

// Headers iterates over the headers in order. Lines without a colon or a name are passed over.
func (m *Message) Headers() iter.Seq[Header] {
	return func(yield func(Header) bool) { m.each(yield) } // inlined, unlike a method value: nothing is allocated
}

func (m *Message) each(yield func(Header) bool) {
	b := m.HeaderSection
	for i := 0; ; {
		h, next, st := nextHeader(b, i)
		if st != isHeader {
			return
		}
		i = next
		if h.nameEnd > h.name && !yield(Header{Name: b[h.name:h.nameEnd], Raw: b[h.value:h.end]}) {
			return
		}
	}
}

// Header returns the value of the first header with that name, in any letter case, in its long or its compact
// form ("Call-ID" finds "i:", "i" finds "Call-ID:"), without the blanks around it. Folds inside are kept.
func (m *Message) Header(name string) (value []byte, ok bool) {
	name = CanonicalName(name)
	b := m.HeaderSection
	for i := 0; ; {
		h, next, st := nextHeader(b, i)
		if st != isHeader {
			return nil, false
		}
		i = next
		if n := b[h.name:h.nameEnd]; (len(n) == len(name) || len(n) == 1) && isNamed(n, name) {
			return trim(b[h.value:h.end]), true
		}
	}
}

// field is where one header stands in its buffer. A line without a colon has an empty name.
type field struct {
	name, nameEnd int
	value, end    int // value as written, folds in it, without the line end
}

type lineKind uint8

const (
	isHeader     lineKind = iota
	endOfHeaders          // a blank line; next is the first byte of the body
	endOfInput            // nothing left, or a lone CR
)

// nextHeader reads the header that begins at b[i], with the lines folded onto it (RFC 3261 §7.3.1).
func nextHeader(b []byte, i int) (h field, next int, k lineKind) {
	if i >= len(b) {
		return h, len(b), endOfInput
	}
	switch b[i] {
	case '\n':
		return h, i + 1, endOfHeaders
	case '\r':
		if i+1 == len(b) {
			return h, len(b), endOfInput
		}
		if b[i+1] == '\n' {
			return h, i + 2, endOfHeaders
		}
	}
	eol := bytes.IndexByte(b[i:], '\n')
	if eol < 0 {
		eol = len(b)
	} else {
		eol += i
	}
	h.name, h.nameEnd, h.value = i, i, i
	if c := bytes.IndexByte(b[i:eol], ':'); c >= 0 {
		h.value = i + c + 1
		h.nameEnd = i + c
		for h.nameEnd > i && isBlank(b[h.nameEnd-1]) {
			h.nameEnd--
		}
	}
	for eol+1 < len(b) && isBlank(b[eol+1]) {
		n := bytes.IndexByte(b[eol+1:], '\n')
		if n < 0 {
			eol = len(b)
			break
		}
		eol += 1 + n
	}
	h.end, next = eol, min(eol+1, len(b))
	if h.end > h.value && b[h.end-1] == '\r' {
		h.end--
	}
	return h, next, isHeader
}

type headerID uint8

const (
	hdrOther headerID = iota
	hdrCallID
	hdrCSeq
	hdrFrom
	hdrTo
	hdrVia
	hdrContact
	hdrUserAgent
	hdrContentType
	hdrContentLength
)

// identify tells the headers that Parse reads from the rest, by length first. The exact comparison before the
// folding one is the usual case and a few instructions.
func identify(n []byte) headerID {
	switch len(n) {
	case 1:
		switch n[0] | 0x20 {
		case 'i':
			return hdrCallID
		case 'f':
			return hdrFrom
		case 't':
			return hdrTo
		case 'v':
			return hdrVia
		case 'm':
			return hdrContact
		case 'c':
			return hdrContentType
		case 'l':
			return hdrContentLength
		}
	case 2:
		if string(n) == "To" || equalFold(n, "to") {
			return hdrTo
		}
	case 3:
		if string(n) == "Via" || equalFold(n, "via") {
			return hdrVia
		}
	case 4:
		if string(n) == "From" || equalFold(n, "from") {
			return hdrFrom
		}
		if string(n) == "CSeq" || equalFold(n, "cseq") {
			return hdrCSeq
		}
	case 7:
		if string(n) == "Call-ID" || equalFold(n, "call-id") {
			return hdrCallID
		}
		if string(n) == "Contact" || equalFold(n, "contact") {
			return hdrContact
		}
	case 10:
		if string(n) == "User-Agent" || equalFold(n, "user-agent") {
			return hdrUserAgent
		}
	case 12:
		if string(n) == "Content-Type" || equalFold(n, "content-type") {
			return hdrContentType
		}
	case 14:
		if string(n) == "Content-Length" || equalFold(n, "content-length") {
			return hdrContentLength
		}
	}
	return hdrOther
}

// CanonicalName returns the long form of a compact header name ("i": "Call-ID"), any other name as it is (IANA
// registry "SIP Header Fields").
func CanonicalName(n string) string {
	if len(n) != 1 {
		return n
	}
	switch n[0] | 0x20 {
	case 'a':
		return "Accept-Contact"
	case 'b':
		return "Referred-By"
	case 'c':
		return "Content-Type"
	case 'd':
		return "Request-Disposition"
	case 'e':
		return "Content-Encoding"
	case 'f':
		return "From"
	case 'i':
		return "Call-ID"
	case 'j':
		return "Reject-Contact"
	case 'k':
		return "Supported"
	case 'l':
		return "Content-Length"
	case 'm':
		return "Contact"
	case 'n':
		return "Identity-Info"
	case 'o':
		return "Event"
	case 'r':
		return "Refer-To"
	case 's':
		return "Subject"
	case 't':
		return "To"
	case 'u':
		return "Allow-Events"
	case 'v':
		return "Via"
	case 'x':
		return "Session-Expires"
	case 'y':
		return "Identity"
	}
	return n
}
