package script

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// function is a function of the script: 1 for true, -1 for false.
type function func(*Message) int32

func truth(ok bool) int32 {
	if ok {
		return 1
	}
	return -1
}

// builtin makes a function from its arguments.
type builtin struct {
	min, max int
	usage    string
	make     func(c *compiler, e *call) (function, error)
}

func builtins() map[string]builtin {
	return map[string]builtin{
		"is_method":        {1, 1, `is_method("INVITE|BYE")`, isMethod},
		"is_request":       {0, 0, "is_request()", test(func(m *Message) bool { return m.SIP.IsRequest })},
		"is_reply":         {0, 0, "is_reply()", test(func(m *Message) bool { return !m.SIP.IsRequest })},
		"has_totag":        {0, 0, "has_totag()", test(func(m *Message) bool { return len(m.SIP.To.Tag) > 0 })},
		"search":           {1, 1, `search("regex")`, search(func(m *Message) []byte { return m.SIP.Raw })},
		"search_body":      {1, 1, `search_body("regex")`, search(func(m *Message) []byte { return m.SIP.Body })},
		"is_present_hf":    {1, 1, `is_present_hf("Name")`, isPresent},
		"is_present_hf_re": {1, 1, `is_present_hf_re("regex")`, isPresentRegex},
		"has_body":         {0, 1, `has_body("application/sdp")`, hasBody},
		"setflag":          {1, 1, "setflag(5)", flag(func(m *Message, bit uint32) int32 { m.flags |= bit; return 1 })},
		"resetflag":        {1, 1, "resetflag(5)", flag(func(m *Message, bit uint32) int32 { m.flags &^= bit; return 1 })},
		"isflagset":        {1, 1, "isflagset(5)", flag(func(m *Message, bit uint32) int32 { return truth(m.flags&bit != 0) })},
		"route":            {1, 1, "route(NAME)", routeCall},
		"pv_isset":         {1, 1, `pv_isset("$rU")`, pvIsSet},
		"pv_printf":        {2, 2, `pv_printf("$avp(s:user)", "$fU@$fd")`, pvPrintf},
		"avp_printf":       {2, 2, `avp_printf("$avp(s:user)", "$fU@$fd")`, pvPrintf},
		"pv_unset":         {1, 1, `pv_unset("$avp(s:user)")`, pvUnset},
		"cmp_str":          {2, 2, `cmp_str("$rU", "text")`, compareText(func(a, b []byte) bool { return bytes.Equal(a, b) })},
		"cmp_istr":         {2, 2, `cmp_istr("$rU", "text")`, compareText(bytes.EqualFold)},
		"starts_with":      {2, 2, `starts_with("$rU", "text")`, compareText(bytes.HasPrefix)},
		"str_find":         {2, 2, `str_find("$rU", "text")`, compareText(bytes.Contains)},
		"is_in_subnet":     {2, 2, `is_in_subnet("$si", "10.0.0.0/8")`, inSubnet},
		"xlog":             {1, 3, `xlog("L_INFO", "text")`, xlog},
		"xlogl":            {1, 3, `xlogl("L_INFO", "text")`, xlog},
		"xdbg":             {1, 1, `xdbg("text")`, leveled(levelDebug)},
		"xinfo":            {1, 1, `xinfo("text")`, leveled(levelInfo)},
		"xnotice":          {1, 1, `xnotice("text")`, leveled(levelNotice)},
		"xwarn":            {1, 1, `xwarn("text")`, leveled(levelWarn)},
		"xerr":             {1, 1, `xerr("text")`, leveled(levelError)},
		"xcrit":            {1, 1, `xcrit("text")`, leveled(levelCritical)},
		"xalert":           {1, 1, `xalert("text")`, leveled(levelAlert)},
		"xbug":             {1, 1, `xbug("text")`, leveled(levelBug)},
		"log":              {1, 2, `log("text")`, plainLog},
		"sip_trace":        {0, 3, `sip_trace("sip:192.0.2.1:9060", "$ci", "t")`, sipTrace},
		"sip_trace_mode":   {1, 1, `sip_trace_mode("t")`, sipTraceMode},
		"sip_trace_msg":    {5, 5, `sip_trace_msg("text", "udp:192.0.2.1:5060", "udp:192.0.2.2:5060", "sip:192.0.2.3:9060", "id")`, sipTraceMsg},
		"keep_trace":       {0, 1, `keep_trace() or keep_trace("replies")`, keepTrace},
		"hlog":             {1, 2, `hlog("$ci", "text")`, hlog},
	}
}

