package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/dbschema"
	"siptraced/tests/servers"
)

// A database that lost what it had committed gets it again, as far as the spool
// has it, while siptraced runs and after a restart; and the log says so.
func testWentBack(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart %v", name, restart), func(t *testing.T) {
				b, dir := make(t), t.TempDir()
				b.create(t)
				r := newRig(t, b.url, dir)
				// Another sink is behind, and so the spool keeps everything.
				behind := r.spool.Run(stuck{}, spool.Options{})
				put := func(from, to int) {
					for i := from; i < to; i++ {
						r.put(t, "call", fmt.Sprintf("%03d", i))
					}
					r.arrived(t, uint64(to))
				}
				put(0, 100)
				saved := b.positions(t)
				put(100, 250)
				back := func() {
					b.exec(t, "DELETE FROM sip_trace WHERE msg >= '100'")
					for stream, seq := range saved {
						b.exec(t, fmt.Sprintf("UPDATE %s SET seq = %d WHERE stream = '%s'", dbschema.PositionTable, seq, stream))
					}
				}
				if restart {
					behind.Stop(t.Context())
					r.stop(t)
					back()
					r = newRig(t, b.url, dir)
					behind = r.spool.Run(stuck{}, spool.Options{})
				} else {
					back()
				}
				r.put(t, "call", "250")
				servers.WaitFor(t, 30*time.Second, "the rows", func() bool { return len(b.rows(t)) == 251 })
				behind.Stop(t.Context())
				got := r.stop(t)
				if got["store.position_back"] != 1 || got["store.rewritten"] != 150 {
					t.Errorf("went back %d times, %d messages written again, want 1 and 150", got["store.position_back"], got["store.rewritten"])
				}
				if rows := b.rows(t); len(rows) != 251 || !slices.IsSorted(rows) || len(slices.Compact(rows)) != 251 {
					t.Errorf("%d rows", len(rows))
				}
				if !strings.Contains(r.log.String(), "its position went back") || !strings.Contains(r.log.String(), "messages_written_again=150") {
					t.Errorf("log:\n%s", r.log)
				}
			})
		}
	}
}

// A store that is given another database, and the former one again, writes each
// message into the one that was in use; with restarts between, too. That is no loss.
// What the former one really lost is written again, and nothing of the other's.
func testAnother(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart %v", name, restart), func(t *testing.T) {
				first, second, dir := make(t), make(t), t.TempDir()
				first.create(t)
				second.create(t)
				r := newRig(t, first.url, dir)
				// Another sink is behind, and so the spool keeps everything.
				behind := r.spool.Run(stuck{}, spool.Options{})
				sent := 0
				use := func(b backend) {
					if !restart {
						cfg := *r.store.wanted.Load()
						cfg.URL = b.url
						if err := r.store.Reconfigure(cfg); err != nil {
							t.Fatal(err)
						}
						return
					}
					behind.Stop(t.Context())
					if n := r.stop(t)["store.position_back"]; n != 0 {
						t.Errorf("a database went back %d times, want none", n)
					}
					r = newRig(t, b.url, dir)
					behind = r.spool.Run(stuck{}, spool.Options{})
				}
				send := func(b backend, want int) {
					t.Helper()
					for range 50 {
						r.put(t, fmt.Sprintf("call-%d", sent%2), fmt.Sprintf("%03d", sent))
						sent++
					}
					servers.WaitFor(t, 30*time.Second, "the rows", func() bool { return len(b.rows(t)) >= want })
				}
				send(first, 50)
				use(second)
				send(second, 50)
				use(first)
				send(first, 100)
				if n := r.count.Snapshot()["store.position_back"]; n != 0 {
					t.Errorf("a database went back %d times, want none", n)
				}
				saved := first.positions(t)
				send(first, 150)
				use(second)
				send(second, 100)
				first.exec(t, "DELETE FROM sip_trace WHERE msg >= '150'")
				for stream, seq := range saved {
					first.exec(t, fmt.Sprintf("UPDATE %s SET seq = %d WHERE stream = '%s'", dbschema.PositionTable, seq, stream))
				}
				use(first)
				send(first, 200)
				behind.Stop(t.Context())
				got := r.stop(t)
				if got["store.position_back"] == 0 || got["store.rewritten"] != 50 {
					t.Errorf("went back %d times, %d messages written again, want 50", got["store.position_back"], got["store.rewritten"])
				}
				want := map[string][]string{}
				for i := range sent {
					db := []string{"first", "second", "first", "first", "second", "first"}[i/50]
					want[db] = append(want[db], fmt.Sprintf("%03d", i))
				}
				for db, b := range map[string]backend{"first": first, "second": second} {
					if rows := slices.Sorted(slices.Values(b.rows(t))); !slices.Equal(rows, want[db]) {
						t.Errorf("%s: %d rows, want %d: %q", db, len(rows), len(want[db]), rows)
					}
				}
			})
		}
	}
}

// positions is how far each stream is in the database.
func (b backend) positions(t *testing.T) map[string]int64 {
	t.Helper()
	rs, err := b.db.Query("SELECT stream, seq FROM " + dbschema.PositionTable)
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	got := map[string]int64{}
	for rs.Next() {
		var stream string
		var seq int64
		if err := rs.Scan(&stream, &seq); err != nil {
			t.Fatal(err)
		}
		got[stream] = seq
	}
	return got
}

// What was committed after a position.
func TestHistory(t *testing.T) {
	var h history
	for i := range 3 * mostHistory {
		h.add(uint64(10*i), 2)
	}
	if n, ok := h.since(30*mostHistory - 25); n != 4 || !ok {
		t.Errorf("got %d, %v, want 4, true", n, ok)
	}
	if _, ok := h.since(5); ok || len(h.commits) > mostHistory {
		t.Errorf("known after %d, %d kept", 5, len(h.commits))
	}
}

// stuck is a sink that never connects.
type stuck struct{}

func (stuck) Name() string { return "stuck" }

func (stuck) Open(context.Context, []spool.Shard) (spool.Writer, error) {
	return nil, errors.New("never")
}
