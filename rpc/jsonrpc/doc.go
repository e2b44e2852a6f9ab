// Package jsonrpc answers JSON-RPC as the jsonrpcs module of Kamailio 5.6 does,
// byte for byte, or strictly by JSON-RPC 2.0.
//
//	srv := jsonrpc.Server{Registry: reg}          // Compact: true for pretty_format 0
//	a := srv.Answer(ctx, peer, document)          // a.Body == nil: nothing is sent
//	req, err := srv.Parse(document)               // or in two steps, for a FIFO:
//	err = jsonrpc.CheckReplyName("/tmp/", req.ReplyName)
//	a = srv.Run(ctx, peer, req)
//
// [Framer] finds the documents in what comes out of a FIFO. A client writes a
// [Request] and reads a [Reply].
//
// # As jsonrpcs
//
// That is lenient: member names have no case, the first of a name counts, what
// follows the document is ignored. A document that isn't JSON gets no answer. One
// that is no request (not an object, wrong "jsonrpc", "method" or "params") gets
// an empty object as result. A request without id is answered without one; the
// others are printed as Kamailio prints them: null is 0, 1.5 is 1.500000, what
// goes beyond 53 bits is rounded. Errors carry the code of the fault.
//
// It differs where the real one does harm: a member of the wrong type is
// malformed and doesn't end the server, and a number that no double can hold is
// printed as null rather than inf.
//
// # Strict
//
// Batches, notifications, ids as they came, error codes -32700, -32600, -32601,
// -32602 and -32603 of JSON-RPC 2.0; a fault of a method keeps its code.
//
// # Values
//
// A whole number without point and exponent is an int64, any other a float64.
// A Struct with a name that repeats is written as an array of objects with one
// member each, as Kamailio writes core.sockets_list. A result of nil is written
// as an empty object (strict: null), []byte as a string. Bytes that are not UTF-8
// pass as they are (strict: U+FFFD).
//
// # What it leaves out
//
// Sockets, FIFOs and HTTP.
package jsonrpc
