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

// part of a replacement: plain text, the text of a group (0 is the whole), or a
// variable, which is evaluated each time.
type part struct {
	text     string
	group    int // -1: not a group
	variable *variable
}

// substitute applies the substitutions to a string.
func (l *lexer) substitute(s string, at Pos) (string, error) {
	for i := range l.subst {
		var err error
		if s, err = l.apply(&l.subst[i], s, at); err != nil {
			return "", err
		}
	}
	return s, nil
}

// apply applies one. As in Kamailio an empty match ends it.
func (l *lexer) apply(sub *substitution, s string, at Pos) (string, error) {
	if l.work += len(s) * sub.cost; l.work > maxWork {
		return "", fail(at, "use fewer, or simpler, regular expressions", "the substitutions are too much work")
	}
	var b strings.Builder
	var texts []string // of the parts that are no groups
	done := 0
	for _, m := range sub.re.FindAllStringSubmatchIndex(s, -1) {
		if m[0] == m[1] {
			break
		}
		if texts == nil {
			texts = l.partTexts(sub.repl, "")
		}
		b.WriteString(s[done:m[0]])
		for i, p := range sub.repl {
			if p.group < 0 {
				b.WriteString(texts[i])
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
	return s, nil
}

// partTexts are the texts of the parts, that of groups empty.
func (l *lexer) partTexts(parts []part, null string) []string {
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = l.partText(p, null)
	}
	return texts
}

// partText is the text of a part that is no group; null stands for no value.
func (l *lexer) partText(p part, null string) string {
	if p.variable == nil {
		return p.text
	}
	switch val := l.startValue(p.variable); {
	case val.unknown != nil:
		return l.markUnknown(val.unknown, p.variable)
	case val.null:
		l.noteNull(p.variable)
		return null
	default:
		return val.text
	}
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
	sub, name, err := l.substitution("#!"+directive, text, at)
	if err != nil || sub == nil {
		return err
	}
	if directive != "subst" {
		if _, there := l.defs[name]; there {
			return l.alreadyDefined(name, "", at)
		}
		value := strings.Join(l.partTexts(sub.repl, "<null>"), "")
		if directive == "substdefs" {
			value = `"` + value + `"`
		}
		l.setDefine(name, value)
	}
	if l.subst = append(l.subst, *sub); len(l.subst) > maxSubsts {
		return fail(at, "", "more than %d substitutions", maxSubsts)
	}
	return nil
}

// substitution reads "/regexp/replacement/flags". re is the expression as it is
// written. Nil: the expression hangs on a value that isn't known.
func (l *lexer) substitution(what, text string, at Pos) (sub *substitution, re string, err error) {
	form := "write " + what + ` "/regexp/replacement/flags"`
	if len(text) < 3 || len(text) > maxSubst {
		return nil, "", fail(at, form, "string of %s has %d bytes, not 3 to %d", what, len(text), maxSubst)
	}
	sep := text[0]
	re, rest, ok := cut(text[1:], sep)
	if !ok {
		return nil, "", fail(at, form, "%s has no second separator %c", what, sep)
	}
	repl, flags, ok := cut(rest, sep)
	if !ok {
		return nil, "", fail(at, form, "%s has no third separator %c", what, sep)
	}
	if strings.Contains(text[:1]+re, unknownMark) {
		l.cfg.note(at, "%s is left out: its expression has a variable whose value isn't known here", what)
		return nil, "", nil
	}

	sub = &substitution{}
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
			return nil, "", fail(at, "the flags are g, i and s", "%s has an unknown flag", what)
		}
	}
	if sub.re, err = ere.Compile(re, mode); err != nil {
		reason := ""
		var e *ere.Error // its text would repeat the expression
		if errors.As(err, &e) {
			reason = ": " + e.Reason
			if e.Piece != "" {
				reason = ": a piece of it " + e.Reason
			}
		}
		return nil, "", fail(at, "write POSIX extended syntax", "%s has a regular expression that can't be used%s", what, reason)
	}
	sub.cost = cost(sub.re)
	sub.repl, err = replacement(repl, what, at)
	return sub, re, err
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
// \r \t, and variables.
func replacement(s, what string, at Pos) ([]part, error) {
	var parts []part
	var b []byte
	plain := func() {
		if len(b) > 0 {
			parts = append(parts, part{text: string(b), group: -1})
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
				parts = append(parts, part{group: int(c - '0')})
			case strings.IndexByte("nrt", c) >= 0:
				b = append(b, "\n\r\t"[strings.IndexByte("nrt", c)])
			default:
				b = append(b, c)
			}
		case strings.HasPrefix(s[i:], "$$"):
			b = append(b, '$')
			i++
		case c == '$':
			v, n := variableAt(s[i:], at)
			if v == nil {
				return nil, fail(at, "write $$ for a dollar", "%s has a variable that is malformed", what)
			}
			plain()
			parts = append(parts, part{group: -1, variable: v})
			i += n - 1
		default:
			b = append(b, c)
		}
	}
	plain()
	return parts, nil
}
