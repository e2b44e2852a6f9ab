package jsonrpc

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"siptraced/rpc"
)

const (
	// MaxDocument is the length of the longest request that is taken, in
	// bytes: what jsonrpcs reads from a datagram.
	MaxDocument = 65456

	maxDepth = 64 // arrays and objects in one another
)

// SyntaxError tells why a document is not JSON, or more of it than is taken.
type SyntaxError struct {
	Offset int // in bytes
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("jsonrpc: byte %d: %s", e.Offset, e.Msg)
}

// parser reads JSON as leniently as Kamailio's parser: anything up to a blank is
// white space, an unknown escape stands for its character, strings may hold
// control characters, numbers may begin with a zero. A zero byte ends the input.
// Nothing that it returns aliases the input, but for the raw values.
type parser struct {
	b     []byte
	i     int
	depth int
}

func newParser(doc []byte) *parser {
	if i := bytes.IndexByte(doc, 0); i >= 0 {
		doc = doc[:i]
	}
	return &parser{b: doc}
}

func (p *parser) fail(msg string) error { return &SyntaxError{Offset: p.i, Msg: msg} }

// peek skips white space and returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	for p.i < len(p.b) && p.b[p.i] <= ' ' {
		p.i++
	}
	if p.i == len(p.b) {
		return 0
	}
	return p.b[p.i]
}

func (p *parser) value() (any, error) {
	switch c := p.peek(); {
	case c == '"':
		return p.string()
	case c == '{':
		s := rpc.Struct{}
		err := p.members(func(name string, v any, _ []byte) { s = append(s, rpc.Member{Name: name, Value: v}) })
		return s, err
	case c == '[':
		return p.array()
	case c == '-' || isDigit(c):
		return p.number(), nil
	case p.literal("null"):
		return nil, nil
	case p.literal("true"):
		return true, nil
	case p.literal("false"):
		return false, nil
	}
	return nil, p.fail("a value is missing")
}

func (p *parser) literal(s string) bool {
	if !bytes.HasPrefix(p.b[p.i:], []byte(s)) {
		return false
	}
	p.i += len(s)
	return true
}

// open and the close that belongs to it bound the depth.
func (p *parser) open() error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(fmt.Sprintf("arrays and objects more than %d deep", maxDepth))
	}
	p.i++
	return nil
}

// next is called after an element: true at a comma, false at the end.
func (p *parser) next(end byte) (bool, error) {
	switch p.peek() {
	case ',':
		p.i++
		return true, nil
	case end:
		p.i++
		p.depth--
		return false, nil
	}
	return false, p.fail("a comma or an end is missing")
}

