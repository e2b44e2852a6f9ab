package jsonrpc

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"siptraced/rpc"
)

// Server answers documents from a registry.
type Server struct {
	Registry *rpc.Registry
	Compact  bool // no white space: pretty_format 0 of jsonrpcs
	Strict   bool // JSON-RPC 2.0 rather than jsonrpcs
	// MaxReply is the length of the longest reply, in bytes; a longer one
	// becomes an error. 0 = any. Over UDP at most 65507 go.
	MaxReply int
}

// Answer is what goes back.
type Answer struct {
	Body []byte // the document; nil = send nothing
	// Status and Reason are for HTTP: 200 OK, or what a fault says. A Status of
	// 0 means that jsonrpcs closes the connection without an answer.
	Status int
	Reason string
}

// Answer answers a document. What is not JSON gets no answer, unless the server
// is strict.
func (s Server) Answer(ctx context.Context, peer rpc.Peer, doc []byte) Answer {
	req, err := s.Parse(doc)
	switch {
	case err == nil:
		return s.Run(ctx, peer, req)
	case s.Strict:
		return s.Run(ctx, peer, &Request{ID: s.noID(), fault: rpc.Faultf(codeParse, "Parse error")})
	}
	return Answer{}
}

// Run runs what Parse has read, and nothing of a malformed request.
func (s Server) Run(ctx context.Context, peer rpc.Peer, req *Request) Answer {
	reply, fault := s.reply(ctx, peer, req)
	if reply == nil {
		return Answer{Status: http.StatusNoContent, Reason: "No Content"}
	}
	st := style{compact: s.Compact, strict: s.Strict}
	body, err := st.append(nil, reply, 0)
	switch {
	case err != nil:
		fault = s.told(rpc.ErrInternal)
	case s.MaxReply > 0 && len(body) > s.MaxReply:
		fault = s.told(rpc.Faultf(500, "reply too big: %d bytes, at most %d", len(body), s.MaxReply))
		err = fault
	}
	if err != nil {
		id := req.ID
		if req.batch != nil {
			id = s.noID()
		}
		if body, err = st.append(nil, faultReply(fault, id), 0); err != nil {
			return Answer{}
		}
	}
	if fault == nil || s.Strict {
		return Answer{Body: body, Status: http.StatusOK, Reason: "OK"}
	}
	a := Answer{Body: body, Status: http.StatusInternalServerError, Reason: oneLine(fault.Text)}
	if fault.Code >= 400 && fault.Code < 700 {
		a.Status = fault.Code
	}
	return a
}

// reply returns the document to send, nil for none, and the fault in it.
func (s Server) reply(ctx context.Context, peer rpc.Peer, req *Request) (any, *rpc.Fault) {
	if req.batch != nil {
		var list rpc.List
		for _, one := range req.batch {
			if r, _ := s.reply(ctx, peer, one); r != nil {
				list = append(list, r)
			}
		}
		if list == nil {
			return nil, nil
		}
		return list, nil
	}
	var v any
	fault := req.fault
	if fault == nil {
		var err error
		v, err = s.Registry.Call(ctx, &rpc.Call{Method: req.Method, Params: req.Params, Names: req.Names, Peer: peer})
		fault = s.told(err)
	}
	switch {
	case s.Strict && req.ID == nil: // a notification
		return nil, nil
	case req.fault != nil && !s.Strict:
		return withID(rpc.Struct{{Name: "jsonrpc", Value: "2.0"}, {Name: "result", Value: rpc.Struct{}}}, req.ID), nil
	case fault != nil:
		return faultReply(fault, req.ID), fault
	}
	return withID(rpc.Struct{{Name: "jsonrpc", Value: "2.0"}, {Name: "result", Value: s.result(v)}}, req.ID), nil
}

func faultReply(f *rpc.Fault, id any) rpc.Struct {
	e := rpc.Struct{{Name: "code", Value: int64(f.Code)}, {Name: "message", Value: f.Text}}
	return withID(rpc.Struct{{Name: "jsonrpc", Value: "2.0"}, {Name: "error", Value: e}}, id)
}

func withID(reply rpc.Struct, id any) rpc.Struct {
	if id == nil {
		return reply
	}
	return append(reply, rpc.Member{Name: "id", Value: id})
}

// told is what the caller is told of an error.
func (s Server) told(err error) *rpc.Fault {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpc.ErrUnknownMethod) && s.Strict:
		return rpc.Faultf(codeMethodNotFound, "Method not found")
	case errors.Is(err, rpc.ErrUnknownMethod):
		return rpc.Faultf(500, "Method Not Found")
	case errors.Is(err, rpc.ErrInternal) && s.Strict:
		return rpc.Faultf(codeInternal, "Internal error")
	}
	return rpc.AsFault(err)
}

// result is how JSON shows what a handler has returned.
func (s Server) result(v any) any {
	switch r := v.(type) {
	case rpc.Forwarded:
		return s.result(r.Value)
	case rpc.Records:
		if s.Strict {
			return rpc.List(r)
		}
		if len(r) > 0 {
			return r[len(r)-1]
		}
		return rpc.Struct{}
	case nil:
		if !s.Strict {
			return rpc.Struct{}
		}
	}
	return v
}

// oneLine keeps a fault's text from ending the status line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return ' '
		}
		return r
	}, s)
}
