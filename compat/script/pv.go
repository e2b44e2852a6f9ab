package script

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"siptraced/compat/kamcfg"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// pvar is a pseudo-variable: $name(inner), or $(name(inner)[index]{transformation}).
type pvar struct {
	pos         kamcfg.Pos
	raw         string
	name, inner string
	idx         index
	slot        int // of $avp and $var
	get         func(*Message) value
	changed     bool // by transformations
}

func (p *pvar) String() string { return p.raw }

// pvLen is the length of the pseudo-variable that s begins with: a name of
// letters, digits, '_' and '.', then what stands in parentheses. 0: never closed.
func pvLen(s string) int {
	n := 1
	for n < len(s) && (isWord(s[n]) || s[n] == '.') {
		n++
	}
	if n == len(s) || s[n] != '(' {
		return n
	}
	for depth := 0; n < len(s); n++ {
		switch s[n] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return n + 1
			}
		}
	}
	return 0
}

// index is [n] or [*]; without one, set is false and n is 0.
type index struct {
	n        int
	all, set bool
}

// problem is an error whose place the caller knows.
type problem struct{ msg, hint string }

func refuse(hint, format string, args ...any) *problem {
	return &problem{fmt.Sprintf(format, args...), hint}
}

// pvar reads the text of a pseudo-variable.
func (c *compiler) pvar(raw string) (*pvar, *problem) {
	p := &pvar{raw: raw}
	s := raw[1:]
	full := strings.HasPrefix(s, "(")
	if full {
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	n := 0
	for n < len(s) && (isWord(s[n]) || s[n] == '.') {
		n++
	}
	p.name, s = s[:n], s[n:]
	if strings.HasPrefix(s, "(") {
		end := pvLen("$" + s)
		if end == 0 {
			return nil, refuse("close its parenthesis", "%s is never closed", raw)
		}
		p.inner, s = strings.TrimSpace(s[1:end-2]), s[end-1:]
		if p.inner == "" {
			return nil, refuse("write $"+p.name+"(name)", "%s has an empty name", raw)
		}
	}
	if strings.HasPrefix(s, "[") && full {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return nil, refuse("close it with ]", "index of %s is never closed", raw)
		}
		var err error
		switch in := strings.TrimSpace(s[1:end]); {
		case in == "*":
			p.idx = index{all: true, set: true}
		default:
			if p.idx.n, err = strconv.Atoi(in); err != nil {
				return nil, refuse("an index is a number, or * for all", "index %q of %s is neither", in, raw)
			}
			p.idx.set = true
		}
		s = s[end+1:]
	}
	var why *problem
	if p.get, why = c.getter(p); why != nil {
		return nil, why
	}
	if s = strings.TrimSpace(s); s != "" {
		p.changed = true
		if p.get, why = transformations(p.get, s, raw); why != nil {
			return nil, why
		}
	}
	return p, nil
}

// setter is what assigns p.
func (p *pvar) setter() (func(*Message, value), *problem) {
	if p.changed {
		return nil, refuse("put the transformation on the right", "%s has a transformation and is assigned", p)
	}
	slot, all := p.slot, p.idx.all
	switch p.name {
	case "avp":
		return func(m *Message, v value) { m.setAVP(slot, all, v) }, nil
	case "var":
		return func(m *Message, v value) {
			switch {
			case v.kind == isNull:
				m.vars[slot] = integer(0)
			case len(v.s) > MaxValue:
				m.fault(FaultValue)
			default:
				m.vars[slot] = v
			}
		}, nil
	}
	return nil, refuse("only $avp(name) and $var(name) are assigned here; messages are not changed", "%s can't be assigned", p)
}

// maxTexts bounds $_s($_s(...)).
const maxTexts = 10

