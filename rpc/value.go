package rpc

import "fmt"

// Struct is a result with named members, in order. A name may come more than
// once, as in the answer of core.sockets_list: BINRPC writes it so; JSON writes
// such a Struct, at the top of a result, as an array of objects of one member.
type Struct []Member

// Member is one named value of a [Struct].
type Member struct {
	Name  string
	Value any
}

// Get returns the value of the first member with that name.
func (s Struct) Get(name string) (any, bool) {
	for _, m := range s {
		if m.Name == name {
			return m.Value, true
		}
	}
	return nil, false
}

// Repeats reports whether a member name comes more than once.
func (s Struct) Repeats() bool {
	if len(s) > 16 {
		seen := make(map[string]struct{}, len(s))
		for _, m := range s {
			seen[m.Name] = struct{}{}
		}
		return len(seen) < len(s)
	}
	for i := range s {
		for j := range i {
			if s[i].Name == s[j].Name {
				return true
			}
		}
	}
	return false
}

// List is any number of values: the result of a command that is marked as a
// list, or an array within a value.
type List []any

// Records is a result of several answers of a command that isn't marked as a
// list, such as stats.clear_statistics: BINRPC has them all, while jsonrpcs
// shows the last one only, and so does the jsonrpc codec unless it is strict.
type Records []any

// Forwarded is a result that another server gave over BINRPC. The binrpc codec
// writes Body as it came, so that the caller sees what the other server wrote;
// every other codec writes Value.
type Forwarded struct {
	Body  []byte // body of the reply packet
	Value any    // what Body says
}

// TypeError is what the OnCall hook is given when a handler returned a value of
// a type that the codecs don't know, such as int.
type TypeError struct{ Value any }

func (e *TypeError) Error() string {
	return fmt.Sprintf("rpc: result holds a value of type %T", e.Value)
}

// check tells whether v is a result as the codecs know it, down to its leaves.
func check(v any) error {
	switch v := v.(type) {
	case Forwarded:
		return nil
	case Records:
		return checkAll(v)
	}
	return checkValue(v)
}

func checkValue(v any) error {
	switch v := v.(type) {
	case nil, string, int64, float64, bool, []byte:
		return nil
	case List:
		return checkAll(v)
	case Struct:
		for _, m := range v {
			if err := checkValue(m.Value); err != nil {
				return err
			}
		}
		return nil
	}
	return &TypeError{Value: v}
}

func checkAll(list []any) error {
	for _, v := range list {
		if err := checkValue(v); err != nil {
			return err
		}
	}
	return nil
}
