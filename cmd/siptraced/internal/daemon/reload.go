package daemon

import (
	"fmt"
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/compat/siptrace"
)

// atOnce are the settings that SIGHUP puts into force. Everything else names a
// socket, a file or a connection, and needs a restart.
var atOnce = []string{
	"siptrace.trace_on", "siptrace.trace_local_ip", "siptrace.xheaders_read", "siptrace.data_mode",
	"siptrace.duplicate_uri", "siptrace.hep_mode_on", "siptrace.xheaders_write", "siptrace.trace_flag",
	"siptrace.traced_user_avp", "siptrace.trace_table_avp", "siptrace.trace_sl_acks", "siptrace.trace_init_mode",
	"siptrace.trace_dialog_ack", "siptrace.trace_dialog_spiral", "siptrace.evcb_msg",
	"event_route", "rules", "tables", "local", "socket", "log.level", "shutdown_timeout",
}

// reload reads the configuration again and says what changed. When it is wrong
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
	next, err := d.opt.Load()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := differences(d.cfg, next)
	// What did not change in the configuration stays as RPC may have set it, and
	// what needs a restart stays as it was.
	p := d.cfg.Params
	for _, c := range changed {
		param, ok := strings.CutPrefix(c.name, "siptrace.")
		if !ok || !slices.Contains(atOnce, c.name) {
			continue
		}
		s, err := siptrace.Lookup(param)
		if err == nil {
			err = p.SetText(param, fmt.Sprint(s.Value(&next.Params)))
		}
		if err != nil {
			return nil, err
		}
	}
	rules := next.Rules
	rules.Params, rules.StateFile = p, d.cfg.Rules.StateFile
	if err := d.engine.Configure(rules); err != nil {
		return nil, err
	}
	var said []string
	restart := false
	for _, c := range changed {
		line := fmt.Sprintf("%s: %s -> %s", c.name, c.from, c.to)
		if slices.Contains(atOnce, c.name) {
			said = append(said, line)
			d.log.Info("configuration changed", "setting", c.name, "from", c.from, "to", c.to)
		} else {
			restart = true
			said = append(said, line+" (needs a restart)")
			d.log.Warn("configuration changed, needs a restart", "setting", c.name, "from", c.from, "to", c.to)
		}
	}
	if len(changed) == 0 {
		d.log.Info("configuration read again, nothing changed")
	}
	if slices.ContainsFunc(changed, func(c difference) bool { return c.name == "log.level" }) {
		d.level.Set(next.LogLevel)
	}
	if err := d.setMirrors(p); err != nil {
		return nil, err
	}
	d.cfg.Params, d.cfg.Own, d.cfg.ShutdownTimeout, d.cfg.Rules = p, next.Own, next.ShutdownTimeout, rules
	if !restart {
		d.cfg.Values, d.cfg.Sockets = next.Values, next.Sockets
	}
	d.pipeline.SetRules(d.rules())
	return said, nil
}

type difference struct{ name, from, to string }

// differences compares the effective values of two configurations.
func differences(old, next *config.Config) []difference {
	var out []difference
	for i, v := range next.Values {
		if i < len(old.Values) && old.Values[i].Text != v.Text {
			out = append(out, difference{v.Name, old.Values[i].Text, v.Text})
		}
	}
	named := func(d difference) bool { return d.name == "event_route" || d.name == "rules" || d.name == "tables" }
	if !old.Rules.Equal(&next.Rules) && !slices.ContainsFunc(out, named) {
		out = append(out, difference{"rules", "as they were", "changed in their files"})
	}
	if from, to := socketList(old), socketList(next); from != to {
		out = append(out, difference{"socket", from, to})
	}
	return out
}

func socketList(c *config.Config) string {
	var texts []string
	for _, s := range c.Sockets {
		texts = append(texts, s.Text)
	}
	return strings.Join(texts, ", ")
}
