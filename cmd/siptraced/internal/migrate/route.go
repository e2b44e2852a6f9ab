package migrate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
)

const eventRoute = "siptrace:msg"

// readRoutes collects what the sidecar's event route has to do: what the
// proxy's own does, and the AVPs that its other routes set for the module.
func (p *Plan) readRoutes() {
	assignments, after := p.assignments()
	if p.gated() {
		assignments = gate + assignments
	}
	own := ""
	if b, ok := p.eventBlock(); ok && p.core {
		own = assignments + p.body(b) + after + "}\n" + p.called(b, nil)
		if err := compile(own + p.users); err != nil {
			p.stays = err
			own = ""
		}
	}
	switch {
	case own != "":
		p.route = open + own + p.users
	case assignments+after != "" || p.stays != nil:
		// Also where it is empty: that of kamailio.cfg would run otherwise.
		p.route = open + assignments + after + "}\n" + p.users
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

// The AVPs of the script are those of the request that the proxy received, and
// of its transaction. For an INVITE's CANCEL, and its ACK of a failure, the module
// takes those of the INVITE; for the ACK of a stateless reply, which is known by
// the To tag that the module sl made, it has none, and for the proxy's answer to a
// CANCEL it has a table but no users.
const (
	notStateless = `!(is_method("ACK") && $siptrace(direction) == "in" && $tt =~ "^[0-9a-f]{32}[.]")`
	notCanceling = `!(is_reply() && is_method("CANCEL") && $siptrace(direction) == "out")`
	newRequest   = `is_request() && $siptrace(direction) == "in" && !(is_method("ACK") && $tt =~ "^[0-9a-f]{32}[.]")`

	aboutStateless = "\t# A To tag of 32 hexadecimal digits and a dot is one that Kamailio's module sl makes: the module\n\t# siptrace gives the ACK for such a stateless reply neither users nor a table.\n"
	aboutCanceling = "\t# Nor has the proxy's own answer to a CANCEL users.\n"
	aboutKept      = "\t# What kamailio.cfg gives a request as it comes in holds for its transaction.\n"
	aboutRequests  = "\t# sip_trace() takes nothing but the request that comes in, and the proxy's stateless replies to it.\n"
)

// assignments are the statements that set AVPs, where they have the values that they
// have in the proxy: before the event route's own, and after it if the script may end
// among them.
func (p *Plan) assignments() (before, after string) {
	f := flow{p: p, avps: []string{avpName(p.params.TracedUserAVP), avpName(p.params.TraceTableAVP)}}
	f.avps = slices.DeleteFunc(f.avps, func(name string) bool { return name == "" })
	f.calls = p.carriesCalls()
	if len(f.avps) == 0 && !f.calls {
		return "", ""
	}
	f.traces = !p.core && !p.later() && !f.calls
	kept := f.follow()
	p.left, p.missed = f.left, f.missed
	carried := inOrder(f.carried(kept, map[string]bool{}))
	if len(carried) == 0 {
		return "", ""
	}
	flat := f.flat(kept)
	if !slices.ContainsFunc(flat, unstable) {
		before = p.stable(flat)
	} else {
		after = p.perRequest(&f, flat)
	}
	if err := compile(before + after + "}\n" + p.users); err != nil {
		p.problems = append(p.problems, fmt.Sprintf("What sets the AVPs of siptrace, or names its collectors, can't be put together for siptraced's event route: %v. Carry it by hand: from %s on.", err, p.place(carried[0].pos)))
		p.users = ""
		return "", ""
	}
	p.carried = carried
	for _, c := range f.routes {
		p.tables = append(p.tables, values(c.kept, avpName(p.params.TraceTableAVP))...)
	}
	slices.Sort(p.tables)
	p.tables = append(values(kept, avpName(p.params.TraceTableAVP)), p.tables...)
	return before, after
}

// carriesCalls says that the event route has the calls of sip_trace() that name an
// address: there are several, or what names none isn't mirrored.
func (p *Plan) carriesCalls() bool {
	return !p.core && (len(p.dests) > 1 || p.namedOnly() && slices.ContainsFunc(p.calls, func(c call) bool {
		_, named := c.address()
		return c.traces() && !named
	}))
}

// namedOnly says that only those calls bring mirrors: with the database on, a SIP
// duplicate goes to none but the address that a call names.
func (p *Plan) namedOnly() bool { return !p.core && p.sinks.db && p.sinks.sip && !p.sinks.hep }

// stable writes assignments that can be judged for each message by itself.
func (p *Plan) stable(kept []node) string {
	users, table := keep(kept, avpName(p.params.TracedUserAVP)), keep(kept, avpName(p.params.TraceTableAVP))
	var b strings.Builder
	b.WriteString(aboutStateless)
	if len(users) > 0 {
		b.WriteString(aboutCanceling + "\tif (" + notStateless + " && " + notCanceling + ") {\n")
		p.writeKept(&b, users, "\t\t")
		b.WriteString("\t}\n")
	}
	if len(table) > 0 {
		b.WriteString("\tif (" + notStateless + ") {\n")
		p.writeKept(&b, table, "\t\t")
		b.WriteString("\t}\n")
	}
	return b.String()
}

// perRequest writes assignments that the request decides as it comes in.
func (p *Plan) perRequest(f *flow, kept []node) string {
	p.byRequest = true
	var b, routes strings.Builder
	if p.transactional() {
		b.WriteString(aboutKept + aboutStateless + "\tif (" + newRequest + ") {\n\t\tkeep_trace();\n")
	} else {
		b.WriteString(aboutRequests + aboutStateless + "\tif (" + newRequest + ") {\n\t\tkeep_trace(\"replies\");\n")
	}
	p.writeKept(&b, kept, "\t\t")
	b.WriteString("\t}\n")
	called := map[string]bool{}
	f.reached(kept, called)
	for _, name := range slices.Sorted(maps.Keys(called)) {
		routes.WriteString("route[" + avpRoute(name) + "] {\n")
		p.writeKept(&routes, f.body(name), "\t")
		routes.WriteString("}\n")
	}
	p.users = routes.String()
	return b.String()
}

// writeKept writes statements, each with its place.
func (p *Plan) writeKept(b *strings.Builder, list []node, indent string) {
	for _, n := range list {
		fmt.Fprintf(b, "%s# %s, %s\n", indent, p.place(n.at()), n.in)
		write(b, []node{n}, indent)
	}
}

const avpSuffix = "_AVPS"

// avpRoute names the part of route[NAME] that sets AVPs: the event route may call
// the whole of it.
func avpRoute(name string) string { return name + avpSuffix }

// flat puts what a route has in the place of its call, where nothing leaves it.
func (f *flow) flat(list []node) (out []node) {
	for _, n := range list {
		n.then, n.or = f.flat(n.then), f.flat(n.or)
		if name := n.calls(); f.routes[name] != nil {
			body := f.body(name)
			if !slices.ContainsFunc(body, ending) {
				out = append(out, body...)
				continue
			}
			n.tokens = slices.Clone(n.tokens)
			n.tokens[2].Text, n.tokens[2].Kind = avpRoute(name), kamcfg.Word
		}
		out = append(out, n)
	}
	return out
}

// body is what is kept of route[NAME], made flat once.
func (f *flow) body(name string) []node {
	c := f.routes[name]
	if !c.isFlat {
		c.kept, c.isFlat = f.flat(c.kept), true
	}
	return c.kept
}

// reached notes the routes that statements of flat call, and those that they call.
func (f *flow) reached(list []node, seen map[string]bool) {
	for _, n := range list {
		if name, ok := strings.CutSuffix(n.calls(), avpSuffix); ok && !seen[name] {
			seen[name] = true
			f.reached(f.body(name), seen)
		}
		f.reached(slices.Concat(n.then, n.or), seen)
	}
}

// transactional says that more than the request at hand is traced, of which the AVPs
// hold as well.
func (p *Plan) transactional() bool {
	return p.core || p.later() || slices.ContainsFunc(p.calls, func(c call) bool { return c.traces() && c.transaction(p.params.TraceFlag >= 0) })
}

// later says that some call takes a transaction in any case, or stands where replies
// and branches come by.
func (p *Plan) later() bool {
	main := p.mainRoute()
	return slices.ContainsFunc(p.calls, func(c call) bool {
		return c.traces() && (c.transaction(false) || main == nil || c.block != main.Kind+main.Name && !strings.HasPrefix(c.block, "route"))
	})
}

// values are the strings that statements assign to an AVP.
func values(list []node, avp string) (out []string) {
	for _, n := range list {
		if avp != "" && n.target() == "$avp("+avp+")" {
			for _, t := range n.tokens[1:] {
				if t.Kind == kamcfg.String {
					out = append(out, t.Text)
				}
			}
		}
		out = append(out, values(slices.Concat(n.then, n.or), avp)...)
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

// unstable says that the conditions and values do not hold alike for all messages of
// a transaction, so that each can't be judged for itself.
func unstable(n node) bool {
	if name, _ := n.control(); name != "" || n.ends || n.calls() != "" || n.kind != plain && n.kind != condition {
		return true
	}
	for i, t := range n.tokens {
		name := strings.TrimPrefix(t.Text, "$")
		switch t.Kind {
		case kamcfg.Variable:
			if !slices.Contains(stableVars, name) && (n.kind == condition || i > 0) {
				return true
			}
		case kamcfg.String:
			if strings.Contains(t.Text, "$") {
				return true
			}
		case kamcfg.Word:
			call := i+2 < len(n.tokens) && n.tokens[i+1].Kind == '('
			if call && (name != "is_method" || !sameOfCall(n.tokens[i+2].Text)) ||
				slices.Contains([]string{"uri", "src_ip", "src_port", "method", "status", "myself"}, name) {
				return true
			}
		}
	}
	return slices.ContainsFunc(n.then, unstable) || slices.ContainsFunc(n.or, unstable)
}

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
