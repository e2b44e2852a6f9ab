package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"siptraced/rpc"
)

// The groups of counters: the module's own two, and all of ours.
const (
	moduleGroup = "siptrace"
	ownGroup    = "siptraced"
)

// groups are the names of the counters, sorted, by group.
func (c *Control) groups() map[string][]string {
	var own []string
	for name := range c.daemon.Counters() {
		own = append(own, name)
	}
	slices.Sort(own)
	return map[string][]string{moduleGroup: {"traced_replies", "traced_requests"}, ownGroup: own}
}

var groupOrder = []string{moduleGroup, ownGroup}

// value is a counter since it was last reset.
func (c *Control) value(name string) (uint64, bool) {
	n, ok := c.daemon.Counters()[name]
	c.mu.Lock()
	defer c.mu.Unlock()
	return n - min(n, c.zeros[name]), ok
}

// What Kamailio says when no statistic is named.
const (
	noneToGet   = "Please provide which stats to retrieve"
	noneToReset = "Please provide stats name"
)

// reset lets a counter begin at zero for the clients. The accounting goes on. What
// is a value of the moment stays as it is.
func (c *Control) reset(name string) {
	if c.daemon.IsGauge(name) {
		return
	}
	n := c.daemon.Counters()[name]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.zeros[name] = n
}

// statistic is one counter with its group.
type statistic struct {
	group, name string
	value       uint64
}

// selected are the counters that the parameters name: "all", "GROUP:", NAME; with
// one also "GROUP:NAME" and "GROUP.NAME". As in Kamailio, a parameter that is no
// string ends the list.
func (c *Control) selected(call *rpc.Call, missing string, one bool) ([]statistic, error) {
	if _, ok := call.Str(0); !ok {
		return nil, fault(400, missing)
	}
	groups := c.groups()
	var out []statistic
	add := func(group, name string) {
		if n, ok := c.value(name); ok {
			out = append(out, statistic{group, name, n})
		}
	}
	for i := range call.Params {
		word, ok := call.Str(i)
		if !ok {
			break
		}
		group, isGroup := strings.CutSuffix(word, ":")
		if at := strings.IndexAny(word, ":."); one && at > 0 && slices.Contains(groups[word[:at]], word[at+1:]) {
			add(word[:at], word[at+1:])
			continue
		}
		for _, g := range groupOrder {
			switch {
			case word == "all" || isGroup && g == group:
				for _, n := range groups[g] {
					add(g, n)
				}
			case slices.Contains(groups[g], word):
				add(g, word)
			}
			if slices.Contains(groups[moduleGroup], word) {
				break // it is in both groups
			}
		}
	}
	return out, nil
}

func (c *Control) getStatistics(_ context.Context, call *rpc.Call) (any, error) {
	list, err := c.selected(call, noneToGet, false)
	if err != nil {
		return nil, err
	}
	out := rpc.List{}
	for _, s := range list {
		out = append(out, fmt.Sprintf("%s:%s = %d", s.group, s.name, s.value))
	}
	return out, nil
}

// fetch answers with a member for each counter: strings, or numbers, which are
// doubles over BINRPC.
func (c *Control) fetch(numbers bool) rpc.Handler {
	return func(_ context.Context, call *rpc.Call) (any, error) {
		list, err := c.selected(call, noneToGet, true)
		if err != nil {
			return nil, err
		}
		out := rpc.Struct{}
		for _, s := range list {
			var v any = fmt.Sprint(s.value)
			if numbers {
				v = float64(s.value)
			}
			out = append(out, rpc.Member{Name: s.group + "." + s.name, Value: v})
		}
		return out, nil
	}
}

func (c *Control) resetStatistics(_ context.Context, call *rpc.Call) (any, error) {
	list, err := c.selected(call, noneToReset, false)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		c.reset(s.name)
	}
	// Kamailio resets what comes before it, too.
	for i := range call.Params {
		if _, ok := call.Str(i); !ok {
			return nil, fault(400, fmt.Sprintf("Parameter %d is not a string", i+1))
		}
	}
	return nil, nil
}

func (c *Control) clearStatistics(_ context.Context, call *rpc.Call) (any, error) {
	list, err := c.selected(call, noneToReset, false)
	if err != nil {
		return nil, err
	}
	out := rpc.Records{}
	for _, s := range list {
		out = append(out, fmt.Sprintf("%s:%s = %d", s.group, s.name, s.value))
		c.reset(s.name)
	}
	return out, nil
}

// named is the counter that GROUP NAME are.
func (c *Control) named(call *rpc.Call) (string, error) {
	group, ok1 := call.Str(0)
	name, ok2 := call.Str(1)
	if !ok1 || !ok2 {
		return "", fault(400, "Not enough parameters (group and name)")
	}
	if !slices.Contains(c.groups()[group], name) {
		return "", fault(400, fmt.Sprintf("non-existent counter %s.%s\n", group, name)) // the line end is Kamailio's
	}
	return name, nil
}

func (c *Control) counter(ctx context.Context, call *rpc.Call) (any, error) {
	if len(call.Params) == 1 {
		return c.counterGroup(ctx, call)
	}
	name, err := c.named(call)
	if err != nil {
		return nil, err
	}
	n, _ := c.value(name)
	return int64(n), nil
}

func (c *Control) counterReset(_ context.Context, call *rpc.Call) (any, error) {
	name, err := c.named(call)
	if err == nil {
		c.reset(name)
	}
	return nil, err
}

// counterGroups lists our groups and those of the Kamailio behind us.
func (c *Control) counterGroups(r *rpc.Registry) rpc.Handler {
	return func(ctx context.Context, call *rpc.Call) (any, error) {
		groups := slices.Clone(groupOrder)
		if r.Unknown != nil {
			if v, known, err := r.Unknown(ctx, call); known && err == nil {
				if f, ok := v.(rpc.Forwarded); ok {
					v = f.Value
				}
				list, _ := v.(rpc.List)
				for _, e := range list {
					if g, ok := e.(string); ok {
						groups = append(groups, g)
					}
				}
			}
		}
		slices.Sort(groups)
		var out rpc.List
		for _, g := range slices.Compact(groups) {
			out = append(out, g)
		}
		return out, nil
	}
}

func (c *Control) counterNames(_ context.Context, call *rpc.Call) (any, error) {
	group, ok := call.Str(0)
	if !ok {
		return nil, fault(400, "Not enough parameters (group)")
	}
	out := rpc.List{}
	for _, n := range c.groups()[group] {
		out = append(out, n)
	}
	return out, nil
}

func (c *Control) counterGroup(_ context.Context, call *rpc.Call) (any, error) {
	group, ok := call.Str(0)
	if !ok {
		return nil, fault(400, "Not enough parameters (group)")
	}
	out := rpc.Struct{}
	for _, name := range c.groups()[group] {
		n, _ := c.value(name)
		out = append(out, rpc.Member{Name: name, Value: int64(n)})
	}
	return out, nil
}
