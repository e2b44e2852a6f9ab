package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// fakeSink keeps the messages that it was given, by Call-ID.
type fakeSink struct {
	name string
	// write, flush and open are asked first; what they return ends the call.
	open  func(ctx context.Context) error
	write func(ctx context.Context, b *Batch) error
	flush func(ctx context.Context, held []*Batch) error

	opened, closed, flushed atomic.Int64

	mu     sync.Mutex // covers what follows
	got    map[string][]string
	n      int
	shards [][]Shard
}

func (k *fakeSink) Name() string { return k.name }

func (k *fakeSink) Open(ctx context.Context, shards []Shard) (Writer, error) {
	k.opened.Add(1)
	if k.open != nil {
		if err := k.open(ctx); err != nil {
			return nil, err
		}
	}
	k.mu.Lock()
	k.shards = append(k.shards, shards)
	k.mu.Unlock()
	return &fakeWriter{sink: k}, nil
}

type fakeWriter struct {
	sink *fakeSink
	held []*Batch
}

func (w *fakeWriter) Write(ctx context.Context, b *Batch) error {
	if f := w.sink.write; f != nil {
		if err := f(ctx, b); err != nil {
			return err
		}
	}
	w.held = append(w.held, b)
	return nil
}

func (w *fakeWriter) Flush(ctx context.Context) error {
	w.sink.flushed.Add(1)
	if f := w.sink.flush; f != nil {
		if err := f(ctx, w.held); err != nil {
			return err
		}
	}
	for _, b := range w.held {
		w.sink.keep(b, b.Records)
		b.Done()
	}
	w.held = nil
	return nil
}

func (w *fakeWriter) Close() error {
	w.sink.closed.Add(1)
	return nil
}

