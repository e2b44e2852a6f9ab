package script

import (
	"fmt"
	"strconv"
	"strings"

	"siptraced/compat/kamcfg"
)

type tokenKind uint8

const (
	tEOF tokenKind = iota
	tWord
	tNumber
	tString
	tPV // $name, $name(inner), $(name...)
	tOp
)

type token struct {
	kind tokenKind
	text string // of a string: its value; of an operator: its usual spelling
	raw  string // as written
	num  int32
	off  int // where it begins
}

// lexer cuts the text of one route; kamcfg has taken comments and directives out.
type lexer struct {
	in    string
	pos   kamcfg.Pos // of the block
	lines []kamcfg.Pos
	off   int
}

// at is the place of a byte of the text.
func (l *lexer) at(off int) kamcfg.Pos {
	n := strings.Count(l.in[:min(off, len(l.in))], "\n")
	if n < len(l.lines) {
		return l.lines[n]
	}
	return l.pos
}

func (l *lexer) fail(off int, hint, format string, args ...any) *kamcfg.Error {
	return &kamcfg.Error{Pos: l.at(off), Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// operators, longest first; words are known beside them.
var operators = []string{
	"&&", "||", "==", "!=", "=~", "!~", "<=", ">=", "<<", ">>",
	"+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "<", ">", "=", "(", ")", "{", "}", "[", "]", ",", ";", ":", "@", ".",
}

// wordOperators are operators by name (cfg.lex of Kamailio); ieq and ine compare
// as numbers, eq and ne as strings.
var wordOperators = map[string]string{"and": "&&", "or": "||", "not": "!", "mod": "%", "eq": "eq", "ne": "ne", "ieq": "ieq", "ine": "ine"}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (l *lexer) space() {
	for l.off < len(l.in) && strings.IndexByte(" \t\r\n\b", l.in[l.off]) >= 0 {
		l.off++
	}
}

// next cuts the next token.
func (l *lexer) next() (token, error) {
	l.space()
	start := l.off
	t := token{off: start}
	if start == len(l.in) {
		return t, nil
	}
	var err error
	switch c := l.in[start]; {
	case c == '"' || c == '\'':
		t.kind = tString
		t.text, err = l.str(c)
	case c == '$':
		t.kind = tPV
		if l.off = start + pvLen(l.in[start:]); l.off == start {
			return t, l.fail(start, "close its parenthesis", "pseudo-variable is never closed")
		}
		if l.off == start+1 {
			return t, l.fail(start, "write $name, $name(inner) or $(name{transformation})", "$ without a name")
		}
		t.text = l.in[start:l.off]
	case c >= '0' && c <= '9':
		for l.off < len(l.in) && isWord(l.in[l.off]) {
			l.off++
		}
		t.kind, t.text = tNumber, l.in[start:l.off]
		n, perr := strconv.ParseInt(t.text, 0, 64)
		if perr != nil || n > 1<<31-1 {
			return t, l.fail(start, "integers have 32 bits; 0x is hexadecimal, a leading 0 octal", "%s is not a number here", t.text)
		}
		t.num = int32(n)
	case isWord(c):
		for l.off < len(l.in) && isWord(l.in[l.off]) {
			l.off++
		}
		t.kind, t.text = tWord, l.in[start:l.off]
		if op, ok := wordOperators[t.text]; ok {
			t.kind, t.text = tOp, op
		}
	default:
		t.kind = tOp
		for _, op := range operators {
			if strings.HasPrefix(l.in[start:], op) {
				t.text = op
				break
			}
		}
		if t.text == "" {
			return t, l.fail(start, "", "unexpected character %q", c)
		}
		l.off += len(t.text)
	}
	t.raw = l.in[start:l.off]
	return t, err
}

// str reads a string. Escapes count within double quotes alone, and of an unknown
// one the backslash is kept, as in Kamailio.
func (l *lexer) str(q byte) (string, error) {
	start := l.off
	var b []byte
	for l.off++; l.off < len(l.in); {
		c := l.in[l.off]
		l.off++
		switch {
		case c == q:
			if q == '"' { // what follows with nothing but space between belongs to it
				end := l.off
				if l.space(); l.off < len(l.in) && l.in[l.off] == q {
					l.off++
					continue
				}
				l.off = end
			}
			return string(b), nil
		case c != '\\' || q == '\'':
			b = append(b, c)
		default:
			b = l.escape(b)
		}
	}
	return "", l.fail(start, "close it with "+string(q), "string is never closed")
}

func (l *lexer) escape(b []byte) []byte {
	rest := l.in[l.off:]
	if rest == "" {
		return b
	}
	switch c := rest[0]; c {
	case '\n':
		l.off++
		return b
	case '"', '\\':
		l.off++
		return append(b, c)
	case 'n', 'r', 't', 'a':
		l.off++
		return append(b, "\n\r\t\a"[strings.IndexByte("nrta", c)])
	case 'x':
		if n := digits(rest[1:], 2, "0123456789abcdefABCDEF"); n > 0 {
			v, _ := strconv.ParseUint(rest[1:1+n], 16, 8)
			l.off += 1 + n
			return append(b, byte(v))
		}
	}
	if n := digits(rest, 3, "01234567"); n > 1 {
		v, _ := strconv.ParseUint(rest[:n], 8, 16)
		l.off += n
		return append(b, byte(v))
	}
	return append(b, '\\')
}

func digits(s string, limit int, set string) int {
	n := 0
	for n < limit && n < len(s) && strings.IndexByte(set, s[n]) >= 0 {
		n++
	}
	return n
}

// pvLen is the length of the pseudo-variable that s begins with: a name of
// letters, digits, '_' and '.', then what stands in parentheses. 0: never closed.
func pvLen(s string) int {
	n := 1
	for n < len(s) && (isWord(s[n]) || s[n] == '.') {
		n++
	}
	if n == len(s) || s[n] != '(' {
		return n
	}
	for depth := 0; n < len(s); n++ {
		switch s[n] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return n + 1
			}
		}
	}
	return 0
}
