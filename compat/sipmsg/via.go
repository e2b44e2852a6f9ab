package sipmsg

import (
	"bytes"
	"iter"
)

// Via is one value of a Via header (RFC 3261 §20.42).
type Via struct {
	Raw       []byte // from the value's beginning to the header's end, further Vias after a comma included; nil if there is none
	Transport []byte // as written: "UDP", "TLS", "WSS"
	Host      []byte // of the sent-by part; IPv6 in its brackets
	Port      []byte // nil if not given
	Branch    []byte // nil if not given
}

// parse reads v, which has no white space around it: sent-protocol, blanks, sent-by, parameters, with LWS
// around every separator. It reports whether the first value could be read to its end. rest is what follows the
// comma after it, nil if there is none.
func (p *Via) parse(v []byte) (rest []byte, ok bool) {
	*p = Via{Raw: v}
	i := 0
	for range 2 {
		for i < len(v) && v[i] != '/' && v[i] != ';' && v[i] != ',' {
			i++
		}
		if i == len(v) || v[i] != '/' {
			return afterComma(v, i), false
		}
		i++
	}
	i = skipLWS(v, i)
	s := i
	for i < len(v) && !isLWS(v[i]) && v[i] != ';' && v[i] != ',' {
		i++
	}
	if i == s {
		return afterComma(v, i), false
	}
	p.Transport = v[s:i]

	i = skipLWS(v, i)
	s = i
	for brackets := false; i < len(v); i++ {
		c := v[i]
		if c == '[' {
			brackets = true
		} else if c == ']' {
			brackets = false
		} else if c == ';' || c == ',' || isLWS(c) || c == ':' && !brackets {
			break
		}
	}
	if i == s {
		return afterComma(v, i), false
	}
	p.Host = v[s:i]

	i = skipLWS(v, i)
	if i < len(v) && v[i] == ':' {
		i = skipLWS(v, i+1)
		s = i
		for i < len(v) && '0' <= v[i] && v[i] <= '9' {
			i++
		}
		if i == s {
			return afterComma(v, i), false
		}
		p.Port = v[s:i]
		i = skipLWS(v, i)
	}

	for i < len(v) {
		if v[i] != ';' {
			return afterComma(v, i), v[i] == ','
		}
		name, value, next, ok := param(v, i+1, true)
		if !ok {
			return nil, false
		}
		if len(name) == 6 && p.Branch == nil && equalFold(name, "branch") {
			p.Branch = value
		}
		i = next
	}
	return nil, true
}

// afterComma returns what follows the first comma in v[i:].
func afterComma(v []byte, i int) []byte {
	if n := bytes.IndexByte(v[i:], ','); n >= 0 {
		return v[i+n+1:]
	}
	return nil
}

// Vias iterates over the Vias from the top one down, whether in one header or in several (RFC 3261 §7.3.1). Of one
// that is malformed the fields are there that could be read.
func (m *Message) Vias() iter.Seq[Via] {
	return func(yield func(Via) bool) { m.eachVia(yield) }
}

func (m *Message) eachVia(yield func(Via) bool) {
	for h := range m.Headers() {
		if identify(h.Name) != hdrVia {
			continue
		}
		for v := h.Value(); v != nil; {
			var via Via
			v, _ = via.parse(trim(v))
			if !yield(via) {
				return
			}
		}
	}
}
