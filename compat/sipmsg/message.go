package sipmsg

import "bytes"

// Message is one SIP message, taken apart. Every slice aliases the input of [Message.Parse] and lives as long
// as that stays unchanged; none may be written to. nil means absent, empty but not nil means present and
// empty. Of headers that came more than once the first one counts.
type Message struct {
	Raw       []byte // all of the input
	IsRequest bool

	Method     []byte // request: first word, letter case kept
	RequestURI []byte // request: everything between method and version
	Status     []byte // reply: the code as written, "200"; three digits unless Defects has BadStatus
	Reason     []byte // reply: everything after the space that follows the code

	CallID     []byte // inner and trailing blanks are kept, as the siptrace module stores them
	CSeqNumber []byte // as written; digits unless Defects has BadCSeq
	CSeqMethod []byte // letter case kept
	From       Addr
	To         Addr
	Contact    Addr // first one of the first Contact header
	Via        Via  // top one

	UserAgent     []byte
	ContentType   []byte // with its parameters
	ContentLength int    // -1: absent or not a number

	HeaderSection []byte // after the start line, before the blank line, with the last line's end; see [Message.Headers]
	Body          []byte // everything after the blank line, whatever Content-Length says; nil without a blank line

	Defects Defect
}

// Parse takes b apart, in one pass and without allocating, after resetting m. m aliases b.
//
// The one error is [*NotSIPError] (errors.Is(err, ErrNotSIP)): the first line, after leading blanks and line
// ends, is neither `Method Request-URI SIP/2.0` nor `SIP/2.0 Code ...`; m then holds nothing but Raw. All
// else that can be wrong with a message is a bit of Defects, and the fields that could not be read stay nil.
//
// Accepted beside the book: LF line ends, blanks before the colon of a header, a missing blank line at the
// end, NUL and any other byte in values, several blanks in the start line.
//
// A code that is not three digits is kept in Status as written: readers of the trace table take a row without
// status for a request.
//
// The version is read in any letter case (RFC 3261 §7.1) and VersionCase set for "sip/2.0". Kamailio
// differs from itself here: sip_trace() stores such a message, trace_mode passes over it.
func (m *Message) Parse(b []byte) error {
	*m = Message{Raw: b, ContentLength: -1}
	start := skipLWS(b, 0)
	end := len(b)
	next := end
	if n := bytes.IndexByte(b[start:], '\n'); n >= 0 {
		end = start + n
		next = end + 1
	}
	if reason := m.startLine(b[start:end]); reason != "" {
		return &NotSIPError{Offset: start, Size: len(b), Reason: reason}
	}
	m.headers(b, next)
	return nil
}

// CutNULs cuts the NULs at the end of the message that are not of its body: those behind the length that
// Content-Length gives, all of them without a Content-Length. It returns how many they were.
func (m *Message) CutNULs() int {
	end := len(bytes.TrimRight(m.Body, "\x00"))
	n := len(m.Body) - max(end, min(m.ContentLength, len(m.Body)))
	m.Raw, m.Body = m.Raw[:len(m.Raw)-n], m.Body[:len(m.Body)-n]
	if len(m.Body) == m.ContentLength {
		m.Defects &^= LongBody
	}
	return n
}

// MethodName returns what the method column holds: the method of a request line, for a reply that of CSeq.
func (m *Message) MethodName() []byte {
	if m.IsRequest {
		return m.Method
	}
	return m.CSeqMethod
}

const version = "SIP/2.0"

// startLine reads a request line (RFC 3261 §7.1) or a status line (§7.2). It returns why the line is neither.
func (m *Message) startLine(l []byte) (reason string) {
	const v = len(version)
	if n := len(l); n > 0 && l[n-1] == '\r' {
		l = l[:n-1]
	}
	if len(l) <= v {
		return "first line is too short"
	}
	if isVersion(l[:v]) && isBlank(l[v]) {
		return m.statusLine(l)
	}

	l = trimRight(l)
	if len(l) <= v || !isVersion(l[len(l)-v:]) {
		return "first line neither begins nor ends with " + version
	}
	var d Defect
	if string(l[len(l)-v:]) != version {
		d |= VersionCase
	}
	l = l[:len(l)-v]
	n := 0
	for n < len(l) && l[n] > ' ' && l[n] != 0x7f {
		n++
	}
	if n == 0 || n == len(l) || !isBlank(l[n]) {
		return "first line has no method"
	}
	if !isBlank(l[len(l)-1]) {
		return "no blank before " + version
	}
	uri := trim(l[n:])
	if len(uri) == 0 {
		return "first line has no Request-URI"
	}
	// RFC 4475 §3.1.2.7, §3.1.2.9: a tracer shows such a line, a proxy refuses it.
	if uri[0] == '<' || bytes.IndexByte(uri, ' ') >= 0 || bytes.IndexByte(uri, '\t') >= 0 {
		d |= BadRequestURI
	}
	m.IsRequest = true
	m.Method, m.RequestURI = l[:n], uri
	m.Defects |= d
	return ""
}

