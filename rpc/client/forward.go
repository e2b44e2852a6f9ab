package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

// Forwarder passes calls on to the ctl socket of a Kamailio. Its methods are the
// hooks of an [rpc.Registry]:
//
//	reg.Unknown, reg.UnknownNames = f.Unknown, f.Names
type Forwarder struct {
	client *Client
	mu     sync.Mutex // covers names and asked
	names  []string
	asked  time.Time
}

// NewForwarder returns a Forwarder for a server whose address is one of ctl.
func NewForwarder(c *Client) (*Forwarder, error) {
	if c.addr.Protocol != "ctl" {
		return nil, &AddressError{c.addr.String(), "calls are forwarded over ctl only: unix:, unixd:, tcp: or udp:"}
	}
	return &Forwarder{client: c}, nil
}

// Unknown has the call answered by Kamailio. The result is an [rpc.Forwarded]. A
// method that Kamailio does not have either is reported as not known. With
// Kamailio away it is known, and a fault that says so.
func (f *Forwarder) Unknown(ctx context.Context, c *rpc.Call) (any, bool, error) {
	r, err := f.client.ctl(ctx, c.Method, c.Params)
	switch {
	case err != nil:
		return nil, true, f.away(c.Method, err)
	case r.Fault == nil:
		return rpc.Forwarded{Body: bytes.Clone(r.Body), Value: jsonrpc.Shape(c.Method, r.Value)}, true, nil
	case r.Fault.Code == 500 && r.Fault.Text == "command "+c.Method+" not found":
		return nil, false, nil
	}
	return nil, true, r.Fault
}

// Names returns the names of Kamailio's methods, none when it is away. An answer
// holds for a second: interactive clients ask for several lists in a row.
func (f *Forwarder) Names(ctx context.Context) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.asked) < time.Second {
		return slices.Clone(f.names)
	}
	f.names = nil
	v, err := f.client.Call(ctx, "system.listMethods")
	list, _ := v.(rpc.List)
	if err != nil {
		list = nil
	}
	for _, e := range list {
		if name, ok := e.(string); ok {
			f.names = append(f.names, name)
		}
	}
	f.asked = time.Now()
	return slices.Clone(f.names)
}

// away is the fault for a Kamailio that does not answer.
func (f *Forwarder) away(method string, err error) *rpc.Fault {
	why := "gives no answer that can be read"
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		why = "is not there"
	case errors.Is(err, fs.ErrPermission):
		why = "refuses access"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		why = "does not answer in time"
	}
	return &rpc.Fault{Code: 503, Text: fmt.Sprintf("%s is not a method of siptraced, and Kamailio at %s %s", method, f.client.addr, why)}
}
