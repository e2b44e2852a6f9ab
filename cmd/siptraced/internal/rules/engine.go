package rules

import (
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/scope"
	"siptraced/compat/flexisip"
	"siptraced/compat/script"
	"siptraced/compat/siptrace"
)

// Options are what an Engine works with.
type Options struct {
	Config   Config
	Counters *counters.Set
	Log      *slog.Logger
	// Changed is called when rules have started or ended: the pipeline has to get
	// another Decider. Nil: nobody.
	Changed func()
}

// Engine holds the rules in force. Safe for concurrent use.
type Engine struct {
	counters *counters.Set
	log      *slog.Logger
	changed  func()
	scopes   *scope.Tracker
	acks     *scope.StatelessACKs
	count    tallies
	xlog     xlogBudget
	seed     maphash.Seed

	mu     sync.Mutex // covers what follows
	cfg    Config
	route  *script.Program
	active []*active
	number uint64 // of the rule that was started last
	timer  *time.Timer
	// started: it has a configuration.
	started, closed bool
	saving          sync.Mutex // held while the state file is written
}

// tallies are the counters of the rules.
type tallies struct {
	matched, lookedBack, usersCut, refusedTable        *atomic.Uint64
	refusedDestination, routeErrors, hlog, xlogDropped *atomic.Uint64
	ignored                                            *atomic.Uint64
}

// active is a rule in force.
type active struct {
	Rule
	number  uint64 // names its scopes
	kind    scope.Kind
	filter  *flexisip.Filter // nil: every message
	format  *script.Format   // of the correlation id; nil: none
	users   [][]byte         // in row order
	matched atomic.Uint64    // messages that the filter took
	traced  atomic.Uint64    // messages of its scopes, and those looked back at
}

// action is what a rule does with a message.
type action struct {
	rule         *active // nil: the event route
	kept         bool    // by keep_trace()
	replies      bool    // for replies alone
	users        [][]byte
	destinations []string
	correlation  []byte
	table        string
}

// New makes an engine with the rules of the configuration and those that were
// kept. An error names the rule or the place in the event route.
func New(o Options) (*Engine, error) {
	c := o.Counters
	e := &Engine{
		counters: c, log: o.Log, changed: o.Changed,
		scopes: scope.New(scope.Config{}), acks: new(scope.StatelessACKs), seed: maphash.MakeSeed(),
		count: tallies{
			matched: c.Counter("rules.matched"), lookedBack: c.Counter("rules.looked_back"), usersCut: c.Counter("rules.users_cut"),
			refusedTable: c.Counter("rules.table_refused"), refusedDestination: c.Counter("rules.destination_refused"),
			routeErrors: c.Counter("rules.route_errors"), hlog: c.Counter("rules.hlog"), xlogDropped: c.Counter("rules.xlog_dropped"),
			ignored: c.Counter("rules.ignored"),
		},
	}
	c.Gauge("rules.active", func() uint64 { return uint64(len(e.List())) })
	for name, of := range map[string]func(scope.Stats) uint64{
		"scopes_started":   func(s scope.Stats) uint64 { return s.Started },
		"scopes_ended":     func(s scope.Stats) uint64 { return s.Ended },
		"scopes_timed_out": func(s scope.Stats) uint64 { return s.TimedOut },
		"scopes_evicted":   func(s scope.Stats) uint64 { return s.Evicted },
		"scopes_stopped":   func(s scope.Stats) uint64 { return s.Stopped },
	} {
		c.Func("rules."+name, func() uint64 { return of(e.scopes.Stats()) })
	}
	c.Gauge("rules.scopes", func() uint64 { return uint64(e.scopes.Stats().Open) })
	c.Gauge("rules.scopes_bytes", func() uint64 { return uint64(e.scopes.Stats().Bytes) })
	if err := e.Configure(o.Config); err != nil {
		return nil, err
	}
	if err := e.restore(); err != nil {
		return nil, err
	}
	return e, nil
}

// Configure puts the rules of another configuration into force; those that were
// started by RPC go on, in another state file if it names one. After an error
// everything is as it was.
func (e *Engine) Configure(cfg Config) error {
	route, err := compileRoute(&cfg)
	if err != nil {
		return err
	}
	moved, err := e.configure(cfg, route)
	if moved {
		e.save()
	}
	return err
}

