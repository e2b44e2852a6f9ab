package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"

	"siptraced/rpc/jsonrpc"
)

// json calls over one of the transports of JSON-RPC.
func (c *Client) json(ctx context.Context, method string, params []any) (any, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	req := jsonrpc.Request{Method: method, Params: params, ID: int64(rand.Uint32() >> 1)}
	reply, err := c.document(ctx, req)
	if err != nil {
		return nil, c.failed(err)
	}
	var r jsonrpc.Reply
	if err := r.Decode(reply); err != nil {
		return nil, c.failed(err)
	}
	if r.ID != req.ID {
		return nil, c.failed(fmt.Errorf("reply to another request: id %v, want %v", r.ID, req.ID))
	}
	if r.Fault != nil {
		return nil, r.Fault
	}
	return r.Value, nil
}

func (c *Client) document(ctx context.Context, req jsonrpc.Request) ([]byte, error) {
	if c.addr.Network == "fifo" {
		return c.fifo(ctx, func(replyName string) ([]byte, error) {
			req.ReplyName = replyName
			text, err := req.Append(nil)
			return append(text, '\n'), err
		})
	}
	text, err := req.Append(nil)
	if err != nil {
		return nil, err
	}
	switch c.addr.Network {
	case "tcp":
		return c.stream(ctx, text, nil)
	case "unixd", "udp":
		return c.datagram(ctx, text, func(b []byte) bool {
			var r jsonrpc.Reply
			return r.Decode(b) == nil && r.ID == req.ID
		})
	}
	return c.http(ctx, text)
}

func (c *Client) http(ctx context.Context, text []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.addr.Host, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if c.cfg.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	transport := &http.Transport{TLSClientConfig: c.cfg.TLS, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxReply:
		return nil, errReplyTooBig
	case resp.Header.Get("Content-Type") != "application/json":
		// Not from the method: a wrong path, a missing token.
		return nil, fmt.Errorf("HTTP %s", resp.Status)
	}
	return body, nil
}
