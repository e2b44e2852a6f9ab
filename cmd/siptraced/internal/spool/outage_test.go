package spool

import (
	"context"
	"testing"
	"time"
)

// What is logged of an outage of two writers.
func TestOutage(t *testing.T) {
	var o outage
	a, b := new(worker), new(worker)
	began := time.Unix(1700000000, 0)
	for i, tt := range []struct {
		after   time.Duration
		w       *worker
		text    string // empty: the worker works
		due     bool   // to be logged, or that all is well
		retries int
	}{
		{0, a, "dial tcp 127.0.0.1:3306: connection refused", true, 1},
		{0, b, "dial tcp 127.0.0.1:3306: connection refused", false, 2},
		{time.Second, a, "read tcp 127.0.0.1:40001->127.0.0.1:3306: reset", true, 3},
		{2 * time.Second, a, "read tcp 127.0.0.1:40002->127.0.0.1:3306: reset", false, 4},
		{30 * time.Second, b, "access denied", true, 5},
		{59 * time.Second, a, "dial tcp 127.0.0.1:3306: connection refused", false, 6},
		{time.Minute, b, "dial tcp 127.0.0.1:3306: connection refused", true, 7},
		{61 * time.Second, a, "", false, 0}, // b does not
		{62 * time.Second, b, "access denied", false, 8},
		{63 * time.Second, b, "", true, 8},
		{64 * time.Second, b, "", false, 0},
		{65 * time.Second, b, "access denied", true, 1}, // the next one
	} {
		var retries int
		var due bool
		if tt.text == "" {
			retries, due = o.over(tt.w)
		} else {
			retries, _, due = o.failed(tt.w, tt.text, began.Add(tt.after))
		}
		if due != tt.due || retries != tt.retries {
			t.Errorf("step %d, %q: got %v, %d retries; want %v, %d", i, tt.text, due, retries, tt.due, tt.retries)
		}
	}
}

// What may have been mended is tried at once: an attempt that hangs ends, and so
// does a pause.
func TestRetry(t *testing.T) {
	s := opened(t, func(c *Config) { c.Shards = 1 })
	k := &fakeSink{name: "k"}
	hanging := make(chan struct{}, 1)
	k.open = func(ctx context.Context) error {
		if k.opened.Load() > 1 {
			return nil
		}
		hanging <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	c := s.Run(k, Options{})
	put(t, s, 0, 10)
	<-hanging
	c.Retry()
	waitFor(t, "10 records", func() bool { return k.count() == 10 })
	if st := c.State(); !st.Connected || st.Err != "" {
		t.Errorf("got %+v", st)
	}
	c.Stop(soon(t))

	w := newWorker(c)
	w.drain = make(chan struct{})
	w.retry <- struct{}{}
	before := time.Now()
	if err := w.pause(t.Context(), time.Hour); err != nil || time.Since(before) > time.Minute {
		t.Errorf("a pause of an hour: %v after %s", err, time.Since(before))
	}
}
