package script

import (
	"regexp"
	"strconv"

	"siptraced/compat/ere"
	"siptraced/compat/kamcfg"
)

// typeOf is what an expression is known to be before it runs: isInt, isStr, or
// isNull for what shows only then.
func typeOf(e expr) kind {
	switch e := e.(type) {
	case *literal:
		return e.v.kind
	case *unary:
		if e.op == "(str)" {
			return isStr
		}
		return isInt
	case *binary:
		if e.op == "+" {
			return typeOf(e.l)
		}
		return isInt
	case *call, *coreTest:
		return isInt
	}
	return isNull
}

// fold checks types as Kamailio does when it reads its configuration, and works
// out what is constant.
func (c *compiler) fold(e expr) (expr, error) {
	mismatch := func(at kamcfg.Pos, op, want string) error {
		return fail(at, refuse("Kamailio refuses it too; "+want, "type mismatch at %s", op))
	}
	switch e := e.(type) {
	case *unary:
		if typeOf(e.x) == isStr {
			return nil, mismatch(e.pos, e.op, "a number is wanted, not a string")
		}
		if lit, ok := e.x.(*literal); ok {
			switch e.op {
			case "-":
				return &literal{integer(-lit.v.n)}, nil
			case "~":
				return &literal{integer(^lit.v.n)}, nil
			case "!":
				return &literal{integer(boolean(lit.v.n == 0))}, nil
			}
		}
	case *binary:
		l, r := typeOf(e.l), typeOf(e.r)
		switch e.op {
		case "==", "!=", "+", "eq", "ne":
			if l == isInt && r == isStr {
				return nil, mismatch(e.pos, e.op, "put the string on the left, or write a number")
			}
		case "=~", "!~":
			if l == isInt || r == isInt {
				return nil, mismatch(e.pos, e.op, "strings are matched, not numbers")
			}
		default:
			if l == isStr || r == isStr {
				return nil, mismatch(e.pos, e.op, "numbers are wanted on both sides")
			}
		}
		a, ok1 := e.l.(*literal)
		b, ok2 := e.r.(*literal)
		if !ok1 || !ok2 {
			return e, nil
		}
		if e.op == "+" && l == isStr {
			var m Message
			return &literal{text(string(m.text(a.v)) + string(m.text(b.v)))}, nil
		}
		if l == isInt && r == isInt {
			if f := intOps[e.op]; f != nil && (b.v.n != 0 || e.op != "/" && e.op != "%") {
				return &literal{integer(f(a.v.n, b.v.n))}, nil
			}
		}
	}
	return e, nil
}

// intOps work on 32 bits and wrap, as Kamailio's do; the caller looks out for a
// division by zero.
var intOps = map[string]func(a, b int32) int32{
	"+":  func(a, b int32) int32 { return a + b },
	"-":  func(a, b int32) int32 { return a - b },
	"*":  func(a, b int32) int32 { return a * b },
	"/":  func(a, b int32) int32 { return a / b },
	"%":  func(a, b int32) int32 { return a % b },
	"&":  func(a, b int32) int32 { return a & b },
	"|":  func(a, b int32) int32 { return a | b },
	"^":  func(a, b int32) int32 { return a ^ b },
	"<<": func(a, b int32) int32 { return a << (uint32(b) & 31) },
	">>": func(a, b int32) int32 { return a >> (uint32(b) & 31) },
}

var compareOps = map[string]func(a, b int32) bool{
	"<":   func(a, b int32) bool { return a < b },
	">":   func(a, b int32) bool { return a > b },
	"<=":  func(a, b int32) bool { return a <= b },
	">=":  func(a, b int32) bool { return a >= b },
	"ieq": func(a, b int32) bool { return a == b },
	"ine": func(a, b int32) bool { return a != b },
}

// both compiles the two sides.
func both[F any](e *binary, compile func(expr) (F, error)) (l, r F, err error) {
	if l, err = compile(e.l); err == nil {
		r, err = compile(e.r)
	}
	return l, r, err
}

// val compiles an expression to its value. A function alone gives what it
// returns, -1 for false; within an expression it is 1 or 0 (measured): operand.
func (c *compiler) val(e expr) (func(*Message) value, error) {
	switch e := e.(type) {
	case *literal:
		v := e.v
		return func(*Message) value { return v }, nil
	case *pvar:
		return e.get, nil
	case *call:
		f, err := c.call(e)
		if err != nil {
			return nil, err
		}
		return func(m *Message) value {
			m.rc = f(m)
			return integer(m.rc)
		}, nil
	case *unary:
		if e.op == "(str)" {
			x, err := c.operand(e.x)
			if err != nil {
				return nil, err
			}
			return func(m *Message) value { return notNil(m.text(x(m))) }, nil
		}
	case *binary:
		if e.op == "+" {
			l, r, err := both(e, c.operand)
			if err != nil {
				return nil, err
			}
			return func(m *Message) value {
				a := l(m)
				if a.kind != isInt {
					return m.add(a, r(m))
				}
				return integer(a.n + r(m).int())
			}, nil
		}
	}
	f, err := c.num(e)
	if err != nil {
		return nil, err
	}
	return func(m *Message) value { return integer(f(m)) }, nil
}

