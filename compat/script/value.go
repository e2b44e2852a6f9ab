package script

import (
	"bytes"
	"strconv"
)

type kind uint8

const (
	isNull kind = iota
	isInt
	isStr
)

// value is what an expression gives. s aliases the message, a constant or the
// scratch memory of a Message. An integer may bring its text along.
type value struct {
	s    []byte
	n    int32
	kind kind
}

func text(s string) value { return value{s: []byte(s), kind: isStr} }

func str(b []byte) value { return value{s: b, kind: isStr} }

// strOrNull takes nil for absent.
func strOrNull(b []byte) value {
	if b == nil {
		return value{}
	}
	return value{s: b, kind: isStr}
}

func integer(n int32) value { return value{n: n, kind: isInt} }

func boolean(ok bool) int32 {
	if ok {
		return 1
	}
	return 0
}

// text gives the value as text: "" for $null.
func (m *Message) text(v value) []byte {
	if v.kind == isInt && v.s == nil {
		if v.n >= 0 && int(v.n) < len(smallInts) {
			return smallInts[v.n]
		}
		from := len(m.buf)
		m.buf = strconv.AppendInt(m.buf, int64(v.n), 10)
		return m.buf[from:len(m.buf):len(m.buf)]
	}
	return v.s
}

var smallInts = [...][]byte{[]byte("0"), []byte("1"), []byte("2"), []byte("3"), []byte("4"), []byte("5"), []byte("6"), []byte("7"), []byte("8"), []byte("9")}

// int gives the value as a number: 0 for $null and for text that is none, as
// rval_get_int() of Kamailio does with a warning.
func (v value) int() int32 {
	if v.kind != isStr {
		return v.n
	}
	n, _ := number(v.s)
	return n
}

// number reads a whole number of 32 bits: decimal with a sign, or 0x without.
func number(s []byte) (n int32, ok bool) {
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		if len(s) > 10 {
			return 0, false
		}
		u := uint32(0)
		for _, c := range s[2:] {
			d := hexDigit(c)
			if d < 0 {
				return 0, false
			}
			u = u<<4 | uint32(d)
		}
		return int32(u), true
	}
	neg := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	if len(s) == 0 || len(s) > 20 {
		return 0, false
	}
	v := int64(0)
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		if v = v*10 + int64(c-'0'); v > 1<<31 {
			return 0, false
		}
	}
	if neg {
		v = -v
	}
	if v > 1<<31-1 {
		return 0, false
	}
	return int32(v), true
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// equal is Kamailio's ==: the right side takes the type of the left, and $null
// on the left takes that of the right. $null on the right equals $null alone.
func (m *Message) equal(a, b value) bool {
	switch a.kind {
	case isNull:
		switch b.kind {
		case isInt:
			return b.n == 0
		case isStr:
			return len(b.s) == 0
		}
		return true
	case isInt:
		return b.kind != isNull && a.n == b.int()
	default:
		return b.kind != isNull && bytes.Equal(a.s, m.text(b))
	}
}

// add is Kamailio's +: numbers where the left is one, else text.
func (m *Message) add(a, b value) value {
	if a.kind == isInt {
		return integer(a.n + b.int())
	}
	l, r := m.text(a), m.text(b)
	if len(r) == 0 {
		return str(l)
	}
	return m.concat(l, r)
}

// concat joins text in the scratch memory, or gives $null and marks the
// expression as failed where that would grow over its bound.
func (m *Message) concat(parts ...[]byte) value {
	from := len(m.buf)
	for _, p := range parts {
		if !m.room(len(p)) {
			return value{}
		}
		m.buf = append(m.buf, p...)
	}
	return str(m.buf[from:len(m.buf):len(m.buf)])
}

// room says whether n bytes more may be put into the scratch memory.
func (m *Message) room(n int) bool {
	if len(m.buf)+n > maxScratch {
		m.failed(FaultMemory)
		return false
	}
	m.steps -= n / 64
	return true
}

func fold(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// equalFold compares without regard to ASCII letter case; lower is in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := 0; i < len(b); i++ {
		if fold(b[i]) != lower[i] {
			return false
		}
	}
	return true
}
