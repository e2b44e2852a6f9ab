package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

// boundedFile is a database that nobody asked for.
type boundedFile struct {
	backend
	path, dir string
}

func newBoundedFile(t *testing.T) *boundedFile {
	t.Helper()
	dir := t.TempDir()
	f := &boundedFile{path: filepath.Join(dir, "own.db"), dir: filepath.Join(dir, "spool")}
	u, err := siptrace.ParseDBURL("sqlite://" + f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.url = u
	return f
}

// run runs a store with bounds on the file.
func (f *boundedFile) run(t *testing.T, keepBytes int64, keep time.Duration) *rig {
	t.Helper()
	return newRig(t, f.url, f.dir, func(c *Config) { c.KeepBytes, c.Keep = keepBytes, keep })
}

// look reads the file; what has no table yet is empty.
func (f *boundedFile) look(t *testing.T) backend {
	t.Helper()
	if f.db == nil {
		db, err := Database(context.Background(), f.url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		f.db = db
	}
	return f.backend
}

func (f *boundedFile) size(t *testing.T) int64 {
	t.Helper()
	st, err := os.Stat(f.path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func (r *rig) await(t *testing.T, what string, is func(map[string]uint64) bool) {
	t.Helper()
	for range 3000 {
		if is(r.count.Snapshot()) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waiting for %s: %v\n%s", what, r.count.Snapshot(), r.log)
}

// A bounded file stays within its bound while much more than that is written, and
// has the newest rows. Log lines count too.
func TestBoundBySize(t *testing.T) {
	const bound, messages = 3 << 20, 20000
	f := newBoundedFile(t)
	r := f.run(t, bound, 0)
	var largest int64
	filling := strings.Repeat("x", 700)
	began := time.Now()
	for i := range messages {
		at := began.Add(time.Duration(i) * 50 * time.Millisecond)
		if i%4 == 3 {
			line := siptrace.Record{Type: siptrace.TypeLog, Time: at, CallID: []byte("call"), Msg: []byte(fmt.Sprintf("%06d", i) + filling), Route: siptrace.Route{Sinks: siptrace.ToStore}}
			if err := r.spool.Put(&line); err != nil {
				t.Fatal(err)
			}
		} else {
			r.putAt(t, at, "call", fmt.Sprintf("%06d", i)+filling)
		}
		if i%1000 == 999 {
			r.await(t, "the rows", func(c map[string]uint64) bool { return c["store.pending"] == 0 })
			largest = max(largest, f.size(t))
		}
	}
	got := r.stop(t)
	if largest = max(largest, f.size(t)); largest > bound {
		t.Errorf("the file had %d bytes, the bound is %d", largest, bound)
	}
	b := f.look(t)
	rows, lines := b.rows(t), b.rowsOf(t, dbschema.LogTable)
	if got["store.rows"]+got["store.log_lines"] != messages || uint64(len(rows)+len(lines))+got["store.pruned.keep_bytes"] != messages || got["store.pruned.keep"] != 0 {
		t.Errorf("%d rows and %d lines are there: %v", len(rows), len(lines), got)
	}
	if len(rows)+len(lines) < messages/20 || len(lines) < len(rows)/5 || len(lines) > len(rows) {
		t.Errorf("%d rows and %d lines are left, want about three to one, and the bound used", len(rows), len(lines))
	}
	// The newest are there, without a gap.
	last := messages - 1 // a log line
	for i, m := range slices.Backward(rows) {
		if last--; last%4 == 3 {
			last--
		}
		if want := fmt.Sprintf("%06d", last); !strings.HasPrefix(m, want) {
			t.Fatalf("row %d of %d: got %.6s, want %s", i, len(rows), m, want)
		}
	}
	if !strings.Contains(r.log.String(), "the oldest rows were removed") {
		t.Errorf("nobody is told:\n%s", r.log)
	}
}

// A bound that was lowered makes the file smaller.
func TestBoundLowered(t *testing.T) {
	const messages = 5000
	f := newBoundedFile(t)
	filling := strings.Repeat("x", 1000)
	r := f.run(t, 64<<20, 0)
	for i := range messages {
		r.putAt(t, time.Now(), fmt.Sprint("call", i%7), filling)
	}
	if got := r.stop(t); got["store.pruned.keep_bytes"] != 0 {
		t.Errorf("rows went below the bound: %v", got)
	}
	if n := f.size(t); n < 5<<20 {
		t.Fatalf("the file has %d bytes: too few for this test", n)
	}
	r = f.run(t, 2<<20, 0)
	r.await(t, "the file to be small", func(c map[string]uint64) bool {
		return c["store.file_bytes"] > 0 && c["store.file_bytes"] <= 2<<20 && f.size(t) <= 2<<20
	})
	got := r.stop(t)
	if n := uint64(len(f.look(t).rows(t))); n == 0 || n+got["store.pruned.keep_bytes"] != messages {
		t.Errorf("%d rows are left, %v", n, got)
	}
}

// Rows go when they are too old; what came late stays as long as others, from its
// arrival on, over a restart too.
func TestBoundByAge(t *testing.T) {
	const keep = time.Hour
	f := newBoundedFile(t)
	old, now := time.Now().Add(-2*keep), time.Now()
	put := func(r *rig, what string, at time.Time) {
		for i := range 10 {
			r.putAt(t, at, "call", fmt.Sprintf("%s %d", what, i))
		}
	}
	count := func() map[string]int {
		n := map[string]int{}
		for _, m := range f.look(t).rows(t) {
			what, _, _ := strings.Cut(m, " ")
			n[what]++
		}
		return n
	}
	want := func(late, recent int) {
		t.Helper()
		if n := count(); n["old"] != 0 || n["late"] != late || n["recent"] != recent {
			t.Errorf("rows are left: %v; want late %d, recent %d", n, late, recent)
		}
	}
	putOld := func() {
		t.Helper()
		r := f.run(t, 0, 0)
		put(r, "old", old)
		if got := r.stop(t); got["store.pruned.keep"] != 0 || count()["old"] < 10 {
			t.Fatalf("without a bound: %v, %v", count(), got)
		}
	}
	putOld()
	r := f.run(t, 0, keep)
	put(r, "late", old)
	put(r, "recent", now)
	r.await(t, "the old rows to go", func(c map[string]uint64) bool { return c["store.pruned.keep"] >= 10 && c["store.pending"] == 0 })
	want(10, 10)
	r.stop(t)

	// After a restart they are still late; then their time is over.
	for _, late := range []int{10, 0} {
		putOld()
		r = f.run(t, 0, keep)
		put(r, "recent", now)
		r.await(t, "the old rows to go", func(c map[string]uint64) bool { return c["store.pruned.keep"] >= 10 && c["store.pending"] == 0 })
		r.await(t, "all that has to go", func(map[string]uint64) bool { n := count(); return n["old"] == 0 && n["late"] <= late })
		want(late, count()["recent"])
		r.stop(t)
		f.exec(t, "UPDATE "+dbschema.LateTable+" SET until = 1")
	}
}

// Bounds that can't be held, because the table is a view, are said to be in vain, and
// rows are written all the same.
func TestBoundInVain(t *testing.T) {
	f := newBoundedFile(t)
	b := f.look(t)
	b.create(t, "ALTER TABLE sip_trace RENAME TO behind", "CREATE VIEW sip_trace AS SELECT * FROM behind",
		"CREATE TRIGGER fill INSTEAD OF INSERT ON sip_trace BEGIN INSERT INTO behind (msg, time_stamp) VALUES (NEW.msg, NEW.time_stamp); END")
	r := f.run(t, 1<<20, time.Hour)
	r.putAt(t, time.Now(), "call", "a message")
	r.await(t, "the row", func(c map[string]uint64) bool { return c["store.written"] == 1 })
	got := r.stop(t)
	if n := len(b.rowsOf(t, "behind")); n != 1 || got["store.pruned.keep"]+got["store.pruned.keep_bytes"] != 0 {
		t.Errorf("%d rows: %v", n, got)
	}
	if !strings.Contains(r.log.String(), errNotPruned.Error()) {
		t.Errorf("nobody is told:\n%s", r.log)
	}
}
