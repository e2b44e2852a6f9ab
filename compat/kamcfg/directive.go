package kamcfg

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// directives are the words known after #! or !!; those with exp came with
// Kamailio 5.7, undef with 6.2. Everything else after #! is a comment.
var directives = []string{
	"define", "def", "trydefine", "trydef", "redefine", "redef",
	"defenv", "defenvs", "trydefenv", "trydefenvs", "defexp", "defexps",
	"undef", "tryundef", "ifdef", "ifndef", "ifexp", "else", "endif",
	"subst", "substdef", "substdefs", "include_file", "import_file",
}

// DefaultVersion is the Kamailio whose defines hold where CommandLine.Version is
// empty; expressionVersion is in its place where the file has #!ifexp or #!defexp.
const (
	DefaultVersion    = "5.6.3"
	expressionVersion = "5.7.0"
)

// Versions, as KAMAILIO_VERSION has them, that brought directives.
const (
	withExpressions = 5_007_000
	withUndef       = 6_002_000
)

// errNewer says that the file can't be meant for the version assumed.
var errNewer = errors.New("the file has expressions")

// newer asks for a reading as a newer Kamailio has it, where none is given.
func (l *lexer) newer() error {
	if l.opt.Version == "" && l.version < withExpressions {
		return errNewer
	}
	return nil
}

// versionDefines gives the names that Kamailio itself defines, and the version as
// a number.
func versionDefines(version string) (defs map[string]string, number int) {
	defs, name := map[string]string{}, "KAMAILIO"
	parts := strings.SplitN(version, ".", 3)
	for i := range 3 {
		n := 0
		if i < len(parts) {
			digits := parts[i][:len(parts[i])-len(strings.TrimLeft(parts[i], "0123456789"))] // 6.1.0-dev2
			n, _ = strconv.Atoi(digits)
			name += "_" + digits
			defs[name] = ""
		}
		number = number*1000 + n%1000
	}
	if number >= withExpressions {
		defs["KAMAILIO_VERSION"] = strconv.Itoa(number)
		defs["OS_NAME"] = `"linux"`
	}
	return defs, number
}

// directive reads what begins with #! or !!. Where lines are being skipped only
// the conditions count, and they count anywhere, within comments too.
func (l *lexer) directive() error {
	at, n := l.pos(), 2
	for isWord(l.peek(n)) {
		n++
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(l.peek(i))
	}
	mark, name := string(b[:2]), string(b[2:])

	skipping, spaced := l.skipping(), isBlank(l.peek(n))
	switch {
	case (name == "ifdef" || name == "ifndef" || name == "ifexp") && spaced:
		l.drop(n)
		return l.condition(name, at, skipping)
	case name == "else" || name == "endif":
		k := n
		for isBlank(l.peek(k)) {
			k++
		}
		if l.peek(k) == '\n' {
			l.drop(k)
			l.branch(name, at)
			return nil
		}
		why := "nothing but a line end may follow it"
		if l.peek(k) < 0 {
			why = "a line end is missing behind it"
		}
		if name == "endif" {
			l.noEndif("the " + mark + name + " at " + at.String() + " is a comment for Kamailio: " + why)
		}
		l.cfg.note(at, "%s%s is a comment for Kamailio: %s", mark, name, why)
	case skipping:
		l.drop(2)
		return nil
	case name == "include_file" || name == "import_file":
		l.drop(n)
		return l.include(name, at)
	case name == "subst" || name == "substdef" || name == "substdefs":
		l.drop(n)
		l.apart = true
		return l.substDirective(name, at)
	case (strings.HasPrefix(name, "def") || strings.HasPrefix(name, "trydef") || strings.HasPrefix(name, "redef")) && spaced && slices.Contains(directives, name):
		l.drop(n)
		if strings.Contains(name, "env") {
			return l.defineEnv(name, at)
		}
		return l.define(name, at)
	}
	switch {
	case skipping:
		l.drop(2)
	case (name == "undef" || name == "tryundef") && spaced && (mark == "#!" || l.version >= withUndef):
		l.drop(n)
		return l.undefine(name, at)
	case mark == "!!":
		l.token(l.take(), "!", at)
	default:
		if near := Nearest(name, directives); near != "" && name != strings.ToUpper(name) && name != "else" && name != "endif" {
			l.cfg.note(at, "#!%s is a comment for Kamailio; did you mean #!%s NAME?", name, near)
		}
		l.lineComment()
	}
	return nil
}

