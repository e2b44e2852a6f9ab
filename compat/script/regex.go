package script

import (
	"regexp/syntax"

	"siptraced/compat/ere"
)

// How Kamailio compiles a regular expression.
const (
	anyCase   = ere.FoldCase               // =~: letter case does not count
	byLines   = ere.FoldCase | ere.Newline // search()
	exactCase = ere.Flags(0)               // switch: letter case counts
)

// matcher says whether a text matches.
type matcher func(m *Message, b []byte) bool

// compileRegex makes a matcher. Patterns that are plain text, with ^ and $ or
// without, and alternatives of such, are compared directly; all others are
// first looked over for text that they need (literal.go).
func compileRegex(pattern string, mode ere.Flags) (matcher, error) {
	re, err := ere.Compile(pattern, mode)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return nil, err
	}
	tree = tree.Simplify()
	if mode == anyCase {
		if list, ok := plain(tree); ok {
			return list.match, nil
		}
	}
	need := required(tree)
	if len(need) < 2 {
		return func(m *Message, b []byte) bool {
			m.steps -= len(b) / 32
			return re.Match(b)
		}, nil
	}
	return func(m *Message, b []byte) bool {
		m.steps -= len(b) / 32
		return containsFold(b, need) && re.Match(b)
	}, nil
}
