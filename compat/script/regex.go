package script

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPattern is the longest regular expression taken, in bytes.
const maxPattern = 2048

// regexMode is how Kamailio compiles a regular expression.
type regexMode uint8

const (
	anyCase   regexMode = iota // =~: letter case does not count
	byLines                    // search(): the same; ^ and $ are at line ends, which neither . nor [^x] matches
	exactCase                  // switch: letter case counts
)

// matcher says whether a text matches.
type matcher func(m *Message, b []byte) bool

// translate turns a POSIX extended regular expression, as glibc reads it, into
// RE2 syntax, whose cost is linear in the text. What RE2 can't do is an error
// with its remedy.
func translate(re string, mode regexMode) (string, error) {
	if len(re) > maxPattern {
		return "", fmt.Errorf("it is longer than %d bytes", maxPattern)
	}
	t := ereReader{in: re, mode: mode}
	t.out.WriteString(map[regexMode]string{anyCase: "(?is)", byLines: "(?im)", exactCase: "(?s)"}[mode])
	if err := t.run(); err != nil {
		return "", err
	}
	return t.out.String(), nil
}

type ereReader struct {
	in     string
	i      int
	mode   regexMode
	out    strings.Builder
	atom   int   // where the last atom begins in out; -1: none to repeat
	repeat bool  // the atom has been repeated already
	opens  []int // where groups begin in out
}

var errNoRepeat = errors.New("nothing before *, +, ? or { to repeat")

func (t *ereReader) run() error {
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
			t.out.WriteString("(?:")
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
			end := strings.IndexByte(t.in[t.i:], '}')
			if end < 0 {
				return errors.New(`{ is never closed; write \{ for the character`)
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
				return fmt.Errorf(`{%s} is no count; write \{ for the character`, spec)
			case a > 255 || b > 255:
				return fmt.Errorf("{%s} repeats more than 255 times", spec)
			}
			spec = "{" + strconv.Itoa(a)
			if two {
				spec += "," + hi
			}
			if err := t.repeated(spec + "}"); err != nil {
				return err
			}
			t.i += end
		default:
			t.literal(c)
			continue
		}
		t.i++
	}
	if len(t.opens) > 0 {
		return errors.New("( is never closed")
	}
	return nil
}

func (t *ereReader) begin() { t.atom, t.repeat = t.out.Len(), false }

