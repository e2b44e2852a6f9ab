package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/segments"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
	"siptraced/tests/servers"
)

// backend is an empty database on a real server.
type backend struct {
	url siptrace.DBURL
	db  *sql.DB
}

// backends starts one server of each kind for the test.
func backends(t *testing.T) map[string]func(*testing.T) backend {
	t.Helper()
	maria, pg := servers.StartMariaDB(t), servers.StartPostgres(t)
	var n atomic.Int64
	name := func() string { return fmt.Sprintf("store_%d", n.Add(1)) }
	parse := func(t *testing.T, s string) siptrace.DBURL {
		t.Helper()
		u, err := siptrace.ParseDBURL(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	return map[string]func(*testing.T) backend{
		"mariadb": func(t *testing.T) backend {
			db := name()
			maria.CreateDatabase(t, db, "utf8mb4")
			return backend{parse(t, maria.URL(db)), maria.Open(t, db)}
		},
		"postgres": func(t *testing.T) backend {
			db := name()
			pg.CreateDatabase(t, db, "UTF8")
			return backend{parse(t, pg.URL(db)), pg.Open(t, db)}
		},
		"sqlite": func(t *testing.T) backend {
			u := parse(t, "sqlite://"+filepath.Join(t.TempDir(), "with space %41.db"))
			db, err := Database(context.Background(), u)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			return backend{u, db}
		},
	}
}

func (b backend) create(t *testing.T, extra ...string) {
	t.Helper()
	d, _ := dbschema.DialectOf(b.url.Driver)
	texts, err := dbschema.Create(d, "sip_trace", siptrace.DefaultColumns())
	if err != nil {
		t.Fatal(err)
	}
	b.exec(t, append(texts, extra...)...)
}

func (b backend) exec(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := b.db.Exec(text); err != nil {
			t.Fatalf("%v in: %s", err, text)
		}
	}
}

// rows are the messages of the table in the order of id.
func (b backend) rows(t *testing.T) []string { return b.rowsOf(t, "sip_trace") }

func (b backend) rowsOf(t *testing.T, table string) []string {
	t.Helper()
	rs, err := b.db.Query("SELECT msg FROM " + table + " ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	var out []string
	for rs.Next() {
		var m string
		if err := rs.Scan(&m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// rig is a spool and a store on it.
type rig struct {
	spool   *spool.Spool
	store   *Store
	count   *counters.Set
	rejects string
	log     *bytes.Buffer
}

func newRig(t *testing.T, u siptrace.DBURL, dir string, set ...func(*Config)) *rig {
	t.Helper()
	return newRigNamed(t, u, dir, nil, set...)
}

// newRigNamed is newRig with a source of the names of timelines; nil: random ones.
func newRigNamed(t *testing.T, u siptrace.DBURL, dir string, names func() uint64, set ...func(*Config)) *rig {
	t.Helper()
	cfg := spool.DefaultConfig()
	cfg.Dir, cfg.BatchAge, cfg.BatchBytes = dir, 5*time.Millisecond, 16<<10
	r := &rig{count: counters.New(), rejects: filepath.Join(dir, "rejects.jsonl"), log: new(bytes.Buffer)}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	engine, err := segments.Open(t.Context(), segments.Config{Dir: dir, SyncInterval: cfg.SyncInterval, Log: log, Random: names})
	if err != nil {
		t.Fatal(err)
	}
	if r.spool, err = spool.OpenOn(context.Background(), cfg, engine, log); err != nil {
		t.Fatal(err)
	}
	sc := DefaultConfig()
	sc.URL, sc.Location, sc.RejectFile, sc.BatchAge = u, time.UTC, r.rejects, 5*time.Millisecond
	sc.KeepBytes, sc.Keep = 0, 0
	for _, f := range set {
		f(&sc)
	}
	if r.store, err = Open(context.Background(), sc, r.spool, r.count, log); err != nil {
		t.Fatal(err)
	}
	r.store.backoff = 10 * time.Millisecond // what is tried again is the subject, not when
	r.store.Start()
	return r
}

func (r *rig) put(t *testing.T, callID, msg string) {
	t.Helper()
	r.putAt(t, time.Unix(1700000000, 0), callID, msg)
}

// putAt spools a message of another time.
func (r *rig) putAt(t *testing.T, at time.Time, callID, msg string) {
	t.Helper()
	end := siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.1:5060")}
	err := r.spool.Put(&siptrace.Record{
		Time: at, CallID: []byte(callID), Msg: []byte(msg), Method: []byte("OPTIONS"), From: end, To: end, Direction: siptrace.In,
		Route: siptrace.Route{Sinks: siptrace.ToStore},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rejected is the text of the reject file.
func (r *rig) rejected(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(r.rejects)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// stop drains everything and returns the books.
func (r *rig) stop(t *testing.T) map[string]uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r.spool.Flush(ctx)
	if err := r.store.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.spool.Close(ctx); err != nil {
		t.Fatal(err)
	}
	got := r.count.Snapshot()
	in := got["store.backlog"] + r.spool.Stats.Spooled.Load()
	if out := got["store.written"] + got["store.set_aside"] + got["store.missed"] + got["store.skipped"] + got["store.pending"]; in != out {
		t.Errorf("the books do not balance: in %d, out %d: %v", in, out, got)
	}
	if got["store.pending"] != 0 {
		t.Fatalf("%d messages were not written\n%s", got["store.pending"], r.log)
	}
	return got
}

// What needs databases, with one server of each kind for all of it.
func TestDatabases(t *testing.T) {
	all := backends(t)
	t.Run("Store", func(t *testing.T) { testStore(t, all) })
	t.Run("Poison", func(t *testing.T) { testPoison(t, all) })
	t.Run("WentBack", func(t *testing.T) { testWentBack(t, all) })
	t.Run("Another", func(t *testing.T) { testAnother(t, all) })
	t.Run("Interrupted", func(t *testing.T) { testInterrupted(t, all) })
	t.Run("PutBackTwice", func(t *testing.T) { testPutBackTwice(t, all) })
}

func testStore(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		t.Run(name, func(t *testing.T) {
			t.Run("OrderAndRestart", func(t *testing.T) { testOrder(t, make(t)) })
			t.Run("Refused", func(t *testing.T) { testRefused(t, make(t), name) })
			t.Run("LateTable", func(t *testing.T) { testLateTable(t, make(t), name) })
			t.Run("PositionAhead", func(t *testing.T) { testPositionAhead(t, make(t)) })
			t.Run("Users", func(t *testing.T) { testUsers(t, make(t)) })
			t.Run("Tables", func(t *testing.T) { testTables(t, make(t)) })
			t.Run("Logs", func(t *testing.T) { testLogs(t, make(t), name) })
		})
	}
}

func testOrder(t *testing.T, b backend) {
	b.create(t)
	dir := t.TempDir()
	const calls, each = 7, 300
	for run := range 2 {
		r := newRig(t, b.url, dir)
		for i := range each {
			for c := range calls {
				r.put(t, fmt.Sprintf("call-%d", c), fmt.Sprintf("%d %06d", c, run*each+i))
			}
		}
		if got := r.stop(t); got["store.rows"] != calls*each || got["store.written"] != calls*each {
			t.Errorf("run %d: %v", run, got)
		}
	}
	got := b.rows(t)
	if len(got) != 2*calls*each {
		t.Fatalf("got %d rows, want %d", len(got), 2*calls*each)
	}
	last := map[string]string{}
	for _, m := range got {
		call, _, _ := strings.Cut(m, " ")
		if m <= last[call] {
			t.Fatalf("%q after %q", m, last[call])
		}
		last[call] = m
	}
}

// Rows that the database refuses are set aside, one by one; all others arrive.
func testRefused(t *testing.T, b backend, name string) {
	switch name {
	case "sqlite":
		b.create(t, "CREATE TRIGGER refuse BEFORE INSERT ON sip_trace WHEN NEW.method = 'OPTIONS' AND NEW.callid = 'poison' BEGIN SELECT RAISE(ABORT, 'no poison'); END")
	default:
		b.create(t, "ALTER TABLE sip_trace ADD CONSTRAINT no_poison CHECK (callid <> 'poison')")
	}
	r := newRig(t, b.url, t.TempDir())
	var want []string
	for i := range 1000 {
		if i%137 == 5 {
			r.put(t, "poison", fmt.Sprintf("bad %d", i))
			continue
		}
		m := fmt.Sprintf("good %04d", i)
		want = append(want, m)
		r.put(t, "call", m)
	}
	got := r.stop(t)
	bad := uint64(1000 - len(want))
	if got["store.set_aside"] != bad || got["store.written"] != uint64(len(want)) {
		t.Errorf("set aside %d, written %d, want %d and %d", got["store.set_aside"], got["store.written"], bad, len(want))
	}
	if rows := b.rows(t); !slices.Equal(rows, want) {
		t.Errorf("got %d rows, want %d in order", len(rows), len(want))
	}
	text := r.rejected(t)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if uint64(len(lines)) != bad {
		t.Fatalf("%d lines in the reject file, want %d", len(lines), bad)
	}
	var line rejects.Line
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line.CallID != "poison" || line.Reason == "" || line.Table != "sip_trace" || !bytes.Contains(line.Packet, []byte("bad ")) {
		t.Errorf("got %+v", line)
	}
}

// A table that is made later is found; what came before is in it.
func testLateTable(t *testing.T, b backend, name string) {
	r := newRig(t, b.url, t.TempDir())
	r.put(t, "call", "first")
	if name != "sqlite" { // there the table is made
		servers.WaitFor(t, 10*time.Second, "a failed attempt", func() bool { return r.count.Snapshot()["store.retries"] > 0 })
		b.create(t)
	}
	r.put(t, "call", "second")
	r.stop(t)
	if got := b.rows(t); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("got %q", got)
	}
}

// Rows whose commit the spool never heard of are not written twice.
func testPositionAhead(t *testing.T, b backend) {
	b.create(t)
	before := t.TempDir()
	cfg := spool.DefaultConfig()
	cfg.Dir = before
	sp, err := spool.Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{spool: sp}
	for i := range 100 {
		r.put(t, fmt.Sprintf("call-%d", i), fmt.Sprintf("%03d", i))
	}
	if err := sp.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The copy is the spool as a crash would leave it: the rows are committed,
	// and it does not know.
	after := t.TempDir()
	if err := os.CopyFS(after, os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	newRig(t, b.url, before).stop(t)
	r = newRig(t, b.url, after)
	r.put(t, "last", "999")
	r.stop(t)
	got := b.rows(t)
	slices.Sort(got)
	if len(got) != 101 || len(slices.Compact(got)) != 101 {
		t.Errorf("got %d rows, want 101 different ones", len(got))
	}
}

// One row per traced user, in their order, and none for an empty list.
func testUsers(t *testing.T, b backend) {
	b.create(t)
	r := newRig(t, b.url, t.TempDir())
	end := siptrace.Endpoint{Proto: siptrace.UDP}
	for _, users := range [][][]byte{{{}, []byte("c"), []byte("a")}, {}, {[]byte("b")}, nil} {
		if err := r.spool.Put(&siptrace.Record{Time: time.Unix(1700000000, 0), CallID: []byte("x"), Msg: []byte("m"), From: end, To: end, Route: siptrace.Route{Sinks: siptrace.ToStore, Users: users}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.stop(t); got["store.rows"] != 5 || got["store.written"] != 4 {
		t.Errorf("rows %d of messages %d, want 5 of 4", got["store.rows"], got["store.written"])
	}
	var users []string
	rs, err := b.db.Query("SELECT traced_user FROM sip_trace ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	for rs.Next() {
		var u string
		if err := rs.Scan(&u); err != nil {
			t.Fatal(err)
		}
		users = append(users, u)
	}
	if !slices.Equal(users, []string{"", "c", "a", "b", ""}) {
		t.Errorf("got %q", users)
	}
}

// Rows go into the table that a rule named where there is one that can be filled,
// also when it goes away meanwhile; else into the configured one.
func testTables(t *testing.T, b backend) {
	d, _ := dbschema.DialectOf(b.url.Driver)
	var extra []string
	for _, name := range []string{"sip_trace_alt", "sip_trace_gone"} {
		texts, err := dbschema.Create(d, name, siptrace.DefaultColumns())
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			// PostgreSQL's indexes have names of their own; the version table is there.
			if strings.HasPrefix(text, "CREATE TABLE") && strings.Contains(text, name) {
				extra = append(extra, text)
			}
		}
	}
	b.create(t, append(extra, "CREATE TABLE sip_trace_wrong (id INTEGER, msg VARCHAR(10))")...)
	r := newRig(t, b.url, t.TempDir())
	put := func(table, msg string) {
		t.Helper()
		if err := r.spool.Put(&siptrace.Record{Time: time.Unix(1700000000, 0), CallID: []byte("x"), Msg: []byte(msg), Route: siptrace.Route{Sinks: siptrace.ToStore, Table: table}}); err != nil {
			t.Fatal(err)
		}
	}
	put("sip_trace_gone", "1")
	servers.WaitFor(t, 30*time.Second, "the first row", func() bool { return r.count.Snapshot()["store.rows"] == 1 })
	if _, err := b.db.Exec("DROP TABLE sip_trace_gone"); err != nil {
		t.Fatal(err)
	}
	for i, table := range []string{
		"sip_trace_gone", "sip_trace_alt", "", "sip_trace_none", "sip_trace_wrong", "version", "sip_trace",
		"x`; DROP TABLE sip_trace; --", `x"; DROP TABLE sip_trace; --`, "information_schema.tables", "sip_trace_alt", strings.Repeat("t", 3000), "\x00", "sip_trace_alt ",
	} {
		put(table, fmt.Sprint(i+2))
	}
	if got := r.stop(t); got["store.table_fallback"] < 10 || got["store.written"] != 15 || got["store.set_aside"] != 0 {
		t.Errorf("got %v\n%s", got, r.log)
	}
	want := map[string][]string{"sip_trace_alt": {"3", "12"}, "sip_trace": {"2", "4", "5", "6", "7", "8", "9", "10", "11", "13", "14", "15"}}
	for name, rows := range want {
		if got := b.rowsOf(t, name); !slices.Equal(got, rows) {
			t.Errorf("%s: got %q, want %q\n%s", name, got, rows, r.log)
		}
	}
	if n := strings.Count(r.log.String(), "can't be filled, its rows"); n > 10 {
		t.Errorf("said %d times", n)
	}
}
