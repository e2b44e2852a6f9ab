package mirror

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

func (r *rig) apply(t *testing.T, change func(*Config)) {
	t.Helper()
	cfg := r.cfg
	change(&cfg)
	if err := r.Apply(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
}

// spooled waits until the spool has on disk what was put.
func (r *rig) spooled(t *testing.T) {
	t.Helper()
	waitFor(t, "the spool", func() bool { return r.counter("spooled") == uint64(r.n) })
}

// flush waits until the spool has all that was put, and d has sent or skipped it.
func (r *rig) flush(t *testing.T, names ...string) {
	t.Helper()
	r.spooled(t)
	waitFor(t, fmt.Sprintf("nothing to wait for %v", names), func() bool {
		for _, n := range names {
			if r.counter(sinkPrefix+n+".pending") > 0 {
				return false
			}
		}
		return true
	})
}

// Destinations are added, changed, moved and removed while messages come in.
func TestApply(t *testing.T) {
	stays, moves, comes := newDatagramSink(t), newCollector(t, nil), newDatagramSink(t)
	named := func(name string) func(*Destination) { return func(d *Destination) { d.Name = name } }
	dead := "sip:" + freePort(t).String() + ";transport=tcp"
	r := newRig(t, t.TempDir(), nil,
		to(t, stays.uri(), named("stays")),
		to(t, dead, named("moves")),
		to(t, dead, named("goes")))
	r.put(t, 100, nil)
	r.flush(t, "stays")

	r.apply(t, func(c *Config) {
		c.Destinations = []Destination{
			to(t, stays.uri(), func(d *Destination) { d.Name, d.CaptureID, d.AuthKey = "stays", 4711, []byte("secret") }),
			to(t, moves.uri(), named("moves")),
			to(t, comes.uri(), named("comes")),
		}
	})
	r.put(t, 100, nil)
	r.flush(t, "stays", "moves", "comes")
	moves.check(t, 200)
	waitFor(t, "the datagrams", func() bool { return stays.count() == 200 && comes.count() == 100 })
	for i, packet := range stays.packets() {
		var p hep.Packet
		if err := p.Decode(packet); err != nil {
			t.Fatal(err)
		}
		id, key := uint32(1), ""
		if i >= 100 {
			id, key = 4711, "secret"
		}
		if p.CaptureID != id || string(p.AuthKey) != key {
			t.Fatalf("packet %d: capture id %d, key %q; want %d, %q", i, p.CaptureID, p.AuthKey, id, key)
		}
	}
	c := r.count.Snapshot()
	if n := c["mirror.retired.removed"]; n != 100 {
		t.Errorf("%d messages of the removed one are counted, want 100", n)
	}
	if _, ok := c["mirror.goes.pending"]; ok {
		t.Error("the removed one still counts")
	}
	if n := c["mirror.stays.connects"]; n != 1 {
		t.Errorf("%d connections for another capture id", n)
	}

	r.apply(t, func(*Config) {})
	r.put(t, 10, nil)
	r.flush(t, "stays", "moves", "comes")
	for _, name := range []string{"stays", "moves", "comes"} {
		if n := r.counter("mirror." + name + ".connects"); n != 1 {
			t.Errorf("%s: %d connections, want 1: the settings are the same", name, n)
		}
	}
	r.stop(t, true)
}

// Bounds that are changed count at once.
func TestApplyBounds(t *testing.T) {
	r := newRig(t, t.TempDir(), nil, to(t, "sip:"+freePort(t).String()+";transport=tcp", nil))
	r.put(t, 100, nil)
	r.spooled(t)
	r.apply(t, func(c *Config) {
		d := c.Destinations[0]
		d.MaxAge = time.Second
		c.Destinations = []Destination{d}
	})
	waitFor(t, "the messages to expire", func() bool { return r.counter(r.sinks[0].name+".expired") == 100 })
	r.stop(t, false)
}

// Another connection is made without sending anything twice or leaving it out.
func TestApplyReconnects(t *testing.T) {
	c := newCollector(t, nil)
	c.echo = true
	r := newRig(t, t.TempDir(), nil, to(t, c.uri(), nil))
	for i := range 20 {
		r.put(t, 200, nil)
		r.apply(t, func(cfg *Config) {
			d := cfg.Destinations[0]
			d.Ack = []string{AckKeepAlive, AckTCP}[i%2]
			cfg.Destinations = []Destination{d}
		})
		time.Sleep(10 * time.Millisecond)
	}
	r.stop(t, true)
	waitFor(t, "the last messages", func() bool { return c.got() >= 4000 })
	// The collector reads the old connection and the new one side by side: there is
	// no order between them.
	c.mu.Lock()
	seen := map[int]bool{}
	for _, call := range c.calls {
		for _, n := range call {
			seen[n] = true
		}
	}
	if c.n != 4000 || len(seen) != 4000 {
		t.Errorf("got %d messages, %d different ones, want 4000", c.n, len(seen))
	}
	c.mu.Unlock()
	if n := r.counter(r.sinks[0].name + ".connects"); n < 2 {
		t.Errorf("%d connections", n)
	}
}

func TestApplyWrong(t *testing.T) {
	d := to(t, newDatagramSink(t).uri(), nil)
	r := newRig(t, t.TempDir(), nil, d)
	wrong := d
	wrong.Name, wrong.Protocol = "wrong", "hep9"
	if err := r.Apply(context.Background(), Config{Dynamic: r.cfg.Dynamic, Destinations: []Destination{wrong}}); err == nil {
		t.Error("no error")
	}
	if names := r.Names(); len(names) != 1 || names[0] != sinkPrefix+d.Name {
		t.Errorf("destinations are %q", names)
	}
	r.stop(t, true)
}

// The hot path of EnsureDestination takes no lock, be the URI good or bad.
func TestEnsureDestinationWithoutLocks(t *testing.T) {
	r := newRig(t, t.TempDir(), nil)
	const good, bad = "sip:192.0.2.1:9060", "mailto:x"
	r.EnsureDestination(good)
	r.EnsureDestination(bad)
	r.mu.Lock()
	r.applying.Lock()
	for range 3 {
		r.EnsureDestination(good)
		r.EnsureDestination(bad)
	}
	r.applying.Unlock()
	r.mu.Unlock()
	if n := r.counter("mirrors.bad_uri"); n != 4 {
		t.Errorf("%d messages are counted for a bad URI, want 4", n)
	}
	// After half a minute it is looked at again.
	was, _ := r.routes.Load(bad)
	was.(*route).until = time.Now()
	r.EnsureDestination(bad)
	if now, _ := r.routes.Load(bad); now == was {
		t.Error("a bad URI is never looked at again")
	}
	r.stop(t, false)
}

// A name server that does not answer holds up neither the intake nor the end.
func TestNameServerAway(t *testing.T) {
	var asked atomic.Int64
	r := newRig(t, t.TempDir(), func(_ *spool.Config, c *Config) {
		c.Lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) {
			asked.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}, to(t, "sip:homer.example.com:9060;transport=tcp", nil))
	r.put(t, 10, nil)
	r.spooled(t)
	r.EnsureDestination("sip:other.example.com")
	r.put(t, 10, func(rec *siptrace.Record) {
		rec.Sinks, rec.Destinations = siptrace.ToHEP, []string{"sip:other.example.com"}
	})
	r.spooled(t)
	waitFor(t, "both names to be looked up", func() bool { return asked.Load() == 2 })
	r.stop(t, true)
	if n := r.Pending(); n != 20+10 {
		t.Errorf("%d messages wait, want 30", n)
	}
}