func functionNames() []string {
	return append(keys(builtins()), "strlen", "strempty", "defined")
}

// proxyFunctions begin the names of functions that change, answer or route.
var proxyFunctions = []struct{ prefix, why string }{
	{"t_", "transactions live in the proxy"},
	{"dlg_", "dialogs live in the proxy"},
	{"is_known_dlg", "dialogs live in the proxy"},
	{"sl_", "the proxy answers"},
	{"send_reply", "the proxy answers"},
	{"append_", "messages are traced as they came"},
	{"remove_", "messages are traced as they came"},
	{"insert_", "messages are traced as they came"},
	{"subst", "messages are traced as they came"},
	{"replace", "messages are traced as they came"},
	{"set_body", "messages are traced as they came"},
	{"msg_apply_changes", "messages are traced as they came"},
	{"fix_nated_", "messages are traced as they came"},
	{"forward", "the proxy forwards"},
	{"send", "the proxy forwards"},
	{"force_", "the proxy forwards"},
	{"record_route", "the proxy forwards"},
	{"loose_route", "the proxy forwards"},
	{"lookup", "locations live in the proxy"},
	{"save", "locations live in the proxy"},
	{"sht_", "hash tables live in the proxy"},
	{"sql_", "databases are not asked here"},
	{"avp_db_", "databases are not asked here"},
	{"ds_", "the proxy forwards"},
	{"acc_", "the proxy accounts"},
	{"http_", "nothing is fetched here"},
	{"ksr_", "KEMI is not run here"},
	{"lua_", "KEMI is not run here"},
	{"python_", "KEMI is not run here"},
	{"python3_", "KEMI is not run here"},
	{"is_myself", `compare the host, as in $rd == "sip.example.com"`},
}

// call compiles a function call.
func (c *compiler) call(e *call) (function, error) {
	b, ok := builtins()[e.name]
	if !ok {
		for _, p := range proxyFunctions {
			if strings.HasPrefix(e.name, p.prefix) {
				return nil, fail(e.pos, refuse(p.why, "%s() can't be run outside the proxy", e.name))
			}
		}
		return nil, fail(e.pos, refuse(nearest(e.name, functionNames(), "known are the functions of siptrace and xlog, and tests of the message"), "%s() is not known here", e.name))
	}
	if len(e.args) < b.min || len(e.args) > b.max {
		return nil, fail(e.pos, refuse("write "+b.usage, "%s() has %d arguments", e.name, len(e.args)))
	}
	return b.make(c, e)
}

// constant is an argument that must be a string in the text.
func constant(e *call, i int) (string, error) {
	lit, ok := e.args[i].(*literal)
	if !ok || lit.v.kind != isStr {
		return "", fail(e.pos, refuse("write "+builtins()[e.name].usage, "argument %d of %s() is not a string constant", i+1, e.name))
	}
	return string(lit.v.s), nil
}

func test(f func(*Message) bool) func(*compiler, *call) (function, error) {
	return func(*compiler, *call) (function, error) {
		return func(m *Message) int32 { return truth(f(m)) }, nil
	}
}

