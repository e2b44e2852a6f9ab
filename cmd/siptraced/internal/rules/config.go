package rules

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// Config is what the configuration says of rules.
type Config struct {
	Params siptrace.Params
	// Route is the event route in force; nil: there is none.
	Route *kamcfg.Route
	// Routes are those that it may call; Defines are for $def(NAME), Settings for
	// $sel(cfg_get.NAME).
	Routes   []kamcfg.Route
	Defines  map[string]string
	Settings map[string]kamcfg.Value
	// Debug and MaxLoops are the core's parameters debug and max_while_loops, which
	// bound xlog() and while; 0: their defaults.
	Debug, MaxLoops int
	// Location is the time zone of $time(x); nil: the host's.
	Location *time.Location
	// Rules are those of the configuration; RPC adds others.
	Rules []*Rule
	// Tables are patterns of the tables that rules may name, beside the parameter
	// table: shell patterns as path.Match has them.
	Tables []string
	// StateFile keeps the rules that were started by RPC over a restart; empty:
	// they end with the process.
	StateFile string
}

// maxRules bounds the rules in force: each message asks all of them.
const maxRules = 256

// Parse reads a YAML file with a list of rules, by itself or below rules.
func Parse(text []byte, file string) ([]*Rule, error) {
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if m, ok := value.(map[string]any); ok && len(m) == 1 && m["rules"] != nil {
		value = m["rules"]
	}
	return Read(value, file)
}

// Read reads a list of rules: of mappings, or of key=value words. by says where it
// stands.
func Read(value any, by string) ([]*Rule, error) {
	var list []any
	switch v := value.(type) {
	case nil:
	case []any:
		list = v
	case []string:
		for _, s := range v {
			list = append(list, s)
		}
	default:
		return nil, fmt.Errorf("%s: want a list of rules, not a %T", by, value)
	}
	if len(list) > maxRules {
		return nil, fmt.Errorf("%s: %d rules, at most %d are possible", by, len(list), maxRules)
	}
	var out []*Rule
	for i, e := range list {
		r, err := readOne(e)
		if err != nil {
			return nil, fmt.Errorf("%s: rule %d: %w", by, i+1, err)
		}
		if r.ID == "" {
			r.ID = fmt.Sprintf("file-%d", i+1)
		}
		if slices.ContainsFunc(out, func(o *Rule) bool { return o.ID == r.ID }) {
			return nil, fmt.Errorf("%s: rule %d: the id %s is there already", by, i+1, r.ID)
		}
		r.By = by
		out = append(out, r)
	}
	return out, nil
}

func readOne(e any) (*Rule, error) {
	now := time.Now()
	switch e := e.(type) {
	case map[string]any:
		return ParseMap(e, now)
	case string:
		words, err := fields(e)
		if err != nil {
			return nil, err
		}
		return ParseWords(words, now)
	}
	return nil, fmt.Errorf("want a mapping or key=value words, not a %T", e)
}

// Sets reports whether the event route or a rule sets users, and tables.
func (c *Config) Sets() (users, tables bool) {
	if p, err := compileRoute(c); err == nil && p != nil {
		users, tables = p.AVP(c.Params.TracedUserAVP) >= 0, p.AVP(c.Params.TraceTableAVP) >= 0
	}
	for _, r := range c.Rules {
		users, tables = users || len(r.Users) > 0, tables || r.Table != ""
	}
	return users, tables
}

// routeCalls reports whether the event route calls a function whose name begins so.
func (c *Config) routeCalls(name string) bool {
	calls := func(r kamcfg.Route) bool {
		return slices.ContainsFunc(r.Tokens, func(t kamcfg.Token) bool { return t.Kind == kamcfg.Word && strings.HasPrefix(t.Text, name) })
	}
	return c.Route != nil && (calls(*c.Route) || slices.ContainsFunc(c.Routes, calls))
}

// NamesDestinations reports whether a rule or the event route may name a mirror.
func (c *Config) NamesDestinations() bool {
	return c.routeCalls("sip_trace") || slices.ContainsFunc(c.Rules, func(r *Rule) bool { return len(r.Destinations) > 0 })
}

// Equal reports whether both have the same route and rules.
func (c *Config) Equal(o *Config) bool {
	same := c.Route == o.Route || c.Route != nil && o.Route != nil && c.Route.Same(*o.Route)
	return same && slices.EqualFunc(c.Routes, o.Routes, kamcfg.Route.Same) && maps.Equal(c.Defines, o.Defines) && maps.EqualFunc(c.Settings, o.Settings, func(a, b kamcfg.Value) bool { return a.Any() == b.Any() }) &&
		slices.EqualFunc(c.Rules, o.Rules, func(a, b *Rule) bool { return a.same(b) }) && slices.Equal(c.Tables, o.Tables)
}

// CheckRoute compiles the event route. The error is a *kamcfg.Error.
func (c *Config) CheckRoute() error {
	_, err := compileRoute(c)
	return err
}

// Validate compiles the rules, and reports the first mistake.
func (c *Config) Validate() error {
	e := &Engine{}
	for _, r := range c.Rules {
		if _, err := e.compile(r, c); err != nil {
			return fmt.Errorf("%s: rule %s: %w", r.By, r.ID, err)
		}
	}
	return nil
}

// CheckTables refuses patterns that can't be.
func CheckTables(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("%q is not a pattern: %w", p, err)
		}
	}
	return nil
}

// allows reports whether rows may go to a table that a rule named.
func (c *Config) allows(table string) bool {
	if siptrace.CheckIdentifier(table) != nil {
		return false
	}
	return table == c.Params.Table || slices.ContainsFunc(c.Tables, func(p string) bool {
		ok, err := path.Match(p, table)
		return ok && err == nil
	})
}
