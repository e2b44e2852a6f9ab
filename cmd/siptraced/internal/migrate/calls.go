package migrate

import (
	"regexp"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
)

// call is one use of the module's functions in a route.
type call struct {
	fn    string
	pos   kamcfg.Pos
	block string // where it stands
	args  [][]kamcfg.Token
}

var functions = []string{"sip_trace", "sip_trace_mode", "sip_trace_msg", "hlog"}

// traces says that messages get traced by it.
func (c call) traces() bool { return c.fn == "sip_trace" || c.fn == "sip_trace_mode" }

// address is the destination that the call names itself.
func (c call) address() (string, bool) {
	if c.fn != "sip_trace" || len(c.args) == 0 || len(c.args[0]) == 0 || c.args[0][0].Text == "" {
		return "", false
	}
	return c.args[0][0].Text, true
}

// transaction says that the call may take more than the message at hand; where it
// says no mode, flag says whether trace_flag is in use.
func (c call) transaction(flag bool) bool {
	arg := 2
	switch {
	case c.fn == "sip_trace_mode":
		arg = 0
	case len(c.args) < 3:
		return flag
	}
	return arg >= len(c.args) || len(c.args[arg]) == 0 || !strings.EqualFold(c.args[arg][0].Text[:min(1, len(c.args[arg][0].Text))], "m")
}

// callAt is the call at a place.
func (p *Plan) callAt(at kamcfg.Pos) call {
	for _, c := range p.calls {
		if c.pos == at {
			return c
		}
	}
	return call{}
}

func (p *Plan) readCalls() {
	for _, b := range p.cfg.Blocks {
		if b.Name == eventRoute {
			continue
		}
		for i, t := range b.Tokens {
			if t.Kind != kamcfg.Word || !slices.Contains(functions, t.Text) || i+1 == len(b.Tokens) || b.Tokens[i+1].Kind != '(' {
				continue
			}
			c, depth, from := call{fn: t.Text, pos: t.Pos, block: b.Kind + b.Name}, 0, i+2
			for k := i + 1; k < len(b.Tokens); k++ {
				switch b.Tokens[k].Kind {
				case '(':
					depth++
				case ')':
					depth--
				}
				if depth == 0 || depth == 1 && b.Tokens[k].Kind == ',' {
					c.args = append(c.args, b.Tokens[from:k])
					from = k + 1
				}
				if depth == 0 {
					break
				}
			}
			p.calls = append(p.calls, c)
		}
	}
}

// avpForm matches an AVP as a variable, also with an index.
var avpForm = regexp.MustCompile(`^\$\(?avp\(\s*(?:s:)?([^()\s]+)\s*\)(\[[^\]]*\]\))?$`)

