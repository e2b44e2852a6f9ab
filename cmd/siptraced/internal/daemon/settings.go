package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/cmd/siptraced/internal/pipeline"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
	"siptraced/rpc"
)

// plan compares the configuration in force with one that was read again. live is
// what can be in force at once: next, but for the changes that need a restart and
// for what remote control has set. It changes nothing.
func plan(old, next *config.Config) (live *config.Config, changes []config.Change, err error) {
	if changes, err = old.Changes(next); err != nil {
		return nil, nil, err
	}
	live, err = old.Adopt(next, changes)
	return live, changes, err
}

// apply makes the running daemon what a configuration says. It is the only place
// that opens, changes or swaps what can change at run time, and does nothing to
// what is so already. After an error the configuration in force before is in force
// still. The caller holds d.mu, once others can change settings.
func (d *daemon) apply(ctx context.Context, live *config.Config) error {
	if d.stopping {
		return errors.New("siptraced is stopping")
	}
	old := d.cfg.Load()
	// What can fail comes first; destinations last among that, because what waits
	// for one that is removed is lost.
	steps := []func(context.Context, *config.Config) error{d.applySpool, d.applyRPC, d.applyRules, d.applyStore, d.applyMirrors}
	for i, step := range steps {
		err := step(ctx, live)
		if err == nil {
			continue
		}
		if d.started {
			for _, undo := range slices.Backward(steps[:i]) {
				if err := undo(ctx, old); err != nil {
					d.log.Error("a setting can't be put back", "err", err)
				}
			}
		}
		return err
	}
	d.cfg.Store(live)
	d.level.Set(live.LogLevel)
	debug.SetMemoryLimit(live.MemoryLimit)
	d.ingest.SetMaxConnections(live.Ingest.MaxConnections)
	d.pipeline.SetRules(d.rules())
	d.warn(live) // now it is so
	return nil
}

// warn logs the warnings of a configuration that were not there before.
func (d *daemon) warn(live *config.Config) {
	for _, w := range live.Warnings {
		if !slices.Contains(d.warned, w) {
			d.log.Warn("configuration", "warning", w)
		}
	}
	d.warned = live.Warnings
}

func (d *daemon) applySpool(ctx context.Context, c *config.Config) error {
	return d.spool.SetBounds(ctx, c.Spool.MaxBytes, c.Spool.MaxAge)
}

func (d *daemon) applyRPC(_ context.Context, c *config.Config) error {
	for _, s := range d.rpc {
		if err := s.SetToken(c.RPC.Token); err != nil {
			return fmt.Errorf("rpc.token: %w", err)
		}
	}
	return nil
}

func (d *daemon) applyRules(_ context.Context, c *config.Config) (err error) {
	if d.engine != nil {
		return d.engine.Configure(c.Rules)
	}
	d.engine, err = rules.New(rules.Options{Config: c.Rules, Counters: d.counters, Log: d.log, Changed: d.rulesChanged})
	return err
}

// applyStore opens the store where there is none yet. One that is open stays open
// when nothing is stored any more: what waits for it is written.
func (d *daemon) applyStore(ctx context.Context, c *config.Config) error {
	cfg := c.Store
	cfg.Rejects = d.rejects
	d.rejects.SetMax(cfg.RejectMaxBytes)
	if !c.Params.Stores() && (d.store == nil || d.kept) {
		return nil // what waits for a file that nobody named goes there
	}
	d.kept = c.Kept()
	if d.store != nil {
		return d.store.Reconfigure(cfg)
	}
	s, err := store.Open(ctx, cfg, d.spool, d.counters, d.log)
	if err != nil {
		return err
	}
	s.Start()
	d.store = s
	return nil
}

func (d *daemon) applyMirrors(ctx context.Context, c *config.Config) (err error) {
	if d.mirrors != nil {
		return d.mirrors.Apply(ctx, c.Mirror)
	}
	m := c.Mirror
	m.Loops = d.loops.detector
	d.mirrors, err = mirror.Open(ctx, m, d.spool, d.counters, d.log)
	return err
}

