package spool

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// A reader that falls behind reads from the log until the rest is in memory: all
// comes, once, in order, and is its own.
func TestFollow(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.BatchBytes = 1, 1<<20
	s := open(t, cfg)
	rs := readers(t, s)
	filler := bytes.Repeat([]byte("x"), 100<<10)
	sent, got := 0, 0
	send := func(n int) {
		for range n {
			r := record(sent, "call")
			r.Msg = append(strconv.AppendInt(nil, int64(sent), 10), filler...)
			if err := s.Put(&r); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	var d Decoder
	receive := func() {
		for got < sent {
			select {
			case b := <-rs[0].Batches():
				err := d.Each(b, func(rec *siptrace.Record, _ []byte) error {
					if want := append(strconv.AppendInt(nil, int64(got), 10), filler...); !bytes.Equal(rec.Msg, want) {
						t.Fatalf("record %d: got %.20q...", got, rec.Msg)
					}
					got++
					return nil
				})
				if err != nil || b.Missed != 0 {
					t.Fatalf("missed %d, %v", b.Missed, err)
				}
				rs[0].Done(b)
				b.Release()
			case <-time.After(30 * time.Second):
				t.Fatalf("got %d of %d, and nothing more comes", got, sent)
			}
		}
	}
	for _, n := range []int{5, 30, 2 * maxRecent / len(filler), 5, 3 * maxRecent / len(filler), 50} {
		send(n)
		receive()
	}
	if c := &s.shards[0].recent; !c.reaches(rs[0]) || c.end != s.shards[0].lastSeq.Load() {
		t.Error("the reader does not follow")
	}
	closeAll(t, s, rs)
}

// Whatever readers do, in whatever order, each gets every batch once and in order, and
// what is kept stays within its bound.
func TestRecent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, maxRecent/8)
	for range 100 {
		var c recent
		var readers []*reader
		join := func() {
			r := &reader{offered: make(chan struct{}, 1), last: uint64(random.IntN(int(c.head) + 1))}
			c.join(r)
			readers = append(readers, r)
		}
		// step has a reader take what comes next, and reports whether it could.
		step := func(r *reader) bool {
			b := c.after(r)
			if b == nil && !c.reaches(r) {
				b = &Batch{Seq: r.last + 1, data: data} // from the log
				c.share(b)
			}
			if b == nil {
				return false
			}
			if b.Seq != r.last+1 || b.Seq > c.head {
				t.Fatalf("batch %d behind %d, of %d", b.Seq, r.last, c.head)
			}
			r.last++
			return true
		}
		for range 400 {
			switch n := random.IntN(20); {
			case n == 0 && len(readers) < 5:
				join()
			case n == 1 && len(readers) > 1:
				c.leave(readers[0])
				readers = readers[1:]
			case n < 9:
				c.offer(&Batch{Seq: c.head + 1, data: data})
			case len(readers) > 0:
				step(readers[random.IntN(min(len(readers), 3))]) // the others are stuck
			}
			if c.bytes > maxRecent || c.bytes != len(c.batches)*len(data) {
				t.Fatalf("%d bytes in %d batches", c.bytes, len(c.batches))
			}
		}
		for _, r := range readers {
			for r.last < c.head {
				if !step(r) {
					c.takeOver(r) // its patience is at its end
				}
			}
		}
		for _, r := range readers {
			if c.reaches(r); r.last != c.head {
				t.Fatalf("at %d of %d", r.last, c.head)
			}
		}
		if len(c.batches) > 0 {
			t.Fatalf("%d batches are kept for nobody", len(c.batches))
		}
	}
}

// Sinks that are behind together have each batch read back once, not once each. One
// that is stuck keeps nobody waiting, and gets everything later.
func TestReadBackOnce(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.BatchBytes = 1, 10<<10
	s, _ := onDisk(t, cfg)
	const records = 6000
	put(t, s, 0, records)
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	s, disk := onDisk(t, cfg)
	free := make(chan struct{})
	stuck := &fakeSink{name: "stuck", open: func(ctx context.Context) error {
		select {
		case <-free:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}
	sinks := []*fakeSink{stuck, {name: "a"}, {name: "b"}, {name: "c"}}
	var consumers []*Consumer
	disk.still.Lock() // none is ahead of another one that did not begin yet
	for _, k := range sinks {
		consumers = append(consumers, s.Run(k, Options{}))
	}
	waitFor(t, "all to begin", func() bool {
		c := &s.shards[0].recent
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.readers) == len(sinks)
	})
	disk.still.Unlock()
	put(t, s, records, 2*records)
	for _, k := range sinks[1:] {
		waitFor(t, k.name+" to have all", func() bool { return k.count() >= 2*records })
	}
	if n, batches := disk.read.Load(), int64(s.shards[0].lastSeq.Load()); n > 2*batches { // each for itself: three times
		t.Errorf("%d batches are read back, of %d", n, batches)
	}
	close(free)
	waitFor(t, "the one that was stuck", func() bool { return stuck.count() >= 2*records })
	for i, c := range consumers {
		c.Stop(soon(t))
		sinks[i].check(t, 0, 2*records)
	}
	closeAll(t, s, nil)
}