// plainPVs are those without an inner name.
var plainPVs = map[string]func(*Message) value{
	"null": func(*Message) value { return value{} },
	"rm":   func(m *Message) value { return strOrNull(m.SIP.MethodName()) },
	"rs": func(m *Message) value {
		if m.SIP.IsRequest {
			return value{}
		}
		n, _ := number(m.SIP.Status)
		return value{s: m.SIP.Status, n: n, kind: isInt}
	},
	"rr": func(m *Message) value {
		if m.SIP.IsRequest {
			return value{}
		}
		return str(m.SIP.Reason)
	},
	"ru": ru, "ou": ru,
	"rU": userOf(requestURI), "oU": userOf(requestURI),
	"rd": hostOf(requestURI), "od": hostOf(requestURI),
	"rp": func(m *Message) value {
		u := m.uri(requestURI)
		switch {
		case u == nil:
			return value{}
		case u.Port != nil:
			return str(u.Port)
		case equalFold(u.Scheme, "sips"):
			return port5061
		}
		return port5060
	},
	"rP": func(m *Message) value {
		u := m.uri(requestURI)
		if u == nil {
			return value{}
		}
		if t, ok := parameter(u.Params, "transport", ';'); ok && len(t) > 0 {
			return str(t)
		}
		if equalFold(u.Scheme, "sips") {
			return upperTLS
		}
		return upperUDP
	},
	"rz": func(m *Message) value {
		if u := m.uri(requestURI); u != nil {
			return str(u.Scheme)
		}
		return value{}
	},
	"fu": func(m *Message) value { return strOrNull(m.SIP.From.URI) },
	"fU": userOf(fromURI),
	"fd": hostOf(fromURI),
	"fn": func(m *Message) value { return strOrNull(m.SIP.From.DisplayRaw) },
	"ft": func(m *Message) value { return notEmpty(m.SIP.From.Tag) },
	"tu": func(m *Message) value { return strOrNull(m.SIP.To.URI) },
	"tU": userOf(toURI),
	"td": hostOf(toURI),
	"tn": func(m *Message) value { return strOrNull(m.SIP.To.DisplayRaw) },
	"tt": func(m *Message) value { return notEmpty(m.SIP.To.Tag) },
	"ci": func(m *Message) value { return strOrNull(m.SIP.CallID) },
	"cs": func(m *Message) value { return strOrNull(m.SIP.CSeqNumber) },
	"ua": func(m *Message) value { return strOrNull(m.SIP.UserAgent) },
	"ct": func(m *Message) value { return strOrNull(m.SIP.Contact.Raw) },
	"cT": func(m *Message) value { return strOrNull(m.SIP.ContentType) },
	"cl": func(m *Message) value {
		if m.SIP.ContentLength < 0 {
			return value{}
		}
		return integer(int32(m.SIP.ContentLength))
	},
	"rb": func(m *Message) value { return str(m.SIP.Body) },
	"bs": func(m *Message) value { return integer(int32(len(m.SIP.Body))) },
	"mb": func(m *Message) value { return str(m.SIP.Raw) },
	"ml": func(m *Message) value { return integer(int32(len(m.SIP.Raw))) },
	"mt": func(m *Message) value {
		if m.SIP.IsRequest {
			return integer(1)
		}
		return integer(2)
	},
	"si": func(m *Message) value { return strOrNull(m.host(0)) },
	"sp": func(m *Message) value { return integer(int32(m.addr(0).Port())) },
	"Ri": func(m *Message) value { return strOrNull(m.host(1)) },
	"Rp": func(m *Message) value { return integer(int32(m.addr(1).Port())) },
	"pr": func(m *Message) value { return protoName(m.proto(0)) },
	"rc": func(m *Message) value { return integer(m.rc) },
	"TS": seconds,
	"mf": func(m *Message) value { return integer(int32(m.flags)) },
	"Tf": func(m *Message) value { return m.timeText("Mon Jan _2 15:04:05 2006") },
}

// aliasPVs are other names of the same.
var aliasPVs = map[string]string{"Ts": "TS", "TF": "Tf", "proto": "pr", "fti": "ft", "tti": "tt", "retcode": "rc", "src_ip": "si"}

var (
	port5060 = text("5060")
	port5061 = text("5061")
	upperUDP = text("UDP")
	upperTLS = text("TLS")
)

// protoName is a constant for each transport, so that none is made per message.
func protoName(p siptrace.Proto) value {
	for i := range protoValues {
		if string(protoValues[i].s) == string(p) {
			return protoValues[i]
		}
	}
	return text(string(p))
}

var protoValues = [...]value{text("udp"), text("tcp"), text("tls"), text("ws"), text("wss"), text("sctp"), text("any")}

func ru(m *Message) value {
	if !m.SIP.IsRequest {
		return value{}
	}
	return strOrNull(m.SIP.RequestURI)
}

func userOf(which int) func(*Message) value {
	return func(m *Message) value {
		if u := m.uri(which); u != nil {
			return notEmpty(u.User)
		}
		return value{}
	}
}

func hostOf(which int) func(*Message) value {
	return func(m *Message) value {
		if u := m.uri(which); u != nil {
			return notEmpty(u.Host)
		}
		return value{}
	}
}

func notEmpty(b []byte) value {
	if len(b) == 0 {
		return value{}
	}
	return str(b)
}