// literal writes the character at hand, all bytes of it, and steps over it
// unless it is one byte of ASCII written by a caller that steps itself.
func (t *ereReader) literal(c byte) {
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
func (t *ereReader) repeated(op string) error {
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
func (t *ereReader) escape() error {
	if t.i+1 == len(t.in) {
		return errors.New("it ends in a backslash")
	}
	c := t.in[t.i+1]
	t.i++
	switch {
	case c >= '1' && c <= '9':
		return fmt.Errorf(`\%c is a back reference: write the alternatives out`, c)
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
		return fmt.Errorf(`\%c can stand only beside a letter, digit or _; use \b`, c)
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
func (t *ereReader) bracket() error {
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
			return errors.New("[ is never closed")
		}
		c := t.in[i]
		if c == ']' && !first {
			break
		}
		if c == '[' && i+1 < len(t.in) && strings.IndexByte(":=.", t.in[i+1]) >= 0 {
			end := strings.Index(t.in[i+2:], string(t.in[i+1])+"]")
			if end < 0 || t.in[i+1] != ':' {
				return errors.New("[= =] and [. .] are not taken, and [: needs its :]")
			}
			name := t.in[i+2 : i+2+end]
			if !strings.Contains(" alnum alpha blank cntrl digit graph lower print punct space upper xdigit ", " "+name+" ") {
				return fmt.Errorf("[:%s:] is no class", name)
			}
			if t.mode != exactCase && (name == "lower" || name == "upper") {
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
	if negated && t.mode == byLines {
		set.WriteString(`\n`)
	}
	set.WriteByte(']')
	t.out.WriteString(set.String())
	t.i = i + 1
	return nil
}

func quoteInSet(s string) string {
	if len(s) == 1 && s[0] < utf8.RuneSelf && !isWord(s[0]) && s[0] > ' ' {
		return `\` + s
	}
	return s
}

// compileRegex makes a matcher. Patterns that are plain text, with ^ and $ or
// without, and alternatives of such, are compared directly; all others are
// first looked over for text that they need.
func compileRegex(pattern string, mode regexMode) (matcher, error) {
	re2, err := translate(pattern, mode)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(re2, syntax.Perl)
	if err != nil {
		return nil, regexError(err)
	}
	re, err := regexp.Compile(re2)
	if err != nil {
		return nil, regexError(err)
	}
	tree = tree.Simplify()
	if mode == anyCase {
		if list, ok := plain(tree); ok {
			return list.match, nil
		}
	}
	need := required(tree)
	if len(need) < 2 {
		return func(m *Message, b []byte) bool {
			m.steps -= len(b) / 32
			return re.Match(b)
		}, nil
	}
	return func(m *Message, b []byte) bool {
		m.steps -= len(b) / 32
		return containsFold(b, need) && re.Match(b)
	}, nil
}

func regexError(err error) error {
	var e *syntax.Error
	if errors.As(err, &e) {
		return fmt.Errorf("%s near %q", e.Code, e.Expr)
	}
	return err
}

// fixed is one piece of plain text in lower case with its anchors.
type fixed struct {
	text       string
	begin, end bool
}

type fixedList []fixed

func (list fixedList) match(m *Message, b []byte) bool {
	m.steps -= len(b) / 32
	for i := range list {
		f := &list[i]
		n := len(f.text)
		switch {
		case n > len(b):
		case f.begin && f.end:
			if equalFold(b, f.text) {
				return true
			}
		case f.begin:
			if equalFold(b[:n], f.text) {
				return true
			}
		case f.end:
			if equalFold(b[len(b)-n:], f.text) {
				return true
			}
		default:
			if containsFold(b, f.text) {
				return true
			}
		}
	}
	return false
}

// plain recognises ^text, text$, ^(a|b)$, a|b and the like.
func plain(re *syntax.Regexp) (fixedList, bool) {
	if re.Op == syntax.OpAlternate {
		var all fixedList
		for _, sub := range re.Sub {
			list, ok := plain(sub)
			if !ok || len(all)+len(list) > 16 {
				return nil, false
			}
			all = append(all, list...)
		}
		return all, true
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	var begin, end bool
	if len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
		begin, parts = true, parts[1:]
	}
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		end, parts = true, parts[:n-1]
	}
	texts, ok := expand(parts)
	if !ok {
		return nil, false
	}
	list := make(fixedList, len(texts))
	for i, s := range texts {
		list[i] = fixed{s, begin, end}
	}
	return list, true
}

// expand lists the texts that a sequence of literals and alternatives can be.
func expand(parts []*syntax.Regexp) ([]string, bool) {
	texts := []string{""}
	for _, p := range parts {
		next, ok := alternatives(p)
		if !ok || len(texts)*len(next) > 16 {
			return nil, false
		}
		var all []string
		for _, a := range texts {
			for _, b := range next {
				all = append(all, a+b)
			}
		}
		texts = all
	}
	return texts, true
}

func alternatives(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpLiteral:
		s, ok := lowerASCII(re.Rune)
		return []string{s}, ok
	case syntax.OpCapture:
		return alternatives(re.Sub[0])
	case syntax.OpConcat:
		return expand(re.Sub)
	case syntax.OpQuest:
		list, ok := alternatives(re.Sub[0])
		return append(list, ""), ok
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			list, ok := alternatives(sub)
			if !ok {
				return nil, false
			}
			all = append(all, list...)
		}
		return all, true
	case syntax.OpCharClass:
		return classTexts(re.Rune)
	}
	return nil, false
}

// What (?i) adds to s and k, and the C locale of Kamailio doesn't.
const longS, kelvin = '\u017f', '\u212a'

// classTexts lists the members of a small class, letter case aside.
func classTexts(ranges []rune) ([]string, bool) {
	var all []string
	for i := 0; i < len(ranges); i += 2 {
		if ranges[i+1]-ranges[i] > 16 {
			return nil, false
		}
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			switch {
			case r == longS || r == kelvin:
			case r >= utf8.RuneSelf:
				return nil, false
			default:
				if s := string(rune(fold(byte(r)))); !strings.Contains(strings.Join(all, ""), s) {
					all = append(all, s)
				}
			}
		}
	}
	return all, len(all) > 0 && len(all) <= 16
}

func lowerASCII(rs []rune) (string, bool) {
	b := make([]byte, 0, len(rs))
	for _, r := range rs {
		switch {
		case r == longS:
			r = 's'
		case r == kelvin:
			r = 'k'
		case r >= utf8.RuneSelf:
			return "", false
		}
		b = append(b, fold(byte(r)))
	}
	return string(b), true
}

// required is the longest text, in lower case, that every match contains; "" if
// none is known.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		s, _ := lowerASCII(re.Rune)
		return s
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		best := ""
		for _, sub := range re.Sub {
			if s := required(sub); len(s) > len(best) {
				best = s
			}
		}
		return best
	}
	return ""
}

// containsFold looks for lower-case text without regard to letter case.
func containsFold(b []byte, lower string) bool {
	n := len(lower)
	if n == 0 {
		return true
	}
	lo := lower[0]
	up := lo
	if lo >= 'a' && lo <= 'z' {
		up = lo - ('a' - 'A')
	}
	for len(b) >= n {
		window := b[:len(b)-n+1]
		i := bytes.IndexByte(window, lo)
		if up != lo {
			if i >= 0 {
				window = window[:i]
			}
			if j := bytes.IndexByte(window, up); j >= 0 {
				i = j
			}
		}
		if i < 0 {
			return false
		}
		if equalFold(b[i:i+n], lower) {
			return true
		}
		b = b[i+1:]
	}
	return false
}
