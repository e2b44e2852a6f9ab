package spool

import (
	"bytes"
	"context"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
)

// The bounds change while the spool works; one that can't be changes nothing.
func TestSetBounds(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.MaxBytes = 1, 16<<20
	s, disk := onDisk(t, cfg)
	r := s.Run(&fakeSink{name: "store", open: func(context.Context) error { return errContinued }}, Options{})
	defer func() {
		r.Stop(soon(t))
		closeAll(t, s, nil)
	}()
	big := bytes.Repeat([]byte("x"), 100<<10)
	refused := func(n int) uint64 {
		before, mark := s.Stats.Refused.Load(), s.Mark()
		for i := range n {
			r := record(i, "call")
			r.Msg = big
			if err := s.Put(&r); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.Sync(soon(t), mark) // an error says that some were refused
		return s.Stats.Refused.Load() - before
	}
	if n := refused(250); n == 0 {
		t.Fatal("a spool of 16 MiB takes 25 MiB")
	}
	if err := s.SetBounds(context.Background(), 5, 0); err == nil {
		t.Error("a bound of 5 bytes is accepted")
	}
	if n := refused(5); n != 5 {
		t.Errorf("after a bound that can't be: %d of 5 refused", n)
	}
	if err := s.SetBounds(context.Background(), 64<<20, time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := refused(50); n != 0 {
		t.Errorf("with a bound of 64 MiB: %d of 50 refused", n)
	}
	disk.mu.Lock()
	defer disk.mu.Unlock()
	if want := (journal.Limits{Bytes: 64 << 20, Age: time.Hour}); disk.limits[0] != want {
		t.Errorf("the log has %+v, want %+v", disk.limits[0], want)
	}
}
