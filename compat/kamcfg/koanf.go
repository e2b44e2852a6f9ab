package kamcfg

import (
	"fmt"
	"slices"
	"strings"
)

// Parser gives a kamailio.cfg to koanf: it satisfies koanf.Parser. The keys are
//
//	siptrace.NAME  string or int64: modparam("siptrace", "NAME", ...), the last one
//	local          []string: Config.Local, the proxy's own sockets
//
// What doesn't fit into keys, event routes before all, is in Config, and where
// each key comes from in Places.
type Parser struct {
	Path    string // of the bytes given to Unmarshal: for messages and includes
	Options Options
	// Lists names siptrace parameters whose values add up to a []string instead
	// of the last one holding.
	Lists []string

	cfg *Config
}

// Config is what the last Unmarshal read.
func (p *Parser) Config() *Config { return p.cfg }

// Unmarshal reads the bytes of a main file.
func (p *Parser) Unmarshal(b []byte) (map[string]any, error) {
	cfg, err := ParseBytes(p.Path, b, p.Options)
	if err != nil {
		return nil, err
	}
	p.cfg = cfg
	params, at := map[string]any{}, map[string]Pos{}
	for _, par := range cfg.Params {
		if !par.For(module) {
			continue
		}
		if par.Unresolved != nil {
			return nil, par.Unresolved
		}
		if slices.Contains(p.Lists, par.Name) && !par.Value.IsInt {
			list, _ := params[par.Name].([]string)
			params[par.Name] = append(list, par.Value.Str)
			continue
		}
		if before, there := at[par.Name]; there {
			cfg.note(par.Pos, "%s is set again: what %s says doesn't hold", par.Name, before)
		}
		params[par.Name], at[par.Name] = par.Value.Any(), par.Pos
	}
	return map[string]any{module: params, "local": cfg.Local()}, nil
}

const module = "siptrace"

// Places says where each key of Unmarshal is set, the place that holds last;
// more than one place for a siptrace key is a duplicate, unless it is a list.
func (p *Parser) Places() map[string][]Pos {
	at := map[string][]Pos{}
	if p.cfg == nil {
		return at
	}
	for _, par := range p.cfg.Params {
		if par.For(module) {
			key := module + "." + par.Name
			at[key] = append(at[key], par.Pos)
		}
	}
	for _, l := range p.cfg.Listens {
		if n := len(at["local"]); n == 0 || at["local"][n-1] != l.Pos {
			at["local"] = append(at["local"], l.Pos)
		}
	}
	return at
}

// Marshal writes the keys of Unmarshal as lines of a kamailio.cfg.
func (p *Parser) Marshal(m map[string]any) ([]byte, error) {
	var lines []string
	params, _ := m[module].(map[string]any)
	for name, v := range params {
		var values []Value
		switch v := v.(type) {
		case string:
			values = []Value{{Str: v}}
		case int64:
			values = []Value{{Int: v, IsInt: true}}
		case []string:
			for _, s := range v {
				values = append(values, Value{Str: s})
			}
		default:
			return nil, fmt.Errorf("kamcfg: siptrace.%s: can't write a %T", name, v)
		}
		for _, v := range values {
			lines = append(lines, fmt.Sprintf("modparam(%q, %s, %s)\n", module, quote(name), v))
		}
	}
	slices.Sort(lines)
	local, _ := m["local"].([]string)
	for _, s := range local {
		lines = append(lines, "listen="+s+"\n")
	}
	return []byte(strings.Join(lines, "")), nil
}