// rules are what is in force for the messages that come in. The caller holds
// d.mu, once others can change them.
func (d *daemon) rules() pipeline.Rules {
	c := d.cfg.Load()
	r := pipeline.Rules{
		Params: c.Params, Own: siptrace.NewSockets(slices.Concat(c.Own, d.learned), c.Params.AdvertisedData()), Routing: c.Routing(), Mirrors: d.mirrors,
	}
	d.engine.SetParams(c.Params)
	if decider := d.engine.Decider(); decider != nil {
		r.NewDecision = func() pipeline.Decision { return decider.NewDecision() }
	}
	return r
}

// rulesChanged has the rules that are in force now decide from now on.
func (d *daemon) rulesChanged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started && !d.stopping {
		d.pipeline.SetRules(d.rules())
	}
}

// ruleChanged logs who started or stopped a rule.
func (d *daemon) ruleChanged(_ context.Context, ch rpc.Change) {
	d.log.Info("rule changed", "rule", ch.What, "from", ch.Old, "to", ch.New, "method", ch.Method, "peer", ch.Peer.String())
}

// reload reads the configuration again and logs what changed. When it is wrong
// the one in force stays.
func (d *daemon) reload() {
	if _, err := d.Reload(); err != nil {
		d.log.Error("configuration not taken over, the one in force stays", "err", err)
	}
	if d.proxy != nil {
		select {
		case d.proxy.again <- struct{}{}:
		default: // it is being asked already
		}
	}
}

// Reload is reload for RPC: it returns what changed (control.Daemon).
func (d *daemon) Reload() ([]string, error) {
	if err := d.rejects.Reopen(); err != nil {
		d.log.Error("the reject file can't be opened anew, it goes on in the one before", "err", err)
	}
	next, err := d.opt.Load()
	if err != nil {
		return nil, err
	}
	changes, err := d.adopt(next)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, c := range changes {
		line := fmt.Sprintf("%s: %s -> %s", c.Name, c.From, c.To)
		if c.Restart == "" {
			d.log.Info("configuration changed", "setting", c.Name, "from", c.From, "to", c.To)
		} else {
			line += " (needs a restart: " + c.Restart + ")"
			d.log.Warn("configuration changed, needs a restart", "setting", c.Name, "from", c.From, "to", c.To, "reason", c.Restart)
		}
		lines = append(lines, line)
	}
	if len(changes) == 0 {
		d.log.Info("configuration read again, nothing changed")
	}
	d.saveState() // what the files say anew is no change of remote control any more
	return lines, nil
}

// adopt plans and applies a configuration that was read again.
func (d *daemon) adopt(next *config.Config) ([]config.Change, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	live, changes, err := plan(d.cfg.Load(), next)
	if err != nil {
		return nil, err
	}
	return changes, d.apply(context.Background(), live)
}

// Settings are the names of what remote control can change (control.Daemon).
func (d *daemon) Settings() []string {
	var names []string
	for _, k := range config.Keys() {
		if k.Remote {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Setting is the present value of one (control.Daemon).
func (d *daemon) Setting(name string) (any, bool) { return d.cfg.Load().Remotely(name) }

// Set changes one (control.Daemon).
func (d *daemon) Set(name string, value any) (old any, err error) {
	text := ""
	switch v := value.(type) {
	case string:
		text = v
	case int64:
		text = strconv.FormatInt(v, 10)
	default:
		return nil, fmt.Errorf("%s: a value of type %T does not fit", name, value)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, ok := d.Setting(name)
	if !ok {
		return nil, fmt.Errorf("%s can't be changed by remote control", name)
	}
	live, err := d.cfg.Load().With(config.Set{Name: name, Text: text, Origin: "remote control"})
	if err != nil {
		return old, err
	}
	return old, d.apply(context.Background(), live)
}
