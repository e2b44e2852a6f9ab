package sipmsg

import "bytes"

// URI is a sip, sips, tel or urn URI, taken apart. Nothing is unescaped; every part aliases the input.
type URI struct {
	Scheme  []byte // letter case kept
	User    []byte // sip, sips: before the @, parameters in it included, password not; tel: the number; urn: all of it
	Host    []byte // sip, sips: IPv6 in its brackets
	Port    []byte // nil if not given
	Params  []byte // after the first semicolon behind the host (or number); nil if none
	Headers []byte // after the question mark; nil if none
}

// ParseURI takes a URI (RFC 3261 §19.1, RFC 3966, RFC 8141) apart. It reports false for anything else, with
// Scheme set if there is one: schemes it does not know, no host, a port that is not a number.
func ParseURI(b []byte) (URI, bool) {
	var u URI
	colon := bytes.IndexByte(b, ':')
	if colon <= 0 {
		return u, false
	}
	u.Scheme = b[:colon]
	rest := b[colon+1:]
	switch {
	case equalFold(u.Scheme, "sip") || equalFold(u.Scheme, "sips"):
		return u.sip(rest)
	case equalFold(u.Scheme, "tel"):
		u.User, u.Params = cut(rest, ';')
		return u, len(u.User) > 0
	case equalFold(u.Scheme, "urn"):
		u.User = rest
		return u, len(rest) > 0
	}
	return u, false
}

func (u URI) sip(b []byte) (URI, bool) {
	// A user may hold ; and ?, so the @ comes first; everywhere else an @ is escaped.
	if at := bytes.IndexByte(b, '@'); at >= 0 {
		u.User, _ = cut(b[:at], ':')
		b = b[at+1:]
	}
	b, u.Headers = cut(b, '?')
	b, u.Params = cut(b, ';')
	end := 0
	if len(b) > 0 && b[0] == '[' {
		if end = bytes.IndexByte(b, ']') + 1; end == 0 {
			return u, false
		}
	} else if end = bytes.IndexByte(b, ':'); end < 0 {
		end = len(b)
	}
	u.Host = b[:end]
	if b = b[end:]; len(b) > 0 {
		if b[0] != ':' || !digits(b[1:]) {
			return u, false
		}
		u.Port = b[1:]
	}
	return u, len(u.Host) > 0
}

// cut splits b at the first sep; after is nil if there is none.
func cut(b []byte, sep byte) (before, after []byte) {
	if i := bytes.IndexByte(b, sep); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}
