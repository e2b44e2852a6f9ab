package rules

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/cmd/siptraced/internal/pipeline"
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

// judge decides by the rules that were in force when it was made
// (pipeline.Judge).
type judge struct {
	engine *Engine
	cfg    Config
	route  *script.Program
	rules  []*active
	acks   *scope.StatelessACKs // nil: trace_sl_acks is 1
	base   []string
	// explain is told each step, in a dry run; nil else.
	explain func(text string)

	usersAVP, tableAVP int
}

// avps finds the AVPs of traced_user_avp and trace_table_avp in the route.
func (j *judge) avps() {
	j.usersAVP, j.tableAVP = -1, -1
	if j.route != nil {
		j.usersAVP, j.tableAVP = j.route.AVP(j.cfg.Params.TracedUserAVP), j.route.AVP(j.cfg.Params.TraceTableAVP)
	}
}

// memory is what the decision on one message needs.
type memory struct {
	script script.Message
	format script.Message
	found  []scope.Match
	values [][]byte

	// What the message gets.
	users        [][]byte
	destinations []string
	correlation  []byte
	table        string
	size         int // of users
	selected     bool

	tables, uris map[string]string // names seen and what became of them
	one          [1]string
	explain      func(text string)
}

func (w *memory) reset() {
	w.found, w.values, w.users, w.destinations = w.found[:0], w.values[:0], w.users[:0], w.destinations[:0]
	w.correlation, w.table, w.size, w.selected = nil, "", 0, false
}

// say explains a step of a dry run.
func (w *memory) say(text string) {
	if w.explain != nil {
		w.explain(text)
	}
}

// Judge decides on a message (pipeline.Judge).
func (j *judge) Judge(mem *any, rec *siptrace.Record, m *sipmsg.Message, out pipeline.Maker) *atomic.Uint64 {
	w, ok := (*mem).(*memory)
	if !ok {
		w = new(memory)
		*mem = w
	}
	w.reset()
	w.explain = j.explain
	e := j.engine
	if j.acks != nil && j.acks.Has(m, rec) {
		w.say("trace_sl_acks is 0: an ACK for a reply of the proxy's own, dropped")
		return e.count.slACK
	}
	var res script.Result
	if j.route != nil {
		if w.explain == nil {
			res = j.route.Run(&w.script, m, rec)
		} else {
			var steps []script.Explanation
			res, steps = j.route.Explain(&w.script, m, rec)
			for _, s := range steps {
				w.say(s.String())
			}
		}
		j.faults(&res)
		j.ask(w, &res, rec, out)
		if res.Dropped {
			return e.count.eventRoute
		}
	}
	// Before anything is put to the record: it may be looked back at.
	w.found = e.scopes.Find(w.found, m, rec)
	for _, f := range w.found {
		if f.Skip {
			continue
		}
		ef := f.Data.(*effect)
		w.selected = true
		if ef.rule != nil {
			ef.rule.traced.Add(1)
		}
		if w.explain != nil {
			w.say("in the scope " + f.Kind.String() + " of " + ef.name())
		}
		j.apply(w, ef)
	}
	if j.route != nil {
		j.routed(w, &res, rec, m, out)
	}
	for _, a := range j.rules {
		if a.filter == nil || a.filter.Match(m, rec) {
			j.matched(w, a, rec, m, out)
		}
	}
	if !w.selected && j.cfg.Params.TraceInitMode == 2 {
		w.say("trace_init_mode is 2 and no rule chose it: dropped")
		return e.count.initMode
	}
	j.put(w, rec)
	return nil
}

func (ef *effect) name() string {
	if ef.rule == nil {
		return "the event route"
	}
	return "rule " + ef.rule.ID
}

// apply adds what a rule gives to what the message gets.
func (j *judge) apply(w *memory, ef *effect) {
	for _, u := range ef.users {
		if !slices.ContainsFunc(w.users, func(have []byte) bool { return bytes.Equal(have, u) }) {
			j.addUser(w, u)
		}
	}
	for _, d := range ef.destinations {
		w.addDestination(d)
	}
	if len(ef.correlation) > 0 {
		w.correlation = ef.correlation
	}
	if ef.table != "" {
		w.table = ef.table
	}
}