// isMethod: names separated by | or a comma, letter case aside; of a reply the
// method of CSeq counts.
func isMethod(_ *compiler, e *call) (function, error) {
	s, err := constant(e, 0)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range strings.FieldsFunc(s, func(r rune) bool { return r == '|' || r == ',' }) {
		n = strings.TrimSpace(n)
		if n == "" || strings.Trim(n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~") != "" {
			return nil, fail(e.pos, refuse("write is_method(\"INVITE|BYE\"); variables are not taken, use $rm == ...", "%q is no method", n))
		}
		names = append(names, strings.ToLower(n))
	}
	if len(names) == 0 {
		return nil, fail(e.pos, refuse(`write is_method("INVITE|BYE")`, "is_method() names no method"))
	}
	if len(names) == 1 {
		name := names[0]
		return func(m *Message) int32 { return truth(equalFold(m.SIP.MethodName(), name)) }, nil
	}
	return func(m *Message) int32 {
		method := m.SIP.MethodName()
		for _, n := range names {
			if equalFold(method, n) {
				return 1
			}
		}
		return -1
	}, nil
}

func search(in func(*Message) []byte) func(*compiler, *call) (function, error) {
	return func(_ *compiler, e *call) (function, error) {
		s, err := constant(e, 0)
		if err != nil {
			return nil, err
		}
		match, err := compileRegex(s, byLines)
		if err != nil {
			return nil, fail(e.pos, refuse("", "regular expression %q: %v", s, err))
		}
		return func(m *Message) int32 { return truth(match(m, in(m))) }, nil
	}
}

func headerConstant(e *call) (string, error) {
	s, err := constant(e, 0)
	if err != nil {
		return "", err
	}
	if s == "" || strings.ContainsAny(s, "$: \t\r\n") {
		return "", fail(e.pos, refuse("write "+builtins()[e.name].usage, "%q is no name of a header", s))
	}
	return s, nil
}

func isPresent(c *compiler, e *call) (function, error) {
	s, err := headerConstant(e)
	if err != nil {
		return nil, err
	}
	slot := c.header(s)
	return func(m *Message) int32 { return truth(m.header(slot) != nil) }, nil
}

func isPresentRegex(_ *compiler, e *call) (function, error) {
	s, err := constant(e, 0)
	if err != nil {
		return nil, err
	}
	match, err := compileRegex(s, anyCase)
	if err != nil {
		return nil, fail(e.pos, refuse("", "regular expression %q: %v", s, err))
	}
	return func(m *Message) int32 {
		for h := range m.SIP.Headers() {
			m.steps--
			if match(m, h.Name) {
				return 1
			}
		}
		return -1
	}, nil
}

func hasBody(_ *compiler, e *call) (function, error) {
	if len(e.args) == 0 {
		return func(m *Message) int32 { return truth(len(m.SIP.Body) > 0) }, nil
	}
	s, err := constant(e, 0)
	if err != nil {
		return nil, err
	}
	want := strings.ToLower(strings.TrimSpace(s))
	if strings.Count(want, "/") != 1 {
		return nil, fail(e.pos, refuse(`write has_body("application/sdp")`, "%q is no type of a body", s))
	}
	return func(m *Message) int32 {
		t := m.SIP.ContentType
		if i := bytes.IndexByte(t, ';'); i >= 0 {
			t = t[:i]
		}
		return truth(len(m.SIP.Body) > 0 && equalFold(bytes.TrimSpace(t), want))
	}, nil
}

func flag(f func(*Message, uint32) int32) func(*compiler, *call) (function, error) {
	return func(_ *compiler, e *call) (function, error) {
		lit, ok := e.args[0].(*literal)
		if !ok || lit.v.kind != isInt || lit.v.n < 0 || lit.v.n > 31 {
			return nil, fail(e.pos, refuse("write "+builtins()[e.name].usage, "the flag of %s() is not a number from 0 to 31", e.name))
		}
		bit := uint32(1) << lit.v.n
		return func(m *Message) int32 { return f(m, bit) }, nil
	}
}

func routeCall(c *compiler, e *call) (function, error) {
	lit, ok := e.args[0].(*literal)
	if !ok {
		return nil, fail(e.pos, refuse("write the name: route(NAME)", "route() with a name that changes"))
	}
	rt, err := c.route(e.pos, string(lit.v.s))
	if err != nil {
		return nil, err
	}
	return func(m *Message) int32 {
		if m.depth == maxDepth {
			m.fault(FaultDepth)
			return -1
		}
		m.depth++
		m.rc = 1
		if rt.body.run(m) == leave {
			m.rc = 0
		}
		m.depth--
		return m.rc
	}, nil
}

