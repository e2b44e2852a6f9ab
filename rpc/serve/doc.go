// Package serve has the listeners of remote control: it takes requests from
// sockets and FIFOs, has them run, and brings the answers back.
//
//	s, err := serve.Listen(ctx, cfg, handlers)  // binds; an address that can't be bound is an error
//	s.Serve()                                   // starts, returns at once
//	...
//	err = s.Close(ctx)                          // finishes what is under way, waits for all goroutines
//
// # What speaks what
//
//	ctl           BINRPC, for kamcmd        unix:PATH unixd:PATH tcp:HOST:PORT udp:HOST:PORT
//	jsonrpc       for kamctl and kamcli     fifo:PATH unixd:PATH tcp:HOST:PORT udp:HOST:PORT
//	http          JSON-RPC by POST /RPC     tcp:HOST:PORT
//	mi            for openserctl            fifo:PATH
//	flexisip_cli  for flexisip_cli.py       unix:PATH
//
// # Who may
//
// Files decide on unix sockets and FIFOs: their mode, owner and group. On TCP
// and UDP an address other than loopback is a [ConfigError], unless the caller
// has to prove who he is: by a bearer token (HTTP) or a client certificate (HTTP
// and TCP). UDP has neither and stays on loopback. HTTP without a token answers
// only requests for "localhost" or an IP address and refuses those that a web
// page of another origin has sent.
//
// # What a bad client can do
//
// Nothing to others. A request has a length, and a time to arrive in; a
// connection has a time to be idle; a peer has a rate. With all connections
// taken, the one idle for longest makes room. A reply waits for its reader until
// a deadline, in a goroutine of its own. A FIFO's reader that was left with half
// a request forgets it. A reply FIFO is opened only if it is a FIFO, has one name
// and no link on its way, and before the command runs. All that is refused or
// dropped is told to Handlers.Refused with its cause.
//
// # What it leaves out
//
// The formats (binrpc, jsonrpc, mi, flexicli) and the methods.
package serve
