package kamcfg

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// directives are the words known after #! or !!; those with exp came after
// Kamailio 5.6. Everything else after #! is a comment.
var directives = []string{
	"define", "def", "trydefine", "trydef", "redefine", "redef",
	"defenv", "defenvs", "trydefenv", "trydefenvs", "defexp", "defexps",
	"ifdef", "ifndef", "ifexp", "else", "endif",
	"subst", "substdef", "substdefs", "include_file", "import_file",
}

// DefaultVersion is the Kamailio whose defines hold where Options.Version is
// empty.
const DefaultVersion = "5.6.3"

// versionDefines gives the names that Kamailio itself defines.
func versionDefines(version string) map[string]string {
	if version == "" {
		version = DefaultVersion
	}
	defs, name, number := map[string]string{}, "KAMAILIO", 0
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
	if number >= 5_007_000 {
		defs["KAMAILIO_VERSION"] = strconv.Itoa(number)
		defs["OS_NAME"] = `"linux"`
	}
	return defs
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
			return l.branch(name, at)
		}
		if name == "endif" {
			l.lastEnd = at
		}
		l.cfg.note(at, "%s%s is a comment for Kamailio: nothing but a line end may follow it", mark, name)
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
	return strings.Trim(string(b), " \t\r\b"), nil
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
		v, err := l.eval(value, at)
		if err != nil {
			return err
		}
		if value = v.text(); directive == "defexps" {
			value = `"` + value + `"`
		}
	}
	switch _, there := l.defs[name]; {
	case there && strings.HasPrefix(directive, "try"):
	case there && !strings.HasPrefix(directive, "re"):
		return l.alreadyDefined(name, "use #!redefine, or #!trydef to keep the first", at)
	default:
		l.defs[name] = value
	}
	return nil
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
	l.defs[name] = value
	return nil
}

// condition opens #!ifdef, #!ifndef or #!ifexp.
func (l *lexer) condition(directive string, at Pos, skipping bool) error {
	c := condition{pos: at}
	if directive == "ifexp" {
		stm, err := l.rest(false)
		if err != nil {
			return err
		}
		c.what = "#!ifexp"
		if !skipping {
			v, err := l.eval(stm, at)
			if err != nil {
				return err
			}
			c.on = v.truth()
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
func (l *lexer) branch(directive string, at Pos) error {
	n := len(l.conds)
	switch {
	case directive == "endif" && n == 0:
		return fail(at, "take it away, or look for an #!ifdef that isn't one", "#!endif without #!ifdef")
	case directive == "endif":
		l.conds = l.conds[:n-1]
	case n == 0:
		l.cfg.note(at, "Kamailio ignores an #!else without #!ifdef")
	default:
		l.conds[n-1].on = !l.conds[n-1].on
	}
	return nil
}

// versionTested notes that a branch hangs on the version of Kamailio although
// that isn't known.
func (l *lexer) versionTested(name string, at Pos) {
	if l.opt.Version == "" && strings.HasPrefix(name, "KAMAILIO_") {
		l.cfg.note(at, "%s is answered for Kamailio %s, because the version isn't given", name, DefaultVersion)
	}
}
