package sipmsg

// Via is the first value of the top Via header (RFC 3261 §20.42).
type Via struct {
	Raw       []byte // the header's whole value, further Vias after a comma included; nil if there is none
	Transport []byte // as written: "UDP", "TLS", "WSS"
	Host      []byte // of the sent-by part; IPv6 in its brackets
	Port      []byte // nil if not given
	Branch    []byte // nil if not given
}

// parse reads v, which has no white space around it: sent-protocol, blanks, sent-by, parameters, with LWS
// around every separator. It reports whether the first value could be read to its end.
func (p *Via) parse(v []byte) bool {
	*p = Via{Raw: v}
	i := 0
	for range 2 {
		for i < len(v) && v[i] != '/' && v[i] != ';' && v[i] != ',' {
			i++
		}
		if i == len(v) || v[i] != '/' {
			return false
		}
		i++
	}
	i = skipLWS(v, i)
	s := i
	for i < len(v) && !isLWS(v[i]) && v[i] != ';' && v[i] != ',' {
		i++
	}
	if i == s {
		return false
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
		return false
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
			return false
		}
		p.Port = v[s:i]
		i = skipLWS(v, i)
	}

	for i < len(v) {
		if v[i] != ';' {
			return v[i] == ','
		}
		name, value, next, ok := param(v, i+1, true)
		if !ok {
			return false
		}
		if len(name) == 6 && p.Branch == nil && equalFold(name, "branch") {
			p.Branch = value
		}
		i = next
	}
	return true
}
