package kamcfg

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strings"

	"siptraced/compat/ere"
)

// substitution is one #!subst: it is applied to every string that follows it,
// the later after the earlier.
type substitution struct {
	re   *regexp.Regexp
	repl []part
	all  bool // flag g
	cost int  // steps for one byte, at most
}

// part of a replacement: plain text, or the text of a group (0 is the whole).
type part struct {
	text  string
	group int // -1: plain text
}

// substitute applies the substitutions to a string. As in Kamailio an empty
// match ends it.
func (l *lexer) substitute(s string, at Pos) (string, error) {
	for _, sub := range l.subst {
		if l.work += len(s) * sub.cost; l.work > maxWork {
			return "", fail(at, "use fewer, or simpler, regular expressions", "the substitutions are too much work")
		}
		var b strings.Builder
		done := 0
		for _, m := range sub.re.FindAllStringSubmatchIndex(s, -1) {
			if m[0] == m[1] {
				break
			}
			b.WriteString(s[done:m[0]])
			for _, p := range sub.repl {
				if p.group < 0 {
					b.WriteString(p.text)
				} else if 2*p.group+1 < len(m) && m[2*p.group] >= 0 {
					b.WriteString(s[m[2*p.group]:m[2*p.group+1]])
				}
			}
			done = m[1]
			if b.Len() > maxString {
				return "", fail(at, "do substitutions make each other's input?", "string grows beyond %d bytes", maxString)
			}
			if !sub.all {
				break
			}
		}
		if done > 0 {
			s = b.String() + s[done:]
		}
	}
	return s, nil
}

// substDirective reads the string of #!subst, #!substdef or #!substdefs:
// "/regexp/replacement/flags" with any character as the separator. That string
// is itself subject to the earlier substitutions. It may hold a password, so no
// error repeats it.
func (l *lexer) substDirective(directive string, at Pos) error {
	n := len(l.toks)
	for len(l.toks) == n {
		c := l.peek(0)
		if c < 0 || !isBlank(c) && c != '\n' && c != '"' && c != '\'' && !isWord(c) {
			break
		}
		if err := l.next(byte(c)); err != nil {
			return err
		}
	}
	form := "write #!" + directive + ` "/regexp/replacement/flags"`
	if len(l.toks) == n || l.toks[n].Kind != tString {
		return fail(at, form, "#!%s wants a string", directive)
	}
	text := l.toks[n].Text
	l.toks = l.toks[:n]
	if len(text) < 3 || len(text) > maxSubst {
		return fail(at, form, "string of #!%s has %d bytes, not 3 to %d", directive, len(text), maxSubst)
	}
	sep := text[0]
	re, rest, ok := cut(text[1:], sep)
	if !ok {
		return fail(at, form, "#!%s has no second separator %c", directive, sep)
	}
	repl, flags, ok := cut(rest, sep)
	if !ok {
		return fail(at, form, "#!%s has no third separator %c", directive, sep)
	}

	sub := substitution{}
	mode := ere.Captures | ere.Newline
	for _, f := range flags {
		switch f {
		case 'g':
			sub.all = true
		case 'i':
			mode |= ere.FoldCase
		case 's':
			mode &^= ere.Newline
		default:
			return fail(at, "the flags are g, i and s", "#!%s has an unknown flag", directive)
		}
	}
	var err error
	if sub.re, err = ere.Compile(re, mode); err != nil {
		reason := ""
		var e *ere.Error // its text would repeat the expression
		if errors.As(err, &e) {
			reason = ": " + e.Reason
			if e.Piece != "" {
				reason = ": a piece of it " + e.Reason
			}
		}
		return fail(at, "write POSIX extended syntax", "#!%s has a regular expression that can't be used%s", directive, reason)
	}
	sub.cost = cost(sub.re)
	if sub.repl, err = l.replacement(repl, directive, at); err != nil {
		return err
	}

	if directive != "subst" {
		if _, there := l.defs[re]; there {
			return l.alreadyDefined(re, "", at)
		}
		value := ""
		for _, p := range sub.repl {
			value += p.text
		}
		if directive == "substdefs" {
			value = `"` + value + `"`
		}
		l.defs[re] = value
	}
	if l.subst = append(l.subst, sub); len(l.subst) > maxSubsts {
		return fail(at, "", "more than %d substitutions", maxSubsts)
	}
	return nil
}

// cost is the steps that an expression takes for one byte, at most: the size of
// its program.
func cost(re *regexp.Regexp) int {
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return maxWork
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return maxWork
	}
	return len(prog.Inst)
}

// cut splits at the first separator that has no backslash before it.
func cut(s string, sep byte) (before, after string, ok bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case sep:
			return s[:i], s[i+1:], true
		case '\\':
			i++
		}
	}
	return s, "", false
}

// replacement takes the third part of a substitution to pieces: \0 to \9, \n
// \r \t, and the variables that have a value at start.
func (l *lexer) replacement(s, directive string, at Pos) ([]part, error) {
	var parts []part
	var b []byte
	plain := func() {
		if len(b) > 0 {
			parts = append(parts, part{string(b), -1})
			b = nil
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			switch c = s[i]; {
			case c >= '0' && c <= '9':
				plain()
				parts = append(parts, part{"", int(c - '0')})
			case strings.IndexByte("nrt", c) >= 0:
				b = append(b, "\n\r\t"[strings.IndexByte("nrt", c)])
			default:
				b = append(b, c)
			}
		case c == '$':
			v, n, ok, err := l.startVariable(s[i:], at)
			if err != nil {
				return nil, err
			}
			if !ok {
				return nil, fail(at, "use $env(NAME), $def(NAME), or $$ for a dollar", "#!%s has a variable without value at start", directive)
			}
			b = append(b, v...)
			i += n - 1
		default:
			b = append(b, c)
		}
	}
	plain()
	return parts, nil
}

var startVar = regexp.MustCompile(`^(?:\$\$|\$(env|def)\(([^()]*)\)|\$\((env|def)\(([^()]*)\)\))`)

// startVariable reads the variable at the beginning of s: $env(NAME),
// $def(NAME), either within $(...), or $$. n is its length; ok is false for any
// other, whose value isn't known outside Kamailio.
func (l *lexer) startVariable(s string, at Pos) (value string, n int, ok bool, err error) {
	m := startVar.FindStringSubmatch(s)
	if m == nil {
		return "", 0, false, nil
	}
	switch kind, name := m[1]+m[3], m[2]+m[4]; kind {
	case "":
		value = "$"
	case "env":
		if value, ok = l.opt.Env(name); !ok {
			return "", 0, false, fail(at, "set it for siptraced as it is set for Kamailio", "environment variable %s is not set", name)
		}
	case "def":
		if value, ok = l.defs[name]; !ok {
			return "", 0, false, fail(at, "define it further up", "%s is not defined here", name)
		}
	}
	return value, len(m[0]), true, nil
}

// evaluate is the work of the x in modparamx and loadmodulex. With an error the
// string is as it was: Kamailio may know a variable that isn't known here.
func (l *lexer) evaluate(s string, at Pos) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '$' {
			b.WriteByte(s[i])
			i++
			continue
		}
		v, n, ok, err := l.startVariable(s[i:], at)
		if err == nil && !ok {
			err = fail(at, "use $env(NAME), $def(NAME), or $$ for a dollar", "a variable has its value only within Kamailio")
		}
		if err != nil {
			return s, err
		}
		b.WriteString(v)
		i += n
	}
	return b.String(), nil
}
