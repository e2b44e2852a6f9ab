package sipmsg

import "bytes"

// Addr is the value of From, To or Contact (RFC 3261 §20.10): name-addr or addr-spec, then parameters.
type Addr struct {
	Raw        []byte // the header's whole value, without the blanks around it; nil if there is no such header
	DisplayRaw []byte // display name as written, quotes included; nil if none
	URI        []byte // without angle brackets and the blanks around it; "*" for the Contact that is a star
	Tag        []byte // the last tag parameter outside the brackets, without quotes; nil if none, empty if ";tag="
}

// Display returns the display name without the quotes around it; escapes and folds are kept. It is nil if there
// is none, empty if it is "".
func (a *Addr) Display() []byte {
	v := a.DisplayRaw
	if n := len(v); n > 1 && v[0] == '"' && quoted(v, 0) == n {
		return v[1 : n-1]
	}
	return v
}

// parse reads v, which has no white space around it. With list only the first of several addresses is read.
// It reports whether v could be read to its end; what was read before that is kept.
func (a *Addr) parse(v []byte, list bool) bool {
	*a = Addr{Raw: v}
	i := 0
scan:
	for i < len(v) {
		switch v[i] {
		case '"':
			if i = quoted(v, i); i < 0 {
				return false
			}
			continue
		case '<', ';':
			break scan
		case ',':
			if list {
				break scan
			}
		}
		i++
	}
	if i < len(v) && v[i] == '<' {
		end := bytes.IndexByte(v[i:], '>')
		if end < 0 {
			return false
		}
		if d := trimRight(v[:i]); len(d) > 0 {
			a.DisplayRaw = d
		}
		a.URI = trim(v[i+1 : i+end])
		i += end + 1
	} else {
		// RFC 3261 §20: without brackets what follows a semicolon belongs to the header, not to the URI.
		uri := trimRight(v[:i])
		if len(uri) == 0 || uri[0] == '"' {
			return false
		}
		a.URI = uri
	}
	for i = skipLWS(v, i); i < len(v); {
		if v[i] != ';' {
			return list && v[i] == ','
		}
		name, value, next, ok := param(v, i+1, list)
		if !ok {
			return false
		}
		if len(name) == 3 && equalFold(name, "tag") {
			// The siptrace module keeps the last one of several.
			if a.Tag = value; value == nil {
				a.Tag = v[next:next]
			}
		}
		i = next
	}
	return true
}
