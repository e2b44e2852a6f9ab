package migrate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
)

// flow cuts the routes of a request down to what decides which AVPs of siptrace it
// gets: their assignments, the conditions around them, what ends the script or a
// route before them, and what sets the variables and flags that these ask for.
//
// It goes backwards through the statements, so that each one knows what may follow
// it. What it learns on the way (which variables are asked for, where a route is
// called) is for the next round, until nothing new comes up.
type flow struct {
	p      *Plan
	avps   []string                 // of the parameters
	calls  bool                     // of sip_trace() that name an address are kept as well
	traces bool                     // sip_trace() ends what the AVPs of a request are taken from
	blocks map[string]*kamcfg.Block // route[NAME]
	within []string                 // the routes at hand, one called by the other

	asked   map[string]bool // variables and flags that what is kept asks for
	unknown map[string]bool // those whose value siptraced can't work out
	live    map[string]bool // routes after which an assignment may follow
	grown   bool            // one of these has more than in the round before

	routes map[string]*cut // route[NAME] in this round
	left   []statement     // assignments of the route at hand that are not kept
	missed []statement     // its conditions that siptraced takes for not met
}

// cut is what is kept of a route.
type cut struct {
	kept         []node
	begin        after
	left, missed []statement
	isFlat       bool // flat has been at it
}

// after is what may follow a statement.
type after struct {
	set  bool // an assignment, before the script ends
	kept bool // a statement that is kept, in the same route
	in   bool // of what follows a break: there is a loop or a switch to leave
}

// mainRoute is the request route; nil where a KEMI script has the routes.
func (p *Plan) mainRoute() *kamcfg.Block {
	for i, b := range p.cfg.Blocks {
		if b.Kind == "request_route" || b.Kind == "route" && (b.Name == "" || b.Name == "0") {
			return &p.cfg.Blocks[i]
		}
	}
	return nil
}

// follow returns what is kept of the request route.
func (f *flow) follow() (kept []node) {
	main := f.p.mainRoute()
	f.blocks = map[string]*kamcfg.Block{}
	for i, b := range f.p.cfg.Blocks {
		if b.Kind == "route" && b.Name != "" {
			f.blocks[b.Name] = &f.p.cfg.Blocks[i]
		}
	}
	f.asked, f.unknown, f.live = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for f.grown = true; f.grown; {
		f.grown = false
		f.routes, f.left, f.missed = map[string]*cut{}, nil, nil
		kept = nil
		if main != nil {
			r := reader{toks: main.Tokens, in: blockName(main)}
			kept, _ = f.list(r.list(), after{}, after{})
		}
	}
	for _, c := range f.routes {
		f.left, f.missed = append(f.left, c.left...), append(f.missed, c.missed...)
	}
	f.elsewhere(main)
	f.left, f.missed = inOrder(f.left), inOrder(f.missed)
	return kept
}

// carried are the assignments within what is kept, and within the routes that it
// calls.
func (f *flow) carried(list []node, seen map[string]bool) (out []statement) {
	for _, n := range list {
		switch name := n.calls(); {
		case f.assigns(n):
			out = append(out, f.statement(n, ""))
		case name != "" && f.routes[name] != nil && !seen[name]:
			seen[name] = true
			out = append(out, f.carried(f.routes[name].kept, seen)...)
		}
		out = append(out, f.carried(slices.Concat(n.then, n.or), seen)...)
	}
	return out
}

// inOrder sorts statements by their places, and takes each once: a route may be
// called from several places.
func inOrder(list []statement) []statement {
	slices.SortStableFunc(list, func(a, b statement) int {
		if c := strings.Compare(a.pos.File, b.pos.File); c != 0 {
			return c
		}
		return a.pos.Line - b.pos.Line
	})
	return slices.CompactFunc(list, func(a, b statement) bool { return a.pos == b.pos && a.text == b.text })
}

func blockName(b *kamcfg.Block) string {
	if b.Name != "" {
		return b.Kind + "[" + b.Name + "]"
	}
	return b.Kind
}