// configure is Configure with the route as it was compiled; moved: the state file
// is another one.
func (e *Engine) configure(cfg Config, route *script.Program) (moved bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*active
	for _, r := range cfg.Rules {
		// What did not change keeps its scopes and counters.
		i := slices.IndexFunc(e.active, func(a *active) bool { return a.configured() && a.same(r) })
		if i >= 0 {
			list = append(list, e.active[i])
			continue
		}
		a, err := e.compile(r, &cfg)
		if err != nil {
			return false, fmt.Errorf("%s: rule %s: %w", r.By, r.ID, err)
		}
		list = append(list, a)
	}
	for _, a := range e.active {
		if a.configured() {
			continue
		}
		if slices.ContainsFunc(list, func(o *active) bool { return o.ID == a.ID }) {
			return false, fmt.Errorf("%s: the id is taken by a rule that was started by RPC: stop that one, or name this one otherwise", a.ID)
		}
		list = append(list, a)
	}
	for _, a := range e.active {
		if !slices.Contains(list, a) {
			e.scopes.Stop(a.number)
		}
	}
	moved = e.started && e.cfg.StateFile != cfg.StateFile
	e.cfg, e.route, e.active, e.started = cfg, route, list, true
	e.arm()
	return moved, nil
}

// configured reports whether the rule is one of the configuration.
func (a *active) configured() bool { return a.Started.IsZero() }

func (r *Rule) same(o *Rule) bool {
	return r.ID == o.ID && r.Filter == o.Filter && r.Scope == o.Scope && r.CorrelationID == o.CorrelationID && r.Table == o.Table &&
		slices.Equal(r.Users, o.Users) && slices.Equal(r.Destinations, o.Destinations)
}

// compile makes a rule ready. The caller holds e.mu.
func (e *Engine) compile(r *Rule, cfg *Config) (*active, error) {
	a := &active{Rule: *r}
	var err error
	if a.kind, err = scope.ParseKind(r.Scope); err != nil {
		return nil, fmt.Errorf("scope: %w", err)
	}
	if r.Filter != "" {
		if a.filter, err = flexisip.Compile(r.Filter); err != nil {
			return nil, fmt.Errorf("filter: %w", err)
		}
	}
	if r.CorrelationID != "" {
		if a.format, err = script.CompileFormat(r.CorrelationID); err != nil {
			return nil, fmt.Errorf("correlation_id: %w", err)
		}
	}
	if r.Table != "" && !cfg.allows(r.Table) {
		return nil, fmt.Errorf("table %s is not allowed (key rules.tables)", r.Table)
	}
	for _, u := range slices.Backward(r.Users) {
		a.users = append(a.users, []byte(u))
	}
	e.number++
	a.number = e.number
	return a, nil
}

// Start puts a rule into force, and returns it as it is.
func (e *Engine) Start(r *Rule) (*Rule, error) {
	e.mu.Lock()
	err := e.start(r)
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	e.notify()
	return r, nil
}

func (e *Engine) start(r *Rule) error {
	taken := func(id string) bool {
		return slices.ContainsFunc(e.active, func(a *active) bool { return a.ID == id })
	}
	switch {
	case e.closed:
		return errors.New("siptraced is stopping")
	case len(e.active) >= maxRules:
		return fmt.Errorf("%d rules are in force, at most %d are possible", len(e.active), maxRules)
	case e.cfg.Params.TraceInitMode == 1:
		return errors.New("trace_init_mode is 1: all traffic is traced alike, and rules have no effect")
	case r.ID != "" && taken(r.ID):
		return fmt.Errorf("there is a rule %s already", r.ID)
	}
	for n := 1; r.ID == ""; n++ {
		if id := fmt.Sprintf("rule-%d", n); !taken(id) {
			r.ID = id
		}
	}
	a, err := e.compile(r, &e.cfg)
	if err != nil {
		return err
	}
	e.active = append(slices.Clip(e.active), a)
	e.arm()
	return nil
}

// notify saves the rules and has the pipeline get another Decider.
func (e *Engine) notify() {
	e.save()
	if e.changed != nil {
		e.changed()
	}
}

