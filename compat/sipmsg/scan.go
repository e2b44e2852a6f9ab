package sipmsg

// SIP's white space (RFC 3261 §25.1): a blank is SP or HTAB; LWS adds the line ends, which inside a value can
// only be those of a fold.

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isLWS(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// skipLWS returns the index of the first byte of b from i on that is not white space, len(b) if none.
func skipLWS(b []byte, i int) int {
	for i < len(b) && isLWS(b[i]) {
		i++
	}
	return i
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && isLWS(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func trim(b []byte) []byte { return trimRight(b[skipLWS(b, 0):]) }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// equalFold compares two ASCII names in any letter case.
func equalFold[A, B []byte | string](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func isVersion(b []byte) bool { return string(b) == version || equalFold(b, version) }

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// number returns the value of b, -1 if b is not digits or above 2^31-1.
func number(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		if n = n*10 + int64(c-'0'); n > 1<<31-1 {
			return -1
		}
	}
	return int(n)
}

// quoted returns the index after the quoted string (RFC 3261 §25.1) whose opening quote is v[i], -1 if it
// has no end.
func quoted(v []byte, i int) int {
	for i++; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// param reads one parameter, `name`, `name=token` or `name="quoted string"` with LWS anywhere between, from
// v[i] on, which is after its semicolon. value comes without its quotes. next is at the byte after it and
// after LWS; in a list header a comma ends it too. ok is false for a quoted string without end.
func param(v []byte, i int, list bool) (name, value []byte, next int, ok bool) {
	i = skipLWS(v, i)
	s := i
	for i < len(v) && v[i] != ';' && v[i] != '=' && !isLWS(v[i]) && (v[i] != ',' || !list) {
		i++
	}
	name = v[s:i]
	i = skipLWS(v, i)
	if i == len(v) || v[i] != '=' {
		return name, nil, i, true
	}
	i = skipLWS(v, i+1)
	s = i
	if i < len(v) && v[i] == '"' {
		if i = quoted(v, i); i < 0 {
			return name, nil, len(v), false
		}
		return name, v[s+1 : i-1], skipLWS(v, i), true
	}
	for i < len(v) && v[i] != ';' && !isLWS(v[i]) && (v[i] != ',' || !list) {
		i++
	}
	return name, v[s:i], skipLWS(v, i), true
}
