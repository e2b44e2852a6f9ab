package script

import (
	"bytes"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// Most conditions of routes look for plain text without regard to letter case, at
// which Go's engine is slow: it has no literal prefix to look for. BenchmarkMatch,
// four header values of 11 to 48 bytes each, ns per run (Go 1.26, EPYC):
//
//	pattern                          engine   here
//	friendly-scanner                 19,470    410
//	sipvicious|sipcli|sundayddr      24,820  2,680
//	^(100|112|911)$                   2,040    140
//	\.test\.example$                  6,240    250
//	@probe\.example\.com$               910    120
//	^\+49                             1,760    200

// fixed is one piece of plain text in lower case with its anchors.
type fixed struct {
	text       string
	begin, end bool
}

type fixedList []fixed

func (list fixedList) match(m *Message, b []byte) bool {
	m.steps -= len(b) / 32
	for i := range list {
		f := &list[i]
		n := len(f.text)
		switch {
		case n > len(b):
		case f.begin && f.end:
			if equalFold(b, f.text) {
				return true
			}
		case f.begin:
			if equalFold(b[:n], f.text) {
				return true
			}
		case f.end:
			if equalFold(b[len(b)-n:], f.text) {
				return true
			}
		default:
			if containsFold(b, f.text) {
				return true
			}
		}
	}
	return false
}

// plain recognises ^text, text$, ^(a|b)$, a|b and the like.
func plain(re *syntax.Regexp) (fixedList, bool) {
	if re.Op == syntax.OpAlternate {
		var all fixedList
		for _, sub := range re.Sub {
			list, ok := plain(sub)
			if !ok || len(all)+len(list) > 16 {
				return nil, false
			}
			all = append(all, list...)
		}
		return all, true
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	var begin, end bool
	if len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
		begin, parts = true, parts[1:]
	}
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		end, parts = true, parts[:n-1]
	}
	texts, ok := expand(parts)
	if !ok {
		return nil, false
	}
	list := make(fixedList, len(texts))
	for i, s := range texts {
		list[i] = fixed{s, begin, end}
	}
	return list, true
}

// expand lists the texts that a sequence of literals and alternatives can be.
func expand(parts []*syntax.Regexp) ([]string, bool) {
	texts := []string{""}
	for _, p := range parts {
		next, ok := alternatives(p)
		if !ok || len(texts)*len(next) > 16 {
			return nil, false
		}
		var all []string
		for _, a := range texts {
			for _, b := range next {
				all = append(all, a+b)
			}
		}
		texts = all
	}
	return texts, true
}

func alternatives(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpLiteral:
		s, ok := lowerASCII(re.Rune)
		return []string{s}, ok
	case syntax.OpCapture:
		return alternatives(re.Sub[0])
	case syntax.OpConcat:
		return expand(re.Sub)
	case syntax.OpQuest:
		list, ok := alternatives(re.Sub[0])
		return append(list, ""), ok
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			list, ok := alternatives(sub)
			if !ok {
				return nil, false
			}
			all = append(all, list...)
		}
		return all, true
	case syntax.OpCharClass:
		return classTexts(re.Rune)
	}
	return nil, false
}

// What (?i) adds to s and k, and the C locale of Kamailio doesn't.
const longS, kelvin = '\u017f', '\u212a'

// classTexts lists the members of a small class, letter case aside.
func classTexts(ranges []rune) ([]string, bool) {
	var all []string
	for i := 0; i < len(ranges); i += 2 {
		if ranges[i+1]-ranges[i] > 16 {
			return nil, false
		}
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			switch {
			case r == longS || r == kelvin:
			case r >= utf8.RuneSelf:
				return nil, false
			default:
				if s := string(rune(fold(byte(r)))); !strings.Contains(strings.Join(all, ""), s) {
					all = append(all, s)
				}
			}
		}
	}
	return all, len(all) > 0 && len(all) <= 16
}

func lowerASCII(rs []rune) (string, bool) {
	b := make([]byte, 0, len(rs))
	for _, r := range rs {
		switch {
		case r == longS:
			r = 's'
		case r == kelvin:
			r = 'k'
		case r >= utf8.RuneSelf:
			return "", false
		}
		b = append(b, fold(byte(r)))
	}
	return string(b), true
}

// required is the longest text, in lower case, that every match contains; "" if
// none is known.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		s, _ := lowerASCII(re.Rune)
		return s
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		best := ""
		for _, sub := range re.Sub {
			if s := required(sub); len(s) > len(best) {
				best = s
			}
		}
		return best
	}
	return ""
}

// containsFold looks for lower-case text without regard to letter case.
func containsFold(b []byte, lower string) bool {
	n := len(lower)
	if n == 0 {
		return true
	}
	lo := lower[0]
	up := lo
	if lo >= 'a' && lo <= 'z' {
		up = lo - ('a' - 'A')
	}
	for len(b) >= n {
		window := b[:len(b)-n+1]
		i := bytes.IndexByte(window, lo)
		if up != lo {
			if i >= 0 {
				window = window[:i]
			}
			if j := bytes.IndexByte(window, up); j >= 0 {
				i = j
			}
		}
		if i < 0 {
			return false
		}
		if equalFold(b[i:i+n], lower) {
			return true
		}
		b = b[i+1:]
	}
	return false
}