func (p *parser) array() (any, error) {
	list := rpc.List{}
	if err := p.open(); err != nil {
		return nil, err
	}
	more := p.peek() != ']'
	if !more {
		_, _ = p.next(']')
	}
	for more {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if more, err = p.next(']'); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// members reads an object and hands over each member, its value also as it was
// written.
func (p *parser) members(f func(name string, v any, raw []byte)) error {
	if err := p.open(); err != nil {
		return err
	}
	more := p.peek() != '}'
	if !more {
		_, _ = p.next('}')
	}
	for more {
		if p.peek() != '"' {
			return p.fail("a member name is missing")
		}
		name, err := p.string()
		if err != nil {
			return err
		}
		if p.peek() != ':' {
			return p.fail("a colon is missing")
		}
		p.i++
		p.peek()
		start := p.i
		v, err := p.value()
		if err != nil {
			return err
		}
		f(name, v, p.b[start:p.i])
		if more, err = p.next('}'); err != nil {
			return err
		}
	}
	return nil
}

// string reads a string; p.i is at its quote.
func (p *parser) string() (string, error) {
	p.i++
	rest := p.b[p.i:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return "", p.fail("a string is not ended")
	}
	if bytes.IndexByte(rest[:end], '\\') < 0 {
		p.i += end + 1
		return string(rest[:end]), nil
	}
	var s []byte
	for p.i < len(p.b) {
		c := p.b[p.i]
		p.i++
		switch {
		case c == '"':
			return string(s), nil
		case c != '\\':
			s = append(s, c)
		case p.i < len(p.b):
			var err error
			if s, err = p.escape(s); err != nil {
				return "", err
			}
		}
	}
	return "", p.fail("a string is not ended")
}

// escape reads what follows a backslash.
func (p *parser) escape(s []byte) ([]byte, error) {
	c := p.b[p.i]
	p.i++
	switch c {
	case 'b':
		return append(s, '\b'), nil
	case 'f':
		return append(s, '\f'), nil
	case 'n':
		return append(s, '\n'), nil
	case 'r':
		return append(s, '\r'), nil
	case 't':
		return append(s, '\t'), nil
	case 'u':
	default:
		return append(s, c), nil
	}
	r, err := p.hex()
	if err != nil {
		return nil, err
	}
	if r >= 0xD800 && r < 0xDC00 && bytes.HasPrefix(p.b[p.i:], []byte(`\u`)) {
		p.i += 2
		low, err := p.hex()
		if err != nil {
			return nil, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return s, nil
		}
	}
	if r == 0 || utf16.IsSurrogate(r) { // left out, as Kamailio does
		return s, nil
	}
	return utf8.AppendRune(s, r), nil
}

func (p *parser) hex() (rune, error) {
	if len(p.b)-p.i < 4 {
		return 0, p.fail("four hexadecimal digits are missing")
	}
	n, err := strconv.ParseUint(string(p.b[p.i:p.i+4]), 16, 16)
	if err != nil {
		return 0, p.fail("four hexadecimal digits are missing")
	}
	p.i += 4
	return rune(n), nil
}

// number reads a number: an int64 if it has neither point nor exponent and fits.
func (p *parser) number() any {
	n := scanNumber(p.b[p.i:])
	text := string(p.b[p.i : p.i+n.size])
	p.i += n.size
	if n.whole {
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return i
		}
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil || math.IsInf(f, 0) {
		return f
	}
	if f := n.value(); f != 0 { // "1e", which nobody else takes for a number
		return f
	}
	return int64(0) // "-"
}

// decimal is a number as Kamailio's parser sees it.
type decimal struct {
	size     int // bytes
	whole    bool
	negative bool
	digits   float64 // all digits read as one integer, digit by digit
	exponent int
}

func (d decimal) value() float64 {
	f := d.digits * math.Pow(10, float64(d.exponent))
	if d.digits == 0 {
		f = 0 // and not 0 times infinity
	}
	if d.negative {
		f = -f
	}
	return f
}

// scanNumber reads: - one 0, digits not beginning with 0, a point and at least one
// digit, e, sign, digits; each may be missing.
func scanNumber(b []byte) decimal {
	d := decimal{whole: true}
	at := func(i int) byte {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	i := 0
	if d.negative = at(0) == '-'; d.negative {
		i++
	}
	if at(i) == '0' {
		i++
	}
	if at(i) != '0' {
		for ; isDigit(at(i)); i++ {
			d.digits = d.digits*10 + float64(b[i]-'0')
		}
	}
	if at(i) == '.' && isDigit(at(i+1)) {
		d.whole = false
		for i++; isDigit(at(i)); i++ {
			d.digits = d.digits*10 + float64(b[i]-'0')
			d.exponent--
		}
	}
	if at(i)|0x20 == 'e' {
		d.whole = false
		i++
		sign := 1
		switch at(i) {
		case '-':
			sign = -1
			i++
		case '+':
			i++
		}
		exp := 0
		for ; isDigit(at(i)); i++ {
			exp = min(exp*10+int(b[i]-'0'), 1e6)
		}
		d.exponent += sign * exp
	}
	d.size = i
	return d
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
