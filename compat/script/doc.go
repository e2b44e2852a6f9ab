// Package script runs event_route[siptrace:msg] of an operator's kamailio.cfg
// outside Kamailio: the route is compiled once to closures and then run for
// each message, before any sink gets it.
//
//	prog, err := script.Compile(route, script.Options{Routes: cfg.Routes})
//	var m script.Message // one per worker, reused
//	res := prog.Run(&m, &sip, &rec)
//	if res.Dropped { return }
//	users = m.Values(prog.AVP(params.TracedUserAVP), users[:0]) // last set first
//
// The language is Kamailio 5.6.3's, measured against it: precedence, types and
// conversions of expressions, what counts as true, AVPs as stacks, POSIX
// regular expressions without regard to letter case, "return 0" that ends the
// script. Deliberate differences: $var(x) begins at 0 for each message (in
// Kamailio it keeps what the worker last put there); $si, $sp, $Ri, $Rp, $pr and
// $siptrace(direction) have values in the event route; an index of an AVP may
// count from the end; !~ is taken; $siptraced(defects), which Kamailio refuses, names
// what is wrong with a message ("missing_call_id,short_body", see sipmsg.Defect), and is
// $null where nothing is; keep_trace(), which Kamailio refuses as well, asks that the
// AVPs that a request has when the run ends, and the addresses that sip_trace() names for
// it, hold for its transaction, as those of a request route do in the proxy, and
// keep_trace("replies") that they hold for its replies alone.
//
// Left out: whatever changes, answers or routes a message, and what lives in
// the proxy's memory (transactions, dialogs, hash tables, XAVPs, selects but cfg_get). It is
// refused by Compile with its place, never skipped. The package does no I/O: what
// sip_trace(), hlog() and xlog() ask for comes back as actions.
package script
