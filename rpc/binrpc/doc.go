// Package binrpc reads and writes BINRPC, the protocol between Kamailio's ctl
// module and kamcmd, and answers it as ctl of Kamailio 5.6 does.
//
//	srv := binrpc.Server{Registry: reg}
//	out, n, err := srv.Answer(ctx, peer, out[:0], in)    // n = 0: read more
//	send(out)                                            // then, if err != nil, close
//
//	pkt, err := binrpc.Request{Cookie: 4711, Method: "core.version"}.Append(nil)
//	n, err := binrpc.Split(buf, binrpc.MaxReply)         // a client's side
//	err = reply.Decode(buf[:n])                          // reply.Fault or reply.Value
//
// # Values
//
//   - string ⇄ type 1. A zero byte ends it, the closing one may be missing.
//   - int64 ⇄ type 0, 32 bits as the field's clients read it. What doesn't fit
//     goes out as a double, which they print as a whole number.
//   - float64 ⇄ type 2, in thousandths, rounded.
//   - A number that 64 bits of thousandths can't hold goes out as a string.
//   - []byte ⇄ type 6; bool goes out as 1 or 0.
//   - nil goes out as the string "<null string>", and that is read as nil in a
//     reply: it is what Kamailio sends. A result of nil is an empty reply.
//   - Struct ⇄ type 3. List ⇄ type 4, but within a Struct type 3 with members
//     that have no names: kamcmd refuses an array there, and so Kamailio sends
//     it. A struct whose members have no names is read as a List.
//   - A result that is a List is one record for each element.
//
// Source: the comment at the top of Kamailio's ctl/binrpc.h, and what the server
// and kamcmd were seen to do.
//
// # What it leaves out
//
// Sockets, and who may send what.
package binrpc
