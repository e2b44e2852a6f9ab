package kamcfg

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// result of an #!ifexp or #!defexp expression: a string or a number, which
// Kamailio keeps in 32 bits.
type result struct {
	s     string
	n     float32
	isStr bool
}

func nan() float32 { return float32(math.NaN()) }

func isNaN(n float32) bool { return math.IsNaN(float64(n)) }

// truth is that of a whole expression; not-a-number is true.
func (r result) truth() bool { return r.isStr && r.s != "" || !r.isStr && r.n != 0 }

// operand is the number that && and || look at; a string counts, an empty one too.
func (r result) operand() float32 {
	if r.isStr {
		return 1
	}
	return r.n
}

// text is the value as a string of an expression has it.
func (r result) text() string {
	switch whole := float32(int64(r.n)) == r.n; {
	case r.isStr:
		return r.s
	case whole:
		return strconv.FormatInt(int64(r.n), 10)
	}
	return strconv.FormatFloat(float64(r.n), 'g', 4, 32)
}

// number is the value as an operand of arithmetic has it: not-a-number for what
// isn't written as digits with at most one point.
func (r result) number() float32 {
	if !r.isStr {
		return r.n
	}
	if strings.Trim(r.s, "0123456789.") != "" {
		return nan()
	}
	n, err := strconv.ParseFloat(r.s, 32)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nan()
	}
	return float32(n)
}

func boolean(ok bool) result {
	if ok {
		return result{n: 1}
	}
	return result{}
}

func str(s string) result { return result{s: s, isStr: true} }

// term is a piece of an expression, not evaluated yet: && and || leave out what
// doesn't matter.
type term func() (result, error)

// evaluator reads an expression as Kamailio's library for them has it (core
// cookbook of 5.7 and later, "ifexp"): a define is its value as a string, 1 if it
// has none, 0 if it isn't defined; in a comparison and with + the right operand
// takes the type of the left.
type evaluator struct {
	l     *lexer
	at    Pos
	in    string
	depth int
	vars  map[string]result // what = assigned
}

// eval evaluates an expression; an error says why that can't be done, which
// Kamailio logs.
func (l *lexer) eval(s string, at Pos) (result, error) {
	e := &evaluator{l: l, at: at, in: s, vars: map[string]result{}}
	if e.space() == "" {
		return result{}, errors.New("it is empty")
	}
	t, err := e.binary(0)
	if err == nil && e.space() != "" {
		err = e.refuse()
	}
	if err != nil {
		return result{}, err
	}
	return t()
}

func (e *evaluator) space() string {
	e.in = strings.TrimLeft(e.in, " \t\r")
	if strings.HasPrefix(e.in, "#") {
		e.in = ""
	}
	return e.in
}

func (e *evaluator) refuse() error {
	if e.space() == "" {
		return errors.New("it ends too early")
	}
	return fmt.Errorf("it can't go on at %q", e.in[:1])
}

// levels are the binary operators, those that bind least first.
var levels = [][]string{
	{","}, {"="}, {"||"}, {"&&"}, {"^"}, {"|"}, {"&"}, {"==", "!=", "<=", "<", ">=", ">"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}, {"**"},
}

// op is the operator that comes next, the longest that fits; "" for none.
func (e *evaluator) op() string {
	e.space()
	best := ""
	for _, level := range levels {
		for _, op := range level {
			if strings.HasPrefix(e.in, op) && len(op) > len(best) {
				best = op
			}
		}
	}
	return best
}

func (e *evaluator) binary(level int) (term, error) {
	if level == len(levels) {
		return e.unary()
	}
	before := e.space()
	a, err := e.binary(level + 1)
	left := strings.TrimSpace(before[:len(before)-len(e.in)])
	for err == nil {
		op := e.op()
		if !slices.Contains(levels[level], op) {
			break
		}
		if op == "=" && (left == "" || nameAt(left) != left) {
			return nil, errors.New("= wants a name to its left; == compares")
		}
		e.in = e.in[len(op):]
		next := level + 1
		if op == "=" || op == "**" { // from the right
			next = level
		}
		var b term
		if b, err = e.binary(next); err == nil {
			a = e.bind(op, left, a, b)
		}
	}
	return a, err
}

// nameAt is the name that s begins with, if there is one.
func nameAt(s string) string {
	n := 0
	for n < len(s) && (isName(s[n]) || n > 0 && (s[n] == '#' || digit(int(s[n])) < 10)) {
		n++
	}
	return s[:n]
}

// isName says what a name may begin with: more than a define can be called.
func isName(c byte) bool { return c >= '@' && c != '^' && c != '|' || c == '$' }

func (e *evaluator) bind(op, name string, a, b term) term {
	return func() (result, error) {
		if op == "=" {
			v, err := b()
			e.vars[name] = v
			return v, err
		}
		x, err := a()
		if err != nil {
			return x, err
		}
		switch n := x.operand(); {
		case op == "&&" && n == 0:
			return result{}, nil
		case op == "||" && n != 0 && !isNaN(n): // not-a-number lets the right side decide
			return result{n: n}, nil
		}
		y, err := b()
		if err != nil {
			return y, err
		}
		switch op {
		case ",":
			return y, nil
		case "&&", "||":
			return result{n: y.operand()}, nil
		case "+":
			return plus(x, y)
		case "==", "!=", "<", "<=", ">", ">=":
			return boolean(compare(op, x, y)), nil
		}
		return arithmetic(op, x, y)
	}
}