func (c *compiler) operand(e expr) (func(*Message) value, error) {
	if _, ok := e.(*call); ok {
		f, err := c.num(e)
		if err != nil {
			return nil, err
		}
		return func(m *Message) value { return integer(f(m)) }, nil
	}
	return c.val(e)
}

// num compiles an expression to a number.
func (c *compiler) num(e expr) (func(*Message) int32, error) {
	switch e := e.(type) {
	case *literal:
		n := e.v.int()
		return func(*Message) int32 { return n }, nil
	case *pvar:
		get := e.get
		return func(m *Message) int32 { return get(m).int() }, nil
	case *unary:
		return c.unaryNum(e)
	case *binary:
		if f := intOps[e.op]; f != nil && e.op != "+" {
			l, r, err := both(e, c.num)
			if err != nil {
				return nil, err
			}
			divides := e.op == "/" || e.op == "%"
			return func(m *Message) int32 {
				a, b := l(m), r(m)
				if divides && b == 0 {
					m.failed(FaultDivide)
					return 0
				}
				return f(a, b)
			}, nil
		}
		if e.op == "+" {
			f, err := c.val(e)
			if err != nil {
				return nil, err
			}
			return func(m *Message) int32 { return f(m).int() }, nil
		}
	}
	cond, err := c.cond(e)
	if err != nil {
		return nil, err
	}
	return func(m *Message) int32 { return boolean(cond(m)) }, nil
}

func (c *compiler) unaryNum(e *unary) (func(*Message) int32, error) {
	switch e.op {
	case "-", "~", "(int)", "!":
		x, err := c.num(e.x)
		if err != nil {
			return nil, err
		}
		switch e.op {
		case "-":
			return func(m *Message) int32 { return -x(m) }, nil
		case "~":
			return func(m *Message) int32 { return ^x(m) }, nil
		case "!":
			return func(m *Message) int32 { return boolean(x(m) == 0) }, nil
		}
		return x, nil
	}
	x, err := c.operand(e.x)
	if err != nil {
		return nil, err
	}
	switch e.op {
	case "strlen":
		return func(m *Message) int32 { return int32(len(m.text(x(m)))) }, nil
	case "strempty":
		return func(m *Message) int32 { return boolean(len(m.text(x(m))) == 0) }, nil
	}
	return func(m *Message) int32 { return boolean(x(m).kind != isNull) }, nil // defined
}

// cond compiles an expression to a condition: more than 0 is true.
func (c *compiler) cond(e expr) (func(*Message) bool, error) {
	switch e := e.(type) {
	case *call:
		f, err := c.call(e)
		if err != nil {
			return nil, err
		}
		return func(m *Message) bool {
			m.rc = f(m)
			return m.rc > 0
		}, nil
	case *unary:
		if e.op == "!" && boolType(e.x) {
			x, err := c.cond(e.x)
			if err != nil {
				return nil, err
			}
			return func(m *Message) bool { return !x(m) }, nil
		}
	case *coreTest:
		return c.coreTest(e)
	case *binary:
		switch e.op {
		case "&&", "||":
			l, r, err := both(e, c.cond)
			if err != nil {
				return nil, err
			}
			if e.op == "&&" {
				return func(m *Message) bool { return l(m) && !m.ended && r(m) }, nil
			}
			return func(m *Message) bool { return l(m) || !m.ended && r(m) }, nil
		case "==", "!=":
			return c.equality(e)
		case "=~", "!~":
			return c.matching(e)
		case "eq", "ne":
			l, r, err := both(e, c.operand)
			if err != nil {
				return nil, err
			}
			want := e.op == "eq"
			return func(m *Message) bool {
				a := m.text(l(m))
				return string(a) == string(m.text(r(m))) == want
			}, nil
		}
		if f := compareOps[e.op]; f != nil {
			l, r, err := both(e, c.num)
			if err != nil {
				return nil, err
			}
			return func(m *Message) bool {
				a := l(m)
				return f(a, r(m))
			}, nil
		}
	}
	f, err := c.num(e)
	if err != nil {
		return nil, err
	}
	return func(m *Message) bool { return f(m) > 0 }, nil
}

// boolType says that an expression is 1 or 0 where it stands in another one.
func boolType(e expr) bool {
	switch e := e.(type) {
	case *call, *coreTest:
		return true
	case *unary:
		return e.op == "!" || e.op == "defined" || e.op == "strempty"
	case *binary:
		return intOps[e.op] == nil
	}
	return false
}

