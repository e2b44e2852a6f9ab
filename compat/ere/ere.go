package ere

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxPattern is the longest regular expression taken, in bytes.
const MaxPattern = 2048

// Flags say how an expression is compiled, as regcomp() has them.
type Flags uint8

// The flags.
const (
	FoldCase Flags = 1 << iota // REG_ICASE: letter case does not count
	Newline                    // REG_NEWLINE: ^ and $ are at line ends too, which neither . nor [^x] matches
	Captures                   // groups are found, and the longest match; without it a match is only said to be there
)

// Error says why an expression can't be used.
type Error struct {
	Piece  string // of the expression, the one at fault; empty where it is all of it
	Reason string // what is wrong with the piece, and the remedy; it repeats nothing of the expression
}

func (e *Error) Error() string {
	if e.Piece == "" {
		return e.Reason
	}
	return e.Piece + " " + e.Reason
}

// Compile makes an expression ready. The error is an [*Error].
func Compile(pattern string, flags Flags) (*regexp.Regexp, error) {
	re2, err := Translate(pattern, flags)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(re2)
	if err != nil {
		e := &Error{Reason: "it is malformed"}
		if s := (*syntax.Error)(nil); errors.As(err, &s) {
			e.Piece, e.Reason = s.Expr, "is refused: "+s.Code.String()
		}
		return nil, e
	}
	if flags&Captures != 0 {
		re.Longest()
	}
	return re, nil
}

// Translate writes an expression in RE2's syntax. The error is an [*Error].
func Translate(pattern string, flags Flags) (string, error) {
	if len(pattern) > MaxPattern {
		return "", &Error{Reason: fmt.Sprintf("it is longer than %d bytes", MaxPattern)}
	}
	t := reader{in: pattern, flags: flags}
	mode := "(?s)"
	switch flags & (FoldCase | Newline) {
	case FoldCase:
		mode = "(?is)"
	case Newline:
		mode = "(?m)"
	case FoldCase | Newline:
		mode = "(?im)"
	}
	t.out.WriteString(mode)
	if err := t.run(); err != nil {
		return "", err
	}
	return t.out.String(), nil
}

type reader struct {
	in     string
	i      int
	flags  Flags
	out    strings.Builder
	atom   int   // where the last atom begins in out; -1: none to repeat
	repeat bool  // the atom has been repeated already
	opens  []int // where groups begin in out
}

var errNoRepeat = &Error{Reason: "nothing before *, +, ? or { to repeat"}

func (t *reader) run() error {
	t.atom = -1
	for t.i < len(t.in) {
		c := t.in[t.i]
		switch c {
		case '\\':
			if err := t.escape(); err != nil {
				return err
			}
			continue
		case '[':
			t.begin()
			if err := t.bracket(); err != nil {
				return err
			}
			continue
		case '(':
			t.opens = append(t.opens, t.out.Len())
			if t.flags&Captures != 0 {
				t.out.WriteByte('(')
			} else {
				t.out.WriteString("(?:")
			}
			t.atom = -1
		case ')':
			if len(t.opens) == 0 { // a plain character in glibc
				t.literal(c)
				break
			}
			t.atom, t.repeat = t.opens[len(t.opens)-1], false
			t.opens = t.opens[:len(t.opens)-1]
			t.out.WriteByte(c)
		case '|':
			t.out.WriteByte(c)
			t.atom = -1
		case '^', '$':
			t.out.WriteByte(c)
			t.atom = -1
		case '.':
			t.begin()
			t.out.WriteByte(c)
		case '*', '+', '?':
			if err := t.repeated(string(c)); err != nil {
				return err
			}
		case '{':
			if err := t.count(); err != nil {
				return err
			}
		default:
			t.literal(c)
			continue
		}
		t.i++
	}
	if len(t.opens) > 0 {
		return &Error{Reason: "( is never closed"}
	}
	return nil
}

// maxCount is the greatest count that Go's engine takes (glibc: 32767).
const maxCount = 1000

// count reads {n}, {n,}, {,n} or {n,m}.
func (t *reader) count() error {
	end := strings.IndexByte(t.in[t.i:], '}')
	if end < 0 {
		return &Error{Reason: `{ is never closed; write \{ for the character`}
	}
	spec := t.in[t.i+1 : t.i+end]
	lo, hi, two := strings.Cut(spec, ",")
	a, errA := strconv.Atoi(lo)
	b, errB := strconv.Atoi(hi)
	if lo == "" && two {
		a, errA = 0, nil
	}
	switch {
	case errA != nil || two && hi != "" && errB != nil || two && hi != "" && b < a:
		return &Error{"{" + spec + "}", `is no count; write \{ for the character`}
	case a > maxCount || b > maxCount:
		return &Error{"{" + spec + "}", "repeats more than 1000 times"}
	}
	spec = "{" + strconv.Itoa(a)
	if two {
		spec += "," + hi
	}
	t.i += end
	return t.repeated(spec + "}")
}