// named is an argument that is a pseudo-variable, in quotes or without.
func (c *compiler) named(e *call) (*pvar, error) {
	if pv, ok := e.args[0].(*pvar); ok {
		return pv, nil
	}
	s, err := constant(e, 0)
	if err != nil {
		return nil, err
	}
	if n := pvLen(s); !strings.HasPrefix(s, "$") || n != len(s) {
		return nil, fail(e.pos, refuse("write "+builtins()[e.name].usage, "%q is no pseudo-variable", s))
	}
	pv, why := c.pvar(s)
	if why != nil {
		return nil, fail(e.pos, why)
	}
	return pv, nil
}

// pvPrintf assigns a text with pseudo-variables put in.
func pvPrintf(c *compiler, e *call) (function, error) {
	set, err := c.setter(e)
	if err != nil {
		return nil, err
	}
	text, err := c.format(e, 1)
	if err != nil {
		return nil, err
	}
	return func(m *Message) int32 {
		b, ok := text(m)
		switch {
		case m.bad:
			return -1
		case !ok:
			b = nullText
		}
		set(m, str(b))
		return 1
	}, nil
}

func pvUnset(c *compiler, e *call) (function, error) {
	set, err := c.setter(e)
	if err != nil {
		return nil, err
	}
	return func(m *Message) int32 {
		set(m, value{})
		return 1
	}, nil
}

func (c *compiler) setter(e *call) (func(*Message, value), error) {
	pv, err := c.named(e)
	if err != nil {
		return nil, err
	}
	set, why := pv.setter()
	if why != nil {
		return nil, fail(e.pos, why)
	}
	return set, nil
}

func pvIsSet(c *compiler, e *call) (function, error) {
	pv, err := c.named(e)
	if err != nil {
		return nil, err
	}
	get := pv.get
	return func(m *Message) int32 { return truth(get(m).kind != isNull) }, nil
}

func compareText(f func(a, b []byte) bool) func(*compiler, *call) (function, error) {
	return func(c *compiler, e *call) (function, error) {
		a, err := c.format(e, 0)
		if err != nil {
			return nil, err
		}
		b, err := c.format(e, 1)
		if err != nil {
			return nil, err
		}
		return func(m *Message) int32 {
			x, ok1 := a(m)
			y, ok2 := b(m)
			return truth(ok1 && ok2 && f(x, y))
		}, nil
	}
}

// inSubnet: networks are a list with commas in the text.
func inSubnet(c *compiler, e *call) (function, error) {
	addr, err := c.format(e, 0)
	if err != nil {
		return nil, err
	}
	s, err := constant(e, 1)
	if err != nil {
		return nil, err
	}
	var nets []netip.Prefix
	for _, n := range strings.Split(s, ",") {
		p, err := parsePrefix(strings.TrimSpace(n))
		if err != nil {
			return nil, fail(e.pos, refuse("write "+builtins()[e.name].usage, "%q is no network", n))
		}
		nets = append(nets, p)
	}
	if pv, ok := onlyPV(e.args[0]); ok && (pv == "$si" || pv == "$siptrace(src_hostip)" || pv == "$siptrace(src_host)" || pv == "$siptrace(dst_hostip)" || pv == "$siptrace(dst_host)") {
		which := boolean(strings.Contains(pv, "dst_"))
		return func(m *Message) int32 {
			a := m.addr(int(which)).Addr().Unmap().WithZone("")
			return truth(slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) }))
		}, nil
	}
	return func(m *Message) int32 {
		b, ok := addr(m)
		if !ok || len(b) > 64 {
			return -1
		}
		a, err := netip.ParseAddr(strings.Trim(string(b), "[]"))
		return truth(err == nil && slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) }))
	}, nil
}

