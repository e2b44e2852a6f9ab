package kamcfg

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// unknownMark begins and ends what stands for a value that only Kamailio knows,
// within a text: the mark, an index into lexer.unknown, the mark. No text of a
// file has it, since a NUL ends Kamailio's strings.
const unknownMark = "\x00"

// variable is a pseudo-variable in a text that Kamailio evaluates while it reads
// its configuration.
type variable struct {
	raw         string // as it is written, with the dollar
	name, inner string
	trans       string // {class.function,...}...
	at          Pos
	before      int    // the token whose text it is in, if that is known already
	noted       bool   // that it has no value
	mark        string // what stands for its value, if that isn't known
}

// startValue is what Kamailio puts for a variable at start. Null is nothing within
// a string, and "<null>" where a whole text is evaluated.
type startValue struct {
	text     string
	null     bool
	isNumber bool
	unknown  *Error
}

func (v startValue) known() bool { return v.unknown == nil }

var variableForm = regexp.MustCompile(`^\$(?:([A-Za-z0-9_.?]+)|\(([A-Za-z0-9_.?]+))`)

// variableAt reads the variable that s begins with: $name, $name(inner), or either
// within $(...), there with an index and transformations. Nil: it is malformed.
func variableAt(s string, at Pos) (v *variable, n int) {
	m := variableForm.FindStringSubmatch(s)
	if m == nil {
		return nil, 0
	}
	v, n = &variable{name: m[1] + m[2], at: at}, len(m[0])
	enclosed := m[2] != ""
	if n < len(s) && s[n] == '(' {
		end := closing(s[n:], '(', ')')
		if end < 0 {
			return nil, 0
		}
		v.inner, n = s[n+1:n+end], n+end+1
	}
	if enclosed {
		end := strings.IndexByte(s[n:], ')')
		if i := strings.IndexByte(s[n:], '{'); i >= 0 && i < end {
			end = i
			for end < len(s)-n && s[n+end] != ')' {
				length := 1
				if s[n+end] == '{' {
					length = closing(s[n+end:], '{', '}') + 1
				}
				if length < 1 {
					return nil, 0
				}
				end += length
			}
			if end == len(s)-n {
				return nil, 0
			}
		}
		if end < 0 {
			return nil, 0
		}
		v.trans, n = s[n:n+end], n+end+1
	}
	v.raw = s[:n]
	return v, n
}

// closing is where the bracket that s begins with is closed; -1: nowhere.
func closing(s string, open, end byte) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case open:
			depth++
		case end:
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// startValue evaluates a variable as Kamailio would at this line.
func (l *lexer) startValue(v *variable) startValue {
	val := l.plainValue(v)
	for trans := v.trans; trans != "" && val.unknown == nil; {
		end := closing(trans, '{', '}')
		if trans[0] != '{' || end < 0 { // an index: no variable that is known here has one
			val = l.unknownValue(v, onlyKamailio)
			break
		}
		if val.null {
			val = startValue{} // Kamailio logs it, and puts nothing
			break
		}
		var err error
		if val.text, err = l.transformed(val.text, trans[1:end], v.at); err != nil {
			val = l.unknownValue(v, "{"+trans[1:end]+"} is not known here: "+err.Error())
		}
		val.isNumber = false
		trans = strings.TrimLeft(trans[end+1:], " \t")
	}
	return val
}

// noteNull says once that a define is missing.
func (l *lexer) noteNull(v *variable) {
	if !v.noted {
		l.cfg.note(v.at, "%s: %s is not defined here; Kamailio puts nothing for it, or <null>", v.raw, v.inner)
	}
	v.noted = true
}

const (
	onlyKamailio = "its value is known only within Kamailio"
	setVariable  = "set the environment variable for siptraced as it is set for Kamailio"
)

// unknownValue is that of a variable whose value isn't known here.
func (l *lexer) unknownValue(v *variable, why string) startValue {
	return startValue{unknown: &Error{Pos: v.at, Msg: v.raw + " has no value here", Hint: why}}
}

// plainValue is the value before its transformations.
func (l *lexer) plainValue(v *variable) startValue {
	switch v.name {
	case "env", "envn":
		if text, ok := l.opt.Env(v.inner); ok {
			return startValue{text: text, isNumber: v.name == "envn"}
		}
		return l.unknownValue(v, setVariable)
	case "def", "defn", "defv":
		return l.definedValue(v)
	case "version":
		switch v.inner {
		case "num":
			l.versionAssumed(v.raw, v.at)
			return startValue{text: l.versionText}
		case "full":
			l.versionAssumed(v.raw, v.at)
			return startValue{text: "kamailio " + l.versionText + " (" + machine(runtime.GOARCH) + "/linux) "}
		}
	case "HN":
		return l.hostName(v)
	}
	return l.unknownValue(v, onlyKamailio)
}

// hostName is $HN(part), which is looked up once.
func (l *lexer) hostName(v *variable) startValue {
	if l.opt.HostName == nil {
		return l.unknownValue(v, onlyKamailio)
	}
	h, known := l.hosts[v.inner]
	if !known {
		h.text, h.err = l.opt.HostName(v.inner)
		l.hosts[v.inner] = h
	}
	if h.err != nil {
		return l.unknownValue(v, h.err.Error())
	}
	return startValue{text: h.text}
}