func (j *judge) addUser(w *memory, u []byte) {
	if len(u) > maxUserBytes {
		u = u[:maxUserBytes]
		j.engine.count.usersCut.Add(1)
	}
	if len(w.users) >= maxUsers || w.size+len(u) > maxUsersBytes {
		j.engine.count.usersCut.Add(1)
		return
	}
	w.users, w.size = append(w.users, u), w.size+len(u)
}

func (w *memory) addDestination(d string) {
	if len(w.destinations) < maxDestinations && !slices.Contains(w.destinations, d) {
		w.destinations = append(w.destinations, d)
	}
}

// put gives the record what was collected.
func (j *judge) put(w *memory, rec *siptrace.Record) {
	if len(w.users) > 0 {
		rec.Users = w.users
	}
	rec.Table = w.table
	if w.correlation != nil {
		rec.CorrelationID = w.correlation
	}
	if len(w.destinations) > 0 {
		for _, d := range j.base {
			w.addDestination(d)
		}
		rec.Destinations = w.destinations
	}
}

// matched is what a filter rule does with a message that it took.
func (j *judge) matched(w *memory, a *active, rec *siptrace.Record, m *sipmsg.Message, out pipeline.Maker) {
	e := j.engine
	a.matched.Add(1)
	e.count.matched.Add(1)
	if w.explain != nil {
		w.say("rule " + a.ID + " matches")
	}
	if inScope(w.found, a.number, a.kind) {
		return // it has what the scope has
	}
	ef := &effect{rule: a, users: a.users, destinations: a.Destinations, table: a.Table}
	if a.format != nil {
		ef.correlation = correlation(a.format, &w.format, m, rec)
	}
	mine := true
	if a.kind != scope.Message {
		var before []siptrace.Record
		before, mine = e.scopes.Start(a.kind, a.number, ef, m, rec)
		j.lookBack(ef, before, out, w)
	}
	if mine { // else somebody who looked back took it
		a.traced.Add(1)
		w.selected = true
		j.apply(w, ef)
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
func (j *judge) lookBack(ef *effect, before []siptrace.Record, out pipeline.Maker, w *memory) {
	p := &j.cfg.Params
	all := p.TraceInitMode == 2 // nothing of them was stored or mirrored
	var to []string
	for _, d := range ef.destinations {
		if all || !slices.Contains(j.base, d) {
			to = append(to, d)
		}
	}
	var sinks siptrace.Sinks
	if p.Stores() && (len(ef.users) > 0 || p.TraceOn && (all || ef.table != "")) {
		sinks |= siptrace.ToStore
	}
	if len(to) > 0 && (p.TraceOn || len(ef.users) > 0) {
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
		rec.Sinks, rec.Table, rec.Destinations = sinks, ef.table, to
		rec.Users = ef.users
		if p.TraceOn && (all || ef.table != "") && len(ef.users) > 0 {
			rec.Users = append([][]byte{nil}, ef.users...)
		}
		if ef.correlation != nil {
			rec.CorrelationID = ef.correlation
		}
		j.engine.count.lookedBack.Add(1)
		if ef.rule != nil {
			ef.rule.traced.Add(1)
		}
		out.Make(rec)
	}
	if len(before) > 0 {
		w.say("messages of the scope that came before it are traced too")
	}
}

// routed puts into force what the event route asked for.
func (j *judge) routed(w *memory, res *script.Result, rec *siptrace.Record, m *sipmsg.Message, out pipeline.Maker) {
	// AVPs are the message's own, whatever scopes and rules add.
	if j.usersAVP >= 0 {
		w.values = w.script.Values(j.usersAVP, w.values[:0])
		others := w.users
		for _, u := range w.values {
			if !slices.ContainsFunc(others, func(have []byte) bool { return bytes.Equal(have, u) }) {
				j.addUser(w, u)
			}
		}
		w.selected = w.selected || len(w.values) > 0
	}
	var table string
	if j.tableAVP >= 0 {
		w.values = w.script.Values(j.tableAVP, w.values[:0])
		if len(w.values) > 0 {
			if table = j.table(w, w.values[0]); table != "" {
				w.table = table
			}
		}
	}
	for i := range res.Actions {
		a := &res.Actions[i]
		if a.Kind != script.SIPTrace {
			continue
		}
		if j.cfg.Params.TraceInitMode == 1 {
			j.engine.count.ignored.Add(1)
			continue
		}
		ef := effect{correlation: a.CorrelationID, table: table}
		if len(a.CorrelationID) > maxCorrelation {
			ef.correlation = a.CorrelationID[:maxCorrelation]
		}
		if len(a.Address) > 0 {
			if d := j.destination(w, a.Address); d != "" {
				w.one[0] = d
				ef.destinations = w.one[:]
			}
		}
		kind := j.mode(a.Mode, res.Flags)
		number := j.engine.routeNumber(a)
		if inScope(w.found, number, kind) {
			continue
		}
		if kind == scope.Message {
			w.selected = true
			j.apply(w, &ef)
			continue
		}
		// The scope outlives this message.
		kept := &effect{correlation: bytes.Clone(ef.correlation), table: table, destinations: slices.Clone(ef.destinations)}
		if j.usersAVP >= 0 {
			w.values = w.script.Values(j.usersAVP, w.values[:0])
			for _, u := range w.values {
				kept.users = append(kept.users, bytes.Clone(u[:min(len(u), maxUserBytes)]))
			}
		}
		before, mine := j.engine.scopes.Start(kind, number, kept, m, rec)
		j.lookBack(kept, before, out, w)
		if mine {
			w.selected = true
			j.apply(w, &ef)
		}
	}
}

// mode is the scope of a call of sip_trace(): with none given a transaction where
// trace_flag is set, else the message.
func (j *judge) mode(mode byte, flags uint32) scope.Kind {
	if mode != 0 {
		return scope.Kind(mode)
	}
	if f := j.cfg.Params.TraceFlag; f >= 0 && flags&(1<<f) != 0 {
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
func (j *judge) table(w *memory, name []byte) string {
	known, ok := w.tables[string(name)]
	if !ok {
		if s := string(name); j.cfg.allows(s) {
			known = s
		}
		w.tables = remember(w.tables, string(name), known)
	}
	if known == "" {
		j.engine.count.refusedTable.Add(1)
		w.say("a table that is not allowed: the default one is taken")
	}
	return known
}

// destination is a mirror that the event route named, "" for one that can not be.
func (j *judge) destination(w *memory, uri []byte) string {
	known, ok := w.uris[string(uri)]
	if !ok {
		known = destination(string(uri))
		w.uris = remember(w.uris, string(uri), known)
	}
	if known == "" {
		j.engine.count.refusedDestination.Add(1)
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
	if _, _, err := mirror.ParseTarget(uri); err != nil {
		return ""
	}
	return uri
}

// faults books what went wrong in a run of the route.
func (j *judge) faults(res *script.Result) {
	if !res.Faults.Any() {
		return
	}
	for f, n := range res.Faults {
		if n > 0 {
			j.engine.count.routeErrors.Add(uint64(n))
			j.engine.counters.Counter("rules.route_errors_" + script.Fault(f).String()).Add(uint64(n))
		}
	}
}

// ask carries out what the route asked for beside tracing: log lines here and to
// the collector.
func (j *judge) ask(w *memory, res *script.Result, rec *siptrace.Record, out pipeline.Maker) {
	for i := range res.Actions {
		a := &res.Actions[i]
		switch a.Kind {
		case script.Log:
			j.engine.logLine(a)
		case script.HLog:
			j.engine.count.hlog.Add(1)
			out.Log(hlogRecord(time.Now(), rec.CallID, a.CorrelationID, a.Text))
		case script.SIPTraceMsg:
			to := j.destination(w, a.Address)
			if to == "" {
				continue
			}
			r, err := traceMsgRecord(time.Now(), a.Text, string(a.From), string(a.To), to, a.CorrelationID)
			if err != nil {
				j.engine.count.routeErrors.Add(1)
				continue
			}
			r.CallID = rec.CallID
			out.Make(r)
		}
	}
}

// hlogRecord is a log line for the collector (hlog): by HEP3 in any mode, and
// whether tracing is on or not. Without a correlation id it has the Call-ID.
func hlogRecord(at time.Time, callID, correlation, text []byte) *siptrace.Record {
	if correlation == nil {
		correlation = callID
	}
	return &siptrace.Record{Time: at, CallID: callID, Msg: text, Meta: siptrace.Meta{CorrelationID: correlation}}
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
