package rules

import (
	"bytes"
	"hash/maphash"
	"slices"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/scope"
	"siptraced/compat/script"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// Bounds of what rules may put to one message, so that it always fits into the
// spool.
const (
	maxUsersBytes  = 8 << 10
	maxUserBytes   = 1024 // four bytes for each of 255 characters
	maxCorrelation = 1024
	maxCached      = 256
)

// Decider is the rules and parameters in force at one moment. Safe for concurrent
// use.
type Decider struct {
	engine *Engine
	cfg    Config
	route  *script.Program
	rules  []*active
	acks   *scope.StatelessACKs // nil: trace_sl_acks is 1
	base   []string
	// explain is told each step, in a dry run; nil else.
	explain func(text string)

	usersAVP, tableAVP int // of traced_user_avp and trace_table_avp in the route; -1: not there
}

// NewDecision makes what decides on messages, one after the other, by these rules.
func (d *Decider) NewDecision() *Decision { return &Decision{Decider: d} }

// Explain is d with each step told to f.
func (d *Decider) Explain(f func(text string)) *Decider {
	c := *d
	c.explain = f
	return &c
}

// Decision decides on messages, one after the other. It belongs to one goroutine
// at a time.
type Decision struct {
	*Decider

	script  script.Message
	format  script.Message
	found   []scope.Match
	values  [][]byte
	further []siptrace.Record // that the message gives rise to

	// What the message gets.
	users        [][]byte
	destinations []string
	correlation  []byte
	table        string
	size         int // of users
	selected     bool
	notOwn       bool // it has what another request kept, not what the route gives it

	tables, uris map[string]string // names seen and what became of them
	one          [1]string
}

func (w *Decision) reset() {
	w.found, w.values, w.further = w.found[:0], w.values[:0], w.further[:0]
	w.users, w.destinations = w.users[:0], w.destinations[:0]
	w.correlation, w.table, w.size, w.selected, w.notOwn = nil, "", 0, false, false
}

// say explains a step of a dry run.
func (w *Decision) say(text string) {
	if w.explain != nil {
		w.explain(text)
	}
}

// Decide decides on a message: it sets the users, table, destinations, sinks and
// correlation id of rec. The outcome is Spooled, unless the message goes no
// further. Further records are those that the message gave rise to: copies of
// messages looked back at, log lines, messages of sip_trace_msg. All of it is valid
// until the next call.
func (w *Decision) Decide(rec *siptrace.Record, m *sipmsg.Message) (o counters.Outcome, further []siptrace.Record) {
	w.reset()
	if w.acks != nil && w.acks.Has(m, rec) {
		w.say("trace_sl_acks is 0: an ACK for a reply of the proxy's own, dropped")
		return counters.StatelessACK, nil
	}
	var res script.Result
	if w.route != nil {
		res = w.runRoute(rec, m)
		if res.Dropped {
			return counters.EventRoute, w.further
		}
	}
	// Before anything is put to the record: it may be looked back at.
	w.found = w.engine.scopes.Find(w.found, m, rec)
	w.inScopes(rec, m)
	if w.route != nil {
		w.routed(&res, rec, m)
	}
	for _, a := range w.rules {
		if a.filter == nil || a.filter.Match(m, rec) {
			w.matched(a, rec, m)
		}
	}
	if !w.selected && w.cfg.Params.TraceInitMode == 2 {
		w.say("trace_init_mode is 2 and no rule chose it: dropped")
		return counters.InitMode, w.further
	}
	w.put(rec)
	return counters.Spooled, w.further
}

// runRoute runs the event route, and carries out what it asks for beside tracing.
func (w *Decision) runRoute(rec *siptrace.Record, m *sipmsg.Message) (res script.Result) {
	if w.explain == nil {
		res = w.route.Run(&w.script, m, rec)
	} else {
		var steps []script.Explanation
		res, steps = w.route.Explain(&w.script, m, rec)
		for _, s := range steps {
			w.say(s.String())
		}
	}
	w.faults(&res)
	w.ask(&res, rec)
	return res
}

// inScopes gives the message what the scopes that it belongs to have.
func (w *Decision) inScopes(rec *siptrace.Record, m *sipmsg.Message) {
	for i := range w.found {
		f := &w.found[i]
		if f.Skip {
			continue
		}
		a := f.Data.(*action)
		if a.kept {
			w.mergeKept(a, f, rec, m)
			continue
		}
		w.selected = true
		if a.rule != nil {
			a.rule.traced.Add(1)
		}
		if w.explain != nil {
			w.say("in the scope " + f.Kind.String() + " of " + a.name())
		}
		w.merge(a)
	}
}

func (a *action) name() string {
	if a.rule == nil {
		return "the event route"
	}
	return "rule " + a.rule.ID
}

// merge adds what a rule gives to what the message gets.
func (w *Decision) merge(a *action) {
	for _, u := range a.users {
		if !slices.ContainsFunc(w.users, func(have []byte) bool { return bytes.Equal(have, u) }) {
			w.addUser(u)
		}
	}
	for _, d := range a.destinations {
		w.addDestination(d)
	}
	if len(a.correlation) > 0 {
		w.correlation = a.correlation
	}
	if a.table != "" {
		w.table = a.table
	}
}

func (w *Decision) addUser(u []byte) {
	if len(u) > maxUserBytes {
		u = u[:maxUserBytes]
		w.engine.count.usersCut.Add(1)
	}
	if len(w.users) >= maxUsers || w.size+len(u) > maxUsersBytes {
		w.engine.count.usersCut.Add(1)
		return
	}
	w.users, w.size = append(w.users, u), w.size+len(u)
}

func (w *Decision) addDestination(d string) {
	if len(w.destinations) < maxDestinations && !slices.Contains(w.destinations, d) {
		w.destinations = append(w.destinations, d)
	}
}

// put gives the record what was collected.
func (w *Decision) put(rec *siptrace.Record) {
	if len(w.users) > 0 {
		rec.Users = w.users
	}
	rec.Table = w.table
	if w.correlation != nil {
		rec.CorrelationID = w.correlation
	}
	if len(w.destinations) > 0 {
		for _, d := range w.base {
			w.addDestination(d)
		}
		rec.Destinations = w.destinations
	}
}

// matched is what a filter rule does with a message that it took.
func (w *Decision) matched(r *active, rec *siptrace.Record, m *sipmsg.Message) {
	e := w.engine
	r.matched.Add(1)
	e.count.matched.Add(1)
	if w.explain != nil {
		w.say("rule " + r.ID + " matches")
	}
	if inScope(w.found, r.number, r.kind) {
		return // it has what the scope has
	}
	a := &action{rule: r, users: r.users, destinations: r.Destinations, table: r.Table}
	if r.format != nil {
		a.correlation = correlation(r.format, &w.format, m, rec)
	}
	mine := true
	if r.kind != scope.Message {
		var before []siptrace.Record
		before, mine = e.scopes.Start(r.kind, r.number, a, m, rec)
		w.lookBack(a, before)
	}
	if mine { // else somebody who looked back took it
		r.traced.Add(1)
		w.selected = true
		w.merge(a)
	}
}

func inScope(found []scope.Match, number uint64, kind scope.Kind) bool {
	return slices.ContainsFunc(found, func(f scope.Match) bool {
		// A dialog that a request can't begin is traced as its transaction.
		return f.Rule == number && (f.Kind == kind || f.Kind == scope.Transaction && kind == scope.Dialog)
	})
}

// lookBack makes copies of messages of a scope that came before it began: for
// what its rule adds to them, since they are stored and mirrored themselves.
func (w *Decision) lookBack(a *action, before []siptrace.Record) {
	p := &w.cfg.Params
	all := p.TraceInitMode == 2 // nothing of them was stored or mirrored
	var to []string
	for _, d := range a.destinations {
		if all || !slices.Contains(w.base, d) {
			to = append(to, d)
		}
	}
	var sinks siptrace.Sinks
	if p.Stores() && (len(a.users) > 0 || p.TraceOn && (all || a.table != "")) {
		sinks |= siptrace.ToStore
	}
	if len(to) > 0 && (p.TraceOn || len(a.users) > 0) {
		sinks |= p.Sinks(true) &^ siptrace.ToStore
	}
	if all && len(to) == 0 && p.TraceOn {
		sinks = p.Sinks(len(p.DuplicateURI) > 0)
	}
	if sinks == 0 {
		return
	}
	for i := range before {
		rec := &before[i]
		rec.Sinks, rec.Table, rec.Destinations = sinks, a.table, to
		rec.Users = a.users
		if p.TraceOn && (all || a.table != "") && len(a.users) > 0 {
			rec.Users = append([][]byte{nil}, a.users...)
		}
		if a.correlation != nil {
			rec.CorrelationID = a.correlation
		}
		w.engine.count.lookedBack.Add(1)
		if a.rule != nil {
			a.rule.traced.Add(1)
		}
	}
	w.further = append(w.further, before...)
	if len(before) > 0 {
		w.say("messages of the scope that came before it are traced too")
	}
}

// routed puts into force what the event route asked for.
func (w *Decision) routed(res *script.Result, rec *siptrace.Record, m *sipmsg.Message) {
	table := ""
	if !w.notOwn {
		w.addUsers()
		table = w.routeTable()
	}
	for i := range res.Actions {
		a := &res.Actions[i]
		switch {
		case a.Kind != script.SIPTrace || w.notOwn:
		case w.cfg.Params.TraceInitMode == 1:
			w.engine.count.ignored.Add(1)
		default:
			w.sipTrace(a, table, w.mode(a.Mode, res.Flags), rec, m)
		}
	}
	for i := range res.Actions {
		if a := &res.Actions[i]; a.Kind == script.KeepTrace {
			w.keepTrace(a, table, rec, m)
		}
	}
}

// addUsers gives the message the users of traced_user_avp: AVPs are the message's
// own, whatever scopes and rules add.
func (w *Decision) addUsers() {
	if w.usersAVP < 0 {
		return
	}
	w.values = w.script.Values(w.usersAVP, w.values[:0])
	others := w.users
	for _, u := range w.values {
		if !slices.ContainsFunc(others, func(have []byte) bool { return bytes.Equal(have, u) }) {
			w.addUser(u)
		}
	}
	w.selected = w.selected || len(w.values) > 0
}

// routeTable gives the message the table of trace_table_avp, and returns its name.
func (w *Decision) routeTable() (table string) {
	if w.tableAVP < 0 {
		return ""
	}
	w.values = w.script.Values(w.tableAVP, w.values[:0])
	if len(w.values) > 0 {
		if table = w.allowedTable(w.values[0]); table != "" {
			w.table = table
		}
	}
	return table
}

// sipTrace is a call of sip_trace() and its kin.
func (w *Decision) sipTrace(call *script.Action, table string, kind scope.Kind, rec *siptrace.Record, m *sipmsg.Message) {
	a := action{correlation: call.CorrelationID[:min(len(call.CorrelationID), maxCorrelation)], table: table}
	if len(call.Address) > 0 {
		if d := w.destination(call.Address); d != "" {
			w.one[0] = d
			a.destinations = w.one[:]
		}
	}
	number := w.engine.routeNumber(call)
	if inScope(w.found, number, kind) {
		return
	}
	if kind == scope.Message {
		w.selected = true
		w.merge(&a)
		return
	}
	// The scope outlives this message.
	kept := &action{correlation: bytes.Clone(a.correlation), table: table, destinations: slices.Clone(a.destinations), users: w.routeUsers()}
	before, mine := w.engine.scopes.Start(kind, number, kept, m, rec)
	w.lookBack(kept, before)
	if mine {
		w.selected = true
		w.merge(&a)
	}
}

// mode is the scope of a call of sip_trace(): with none given a transaction where
// trace_flag is set, else the message.
func (w *Decision) mode(mode byte, flags uint32) scope.Kind {
	if mode != 0 {
		return scope.Kind(mode)
	}
	if f := w.cfg.Params.TraceFlag; f >= 0 && flags&(1<<f) != 0 {
		return scope.Transaction
	}
	return scope.Message
}

// routeBit keeps the scopes of the event route apart from those of rules.
const routeBit = 1 << 63

// routeNumber names the scopes of one call in the event route: where it stands,
// and where it sends to.
func (e *Engine) routeNumber(a *script.Action) uint64 {
	return maphash.Bytes(e.seed, a.Address)*31 + uint64(a.Pos.Line) | routeBit
}

// table is the name that an AVP holds, when rows may go there.
func (w *Decision) allowedTable(name []byte) string {
	known, ok := w.tables[string(name)]
	if !ok {
		if s := string(name); w.cfg.allows(s) {
			known = s
		}
		w.tables = remember(w.tables, string(name), known)
	}
	if known == "" {
		w.engine.count.refusedTable.Add(1)
		w.say("a table that is not allowed: the default one is taken")
	}
	return known
}

// destination is a mirror that the event route named, "" for one that can not be.
func (w *Decision) destination(uri []byte) string {
	known, ok := w.uris[string(uri)]
	if !ok {
		known = destination(string(uri))
		w.uris = remember(w.uris, string(uri), known)
	}
	if known == "" {
		w.engine.count.refusedDestination.Add(1)
	}
	return known
}

// remember keeps names from being looked at again for each message; both what
// they are and how many there are is bounded.
func remember(m map[string]string, name, what string) map[string]string {
	if len(name) > maxUserBytes {
		return m
	}
	if m == nil || len(m) >= maxCached {
		m = map[string]string{}
	}
	m[name] = what
	return m
}

// destination returns the URI when there can be a mirror for it, or "".
func destination(uri string) string {
	if len(uri) > maxDestination {
		return ""
	}
	if _, err := siptrace.ParseMirrorURI([]byte(uri)); err != nil {
		return ""
	}
	return uri
}

// faults counts what went wrong in a run of the route.
func (w *Decision) faults(res *script.Result) {
	if !res.Faults.Any() {
		return
	}
	for f, n := range res.Faults {
		if n > 0 {
			w.engine.count.routeErrors.Add(uint64(n))
			w.engine.counters.Counter("rules.route_errors_" + script.Fault(f).String()).Add(uint64(n))
		}
	}
}

// ask carries out what the route asked for beside tracing: log lines here and to
// the collector.
func (w *Decision) ask(res *script.Result, rec *siptrace.Record) {
	for i := range res.Actions {
		a := &res.Actions[i]
		switch a.Kind {
		case script.Log:
			w.engine.logLine(a)
		case script.HLog:
			w.engine.count.hlog.Add(1)
			w.further = append(w.further, *hlogRecord(time.Now(), rec.CallID, a.CorrelationID, a.Text))
		case script.SIPTraceMsg:
			to := w.destination(a.Address)
			if to == "" {
				continue
			}
			r, err := traceMsgRecord(time.Now(), a.Text, string(a.From), string(a.To), to, a.CorrelationID)
			if err != nil {
				w.engine.count.routeErrors.Add(1)
				continue
			}
			r.CallID = rec.CallID
			w.further = append(w.further, *r)
		}
	}
}

// hlogRecord is a log line for the collector (hlog): by HEP3 in any mode, and
// whether tracing is on or not. Without a correlation id it has the Call-ID.
func hlogRecord(at time.Time, callID, correlation, text []byte) *siptrace.Record {
	if correlation == nil {
		correlation = callID
	}
	return &siptrace.Record{Time: at, CallID: callID, Type: siptrace.TypeLog, Msg: text, Meta: siptrace.Meta{CorrelationID: correlation}}
}

// traceMsgRecord is a message of the operator's own making (sip_trace_msg): it
// goes to one collector by HEP, and writes no row.
func traceMsgRecord(at time.Time, text []byte, from, to, destination string, correlation []byte) (*siptrace.Record, error) {
	src, err := siptrace.ParseEndpoint(from)
	if err != nil {
		return nil, err
	}
	dst, err := siptrace.ParseEndpoint(to)
	if err != nil {
		return nil, err
	}
	if len(correlation) == 0 {
		correlation = nil // no chunk, unlike hlog
	}
	// The protocol is that of the second address.
	src.Proto = dst.Proto
	return &siptrace.Record{
		Time: at, Msg: text, From: src, To: dst, Meta: siptrace.Meta{CorrelationID: correlation},
		Route: siptrace.Route{Destinations: []string{destination}, Sinks: siptrace.ToHEP},
	}, nil
}
