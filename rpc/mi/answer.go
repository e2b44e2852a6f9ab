package mi

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"siptraced/rpc"
)

// Answer runs the command of r and returns the reply, ready to be written.
// splitErr is what [Splitter.Next] said of it: a request that was not read as a
// whole is answered as a parse error. Parameters go to the method as strings,
// their names are dropped.
func Answer(ctx context.Context, reg *rpc.Registry, peer rpc.Peer, r Request, splitErr error) []byte {
	if _, known := reg.Lookup(r.Command); !known {
		return fmt.Appendf(nil, "500 command '%s' not available\n", r.Command)
	}
	params, err := r.Params()
	if err != nil || splitErr != nil {
		return fmt.Appendf(nil, "400 parse error in command '%s'\n", r.Command)
	}
	call := &rpc.Call{Method: r.Command, Peer: peer}
	for _, p := range params {
		call.Params = append(call.Params, p.Value)
	}
	v, err := reg.Call(ctx, call)
	if err != nil {
		f := rpc.AsFault(err)
		return AppendReply(nil, f.Code, f.Text, nil)
	}
	return AppendReply(nil, 200, "OK", v)
}

// AppendReply writes a reply. Each element of a List or Records is an item on a line of its
// own, each member of a Struct a line "name:: value". Line breaks in texts
// become blanks: they would end the item.
func AppendReply(dst []byte, code int, reason string, v any) []byte {
	dst = fmt.Appendf(dst, "%d %s\n", code, oneLine(reason))
	return append(appendItems(dst, v), '\n')
}

func appendItems(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return dst
	case rpc.List:
		for _, e := range v {
			dst = appendItems(dst, e)
		}
		return dst
	case rpc.Records:
		return appendItems(dst, rpc.List(v))
	case rpc.Struct:
		for _, m := range v {
			dst = append(dst, oneLine(m.Name)+":: "...)
			n := len(dst)
			if dst = appendItems(dst, m.Value); len(dst) == n {
				dst = append(dst, '\n')
			}
		}
		return dst
	case rpc.Forwarded:
		return appendItems(dst, v.Value)
	}
	return append(append(dst, oneLine(text(v))...), '\n')
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func oneLine(s string) string {
	return strings.NewReplacer("\r\n", " ", "\n", " ").Replace(s)
}

// ErrReply is returned for bytes that are not a reply.
var ErrReply = errors.New("mi: not a reply")

// ParseReply reads a reply as a client gets it: the items as lines. A code other
// than 2xx comes back as a [*rpc.Fault].
func ParseReply(b []byte) ([]string, error) {
	head, rest, _ := strings.Cut(string(b), "\n")
	number, reason, _ := strings.Cut(head, " ")
	code, err := strconv.Atoi(number)
	if err != nil || code < 100 || code > 999 {
		return nil, ErrReply
	}
	if code/100 != 2 {
		return nil, &rpc.Fault{Code: code, Text: reason}
	}
	rest = strings.TrimSuffix(strings.TrimSuffix(rest, "\n"), "\n")
	if rest == "" {
		return nil, nil
	}
	return strings.Split(rest, "\n"), nil
}