func (m *Message) timeText(layout string) value {
	if !m.room(len(layout) + 16) {
		return value{}
	}
	from := len(m.buf)
	m.buf = m.Rec.Time.In(m.prog.location).AppendFormat(m.buf, layout)
	return str(m.buf[from:len(m.buf):len(m.buf)])
}

// siptracePVs are $siptrace(...).
var siptracePVs = map[string]func(*Message) value{
	"src_addr": endText(0), "dst_addr": endText(1),
	"src_host": hostText(0), "dst_host": hostText(1),
	"src_hostip": func(m *Message) value { return strOrNull(m.host(0)) },
	"dst_hostip": func(m *Message) value { return strOrNull(m.host(1)) },
	"src_port":   func(m *Message) value { return integer(int32(m.addr(0).Port())) },
	"dst_port":   func(m *Message) value { return integer(int32(m.addr(1).Port())) },
	"src_proto":  func(m *Message) value { return protoName(m.proto(0)) },
	"dst_proto":  func(m *Message) value { return protoName(m.proto(1)) },
	"direction": func(m *Message) value {
		if m.Rec.Direction == siptrace.Out {
			return directionOut
		}
		return directionIn
	},
}

// siptracedPVs are $siptraced(...), which Kamailio does not have.
var siptracedPVs = map[string]func(*Message) value{
	"defects": func(m *Message) value {
		d := m.SIP.Defects
		if d == 0 || !m.room(maxDefectText) {
			return value{}
		}
		from := len(m.buf)
		m.buf = d.Append(m.buf)
		return str(m.buf[from:len(m.buf):len(m.buf)])
	},
}

// maxDefectText is beyond what all defects together make, in bytes.
const maxDefectText = 512

var directionIn, directionOut = text(siptrace.In), text(siptrace.Out)

func endText(which int) func(*Message) value {
	return func(m *Message) value {
		if !m.room(64) {
			return value{}
		}
		from := len(m.buf)
		m.buf = m.end(which).Append(m.buf)
		return str(m.buf[from:len(m.buf):len(m.buf)])
	}
}

func hostText(which int) func(*Message) value {
	return func(m *Message) value {
		h := m.host(which)
		if a := m.addr(which).Addr().Unmap(); a.Is6() {
			return m.concat(openBracket, h, closeBracket)
		}
		return strOrNull(h)
	}
}

var openBracket, closeBracket = []byte("["), []byte("]")

// timePVs are $time(...).
var timePVs = map[string]func(*Message) value{
	"sec": clock(time.Time.Second), "min": clock(time.Time.Minute), "hour": clock(time.Time.Hour), "mday": clock(time.Time.Day),
	"mon":  clock(func(t time.Time) int { return int(t.Month()) }),
	"year": clock(time.Time.Year), "yday": clock(time.Time.YearDay),
	"wday": clock(func(t time.Time) int { return int(t.Weekday()) + 1 }),
}

func clock(get func(time.Time) int) func(*Message) value {
	return func(m *Message) value { return integer(int32(get(m.Rec.Time.In(m.prog.location)))) }
}

// timevalPVs are $TV(...).
var timevalPVs = map[string]func(*Message) value{
	"s": seconds, "Sn": seconds,
	"u": func(m *Message) value { return integer(int32(m.Rec.Time.Nanosecond() / 1000)) },
	"sn": func(m *Message) value {
		from := len(m.buf)
		m.buf = strconv.AppendInt(m.buf, m.Rec.Time.Unix(), 10)
		m.buf = append(m.buf, '.')
		us := strconv.AppendInt(m.buf, 1_000_000+int64(m.Rec.Time.Nanosecond()/1000), 10)
		copy(us[len(m.buf):], us[len(m.buf)+1:])
		m.buf = us[:len(us)-1]
		return str(m.buf[from:len(m.buf):len(m.buf)])
	},
}

func seconds(m *Message) value { return integer(int32(m.Rec.Time.Unix())) }

// elsewhere says why a pseudo-variable of Kamailio has no value here; "" for one
// that Kamailio doesn't have either.
func elsewhere(name string) string {
	for _, e := range proxyPVs {
		if name == e.name || e.family && strings.HasPrefix(name, e.name+"_") {
			return e.why
		}
	}
	return ""
}