// elsewhere notes assignments in routes that no request passes by itself.
func (f *flow) elsewhere(main *kamcfg.Block) {
	for i := range f.p.cfg.Blocks {
		b := &f.p.cfg.Blocks[i]
		if _, called := f.routes[b.Name]; b == main || b.Name == eventRoute || called && b.Kind == "route" {
			continue
		}
		why := "it is not known which messages come to " + blockName(b)
		if b.Kind == "route" {
			why = "the request route does not call " + blockName(b)
		}
		r := reader{toks: b.Tokens, in: blockName(b)}
		for _, n := range r.list() {
			for _, a := range f.assignments(n) {
				f.left = append(f.left, f.statement(a, why))
			}
		}
	}
}

// assignments are those to AVPs of siptrace.
func (f *flow) assignments(n node) (out []node) {
	if f.assigns(n) {
		out = append(out, n)
	}
	for _, m := range slices.Concat(n.then, n.or) {
		out = append(out, f.assignments(m)...)
	}
	return out
}

// target is what a statement assigns: "$avp(x)", "$var(x)", "flag 5", or nothing.
func (n node) target() string {
	switch {
	case n.kind != plain || len(n.tokens) < 2:
	case n.tokens[0].Kind == kamcfg.Variable && strings.ContainsRune("=:", rune(n.tokens[1].Kind)):
		return variable(n.tokens[0].Text)
	case slices.Contains([]string{"setflag", "resetflag"}, n.tokens[0].Text) && len(n.tokens) > 2:
		return "flag " + n.tokens[2].Text
	}
	return ""
}

var varForm = regexp.MustCompile(`\$\(?(var|avp)\(\s*(?:s:)?([^()\s]+)\s*\)`)

// variable is the name of an AVP or a variable without its index.
func variable(text string) string {
	if m := varForm.FindStringSubmatch(text); m != nil {
		return "$" + m[1] + "(" + m[2] + ")"
	}
	return ""
}

// assigns says that a statement sets an AVP of siptrace, or sends to an address.
func (f *flow) assigns(n node) bool {
	if f.calls && n.address() != "" {
		return true
	}
	name, ok := strings.CutPrefix(n.target(), "$avp(")
	return ok && slices.Contains(f.avps, strings.TrimSuffix(name, ")"))
}

func (f *flow) note(m map[string]bool, name string) {
	if !m[name] {
		m[name], f.grown = true, true
	}
}

// list cuts down statements; next is what follows them, out what follows a break.
func (f *flow) list(list []node, next, out after) (kept []node, _ after) {
	for _, n := range slices.Backward(list) {
		var keep []node
		switch n.kind {
		case plain:
			keep, next = f.plain(n, next, out)
		case condition, loop:
			keep, next = f.choice(n, next, out)
		case choice:
			keep, next = f.cases(n, next)
		}
		kept = append(keep, kept...)
	}
	return kept, next
}

// plain cuts down a plain statement.
func (f *flow) plain(n node, next, out after) ([]node, after) {
	switch name := n.target(); {
	case f.assigns(n):
		if why := f.why(n); why != "" {
			f.left = append(f.left, f.statement(n, why))
			return nil, next
		}
		f.ask(n)
		if n.address() != "" { // what it takes is the proxy's to say
			n.tokens = append(slices.Clone(n.tokens[:3]), kamcfg.Token{Kind: ')', Text: ")", Adjoins: true})
		}
		return []node{n}, after{set: true, kept: true}
	case name != "" && f.asked[name]:
		if f.why(n) != "" {
			f.note(f.unknown, name)
			return nil, next
		}
		f.ask(n)
		next.kept = true
		return []node{n}, next
	}
	switch name, zero := n.control(); {
	case name == "break" && out.in:
		return []node{n}, after{set: out.set, kept: true}
	case name == "exit", name == "drop", name != "" && (zero || len(f.within) == 0):
		if !next.set {
			return nil, after{}
		}
		return []node{n}, after{kept: true}
	case name != "": // return, or a break that nothing is around
		here := after{set: f.live[f.within[len(f.within)-1]], kept: next.kept}
		if !next.kept {
			return nil, here
		}
		return []node{n}, here
	}
	if name := n.calls(); name != "" && f.blocks[name] != nil {
		return f.call(n, name, next)
	}
	f.spoil(n)
	return f.traced(n, next)
}

