package servers

import "testing"

func TestCounters(t *testing.T) {
	const out = `something else
{"counters":{"received":1,"spooled":1,"store":{"written":0,"pending":1}}}
{"no":"counters"}
{"counters":{"received":9,"rejected":{"short":2,"length":1},"dropped":{"off":1},"spooled":5,"store.written":3,"store.set_aside":1,"store.pending":1}}
{"counters":{"received":10`
	c, n := lastCounters(out)
	if n != 2 {
		t.Errorf("lines of counters: got %d, want 2", n)
	}
	if got, want := c.Sum(Rejected), int64(3); got != want {
		t.Errorf("rejected: got %d, want %d", got, want)
	}
	if err := c.Balanced(); err != nil {
		t.Errorf("balanced books: %v", err)
	}
	for _, name := range []string{Received, Spooled, Written, Aside, Backlog, "rejected.short"} {
		bad := Counters{}
		for k, v := range c {
			bad[k] = v
		}
		bad[name]++
		if bad.Balanced() == nil {
			t.Errorf("%s one too many: books still balance", name)
		}
	}
	if err := (Counters{"received": 0}).Balanced(); err == nil {
		t.Error("missing counters: books balance")
	}
}
