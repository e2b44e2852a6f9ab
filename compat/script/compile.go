package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"siptraced/compat/kamcfg"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// Options say what a route may lean on. The zero value works.
type Options struct {
	// Routes are the bodies of route[NAME], for route(NAME).
	Routes []kamcfg.Route
	// Defines are those of the configuration, for $def(NAME).
	Defines map[string]string
	// Settings are the configuration's own variables, "group.name", for
	// $sel(cfg_get.group.name).
	Settings map[string]kamcfg.Value
	// Debug is the core's debug parameter: xlog() lines of a higher level are not
	// made. 0 is L_WARN, Kamailio's default.
	Debug int
	// MaxLoops is max_while_loops, the rounds of one while. 0: 100, Kamailio's default.
	MaxLoops int
	// Location is the time zone of $time(x) and $Tf. nil: time.Local.
	Location *time.Location
}

// Program is a compiled route. It does not change: any number of goroutines may
// run it, each with its own Message.
type Program struct {
	root     block
	tree     []*stmt
	routes   []*routine // those that are called, in order of appearance
	name     string
	avps     map[string]int
	avpCount int
	varCount int
	headers  []string  // canonical names of those asked for
	letters  [256]bool // that their names begin with, in any form
	location *time.Location
}

// routine is one route[NAME].
type routine struct {
	name string
	src  kamcfg.Route
	tree []*stmt
	body block
}

type compiler struct {
	opt     Options
	nodes   int
	texts   int // $_s(...) that are being read, one within the other
	avps    map[string]int
	vars    map[string]int
	headers []string
	routes  map[string]*routine
	called  []*routine

	here      kamcfg.Pos // of the statement at hand
	routeName string
}

// Compile compiles the body of event_route[siptrace:msg]. Every error is a
// *kamcfg.Error: what stands where that can't be run, and the remedy.
func Compile(r kamcfg.Route, opt Options) (*Program, error) {
	c := newCompiler(opt, r.Name)
	p := &Program{name: r.Name}
	var err error
	if p.tree, err = c.parse(r); err != nil {
		return nil, err
	}
	if p.root, err = c.block(p.tree); err != nil {
		return nil, err
	}
	for i := 0; i < len(c.called); i++ { // grows while routes call routes
		rt := c.called[i]
		c.routeName = rt.name
		if rt.tree, err = c.parse(rt.src); err != nil {
			return nil, err
		}
		if rt.body, err = c.block(rt.tree); err != nil {
			return nil, err
		}
	}
	c.finish(p)
	return p, nil
}

func newCompiler(opt Options, name string) *compiler {
	if opt.MaxLoops <= 0 {
		opt.MaxLoops = 100
	}
	if opt.Location == nil {
		opt.Location = time.Local
	}
	return &compiler{opt: opt, avps: map[string]int{}, vars: map[string]int{}, routes: map[string]*routine{}, routeName: name}
}

// finish gives p what its runs need.
func (c *compiler) finish(p *Program) {
	p.routes, p.avps, p.avpCount, p.varCount, p.headers = c.called, c.avps, len(c.avps), len(c.vars), c.headers
	p.location = c.opt.Location
	for c := range p.letters {
		long := sipmsg.CanonicalName(string([]byte{byte(c)}))
		p.letters[c] = slices.ContainsFunc(p.headers, func(name string) bool {
			return fold(name[0]) == fold(byte(c)) || strings.EqualFold(name, long)
		})
	}
}

// Format is a text in which pseudo-variables are put in, as in xlog(). It does not
// change: any number of goroutines may use it.
type Format struct {
	prog Program // of what its pseudo-variables need
	text func(*Message) ([]byte, bool)
}

// CompileFormat compiles a text such as "$ci-abc"; $$ is a dollar sign.
func CompileFormat(text string) (*Format, error) {
	c := newCompiler(Options{}, "")
	parts, why := c.parts(text)
	if why != nil {
		return nil, fmt.Errorf("%s; %s", why.msg, why.hint)
	}
	f := &Format{text: formatted(parts)}
	c.finish(&f.prog)
	return f, nil
}

