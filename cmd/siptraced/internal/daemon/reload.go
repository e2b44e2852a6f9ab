package daemon

import (
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/config"
)

// atOnce are the settings that SIGHUP puts into force. Everything else names a
// socket, a file or a connection, and needs a restart.
var atOnce = []string{
	"siptrace.trace_on", "siptrace.trace_local_ip", "siptrace.xheaders_read", "siptrace.data_mode",
	"local", "socket", "log.level", "shutdown_timeout",
}

// reload reads the configuration again and says what changed. When it is wrong
// the one in force stays.
func (d *daemon) reload() {
	next, err := d.opt.Load()
	if err != nil {
		d.log.Error("configuration not taken over, the one in force stays", "err", err)
		return
	}
	changed := differences(d.cfg, next)
	restart := false
	for _, c := range changed {
		if slices.Contains(atOnce, c.name) {
			d.log.Info("configuration changed", "setting", c.name, "from", c.from, "to", c.to)
		} else {
			restart = true
			d.log.Warn("configuration changed, needs a restart", "setting", c.name, "from", c.from, "to", c.to)
		}
	}
	if len(changed) == 0 {
		d.log.Info("configuration read again, nothing changed")
	}
	// What needs a restart stays as it was in every other respect too.
	p := d.cfg.Params
	p.TraceOn, p.TraceLocalIP, p.XHeadersRead, p.DataMode = next.Params.TraceOn, next.Params.TraceLocalIP, next.Params.XHeadersRead, next.Params.DataMode
	d.cfg.Params, d.cfg.Own, d.cfg.LogLevel, d.cfg.ShutdownTimeout = p, next.Own, next.LogLevel, next.ShutdownTimeout
	if !restart {
		d.cfg.Values, d.cfg.Sockets = next.Values, next.Sockets
	}
	d.level.Set(next.LogLevel)
	d.pipeline.SetRules(rules(d.cfg))
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
