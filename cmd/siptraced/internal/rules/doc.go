// Package rules decides what becomes of each message: the operator's
// event_route[siptrace:msg], filter rules from a file or by RPC, and the
// transactions and dialogs that they chose.
//
//	e, err := rules.New(rules.Options{Config: cfg, Counters: c, Log: log})
//	d := e.Decider().NewDecision()             // one for each worker
//	outcome, further := d.Decide(&rec, &msg)
//	methods := e.Methods(pipeline, changed)    // siptrace.trace.start, ...
//	e.Close()
//
// What it leaves out: the languages themselves (compat/script, compat/flexisip),
// what belongs to a transaction or dialog (package scope), sinks.
package rules