// Text returns the text for one message; a pseudo-variable without a value is
// "<null>" in it. ok is false where the text is one pseudo-variable, and that has
// no value, or where it grew over its bound. It lives until m is used again.
func (f *Format) Text(m *Message, sip *sipmsg.Message, rec *siptrace.Record) (text []byte, ok bool) {
	m.reset(&f.prog, sip, rec)
	text, ok = f.text(m)
	return text, ok && !m.bad
}

// AVP finds the slot of an AVP for [Message.Values]. name is as a parameter has
// it: "$avp(s:user)", "$avp(i:12)", "user", and the integer id of OpenSER's
// traced_user_avp, "6843". -1: the route never touches it.
func (p *Program) AVP(name string) int {
	if in, ok := strings.CutPrefix(name, "$avp("); ok {
		name = strings.TrimSuffix(in, ")")
	} else if _, err := strconv.Atoi(name); err == nil {
		name = "i:" + name
	} else {
		name = strings.TrimPrefix(name, "$")
	}
	if name, why := avpName(name); why == nil {
		if slot, ok := p.avps[name]; ok {
			return slot
		}
	}
	return -1
}

// avpName is "s:name" or "i:number"; a bare name, also one of digits, is a string.
func avpName(s string) (string, *problem) {
	s = strings.TrimSpace(s)
	if strings.IndexByte(s, '$') >= 0 {
		return "", refuse("write the name itself, such as $avp(s:user)", "$avp(%s) has a name that changes", s)
	}
	if id, ok := strings.CutPrefix(s, "i:"); ok {
		n, err := strconv.ParseUint(id, 0, 16)
		if err != nil {
			return "", refuse("write $avp(i:12), or $avp(s:name)", "$avp(%s): the id is not a number up to 65535", s)
		}
		return "i:" + strconv.FormatUint(n, 10), nil
	}
	name := strings.TrimPrefix(s, "s:")
	if name == "" || strings.ContainsAny(name, " \t\"'()[]{}:") {
		return "", refuse("write $avp(name), $avp(s:name) or $avp(i:12)", "the name in $avp(%s) is malformed", s)
	}
	return "s:" + name, nil
}

func (c *compiler) avpSlot(inner string) (int, *problem) {
	name, why := avpName(inner)
	if why != nil {
		return 0, why
	}
	slot, ok := c.avps[name]
	if !ok {
		slot = len(c.avps)
		c.avps[name] = slot
	}
	return slot, nil
}

func (c *compiler) header(name string) int {
	name = sipmsg.CanonicalName(name)
	if i := slices.IndexFunc(c.headers, func(n string) bool { return strings.EqualFold(n, name) }); i >= 0 {
		return i
	}
	c.headers = append(c.headers, name)
	return len(c.headers) - 1
}

// signal is what a statement says to the block around it.
type signal uint8

const (
	goOn     signal = iota
	leave           // break
	goBack          // return
	endOfRun        // exit, drop, return 0
)

type action func(*Message) signal

// block is a sequence of statements.
type block []action

func (b block) run(m *Message) signal {
	for _, f := range b {
		if m.steps--; m.steps < 0 {
			m.fault(FaultSteps)
			m.ended = true
			return endOfRun
		}
		if s := f(m); s != goOn {
			return s
		}
	}
	return goOn
}

// take reads the flag of a failed expression and lowers it.
func (m *Message) take() bool {
	bad := m.bad
	m.bad = false
	return bad
}

func fail(at kamcfg.Pos, why *problem) *kamcfg.Error {
	return &kamcfg.Error{Pos: at, Msg: why.msg, Hint: why.hint}
}

