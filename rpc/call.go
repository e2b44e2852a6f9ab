package rpc

import (
	"context"
	"fmt"
)

// Peer is who called, as far as the transport knows.
type Peer struct {
	Transport     string // "unix", "unixgram", "tcp", "udp", "fifo", "http", ...
	Addr          string // remote address, socket or FIFO path; may be empty
	UID, GID, PID int    // by SO_PEERCRED on unix sockets; -1 = not known
}

// NewPeer returns a Peer whose user, group and process are not known.
func NewPeer(transport, addr string) Peer {
	return Peer{Transport: transport, Addr: addr, UID: -1, GID: -1, PID: -1}
}

// String is for the log: "unix:/run/siptraced/ctl uid=0 gid=0 pid=4711".
func (p Peer) String() string {
	s := p.Transport
	if p.Addr != "" {
		s += ":" + p.Addr
	}
	for _, id := range []struct {
		name string
		n    int
	}{{"uid", p.UID}, {"gid", p.GID}, {"pid", p.PID}} {
		if id.n >= 0 {
			s += fmt.Sprintf(" %s=%d", id.name, id.n)
		}
	}
	return s
}

// Call is one request.
type Call struct {
	Method string
	Params []any // each of string, int64, float64, bool, nil, []byte, List, Struct
	// Names are those of Params where they came as an object (JSON-RPC 2.0, section
	// 4.2); nil where by position. Kamailio's own methods don't look at them.
	Names []string
	Peer  Peer
}

// Str returns parameter i if there is one and it is a string. As in Kamailio, a
// number is not taken for one: it counts as missing.
func (c *Call) Str(i int) (string, bool) {
	if i >= len(c.Params) {
		return "", false
	}
	s, ok := c.Params[i].(string)
	return s, ok
}

// Handler answers a call. An error that is not a [*Fault] is answered with 500
// and a neutral text. It may be called from many goroutines at once.
type Handler func(ctx context.Context, c *Call) (any, error)

// Method is what a [Registry] holds.
type Method struct {
	Name    string // case counts
	Help    string // what system.methodHelp says; empty = "undocumented"
	Array   bool   // the result is a List even when the handler returns one value or nil
	Handler Handler
}

// Change tells that a call has changed the state of the program.
type Change struct {
	Method   string
	Peer     Peer
	What     string // "trace_on"
	Old, New any
}
