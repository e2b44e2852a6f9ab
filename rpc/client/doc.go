// Package client calls the methods of a siptraced or a Kamailio, over each of
// the transports that they serve.
//
//	addr, err := client.ParseAddress("unix:/run/siptraced/ctl")
//	c := client.New(addr, client.Config{})
//	v, err := c.Call(ctx, "siptrace.status", "check")   // "Enabled", or a *rpc.Fault
//
// A [Forwarder] hands the calls that a registry doesn't know to a Kamailio.
//
// A call opens a connection, or makes a reply FIFO, and leaves nothing behind.
// It ends with ctx, and by Config.Timeout at the latest, where kamcmd and kamctl
// wait for ever.
//
// # What it leaves out
//
// Printing. Connections that are kept: on unix sockets they cost nothing to
// open.
package client
