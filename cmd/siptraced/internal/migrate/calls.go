package migrate

import (
	"regexp"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
)

// call is one use of the module's functions in a route.
type call struct {
	fn   string
	pos  kamcfg.Pos
	args [][]kamcfg.Token
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

func (p *Plan) readCalls() {
	for _, b := range p.cfg.Blocks {
		if b.Name == eventRoute {
			continue
		}
		for i, t := range b.Tokens {
			if t.Kind != kamcfg.Word || !slices.Contains(functions, t.Text) || i+1 == len(b.Tokens) || b.Tokens[i+1].Kind != '(' {
				continue
			}
			c, depth, from := call{fn: t.Text, pos: t.Pos}, 0, i+2
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

// statement is one that sets an AVP, with the conditions around it.
type statement struct {
	text   string // in Kamailio's language, with line ends
	route  string // where it stands
	param  string // the AVP, as the parameter names it
	pos    kamcfg.Pos
	why    string // why it isn't carried
	stable bool   // holds alike for every message of a transaction
}

// node is a statement of a route.
type node struct {
	tokens   []kamcfg.Token // of a plain statement, or of the condition
	cond     bool
	then, or []node
}

// reader goes through the tokens of a block.
type reader struct {
	toks []kamcfg.Token
	i    int
}

func (r *reader) kind(k int) byte {
	if r.i+k < len(r.toks) {
		return r.toks[r.i+k].Kind
	}
	return 0
}

func (r *reader) word(w string) bool {
	if r.kind(0) == kamcfg.Word && r.toks[r.i].Text == w {
		r.i++
		return true
	}
	return false
}

// list reads statements up to a closing brace or the end.
func (r *reader) list() (out []node) {
	for r.i < len(r.toks) && r.kind(0) != '}' {
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
		n := node{cond: true, tokens: r.condition()}
		n.then = r.statement()
		if r.word("else") {
			n.or = r.statement()
		}
		return []node{n}
	case r.word("while"), r.word("switch"):
		r.condition()
		return r.statement()
	}
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
				return []node{{tokens: r.toks[from : r.i-1]}}
			}
		case '{', '}', ':': // case "x": of a switch
			if depth == 0 && r.i > from {
				if r.kind(0) == ':' {
					r.i++
				}
				return nil
			}
		}
	}
	return nil
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

// keep cuts statements down to those that set an AVP, and the conditions around
// them.
func keep(list []node, avp string) (out []node) {
	for _, n := range list {
		if n.cond {
			n.then, n.or = keep(n.then, avp), keep(n.or, avp)
			if len(n.then)+len(n.or) > 0 {
				out = append(out, n)
			}
			continue
		}
		if len(n.tokens) > 1 && n.tokens[0].Kind == kamcfg.Variable && avp != "" && avpName(n.tokens[0].Text) == avp &&
			strings.ContainsRune("=:", rune(n.tokens[1].Kind)) {
			out = append(out, n)
		}
	}
	return out
}

// write writes statements anew.
func write(b *strings.Builder, list []node, indent string) {
	for _, n := range list {
		b.WriteString(indent)
		if n.cond {
			n.writeIf(b, indent)
			continue
		}
		b.WriteString(line(n.tokens) + ";\n")
	}
}

func (n node) writeIf(b *strings.Builder, indent string) {
	c := line(n.tokens)
	if !strings.HasPrefix(c, "(") {
		c = "(" + c + ")"
	}
	b.WriteString("if " + c + " {\n")
	write(b, n.then, indent+"\t")
	b.WriteString(indent + "}")
	switch {
	case len(n.or) == 1 && n.or[0].cond:
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
