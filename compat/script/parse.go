package script

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
)

// Bounds of a route; far beyond any real one.
const (
	maxNesting = 100
	maxNodes   = 20_000
)

// parser reads the statements of one route.
type parser struct {
	reader
	c     *compiler
	tok   token
	depth int
}

func (c *compiler) parse(r kamcfg.Route) (list []*stmt, err error) {
	p := &parser{reader: reader{list: r.Tokens, end: r.End}, c: c}
	if err := p.advance(); err != nil {
		return nil, err
	}
	for p.tok.kind != tEOF {
		if list, err = p.statement(list); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (p *parser) advance() (err error) {
	if p.c.nodes++; p.c.nodes > maxNodes {
		return fault(p.tok.pos, "", "the route has more than %d words", maxNodes)
	}
	p.tok, err = p.next()
	return err
}

func (p *parser) is(op string) bool { return p.tok.kind == tOp && p.tok.text == op }

func (p *parser) word(w string) bool { return p.tok.kind == tWord && p.tok.text == w }

func (p *parser) here() kamcfg.Pos { return p.tok.pos }

func (p *parser) unexpected(hint string) error {
	switch p.tok.kind {
	case tEOF:
		return fault(p.tok.pos, hint, "unexpected end of the route")
	case tString:
		return fault(p.tok.pos, hint, "unexpected string")
	}
	raw := p.tok.raw
	if len(raw) > 40 {
		raw = raw[:40] + "..."
	}
	return fault(p.tok.pos, hint, "unexpected %q", raw)
}

func (p *parser) expect(op, hint string) error {
	if !p.is(op) {
		return p.unexpected(hint)
	}
	return p.advance()
}

func (p *parser) nest() error {
	if p.depth++; p.depth > maxNesting {
		return fault(p.tok.pos, "", "nested more than %d deep", maxNesting)
	}
	return nil
}

// block reads { ... } or one statement.
func (p *parser) block() (list []*stmt, err error) {
	if !p.is("{") {
		return p.statement(nil)
	}
	open := p.tok.pos
	if err = p.advance(); err != nil {
		return nil, err
	}
	for !p.is("}") {
		if p.tok.kind == tEOF {
			return nil, fault(open, "close it with }", "block is never closed")
		}
		if list, err = p.statement(list); err != nil {
			return nil, err
		}
	}
	return list, p.advance()
}

// statement reads one statement and appends it to list; ";" alone appends none.
func (p *parser) statement(list []*stmt) ([]*stmt, error) {
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	s := &stmt{pos: p.here()}
	var err error
	switch {
	case p.is(";"):
		return list, p.advance()
	case p.is("{"):
		inner, err := p.block()
		return append(list, inner...), err
	case p.tok.kind == tPV:
		return p.assign(s, list)
	case p.tok.kind != tWord:
		return nil, p.unexpected("a statement is a condition, an assignment or a function")
	}
	switch p.tok.text {
	case "if":
		s.kind = sIf
		if err = p.head(s); err != nil {
			return nil, err
		}
		if s.body, err = p.block(); err != nil {
			return nil, err
		}
		if p.word("else") {
			if err = p.advance(); err != nil {
				return nil, err
			}
			s.other, err = p.block()
		}
		return append(list, s), err
	case "while":
		s.kind = sWhile
		if err = p.head(s); err != nil {
			return nil, err
		}
		s.body, err = p.block()
		return append(list, s), err
	case "switch":
		s.kind = sSwitch
		if err = p.head(s); err != nil {
			return nil, err
		}
		err = p.cases(s)
		return append(list, s), err
	case "return", "exit", "drop", "break":
		s.kind = map[string]stmtKind{"return": sReturn, "exit": sExit, "drop": sDrop, "break": sBreak}[p.tok.text]
		if err = p.advance(); err != nil {
			return nil, err
		}
		if err = p.leaving(s); err != nil {
			return nil, err
		}
		return append(list, s), p.end("after " + s.String())
	case "else":
		return nil, fault(p.tok.pos, "one statement without braces may stand between if and else", "else without if")
	case "case", "default":
		return nil, p.unexpected("it belongs into switch (...) { }")
	case "continue":
		return nil, fault(p.tok.pos, "Kamailio has no continue: turn the condition round", "continue is not known")
	}
	name := p.tok
	if err := p.advance(); err != nil {
		return nil, err
	}
	if !p.is("(") {
		if p.is("=") || p.is("[") {
			return nil, fault(name.pos, "variables are $var(name) and $avp(name)", "%s can't be assigned here", name.text)
		}
		return nil, fault(name.pos, p.c.suggest(name.text, statementWords), "unexpected %q", name.text)
	}
	s.kind = sCall
	if s.expr, err = p.call(name); err != nil {
		return nil, err
	}
	return append(list, s), p.end("after " + name.text + "()")
}

// end steps over the semicolon that ends a statement.
func (p *parser) end(where string) error {
	if p.is(";") {
		return p.advance()
	}
	return fault(p.tok.pos, "end each statement with a semicolon", "; is missing %s", where)
}

// head reads the condition of if, while and switch.
func (p *parser) head(s *stmt) (err error) {
	if err = p.advance(); err != nil {
		return err
	}
	s.expr, err = p.expression(0)
	return err
}

// leaving reads what may follow return, exit, drop and break: (), a value.
func (p *parser) leaving(s *stmt) (err error) {
	if p.is(";") || s.kind == sBreak {
		return nil
	}
	if p.is("(") {
		rest, t := p.reader, p.tok
		if err = p.advance(); err != nil {
			return err
		}
		if p.is(")") {
			return p.advance()
		}
		p.reader, p.tok = rest, t
	}
	s.expr, err = p.expression(0)
	return err
}

func (p *parser) assign(s *stmt, list []*stmt) ([]*stmt, error) {
	s.kind = sAssign
	pv, err := p.pv()
	if err != nil {
		return nil, err
	}
	s.left = pv
	if p.is("+") || p.is("-") {
		return nil, p.unexpected("Kamailio has neither += nor ++: write " + pv.String() + " = " + pv.String() + " " + p.tok.text + " 1")
	}
	if err := p.expect("=", "write "+pv.String()+" = value"); err != nil {
		return nil, err
	}
	if s.expr, err = p.expression(0); err != nil {
		return nil, err
	}
	return append(list, s), p.end("after the assignment")
}

// cases reads { case ...: ... default: ... }.
func (p *parser) cases(s *stmt) (err error) {
	open := p.tok.pos
	if err = p.expect("{", "write switch (...) { case ...: }"); err != nil {
		return err
	}
	var cur *caseLabel
	for !p.is("}") {
		switch {
		case p.tok.kind == tEOF:
			return fault(open, "close it with }", "switch is never closed")
		case p.word("case"):
			cur = &caseLabel{pos: p.here()}
			if err = p.advance(); err != nil {
				return err
			}
			if p.is("/") {
				cur.isRegex = true
				if err = p.advance(); err != nil {
					return err
				}
			}
			at := p.here()
			e, err := p.expression(0)
			if err != nil {
				return err
			}
			lit, ok := e.(*literal)
			if !ok || cur.isRegex && lit.v.kind != isStr {
				return fault(at, `write case "TEXT":, case 200: or case /"regex":`, "a case wants a constant")
			}
			cur.value = lit
			s.cases = append(s.cases, cur)
			if err = p.expect(":", "write a colon after the case"); err != nil {
				return err
			}
		case p.word("default"):
			cur = &caseLabel{pos: p.here()}
			s.cases = append(s.cases, cur)
			if err = p.advance(); err != nil {
				return err
			}
			if err = p.expect(":", "write a colon after default"); err != nil {
				return err
			}
		case cur == nil:
			return p.unexpected("a switch begins with case or default")
		default:
			if cur.body, err = p.statement(cur.body); err != nil {
				return err
			}
		}
	}
	return p.advance()
}

// levels of precedence, loosest first (cfg.y of Kamailio 5.6.3, measured).
var levels = [][]string{
	{"||"},
	{"&&"},
	{"|"},
	{"&"},
	{"^"},
	{"<<", ">>"},
	{"==", "!=", "=~", "!~", "eq", "ne", "ieq", "ine"},
	{"<", ">", "<=", ">="},
	{"+", "-"},
	{"*", "/", "%"},
}

func (p *parser) expression(level int) (expr, error) {
	if level == len(levels) {
		return p.unary()
	}
	l, err := p.expression(level + 1)
	for err == nil {
		op := p.tok
		if op.kind != tOp || !slices.Contains(levels[level], op.text) {
			break
		}
		if err = p.advance(); err != nil {
			return nil, err
		}
		var r expr
		if r, err = p.expression(level + 1); err == nil {
			l, err = p.c.fold(&binary{pos: op.pos, op: op.text, l: l, r: r})
		}
	}
	return l, err
}

func (p *parser) unary() (expr, error) {
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	t := p.tok
	if t.kind == tOp {
		switch t.text {
		case "!", "-", "~":
			if err := p.advance(); err != nil {
				return nil, err
			}
			x, err := p.unary()
			if err != nil {
				return nil, err
			}
			return p.c.fold(&unary{pos: t.pos, op: t.text, x: x})
		case "(":
			return p.parenthesis()
		case "@":
			return nil, fault(t.pos, noSelects, "selects are not run here")
		}
		return nil, p.unexpected("an expression is wanted")
	}
	switch t.kind {
	case tEOF:
		return nil, p.unexpected("an expression is wanted")
	case tString:
		return &literal{v: text(t.text)}, p.advance()
	case tNumber:
		return &literal{v: integer(t.num)}, p.advance()
	case tPV:
		return p.pv()
	}
	switch t.text {
	case "defined":
		if err := p.advance(); err != nil {
			return nil, err
		}
		x, err := p.unary()
		return &unary{pos: t.pos, op: t.text, x: x}, err
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.is("(") {
		return p.call(t)
	}
	return p.core(t)
}

// parenthesis reads ( expression ), (int)x and (str)x.
func (p *parser) parenthesis() (expr, error) {
	open := p.tok.pos
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.word("int") || p.word("str") {
		op := "(" + p.tok.text + ")"
		if err := p.advance(); err != nil {
			return nil, err
		}
		if err := p.expect(")", "a cast is (int) or (str)"); err != nil {
			return nil, err
		}
		x, err := p.unary()
		return &unary{pos: open, op: op, x: x}, err
	}
	x, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if !p.is(")") {
		return nil, fault(open, "close it with )", "parenthesis is not closed where %q stands", p.tok.raw)
	}
	return x, p.advance()
}

// call reads the arguments of a function whose name has been read.
func (p *parser) call(name token) (expr, error) {
	c := &call{pos: name.pos, name: name.text}
	if err := p.advance(); err != nil {
		return nil, err
	}
	for !p.is(")") {
		if len(c.args) > 0 {
			if err := p.expect(",", "arguments are separated by commas"); err != nil {
				return nil, err
			}
		}
		if len(c.args) == 0 && c.name == "route" && p.tok.kind != tPV { // a name, as written
			if p.tok.kind == tOp || p.tok.kind == tEOF {
				return nil, p.unexpected("write route(NAME)")
			}
			c.args = append(c.args, &literal{v: text(p.tok.text)})
			if err := p.advance(); err != nil {
				return nil, err
			}
			continue
		}
		a, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, a)
	}
	if c.name == "strlen" || c.name == "strempty" {
		if len(c.args) != 1 {
			return nil, fault(name.pos, "write "+c.name+"(expression)", "%s takes one argument", c.name)
		}
		return &unary{pos: c.pos, op: c.name, x: c.args[0]}, p.advance()
	}
	return c, p.advance()
}

func (p *parser) pv() (*pvar, error) {
	pv, err := p.c.pvar(p.tok.text)
	if err != nil {
		e := fault(p.tok.pos, err.hint, "%s", err.msg)
		return nil, e
	}
	pv.pos = p.here()
	return pv, p.advance()
}

// coreWords are the tests that the core knows without a pseudo-variable.
var coreWords = []string{
	"method", "status", "uri", "from_uri", "to_uri", "src_ip", "dst_ip", "src_port", "dst_port", "proto", "af", "msg", "max_len",
}

var protocols = []string{"udp", "tcp", "tls", "sctp", "ws", "wss"}

// core reads method=="INVITE" and the like; the word has been read.
func (p *parser) core(name token) (expr, error) {
	e := &coreTest{pos: name.pos, what: name.text}
	if !slices.Contains(coreWords, name.text) {
		return nil, fault(name.pos, p.c.suggest(name.text, append(coreWords, functionNames()...)), "%s is not known here", name.text)
	}
	if name.text == "msg" {
		if err := p.expect(":", "write msg:len"); err != nil {
			return nil, err
		}
		if !p.word("len") {
			return nil, p.unexpected("write msg:len")
		}
		e.what = "msg:len"
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	if p.tok.kind != tOp || !slices.Contains([]string{"==", "!=", "=~", "!~", "<", ">", "<=", ">="}, p.tok.text) {
		return nil, p.unexpected("compare " + e.what + " with ==, !=, =~, < or >")
	}
	e.op = p.tok.text
	numeric := slices.Contains([]string{"src_port", "dst_port", "msg:len", "status", "af", "proto"}, e.what)
	addr := e.what == "src_ip" || e.what == "dst_ip"
	if op := e.op; (op == "=~" || op == "!~") && (numeric && e.what != "status" || addr) || (op[0] == '<' || op[0] == '>') && (!numeric || e.what == "af" || e.what == "proto") {
		return nil, p.unexpected(e.what + " can't be compared so")
	}
	if addr {
		start := p.tok.pos
		if p.i < len(p.list) && p.list[p.i].Kind == kamcfg.String {
			if err := p.advance(); err != nil {
				return nil, err
			}
			start, e.text = p.tok.pos, p.tok.text
		} else {
			e.text = p.address()
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		if e.text == "myself" {
			return nil, fault(start, `use $siptrace(direction) == "in" or "out"`, "myself is not known outside the proxy")
		}
		prefix, err := parsePrefix(e.text)
		if err != nil {
			return nil, fault(start, "write an address, or a network such as 10.0.0.0/8; names are not looked up", "%q is not an address", e.text)
		}
		e.prefix = prefix
		return e, nil
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	t := p.tok
	e.text, e.num = t.text, t.num
	switch {
	case t.kind == tWord && t.text == "myself":
		return nil, fault(t.pos, "compare the host, as in $rd == \"sip.example.com\"", "myself is not known outside the proxy")
	case e.what == "proto" || e.what == "af":
		known := protocols
		if e.what == "af" {
			known = []string{"inet", "inet6"}
		}
		if e.text = strings.ToLower(t.text); !slices.Contains(known, e.text) || t.kind != tWord && t.kind != tString {
			return nil, p.unexpected(e.what + " is one of " + strings.Join(known, ", "))
		}
	case e.what == "status" && t.kind == tNumber, e.what == "status" && t.kind == tString && (e.op[0] == '=' || e.op[0] == '!'):
	case numeric && t.kind == tNumber:
	case !numeric && t.kind == tString, e.what == "method" && t.kind == tWord:
	default:
		return nil, p.unexpected(e.what + " is compared with a constant here")
	}
	return e, p.advance()
}

func parsePrefix(s string) (netip.Prefix, error) {
	s = strings.NewReplacer("[", "", "]", "").Replace(s)
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("parse address: %w", err)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
