package config

import (
	"fmt"
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/compat/kamcfg"
)

// eventRoute is the route that runs for each message, unless evcb_msg names
// another one.
const eventRoute = "siptrace:msg"

// openserUserAVP is the default of traced_user_avp in OpenSER 1.0 and 1.1, where
// AVPs have numbers (its documentation, 1.3.5).
const openserUserAVP = "6843"

// readRules finds the event route and reads the rules.
func (c *Config) readRules(l *loader) (problems []error) {
	r := &c.Rules
	if c.OpenSER && c.Params.TracedUserAVP == "" {
		c.Params.TracedUserAVP = openserUserAVP
		v := c.value("siptrace.traced_user_avp")
		v.Text, v.Origin = openserUserAVP, "default of OpenSER"
	}
	r.Params = c.Params
	if len(r.Tables) == 0 {
		r.Tables = []string{c.Params.Table + "*"}
		c.value("tables").Text = r.Tables[0]
	}
	route, err := c.findRoute(l)
	if err != nil {
		problems = append(problems, err)
	}
	r.Route = route
	if route != nil {
		c.value("event_route").Text = "event_route[" + route.Name + "] of " + route.Pos.String()
		if c.EventRoute == "" {
			c.value("event_route").Origin = route.Pos.String()
		}
	}
	v, o := l.get("rules")
	if list, ok := v.([]any); ok && len(list) == 1 {
		if s, ok := list[0].(string); ok && !strings.Contains(s, "=") {
			v = s // a list of one file
		}
	}
	if v != nil && v != "" {
		if r.Rules, err = rules.Read(v, o.place); err != nil {
			problems = append(problems, &Problem{o.place, fmt.Errorf("rules: %w", err)})
		}
		c.value("rules").Text = fmt.Sprintf("%d rules", len(r.Rules))
	}
	if len(problems) == 0 {
		if err := r.Validate(); err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// findRoute looks for the event route: in the key, then in kamailio.cfg.
func (c *Config) findRoute(l *loader) (*kamcfg.Route, error) {
	name := eventRoute
	if c.Params.EvcbMsg != "" {
		name = c.Params.EvcbMsg
	}
	o := l.origin("event_route")
	if c.EventRoute != "" {
		options := kamcfg.Options{Interfaces: interfaces}
		var own *kamcfg.Config
		var err error
		if strings.Contains(c.EventRoute, "\n") {
			file, _, _ := strings.Cut(o.place, ":")
			own, err = kamcfg.ParseBytes(file, []byte(c.EventRoute), options)
		} else {
			own, err = kamcfg.Parse(c.EventRoute, options)
		}
		if err != nil {
			return nil, &Problem{o.place, fmt.Errorf("event_route: %w", err)}
		}
		if r, ok := own.EventRoute(name); ok {
			c.leanOn(own)
			return &r, nil
		}
		return nil, &Problem{o.place, fmt.Errorf("event_route: there is no event_route[%s] in it", name)}
	}
	if l.proxy != nil {
		if r, ok := l.proxy.EventRoute(name); ok {
			c.leanOn(l.proxy)
			return &r, nil
		}
	}
	if name != eventRoute {
		err := fmt.Errorf("evcb_msg: a KEMI function %q can't run here: write it as event_route[%s] { ... } into a file, and name that with the key event_route", name, name)
		return nil, &Problem{l.origin("siptrace.evcb_msg").place, err}
	}
	return nil, nil
}

// noteRules says where parameters wait for rules that are not there. RPC may
// bring some.
func (c *Config) noteRules() {
	p, r := &c.Params, &c.Rules
	users, tables := r.Sets()
	if p.TraceInitMode == 2 && r.Route == nil && len(r.Rules) == 0 {
		c.Notes = append(c.Notes, "trace_init_mode is 2: only what a rule chooses is traced, and there is none yet")
	}
	if p.TracedUserAVP != "" && !c.OpenSER && !users {
		c.Notes = append(c.Notes, "traced_user_avp: what the proxy's routes put into "+p.TracedUserAVP+" can't be seen from here, and no event route or rule sets it: no row gets a user")
	}
	if p.TraceTableAVP != "" && !tables {
		c.Notes = append(c.Notes, "trace_table_avp: what the proxy's routes put into "+p.TraceTableAVP+" can't be seen from here, and no event route or rule sets it: all rows go into "+p.Table)
	}
}

// leanOn takes what an event route needs of the configuration that it stands in.
func (c *Config) leanOn(k *kamcfg.Config) {
	r := &c.Rules
	r.Routes, r.Defines, r.Location = k.Routes, k.Defines, c.Store.Location
	number := func(name string) int {
		g, _ := k.Global(name)
		return int(g.Value.Int)
	}
	r.Debug, r.MaxLoops = number("debug"), number("max_while_loops")
}

// value is the effective setting of that name.
func (c *Config) value(name string) *Value {
	i := slices.IndexFunc(c.Values, func(v Value) bool { return v.Name == name })
	return &c.Values[i]
}
