package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
	"siptraced/rpc/flexicli"
	"siptraced/rpc/mi"
)

// DefaultTimeout is how long a call may take.
const DefaultTimeout = 10 * time.Second

// Config is how to call. The zero value works.
type Config struct {
	Timeout time.Duration // of a call; 0 = DefaultTimeout
	// ReplyDir is where reply FIFOs are made; it must be the server's
	// ReplyDir. Default /tmp. Where it is set, it takes the reply sockets of
	// unixd too, which otherwise have an abstract address.
	ReplyDir string
	Token    string      // for http
	TLS      *tls.Config // for tcp and https, with the client certificate; nil = tcp without TLS
}

// Error tells that a call got no answer.
type Error struct {
	Address Address
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Address, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Client calls one server. It has no state and may be used by many goroutines.
type Client struct {
	addr Address
	cfg  Config
}

// New returns a client; nothing is opened before the first call.
func New(addr Address, cfg Config) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Client{addr: addr, cfg: cfg}
}

// Address returns what the client calls.
func (c *Client) Address() Address { return c.addr }

// Call runs a method with parameters of the types that package rpc lists. The
// result is a value as listed there: several answers are a List, an answer
// without any is nil. The error is a [*rpc.Fault] when the server refused, and
// an [*Error] when there was no answer.
//
// Over mi the parameters are written as text, and each item of the reply is a
// string. Over flexisip_cli method and parameters are the words of a command.
func (c *Client) Call(ctx context.Context, method string, params ...any) (any, error) {
	switch c.addr.Protocol {
	case "ctl":
		r, err := c.ctl(ctx, method, params)
		if err != nil {
			return nil, err
		}
		if r.Fault != nil {
			return nil, r.Fault
		}
		return r.Value, nil
	case "mi":
		return c.mi(ctx, method, params)
	case "flexisip_cli":
		return c.flexisip(ctx, method, params)
	}
	return c.json(ctx, method, params)
}

// within bounds a call.
func (c *Client) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.cfg.Timeout)
}

func (c *Client) failed(err error) error { return &Error{Address: c.addr, Err: err} }

func (c *Client) ctl(ctx context.Context, method string, params []any) (*binrpc.Reply, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	req := binrpc.Request{Cookie: rand.Uint32(), Method: method, Params: params}
	packet, err := req.Append(nil)
	if err != nil {
		return nil, c.failed(err)
	}
	reply, err := c.packet(ctx, packet, req.Cookie)
	if err != nil {
		return nil, c.failed(err)
	}
	var r binrpc.Reply
	if err := r.Decode(reply); err != nil {
		return nil, c.failed(err)
	}
	if r.Cookie != req.Cookie {
		return nil, c.failed(fmt.Errorf("reply to another request: cookie %x, want %x", r.Cookie, req.Cookie))
	}
	return &r, nil
}

func (c *Client) packet(ctx context.Context, packet []byte, cookie uint32) ([]byte, error) {
	if c.addr.Network == "unix" || c.addr.Network == "tcp" {
		return c.stream(ctx, packet, func(b []byte) (int, error) { return binrpc.Split(b, maxReply) })
	}
	return c.datagram(ctx, packet, func(b []byte) bool {
		var r binrpc.Reply
		return r.Decode(b) == nil && r.Cookie == cookie
	})
}

func (c *Client) mi(ctx context.Context, method string, params []any) (any, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	reply, err := c.fifo(ctx, func(replyName string) ([]byte, error) {
		var b strings.Builder
		fmt.Fprintf(&b, ":%s:%s\n", method, replyName)
		for _, p := range params {
			// Quoted, so that it arrives as it is.
			fmt.Fprintf(&b, "\"%s\"\n", strings.ReplaceAll(fmt.Sprint(p), `"`, `\"`))
		}
		b.WriteString("\n")
		return []byte(b.String()), nil
	})
	if err != nil {
		return nil, c.failed(err)
	}
	lines, err := mi.ParseReply(reply)
	if err != nil {
		return nil, err
	}
	switch len(lines) {
	case 0:
		return nil, nil
	case 1:
		return lines[0], nil
	}
	list := make(rpc.List, len(lines))
	for i, line := range lines {
		list[i] = line
	}
	return list, nil
}

func (c *Client) flexisip(ctx context.Context, method string, params []any) (any, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	words := make([]string, 1, 1+len(params))
	words[0] = method
	for _, p := range params {
		words = append(words, fmt.Sprint(p))
	}
	reply, err := c.stream(ctx, []byte(strings.Join(words, " ")), nil)
	if err != nil {
		return nil, c.failed(err)
	}
	if text, bad := strings.CutPrefix(string(reply[:min(len(reply), flexicli.MaxReply)]), "Error"); bad {
		return nil, &rpc.Fault{Code: 500, Text: strings.TrimPrefix(text, " - ")}
	}
	return string(reply), nil
}
