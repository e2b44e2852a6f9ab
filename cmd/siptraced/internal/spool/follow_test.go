package spool

import (
	"bytes"
	"strconv"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// A reader that falls behind reads from the engine until it has everything, and
// follows the intake again: all comes, once, in order, and is its own.
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
		timeout := time.After(30 * time.Second)
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
			case <-timeout:
				t.Fatalf("got %d of %d", got, sent)
			}
		}
	}
	for _, n := range []int{5, 30, 2 * mostFollowed / len(filler), 5, 3 * mostFollowed / len(filler), 50} {
		send(n)
		receive()
	}
	for deadline := time.Now().Add(30 * time.Second); !rs[0].follows.Load(); {
		if time.Now().After(deadline) {
			t.Fatal("the reader does not follow")
		}
		send(1)
		receive()
	}
	closeAll(t, s, rs)
}