// keep takes the records of b up to n that are not settled.
func (k *fakeSink) keep(b *Batch, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.got == nil {
		k.got = map[string][]string{}
	}
	i := 0
	var d Decoder
	err := d.Each(b, func(r *siptrace.Record, _ []byte) error {
		if i++; i > b.Settled() && i <= n {
			k.got[string(r.CallID)] = append(k.got[string(r.CallID)], string(r.Msg))
			k.n++
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	b.Settle(n)
}

func (k *fakeSink) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.n
}

// check looks whether the records from..to of put came, once and in order.
func (k *fakeSink) check(t *testing.T, from, to int) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	next := map[string]int{}
	for i := from; i < to; i++ {
		id := fmt.Sprintf("call-%d", i%10)
		r := record(i, id)
		if got := k.got[id]; len(got) <= next[id] || got[next[id]] != string(r.Msg) {
			t.Fatalf("%s: record %d is not %q: %d came", id, next[id], r.Msg, len(got))
		}
		next[id]++
	}
	if k.n != to-from {
		t.Errorf("got %d records, want %d", k.n, to-from)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

func opened(t *testing.T, change func(*Config)) *Spool {
	t.Helper()
	cfg := testConfig(t)
	if change != nil {
		change(&cfg)
	}
	s := open(t, cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// All comes once and in the order of each call, whatever fails on the way, and
// a sink goes on where it stopped.
func TestConsumer(t *testing.T) {
	broken := errors.New("broken")
	for name, opt := range map[string]Options{
		"a writer for each shard": {Rows: 50, Age: 5 * time.Millisecond},
		"one writer":              {OneWriter: true, Age: time.Millisecond, Poll: 2 * time.Millisecond, IdlePoll: 5 * time.Millisecond, MaxInFlight: 4 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := opened(t, func(c *Config) { c.BatchBytes = 1 << 10 })
			var missed, backlog, before, retries, calls atomic.Uint64
			opt.Backoff = firstBackoff // many failures follow each other
			opt.Count = Counters{Missed: &missed, Backlog: &backlog, Before: &before, Retries: &retries}
			k := &fakeSink{name: "k"}
			// Every so often: no connection, a batch refused, one done or settled in
			// part before a failure.
			k.open = func(context.Context) error {
				if calls.Add(1)%3 == 0 {
					return broken
				}
				return nil
			}
			k.write = func(context.Context, *Batch) error {
				if calls.Add(1)%17 == 0 {
					return broken
				}
				return nil
			}
			k.flush = func(_ context.Context, held []*Batch) error {
				switch n := calls.Add(1); {
				case n%13 == 0 && len(held) > 0:
					k.keep(held[0], held[0].Records)
					held[0].Done()
					return broken
				case n%7 == 0 && len(held) > 0:
					k.keep(held[0], held[0].Records/2)
					return broken
				}
				return nil
			}
			c := s.Run(k, opt)
			put(t, s, 0, 1000)
			waitFor(t, "1000 records", func() bool { return k.count() >= 1000 })
			waitFor(t, "end of the backlog", func() bool { return c.Pending() == 0 })
			c.Stop(soon(t))
			k.check(t, 0, 1000)
			if backlog.Load() != 0 || before.Load() != 0 || missed.Load() != 0 || retries.Load() == 0 {
				t.Errorf("backlog %d, before %d, missed %d, retries %d", backlog.Load(), before.Load(), missed.Load(), retries.Load())
			}
			if k.closed.Load() == 0 || k.opened.Load() < k.closed.Load() {
				t.Errorf("opened %d, closed %d", k.opened.Load(), k.closed.Load())
			}
			if want := map[bool]int{false: 1, true: 2}[opt.OneWriter]; len(k.shards[0]) != want {
				t.Errorf("a writer has %d shards, want %d", len(k.shards[0]), want)
			}
			next := &fakeSink{name: "k"}
			c = s.Run(next, Options{})
			put(t, s, 1000, 1050)
			s.Flush(soon(t))
			c.Stop(soon(t))
			next.check(t, 1000, 1050)
		})
	}
}

// With From: Newest nothing of before comes, and all from Run on; Remove
// forgets the offset.
func TestNewest(t *testing.T) {
	s := opened(t, nil)
	all := s.Run(&fakeSink{name: "all"}, Options{})
	put(t, s, 0, 50)
	if err := s.Sync(soon(t), 0); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		k := &fakeSink{name: "k"}
		var before atomic.Uint64
		c := s.Run(k, Options{From: Newest, Count: Counters{Before: &before}})
		if want := uint64(50 + 100*round); before.Load() != want {
			t.Errorf("%d came before, want %d", before.Load(), want)
		}
		from := 50 * (2*round + 1)
		put(t, s, from, from+50)
		waitFor(t, "50 records", func() bool { return k.count() >= 50 })
		c.Remove()
		k.check(t, from, from+50)
		put(t, s, from+50, from+100) // not for it
		if err := s.Sync(soon(t), 0); err != nil {
			t.Fatal(err)
		}
	}
	all.Stop(soon(t))
}

// A sink that begins while messages come in is there at once: no disk, and nothing
// that another sink holds, is waited for.
func TestRunDoesNotWait(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards = 1
	s, disk := onDisk(t, cfg)
	blocked := make(chan struct{})
	stuck := s.Run(&fakeSink{name: "stuck", open: func(context.Context) error { <-blocked; return errors.New("no") }}, Options{})
	put(t, s, 0, 10)
	if err := s.Sync(soon(t), 0); err != nil {
		t.Fatal(err)
	}
	disk.still.Lock()
	done := make(chan *Consumer, 1)
	k := &fakeSink{name: "k"}
	go func() {
		s.PutMeta("k", "sip:k")
		c := s.Run(k, Options{From: Newest})
		s.Usage()
		done <- c
	}()
	var c *Consumer
	select {
	case c = <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("Run waits for the disk")
	}
	put(t, s, 10, 20)
	disk.still.Unlock()
	waitFor(t, "10 records", func() bool { return k.count() >= 10 })
	k.check(t, 10, 20)
	if err := s.Save(soon(t)); err != nil {
		t.Error(err)
	}
	if meta, err := s.Meta(soon(t)); err != nil || meta["k"] != "sip:k" {
		t.Errorf("meta: got %v, %v", meta, err)
	}
	c.Stop(soon(t))
	close(blocked)
	stuck.Stop(soon(t))
	closeAll(t, s, nil)
}

// Stopping waits for a sink that takes what there is, and for no other.
func TestStop(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]struct {
		messages int
		opt      Options
		open     func(ctx context.Context) error
		flush    func(ctx context.Context, held []*Batch) error
		left     uint64
	}{
		"nothing waits":                      {},
		"nothing waits, no connection":       {open: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		"nothing waits, no connection, lazy": {opt: Options{Lazy: true}, open: func(context.Context) error { return broken }},
		"it is refused":                      {messages: 20, open: func(context.Context) error { return broken }, left: 20},
		"it takes nothing":                   {messages: 20, flush: func(context.Context, []*Batch) error { return broken }, left: 20},
		"it does not acknowledge": {
			messages: 20, opt: Options{DrainPatience: 100 * time.Millisecond},
			open: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, left: 20,
		},
		"it is slow": {messages: 20, flush: func(context.Context, []*Batch) error { time.Sleep(300 * time.Millisecond); return nil }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := opened(t, nil)
			k := &fakeSink{name: "k", open: tt.open, flush: tt.flush}
			tt.opt.Backoff = time.Hour
			c := s.Run(k, tt.opt)
			put(t, s, 0, tt.messages)
			s.Flush(soon(t))
			if tt.messages > 0 {
				waitFor(t, "attempt", func() bool { return k.opened.Load() > 0 })
			}
			if tt.open != nil && tt.opt.DrainPatience == 0 && tt.messages > 0 {
				waitFor(t, "failure", func() bool { return c.State().Err != "" })
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			c.Stop(ctx)
			if left, _ := ctx.Deadline(); time.Until(left) < 50*time.Second {
				t.Error("Stop waited")
			}
			if c.Pending() != tt.left || k.count() != tt.messages-int(tt.left) {
				t.Errorf("%d wait, %d came, want %d to wait", c.Pending(), k.count(), tt.left)
			}
		})
	}
}

// A sink that is stuck is left behind when the deadline is over.
func TestStopStuck(t *testing.T) {
	s := opened(t, nil)
	release := make(chan struct{})
	defer close(release)
	k := &fakeSink{name: "k", flush: func(context.Context, []*Batch) error { <-release; return nil }}
	c := s.Run(k, Options{})
	put(t, s, 0, 10)
	waitFor(t, "flush", func() bool { return k.flushed.Load() > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	ended := make(chan struct{})
	go func() { c.Stop(ctx); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("Stop waits for a sink that does not come back")
	}
	if c.Pending() != 10 {
		t.Errorf("%d wait, want 10", c.Pending())
	}
}

// What is beyond the bounds of a sink that can't be reached is given up, and
// the rest comes.
func TestExpire(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		opt Options
		err error
	}{
		"age":               {Options{MaxAge: 100 * time.Millisecond}, broken},
		"bytes":             {Options{MaxBytes: 16000}, broken},
		"never deliverable": {Options{MaxAge: time.Hour}, fmt.Errorf("%w: it is us", ErrDiscard)},
	} {
		t.Run(name, func(t *testing.T) {
			s := opened(t, func(c *Config) { c.BatchBytes = 1 << 10 })
			var down atomic.Bool
			down.Store(true)
			k := &fakeSink{name: "k", open: func(context.Context) error {
				if down.Load() {
					return tt.err
				}
				return nil
			}}
			var expired atomic.Uint64
			tt.opt.Expired = func(b *Batch, cause error) {
				if want := name == "never deliverable"; errors.Is(cause, ErrDiscard) != want || errors.Is(cause, ErrExpired) == want {
					t.Errorf("cause: %v", cause)
				}
				expired.Add(uint64(b.Records - b.Settled()))
			}
			c := s.Run(k, tt.opt)
			put(t, s, 0, 200)
			waitFor(t, "records to be given up", func() bool { return expired.Load() > 100 })
			down.Store(false)
			waitFor(t, "connection", func() bool { return c.State().Connected })
			put(t, s, 200, 210)
			if err := s.Sync(soon(t), 0); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "end of the backlog", func() bool { return c.Pending() == 0 })
			c.Stop(soon(t))
			if n := expired.Load() + uint64(k.count()); n != 210 || k.count() < 10 {
				t.Errorf("%d given up, %d came, want 210", expired.Load(), k.count())
			}
		})
	}
}

// A Lazy sink is not opened for what it does not want.
func TestLazy(t *testing.T) {
	s := opened(t, nil)
	var want atomic.Bool
	var skipped atomic.Uint64
	k := &fakeSink{name: "k"}
	c := s.Run(k, Options{Lazy: true, Skip: func(b *Batch) bool {
		if !want.Load() {
			skipped.Add(uint64(b.Records))
		}
		return !want.Load()
	}})
	put(t, s, 0, 100)
	waitFor(t, "100 records to be skipped", func() bool { return skipped.Load() == 100 && c.Pending() == 0 })
	if n := k.opened.Load(); n != 0 {
		t.Errorf("opened %d times", n)
	}
	want.Store(true)
	put(t, s, 100, 110)
	waitFor(t, "10 records", func() bool { return k.count() == 10 })
	c.Stop(soon(t))
}

// One failure is logged once, and an idle connection that is opened again is
// none.
func TestState(t *testing.T) {
	s := opened(t, func(c *Config) { c.Shards = 1 })
	broken := errors.New("broken")
	var fails atomic.Bool
	var retries atomic.Uint64
	k := &fakeSink{name: "k"}
	k.open = func(context.Context) error {
		if fails.Load() {
			return broken
		}
		return nil
	}
	k.flush = func(context.Context, []*Batch) error {
		if fails.Load() {
			return broken
		}
		if k.flushed.Load() == 2 {
			return ErrReopen
		}
		return nil
	}
	c := s.Run(k, Options{IdlePoll: 5 * time.Millisecond, Poll: 5 * time.Millisecond, Backoff: 200 * time.Millisecond, Count: Counters{Retries: &retries}})
	waitFor(t, "second connection", func() bool { return k.opened.Load() >= 2 && c.State().Connected })
	if st := c.State(); st.Err != "" || retries.Load() != 0 {
		t.Errorf("after ErrReopen: %+v, %d retries", st, retries.Load())
	}
	fails.Store(true)
	waitFor(t, "failure", func() bool { st := c.State(); return !st.Connected && st.Err == "broken" && retries.Load() >= 2 })
	fails.Store(false)
	waitFor(t, "connection", func() bool { st := c.State(); return st.Connected && st.Err == "" })
	c.Stop(soon(t))
}

// With a disk that stands still the end comes with the context, and what was taken
// in is counted.
func TestCloseStuck(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.BatchBytes = 1, 1<<10
	s, disk := onDisk(t, cfg)
	c := s.Run(&fakeSink{name: "k"}, Options{})
	put(t, s, 0, 10)
	if err := s.Sync(soon(t), 0); err != nil {
		t.Fatal(err)
	}
	disk.still.Lock()
	defer func() {
		disk.still.Unlock()
		<-disk.ended
	}()
	// Until Put waits: each of its batches is under way.
	taken := make(chan int, 1)
	go func() {
		n := 0
		for i := range 10000 {
			r := record(i, "call")
			if s.Put(&r) != nil {
				break
			}
			n++
		}
		taken <- n
	}()
	sh := s.shards[0]
	waitFor(t, "Put that waits", func() bool {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return len(sh.free) == 0 && sh.cur == nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	synced := make(chan error, 1)
	go func() { synced <- s.Sync(context.Background(), 0) }()
	ended := make(chan error, 1)
	go func() {
		c.Stop(ctx)
		ended <- s.Close(ctx)
	}()
	n := 0
	select {
	case n = <-taken:
	case <-time.After(20 * time.Second):
		t.Fatal("Put waits")
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Close says nothing of a disk that stands still")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for the disk")
	}
	if err := <-synced; !errors.Is(err, ErrClosed) {
		t.Errorf("Sync: %v", err)
	}
	if got := s.Stats.Lost.Load(); got != uint64(n) || n == 0 {
		t.Errorf("%d lost, want %d", got, n)
	}
}

// That holds, too, where nothing is under way but the positions.
func TestCloseStuckIdle(t *testing.T) {
	cfg := testConfig(t)
	s, disk := onDisk(t, cfg)
	disk.still.Lock()
	defer func() {
		disk.still.Unlock()
		<-disk.ended
	}()
	s.PutMeta("k", "v")
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Close(ctx) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Close says nothing of a disk that stands still")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for the disk")
	}
}

// A slow disk holds up Close, and does not cost the offsets.
func TestCloseSlow(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards = 1
	s, disk := onDisk(t, cfg)
	disk.still.Lock()
	s.PutMeta("k", "v")
	ended := make(chan error, 1)
	go func() { ended <- s.Close(soon(t)) }()
	select {
	case err := <-ended:
		t.Errorf("Close does not wait for the disk: %v", err)
		disk.still.Unlock()
	case <-time.After(2 * closePatience):
		disk.still.Unlock()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	s = open(t, cfg)
	defer closeAll(t, s, nil)
	if meta, err := s.Meta(soon(t)); err != nil || meta["k"] != "v" {
		t.Errorf("meta: got %v, %v", meta, err)
	}
}
