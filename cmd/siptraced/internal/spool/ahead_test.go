package spool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// After a loss of power the stream may have less than a sink is done with. What
// comes then has numbers of its own.
func TestGoAhead(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, s *Spool) // of the positions
	}{
		{"stream cut", func(*testing.T, *Spool) {}},
		{"power lost", func(t *testing.T, s *Spool) {
			t.Helper()
			for _, sh := range s.shards {
				text := fmt.Sprintf("%d another-boot %s", sh.lastSeq.Load()+5, sh.id)
				if err := s.positions.put(context.Background(), sh.aheadKey(), text); err != nil {
					t.Fatal(err)
				}
				if err := s.positions.put(context.Background(), sh.totalKey(), ""); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.positions.flush(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.BatchBytes = 1 << 10
			s := open(t, cfg)
			put(t, s, 0, 300)
			closeAll(t, s, nil)
			before := t.TempDir()
			if err := os.CopyFS(before, os.DirFS(filepath.Join(cfg.Dir, "jetstream"))); err != nil {
				t.Fatal(err)
			}

			s = open(t, cfg)
			put(t, s, 300, 500)
			rs := readers(t, s)
			s.Flush(context.Background())
			take(t, s, rs, 500, map[string][]string{})
			var done [2]uint64
			for i, r := range rs {
				done[i] = r.place.Load().seq
			}
			closeAll(t, s, rs)
			tt.change(t, s)

			if err := os.RemoveAll(filepath.Join(cfg.Dir, "jetstream")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(cfg.Dir, "jetstream"), os.DirFS(before)); err != nil {
				t.Fatal(err)
			}
			s = open(t, cfg)
			rs = readers(t, s)
			put(t, s, 500, 600)
			s.Flush(context.Background())
			var d Decoder
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
				if b.Seq <= done[i] {
					t.Errorf("shard %d: batch %d, but %d was done before", i, b.Seq, done[i])
				}
				if err := d.Each(b, func(*siptrace.Record, []byte) error { n++; return nil }); err != nil {
					t.Fatal(err)
				}
			}
			closeAll(t, s, rs)
		})
	}
}
