package servers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Counters are the daemon's counters by name. Objects inside the printed
// object are flattened with dots.
type Counters map[string]int64

// The names that the tests rely on, all in one place. Received is the number
// of messages read: datagrams, and packets cut out of streams. Those that end
// in .* are groups with one counter for each cause.
const (
	Received = "received"
	Rejected = "rejected"
	Dropped  = "dropped"
	Spooled  = "spooled"
	Written  = "store.written"
	Aside    = "store.set_aside"
	Pending  = "store.pending"
	Skipped  = "store.skipped" // not for the database
	Backlog  = "store.backlog" // found in the spool at the start
	Made     = "made"          // records beside those received
)

// Sum adds the counter of that name and those below it, as rejected.short and
// rejected.length below rejected.
func (c Counters) Sum(name string) int64 {
	if n, ok := c[name]; ok {
		return n // the daemon's own total
	}
	var sum int64
	for k, v := range c {
		if strings.HasPrefix(k, name+".") {
			sum += v
		}
	}
	return sum
}

// Balanced returns nil if every message read ended in exactly one of the
// counted places. Without a database there is nothing below the spool, and
// nothing may have been spooled but for mirrors.
func (c Counters) Balanced() error {
	for _, name := range []string{Received, Spooled} {
		if _, ok := c[name]; !ok {
			return fmt.Errorf("no counter %q in %v", name, c)
		}
	}
	in := c.Sum(Rejected) + c.Sum(Dropped) + c[Spooled]
	if c[Received]+c[Made] != in {
		return fmt.Errorf("received %d + made %d, but rejected %d + dropped %d + spooled %d = %d: %v",
			c[Received], c[Made], c.Sum(Rejected), c.Sum(Dropped), c[Spooled], in, c)
	}
	if _, ok := c[Written]; !ok && len(c.Mirrors()) > 0 {
		return nil
	}
	out := c[Written] + c[Aside] + c[Pending] + c[Skipped]
	if c[Spooled]+c[Backlog] != out {
		return fmt.Errorf("spooled %d + backlog %d, but written %d + set aside %d + pending %d + skipped %d = %d: %v",
			c[Spooled], c[Backlog], c[Written], c[Aside], c[Pending], c[Skipped], out, c)
	}
	return nil
}

// Mirrors are the names of the mirrors, sorted.
func (c Counters) Mirrors() []string {
	var names []string
	for k := range c {
		if rest, ok := strings.CutPrefix(k, "mirror."); ok {
			if name, ok := strings.CutSuffix(rest, ".pending"); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// MirrorsBalanced returns nil if, for each mirror, every record that was spooled
// ended in exactly one of the counted places. Mirrors that came later than the
// first record have books of their own, or are left out as late.
func (c Counters) MirrorsBalanced(late ...string) error {
	for _, name := range c.Mirrors() {
		var out int64
		var parts []string
		for _, place := range []string{"sent", "failed", "too_large", "expired", "filtered", "skipped", "missed", "pending"} {
			n := c["mirror."+name+"."+place]
			out += n
			parts = append(parts, fmt.Sprintf("%s %d", place, n))
		}
		spooled, own := c["mirror."+name+".spooled"]
		if !own {
			spooled = c[Spooled]
		}
		if !own && slices.Contains(late, name) {
			continue
		}
		backlog := c["mirror."+name+".backlog"]
		if spooled+backlog != out {
			return fmt.Errorf("mirror %s: spooled %d + backlog %d = %d, but %s = %d: %v",
				name, spooled, backlog, spooled+backlog, strings.Join(parts, " + "), out, c)
		}
	}
	return nil
}

// String gives the counters that are not zero, in the order of their names.
func (c Counters) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c)) {
		if c[k] != 0 {
			fmt.Fprintf(&b, "%s=%d ", k, c[k])
		}
	}
	return strings.TrimSpace(b.String())
}

// lastCounters finds the lines {"counters":{...}} of an output, and returns the
// last one's counters and how many there are.
func lastCounters(stdout string) (Counters, int) {
	var last Counters
	n := 0
	for line := range strings.Lines(stdout) {
		if !strings.HasSuffix(line, "\n") {
			continue // still being written
		}
		c, ok := parseCounters([]byte(line))
		if ok {
			last, n = c, n+1
		}
	}
	return last, n
}

func parseCounters(line []byte) (Counters, bool) {
	line = bytes.TrimSpace(line)
	if !bytes.HasPrefix(line, []byte("{")) {
		return nil, false
	}
	var obj struct {
		Counters map[string]any `json:"counters"`
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if err := dec.Decode(&obj); err != nil || obj.Counters == nil {
		return nil, false
	}
	c := make(Counters)
	flatten(c, "", obj.Counters)
	return c, true
}

func flatten(c Counters, prefix string, obj map[string]any) {
	for k, v := range obj {
		switch v := v.(type) {
		case map[string]any:
			flatten(c, prefix+k+".", v)
		case json.Number:
			if n, err := v.Int64(); err == nil {
				c[prefix+k] = n
			}
		}
	}
}
