package script

import (
	"net/netip"
	"strconv"
	"strings"

	"siptraced/compat/kamcfg"
)

// stmt is one statement.
type stmt struct {
	kind  stmtKind
	pos   kamcfg.Pos
	expr  expr    // condition, value, call
	left  *pvar   // of an assignment
	body  []*stmt // of if, while
	other []*stmt // else
	cases []*caseLabel
}

type stmtKind uint8

const (
	sIf stmtKind = iota
	sWhile
	sSwitch
	sAssign
	sCall
	sReturn
	sExit
	sDrop
	sBreak
)

// caseLabel is one label of a switch with what follows it up to the next.
type caseLabel struct {
	pos     kamcfg.Pos
	value   *literal // nil: default
	isRegex bool
	body    []*stmt
}

// expr is *literal, *pvar, *call, *unary, *binary, *coreTest.
type expr interface{ String() string }

type literal struct {
	v value
}

func (e *literal) String() string {
	if e.v.kind == isInt {
		return strconv.Itoa(int(e.v.n))
	}
	return strconv.Quote(string(e.v.s))
}

type call struct {
	pos  kamcfg.Pos
	name string
	args []expr
}

func (e *call) String() string {
	var b strings.Builder
	b.WriteString(e.name + "(")
	for i, a := range e.args {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(a.String())
	}
	return b.String() + ")"
}

// unary has op "!", "-", "~", "(int)", "(str)", "defined", "strlen", "strempty".
type unary struct {
	pos kamcfg.Pos
	op  string
	x   expr
}

func (e *unary) String() string {
	switch {
	case e.op == "strlen" || e.op == "strempty":
		return e.op + "(" + e.x.String() + ")"
	case e.op == "defined":
		return "defined " + paren(e.x)
	}
	return e.op + paren(e.x)
}

type binary struct {
	pos  kamcfg.Pos
	op   string
	l, r expr
}

func (e *binary) String() string { return paren(e.l) + " " + e.op + " " + paren(e.r) }

// paren writes an operand so that precedence needs no thought.
func paren(e expr) string {
	if _, ok := e.(*binary); ok {
		return "(" + e.String() + ")"
	}
	return e.String()
}

// coreTest is a test of Kamailio's core without a pseudo-variable:
// method=="INVITE", src_ip==10.0.0.0/8, msg:len>1000.
type coreTest struct {
	pos    kamcfg.Pos
	what   string
	op     string
	text   string
	num    int32
	prefix netip.Prefix
}

func (e *coreTest) String() string { return e.what + " " + e.op + " " + e.text }

// writeStmts prints statements as one would write them, one to a line, each
// with its place.
func writeStmts(b *strings.Builder, list []*stmt, depth int) {
	for _, s := range list {
		switch s.kind {
		case sIf:
			writeIf(b, s, depth, "")
		case sWhile:
			line(b, s.pos, depth, "while ("+s.expr.String()+") {")
			writeStmts(b, s.body, depth+1)
			line(b, kamcfg.Pos{}, depth, "}")
		case sSwitch:
			line(b, s.pos, depth, "switch ("+s.expr.String()+") {")
			for _, c := range s.cases {
				switch {
				case c.value == nil:
					line(b, c.pos, depth, "default:")
				case c.isRegex:
					line(b, c.pos, depth, "case /"+c.value.String()+":")
				default:
					line(b, c.pos, depth, "case "+c.value.String()+":")
				}
				writeStmts(b, c.body, depth+1)
			}
			line(b, kamcfg.Pos{}, depth, "}")
		default:
			line(b, s.pos, depth, s.String()+";")
		}
	}
}

func writeIf(b *strings.Builder, s *stmt, depth int, before string) {
	line(b, s.pos, depth, before+"if ("+s.expr.String()+") {")
	writeStmts(b, s.body, depth+1)
	switch {
	case len(s.other) == 1 && s.other[0].kind == sIf:
		writeIf(b, s.other[0], depth, "} else ")
		return
	case len(s.other) > 0:
		line(b, kamcfg.Pos{}, depth, "} else {")
		writeStmts(b, s.other, depth+1)
	}
	line(b, kamcfg.Pos{}, depth, "}")
}

// line writes the number of a line and its text.
func line(b *strings.Builder, at kamcfg.Pos, depth int, text string) {
	n := ""
	if at.Line > 0 {
		n = strconv.Itoa(at.Line)
	}
	b.WriteString(strings.Repeat(" ", max(0, 6-len(n))) + n + "  " + strings.Repeat("    ", depth) + text + "\n")
}

// String is the head of a statement, without its blocks.
func (s *stmt) String() string {
	switch s.kind {
	case sIf:
		return "if (" + s.expr.String() + ")"
	case sWhile:
		return "while (" + s.expr.String() + ")"
	case sSwitch:
		return "switch (" + s.expr.String() + ")"
	case sAssign:
		return s.left.String() + " = " + s.expr.String()
	case sReturn:
		if s.expr != nil {
			return "return " + s.expr.String()
		}
		return "return"
	case sExit:
		return "exit"
	case sDrop:
		return "drop"
	case sBreak:
		return "break"
	}
	return s.expr.String()
}
