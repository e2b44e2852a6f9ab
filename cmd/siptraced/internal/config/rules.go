package config

import (
	"fmt"
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

// readRules reads the key rules.list.
func (c *Config) readRules(s setting) error {
	c.ruleList = s.value
	v := s.value
	if list, ok := v.([]any); ok && len(list) == 1 {
		if text, ok := list[0].(string); ok && !strings.Contains(text, "=") {
			v = text // a list of one file
		}
	}
	var err error
	switch v := v.(type) {
	case string:
		if v == "" {
			c.ruleList = nil
			return nil
		}
		var text []byte
		if text, err = c.cache.read(v); err == nil {
			c.Rules.Rules, err = rules.Parse(text, v)
		}
	default:
		c.Rules.Rules, err = rules.Read(v, s.place)
	}
	if err != nil {
		return fmt.Errorf("rules.list: %w", err)
	}
	return nil
}

// finishRules finds the event route, and checks it and the rules.
func (c *Config) finishRules() (problems []error) {
	r := &c.Rules
	if c.OpenSER && c.Params.TracedUserAVP == "" {
		c.Params.TracedUserAVP = openserUserAVP
		c.derived[module+"traced_user_avp"] = defaultFor("of OpenSER")
	}
	r.Params = c.Params
	if len(r.Tables) == 0 {
		r.Tables = []string{c.Params.Table + "*"}
	}
	route, err := c.findRoute()
	if err != nil {
		problems = append(problems, err)
	}
	r.Route = route
	if route != nil && c.EventRoute == "" {
		c.derived["event_route"] = route.Pos.String()
	}
	if len(problems) > 0 {
		return problems
	}
	if err := r.CheckRoute(); err != nil {
		return append(problems, c.routeRefused(err))
	}
	if err := r.Validate(); err != nil {
		problems = append(problems, err)
	}
	return problems
}

// routeRefused adds to the error of an event route of the proxy what can be done
// about it.
func (c *Config) routeRefused(err error) error {
	if c.EventRoute != "" {
		return err
	}
	return fmt.Errorf("%w. An event route with that can't run here: %s--set event_route= goes without it", err, c.leaveInProxy())
}

// leaveInProxy is the way out for what only the proxy can decide.
func (c *Config) leaveInProxy() string {
	if !c.ProxyTraces() {
		return ""
	}
	return "siptraced migrate " + c.KamailioCfg + " leaves it in the proxy, which then mirrors only what it lets pass; "
}

// describeRoute is the event route in force for people.
func (c *Config) describeRoute() string {
	if r := c.Rules.Route; r != nil {
		return "event_route[" + r.Name + "] of " + r.Pos.String()
	}
	return c.EventRoute
}

// findRoute looks for the event route: in the key, then in kamailio.cfg.
func (c *Config) findRoute() (*kamcfg.Route, error) {
	name := eventRoute
	if c.Params.EvcbMsg != "" {
		name = c.Params.EvcbMsg
	}
	place := c.place("event_route")
	if c.EventRoute != "" {
		options := readAs(c.sources.kamailio)
		options.ReadFile = c.cache.read
		var own *kamcfg.Config
		var err error
		if strings.Contains(c.EventRoute, "\n") {
			file, text := c.routeText(place)
			own, err = kamcfg.ParseBytes(file, []byte(text), options)
		} else {
			own, err = kamcfg.Parse(c.EventRoute, options)
		}
		if err != nil {
			return nil, &Problem{place, fmt.Errorf("event_route: %w", err)}
		}
		if r, ok := own.EventRoute(name); ok {
			c.leanOn(own)
			return &r, nil
		}
		return nil, &Problem{place, fmt.Errorf("event_route: there is no event_route[%s] in it", name)}
	}
	if proxy := c.sources.proxy; c.ProxyTraces() && !c.withoutRoute() {
		if r, ok := proxy.EventRoute(name); ok {
			c.leanOn(proxy)
			return &r, nil
		}
	}
	if name != eventRoute && !c.withoutRoute() {
		err := fmt.Errorf("evcb_msg: a KEMI function %q can't run here. Write it as event_route[%s] { ... } into a file, and name that with the key event_route; or %s--set siptrace.evcb_msg= goes without it", name, name, c.leaveInProxy())
		return nil, &Problem{c.place(module + "evcb_msg"), err}
	}
	return nil, nil
}

// routeText is the event route that stands in the setting itself, so that its lines
// count as in the file that it is in; else they count from the place on, which
// stands for the file then.
func (c *Config) routeText(place string) (file, text string) {
	s, _ := c.setting("event_route")
	if i := strings.LastIndexByte(place, ':'); s.first > 0 && i > 0 {
		return place[:i], strings.Repeat("\n", s.first-1) + c.EventRoute
	}
	return place + ", line", c.EventRoute
}

// withoutRoute reports whether the operator says that there is no event route.
func (c *Config) withoutRoute() bool {
	s, ok := c.setting("event_route")
	return ok && s.value != nil && c.EventRoute == ""
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
	r.Routes, r.Defines, r.Settings, r.Location = k.Routes, k.Defines, k.Settings(), c.Store.Location
	number := func(name string) int {
		g, _ := k.Global(name)
		return int(g.Value.Int)
	}
	r.Debug, r.MaxLoops = number("debug"), number("max_while_loops")
}