// lookup is what a question for the host's name gave.
type lookup struct {
	text string
	err  error
}

// machine is a processor's name as Kamailio has it.
func machine(goarch string) string {
	switch goarch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return goarch
}

// definedValue is $def(NAME), $defn(NAME), which is a number, or $defv(NAME), which
// is without the quotes around it.
func (l *lexer) definedValue(v *variable) startValue {
	text, there := l.defined(v.inner, cmp.Or(v.before, len(l.toks)))
	switch {
	case !there && v.name == "defn":
		return startValue{text: "0", isNumber: true}
	case !there:
		return startValue{null: true}
	case strings.Contains(text, unknownMark):
		why := l.reason(text)
		return startValue{unknown: &Error{Pos: v.at, Msg: v.raw + ": " + why.Msg, Hint: why.Hint}}
	case v.name == "defv" && len(text) > 1 && (text[0] == '"' || text[0] == '\'') && text[len(text)-1] == text[0]:
		text = text[1 : len(text)-1]
	}
	return startValue{text: text, isNumber: v.name == "defn"}
}

// transformed applies one transformation, without its braces.
func (l *lexer) transformed(text, trans string, at Pos) (string, error) {
	if expr, is := strings.CutPrefix(trans, "re.subst,"); is {
		if l.work += compileWork; l.work > maxWork {
			return "", errors.New("the substitutions are too much work")
		}
		sub, _, err := l.substitution("{re.subst}", expr, at)
		switch {
		case err != nil:
			return "", err
		case sub == nil:
			return "", errors.New("its expression has a variable whose value isn't known")
		}
		return l.apply(sub, text, at)
	}
	if l.opt.Transform == nil {
		return "", fmt.Errorf("no transformation but re.subst is")
	}
	return l.opt.Transform(text, "{"+trans+"}")
}

// markUnknown is what stands for a value that isn't known, until the text that it
// is in has become a token. It is noted once.
func (l *lexer) markUnknown(why *Error, v *variable) string {
	if v.mark == "" {
		l.cfg.note(v.at, "%s: it is refused only where a parameter of siptrace, a listen line or an include needs it", why.Msg)
		v.mark = unknownMark + strconv.Itoa(len(l.unknown)) + unknownMark
		l.unknown = append(l.unknown, unknown{why, v.raw})
	}
	return v.mark
}

// unknown is a value that isn't known, and what is shown in its place.
type unknown struct {
	why *Error
	raw string
}

// reason is that of the first unknown value in a text.
func (l *lexer) reason(text string) *Error {
	_, rest, _ := strings.Cut(text, unknownMark)
	index, _, _ := strings.Cut(rest, unknownMark)
	if i, err := strconv.Atoi(index); err == nil && i >= 0 && i < len(l.unknown) {
		return l.unknown[i].why
	}
	if len(l.unknown) > 0 { // a substitution has changed the mark
		return l.unknown[0].why
	}
	return fail(Pos{File: l.srcs[0].name}, "take it out", "there is a NUL in a define")
}

// settle takes the marks out of a token's text; the token says what is unknown.
func (l *lexer) settle(t *token) {
	if !strings.Contains(t.Text, unknownMark) {
		return
	}
	t.Unresolved = l.reason(t.Text)
	t.Text = l.shown(t.Text)
}

// shown is a text with the variables as they are written.
func (l *lexer) shown(text string) string {
	var b strings.Builder
	for i, piece := range strings.Split(text, unknownMark) {
		if n, err := strconv.Atoi(piece); i%2 == 1 && err == nil && n >= 0 && n < len(l.unknown) {
			piece = l.unknown[n].raw
		}
		b.WriteString(piece)
	}
	return b.String()
}

// asError is what a token or value has in Unresolved.
func asError(err error) *Error {
	e := (*Error)(nil)
	_ = errors.As(err, &e)
	return e
}

// unresolved is the error of a place that needs a value that isn't known.
func unresolved(at Pos, what string, why *Error) *Error {
	msg := what + " hangs on a variable: " + why.Msg
	if why.Pos != at {
		msg += " (" + why.Pos.String() + ")"
	}
	return &Error{Pos: at, Msg: msg, Hint: why.Hint}
}

// evaluate is what modparamx and loadmodulex make of a string, which is the token at
// that index. Where a value isn't known the string is as it was.
func (l *lexer) evaluate(s string, at Pos, before int) (string, *Error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '$' {
			b.WriteByte(s[i])
			i++
			continue
		}
		if strings.HasPrefix(s[i:], "$$") {
			b.WriteByte('$')
			i += 2
			continue
		}
		v, n := variableAt(s[i:], at)
		if v == nil {
			return s, fail(at, "write $$ for a dollar", "a variable is malformed")
		}
		v.before = before
		val := l.startValue(v)
		if val.unknown != nil {
			return s, val.unknown
		}
		if val.null {
			l.noteNull(v)
			val.text = "<null>"
		}
		b.WriteString(val.text)
		i += n
	}
	return b.String(), nil
}
