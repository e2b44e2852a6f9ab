package flexisip

import (
	"fmt"
	"regexp"
	"strings"
)

// Bounds of an expression.
const (
	MaxLength  = 8192 // bytes
	MaxDepth   = 64   // parentheses and negations inside one another
	MaxPattern = 1024 // bytes of one regular expression
)

const blanks = " \t\r\n"

// SyntaxError says where an expression is wrong, and in what.
type SyntaxError struct {
	Text   string // the expression
	Offset int    // bytes before the offending place
	Reason string
}

func (e *SyntaxError) Error() string {
	at := "at the end"
	if e.Offset < len(e.Text) {
		at = fmt.Sprintf("at byte %d, %q", e.Offset, shorten(e.Text[e.Offset:]))
	}
	return "flexisip: " + e.Reason + " " + at
}

func shorten(s string) string {
	const most = 24
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// Compile reads an expression. One of blanks alone is true of every message, as
// in Flexisip's filters; as contextual-log-filter it stands for none. The error
// is a [*SyntaxError].
func Compile(expr string) (*Filter, error) {
	p := parser{text: expr, filter: &Filter{text: expr}}
	p.filter.work.New = func() any { return new(work) }
	if len(expr) > MaxLength {
		p.fail(MaxLength, fmt.Sprintf("longer than %d bytes", MaxLength))
		return nil, p.err
	}
	if p.blank(); p.pos == len(expr) {
		p.filter.root = p.add(node{op: opTrue})
		return p.filter, nil
	}
	p.filter.root = p.expression(0)
	if p.err == nil && p.pos < len(expr) {
		if expr[p.pos] == ')' {
			p.fail(p.pos, "no parenthesis is open")
		} else {
			p.fail(p.pos, "want && or ||")
		}
	}
	if p.err != nil {
		return nil, p.err
	}
	return p.filter, nil
}

// parser reads by descent. After the first error it does nothing more of use,
// and comes to an end.
type parser struct {
	text   string
	pos    int
	filter *Filter
	err    error
}

func (p *parser) fail(at int, reason string) {
	if p.err == nil {
		p.err = &SyntaxError{Text: p.text, Offset: at, Reason: reason}
	}
	p.pos = len(p.text)
}

func (p *parser) add(n node) int {
	p.filter.nodes = append(p.filter.nodes, n)
	return len(p.filter.nodes) - 1
}

func (p *parser) blank() {
	for p.pos < len(p.text) && strings.IndexByte(blanks, p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// take reports whether s comes next, and passes over it and the blanks behind.
func (p *parser) take(s string) bool {
	if !strings.HasPrefix(p.text[p.pos:], s) {
		return false
	}
	p.pos += len(s)
	p.blank()
	return true
}

// word reads letters, digits and the signs in names; nothing else may be one.
func (p *parser) word() string {
	start := p.pos
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			break
		}
		p.pos++
	}
	return p.text[start:p.pos]
}

// expression reads terms between && and ||, which have one precedence: each
// joins the term on its left with everything on its right.
func (p *parser) expression(depth int) int {
	root := p.term(depth)
	last := -1 // the join to hang the next one into
	for p.err == nil {
		var o op
		switch {
		case p.take("&&"):
			o = opAnd
		case p.take("||"):
			o = opOr
		default:
			return root
		}
		n := node{op: o, left: root}
		if last >= 0 {
			n.left = p.filter.nodes[last].right
		}
		n.right = p.term(depth)
		join := p.add(n)
		if last >= 0 {
			p.filter.nodes[last].right = join
		} else {
			root = join
		}
		last = join
	}
	return root
}

// term reads what ! binds to: a comparison, a named operator, or an expression
// in parentheses.
func (p *parser) term(depth int) int {
	if p.err != nil {
		return 0
	}
	start := p.pos
	if depth > MaxDepth {
		p.fail(start, fmt.Sprintf("more than %d parentheses and negations inside one another", MaxDepth))
		return 0
	}
	switch {
	case start == len(p.text):
		p.fail(start, "an expression is missing")
		return 0
	case p.take("("):
		i := p.expression(depth + 1)
		if p.err == nil && !p.take(")") {
			if p.pos == len(p.text) {
				p.fail(start, "a parenthesis is not closed")
			} else {
				p.fail(p.pos, "want &&, || or )")
			}
		}
		return i
	case p.text[start] == '!' && !strings.HasPrefix(p.text[start:], "!="):
		p.take("!")
		return p.add(node{op: opNot, left: p.term(depth + 1)})
	}

	named := op(255)
	switch w := p.word(); w {
	case "true":
		named = opTrue
	case "false":
		named = opFalse
	case "is_request":
		named = opRequest
	case "is_response":
		named = opResponse
	case "defined", "numeric":
		p.blank()
		n := node{op: opDefined}
		if w == "numeric" {
			n.op = opNumeric
		}
		n.a = p.value()
		return p.add(n)
	}
	if named != 255 {
		p.blank()
		return p.add(node{op: named})
	}
	p.pos = start
	return p.comparison()
}

func (p *parser) comparison() int {
	n := node{a: p.value()}
	if p.err != nil {
		return 0
	}
	start := p.pos
	negate := false
	switch {
	case p.take("=="):
		n.op = opEqual
	case p.take("!="):
		n.op, negate = opEqual, true
	default:
		switch p.word() {
		case "contains":
			n.op = opContains
		case "in":
			n.op = opIn
		case "nin", "notin":
			n.op, negate = opIn, true
		case "regex", "regexp":
			n.op = opRegex
		default:
			p.fail(start, "want ==, !=, contains, in, nin, notin or regex")
			return 0
		}
		p.blank()
	}
	start = p.pos
	n.b = p.value()
	switch {
	case p.err != nil:
		return 0
	case n.op == opRegex && n.b.variable != nil:
		p.fail(start, "want a regular expression in single quotes")
		return 0
	case n.op == opRegex:
		n.patterns = p.regex(start+1, string(n.b.text))
	case n.op == opIn && n.b.variable == nil:
		n.words = map[string]struct{}{}
		for _, w := range strings.FieldsFunc(string(n.b.text), func(r rune) bool { return strings.ContainsRune(blanks, r) }) {
			n.words[w] = struct{}{}
		}
	}
	i := p.add(n)
	if negate {
		i = p.add(node{op: opNot, left: i})
	}
	return i
}

// value reads a constant or a variable.
func (p *parser) value() value {
	start := p.pos
	if p.err == nil && start == len(p.text) {
		p.fail(start, "a variable or constant is missing")
	}
	if p.err != nil {
		return value{}
	}
	if p.text[start] == '\'' {
		n := strings.IndexByte(p.text[start+1:], '\'')
		if n < 0 {
			p.fail(start, "a quote is not closed")
			return value{}
		}
		p.pos += n + 2
		p.blank()
		return value{text: []byte(p.text[start+1 : start+1+n])}
	}
	name := ""
	if p.text[start] == '$' {
		if n := strings.IndexAny(p.text[start:], ")"+blanks); n >= 0 && p.text[start+n] == ')' {
			p.pos += n + 1
		} else {
			p.pos++
			p.word()
		}
		name = p.text[start:p.pos]
	} else {
		name = p.word()
	}
	v, ok := variables[name]
	switch {
	case name == "":
		p.fail(start, "want a variable, or a constant in single quotes,")
	case !ok:
		p.fail(start, fmt.Sprintf("there is no variable %q (%s)", shorten(name), nearest(name)))
	}
	p.blank()
	return value{variable: v}
}

// regex compiles an ECMAScript regular expression that stands at byte at. All of
// the value has to match, as in Flexisip. Of what Go's engine lacks, for it takes
// linear time, look-ahead at the beginning can be had.
func (p *parser) regex(at int, text string) []pattern {
	if len(text) > MaxPattern {
		p.fail(at, fmt.Sprintf("a regular expression of %d bytes, over %d,", len(text), MaxPattern))
		return nil
	}
	var list []pattern
	compile := func(text, end string, not bool) bool {
		// Alone first: it must not borrow a parenthesis from the frame around.
		_, err := regexp.Compile(text)
		if err == nil {
			var re *regexp.Regexp
			re, err = regexp.Compile(`\A(?:` + text + `)` + end)
			list = append(list, pattern{re, not})
		}
		if err != nil {
			p.fail(at, "regular expression: "+strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
		return err == nil
	}
	rest := strings.TrimPrefix(text, "^")
	for strings.HasPrefix(rest, "(?!") || strings.HasPrefix(rest, "(?=") {
		end := closing(rest)
		if end < 0 || !compile(rest[3:end], "", rest[2] == '!') {
			break
		}
		rest = rest[end+1:]
	}
	if p.err == nil {
		compile(rest, `\z`, false)
	}
	return list
}

// closing returns the place of the parenthesis that closes the one at 0.
func closing(re string) int {
	depth, class := 0, false
	for i := 0; i < len(re); i++ {
		switch c := re[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