func (m *Message) statusLine(l []byte) (reason string) {
	rest := l[skipLWS(l, len(version)):]
	if len(rest) == 0 {
		return "status line has no code"
	}
	n := 0
	for n < len(rest) && !isBlank(rest[n]) {
		n++
	}
	m.Status = rest[:n]
	if n != 3 || !digits(m.Status) {
		m.Defects |= BadStatus
	}
	if n < len(rest) {
		m.Reason = rest[n+1:]
	} else {
		m.Defects |= NoReason
	}
	if string(l[:len(version)]) != version {
		m.Defects |= VersionCase
	}
	return ""
}

// headers reads the header section, which begins at b[start], and what follows it.
func (m *Message) headers(b []byte, start int) {
	var seenLength bool
	i := start
	for {
		h, next, st := nextHeader(b, i)
		if st == endOfHeaders {
			m.HeaderSection, m.Body = b[start:i], b[next:]
			break
		}
		if st == endOfInput {
			m.HeaderSection = b[start:]
			m.Defects |= NoBlankLine
			break
		}
		i = next
		name := b[h.name:h.nameEnd]
		if len(name) == 0 {
			m.Defects |= BadHeader
			continue
		}
		switch identify(name) {
		case hdrCallID:
			if m.CallID != nil {
				m.Defects |= DuplicateCallID
				break
			}
			v := b[h.value:h.end]
			m.CallID = v[skipLWS(v, 0):]
		case hdrCSeq:
			if m.CSeqNumber != nil {
				m.Defects |= DuplicateCSeq
				break
			}
			m.cseq(trim(b[h.value:h.end]))
		case hdrFrom:
			if m.From.Raw != nil {
				m.Defects |= DuplicateFrom
				break
			}
			if !m.From.parse(trim(b[h.value:h.end]), false) {
				m.Defects |= BadFrom
			}
		case hdrTo:
			if m.To.Raw != nil {
				m.Defects |= DuplicateTo
				break
			}
			if !m.To.parse(trim(b[h.value:h.end]), false) {
				m.Defects |= BadTo
			}
		case hdrVia:
			if m.Via.Raw == nil {
				if _, ok := m.Via.parse(trim(b[h.value:h.end])); !ok {
					m.Defects |= BadVia
				}
			}
		case hdrContact:
			if m.Contact.Raw == nil {
				m.Contact.parse(trim(b[h.value:h.end]), true)
			}
		case hdrUserAgent:
			if m.UserAgent == nil {
				m.UserAgent = trim(b[h.value:h.end])
			}
		case hdrContentType:
			if m.ContentType == nil {
				m.ContentType = trim(b[h.value:h.end])
			}
		case hdrContentLength:
			if seenLength {
				m.Defects |= DuplicateContentLength
				break
			}
			seenLength = true
			if m.ContentLength = number(trim(b[h.value:h.end])); m.ContentLength < 0 {
				m.Defects |= BadContentLength
			}
		}
	}

	if m.CallID == nil {
		m.Defects |= MissingCallID
	}
	if m.CSeqNumber == nil {
		m.Defects |= MissingCSeq
	}
	if m.From.Raw == nil {
		m.Defects |= MissingFrom
	}
	if m.To.Raw == nil {
		m.Defects |= MissingTo
	}
	if m.Via.Raw == nil {
		m.Defects |= MissingVia
	}
	if m.IsRequest && m.CSeqMethod != nil && !bytes.Equal(m.CSeqMethod, m.Method) {
		m.Defects |= MethodMismatch
	}
	if m.Body != nil && m.ContentLength >= 0 {
		switch n := len(m.Body); {
		case n < m.ContentLength:
			m.Defects |= ShortBody
		case n > m.ContentLength:
			m.Defects |= LongBody
		}
	}
}

// cseq reads a CSeq value: number, blanks (a fold among them), method. RFC 3261 §20.16.
func (m *Message) cseq(v []byte) {
	n := 0
	for n < len(v) && !isLWS(v[n]) {
		n++
	}
	m.CSeqNumber = v[:n]
	if number(m.CSeqNumber) < 0 {
		m.Defects |= BadCSeq
	}
	v = v[skipLWS(v, n):]
	n = 0
	for n < len(v) && !isLWS(v[n]) {
		n++
	}
	if n == 0 || n < len(v) {
		m.Defects |= BadCSeq
	}
	if n > 0 {
		m.CSeqMethod = v[:n]
	}
}