// call cuts down the route that a statement calls.
func (f *flow) call(n node, name string, next after) ([]node, after) {
	if slices.Contains(f.within, name) {
		f.missed = append(f.missed, f.statement(n, "the routes call each other"))
		return nil, next
	}
	if next.set {
		f.note(f.live, name)
	}
	c := f.routes[name]
	if c == nil {
		c = f.route(name)
		f.routes[name] = c
	}
	if len(c.kept) == 0 {
		return nil, after{set: c.begin.set, kept: next.kept}
	}
	return []node{n}, after{set: c.begin.set, kept: true}
}

// route cuts down route[NAME].
func (f *flow) route(name string) *cut {
	left, missed := f.left, f.missed
	f.left, f.missed = nil, nil
	f.within = append(f.within, name)
	b := f.blocks[name]
	r := reader{toks: b.Tokens, in: blockName(b)}
	end := after{set: f.live[name]}
	c := &cut{}
	c.kept, c.begin = f.list(r.list(), end, end)
	c.left, c.missed = f.left, f.missed
	f.within = f.within[:len(f.within)-1]
	f.left, f.missed = left, missed
	return c
}

// spoil notes the variables that a function gets, which may change them.
func (f *flow) spoil(n node) {
	if len(n.tokens) == 0 || slices.Contains(printing, n.tokens[0].Text) {
		return
	}
	for name := range n.wants() {
		if f.asked[name] && !strings.HasPrefix(name, "flag ") {
			f.note(f.unknown, name)
		}
	}
}

// printing are functions that change no variable.
var printing = []string{"xlog", "xlogl", "xdbg", "xinfo", "xnotice", "xwarn", "xerr", "xcrit", "log", "hlog", "sip_trace"}

// traced is a call of sip_trace() for the message alone: the row of a request has the
// AVPs of that moment. What follows sets them too late.
func (f *flow) traced(n node, next after) ([]node, after) {
	if !f.traces || !next.set || len(n.tokens) == 0 || n.tokens[0].Text != "sip_trace" {
		return []node(nil), next
	}
	n.ends = true
	if flag := f.p.params.TraceFlag; flag >= 0 && len(f.p.callAt(n.tokens[0].Pos).args) < 3 {
		n.flag = fmt.Sprint(flag)
		f.note(f.asked, "flag "+n.flag)
		return []node{n}, after{set: next.set, kept: true}
	}
	return []node{n}, after{kept: true}
}

// choice cuts down if and while.
func (f *flow) choice(n node, next, out after) ([]node, after) {
	if n.kind == loop {
		out = after{set: next.set, kept: next.kept, in: true}
		next.kept = true
		next.set = next.set || len(f.assignments(n)) > 0
	}
	left, missed := len(f.left), len(f.missed)
	var a, b after
	n.then, a = f.list(n.then, next, out)
	n.or, b = f.list(n.or, next, out)
	if len(n.then)+len(n.or) == 0 {
		return nil, after{set: a.set || b.set, kept: next.kept}
	}
	if why := f.why(n); why != "" {
		f.given(n, why, left, missed)
		return nil, next
	}
	f.ask(n)
	return []node{n}, after{set: a.set || b.set, kept: true}
}

// given gives up a statement whose condition can't be worked out: what is set
// within it is left; where it only ends something, it is taken for not met.
func (f *flow) given(n node, why string, left, missed int) {
	s := f.statement(n, why)
	body := slices.Concat(n.then, n.or)
	within := len(f.left) > left || len(f.carried(body, map[string]bool{})) > 0
	f.left, f.missed = f.left[:left], f.missed[:missed]
	switch {
	case within:
		f.left = append(f.left, s)
	case slices.ContainsFunc(body, ending):
		f.missed = append(f.missed, s)
	}
	for name := range f.asked {
		if slices.ContainsFunc(body, func(m node) bool { return m.sets(name) }) {
			f.note(f.unknown, name)
		}
	}
	f.spoil(node{tokens: n.tokens})
}