// avpName is the name within $avp(s:name), $avp(name) and $(avp(name)[*]); s:
// is the default.
func avpName(text string) string {
	if m := avpForm.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// statement is one of a route, for the notes.
type statement struct {
	text  string // in Kamailio's language, with line ends
	route string // where it stands
	pos   kamcfg.Pos
	why   string // why it isn't carried
	calls bool   // it names an address for sip_trace()
}

// The kinds of node.
const (
	plain     = iota
	condition // if
	loop      // while
	choice    // switch; its cases are labels
	label
)

// node is a statement of a route.
type node struct {
	kind     int
	tokens   []kamcfg.Token // of a plain statement; of the condition; of a label
	in       string         // the route that it stands in
	then, or []node
	ends     bool   // a call of sip_trace(), in whose place the route ends
	flag     string // where this flag is not set
}

func (n node) at() kamcfg.Pos {
	if len(n.tokens) > 0 {
		return n.tokens[0].Pos
	}
	return kamcfg.Pos{}
}

// control is the word of a statement that leaves a route; zero says that it returns
// 0, which ends the script.
func (n node) control() (name string, zero bool) {
	if n.kind != plain || len(n.tokens) == 0 || n.tokens[0].Kind != kamcfg.Word || !slices.Contains([]string{"exit", "drop", "return", "break"}, n.tokens[0].Text) {
		return "", false
	}
	value := strings.Trim(line(n.tokens[1:]), "() ")
	return n.tokens[0].Text, value == "0"
}

// calls is the NAME of a statement that is route(NAME).
func (n node) calls() string {
	if n.kind == plain && len(n.tokens) == 4 && n.tokens[0].Text == "route" && n.tokens[1].Kind == '(' && n.tokens[2].Kind != kamcfg.Variable {
		return n.tokens[2].Text
	}
	return ""
}

// address is the destination that a call of sip_trace() names; empty where it names
// none, or works it out.
func (n node) address() string {
	if n.kind == plain && len(n.tokens) > 3 && n.tokens[0].Text == "sip_trace" && n.tokens[2].Kind == kamcfg.String && !strings.Contains(n.tokens[2].Text, "$") &&
		(n.tokens[3].Kind == ')' || n.tokens[3].Kind == ',') {
		return n.tokens[2].Text
	}
	return ""
}

// reader goes through the tokens of a block.
type reader struct {
	toks []kamcfg.Token
	in   string // the name of the block
	i    int
}

func (r *reader) kind(k int) byte {
	if r.i+k < len(r.toks) {
		return r.toks[r.i+k].Kind
	}
	return 0
}

func (r *reader) is(w string) bool { return r.kind(0) == kamcfg.Word && r.toks[r.i].Text == w }

func (r *reader) word(w string) bool {
	if r.is(w) {
		r.i++
		return true
	}
	return false
}

// list reads statements up to a closing brace, the next case of a switch, or the end.
func (r *reader) list() (out []node) {
	for r.i < len(r.toks) && r.kind(0) != '}' && !r.is("case") && !r.is("default") {
		out = append(out, r.statement()...)
	}
	return out
}

func (r *reader) statement() []node {
	switch {
	case r.kind(0) == '{':
		r.i++
		out := r.list()
		r.i++
		return out
	case r.word("if"):
		n := node{kind: condition, in: r.in, tokens: r.condition()}
		n.then = r.statement()
		if r.word("else") {
			n.or = r.statement()
		}
		return []node{n}
	case r.word("while"):
		n := node{kind: loop, in: r.in, tokens: r.condition()}
		n.then = r.statement()
		return []node{n}
	case r.word("switch"):
		n := node{kind: choice, in: r.in, tokens: r.condition()}
		r.i++ // {
		for r.is("case") || r.is("default") {
			l := node{kind: label, in: r.in, tokens: r.label()}
			l.then = r.list()
			n.then = append(n.then, l)
		}
		r.i++ // }
		return []node{n}
	}
	return r.plain()
}

// plain reads up to a semicolon.
func (r *reader) plain() []node {
	from, depth := r.i, 0
	for ; r.i < len(r.toks); r.i++ {
		switch r.kind(0) {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ';':
			if depth == 0 {
				r.i++
				if r.i-1 == from {
					return nil
				}
				return []node{{tokens: r.toks[from : r.i-1], in: r.in}}
			}
		case '{', '}':
			if depth == 0 && r.i > from {
				return nil
			}
		}
	}
	return nil
}

// label reads up to the colon of a case.
func (r *reader) label() []kamcfg.Token {
	from := r.i
	for r.i < len(r.toks) && r.kind(0) != ':' && r.kind(0) != '}' {
		r.i++
	}
	toks := r.toks[from:r.i]
	if r.kind(0) == ':' {
		r.i++
	}
	return toks
}

// condition reads up to where a statement begins: after parentheses that no
// operator follows, or before a brace.
func (r *reader) condition() []kamcfg.Token {
	from, depth := r.i, 0
	for ; r.i < len(r.toks); r.i++ {
		switch r.kind(0) {
		case '(', '[':
			depth++
		case ')', ']':
			if depth--; depth == 0 && !strings.ContainsRune("&|=!<>~+-*/%^", rune(r.kind(1))) &&
				(r.kind(1) != kamcfg.Word || !slices.Contains([]string{"and", "or", "eq", "ne"}, r.toks[r.i+1].Text)) {
				r.i++
				return r.toks[from:r.i]
			}
		case '{':
			if depth == 0 {
				return r.toks[from:r.i]
			}
		}
	}
	return r.toks[from:r.i]
}

// keep cuts statements down to those that set one AVP, and the conditions around
// them.
func keep(list []node, avp string) (out []node) {
	for _, n := range list {
		n.then, n.or = keep(n.then, avp), keep(n.or, avp)
		if len(n.then)+len(n.or) > 0 || n.kind == plain && n.target() == "$avp("+avp+")" {
			out = append(out, n)
		}
	}
	return out
}

// write writes statements anew.
func write(b *strings.Builder, list []node, indent string) {
	for _, n := range list {
		b.WriteString(indent)
		switch name, _ := n.control(); {
		case n.kind == condition:
			n.writeIf(b, indent)
		case n.kind == loop:
			b.WriteString("while " + parenthesized(n.tokens) + " {\n")
			write(b, n.then, indent+"\t")
			b.WriteString(indent + "}\n")
		case n.kind == choice:
			b.WriteString("switch " + parenthesized(n.tokens) + " {\n")
			for _, l := range n.then {
				b.WriteString(indent + line(l.tokens) + ":\n")
				write(b, l.then, indent+"\t")
			}
			b.WriteString(indent + "}\n")
		case n.ends && n.flag != "":
			b.WriteString("if (!isflagset(" + n.flag + ")) exit; # " + line(n.tokens) + " takes the request as it is here\n")
		case n.ends:
			b.WriteString("exit; # " + line(n.tokens) + " takes the request as it is here\n")
		case name == "drop": // in an event route it would drop the message
			b.WriteString("exit;\n")
		default:
			b.WriteString(line(n.tokens) + ";\n")
		}
	}
}

// parenthesized is a condition within parentheses.
func parenthesized(toks []kamcfg.Token) string {
	c := line(toks)
	if !strings.HasPrefix(c, "(") {
		c = "(" + c + ")"
	}
	return c
}

func (n node) writeIf(b *strings.Builder, indent string) {
	b.WriteString("if " + parenthesized(n.tokens) + " {\n")
	write(b, n.then, indent+"\t")
	b.WriteString(indent + "}")
	switch {
	case len(n.or) == 1 && n.or[0].kind == condition:
		b.WriteString(" else ")
		n.or[0].writeIf(b, indent)
		return
	case len(n.or) > 0:
		b.WriteString(" else {\n")
		write(b, n.or, indent+"\t")
		b.WriteString(indent + "}")
	}
	b.WriteString("\n")
}

// line writes tokens with space where they had some.
func line(toks []kamcfg.Token) string {
	var b strings.Builder
	for i, t := range toks {
		if i > 0 && !t.Adjoins {
			b.WriteByte(' ')
		}
		if t.Kind == kamcfg.String {
			b.WriteString(kamcfg.Value{Str: t.Text}.String())
		} else {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}

// layout writes tokens on the lines that they had, indented by their braces.
func layout(toks []kamcfg.Token) string {
	var b strings.Builder
	depth := 1
	for len(toks) > 0 {
		n := 1
		for n < len(toks) && toks[n].Pos == toks[0].Pos {
			n++
		}
		indent := depth
		for i, t := range toks[:n] {
			switch t.Kind {
			case '{':
				depth++
			case '}':
				if depth--; i == 0 {
					indent--
				}
			}
		}
		b.WriteString(strings.Repeat("\t", max(indent, 1)) + line(toks[:n]) + "\n")
		toks = toks[n:]
	}
	return b.String()
}
