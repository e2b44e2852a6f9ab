// Package scope knows which transaction or dialog a message belongs to, for
// rules that trace the whole of it: messages found by one rule, in bounded
// memory, whatever is lost or out of order on the way here.
//
//	t := scope.New(scope.Config{})
//	t.SetOptions(scope.Options{LookBack: true})
//	found = t.Find(found[:0], &msg, &rec)               // each message
//	before, mine := t.Start(scope.Dialog, id, data, &msg, &rec) // where a rule matches
//
// What it leaves out: rules and what they do with a message, dialogs whose
// Call-ID changes on the way through the proxy, and the state of a registration
// or publication.
package scope
