// Package mi is the text protocol of OpenSER 1.x's management interface over a
// FIFO (module mi_fifo), as openserctl and opensipsctl speak it.
//
//	var in mi.Splitter
//	in.Write(bytesFromTheFIFO)
//	for req, ok, err := in.Next(); ok; req, ok, err = in.Next() {
//		reply := mi.Answer(ctx, registry, peer, req, err) // for the FIFO that req.ReplyName says
//	}
//
// A request is a line ":COMMAND:REPLY_NAME", a line per parameter and an empty
// line; only "\n" ends a line. A reply is "CODE REASON", a line per item and an
// empty line, except for the two replies "command not available" and "parse
// error", which have none. Source: the programs themselves, as recorded in
// testdata.
//
// # Differences from mi_fifo, on purpose
//
//   - After a parse error the next request is not lost.
//   - A request that was left half-written ends where the next one's first line
//     begins. A parameter that looks like such a line has to be quoted.
//   - Empty lines before a request are ignored; there, the original drops the
//     request.
//   - \" is a quote at any place of a quoted value, the first one too.
//
// # What it leaves out
//
// The FIFOs, and whether a reply name may be opened: see package serve. The
// commands are methods of an [rpc.Registry] of their own.
package mi
