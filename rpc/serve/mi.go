package serve

import (
	"context"
	"errors"

	"siptraced/rpc"
	"siptraced/rpc/mi"
)

// miFramer is the framer of an MI FIFO.
type miFramer struct {
	mi.Splitter
	srv *Server
}

func (m *miFramer) write(p []byte) { m.Write(p) }

func (m *miFramer) pause() bool {
	defer m.Reset()
	return m.Pending()
}

func (m *miFramer) next() (fifoRequest, bool) {
	r, ok, err := m.Next()
	if !ok {
		return fifoRequest{}, false
	}
	var out fifoRequest
	switch {
	case errors.Is(err, mi.ErrTooLong):
		out.cause = CauseTooLong
	case errors.Is(err, mi.ErrUnfinished):
		out.cause = CauseUnfinished
	case err != nil:
		out.cause = CauseBad
	}
	// A request that is too long is told so; the writer of half a one is gone.
	if err == nil || out.cause == CauseTooLong && r.Command != "" {
		out.name, out.mustReply = r.ReplyName, true
		out.answer = func(ctx context.Context, peer rpc.Peer) []byte {
			return mi.Answer(ctx, m.srv.handlers.MI, peer, r, err)
		}
	}
	return out, true
}