// rest reads up to the end of the line. A backslash before the line end
// continues the line where that is allowed.
func (l *lexer) rest(joined bool) (string, error) {
	var b []byte
	for c := l.peek(0); c >= 0 && c != '\n'; c = l.peek(0) {
		switch {
		case joined && c == '\\' && l.peek(1) == '\n':
			l.take()
			l.blank()
			continue
		case joined && c == '\\' && l.peek(1) == '\r' && l.peek(2) == '\n':
			return "", fail(l.pos(), "turn the file's CR LF line ends into LF", `for Kamailio a \ before CR LF doesn't continue the line`)
		case len(b) > maxString:
			return "", fail(l.pos(), "", "directive is longer than %d bytes", maxString)
		}
		b = append(b, l.take())
	}
	s, _, _ := strings.Cut(string(b), "\x00") // where Kamailio's string ends
	return strings.Trim(s, " \t\r\b"), nil
}

// name reads the name that a directive needs.
func (l *lexer) name(directive string, at Pos) (string, error) {
	for isBlank(l.peek(0)) {
		l.take()
	}
	var b []byte
	for isWord(l.peek(0)) && len(b) < maxString {
		b = append(b, l.take())
	}
	if len(b) == 0 || digit(int(b[0])) < 10 || l.peek(0) == '-' {
		return "", fail(at, "names are made of letters, digits and _, and don't begin with a digit", "#!%s needs a name", directive)
	}
	return string(b), nil
}

// define is #!define, #!trydef, #!redefine and #!defexp.
func (l *lexer) define(directive string, at Pos) error {
	name, err := l.name(directive, at)
	if err != nil {
		return err
	}
	value, err := l.rest(true)
	if err != nil {
		return err
	}
	if strings.HasPrefix(directive, "defexp") {
		if err := l.newer(); err != nil {
			return err
		}
		value = l.definedExpression(directive, value, at)
	}
	switch _, there := l.defs[name]; {
	case there && strings.HasPrefix(directive, "try"):
	case there && !strings.HasPrefix(directive, "re"):
		return l.alreadyDefined(name, "use #!redefine, or #!trydef to keep the first", at)
	default:
		l.setDefine(name, value)
	}
	return nil
}

// definedExpression is the value of a #!defexp: a number is cut to a whole one.
func (l *lexer) definedExpression(directive, expression string, at Pos) string {
	v, err := l.eval(expression, at)
	if err != nil {
		l.cfg.note(at, "#!%s defines its name without a value, since Kamailio can't evaluate its expression: %v", directive, err)
		return ""
	}
	text := v.s
	if !v.isStr {
		text = strconv.FormatInt(int64(v.n), 10)
	}
	if directive == "defexps" {
		return `"` + text + `"`
	}
	return text
}

// undefine is #!undef and #!tryundef.
func (l *lexer) undefine(directive string, at Pos) error {
	name, err := l.name(directive, at)
	_, there := l.defs[name]
	switch {
	case l.version < withUndef:
		comment := fmt.Sprintf("#!%s is a comment for Kamailio before 6.2%s", directive, l.versionHint())
		l.cfg.note(at, "%s", comment)
		l.notUndefined[name] = "at " + at.String() + " " + comment
		err = nil
	case err == nil && !there && directive == "undef":
		l.cfg.note(at, "%s is not defined here; #!tryundef says that this is meant", name)
		fallthrough
	default:
		delete(l.defs, name)
		l.past[name] = append(l.past[name], past{from: len(l.toks)})
	}
	l.lineComment()
	return err
}

// defineEnv is #!defenv ID=VARIABLE or #!defenv VARIABLE and its kin.
func (l *lexer) defineEnv(directive string, at Pos) error {
	arg, err := l.rest(false)
	if err != nil {
		return err
	}
	if i := strings.IndexAny(arg, " \t"); i >= 0 {
		arg = arg[:i]
	}
	name, env, ok := strings.Cut(arg, "=")
	if !ok {
		env = name
	}
	if name == "" || env == "" {
		return fail(at, "write #!"+directive+" NAME=VARIABLE without space around =", "#!%s needs a variable", directive)
	}
	value, ok := l.opt.Env(env)
	if !ok {
		if strings.HasPrefix(directive, "try") {
			return nil
		}
		return fail(at, "set it for siptraced as it is set for Kamailio", "environment variable %s is not set", env)
	}
	if _, there := l.defs[name]; there {
		return l.alreadyDefined(name, "", at)
	}
	if strings.HasSuffix(directive, "s") {
		value = `"` + value + `"`
	}
	l.setDefine(name, value)
	return nil
}