func (c *compiler) block(list []*stmt) (block, error) {
	b := make(block, 0, len(list))
	for _, s := range list {
		f, err := c.stmt(s)
		if err != nil {
			return nil, err
		}
		b = append(b, f)
	}
	return b, nil
}

func (c *compiler) stmt(s *stmt) (action, error) {
	c.here = s.pos
	switch s.kind {
	case sIf:
		return c.ifStmt(s)
	case sWhile:
		return c.whileStmt(s)
	case sSwitch:
		return c.switchStmt(s)
	case sAssign:
		return c.assignStmt(s)
	case sCall:
		f, err := c.call(s.expr.(*call))
		if err != nil {
			return nil, err
		}
		return func(m *Message) signal {
			m.rc = f(m)
			m.bad = false
			if m.tracing {
				m.note(s, "= "+strconv.Itoa(int(m.rc)))
			}
			if m.ended {
				return endOfRun
			}
			return goOn
		}, nil
	case sReturn:
		return c.returnStmt(s)
	case sExit, sDrop:
		drop := s.kind == sDrop
		return func(m *Message) signal {
			if m.tracing {
				m.note(s, "")
			}
			m.ended = true
			m.dropped = drop
			return endOfRun
		}, nil
	default:
		return func(m *Message) signal {
			if m.tracing {
				m.note(s, "")
			}
			return leave
		}, nil
	}
}

func (c *compiler) ifStmt(s *stmt) (action, error) {
	cond, err := c.cond(s.expr)
	if err != nil {
		return nil, err
	}
	body, err := c.block(s.body)
	if err != nil {
		return nil, err
	}
	other, err := c.block(s.other)
	if err != nil {
		return nil, err
	}
	return func(m *Message) signal {
		ok := cond(m)
		if m.take() {
			ok = false
		}
		if m.tracing {
			m.note(s, strconv.FormatBool(ok))
		}
		if m.ended {
			return endOfRun
		}
		run := body
		if !ok {
			run = other
		}
		if len(run) == 0 {
			m.rc = 1
		}
		return run.run(m)
	}, nil
}

// whileStmt: any number but 0 is true here, while if wants more than 0 (measured).
func (c *compiler) whileStmt(s *stmt) (action, error) {
	cond, err := c.num(s.expr)
	if err != nil {
		return nil, err
	}
	body, err := c.block(s.body)
	if err != nil {
		return nil, err
	}
	limit := c.opt.MaxLoops
	return func(m *Message) signal {
		for n := 0; ; n++ {
			ok := cond(m) != 0
			if m.take() {
				ok = false
			}
			if m.tracing {
				m.note(s, strconv.FormatBool(ok))
			}
			switch {
			case m.ended:
				return endOfRun
			case !ok:
				return goOn
			case n == limit:
				m.fault(FaultLoop)
				m.rc = -1
				return goOn
			}
			if m.steps--; m.steps < 0 {
				m.fault(FaultSteps)
				m.ended = true
				return endOfRun
			}
			switch sig := body.run(m); sig {
			case goOn:
			case leave:
				return goOn
			default:
				return sig
			}
		}
	}, nil
}

