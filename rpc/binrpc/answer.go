package binrpc

import (
	"context"
	"errors"

	"siptraced/rpc"
)

// Server answers requests from a registry, as ctl does.
type Server struct {
	Registry *rpc.Registry
	// MaxReply is the length of the longest reply, in bytes with its header. A
	// longer one becomes a fault. 0 = [MaxReply]. Over UDP at most 65507 go.
	MaxReply int
}

// Answer answers the first packet in in, appends the reply to dst, and returns
// how many bytes of in are done with.
//
// On a stream: n = 0 without an error means that more bytes are needed. With an
// error, what was appended is sent and the connection is closed. A datagram is
// answered once, whatever follows the packet; what is cut gets no reply.
func (s Server) Answer(ctx context.Context, peer rpc.Peer, dst, in []byte) (out []byte, n int, err error) {
	var h header
	whole, err := h.parse(in)
	if err != nil || h.kind != kindRequest {
		return appendFault(dst, h.cookie, &rpc.Fault{Code: 400, Text: "bad request: corrupted packet"}), len(in), ErrCorrupted
	}
	if n = h.size + h.body; n > MaxPacket {
		return dst, 0, &SizeError{Size: n, Max: MaxPacket}
	}
	if !whole || len(in) < n {
		return dst, 0, nil
	}
	var req Request
	if err := req.Decode(in[:n]); err != nil {
		f := &rpc.Fault{Code: 400, Text: "bad request method: " + errors.Unwrap(err).Error()}
		return appendFault(dst, req.Cookie, f), n, err
	}
	return s.run(ctx, peer, dst, &req), n, nil
}

func (s Server) run(ctx context.Context, peer rpc.Peer, dst []byte, req *Request) []byte {
	v, err := s.Registry.Call(ctx, &rpc.Call{Method: req.Method, Params: req.Params, Peer: peer})
	switch {
	case errors.Is(err, rpc.ErrUnknownMethod):
		return appendFault(dst, req.Cookie, &rpc.Fault{Code: 500, Text: "command " + req.Method + " not found"})
	case err != nil:
		return appendFault(dst, req.Cookie, rpc.AsFault(err))
	}
	out, err := Reply{Cookie: req.Cookie, Value: v}.Append(dst)
	limit := s.MaxReply
	if limit == 0 {
		limit = MaxReply
	}
	switch {
	case err != nil:
		return appendFault(dst, req.Cookie, rpc.ErrInternal)
	case len(out)-len(dst) > limit:
		return appendFault(dst, req.Cookie, rpc.Faultf(500, "reply too big: %d bytes, at most %d", len(out)-len(dst), limit))
	}
	return out
}
