package migrate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
)

const eventRoute = "siptrace:msg"

// readRoutes collects what the sidecar's event route has to do: what the
// proxy's own does, and the AVPs that its other routes set for the module.
func (p *Plan) readRoutes() {
	for _, b := range p.cfg.Blocks {
		if b.Name == eventRoute {
			continue
		}
		for _, param := range []string{p.params.TracedUserAVP, p.params.TraceTableAVP} {
			r := reader{toks: b.Tokens}
			for _, n := range keep(r.list(), avpName(param)) {
				p.carry(b, n, param)
				if param == p.params.TraceTableAVP {
					p.tables = append(p.tables, values(n)...)
				}
			}
		}
	}
	assignments, own := p.assignments(), ""
	if b, ok := p.eventBlock(); ok && p.core {
		own = assignments + p.body(b) + "}\n" + p.called(b, nil)
		if err := compile(own); err != nil {
			p.stays = err
			own = ""
		}
	}
	if p.gated() {
		assignments = gate + assignments
	}
	switch {
	case own != "":
		p.route = open + own
	case assignments != "" || p.stays != nil:
		// Also where it is empty: that of kamailio.cfg would run otherwise.
		p.route = open + assignments + "}\n"
	}
}

const open = "event_route[" + eventRoute + "] {\n"

// compile says whether siptraced can run what stands after open.
func compile(text string) error {
	cfg, err := kamcfg.ParseBytes("event route", []byte(open+text), kamcfg.Options{})
	if err != nil {
		return err
	}
	_, err = script.Compile(cfg.EventRoutes[0], script.Options{Routes: cfg.Routes})
	if e := (*kamcfg.Error)(nil); errors.As(err, &e) {
		return errors.New(e.Msg)
	}
	return err
}

// gated says that the proxy's switch is off at start, and that siptraced has to tell
// by the messages themselves whether it is on.
func (p *Plan) gated() bool { return !p.params.TraceOn && p.switched() && p.leaks() }

const gate = `	# The proxy's trace_on is 0 until kamcmd siptrace.status on. While it is 0, sip_trace() still
	# mirrors the rest of a transaction, but not the request that came in: only what belongs to
	# such a request is stored (trace_init_mode 2).
	if (is_request() && $siptrace(direction) == "in") sip_trace_mode("t");
`

// carry takes over a statement that sets an AVP, if siptraced can run it. What
// it asks for decides whether each message can be judged for itself.
func (p *Plan) carry(b kamcfg.Block, n node, param string) {
	s := statement{route: b.Kind, pos: n.tokens[0].Pos, param: param, stable: stable(n)}
	if b.Name != "" {
		s.route += "[" + b.Name + "]"
	}
	var text strings.Builder
	write(&text, []node{n}, "\t\t")
	s.text = text.String()
	if err := compile(s.text + "}\n"); err != nil {
		s.why = err.Error()
		p.left = append(p.left, s)
		return
	}
	p.carried = append(p.carried, s)
}

// The AVPs of the script are those of the request that the proxy received, and
// of its transaction. For an INVITE's CANCEL, and its ACK of a failure, the module
// takes those of the INVITE; for the ACK of a stateless reply, which is known by
// the To tag that the module sl made, it has none, and for the proxy's answer to a
// CANCEL it has a table but no users.
const (
	notStateless = `!(is_method("ACK") && $siptrace(direction) == "in" && $tt =~ "^[0-9a-f]{32}[.]")`
	notCanceling = `!(is_reply() && is_method("CANCEL") && $siptrace(direction) == "out")`
	newRequest   = `is_request() && !is_method("CANCEL|ACK") && $siptrace(direction) == "in"`
)

// assignments are the statements carried, within the conditions under which
// they have the values that they have in the proxy.
func (p *Plan) assignments() string {
	var users, table, once strings.Builder
	var set []string
	for _, s := range p.carried {
		b := &users
		switch {
		case !s.stable:
			b = &once
			if c := s.param + " != $null"; !slices.Contains(set, c) {
				set = append(set, c)
			}
		case s.param == p.params.TraceTableAVP:
			b = &table
		}
		fmt.Fprintf(b, "\t\t# %s, %s\n%s", p.place(s.pos), s.route, s.text)
	}
	text := ""
	if users.Len() > 0 {
		text += "\tif (" + notStateless + " && " + notCanceling + ") {\n" + users.String() + "\t}\n"
	}
	if table.Len() > 0 {
		text += "\tif (" + notStateless + ") {\n" + table.String() + "\t}\n"
	}
	if once.Len() > 0 {
		text += "\tif (" + newRequest + ") {\n" + once.String() +
			"\t\tif (" + strings.Join(set, " || ") + ") sip_trace_mode(\"t\");\n\t}\n"
	}
	return text
}