func (c *compiler) switchStmt(s *stmt) (action, error) {
	get, err := c.val(s.expr)
	if err != nil {
		return nil, err
	}
	tests := make([]func(*Message, value) bool, len(s.cases))
	bodies := make([]block, len(s.cases))
	fallback := len(s.cases)
	var first kind
	for i, label := range s.cases {
		switch lit := label.value; {
		case lit == nil:
			if fallback < len(s.cases) {
				return nil, fail(label.pos, refuse("take one away", "the switch has two defaults"))
			}
			fallback = i
		case first != isNull && first != lit.v.kind:
			return nil, fail(label.pos, refuse("write all of them in quotes, or none", "numbers and strings are mixed in the cases of a switch"))
		case label.isRegex:
			match, err := compileRegex(string(lit.v.s), exactCase)
			if err != nil {
				return nil, fail(label.pos, refuse("", "regular expression: %v", err))
			}
			tests[i] = func(m *Message, v value) bool { return match(m, m.text(v)) }
			first = isStr
		case lit.v.kind == isInt:
			n := lit.v.n
			tests[i] = func(m *Message, v value) bool {
				if v.kind == isStr {
					x, ok := number(v.s)
					return ok && x == n
				}
				return v.n == n
			}
			first = isInt
		default:
			want := string(lit.v.s)
			tests[i] = func(m *Message, v value) bool { return string(m.text(v)) == want }
			first = isStr
		}
		if bodies[i], err = c.block(label.body); err != nil {
			return nil, err
		}
	}
	return func(m *Message) signal {
		v := get(m)
		if m.ended {
			return endOfRun
		}
		at := fallback
		if m.take() {
			at = len(bodies)
		} else {
			for i, test := range tests {
				if test != nil && test(m, v) {
					at = i
					break
				}
			}
		}
		if m.tracing {
			m.note(s, "is "+m.show(v))
		}
		for ; at < len(bodies); at++ { // falls through until break
			switch sig := bodies[at].run(m); sig {
			case goOn:
			case leave:
				return goOn
			default:
				return sig
			}
		}
		return goOn
	}, nil
}

func (c *compiler) assignStmt(s *stmt) (action, error) {
	set, why := s.left.setter()
	if why != nil {
		return nil, fail(s.pos, why)
	}
	get, err := c.val(s.expr)
	if err != nil {
		return nil, err
	}
	return func(m *Message) signal {
		v := get(m)
		if m.ended {
			return endOfRun
		}
		if m.take() {
			if m.tracing {
				m.note(s, "failed")
			}
			m.rc = -1
			return goOn
		}
		m.rc = 1
		if m.tracing {
			m.note(s, "= "+m.show(v))
		}
		set(m, v)
		return goOn
	}, nil
}

func (c *compiler) returnStmt(s *stmt) (action, error) {
	if s.expr == nil {
		return func(m *Message) signal {
			if m.tracing {
				m.note(s, "")
			}
			m.rc = 1
			return goBack
		}, nil
	}
	if typeOf(s.expr) == isStr {
		return nil, fail(s.pos, refuse("return a number", "a string is returned"))
	}
	get, err := c.val(s.expr)
	if err != nil {
		return nil, err
	}
	return func(m *Message) signal {
		n := get(m).int()
		if m.take() {
			n = -1
		}
		if m.tracing {
			m.note(s, "= "+strconv.Itoa(int(n)))
		}
		if m.ended {
			return endOfRun
		}
		if m.rc = n; n == 0 { // ends the script, as exit does
			m.ended = true
			return endOfRun
		}
		return goBack
	}, nil
}

// route finds route[NAME] and has it compiled once.
func (c *compiler) route(at kamcfg.Pos, name string) (*routine, error) {
	if rt, ok := c.routes[name]; ok {
		return rt, nil
	}
	var names []string
	for _, src := range c.opt.Routes {
		if src.Name == name {
			rt := &routine{name: name, src: src}
			c.routes[name] = rt
			c.called = append(c.called, rt)
			return rt, nil
		}
		names = append(names, src.Name)
	}
	return nil, fail(at, refuse(nearest(name, names, "write route["+name+"] { ... } beside the event route"), "route[%s] is not there", name))
}

var statementWords = []string{"if", "else", "while", "switch", "return", "exit", "drop", "break", "case", "default"}

func (c *compiler) suggest(name string, known []string) string {
	return nearest(name, known, "statements are if, while, switch, assignments to $avp(x) and $var(x), functions, return, exit and drop")
}

// nearest is the hint for a name that is not known.
func nearest(name string, known []string, otherwise string) string {
	slices.Sort(known)
	if n := kamcfg.Nearest(name, known); n != "" {
		return "did you mean " + n + "?"
	}
	return otherwise
}

func keys[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}
