package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is a setting with another value.
type Change struct {
	// Name is a key, or what stands for several: "rules" for the content of files,
	// "socket" for the proxy's sockets.
	Name string
	// From and To are for people: secrets are masked.
	From, To string
	// Restart says why it takes effect at the next start only; empty: at once.
	Restart string
}

// Changes compares what the places say with what they say in next. Values are
// compared as they are, and never as they are shown. What remote control set does
// not count, but a setting that waits for a restart counts until then.
func (c *Config) Changes(next *Config) ([]Change, error) {
	from, err := c.withoutRemote()
	if err != nil {
		return nil, err
	}
	var out []Change
	keys := Keys()
	for i := range keys {
		k := &keys[i]
		if !reflect.DeepEqual(k.get(from), k.get(next)) {
			out = append(out, Change{k.Name, k.text(from), k.text(next), k.Restart})
		}
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(out, func(c Change) bool { return slices.Contains(names, c.Name) })
	}
	if !from.Rules.Equal(&next.Rules) && !has("event_route", "rules.list", "rules.tables") {
		out = append(out, Change{Name: "rules", From: "as they were", To: "changed in their files"})
	}
	if a, b := socketList(from), socketList(next); a != b && !has("local") {
		out = append(out, Change{Name: "socket", From: a, To: b})
	}
	return out, nil
}

// withoutRemote is c without what remote control set.
func (c *Config) withoutRemote() (*Config, error) {
	if len(c.remote) == 0 {
		return c, nil
	}
	return build(c.sources, c.stored, nil, c.cache)
}

// Adopt is c with what next says of every setting that can change while the
// process runs. Where the places say something new, which is in changes, that
// replaces what remote control set.
func (c *Config) Adopt(next *Config, changes []Change) (*Config, error) {
	stored, remote := maps.Clone(next.stored), maps.Clone(c.remote)
	for _, k := range Keys() {
		if k.Restart == "" {
			continue
		}
		delete(stored, k.Name)
		if s, ok := c.stored[k.Name]; ok {
			stored[k.Name] = s
		}
	}
	for _, ch := range changes {
		delete(remote, ch.Name)
	}
	return build(next.sources, stored, remote, next.cache.keeping(c.cache))
}

func socketList(c *Config) string {
	var texts []string
	for _, s := range c.Sockets {
		texts = append(texts, s.Text)
	}
	return strings.Join(texts, ", ")
}