var proxyPVs = []struct {
	name   string
	family bool // name_... too
	why    string
}{
	{"T", true, "transactions live in the proxy"},
	{"dlg", true, "dialogs live in the proxy"},
	{"xavp", false, "XAVPs live in the proxy; use $avp(name)"},
	{"xavi", false, "XAVPs live in the proxy; use $avp(name)"},
	{"xavu", false, "XAVPs live in the proxy; use $avp(name)"},
	{"sht", true, "hash tables live in the proxy"},
	{"shv", false, "shared variables live in the proxy"},
	{"branch", false, "branches live in the proxy"},
	{"du", false, "the destination is chosen in the proxy; use $siptrace(dst_addr)"},
	{"dbr", false, "databases are not asked here"},
	{"sqlr", false, "databases are not asked here"},
	{"stat", false, "statistics live in the proxy"},
}

func pvNames() []string {
	names := keys(namedPVs())
	for n := range plainPVs {
		names = append(names, n)
	}
	for n := range aliasPVs {
		names = append(names, n)
	}
	return names
}

// getter finds what gives the value of p, before transformations.
func (c *compiler) getter(p *pvar) (func(*Message) value, *problem) {
	name := p.name
	if a, ok := aliasPVs[name]; ok {
		name = a
	}
	if get, ok := plainPVs[name]; ok {
		if p.inner != "" || p.idx.set && p.idx.n != 0 {
			return nil, refuse("write $"+p.name, "$%s has neither a name in parentheses nor an index", p.name)
		}
		return get, nil
	}
	if f, ok := namedPVs()[name]; ok {
		return f(c, p)
	}
	if why := elsewhere(p.name); why != "" {
		return nil, refuse(why, "$%s has no value outside the proxy", p.name)
	}
	return nil, refuse(nearest(p.name, pvNames(), "those of the message are $rm $rs $ru $fu $tu $ci $ua $hdr(Name), of the packet $si $siptrace(...)"), "$%s is not known here", p.name)
}

// namedPVs are those with a name in parentheses.
func namedPVs() map[string]func(*compiler, *pvar) (func(*Message) value, *problem) {
	return map[string]func(*compiler, *pvar) (func(*Message) value, *problem){
		"avp": (*compiler).avpGetter, "var": (*compiler).varGetter, "hdr": (*compiler).headerGetter, "hdrc": (*compiler).headerGetter,
		"siptrace":  oneOf(siptracePVs, "they are src_addr, src_host, src_hostip, src_port, src_proto, the same with dst_, and direction"),
		"siptraced": oneOf(siptracedPVs, "there is $siptraced(defects)"),
		"time":      oneOf(timePVs, "they are sec, min, hour, mday, mon, year, wday, yday"),
		"TV":        oneOf(timevalPVs, "use $TV(s), $TV(u) or $TV(sn)"),
		"def":       (*compiler).defineGetter, "cfg": (*compiler).cfgGetter, "_s": (*compiler).textGetter,
		"sel": (*compiler).settingGetter,
	}
}

// oneOf is a pseudo-variable whose names are known.
func oneOf(known map[string]func(*Message) value, hint string) func(*compiler, *pvar) (func(*Message) value, *problem) {
	return func(_ *compiler, p *pvar) (func(*Message) value, *problem) {
		if get, ok := known[p.inner]; ok {
			return get, nil
		}
		return nil, refuse(nearest(p.inner, keys(known), hint), "$%s(%s) is not known", p.name, p.inner)
	}
}

func (p *pvar) needsName(usage string) *problem {
	if p.inner == "" {
		return refuse("write "+usage, "$%s needs a name in parentheses", p.name)
	}
	return nil
}

func (c *compiler) avpGetter(p *pvar) (func(*Message) value, *problem) {
	if why := p.needsName("$avp(name)"); why != nil {
		return nil, why
	}
	slot, why := c.avpSlot(p.inner)
	if why != nil {
		return nil, why
	}
	p.slot = slot
	if idx := p.idx; idx.set {
		return func(m *Message) value { return m.avp(slot, idx) }, nil
	}
	return func(m *Message) value {
		if list := m.avps[slot]; len(list) > 0 {
			return list[len(list)-1]
		}
		return value{}
	}, nil
}

func (c *compiler) varGetter(p *pvar) (func(*Message) value, *problem) {
	if why := p.needsName("$var(name)"); why != nil {
		return nil, why
	}
	slot, ok := c.vars[p.inner]
	if !ok {
		slot = len(c.vars)
		c.vars[p.inner] = slot
	}
	p.slot = slot
	return func(m *Message) value { return m.vars[slot] }, nil
}

func (c *compiler) defineGetter(p *pvar) (func(*Message) value, *problem) {
	v, ok := c.opt.Defines[p.inner]
	if !ok {
		return nil, refuse("write #!define "+p.inner+" above", "%s is not defined", p.inner)
	}
	t := text(v)
	return func(*Message) value { return t }, nil
}

