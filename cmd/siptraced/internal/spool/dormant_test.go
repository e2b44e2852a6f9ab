package spool

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
)

// run opens the spool, puts records for a sink, and closes it. What the sinks
// that are named do not take stays.
func runWith(t *testing.T, cfg Config, from, to int, sinks ...*fakeSink) (missed uint64) {
	t.Helper()
	s := open(t, cfg)
	var n atomic.Uint64
	var all []*Consumer
	for _, k := range sinks {
		all = append(all, s.Run(k, Options{Count: Counters{Missed: &n}}))
	}
	s.LogDormant()
	put(t, s, from, to)
	s.Flush(soon(t))
	for _, c := range all {
		c.Stop(soon(t))
	}
	if err := s.savePositions(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	return n.Load()
}

// A sink that is switched off for a run finds its backlog when it runs again.
func TestDormant(t *testing.T) {
	cfg := testConfig(t)
	away := &fakeSink{name: "store", open: func(context.Context) error { return errContinued }}
	runWith(t, cfg, 0, 500, away)
	runWith(t, cfg, 500, 600, &fakeSink{name: "mirror.m"})
	again, m := &fakeSink{name: "store"}, &fakeSink{name: "mirror.m"}
	if missed := runWith(t, cfg, 600, 700, again, m); missed != 0 {
		t.Errorf("%d missed", missed)
	}
	again.check(t, 0, 700)
	m.check(t, 600, 700)
}

// One without a backlog keeps nothing, and misses nothing.
func TestDormantIdle(t *testing.T) {
	cfg := testConfig(t)
	runWith(t, cfg, 0, 100, &fakeSink{name: "store"}, &fakeSink{name: "mirror.m"})
	runWith(t, cfg, 100, 200, &fakeSink{name: "mirror.m"})
	again := &fakeSink{name: "store"}
	if missed := runWith(t, cfg, 200, 300, again); missed != 0 {
		t.Errorf("%d missed", missed)
	}
	again.check(t, 200, 300)
}

// A new sink begins with what the spool still holds: what others were done with
// before it came is no backlog of its own, and nothing that it missed.
func TestNewSink(t *testing.T) {
	cfg := testConfig(t)
	runWith(t, cfg, 0, 100, &fakeSink{name: "store"})
	s := open(t, cfg)
	added := &fakeSink{name: "mirror.m"}
	var backlog, missed atomic.Uint64
	c := s.Run(added, Options{Count: Counters{Backlog: &backlog, Missed: &missed}})
	for _, r := range c.readers {
		waitFor(t, "the sink to know where to begin", r.ready.Load)
	}
	put(t, s, 100, 200)
	s.Flush(soon(t))
	c.Stop(soon(t))
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	if backlog.Load() != 0 || missed.Load() != 0 {
		t.Errorf("backlog %d, missed %d, want none", backlog.Load(), missed.Load())
	}
	added.check(t, 100, 200)
}

// What is kept for a sink that does not run goes before anything is refused, and
// is counted.
func TestDormantFull(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.MaxBytes, cfg.BatchBytes = 1, 16<<20, 256<<10
	runWith(t, cfg, 0, 100, &fakeSink{name: "store", open: func(context.Context) error { return errContinued }})
	var log bytes.Buffer
	s, err := Open(context.Background(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	k := &fakeSink{name: "mirror.m"}
	c := s.Run(k, Options{})
	s.LogDormant()
	const n = 300
	for i := range n {
		r := record(i, "call")
		r.Msg = make([]byte, cfg.BatchBytes)
		if err := s.Put(&r); err != nil {
			t.Fatal(err)
		}
		if i%20 == 19 { // the mirror keeps up
			if err := s.Sync(soon(t), 0); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "mirror", func() bool { return c.Pending() == 0 })
			if err := s.savePositions(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Flush(soon(t))
	c.Stop(soon(t))
	if s.Stats.Refused.Load() != 0 || s.Stats.Discarded.Load() != 100 || k.count() != n+100 {
		t.Errorf("refused %d, discarded %d, mirrored %d, want 0, 100, %d", s.Stats.Refused.Load(), s.Stats.Discarded.Load(), k.count(), n+100)
	}
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); !strings.Contains(text, "messages wait for a sink that does not run") || strings.Count(text, "are discarded") != 1 {
		t.Errorf("log: %s", text)
	}
	again := &fakeSink{name: "store"}
	if missed := runWith(t, cfg, 200, 210, again); missed != 0 {
		t.Errorf("%d missed", missed)
	}
}