// onlyPV is the text of an argument that is nothing but a pseudo-variable.
func onlyPV(e expr) (string, bool) {
	switch e := e.(type) {
	case *pvar:
		return e.raw, true
	case *literal:
		s := string(e.v.s)
		return s, e.v.kind == isStr && strings.HasPrefix(s, "$") && pvLen(s) == len(s)
	}
	return "", false
}

// format compiles an argument in which pseudo-variables are put in: "$ci-abc".
// ok is false for an argument that is one pseudo-variable without value.
func (c *compiler) format(e *call, i int) (func(*Message) (b []byte, ok bool), error) {
	if pv, ok := e.args[i].(*pvar); ok {
		return single(pv), nil
	}
	lit, ok := e.args[i].(*literal)
	if !ok {
		get, err := c.operand(e.args[i])
		if err != nil {
			return nil, err
		}
		return func(m *Message) ([]byte, bool) {
			v := get(m)
			return m.text(v), v.kind != isNull
		}, nil
	}
	var m Message
	parts, why := c.parts(string(m.text(lit.v)))
	if why != nil {
		return nil, fail(e.pos, why)
	}
	return formatted(parts), nil
}

// formatted is a text with its pseudo-variables put in.
func formatted(parts []part) func(*Message) (b []byte, ok bool) {
	switch {
	case len(parts) == 0:
		return func(*Message) ([]byte, bool) { return empty.s, true }
	case len(parts) == 1 && parts[0].pv != nil:
		return single(parts[0].pv)
	case len(parts) == 1:
		s := parts[0].text
		return func(*Message) ([]byte, bool) { return s, true }
	}
	get := filled(parts)
	return func(m *Message) ([]byte, bool) {
		v := get(m)
		return v.s, v.kind == isStr
	}
}

// filled puts the values of its pseudo-variables into a text; one without value
// is written <null>.
func filled(parts []part) func(*Message) value {
	return func(m *Message) value {
		var texts [maxParts][]byte
		for i := range parts {
			texts[i] = parts[i].text
			if pv := parts[i].pv; pv != nil {
				v := pv.get(m)
				if texts[i] = m.text(v); v.kind == isNull {
					texts[i] = nullText
				}
			}
		}
		return m.concat(texts[:len(parts)]...)
	}
}

// maxParts bounds the pieces, text and pseudo-variables, of one format.
const maxParts = 64

var nullText = []byte("<null>")

func single(pv *pvar) func(*Message) ([]byte, bool) {
	return func(m *Message) ([]byte, bool) {
		v := pv.get(m)
		return notNil(m.text(v)).s, v.kind != isNull
	}
}

// part is a piece of a format: text or a pseudo-variable.
type part struct {
	text []byte
	pv   *pvar
}

func (c *compiler) parts(s string) (list []part, why *problem) {
	var lit []byte
	flush := func() {
		if len(lit) > 0 {
			list = append(list, part{text: lit})
			lit = nil
		}
	}
	for i := 0; i < len(s); {
		if s[i] != '$' {
			lit = append(lit, s[i])
			i++
			continue
		}
		if strings.HasPrefix(s[i:], "$$") {
			lit = append(lit, '$')
			i += 2
			continue
		}
		n := pvLen(s[i:])
		switch n {
		case 0:
			return nil, refuse("close its parenthesis", "pseudo-variable in %q is never closed", short(s[i:]))
		case 1:
			return nil, refuse("write $$ for a dollar sign", "$ without a name in %q", short(s[i:]))
		}
		pv, why := c.pvar(s[i : i+n])
		if why != nil {
			return nil, why
		}
		flush()
		list = append(list, part{pv: pv})
		i += n
	}
	if flush(); len(list) > maxParts {
		return nil, refuse("", "more than %d pieces in a text", maxParts)
	}
	return list, nil
}

func short(s string) string {
	if len(s) > 20 {
		return s[:20] + "..."
	}
	return s
}

const (
	levelAlert    = -5
	levelBug      = -4
	levelCritical = -2
	levelError    = -1
	levelWarn     = 0
	levelNotice   = 1
	levelInfo     = 2
	levelDebug    = 3
)

