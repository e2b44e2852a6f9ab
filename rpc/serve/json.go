package serve

import (
	"context"
	"regexp"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

// maxUnixReply is what a unix datagram can carry with the kernel's default
// buffers, in bytes.
const maxUnixReply = 192 << 10

func newJSON(cfg Config, reg *rpc.Registry) jsonrpc.Server {
	return jsonrpc.Server{Registry: reg, Compact: cfg.Compact, Strict: cfg.Strict}
}

// answerJSON answers one document; without a body nothing is sent.
func (s *Server) answerJSON(ctx context.Context, l Listener, peer rpc.Peer, doc []byte, maxReply int) jsonrpc.Answer {
	codec := s.json
	codec.MaxReply = maxReply
	a := codec.Answer(ctx, peer, doc)
	if len(a.Body) == 0 && a.Status == 0 {
		s.refuse(l, CauseBad, peer)
	}
	return a
}

// jsonFramer is the framer of a JSON-RPC FIFO.
type jsonFramer struct {
	jsonrpc.Framer
	codec jsonrpc.Server
	doc   []byte // whole, but something dropped before it is to be told first
	told  bool   // that what is being dropped is dropped
}

// begin is how the documents of all clients begin.
var begin = regexp.MustCompile(`(?i)\{\s*"jsonrpc"`)

// write puts each beginning on a line of its own, where the Framer takes it for
// one even when a document was left half-written before it.
func (j *jsonFramer) write(p []byte) { j.Write(begin.ReplaceAll(p, []byte("\n$0"))) }

func (j *jsonFramer) next() (fifoRequest, bool) {
	doc := j.doc
	if j.doc = nil; doc == nil {
		before := j.Dropped
		doc = j.Next()
		if n := j.Dropped - before; n > 0 && !j.told {
			j.doc, j.told = doc, true
			if n > jsonrpc.MaxFIFODocument {
				return fifoRequest{cause: CauseTooLong}, true
			}
			return fifoRequest{cause: CauseUnfinished}, true
		}
		if doc == nil {
			if !j.Begun() && j.Pause() > 0 {
				return fifoRequest{cause: CauseBad}, true
			}
			return fifoRequest{}, false
		}
	}
	j.told = false
	req, err := j.codec.Parse(doc)
	if err != nil {
		return fifoRequest{cause: CauseBad}, true
	}
	return fifoRequest{name: req.ReplyName, answer: func(ctx context.Context, peer rpc.Peer) []byte {
		return j.codec.Run(ctx, peer, req).Body
	}}, true
}

func (j *jsonFramer) pause() bool {
	fresh := !j.told
	j.told = false
	return j.Pause() > 0 && fresh
}