// Stop ends the rule of that id with its scopes; with "all" every rule that was
// started by RPC.
func (e *Engine) Stop(id string) ([]string, error) {
	e.mu.Lock()
	var ended []string
	var left []*active
	for _, a := range e.active {
		switch {
		case a.ID == id && a.configured():
			e.mu.Unlock()
			return nil, fmt.Errorf("rule %s is one of the configuration (%s): take it out there, and reload", id, a.By)
		case a.ID == id, id == "all" && !a.configured():
			ended = append(ended, a.ID)
			e.scopes.Stop(a.number)
		default:
			left = append(left, a)
		}
	}
	e.active = left
	e.arm()
	e.mu.Unlock()
	if len(ended) == 0 && id != "all" {
		return nil, fmt.Errorf("there is no rule %s", id)
	}
	e.notify()
	return ended, nil
}

// State is a rule in force with its counters.
type State struct {
	Rule
	Matched, Traced uint64
}

// List is every rule in force, in the order in which they apply.
func (e *Engine) List() []State {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]State, len(e.active))
	for i, a := range e.active {
		out[i] = State{Rule: a.Rule, Matched: a.matched.Load(), Traced: a.traced.Load()}
	}
	return out
}

// arm sets the timer to the end of the rule that ends first. The caller holds
// e.mu.
func (e *Engine) arm() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	var first time.Time
	for _, a := range e.active {
		if !a.Until.IsZero() && (first.IsZero() || a.Until.Before(first)) {
			first = a.Until
		}
	}
	if !first.IsZero() && !e.closed {
		e.timer = time.AfterFunc(time.Until(first), e.expire)
	}
}

// expire ends the rules whose time is over.
func (e *Engine) expire() {
	now := time.Now()
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	var left []*active
	for _, a := range e.active {
		if a.Until.IsZero() || now.Before(a.Until) {
			left = append(left, a)
			continue
		}
		e.scopes.Stop(a.number)
		e.log.Info("rule ended: its time is over", "id", a.ID, "matched", a.matched.Load())
	}
	e.active = left
	e.arm()
	e.mu.Unlock()
	e.notify()
}

// Close ends the timer. Rules stay kept for the next start.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.arm()
}

// SetParams has other parameters decide, from the next Decider on.
func (e *Engine) SetParams(p siptrace.Params) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cfg.Params = p
}

// Decider is what decides by the rules and parameters in force now; nil when
// nothing has to be decided. The scopes follow it.
func (e *Engine) Decider() *Decider {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &e.cfg.Params
	d := &Decider{engine: e, cfg: e.cfg, route: e.route, base: e.cfg.base(), usersAVP: -1, tableAVP: -1}
	if d.route != nil {
		d.usersAVP, d.tableAVP = d.route.AVP(p.TracedUserAVP), d.route.AVP(p.TraceTableAVP)
	}
	if p.TraceInitMode != 1 {
		d.rules = e.active
	}
	if !p.TraceSLAcks {
		d.acks = e.acks
	}
	e.scopes.SetOptions(scope.Options{
		Skipped: true, SkipACK: !p.TraceDialogAck, SkipSpiral: !p.TraceDialogSpiral,
		LookBack: e.cfg.routeCalls("sip_trace") || e.cfg.routeCalls("keep_trace") || slices.ContainsFunc(d.rules, func(a *active) bool { return a.kind != scope.Message }),
	})
	if d.route == nil && len(d.rules) == 0 && d.acks == nil && p.TraceInitMode != 2 {
		return nil
	}
	return d
}

// Describe is the event route as it was understood, and the rules of the
// configuration.
func (c *Config) Describe() string {
	var b strings.Builder
	if p, err := compileRoute(c); err == nil && p != nil {
		b.WriteString(p.String())
	}
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "rule %s: %s\n", r.ID, r)
	}
	return b.String()
}

// base are the mirrors that a message goes to beside those that rules name:
// where trace_mode mirrors all traffic, that goes on (the module then sends the
// message twice); elsewhere a rule's own address stands in place of duplicate_uri.
func (c *Config) base() []string {
	p := &c.Params
	if p.TraceInitMode == 2 || p.TraceMode&(siptrace.ModeHEP|siptrace.ModeSIP) == 0 {
		return nil
	}
	return p.DuplicateURI
}
