package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"siptraced/rpc"
	"siptraced/rpc/flexicli"
)

// setting is the daemon's name for GROUP NAME of cfg: group siptrace has the
// parameters, group siptraced everything else.
func setting(group, name string) string {
	if group == moduleGroup {
		return moduleGroup + "." + name
	}
	return name
}

func (c *Control) cfgList(_ context.Context, call *rpc.Call) (any, error) {
	want, filtered := call.Str(0)
	out := rpc.List{}
	for _, s := range c.daemon.Settings() {
		group, name := ownGroup, s
		if n, ok := strings.CutPrefix(s, moduleGroup+"."); ok {
			group, name = moduleGroup, n
		}
		if !filtered || group == want {
			out = append(out, group+": "+name)
		}
	}
	return out, nil
}

func (c *Control) cfgName(call *rpc.Call) (string, error) {
	group, ok1 := call.Str(0)
	name, ok2 := call.Str(1)
	if !ok1 || !ok2 {
		return "", fault(400, "Not enough parameters (group and name)")
	}
	s := setting(group, name)
	if !slices.Contains(c.daemon.Settings(), s) {
		return "", fault(400, fmt.Sprintf("no setting %s: %s can change at run time (see cfg.list)", group, name))
	}
	return s, nil
}

func (c *Control) cfgGet(_ context.Context, call *rpc.Call) (any, error) {
	name, err := c.cfgName(call)
	if err != nil {
		return nil, err
	}
	v, _ := c.daemon.Setting(name)
	return v, nil
}

func (c *Control) cfgSet(ctx context.Context, call *rpc.Call) (any, error) {
	name, err := c.cfgName(call)
	if err != nil {
		return nil, err
	}
	if len(call.Params) < 3 {
		return nil, fault(400, "Not enough parameters (group, name and value)")
	}
	return nil, c.set(ctx, call, name, call.Params[2])
}

// RegisterMI adds the commands of OpenSER's management interface.
func (c *Control) RegisterMI(r *rpc.Registry) error {
	commands := []rpc.Method{
		{Name: "get_statistics", Handler: func(ctx context.Context, call *rpc.Call) (any, error) {
			list, err := c.selected(call, noneToGet, false)
			if err != nil {
				return nil, err
			}
			// The module's own come in the order that it registers them.
			out := rpc.List{}
			for _, s := range slices.Backward(list) {
				out = append(out, fmt.Sprintf("%s:%s = %d", s.group, s.name, s.value))
			}
			return out, nil
		}},
		{Name: "reset_statistics", Handler: c.resetStatistics},
		{Name: "uptime", Handler: func(ctx context.Context, call *rpc.Call) (any, error) {
			v, err := c.uptime(ctx, call)
			if err != nil {
				return nil, err
			}
			s := v.(rpc.Struct)
			return rpc.Struct{
				{Name: "Now", Value: s[0].Value}, {Name: "Up since", Value: s[1].Value}, {Name: "Up time", Value: fmt.Sprintf("%d [sec]", s[2].Value)},
			}, nil
		}},
		{Name: "version", Handler: func(context.Context, *rpc.Call) (any, error) {
			return rpc.Struct{{Name: "Server", Value: fmt.Sprintf("siptraced (%s (%s))", c.build.Version, platform())}}, nil
		}},
		{Name: "ps", Handler: func(ctx context.Context, call *rpc.Call) (any, error) {
			v, err := c.ps(ctx, call)
			if err != nil {
				return nil, err
			}
			p := v.(rpc.List)
			return rpc.Struct{{Name: "Process", Value: fmt.Sprintf(" ID=0 PID=%d Type=%s", p[0], p[1])}}, nil
		}},
		{Name: "sip_trace", Handler: c.sipTrace},
	}
	var names rpc.List
	for _, m := range commands {
		names = append(names, m.Name)
	}
	names = append(names, "which")
	commands = append(commands, rpc.Method{Name: "which", Handler: func(context.Context, *rpc.Call) (any, error) { return names, nil }})
	for _, m := range commands {
		if err := r.Register(m); err != nil {
			return err
		}
	}
	return nil
}

// sipTrace is the sip_trace command: the whole word, unlike siptrace.status, and
// no answer to a change.
func (c *Control) sipTrace(ctx context.Context, call *rpc.Call) (any, error) {
	if len(call.Params) == 0 {
		if c.tracing() {
			return "on", nil
		}
		return "off", nil
	}
	word, _ := call.Str(0)
	switch {
	case strings.EqualFold(word, "on"):
		return nil, c.set(ctx, call, TraceOn, int64(1))
	case strings.EqualFold(word, "off"):
		return nil, c.set(ctx, call, TraceOn, int64(0))
	}
	return nil, fault(400, "Bad parameter")
}

// Sections are the settings for flexisip_cli.py (flexicli.Store).
func (c *Control) Sections() []flexicli.Section {
	s := flexicli.Section{Name: "global", Help: "what can change at run time"}
	for name, help := range flexisipNames {
		v, _ := c.daemon.Setting(help.setting)
		s.Settings = append(s.Settings, flexicli.Setting{Name: name, Value: fmt.Sprint(v), Help: help.text})
	}
	return []flexicli.Section{s}
}

// flexisipNames are Flexisip's names of what siptraced has.
var flexisipNames = map[string]struct{ setting, text string }{
	"log-level": {"log.level", "what is logged: debug, info, warn or error"},
}

// Set changes a setting for flexisip_cli.py (flexicli.Store).
func (c *Control) Set(ctx context.Context, peer rpc.Peer, path, value string) error {
	name, ok := flexisipNames[strings.TrimPrefix(path, "global/")]
	if !ok {
		return flexicli.ErrReadOnly
	}
	return c.set(ctx, &rpc.Call{Method: "CONFIG_SET", Peer: peer}, name.setting, value)
}
