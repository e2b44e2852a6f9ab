package flexisip

import (
	"bytes"
	"regexp"
	"sync"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// Filter is a compiled expression. It is safe for concurrent use.
type Filter struct {
	text  string
	nodes []node
	root  int
	work  sync.Pool // *work
}

type op uint8

const (
	opTrue op = iota
	opFalse
	opRequest
	opResponse
	opAnd
	opOr
	opNot
	opEqual
	opContains
	opIn
	opRegex
	opDefined
	opNumeric
)

// node is one operation. Those that begin with a variable have a, those of two
// values b also; the others have left and right in Filter.nodes.
type node struct {
	op          op
	left, right int
	a, b        value
	words       map[string]struct{} // of a constant right of in
	patterns    []pattern           // all have to hold
}

// pattern is a part of a regular expression: all of it, or a look-ahead.
type pattern struct {
	re  *regexp.Regexp
	not bool
}

// value is a constant, or a variable read from the message.
type value struct {
	variable variable // nil: a constant
	text     []byte
}

func (v *value) get(m *sipmsg.Message, r *siptrace.Record, w *work, buf []byte) []byte {
	if v.variable == nil {
		return v.text
	}
	return v.variable(m, r, w, buf)
}

// work is the memory of one evaluation: for variables that are not in the
// message as such, and for what several of them are read from.
type work struct {
	a, b [512]byte     // more than any variable makes
	uris [4]sipmsg.URI // of Request-URI, From, To and Contact
	have [4]bool
}

// Match reports whether the expression is true of a message, which was parsed
// and is not nil. It does not allocate.
func (f *Filter) Match(m *sipmsg.Message, r *siptrace.Record) bool {
	w := f.work.Get().(*work)
	w.have = [4]bool{}
	ok := f.eval(f.root, m, r, w)
	f.work.Put(w)
	return ok
}

// String returns the expression as it was given to Compile.
func (f *Filter) String() string { return f.text }

func (f *Filter) eval(i int, m *sipmsg.Message, r *siptrace.Record, w *work) bool {
	for {
		n := &f.nodes[i]
		switch n.op {
		case opTrue:
			return true
		case opFalse:
			return false
		case opRequest:
			return m.IsRequest
		case opResponse:
			return !m.IsRequest
		case opAnd:
			if !f.eval(n.left, m, r, w) {
				return false
			}
			i = n.right
			continue
		case opOr:
			if f.eval(n.left, m, r, w) {
				return true
			}
			i = n.right
			continue
		case opNot:
			return !f.eval(n.left, m, r, w)
		}

		a := n.a.get(m, r, w, w.a[:0])
		switch n.op {
		case opEqual:
			return bytes.Equal(a, n.b.get(m, r, w, w.b[:0]))
		case opContains:
			return bytes.Contains(a, n.b.get(m, r, w, w.b[:0]))
		case opIn:
			if n.words != nil {
				_, ok := n.words[string(a)]
				return ok
			}
			return among(a, n.b.get(m, r, w, w.b[:0]))
		case opRegex:
			for _, p := range n.patterns {
				if p.re.Match(a) == p.not {
					return false
				}
			}
			return true
		case opDefined:
			return len(a) > 0
		default: // opNumeric: of nothing it is true, as in Flexisip
			for _, c := range a {
				if c < '0' || c > '9' {
					return false
				}
			}
			return true
		}
	}
}

// among reports whether word is one of the words of list.
func among(word, list []byte) bool {
	for len(list) > 0 {
		list = bytes.TrimLeft(list, blanks)
		end := bytes.IndexAny(list, blanks)
		if end < 0 {
			end = len(list)
		}
		if end > 0 && bytes.Equal(word, list[:end]) {
			return true
		}
		list = list[end:]
	}
	return false
}