// values are the strings that statements assign.
func values(n node) (out []string) {
	if !n.cond {
		for _, t := range n.tokens[1:] {
			if t.Kind == kamcfg.String {
				out = append(out, t.Text)
			}
		}
	}
	for _, m := range slices.Concat(n.then, n.or) {
		out = append(out, values(m)...)
	}
	return out
}

// called are the routes that a block calls, and those that they call.
func (p *Plan) called(b kamcfg.Block, done []string) string {
	var text strings.Builder
	for i, t := range b.Tokens {
		if t.Kind != kamcfg.Word || t.Text != "route" || i+2 >= len(b.Tokens) || b.Tokens[i+1].Kind != '(' {
			continue
		}
		name := b.Tokens[i+2].Text
		k := slices.IndexFunc(p.cfg.Blocks, func(r kamcfg.Block) bool { return r.Kind == "route" && r.Name == name })
		if k < 0 || slices.Contains(done, name) {
			continue
		}
		done = append(done, name)
		r := p.cfg.Blocks[k]
		text.WriteString("route[" + name + "] {\n" + p.body(r) + "}\n" + p.called(r, done))
	}
	return text.String()
}

func (p *Plan) eventBlock() (kamcfg.Block, bool) {
	i := slices.IndexFunc(p.cfg.Blocks, func(b kamcfg.Block) bool { return b.Kind == "event_route" && b.Name == eventRoute })
	if i < 0 {
		return kamcfg.Block{}, false
	}
	return p.cfg.Blocks[i], true
}

// body is the text of a route. Its comments stay where it stands alone, without
// defines and includes.
func (p *Plan) body(b kamcfg.Block) string {
	if b.Span.File != "" {
		raw := p.files[b.Span.File][b.Span.From:b.Span.To]
		if alone, err := kamcfg.ParseBytes(b.Span.File, raw, kamcfg.Options{}); err == nil && len(alone.Blocks) == 1 &&
			slices.EqualFunc(alone.Blocks[0].Tokens, b.Tokens, func(x, y kamcfg.Token) bool { return x.Kind == y.Kind && x.Text == y.Text }) {
			text := string(raw)
			return tidy(text[strings.IndexByte(text, '{')+1 : len(text)-1])
		}
	}
	return layout(b.Tokens)
}

// tidy takes away empty lines at both ends and space at the ends of lines.
func tidy(text string) string {
	var lines []string
	for l := range strings.SplitSeq(text, "\n") {
		if l = strings.TrimRight(l, " \t\r"); l != "" || len(lines) > 0 {
			lines = append(lines, l)
		}
	}
	out := strings.TrimRight(strings.Join(lines, "\n"), "\n")
	if out == "" {
		return ""
	}
	return out + "\n"
}

// stableVars are the same in all messages of a transaction.
var stableVars = []string{"fu", "fU", "fd", "fn", "ft", "tu", "tU", "td", "tn", "ci", "null"}

// stable says that the conditions and values hold alike for all messages of a
// transaction, so that each can be judged for itself.
func stable(n node) bool {
	for i, t := range n.tokens {
		name := strings.TrimPrefix(t.Text, "$")
		switch t.Kind {
		case kamcfg.Variable:
			if !slices.Contains(stableVars, name) && (n.cond || i > 0) {
				return false
			}
		case kamcfg.String:
			if strings.Contains(t.Text, "$") {
				return false
			}
		case kamcfg.Word:
			call := i+2 < len(n.tokens) && n.tokens[i+1].Kind == '('
			if call && (name != "is_method" || !sameOfCall(n.tokens[i+2].Text)) ||
				slices.Contains([]string{"uri", "src_ip", "src_port", "method", "status", "myself"}, name) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(n.then, unstable) && !slices.ContainsFunc(n.or, unstable)
}

func unstable(n node) bool { return !stable(n) }

// sameOfCall says that is_method() answers alike for an INVITE, its CANCEL and
// its ACK.
func sameOfCall(methods string) bool {
	n := 0
	for m := range strings.SplitSeq(methods, "|") {
		if m == "INVITE" || m == "CANCEL" || m == "ACK" {
			n++
		}
	}
	return n == 0 || n == 3
}
