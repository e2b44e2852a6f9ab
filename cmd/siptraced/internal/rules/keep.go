package rules

import (
	"bytes"
	"slices"

	"siptraced/cmd/siptraced/internal/scope"
	"siptraced/compat/script"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// keepTrace is a call of keep_trace(): the AVPs that a request has, and the addresses
// that sip_trace() names for it, are those of its transaction, as in Kamailio. An INVITE
// without any keeps that: its CANCEL, and its ACK for a failure, have none either. CANCEL
// and ACK begin no transaction with any of their own.
func (w *Decision) keepTrace(call *script.Action, table string, rec *siptrace.Record, m *sipmsg.Message) {
	if !m.IsRequest || is(m, "ACK") || is(m, "CANCEL") {
		return
	}
	number := w.engine.routeNumber(call)
	kept := &action{kept: true, replies: call.Replies, table: table, users: w.routeUsers(), destinations: slices.Clone(w.destinations)}
	if kept.table == "" && len(kept.users)+len(kept.destinations) == 0 && (kept.replies || !is(m, "INVITE")) || inScope(w.found, number, scope.Transaction) {
		return
	}
	before, _ := w.engine.scopes.Start(scope.Transaction, number, kept, m, rec)
	w.lookBack(kept, before)
}

// mergeKept gives a message what its transaction kept: to those messages that have it
// in Kamailio. The ACK for a 2xx is a transaction of its own. To the ACK for a
// stateless reply the module gives no AVPs, and to the proxy's own answer to a CANCEL no
// users; a CANCEL that comes in goes to duplicate_uri. A CANCEL, and an ACK for a
// failure, have nothing else.
func (w *Decision) mergeKept(a *action, f *scope.Match, rec *siptrace.Record, m *sipmsg.Message) {
	if f.ACK || a.replies && m.IsRequest || scope.AnsweredBySL(m, rec) {
		return
	}
	w.say("it has what keep_trace() kept for its transaction")
	w.selected = w.selected || len(a.users)+len(a.destinations) > 0
	w.notOwn = w.notOwn || m.IsRequest && (is(m, "ACK") || is(m, "CANCEL"))
	kept := *a
	if is(m, "CANCEL") && m.IsRequest == (rec.Direction != siptrace.Out) {
		if m.IsRequest {
			kept.destinations = nil
		} else {
			kept.users = nil
		}
	}
	w.merge(&kept)
}

// is compares the method of a message, of a reply that of its CSeq.
func is(m *sipmsg.Message, method string) bool { return string(m.MethodName()) == method }

// routeUsers are copies of the users that the event route gave the message.
func (w *Decision) routeUsers() (users [][]byte) {
	if w.usersAVP < 0 {
		return nil
	}
	w.values = w.script.Values(w.usersAVP, w.values[:0])
	for _, u := range w.values {
		users = append(users, bytes.Clone(u[:min(len(u), maxUserBytes)]))
	}
	return users
}
