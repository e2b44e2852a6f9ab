package jsonrpc

import (
	"encoding/json"
	"fmt"
	"strings"

	"siptraced/rpc"
)

// Request is a call of a method, or with JSON-RPC 2.0 a batch of them.
type Request struct {
	Method string
	Params []any    // of an object the values in order: Kamailio ignores the names
	Names  []string // those of an object
	// ID is nil when there is none: a string or an int64 to send, and after
	// Parse what the reply is to carry.
	ID any
	// ReplyName is the name of the FIFO for the reply. Kamailio looks for it
	// only after "jsonrpc" was found right, so that without that there is none.
	ReplyName string

	fault *rpc.Fault // what is wrong with it; the text is told if strict
	batch []*Request // strict
}

const maxBatch = 256

// Error codes of JSON-RPC 2.0, section 5.1.
const (
	codeParse          = -32700
	codeInvalidRequest = -32600
	codeMethodNotFound = -32601
	codeInvalidParams  = -32602
	codeInternal       = -32603
)

// Parse reads one document, and ignores what follows it unless the server is
// strict. The error is a [*SyntaxError]; what is JSON but no good request is not
// an error: Run answers it. A request doesn't alias the document.
func (s Server) Parse(doc []byte) (*Request, error) {
	if len(doc) > MaxDocument {
		return nil, &SyntaxError{Offset: MaxDocument, Msg: fmt.Sprintf("%d bytes, at most %d", len(doc), MaxDocument)}
	}
	if s.Strict && !json.Valid(doc) {
		return nil, &SyntaxError{Msg: "not JSON by RFC 8259"}
	}
	p := newParser(doc)
	switch {
	case p.peek() == '{':
		return s.request(p)
	case s.Strict && p.peek() == '[':
		return s.parseBatch(p)
	}
	_, err := p.value()
	return &Request{ID: s.noID(), fault: invalid("not an object")}, err
}

// noID is the id of a reply to what has none: JSON-RPC 2.0 section 5 wants null.
func (s Server) noID() any {
	if s.Strict {
		return literal("null")
	}
	return nil
}

func invalid(what string) *rpc.Fault {
	return rpc.Faultf(codeInvalidRequest, "Invalid Request: %s", what)
}

// parseBatch reads an array of requests: JSON-RPC 2.0, section 6.
func (s Server) parseBatch(p *parser) (*Request, error) {
	req := &Request{}
	if err := p.open(); err != nil {
		return nil, err
	}
	for more := p.peek() != ']'; more; {
		one := &Request{ID: s.noID(), fault: invalid("not an object")}
		var err error
		if p.peek() == '{' {
			one, err = s.request(p)
		} else {
			_, err = p.value()
		}
		if err != nil {
			return nil, err
		}
		req.batch = append(req.batch, one)
		if more, err = p.next(']'); err != nil {
			return nil, err
		}
	}
	if n := len(req.batch); n == 0 || n > maxBatch {
		what := fmt.Sprintf("batch of %d requests, at least 1 and at most %d", n, maxBatch)
		return &Request{ID: s.noID(), fault: invalid(what)}, nil
	}
	return req, nil
}

// member is a member of the request: the first of its name counts.
type member struct {
	value any
	raw   []byte
	set   bool
}

func (m *member) text() string {
	s, _ := m.value.(string)
	return s
}

func (s Server) request(p *parser) (*Request, error) {
	var version, method, params, id, replyName member
	err := p.members(func(name string, v any, raw []byte) {
		if !s.Strict {
			name = strings.ToLower(name)
		}
		var m *member
		switch name {
		case "jsonrpc":
			m = &version
		case "method":
			m = &method
		case "params":
			m = &params
		case "id":
			m = &id
		case "reply_name":
			m = &replyName
		}
		if m != nil && !m.set {
			*m = member{value: v, raw: raw, set: true}
		}
	})
	if err != nil {
		return nil, err
	}
	req := &Request{}
	if s.Strict {
		s.strictID(req, id)
	} else if id.set {
		req.ID = looseID(id)
	}
	if version.text() != "2.0" {
		return s.refuse(req, invalid(`"jsonrpc" is not "2.0"`)), nil
	}
	req.ReplyName = replyName.text()
	name, ok := method.value.(string)
	if !ok {
		return s.refuse(req, invalid(`"method" is not a string`)), nil
	}
	req.Method = name
	switch v := params.value.(type) {
	case rpc.List:
		req.Params = v
	case rpc.Struct:
		for _, m := range v {
			req.Params, req.Names = append(req.Params, m.Value), append(req.Names, m.Name)
		}
	default:
		if params.set {
			return s.refuse(req, rpc.Faultf(codeInvalidParams, "Invalid params: neither an array nor an object")), nil
		}
	}
	return req, nil
}

// refuse notes what is wrong, unless it was noted before. An answer has an id
// then: what can't be read can't be a notification.
func (s Server) refuse(req *Request, f *rpc.Fault) *Request {
	if req.fault == nil {
		req.fault = f
	}
	if req.ID == nil {
		req.ID = s.noID()
	}
	return req
}

// strictID keeps the id as it was written: JSON-RPC 2.0, section 4.
func (s Server) strictID(req *Request, id member) {
	switch id.value.(type) {
	case string, int64, float64, nil:
		if id.set {
			req.ID = literal(id.raw)
		}
	default:
		s.refuse(req, invalid(`"id" is not a string, a number or null`))
	}
}

// looseID is what Kamailio makes of an id: numbers go through its own decimal
// conversion and a double.
func looseID(id member) any {
	switch v := id.value.(type) {
	case string:
		return v
	case int64, float64:
		return literal(style{}.appendFloat(nil, scanNumber(id.raw).value()))
	case bool:
		if v {
			return literal("1")
		}
	}
	return literal("0")
}

// Append writes the request as a document on one line, for a client. The error
// is a [*TypeError].
func (r Request) Append(dst []byte) ([]byte, error) {
	doc := rpc.Struct{{Name: "jsonrpc", Value: "2.0"}, {Name: "method", Value: r.Method}}
	if len(r.Params) > 0 {
		doc = append(doc, rpc.Member{Name: "params", Value: rpc.List(r.Params)})
	}
	if r.ReplyName != "" {
		doc = append(doc, rpc.Member{Name: "reply_name", Value: r.ReplyName})
	}
	if r.ID != nil {
		doc = append(doc, rpc.Member{Name: "id", Value: r.ID})
	}
	out, err := style{compact: true, strict: true}.append(dst, doc, 0)
	if err != nil {
		return dst, err
	}
	return out, nil
}
