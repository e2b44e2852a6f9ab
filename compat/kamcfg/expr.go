package kamcfg

import (
	"slices"
	"strconv"
	"strings"
)

// result of an #!ifexp or #!defexp expression: a string or a whole number.
type result struct {
	s     string
	n     int64
	isStr bool
}

func (r result) truth() bool { return r.isStr && r.s != "" || !r.isStr && r.n != 0 }

func (r result) text() string {
	if r.isStr {
		return r.s
	}
	return strconv.FormatInt(r.n, 10)
}

func number(ok bool) result {
	if ok {
		return result{n: 1}
	}
	return result{}
}

// evaluator reads an expression as the core cookbook (5.7 and later, "ifexp")
// has it: a define is its value as a string, 1 if it has none, 0 if it isn't
// defined; the right operand takes the type of the left.
type evaluator struct {
	l     *lexer
	at    Pos
	in    string
	depth int
}

func (l *lexer) eval(s string, at Pos) (result, error) {
	e := &evaluator{l: l, at: at, in: s}
	r, err := e.binary(0)
	if err == nil && e.op() != "" {
		err = e.refuse()
	}
	return r, err
}

func (e *evaluator) refuse() error {
	e.in = strings.TrimLeft(e.in, " \t")
	what := "it ends too early"
	if e.in != "" {
		what = "can't go on at " + strconv.Quote(e.in[:1])
	}
	return fail(e.at, "known are numbers, strings, defines, ( ) ! && || == != < <= > >= + - * / %; else use #!ifdef", "expression: %s", what)
}

var levels = [][]string{{"||"}, {"&&"}, {"==", "!="}, {"<=", ">=", "<", ">"}, {"+", "-"}, {"*", "/", "%"}}

// op is the operator that comes next, "" at the end, "?" for anything else.
func (e *evaluator) op() string {
	e.in = strings.TrimLeft(e.in, " \t")
	if e.in == "" {
		return ""
	}
	for _, level := range levels {
		for _, op := range level {
			if after, ok := strings.CutPrefix(e.in, op); ok {
				if op == after[:min(1, len(after))] || (op == "<" || op == ">") && strings.HasPrefix(after, op) {
					return "?" // ** << >>
				}
				return op
			}
		}
	}
	return "?"
}

func (e *evaluator) binary(level int) (result, error) {
	if level == len(levels) {
		return e.unary()
	}
	a, err := e.binary(level + 1)
	for err == nil {
		op := e.op()
		if !slices.Contains(levels[level], op) {
			break
		}
		e.in = e.in[len(op):]
		var b result
		if b, err = e.binary(level + 1); err == nil {
			a, err = e.apply(op, a, b)
		}
	}
	return a, err
}

func (e *evaluator) apply(op string, a, b result) (result, error) {
	switch op {
	case "||":
		return number(a.truth() || b.truth()), nil
	case "&&":
		return number(a.truth() && b.truth()), nil
	}
	cmp := 0
	if a.isStr {
		if op == "+" {
			if s := a.s + b.text(); len(s) <= maxString {
				return result{s: s, isStr: true}, nil
			}
			return a, fail(e.at, "", "expression: string grows beyond %d bytes", maxString)
		}
		cmp = strings.Compare(a.s, b.text())
	} else {
		if b.isStr {
			n, err := strconv.ParseInt(b.s, 10, 64)
			if err != nil {
				return a, fail(e.at, "put the string on the left to compare as strings", "expression: a number is wanted to the right of %s", op)
			}
			b = result{n: n}
		}
		switch {
		case a.n < b.n:
			cmp = -1
		case a.n > b.n:
			cmp = 1
		}
	}
	switch op {
	case "==":
		return number(cmp == 0), nil
	case "!=":
		return number(cmp != 0), nil
	case "<":
		return number(cmp < 0), nil
	case "<=":
		return number(cmp <= 0), nil
	case ">":
		return number(cmp > 0), nil
	case ">=":
		return number(cmp >= 0), nil
	}
	switch {
	case a.isStr:
		return a, fail(e.at, "", "expression: %s is for numbers, not for strings", op)
	case op == "+":
		a.n += b.n
	case op == "-":
		a.n -= b.n
	case op == "*":
		a.n *= b.n
	case b.n == 0:
		return a, fail(e.at, "", "expression: division by zero")
	case op == "/":
		a.n /= b.n
	default:
		a.n %= b.n
	}
	return a, nil
}

func (e *evaluator) unary() (result, error) {
	if e.depth++; e.depth > 100 {
		return result{}, fail(e.at, "", "expression: nested more than 100 deep")
	}
	defer func() { e.depth-- }()
	e.in = strings.TrimLeft(e.in, " \t")
	if e.in == "" {
		return result{}, e.refuse()
	}
	switch c := e.in[0]; {
	case c == '!' || c == '-':
		e.in = e.in[1:]
		r, err := e.unary()
		if c == '!' {
			return number(!r.truth()), err
		}
		if err == nil && r.isStr {
			err = fail(e.at, "", "expression: - is for numbers, not for strings")
		}
		return result{n: -r.n}, err
	case c == '(':
		e.in = e.in[1:]
		r, err := e.binary(0)
		if err != nil {
			return r, err
		}
		if e.in = strings.TrimLeft(e.in, " \t"); e.in == "" || e.in[0] != ')' {
			return r, e.refuse()
		}
		e.in = e.in[1:]
		return r, nil
	case c == '"' || c == '\'':
		end := strings.IndexByte(e.in[1:], c)
		if end < 0 {
			return result{}, fail(e.at, "", "expression: string is never closed")
		}
		s := e.in[1 : 1+end]
		e.in = e.in[end+2:]
		return result{s: s, isStr: true}, nil
	case isWord(int(c)):
		n := 1
		for n < len(e.in) && isWord(int(e.in[n])) {
			n++
		}
		w := e.in[:n]
		e.in = e.in[n:]
		if digit(int(c)) < 10 {
			v, err := strconv.ParseInt(w, 10, 64)
			if err != nil {
				return result{}, fail(e.at, "", "expression: %s is not a number", w)
			}
			return result{n: v}, nil
		}
		e.l.versionTested(w, e.at)
		v, there := e.l.defs[w]
		switch {
		case !there:
			return result{}, nil
		case v == "":
			return result{n: 1}, nil
		case len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0]:
			v = v[1 : len(v)-1]
		}
		return result{s: v, isStr: true}, nil
	}
	return result{}, e.refuse()
}