var levelNames = map[string]int{
	"L_ALERT": levelAlert, "L_BUG": levelBug, "L_CRIT2": -3, "L_CRIT": levelCritical, "L_ERR": levelError, "L_WARN": levelWarn,
	"L_NOTICE": levelNotice, "L_INFO": levelInfo, "L_DBG": levelDebug,
}

// xlog is xlog([[facility,] level,] text).
func xlog(c *compiler, e *call) (function, error) {
	level := levelError
	if n := len(e.args); n > 1 {
		s, err := constant(e, n-2)
		if err != nil {
			return nil, err
		}
		var ok bool
		if level, ok = levelNames[s]; !ok {
			return nil, fail(e.pos, refuse(nearest(s, keys(levelNames), "they are L_ALERT, L_CRIT, L_ERR, L_WARN, L_NOTICE, L_INFO and L_DBG"), "%q is no level", s))
		}
	}
	return c.logs(e, len(e.args)-1, level)
}

func leveled(level int) func(*compiler, *call) (function, error) {
	return func(c *compiler, e *call) (function, error) { return c.logs(e, 0, level) }
}

func (c *compiler) logs(e *call, arg, level int) (function, error) {
	if _, err := constant(e, arg); err != nil {
		return nil, err
	}
	text, err := c.format(e, arg)
	if err != nil {
		return nil, err
	}
	return c.logAction(e.pos, level, text), nil
}

func (c *compiler) logAction(at kamcfg.Pos, level int, text func(*Message) ([]byte, bool)) function {
	if level > c.opt.Debug {
		return func(*Message) int32 { return 1 }
	}
	return func(m *Message) int32 {
		b, ok := text(m)
		if !ok {
			b = nullText
		}
		if m.bad {
			return -1
		}
		a := m.act(Log, at)
		if a == nil {
			return -1
		}
		a.Level, a.Text = int8(level), b[:min(len(b), maxLogText)]
		return 1
	}
}

// plainLog is the core's log([level,] "text"): nothing is put in.
func plainLog(c *compiler, e *call) (function, error) {
	level := levelError
	if len(e.args) == 2 {
		lit, ok := e.args[0].(*literal)
		if !ok || lit.v.kind != isInt {
			return nil, fail(e.pos, refuse(`write log(1, "text")`, "the level of log() is not a number"))
		}
		level = int(max(min(lit.v.n, levelDebug), levelAlert))
	}
	s, err := constant(e, len(e.args)-1)
	if err != nil {
		return nil, err
	}
	b := []byte(s)
	return c.logAction(e.pos, level, func(*Message) ([]byte, bool) { return b, true }), nil
}

// checked refuses a constant argument at once and any other when it runs.
func (c *compiler) checked(e *call, i int, ok func([]byte) bool, want string) (func(*Message) ([]byte, bool), error) {
	get, err := c.format(e, i)
	if err != nil {
		return nil, err
	}
	if lit, is := e.args[i].(*literal); is && !bytes.Contains(lit.v.s, []byte("$")) {
		var m Message
		if !ok(m.text(lit.v)) {
			return nil, fail(e.pos, refuse("write "+want, "argument %d of %s() is %s", i+1, e.name, lit))
		}
	}
	return func(m *Message) ([]byte, bool) {
		b, set := get(m)
		if !set || m.bad || !ok(b) {
			m.fault(FaultArgument)
			return nil, false
		}
		return b, true
	}, nil
}

func isSIPURI(b []byte) bool {
	_, err := siptrace.ParseSIPURI(b)
	return err == nil && len(b) <= 1024
}

// modeOf is the first character of a mode in lower case: m, t, d; 0 for none of them.
func modeOf(b []byte) byte {
	if len(b) > 0 {
		if c := fold(b[0]); c == 'm' || c == 't' || c == 'd' {
			return c
		}
	}
	return 0
}

func isMode(b []byte) bool { return modeOf(b) != 0 }

func anyText([]byte) bool { return true }

const (
	wantURI  = `"sip:host:port;transport=udp"`
	wantMode = `"m" (message), "t" (transaction) or "d" (dialog)`
)

