package migrate

import (
	"fmt"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
)

const eventRoute = "siptrace:msg"

// readRoutes collects what the sidecar's event route has to do: what the
// proxy's own does, and the AVPs that its other routes set for the module.
func (p *Plan) readRoutes() {
	var avps []string
	for _, a := range []string{p.params.TracedUserAVP, p.params.TraceTableAVP} {
		if n := avpName(a); n != "" {
			avps = append(avps, n)
		}
	}
	for _, b := range p.cfg.Blocks {
		if b.Name == eventRoute || len(avps) == 0 {
			continue
		}
		r := reader{toks: b.Tokens}
		for _, n := range keep(r.list(), avps) {
			var text strings.Builder
			write(&text, []node{n}, "\t")
			s := statement{text: text.String(), route: b.Kind, pos: n.tokens[0].Pos, stable: stable(n)}
			if b.Name != "" {
				s.route += "[" + b.Name + "]"
			}
			p.carried = append(p.carried, s)
		}
	}
	own := ""
	if b, ok := p.eventBlock(); ok && p.core {
		own = p.body(b)
	}
	if own == "" && len(p.carried) == 0 {
		return
	}
	var text strings.Builder
	text.WriteString("event_route[" + eventRoute + "] {\n")
	for _, s := range p.carried {
		fmt.Fprintf(&text, "\t# %s, %s\n%s", p.place(s.pos), s.route, s.text)
	}
	text.WriteString(own + "}\n")
	p.route = text.String()
}

func (p *Plan) eventBlock() (kamcfg.Block, bool) {
	i := slices.IndexFunc(p.cfg.Blocks, func(b kamcfg.Block) bool { return b.Kind == "event_route" && b.Name == eventRoute })
	if i < 0 {
		return kamcfg.Block{}, false
	}
	return p.cfg.Blocks[i], true
}

// body is the text of the proxy's event route. Its comments stay where it
// stands alone, without defines and includes.
func (p *Plan) body(b kamcfg.Block) string {
	if b.Span.File != "" {
		raw := p.files[b.Span.File][b.Span.From:b.Span.To]
		if alone, err := kamcfg.ParseBytes(b.Span.File, raw, kamcfg.Options{}); err == nil && len(alone.Blocks) == 1 &&
			slices.EqualFunc(alone.Blocks[0].Tokens, b.Tokens, func(x, y kamcfg.Token) bool { return x.Kind == y.Kind && x.Text == y.Text }) {
			text := string(raw)
			return tidy(text[strings.IndexByte(text, '{')+1 : len(text)-1])
		}
	}
	r, _ := p.cfg.EventRoute(eventRoute)
	return tidy(r.Text)
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
			if i+1 < len(n.tokens) && n.tokens[i+1].Kind == '(' && name != "is_method" ||
				slices.Contains([]string{"uri", "src_ip", "src_port", "method", "status", "myself"}, name) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(n.then, unstable) && !slices.ContainsFunc(n.or, unstable)
}

func unstable(n node) bool { return !stable(n) }