func (t *reader) begin() { t.atom, t.repeat = t.out.Len(), false }

// literal writes the character at hand, all bytes of it, and steps over it
// unless it is one byte of ASCII written by a caller that steps itself.
func (t *reader) literal(c byte) {
	t.begin()
	n := 1
	if c >= utf8.RuneSelf {
		_, n = utf8.DecodeRuneInString(t.in[t.i:])
	}
	if c == ')' {
		t.out.WriteString(`\)`)
		return
	}
	t.out.WriteString(regexp.QuoteMeta(t.in[t.i : t.i+n]))
	t.i += n
}

// repeated puts an operator behind the last atom. Repeating twice is allowed in
// POSIX and would mean something else in RE2.
func (t *reader) repeated(op string) error {
	if t.atom < 0 {
		return errNoRepeat
	}
	if t.repeat {
		s := t.out.String()
		t.out.Reset()
		t.out.WriteString(s[:t.atom] + "(?:" + s[t.atom:] + ")")
	}
	t.out.WriteString(op)
	t.repeat = true
	return nil
}

// escape reads a backslash and what follows.
func (t *reader) escape() error {
	if t.i+1 == len(t.in) {
		return &Error{Reason: "it ends in a backslash"}
	}
	c := t.in[t.i+1]
	t.i++
	switch {
	case c >= '1' && c <= '9':
		return &Error{`\` + string(c), "is a back reference: write the alternatives out"}
	case strings.IndexByte("wWsS", c) >= 0:
		t.begin()
		t.out.WriteString(`\` + string(c))
	case c == 'b' || c == 'B':
		t.atom = -1
		t.out.WriteString(`\` + string(c))
	case c == '`':
		t.atom = -1
		t.out.WriteString(`\A`)
	case c == '\'':
		t.atom = -1
		t.out.WriteString(`\z`)
	case c == '<' && t.i+1 < len(t.in) && isWord(t.in[t.i+1]), c == '>' && t.i > 1 && isWord(t.in[t.i-2]):
		t.atom = -1
		t.out.WriteString(`\b`)
	case c == '<' || c == '>':
		return &Error{`\` + string(c), `can stand only beside a letter, digit or _; use \b`}
	default:
		if c == ')' {
			t.begin()
			t.out.WriteString(`\)`)
			break
		}
		t.literal(c)
		return nil
	}
	t.i++
	return nil
}

// bracket reads [...]: a backslash within is a plain character.
func (t *reader) bracket() error {
	var set strings.Builder
	set.WriteByte('[')
	i := t.i + 1
	negated := i < len(t.in) && t.in[i] == '^'
	if negated {
		set.WriteByte('^')
		i++
	}
	for first := true; ; first = false {
		if i >= len(t.in) {
			return &Error{Reason: "[ is never closed"}
		}
		c := t.in[i]
		if c == ']' && !first {
			break
		}
		if c == '[' && i+1 < len(t.in) && strings.IndexByte(":=.", t.in[i+1]) >= 0 {
			end := strings.Index(t.in[i+2:], string(t.in[i+1])+"]")
			if end < 0 || t.in[i+1] != ':' {
				return &Error{Reason: "[= =] and [. .] are not taken, and [: needs its :]"}
			}
			name := t.in[i+2 : i+2+end]
			if !strings.Contains(" alnum alpha blank cntrl digit graph lower print punct space upper xdigit ", " "+name+" ") {
				return &Error{"[:" + name + ":]", "is no class"}
			}
			if t.flags&FoldCase != 0 && (name == "lower" || name == "upper") {
				name = "alpha"
			}
			set.WriteString("[:" + name + ":]")
			i += end + 4
			continue
		}
		_, n := utf8.DecodeRuneInString(t.in[i:])
		if c == '-' && !first && i+1 < len(t.in) && t.in[i+1] != ']' { // a range
			set.WriteByte('-')
		} else {
			set.WriteString(quoteInSet(t.in[i : i+n]))
		}
		i += n
	}
	if negated && t.flags&Newline != 0 {
		set.WriteString(`\n`)
	}
	set.WriteByte(']')
	t.out.WriteString(set.String())
	t.i = i + 1
	return nil
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func quoteInSet(s string) string {
	if len(s) == 1 && s[0] < utf8.RuneSelf && !isWord(s[0]) && s[0] > ' ' {
		return `\` + s
	}
	return s
}