// condition opens #!ifdef, #!ifndef or #!ifexp.
func (l *lexer) condition(directive string, at Pos, skipping bool) error {
	c := condition{pos: at}
	l.balance++
	if directive == "ifexp" {
		stm, err := l.rest(false)
		if err != nil {
			return err
		}
		c.what = "#!ifexp"
		if err := l.newer(); err != nil { // before 5.7 it opens nothing, so that its #!endif is one too many
			return err
		}
		if !skipping {
			v, err := l.eval(stm, at)
			if err != nil {
				l.cfg.note(at, "#!ifexp counts as false, since Kamailio can't evaluate its expression: %v", err)
			}
			c.on = err == nil && v.truth()
		}
	} else {
		name, err := l.name(directive, at)
		if err != nil {
			return err
		}
		if !skipping {
			l.versionTested(name, at)
		}
		_, there := l.defs[name]
		c.on = there == (directive == "ifdef")
		c.what = fmt.Sprintf("#!%s %s", directive, name)
		end, err := l.rest(false)
		if err != nil {
			return err
		}
		if end != "" && end[0] != '#' && end[0] != '/' && !skipping {
			l.cfg.note(at, "Kamailio ignores what follows %s on its line", c.what)
		}
	}
	l.conds = append(l.conds, c)
	return nil
}

// branch is #!else and #!endif.
func (l *lexer) branch(directive string, at Pos) {
	n := len(l.conds)
	if directive == "endif" {
		l.balance--
	}
	switch {
	case directive == "endif" && n == 0:
		l.surplus = append(l.surplus, at)
		l.cfg.note(at, "Kamailio warns at an #!endif without #!ifdef, and goes on")
	case directive == "endif":
		hint := l.conds[n-1].hint
		if l.conds = l.conds[:n-1]; hint != "" {
			l.noEndif(hint)
		}
	case n == 0:
		l.cfg.note(at, "Kamailio ignores an #!else without #!ifdef")
	default:
		l.conds[n-1].on, l.conds[n-1].alt = !l.conds[n-1].on, !l.conds[n-1].alt
	}
}

// noEndif keeps what looks like the #!endif of the condition that is open, for the
// case that it is never closed.
func (l *lexer) noEndif(hint string) {
	if n := len(l.conds); n > 0 {
		l.conds[n-1].hint = hint
	}
}

// plainEndif looks out for an #endif that lacks its exclamation mark.
func (l *lexer) plainEndif() {
	n := 1
	for isBlank(l.peek(n)) {
		n++
	}
	for i := range len("endif") {
		if l.peek(n+i) != int("endif"[i]) {
			return
		}
	}
	if !isWord(l.peek(n + len("endif"))) {
		l.noEndif("the #endif at " + l.pos().String() + " is a comment: write #!endif")
	}
}

// closed checks at the end that there are as many #!endif as #!ifdef; where they
// stand Kamailio doesn't mind.
func (l *lexer) closed() error {
	n := len(l.conds)
	switch {
	case l.balance > 0:
		hint := "put #!endif on a line of its own"
		if h := l.conds[n-1].hint; h != "" {
			hint = h
		}
		return fail(l.conds[n-1].pos, hint, "%s is never closed", l.conds[n-1].what)
	case l.balance < 0:
		return fail(l.surplus[0], "take it away, or look for an #!ifdef that isn't one; Kamailio refuses a file with more #!endif than #!ifdef", "#!endif without #!ifdef")
	case n > 0:
		l.cfg.note(l.conds[n-1].pos, "%s is never closed; Kamailio counts the #!endif at %s for it", l.conds[n-1].what, l.surplus[0])
	}
	return nil
}

// versionTested notes that a branch hangs on the version of Kamailio although
// that isn't known.
func (l *lexer) versionTested(name string, at Pos) {
	if version, ok := strings.CutPrefix(name, "KAMAILIO_"); ok && (version == "VERSION" || version != "" && digit(int(version[0])) < 10) {
		l.versionAssumed(name, at)
	}
}

func (l *lexer) versionAssumed(name string, at Pos) {
	if l.opt.Version == "" {
		l.cfg.note(at, "%s is answered for Kamailio %s, because the version isn't given%s", name, l.versionText, l.versionHint())
	}
}

// versionHint says how to give the version, if it isn't.
func (l *lexer) versionHint() string {
	if l.opt.Version != "" {
		return ""
	}
	return "; --kamailio-version X.Y.Z, or the key kamailio_version, says which one it is"
}
