package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/compat/siptrace"
)

// script is a log whose Append answers what is written down, and then as it does.
type script struct {
	*memoryLog
	mu     sync.Mutex // covers what follows
	answer func(entries []*journal.Entry) (keep int, err error)
	calls  [][]*journal.Entry
	left   [][]*journal.Entry // of each call: those that were not kept
}

type scripted struct {
	*memoryEngine
	log *script
}

func (e *scripted) Open(ctx context.Context, i int, l journal.Limits) (journal.Log, error) {
	log, err := e.memoryEngine.Open(ctx, i, l)
	e.log.memoryLog = log.(*memoryLog)
	return e.log, err
}

func (l *script) Append(ctx context.Context, entries []*journal.Entry) (int, error) {
	l.mu.Lock()
	l.calls = append(l.calls, slices.Clone(entries))
	answer := l.answer
	l.mu.Unlock()
	keep, err := answer(entries)
	n, _ := l.memoryLog.Append(ctx, entries[:keep])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = append(l.left, slices.Clone(entries[n:]))
	return n, err
}

// onScript opens a spool of one shard whose batches have one record each.
func onScript(t *testing.T, change func(*Config), answer func([]*journal.Entry) (int, error)) (*Spool, *script) {
	t.Helper()
	cfg := testConfig(t)
	cfg.Shards, cfg.BatchBytes = 1, 1<<10
	if change != nil {
		change(&cfg)
	}
	l := &script{answer: answer}
	s, err := OpenOn(context.Background(), cfg, &scripted{&memoryEngine{}, l}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s, l
}

func putBig(t *testing.T, s *Spool, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		r := record(i, fmt.Sprintf("call-%d", i%10))
		r.ToTag = make([]byte, 1<<10) // a batch each
		if err := s.Put(&r); err != nil {
			t.Fatal(err)
		}
	}
}

// Batches that close while the log is busy go to it together, in their order.
func TestGroupAppend(t *testing.T) {
	busy, first := make(chan struct{}), make(chan struct{}, 1)
	s, l := onScript(t, nil, func(e []*journal.Entry) (int, error) {
		select {
		case first <- struct{}{}:
			<-busy
		default:
		}
		return len(e), nil
	})
	k := &fakeSink{name: "k"}
	c := s.Run(k, Options{})
	putBig(t, s, 0, 1)
	waitFor(t, "the first call", func() bool { return len(first) == 1 })
	putBig(t, s, 1, buffers)
	close(busy)
	s.Flush(soon(t))
	c.Stop(soon(t))
	k.check(t, 0, buffers)
	if l.mu.Lock(); len(l.calls) != 2 || len(l.calls[1]) != buffers-1 {
		t.Errorf("%d calls, want 2, the second one with %d batches", len(l.calls), buffers-1)
	}
	l.mu.Unlock()
	closeAll(t, s, nil)
}

