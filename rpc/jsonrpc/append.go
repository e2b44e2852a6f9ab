package jsonrpc

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"siptraced/rpc"
)

// TypeError tells that a value is none of those that package rpc lists.
type TypeError struct{ Value any }

func (e *TypeError) Error() string { return fmt.Sprintf("jsonrpc: value of type %T", e.Value) }

// literal is JSON text.
type literal string

// style is how values are written. The zero value is the default of jsonrpcs.
type style struct {
	compact bool // no white space
	strict  bool // numbers and strings for any JSON reader
}

// append writes one value; depth is the number of tabs before the closing brace
// of an object, if it is one.
func (st style) append(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return st.appendString(dst, v), nil
	case []byte:
		return st.appendString(dst, string(v)), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case float64:
		return st.appendFloat(dst, v), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case nil:
		return append(dst, "null"...), nil
	case literal:
		return append(dst, v...), nil
	case rpc.List:
		return st.appendList(dst, v, depth)
	case rpc.Struct:
		if v.Repeats() {
			return st.appendList(dst, rpc.List{v}, depth)
		}
		return st.appendObject(dst, v, depth)
	}
	return dst, &TypeError{Value: v}
}

func (st style) appendObject(dst []byte, s rpc.Struct, depth int) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, m := range s {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(st.appendString(st.newline(dst, depth+1), m.Name), ':')
		if !st.compact {
			dst = append(dst, '\t')
		}
		if dst, err = st.append(dst, m.Value, depth+1); err != nil {
			return dst, err
		}
	}
	return append(st.newline(dst, depth), '}'), nil
}

// appendList writes an array on one line, but for the objects in it. A Struct in
// which a name repeats becomes one object for each member.
func (st style) appendList(dst []byte, list rpc.List, depth int) (_ []byte, err error) {
	first := true
	add := func(v any) {
		if err != nil {
			return
		}
		switch {
		case first:
		case st.compact:
			dst = append(dst, ',')
		default:
			dst = append(dst, ", "...)
		}
		first = false
		dst, err = st.append(dst, v, depth+1)
	}
	dst = append(dst, '[')
	for _, v := range list {
		if s, ok := v.(rpc.Struct); ok && s.Repeats() {
			for i := range s {
				add(s[i : i+1])
			}
			continue
		}
		add(v)
	}
	return append(dst, ']'), err
}

func (st style) newline(dst []byte, depth int) []byte {
	if st.compact {
		return dst
	}
	dst = append(dst, '\n')
	for range depth {
		dst = append(dst, '\t')
	}
	return dst
}

func (st style) appendString(dst []byte, s string) []byte {
	if st.strict {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c == '\f':
			dst = append(dst, `\f`...)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	return append(dst, '"')
}

// appendFloat writes a double as Kamailio prints it, six digits after the point,
// or strictly, in as many digits as it takes to read it back.
func (st style) appendFloat(dst []byte, f float64) []byte {
	const epsilon = 0x1p-52 // DBL_EPSILON
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return append(dst, "null"...)
	case st.strict:
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	case f >= math.MinInt32 && f <= math.MaxInt32 && math.Abs(f-math.Trunc(f)) <= epsilon:
		return strconv.AppendInt(dst, int64(f), 10)
	case math.Abs(math.Floor(f)-f) <= epsilon:
		return strconv.AppendFloat(dst, f, 'f', 0, 64)
	case math.Abs(f) < 1e-6 || math.Abs(f) > 1e9:
		return strconv.AppendFloat(dst, f, 'e', 6, 64)
	}
	return strconv.AppendFloat(dst, f, 'f', 6, 64)
}
