package spool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// After a loss of power the log may have less than it had. What comes then has numbers
// of its own, and what no sink had is counted, once.
func TestTailLost(t *testing.T) {
	for name, delivered := range map[string]int{"all was delivered": 500, "nothing of it was delivered": 300} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.BatchBytes = 1 << 10
			s := open(t, cfg)
			put(t, s, 0, 300)
			rs := readers(t, s)
			s.Flush(context.Background())
			take(t, s, rs, 300, map[string][]string{})
			closeAll(t, s, rs)
			before := t.TempDir()
			for i := range cfg.Shards {
				copyDir(t, filepath.Join(before, logDir(i)), filepath.Join(cfg.Dir, logDir(i)))
			}
			s = open(t, cfg)
			put(t, s, 300, 500)
			rs = readers(t, s)
			s.Flush(context.Background())
			take(t, s, rs, delivered-300, map[string][]string{})
			var done [2]uint64
			for i, r := range rs {
				done[i] = r.place.Load().seq
			}
			closeAll(t, s, rs)
			for i := range cfg.Shards {
				copyDir(t, filepath.Join(cfg.Dir, logDir(i)), filepath.Join(before, logDir(i)))
			}
			lost := uint64(500 - delivered)
			s = open(t, cfg)
			if n := s.Damaged(); n != lost {
				t.Errorf("%d are said to be gone, want %d", n, lost)
			}
			rs = readers(t, s)
			put(t, s, 500, 600)
			s.Flush(context.Background())
			var d Decoder
			var missed uint64
			timeout := time.After(time.Minute)
			for n := 0; n < 100; {
				var b *Batch
				i := 0
				select {
				case b = <-rs[0].Batches():
				case b = <-rs[1].Batches():
					i = 1
				case <-timeout:
					t.Fatalf("%d of 100 records came", n)
				}
				missed += b.Missed
				if b.Seq <= done[i] {
					t.Errorf("shard %d: batch %d, but %d was done before", i, b.Seq, done[i])
				}
				if err := d.Each(b, func(*siptrace.Record, []byte) error { n++; return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if missed != lost {
				t.Errorf("%d missed, want %d", missed, lost)
			}
			closeAll(t, s, rs)
		})
	}
}

// Without the positions a sink begins with the oldest message that is there, and so
// loses nothing; so does the one that comes after it.
func TestPositionsLost(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.MaxBytes = 1, 16<<20 // segments of 1 MiB
	s := open(t, cfg)
	const n = 60
	for i := range n {
		r := record(i, fmt.Sprintf("call-%d", i%10))
		r.ToTag, r.Vendor = make([]byte, 4<<10), make([]byte, 40<<10)
		if err := s.Put(&r); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			if err := s.Sync(soon(t), 0); err != nil { // a batch
				t.Fatal(err)
			}
		}
	}
	rs := readers(t, s)
	s.Flush(soon(t))
	got := 0
	for got < 40 {
		b := <-rs[0].Batches()
		got += b.Records
		rs[0].Done(b)
	}
	closeAll(t, s, rs)
	if err := os.WriteFile(filepath.Join(cfg.Dir, "positions"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	first := s.shards[0].measured().First
	if first < 2 || first > 41 {
		t.Fatalf("the first batch is %d: the test needs one that is not the first ever", first)
	}
	for _, name := range []string{"a", "b"} {
		var missed atomic.Uint64
		k := &fakeSink{name: name}
		c := s.Run(k, Options{Count: Counters{Missed: &missed}})
		waitFor(t, "all that is there", func() bool { return c.Pending() == 0 })
		c.Stop(soon(t))
		if had := k.count(); missed.Load() != 0 || name == "a" && had < n-got || name == "b" && had != 0 {
			t.Errorf("%s: %d came, %d missed; %d were never delivered", name, had, missed.Load(), n-got)
		}
	}
	closeAll(t, s, nil)
}

// logDir is where the i-th log is, in spool.dir.
func logDir(i int) string { return fmt.Sprintf("shard-%d", i) }

// copyDir puts a copy of a directory in the place of another one.
func copyDir(t *testing.T, to, from string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// The number of shards changes when nothing waits any more, so that no call has its
// beginning in one shard and the rest in another that is faster.
func TestShardsChange(t *testing.T) {
	cfg := testConfig(t)
	away := func(context.Context) error { return errContinued }
	for _, tt := range []struct {
		shards, spread, logs int
		open                 func(context.Context) error
	}{
		{2, 2, 2, nil},
		{4, 4, 4, away},
		{3, 4, 4, away}, // something waits
		{3, 4, 4, nil},  // something waited
		{3, 3, 4, nil},
		{1, 1, 4, nil},
	} {
		cfg.Shards = tt.shards
		s := open(t, cfg)
		if s.spread != tt.spread || s.Shards() != tt.logs {
			t.Errorf("%d shards wanted: calls go to %d of %d, want %d of %d", tt.shards, s.spread, s.Shards(), tt.spread, tt.logs)
		}
		k := &fakeSink{name: "store", open: tt.open}
		c := s.Run(k, Options{})
		put(t, s, 0, 50)
		s.Flush(soon(t))
		c.Stop(soon(t))
		closeAll(t, s, nil)
	}
}
