package jsonrpc

import "siptraced/rpc"

// Reply is the answer to a [Request], as a client reads it.
type Reply struct {
	ID    any        // string, int64, ...; nil = none or null
	Fault *rpc.Fault // nil = success
	Value any
}

// Decode reads one document and ignores what follows it. The error is a
// [*SyntaxError], also for a document that is no reply.
func (r *Reply) Decode(doc []byte) error {
	*r = Reply{}
	p := newParser(doc)
	if p.peek() != '{' {
		return p.fail("not an object")
	}
	var fault any
	found := false
	err := p.members(func(name string, v any, _ []byte) {
		switch name {
		case "result":
			r.Value, found = v, true
		case "error":
			fault, found = v, true
		case "id":
			r.ID = v
		}
	})
	if err != nil {
		return err
	}
	if !found {
		return p.fail("neither result nor error")
	}
	if fault == nil {
		return nil
	}
	r.Fault = &rpc.Fault{}
	if s, ok := fault.(rpc.Struct); ok {
		code, _ := s.Get("code")
		text, _ := s.Get("message")
		n, _ := code.(int64)
		r.Fault.Code = int(n)
		r.Fault.Text, _ = text.(string)
	}
	return nil
}
