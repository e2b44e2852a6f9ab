package daemon

import (
	"context"

	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/rpc"
)

// openRules puts the event route and the rules into force.
func (d *daemon) openRules() (err error) {
	cfg := d.cfg.Rules
	cfg.Params = d.cfg.Params
	d.engine, err = rules.New(rules.Options{Config: cfg, Counters: d.counters, Log: d.log, Changed: d.rulesChanged})
	return err
}

// rulesChanged has the rules that are in force now decide from now on.
func (d *daemon) rulesChanged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pipeline != nil && !d.stopping {
		d.pipeline.SetRules(d.rules())
	}
}

// ruleChanged logs who started or stopped a rule.
func (d *daemon) ruleChanged(_ context.Context, ch rpc.Change) {
	d.log.Info("rule changed", "rule", ch.What, "from", ch.Old, "to", ch.New, "method", ch.Method, "peer", ch.Peer.String())
}
