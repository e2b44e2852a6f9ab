// Package flexicli is the protocol of flexisip_cli.py, the command line client
// of Flexisip: one request, one reply, on a unix stream socket.
//
//	n, err := conn.Read(buf)
//	conn.Write(flexicli.Answer(ctx, store, peer, buf[:n]))
//	conn.Close()
//
// A request is the client's words joined by single blanks, without any end, so
// that one read is one request:
//
//	CONFIG_GET PATH          global/log-level: error
//	CONFIG_SET PATH VALUE    global/log-level: debug
//	CONFIG_LIST SECTION      log-level: what it is for
//
// also as GET, SET, LIST; "all" is the list of sections. Items of a section end
// in "\r\n". A reply that begins with "Error" makes the client exit with 64.
// The socket is /tmp/flexisip-SERVER-PID, and the client reads the PID from
// /var/run/flexisip-SERVER.pid (see [Paths]); both are the listener's business.
//
// # What it leaves out
//
// The settings, which are behind [Store], and Flexisip's REGISTRAR commands,
// which are answered as unknown.
package flexicli