func plus(x, y result) (result, error) {
	if !x.isStr {
		return result{n: x.n + y.number()}, nil
	}
	if len(x.s)+len(y.s) > maxString {
		return x, fmt.Errorf("string grows beyond %d bytes", maxString)
	}
	return str(x.s + y.text()), nil
}

// compare compares as the left operand's type does. Not-a-number differs from
// everything.
func compare(op string, x, y result) bool {
	a, b := x.n, y.number()
	if x.isStr {
		a, b = float32(strings.Compare(x.s, y.text())), 0
	}
	switch op {
	case "==":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

// arithmetic is for numbers alone.
func arithmetic(op string, x, y result) (result, error) {
	if x.isStr || y.isStr {
		return x, fmt.Errorf("%s is for numbers, and a string stands beside it (the value of a define is one)", op)
	}
	switch op {
	case "-":
		x.n -= y.n
	case "*":
		x.n *= y.n
	case "/":
		if y.n == 0 {
			return x, errors.New("division by zero")
		}
		x.n /= y.n
	case "%":
		x.n = float32(math.Mod(float64(x.n), float64(y.n)))
	case "**":
		x.n = float32(math.Pow(float64(x.n), float64(y.n)))
	default:
		x.n = float32(bits(op, whole(x.n), whole(y.n)))
	}
	return x, nil
}

func bits(op string, a, b int32) int32 {
	switch op {
	case "<<":
		return a << (uint32(b) & 31)
	case ">>":
		return a >> (uint32(b) & 31)
	case "&":
		return a & b
	case "|":
		return a | b
	}
	return a ^ b
}

// whole cuts a number to 32 bits.
func whole(n float32) int32 {
	switch {
	case isNaN(n):
		return 0
	case n >= math.MaxInt32:
		return math.MaxInt32
	case n <= math.MinInt32:
		return math.MinInt32
	}
	return int32(n)
}

func (e *evaluator) unary() (term, error) {
	if e.depth++; e.depth > 100 {
		return nil, errors.New("it is nested more than 100 deep")
	}
	defer func() { e.depth-- }()
	if e.space() == "" {
		return nil, e.refuse()
	}
	switch c := e.in[0]; {
	case c == '!' || c == '-' || c == '^':
		e.in = e.in[1:]
		t, err := e.unary()
		return negate(c, t), err
	case c == '(':
		e.in = e.in[1:]
		t, err := e.binary(0)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(e.space(), ")") {
			return nil, e.refuse()
		}
		e.in = e.in[1:]
		return t, nil
	case c == '"' || c == '\'':
		return e.quoted(c)
	case digit(int(c)) < 10:
		n := len(e.in) - len(strings.TrimLeft(e.in, "0123456789."))
		v := str(e.in[:n]).number()
		if e.in = e.in[n:]; isNaN(v) || nameAt(e.in) != "" {
			return nil, errors.New("a number is malformed")
		}
		return func() (result, error) { return result{n: v}, nil }, nil
	case isName(c):
		name := nameAt(e.in)
		if e.in = e.in[len(name):]; strings.HasPrefix(e.space(), "(") {
			return nil, fmt.Errorf("%s is called as a function, and there are none", name)
		}
		return func() (result, error) { return e.define(name) }, nil
	}
	return nil, e.refuse()
}

func negate(op byte, t term) term {
	return func() (result, error) {
		r, err := t()
		switch {
		case err != nil:
			return r, err
		case r.isStr:
			return r, fmt.Errorf("%c is for numbers, and a string follows (the value of a define is one)", op)
		case op == '!':
			return boolean(r.n == 0), nil
		case op == '-':
			return result{n: -r.n}, nil
		}
		return result{n: float32(^whole(r.n))}, nil
	}
}

func (e *evaluator) quoted(q byte) (term, error) {
	var b []byte
	for i := 1; i < len(e.in); i++ {
		switch c := e.in[i]; {
		case c == q:
			e.in = e.in[i+1:]
			return func() (result, error) { return str(string(b)), nil }, nil
		case c == '\\' && i+1 < len(e.in):
			i++
			if c = e.in[i]; strings.IndexByte("nrt", c) >= 0 {
				c = "\n\r\t"[strings.IndexByte("nrt", c)]
			}
			b = append(b, c)
		default:
			b = append(b, c)
		}
	}
	return nil, errors.New("a string is never closed")
}

// define is the value of a name.
func (e *evaluator) define(name string) (result, error) {
	if v, there := e.vars[name]; there {
		return v, nil
	}
	e.l.versionTested(name, e.at)
	v, there := e.l.defs[name]
	switch {
	case !there:
		return result{}, nil
	case v == "":
		return result{n: 1}, nil
	case strings.Contains(v, unknownMark):
		return result{}, fmt.Errorf("%s hangs on a variable: %s", name, e.l.reason(v).Msg)
	case len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0]:
		v = v[1 : len(v)-1]
	}
	return str(v), nil
}