// settingGetter is $sel(cfg_get.group.name): as it stands in the file, whatever
// cfg.set has made of it in the proxy.
func (c *compiler) settingGetter(p *pvar) (func(*Message) value, *problem) {
	name, ok := strings.CutPrefix(p.inner, settings)
	if !ok {
		return nil, refuse(noSelects, "selects are not run here")
	}
	v, ok := c.opt.Settings[name]
	switch {
	case !ok:
		return nil, refuse("write "+name+" = value above", "%s is not set in this configuration", name)
	case v.Unresolved != nil:
		return nil, refuse("write the value itself", "%s hangs on a variable: %v", name, v.Unresolved)
	}
	t := text(fmt.Sprint(v.Any()))
	return func(*Message) value { return t }, nil
}

// settings begins the selects that are known.
const (
	settings  = "cfg_get."
	noSelects = "use a pseudo-variable, such as $rU for @ruri.user; @cfg_get.group.name is known"
)

// textGetter is $_s(text with pseudo-variables).
func (c *compiler) textGetter(p *pvar) (func(*Message) value, *problem) {
	if c.texts++; c.texts > maxTexts {
		return nil, refuse("use variables", "$_s(...) within each other more than %d deep", maxTexts)
	}
	parts, why := c.parts(p.inner)
	c.texts--
	if why != nil {
		return nil, why
	}
	return filled(parts), nil
}

func (c *compiler) cfgGetter(p *pvar) (func(*Message) value, *problem) {
	var v value
	switch p.inner {
	case "line":
		v = integer(int32(c.here.Line))
	case "file", "name":
		v = text(c.here.File)
	case "route":
		v = text(c.routeName)
	default:
		return nil, refuse("use $cfg(line), $cfg(file) or $cfg(route)", "$cfg(%s) is not known", p.inner)
	}
	return func(*Message) value { return v }, nil
}

// headerGetter gives $hdr(Name) and $hdrc(Name).
func (c *compiler) headerGetter(p *pvar) (func(*Message) value, *problem) {
	if why := p.needsName("$" + p.name + "(Name)"); why != nil {
		return nil, why
	}
	if strings.IndexByte(p.inner, '$') >= 0 {
		return nil, refuse("write the name of the header", "%s has a name that changes", p.raw)
	}
	slot, idx := c.header(p.inner), p.idx
	if p.name == "hdr" && (!idx.set || idx.n == 0 && !idx.all) {
		return func(m *Message) value { return strOrNull(m.header(slot)) }, nil
	}
	name := c.headers[slot]
	count := func(m *Message) int {
		n := 0
		for h := range m.SIP.Headers() {
			if h.Is(name) {
				n++
			}
		}
		return n
	}
	switch {
	case p.name == "hdrc":
		return func(m *Message) value { return integer(int32(count(m))) }, nil
	case idx.all:
		return joinedHeader(name), nil
	}
	return func(m *Message) value {
		n := idx.n
		if n < 0 {
			if n += count(m); n < 0 {
				return value{}
			}
		}
		for h := range m.SIP.Headers() {
			if h.Is(name) {
				if n == 0 {
					return str(headerText(h))
				}
				n--
			}
		}
		return value{}
	}, nil
}

// joinedHeader is $(hdr(Name)[*]): all values, a comma between.
func joinedHeader(name string) func(*Message) value {
	return func(m *Message) value {
		from, n := len(m.buf), 0
		for h := range m.SIP.Headers() {
			if !h.Is(name) {
				continue
			}
			v := headerText(h)
			if !m.room(len(v) + 1) {
				return value{}
			}
			if n > 0 {
				m.buf = append(m.buf, ',')
			}
			n++
			m.buf = append(m.buf, v...)
		}
		if n == 0 {
			return value{}
		}
		return str(m.buf[from:len(m.buf):len(m.buf)])
	}
}

// headerText is what Kamailio has in $hdr(Name): the value with the blanks at its end.
func headerText(h sipmsg.Header) []byte {
	v := bytes.TrimLeft(h.Raw, " \t\r\n")
	if v == nil {
		return empty.s
	}
	return v
}

// index finds the first value of each header that the program asks for, in one
// pass over the message.
func (p *Program) index(m *Message) {
	clear(m.headers)
	m.indexed = true
	missing := len(p.headers)
	for h := range m.SIP.Headers() {
		if !p.letters[h.Name[0]] {
			continue
		}
		for i, name := range p.headers {
			if m.headers[i] == nil && h.Is(name) {
				m.headers[i] = headerText(h)
				missing--
			}
		}
		if missing == 0 {
			return
		}
	}
}