// sipTrace is sip_trace([address][, correlation_id][, mode]).
func sipTrace(c *compiler, e *call) (function, error) {
	var get [3]func(*Message) ([]byte, bool)
	for i := range e.args {
		var err error
		switch i {
		case 0:
			get[i], err = c.checked(e, i, isSIPURI, wantURI)
		case 1:
			get[i], err = c.checked(e, i, anyText, "a correlation id")
		default:
			get[i], err = c.checked(e, i, isMode, wantMode)
		}
		if err != nil {
			return nil, err
		}
	}
	at := e.pos
	return func(m *Message) int32 {
		var args [3][]byte
		for i, f := range get {
			if f == nil {
				break
			}
			var ok bool
			if args[i], ok = f(m); !ok {
				return -1
			}
		}
		a := m.act(SIPTrace, at)
		if a == nil {
			return -1
		}
		a.Address, a.CorrelationID, a.Mode = args[0], args[1], modeOf(args[2])
		return 1
	}, nil
}

func sipTraceMode(c *compiler, e *call) (function, error) {
	mode, err := c.checked(e, 0, isMode, wantMode)
	if err != nil {
		return nil, err
	}
	at := e.pos
	return func(m *Message) int32 {
		b, ok := mode(m)
		if !ok {
			return -1
		}
		a := m.act(SIPTrace, at)
		if a == nil {
			return -1
		}
		a.Mode = modeOf(b)
		return 1
	}, nil
}

func keepTrace(_ *compiler, e *call) (function, error) {
	replies := len(e.args) == 1
	if replies {
		if what, err := constant(e, 0); err != nil || what != "replies" {
			return nil, fail(e.pos, refuse("write "+builtins()[e.name].usage, "keep_trace() has another argument than \"replies\""))
		}
	}
	at := e.pos
	return func(m *Message) int32 {
		a := m.act(KeepTrace, at)
		if a == nil {
			return -1
		}
		a.Replies = replies
		return 1
	}, nil
}

func sipTraceMsg(c *compiler, e *call) (function, error) {
	var get [5]func(*Message) ([]byte, bool)
	checks := [5]struct {
		ok   func([]byte) bool
		want string
	}{
		{anyText, "the message"},
		{isEndpoint, `"proto:ip:port"`},
		{isEndpoint, `"proto:ip:port"`},
		{isSIPURI, wantURI},
		{anyText, "a correlation id"},
	}
	for i := range get {
		var err error
		if get[i], err = c.checked(e, i, checks[i].ok, checks[i].want); err != nil {
			return nil, err
		}
	}
	at := e.pos
	return func(m *Message) int32 {
		var args [5][]byte
		for i, f := range get {
			var ok bool
			if args[i], ok = f(m); !ok {
				return -1
			}
		}
		a := m.act(SIPTraceMsg, at)
		if a == nil {
			return -1
		}
		a.Text, a.From, a.To, a.Address, a.CorrelationID = args[0], args[1], args[2], args[3], args[4]
		return 1
	}, nil
}

func hlog(c *compiler, e *call) (function, error) {
	text, err := c.format(e, len(e.args)-1)
	if err != nil {
		return nil, err
	}
	var id func(*Message) ([]byte, bool)
	if len(e.args) == 2 {
		if id, err = c.format(e, 0); err != nil {
			return nil, err
		}
	}
	at := e.pos
	return func(m *Message) int32 {
		b, ok := text(m)
		if !ok {
			m.fault(FaultArgument)
			return -1
		}
		var cid []byte
		if id != nil {
			if cid, ok = id(m); !ok {
				m.fault(FaultArgument)
				return -1
			}
		}
		if m.bad {
			return -1
		}
		a := m.act(HLog, at)
		if a == nil {
			return -1
		}
		a.Text, a.CorrelationID = b, cid
		return 1
	}, nil
}

func isEndpoint(b []byte) bool {
	if len(b) > 64 {
		return false
	}
	_, err := siptrace.ParseEndpoint(string(b))
	return err == nil
}
