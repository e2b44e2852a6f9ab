package spool

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// The lag is the age of the oldest message that waits, whatever went before: time
// in which nothing came does not count.
func TestLag(t *testing.T) {
	s := opened(t, nil)
	var fails atomic.Bool
	k := &fakeSink{name: "k"}
	k.flush = func(context.Context, []*Batch) error {
		if fails.Load() {
			return errors.New("broken")
		}
		return nil
	}
	c := s.Run(k, Options{})
	put(t, s, 0, 10)
	waitFor(t, "10 records", func() bool { return k.count() == 10 && c.Pending() == 0 && c.Lag() == 0 })
	time.Sleep(500 * time.Millisecond) // nothing comes
	fails.Store(true)
	before := time.Now()
	put(t, s, 10, 11)
	waitFor(t, "a record that waits", func() bool { return c.Pending() == 1 })
	lag := c.Lag()
	if most := time.Since(before); lag > most {
		t.Errorf("lag %s of a message that came %s ago", lag, most)
	}
	waitFor(t, "a lag that grows", func() bool { return c.Lag() > 300*time.Millisecond })
	first := c.Lag()
	put(t, s, 11, 20) // younger ones make it no smaller
	waitFor(t, "all of them", func() bool { return c.Pending() == 10 })
	if lag := c.Lag(); lag < first {
		t.Errorf("lag %s, was %s before younger messages came", lag, first)
	}
	if u := s.Usage(); u.Oldest < first {
		t.Errorf("the oldest message of the spool is %s old, that of its sink %s", u.Oldest, first)
	}
	fails.Store(false)
	waitFor(t, "20 records", func() bool { return k.count() == 20 && c.Pending() == 0 })
	waitFor(t, "the end of the lag", func() bool { return c.Lag() == 0 && s.Usage().Oldest == 0 })
	c.Stop(soon(t))
}

// How full the spool is, and its disk; what is kept for a sink that does not run
// counts for its age.
func TestUsage(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxBytes, cfg.SyncInterval = 16<<20, 0
	s := open(t, cfg)
	k := &fakeSink{name: "k", open: func(context.Context) error { return errors.New("away") }}
	c := s.Run(k, Options{})
	before := time.Now()
	put(t, s, 0, 2000)
	waitFor(t, "records that wait", func() bool { return c.Pending() == 2000 })
	u := s.Usage()
	if u.Place != cfg.Dir || u.Bytes == 0 || u.MaxBytes != 16<<20 || u.Share() != uint64(u.Bytes*100/u.MaxBytes) || !u.HasDisk || u.DiskFree == 0 || u.Full {
		t.Errorf("got %+v, share %d", u, u.Share())
	}
	stop, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c.Stop(stop)
	if err := s.Close(stop); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if u := s.Usage(); u.Oldest <= 0 || u.Oldest > time.Since(before) {
		t.Errorf("messages wait for a sink that does not run: oldest %s, they came %s ago", u.Oldest, time.Since(before))
	}
	if err := s.Close(stop); err != nil {
		t.Fatal(err)
	}
	if got := (Usage{Bytes: 5}).Share(); got != 0 {
		t.Errorf("without a bound: share %d", got)
	}
}

// What a loss of power would cost is known at any moment.
func TestUnsynced(t *testing.T) {
	for name, tt := range map[string]struct {
		interval time.Duration
		unsynced uint64
	}{
		"once an hour": {time.Hour, 300},
		"always":       {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.SyncInterval = tt.interval
			s := open(t, cfg)
			before := time.Now()
			put(t, s, 0, 300)
			if err := s.Sync(soon(t), 0); err != nil {
				t.Fatal(err)
			}
			u := s.Usage()
			if most := time.Since(before); u.Unsynced != tt.unsynced || u.UnsyncedFor > most || (u.UnsyncedFor > 0) != (tt.unsynced > 0) || u.Uncertain != 0 {
				t.Errorf("%d not synced for %s, %d uncertain; want %d for %s at most", u.Unsynced, u.UnsyncedFor, u.Uncertain, tt.unsynced, most)
			}
			for _, sh := range s.shards {
				if err := sh.log.Sync(soon(t)); err != nil {
					t.Fatal(err)
				}
			}
			if u := s.Usage(); u.Unsynced != 0 || u.UnsyncedFor != 0 {
				t.Errorf("after the sync: %d for %s", u.Unsynced, u.UnsyncedFor)
			}
			closeAll(t, s, nil)
		})
	}
}