func (c *compiler) equality(e *binary) (func(*Message) bool, error) {
	l, err := c.operand(e.l)
	if err != nil {
		return nil, err
	}
	want := e.op == "=="
	if lit, ok := e.r.(*literal); ok {
		right := lit.v
		switch {
		case right.kind == isStr && len(right.s) == 0: // is the text empty? Kamailio makes it so
			return func(m *Message) bool { return len(m.text(l(m))) == 0 == want }, nil
		case right.kind == isStr:
			s := string(right.s)
			return func(m *Message) bool {
				if v := l(m); v.kind == isStr {
					return string(v.s) == s == want
				} else {
					return m.equal(v, right) == want
				}
			}, nil
		}
		return func(m *Message) bool {
			if v := l(m); v.kind == isInt {
				return v.n == right.n == want
			} else {
				return m.equal(v, right) == want
			}
		}, nil
	}
	r, err := c.operand(e.r)
	if err != nil {
		return nil, err
	}
	return func(m *Message) bool {
		a := l(m)
		return m.equal(a, r(m)) == want
	}, nil
}

func (c *compiler) matching(e *binary) (func(*Message) bool, error) {
	l, err := c.operand(e.l)
	if err != nil {
		return nil, err
	}
	want := e.op == "=~"
	if lit, ok := e.r.(*literal); ok {
		match, err := compileRegex(string(lit.v.s), anyCase)
		if err != nil {
			return nil, fail(e.pos, refuse("", "regular expression %s: %v", lit, err))
		}
		return func(m *Message) bool { return match(m, m.text(l(m))) == want }, nil
	}
	r, err := c.operand(e.r)
	if err != nil {
		return nil, err
	}
	return func(m *Message) bool {
		b := m.text(l(m))
		re := m.regex(m.text(r(m)))
		if re == nil {
			m.failed(FaultRegex)
			return false
		}
		m.steps -= len(b) / 32
		return re.Match(b) == want
	}, nil
}

// regex compiles a regular expression made at run time, and keeps some of them.
func (m *Message) regex(pattern []byte) *regexp.Regexp {
	if re, ok := m.regexes[string(pattern)]; ok {
		return re
	}
	m.steps -= 1000
	re, err := ere.Compile(string(pattern), anyCase)
	if err != nil {
		re = nil
	}
	if m.regexes == nil || len(m.regexes) >= 64 {
		m.regexes = map[string]*regexp.Regexp{}
	}
	if len(pattern) <= ere.MaxPattern {
		m.regexes[string(pattern)] = re
	}
	return re
}

// coreTest compiles method=="INVITE" and its kin. Letter case does not count.
func (c *compiler) coreTest(e *coreTest) (func(*Message) bool, error) {
	switch e.what {
	case "src_ip", "dst_ip":
		which, want, prefix := end(e.what), e.op == "==", e.prefix
		return func(m *Message) bool { return prefix.Contains(m.addr(which).Addr().Unmap().WithZone("")) == want }, nil
	case "src_port", "dst_port", "msg:len":
		return c.coreNumber(e)
	case "proto":
		want, proto := e.op == "==", e.text
		return func(m *Message) bool { return string(m.proto(0)) == proto == want }, nil
	case "af":
		want, four := e.op == "==", e.text == "inet"
		return func(m *Message) bool {
			a := m.addr(0).Addr().Unmap()
			return (a.IsValid() && a.Is4() == four) == want
		}, nil
	case "status":
		if e.op != "=~" && e.op != "!~" {
			return c.coreNumber(e)
		}
	}
	get := map[string]func(*Message) value{
		"method": plainPVs["rm"], "status": plainPVs["rs"], "uri": plainPVs["ru"], "from_uri": plainPVs["fu"], "to_uri": plainPVs["tu"],
	}[e.what]
	want := e.op == "==" || e.op == "=~"
	if e.op == "=~" || e.op == "!~" {
		match, err := compileRegex(e.text, anyCase)
		if err != nil {
			return nil, fail(e.pos, refuse("", "regular expression %q: %v", e.text, err))
		}
		return func(m *Message) bool {
			v := get(m)
			return (v.kind != isNull && match(m, m.text(v))) == want
		}, nil
	}
	lower := make([]byte, len(e.text))
	for i := range lower {
		lower[i] = fold(e.text[i])
	}
	s := string(lower)
	return func(m *Message) bool { return equalFold(m.text(get(m)), s) == want }, nil
}

func end(what string) int {
	if what[:3] == "src" {
		return 0
	}
	return 1
}

func (c *compiler) coreNumber(e *coreTest) (func(*Message) bool, error) {
	get := map[string]func(*Message) int32{
		"src_port": func(m *Message) int32 { return int32(m.addr(0).Port()) },
		"dst_port": func(m *Message) int32 { return int32(m.addr(1).Port()) },
		"msg:len":  func(m *Message) int32 { return int32(len(m.SIP.Raw)) },
	}[e.what]
	if e.what == "status" {
		rs := plainPVs["rs"]
		get = func(m *Message) int32 { return rs(m).n }
		if _, err := strconv.Atoi(e.text); err != nil {
			return nil, fail(e.pos, refuse(`write status=="200" or status=~"^2"`, "status %q is not a number", e.text))
		}
		n, _ := number([]byte(e.text))
		e.num = n
	}
	n := e.num
	switch e.op {
	case "==":
		return func(m *Message) bool { return get(m) == n }, nil
	case "!=":
		return func(m *Message) bool { return get(m) != n }, nil
	}
	f := compareOps[e.op]
	return func(m *Message) bool { return f(get(m), n) }, nil
}