// sets says that a variable may be assigned within a statement.
func (n node) sets(name string) bool {
	return n.target() == name || slices.ContainsFunc(slices.Concat(n.then, n.or), func(m node) bool { return m.sets(name) })
}

// ending says that a statement may end the script or a route.
func ending(n node) bool {
	name, _ := n.control()
	return name != "" || n.ends || n.calls() != "" || slices.ContainsFunc(slices.Concat(n.then, n.or), ending)
}

// cases cuts down a switch: each case goes on with the next one.
func (f *flow) cases(n node, next after) ([]node, after) {
	left, missed := len(f.left), len(f.missed)
	begin, through, more := next, next, false
	out := after{set: next.set, kept: next.kept, in: true}
	labels := slices.Clone(n.then)
	for i, label := range slices.Backward(labels) {
		labels[i].then, through = f.list(label.then, through, out)
		begin.set = begin.set || through.set
		more = more || slices.ContainsFunc(labels[i].then, func(m node) bool { name, _ := m.control(); return name != "break" })
	}
	n.then = labels
	if !more {
		return nil, after{set: begin.set, kept: next.kept}
	}
	if why := f.why(n); why != "" {
		f.given(n, why, left, missed)
		return nil, next
	}
	f.ask(n)
	return []node{n}, after{set: begin.set, kept: true}
}

// names are the variables and flags that tokens ask for, also within strings.
func names(toks []kamcfg.Token) map[string]bool {
	out := map[string]bool{}
	for i, t := range toks {
		switch {
		case t.Kind == kamcfg.Word && t.Text == "isflagset" && i+2 < len(toks):
			out["flag "+toks[i+2].Text] = true
		case t.Kind == kamcfg.Variable, t.Kind == kamcfg.String:
			for _, m := range varForm.FindAllString(t.Text, -1) {
				out[variable(m)] = true
			}
		}
	}
	return out
}

// wants are the names that a statement asks for, without what it sets.
func (n node) wants() map[string]bool {
	if n.target() != "" {
		return names(n.tokens[1:])
	}
	return names(n.tokens)
}

func (f *flow) ask(n node) {
	for name := range n.wants() {
		f.note(f.asked, name)
	}
}

// why says why siptraced can't work out the condition or the value of a statement;
// empty: it can.
func (f *flow) why(n node) string {
	for i, t := range n.tokens {
		switch {
		case t.Kind == kamcfg.Variable && slices.Contains([]string{"$rc", "$retcode", "$?"}, t.Text):
			return "what a function returned is known in the proxy only"
		case t.Kind == kamcfg.Word && t.Text == "route" && i+1 < len(n.tokens) && n.tokens[i+1].Kind == '(':
			return "what a route returns is known in the proxy only"
		}
	}
	for name := range n.wants() {
		if f.unknown[name] {
			return "the value of " + name + " is known in the proxy only"
		}
		if !strings.HasPrefix(name, "flag ") && !f.p.assigned(name) {
			return "no route assigns " + name
		}
	}
	if err := compile(f.alone(n) + "}\n"); err != nil {
		return err.Error()
	}
	return ""
}

// alone is a statement for the compiler, of a condition that alone.
func (f *flow) alone(n node) string {
	switch n.kind {
	case plain:
		return line(n.tokens) + ";\n"
	case choice:
		return "switch " + parenthesized(n.tokens) + " { default: break; }\n"
	}
	return "if " + parenthesized(n.tokens) + " { exit; }\n"
}

// assigned says that some route assigns a variable.
func (p *Plan) assigned(name string) bool {
	return slices.ContainsFunc(p.cfg.Blocks, func(b kamcfg.Block) bool {
		for i, t := range b.Tokens {
			if t.Kind == kamcfg.Variable && i+1 < len(b.Tokens) && strings.ContainsRune("=:", rune(b.Tokens[i+1].Kind)) && variable(t.Text) == name {
				return true
			}
		}
		return false
	})
}

// statement describes a statement for the notes.
func (f *flow) statement(n node, why string) statement {
	var text strings.Builder
	write(&text, []node{n}, "")
	return statement{text: text.String(), route: n.in, pos: n.at(), why: why, calls: slices.ContainsFunc(f.assignments(n), func(a node) bool { return a.address() != "" })}
}