// Whatever the log answers, each record is counted in one place, and those that are
// spooled come once and in order. What is tried again is the same entry.
func TestAppendAgain(t *testing.T) {
	broken := errors.New("broken")
	tooLarge := fmt.Errorf("%w: 9 bytes", journal.ErrTooLarge)
	const n = 40
	for _, tt := range []struct {
		name    string
		answer  func(call int, e []*journal.Entry) (int, error)
		refuses int // every so many; 0: none
	}{
		{"nothing for a while", func(call int, e []*journal.Entry) (int, error) {
			if call < 5 {
				return 0, broken
			}
			return len(e), nil
		}, 0},
		{"a part each time", func(call int, e []*journal.Entry) (int, error) {
			if len(e) > 1 {
				return 1, broken
			}
			return 1, nil
		}, 0},
		{"not known whether it is kept", func(call int, e []*journal.Entry) (int, error) {
			if call%2 == 0 {
				return 0, journal.ErrUncertain
			}
			return len(e), nil
		}, 0},
		{"some are too large", refuseEvery(3, tooLarge), 3},
		{"some find no room", refuseEvery(4, journal.ErrFull), 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			s, l := onScript(t, nil, func(e []*journal.Entry) (int, error) {
				calls++
				return tt.answer(calls-1, e)
			})
			var refused []string
			s.Refused = func(r *siptrace.Record) { refused = append(refused, string(r.Msg)) }
			k := &fakeSink{name: "k"}
			c := s.Run(k, Options{OneWriter: true})
			putBig(t, s, 0, n)
			s.Flush(soon(t))
			c.Stop(soon(t))
			spooled := 0
			for i := range n {
				r := record(i, fmt.Sprintf("call-%d", i%10))
				if msg := string(r.Msg); tt.refuses == 0 || i%tt.refuses != 0 {
					spooled++
					if got := k.got[string(r.CallID)]; !slices.Contains(got, msg) {
						t.Errorf("record %d did not come", i)
					}
				} else if !slices.Contains(refused, msg) {
					t.Errorf("record %d is not said to be refused", i)
				}
			}
			if got, no := s.Stats.Spooled.Load(), s.Stats.Refused.Load(); got != uint64(spooled) || no != uint64(n-spooled) || k.count() != spooled || len(refused) != n-spooled {
				t.Errorf("%d spooled, %d refused, %d came; want %d spooled", got, no, k.count(), spooled)
			}
			// What was not kept comes again, first and as it was.
			for i, call := range l.calls[1:] {
				if left := l.left[i]; len(left) > 0 && !slices.Equal(left, call) && (len(left) > 1 && !slices.Equal(left[1:], call) || tt.refuses == 0) {
					t.Errorf("call %d: other entries than were left", i+1)
				}
			}
			closeAll(t, s, nil)
		})
	}
}

// refuseEvery keeps entries, but for the n-th ones.
func refuseEvery(n int, err error) func(int, []*journal.Entry) (int, error) {
	at := 0
	return func(_ int, entries []*journal.Entry) (int, error) {
		for i := range entries {
			if at++; (at-1)%n == 0 {
				return i, err
			}
		}
		return len(entries), nil
	}
}

// Where a cluster's answer does not come before the end, nothing is said of the batch.
func TestUncertain(t *testing.T) {
	s, _ := onScript(t, nil, func([]*journal.Entry) (int, error) { return 0, journal.ErrUncertain })
	putBig(t, s, 0, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_ = s.Close(ctx)
	if got := [3]uint64{s.Stats.Spooled.Load(), s.Stats.Uncertain.Load(), s.Stats.Lost.Load()}; got != [3]uint64{0, 1, 2} {
		t.Errorf("spooled, uncertain, lost: got %v, want 0, 1, 2", got)
	}
}

// Two processes on one cluster: what the sink of one waits for is not given up when
// the other's are done with it, and each has what both spooled.
func TestTwoOnACluster(t *testing.T) {
	cfg := testConfig(t)
	cfg.BatchBytes = 1 << 10
	e := &memoryEngine{shared: true}
	var two [2]*Spool
	for i := range two {
		var err error
		if two[i], err = OpenOn(context.Background(), cfg, e, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	a, b := two[0], two[1]
	away := make(chan struct{})
	m := &fakeSink{name: "mirror.m", open: func(ctx context.Context) error {
		select {
		case <-away:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}
	mirror := a.Run(m, Options{})
	for _, r := range mirror.readers {
		waitFor(t, "the mirror to know where it begins", r.ready.Load)
	}
	if err := a.savePositions(soon(t)); err != nil {
		t.Fatal(err)
	}
	k := &fakeSink{name: "store"}
	store := b.Run(k, Options{})
	put(t, a, 0, 250)
	put(t, b, 250, 500)
	b.Forget("mirror.", func(string) bool { return false }) // it has no mirror
	waitFor(t, "500 records", func() bool { return k.count() == 500 })
	for range 3 {
		if err := b.savePositions(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.savePositions(soon(t)); err != nil {
		t.Fatal(err)
	}
	if n := mirror.Pending(); n != 500 {
		t.Errorf("%d wait for the mirror, want 500", n)
	}
	close(away)
	waitFor(t, "500 mirrored", func() bool { return m.count() == 500 })
	mirror.Stop(soon(t))
	store.Stop(soon(t))
	closeAll(t, b, nil)
	closeAll(t, a, nil)
	if e.logs[0].bytes+e.logs[1].bytes > 0 {
		t.Error("what all are done with is kept")
	}
}
