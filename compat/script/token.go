package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
)

type tokenKind uint8

const (
	tEOF tokenKind = iota
	tWord
	tNumber
	tString
	tPV // $name, $name(inner), $(name...)
	tOp
)

// token is a token of kamcfg's, with signs joined to operators.
type token struct {
	kind tokenKind
	text string // of a string: its value; of an operator: its usual spelling
	raw  string // as written
	num  int32
	pos  kamcfg.Pos
}

// reader goes through the tokens of one route.
type reader struct {
	list []kamcfg.Token
	i    int        // of the next one
	end  kamcfg.Pos // of the route
}

func fault(at kamcfg.Pos, hint, format string, args ...any) *kamcfg.Error {
	return &kamcfg.Error{Pos: at, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// pairs are the operators of two signs.
var pairs = []string{"&&", "||", "==", "!=", "=~", "!~", "<=", ">=", "<<", ">>"}

const signs = "+-*/%&|^~!<>=(){}[],;:@."

// wordOperators are operators by name (cfg.lex of Kamailio); ieq and ine compare
// as numbers, eq and ne as strings.
var wordOperators = map[string]string{"and": "&&", "or": "||", "not": "!", "mod": "%", "eq": "eq", "ne": "ne", "ieq": "ieq", "ine": "ine"}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// next takes the next token.
func (r *reader) next() (token, error) {
	if r.i == len(r.list) {
		return token{pos: r.end}, nil
	}
	k := r.list[r.i]
	r.i++
	t := token{text: k.Text, raw: k.Text, pos: k.Pos}
	if e := (*kamcfg.Error)(nil); errors.As(k.Unresolved, &e) {
		return t, fault(k.Pos, e.Hint, "%s (%s)", e.Msg, e.Pos)
	}
	switch {
	case k.Kind == kamcfg.String:
		t.kind = tString
	case k.Kind == kamcfg.Variable && strings.HasPrefix(k.Text, "@"+settings):
		t.kind, t.text = tPV, "$sel("+k.Text[1:]+")"
	case k.Kind == kamcfg.Variable && k.Text[0] == '@':
		t.kind, t.text = tOp, "@"
	case k.Kind == kamcfg.Variable:
		t.kind = tPV
	case k.Kind == kamcfg.Word && k.Text[0] >= '0' && k.Text[0] <= '9':
		n, ok, err := kamcfg.ParseInt(k.Text)
		if !ok || err != nil {
			return t, fault(k.Pos, "integers have 32 bits; 0x is hexadecimal, a leading 0 octal, a trailing b binary", "%s is not a number here", k.Text)
		}
		t.kind, t.num = tNumber, int32(n)
	case k.Kind == kamcfg.Word:
		t.kind = tWord
		if op, ok := wordOperators[k.Text]; ok {
			t.kind, t.text = tOp, op
		}
	case k.Kind == '$':
		return t, fault(k.Pos, "write $name, $name(inner) or $(name{transformation})", "$ without a name")
	default:
		t.kind = tOp
		if r.i < len(r.list) && r.list[r.i].Adjoins && slices.Contains(pairs, k.Text+r.list[r.i].Text) {
			t.text += r.list[r.i].Text
			t.raw = t.text
			r.i++
		} else if !slices.Contains([]byte(signs), k.Kind) {
			return t, fault(k.Pos, "", "unexpected character %q", k.Kind)
		}
	}
	return t, nil
}

// address takes the tokens of an address or a network, which is written without
// quotes: 10.0.0.0/8, [2001:db8::1].
func (r *reader) address() string {
	text := ""
	for first := true; r.i < len(r.list); first = false {
		k := r.list[r.i]
		if !first && !k.Adjoins || k.Kind != kamcfg.Word && !slices.Contains([]byte(".:/[]"), k.Kind) {
			break
		}
		text += k.Text
		r.i++
	}
	return text
}
