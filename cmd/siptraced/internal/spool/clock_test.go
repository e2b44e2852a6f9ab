package spool

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
)

// Hours of outage pass in a bubble of a clock of its own: nothing waits on a lock
// while it waits for time, and nothing but the clock and Jitter decides when things
// happen.
func TestLongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := OpenOn(context.Background(), testConfig(t), &memoryEngine{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s.Jitter = func(d time.Duration) time.Duration { return d / 2 }
		until := time.Now().Add(3 * time.Hour)
		k := &fakeSink{name: "k", open: func(context.Context) error {
			if time.Now().Before(until) {
				return errors.New("away")
			}
			return nil
		}}
		c := s.Run(k, Options{Age: 5 * time.Millisecond})
		put(t, s, 0, 1000)
		if err := s.Sync(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if n, lag := c.Pending(), c.Lag(); n != 1000 || lag != 2*time.Hour || s.Usage().Oldest != lag {
			t.Errorf("%d wait, the oldest for %s (the spool says %s), want 1000 for 2h", n, lag, s.Usage().Oldest)
		}
		put(t, s, 1000, 1100)
		time.Sleep(time.Hour + 20*time.Second)
		if n := c.Pending(); n != 0 {
			t.Errorf("%d wait after the outage", n)
		}
		k.check(t, 0, 1100)
		c.Stop(context.Background())
		closeAll(t, s, nil)
	})
}

// A log that takes nothing is asked again and again, and Put waits for it; what the
// intake has in hand at the end is counted when the time is over, and not later.
func TestNothingTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		s, l := onScript(t, nil, func(e []*journal.Entry) (int, error) {
			if away.Load() {
				return 0, errors.New("away")
			}
			return len(e), nil
		})
		k := &fakeSink{name: "k"}
		c := s.Run(k, Options{})
		taken := make(chan int)
		go func() {
			putBig(t, s, 0, 100)
			taken <- 100
		}()
		time.Sleep(3 * time.Hour)
		select {
		case <-taken:
			t.Error("Put does not wait")
		default:
		}
		l.mu.Lock()
		calls := len(l.calls)
		l.mu.Unlock()
		if most, least := int(3*time.Hour/maxBackoff)+20, int(3*time.Hour/maxBackoff)-20; calls > most || calls < least {
			t.Errorf("asked %d times in three hours, want %d to %d", calls, least, most)
		}
		away.Store(false)
		<-taken
		if err := s.Sync(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		k.check(t, 0, 100)
		away.Store(true)
		putBig(t, s, 100, 103)
		before := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Flush(ctx)
		c.Stop(ctx)
		err := s.Close(ctx)
		if took := time.Since(before); took > 5*time.Second+closePatience || s.Stats.Lost.Load() != 3 {
			t.Errorf("closed after %s: %v; %d lost, want 3", took, err, s.Stats.Lost.Load())
		}
	})
}

// A disk that is full for ten seconds, whatever is given up, does not cost all that
// waits.
func TestDropsThatDoNotHelp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		s, l := onScript(t, func(c *Config) { c.Full = DropOldest }, func(e []*journal.Entry) (int, error) {
			if full.Load() {
				return 0, journal.ErrFull
			}
			return len(e), nil
		})
		var missed atomic.Uint64
		away := make(chan struct{})
		k := &fakeSink{name: "k", open: func(ctx context.Context) error {
			select {
			case <-away:
			case <-ctx.Done():
			}
			return ctx.Err()
		}}
		c := s.Run(k, Options{Count: Counters{Missed: &missed}})
		const waiting, more = 3000, 5
		putBig(t, s, 0, waiting)
		if err := s.Sync(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		putBig(t, s, waiting, waiting+more)
		time.Sleep(10 * time.Second)
		full.Store(false)
		time.Sleep(10 * time.Second)
		b, _ := l.Bounds(context.Background())
		if b.First == 1 || b.First > 20 {
			t.Errorf("%d batches of %d were given up", b.First-1, waiting)
		}
		close(away)
		time.Sleep(time.Second)
		if n := uint64(k.count()) + missed.Load(); n != waiting+more {
			t.Errorf("%d came, %d missed, of %d", k.count(), missed.Load(), waiting+more)
		}
		c.Stop(context.Background())
		closeAll(t, s, nil)
	})
}
