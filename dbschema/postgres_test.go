package dbschema

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx

	"siptraced/compat/siptrace"
	"siptraced/tests/servers"
)

// postgresDB makes an empty database and opens it as a writer should.
func postgresDB(t *testing.T, srv *servers.Postgres, name, encoding string) *sql.DB {
	t.Helper()
	srv.CreateDatabase(t, name, encoding)
	db, err := sql.Open("pgx", srv.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestPostgres(t *testing.T) {
	srv := servers.StartPostgres(t)
	for name, test := range map[string]func(*testing.T, *servers.Postgres){
		"create":    testPostgresCreate,
		"renamed":   testPostgresRenamed,
		"check":     testPostgresCheck,
		"view":      testPostgresView,
		"bytes":     testPostgresBytes,
		"encodings": testPostgresEncodings,
		"modes":     testPostgresModes,
		"private":   testPostgresPrivileges,
	} {
		t.Run(name, func(t *testing.T) { test(t, srv) })
	}
}

// postgresCatalog is all that the catalog says of the current database's tables.
func postgresCatalog(t *testing.T, db *sql.DB) string {
	t.Helper()
	var b strings.Builder
	for _, q := range []string{
		"SELECT * FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name",
		"SELECT * FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
		"SELECT * FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname",
		"SELECT c.relname, i.indnatts, i.indisunique, i.indisprimary, i.indkey, i.indclass, i.indcollation, i.indoption FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid" +
			" WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1",
		"SELECT conrelid::regclass, conname, contype, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
		"SELECT * FROM pg_sequences WHERE schemaname = 'public' ORDER BY sequencename",
		"SELECT relname, relkind, relpersistence, relchecks, relnatts, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
		"SELECT attrelid::regclass, attname, atttypid::regtype, atttypmod, attnum, attnotnull, atthasdef, attstorage, attcollation FROM pg_attribute" +
			" WHERE attrelid IN ('sip_trace'::regclass, 'version'::regclass) ORDER BY 1, attnum",
		"SELECT id, table_name, table_version FROM version ORDER BY id",
	} {
		b.WriteString(dump(t, db, q))
	}
	return strings.NewReplacer("catalog=script", "catalog=", "catalog=ours", "catalog=").Replace(b.String())
}

func testPostgresCreate(t *testing.T, srv *servers.Postgres) {
	kamailio, ours := postgresDB(t, srv, "script", ""), postgresDB(t, srv, "ours", "")
	srv.LoadScript(t, "script", scripts+"postgres/standard-create.sql")
	srv.LoadScript(t, "script", scripts+"postgres/siptrace-create.sql")
	if _, err := Inspect(t.Context(), ours, PostgreSQL, "sip_trace", siptrace.DefaultColumns()); !errors.Is(err, ErrNoTable) {
		t.Errorf("no table: got %v", err)
	}
	mustCreate(t, ours, PostgreSQL, "sip_trace", siptrace.DefaultColumns())
	if got, want := postgresCatalog(t, ours), postgresCatalog(t, kamailio); got != want || strings.Count(want, "\n") < 60 {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	for _, db := range []*sql.DB{kamailio, ours} {
		tab := mustInspect(t, db, PostgreSQL, "sip_trace")
		if got := lines(tab.Check()); got != "" || tab.Form != FormV4 || tab.Version != 4 || tab.View || tab.Encoding != "UTF8" || len(tab.Columns) != 13 {
			t.Errorf("got %+v and problems:\n%s", tab, got)
		}
		if c := tab.Column(fieldFromIP); c.Width != 64 || c.Nullable || c.Definition != "character varying(64)" {
			t.Errorf("got %+v", c)
		}
		insert(t, db, mustPlan(t, tab), record(), record())
		want := "id=1 time_stamp=2026-11-21 10:47:11 time_us=447093 callid=a84b4c76e66710@pc33.example.org traced_user= method=INVITE status= " +
			"fromip=udp:192.0.2.7:5070 toip=tls:[2001:db8::1]:5061 fromtag=1928301774 totag= direction=in msg=INVITE sip:bob@example.org SIP/2.0\r\n\r\n \n"
		got := dump(t, db, "SELECT id, time_stamp::text, time_us, callid, traced_user, method, status, fromip, toip, fromtag, totag, direction, msg FROM sip_trace ORDER BY id")
		if got != want+strings.Replace(want, "id=1", "id=2", 1) {
			t.Errorf("got %s\nwant twice %s", got, want)
		}
		if tab := mustInspect(t, db, PostgreSQL, "sip_trace"); tab.MaxID != 2 {
			t.Errorf("MaxID: got %d, want 2", tab.MaxID)
		}
	}
}

func testPostgresRenamed(t *testing.T, srv *servers.Postgres) {
	db := postgresDB(t, srv, "renamed", "")
	cols := siptrace.DefaultColumns()
	cols.CallID, cols.Msg, cols.FromIP, cols.Date = `call "id"`, "order", "Source", "date"
	mustExec(t, db, "CREATE SCHEMA homer")
	for _, table := range []string{"sip_trace", `trace "2"`, "SIP_Trace3", "homer.sip_trace"} {
		mustCreate(t, db, PostgreSQL, table, cols)
		tab, err := Inspect(t.Context(), db, PostgreSQL, table, cols)
		if err != nil {
			t.Fatal(err)
		}
		if got := lines(tab.Check()); got != "" || tab.Form != FormV4 {
			t.Errorf("%s: got form %v and problems:\n%s", table, tab.Form, got)
		}
		insert(t, db, mustPlan(t, tab), record())
		got := dump(t, db, `SELECT "call ""id""" a, "order" b, source c, date::text d FROM `+tab.name.quoted)
		want := "a=a84b4c76e66710@pc33.example.org b=INVITE sip:bob@example.org SIP/2.0\r\n\r\n c=udp:192.0.2.7:5070 d=2026-11-21 10:47:11 \n"
		if got != want {
			t.Errorf("%s: got %q, want %q", table, got, want)
		}
	}
}

func testPostgresCheck(t *testing.T, srv *servers.Postgres) {
	tests := []struct {
		name  string
		spoil []string
		want  string
	}{
		{name: "nothing"},
		{
			name: "no version table", spoil: []string{"DROP TABLE version"},
			want: "error: version: the table version is missing, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "version", spoil: []string{"UPDATE version SET table_version = 3"},
			want: "error: version: sip_trace has version 3, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "columns", spoil: []string{"ALTER TABLE sip_trace DROP COLUMN direction, DROP COLUMN totag"},
			want: "note: sip_trace.totag: the column is missing\nerror: sip_trace.direction: the column is missing\n",
		},
		{
			name: "index", spoil: []string{"DROP INDEX sip_trace_callid_idx"},
			want: "warning: sip_trace.callid: has no index: readers search by it\n",
		},
		{
			name: "narrow", spoil: []string{"ALTER TABLE sip_trace ALTER COLUMN fromip TYPE VARCHAR(50), ALTER COLUMN msg TYPE VARCHAR(65535)"},
			want: "warning: sip_trace.msg: has room for 65535 bytes, not 16777215: longer values are cut\n" +
				"warning: sip_trace.fromip: has room for 50 characters, not 64: longer values are cut\n",
		},
		{
			name: "id", spoil: []string{"INSERT INTO sip_trace (id, msg) VALUES (2147483647, '')", "SELECT setval('sip_trace_id_seq', 2147483647)"},
			want: "error: sip_trace.id: the largest id is 2147483647, and integer ends at 2147483647: no row can be written then\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db := postgresDB(t, srv, "spoilt", "")
			mustCreate(t, db, PostgreSQL, "sip_trace", siptrace.DefaultColumns())
			whole := postgresCatalog(t, db)
			mustExec(t, db, tt.spoil...)
			tab := mustInspect(t, db, PostgreSQL, "sip_trace")
			if got := lines(tab.Check()); got != tt.want {
				t.Errorf("got problems:\n%s\nwant\n%s", got, tt.want)
			}
			fix(t, db, tab)
			tab = mustInspect(t, db, PostgreSQL, "sip_trace")
			if got := lines(tab.Check()); got != "" {
				t.Errorf("fixed: got problems:\n%s", got)
			}
			if tt.name == "index" {
				if got := postgresCatalog(t, db); got != whole {
					t.Errorf("fixed:\n got %s\nwant %s", got, whole)
				}
			}
			insert(t, db, mustPlan(t, tab), record())
		})
	}
}

func testPostgresView(t *testing.T, srv *servers.Postgres) {
	db := postgresDB(t, srv, "views", "")
	mustCreate(t, db, PostgreSQL, "store", siptrace.DefaultColumns())
	mustExec(t, db, "CREATE VIEW sip_trace AS SELECT * FROM store", "UPDATE version SET table_name = 'sip_trace' WHERE table_name = 'store'")
	tab := mustInspect(t, db, PostgreSQL, "sip_trace")
	insert(t, db, mustPlan(t, tab), record())
	if got, want := dump(t, db, "SELECT id, callid FROM store"), "id=1 callid=a84b4c76e66710@pc33.example.org \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := "note: sip_trace: is a view: rows can be written only as far as the database can trace them to one table\n"
	if got := lines(tab.Check()); !tab.View || got != want {
		t.Errorf("got problems:\n%s\nwant\n%s", got, want)
	}
}

// Every byte, in a value that is not UTF-8 and in one that is but for NUL.
func testPostgresBytes(t *testing.T, srv *servers.Postgres) {
	all := make([]byte, 256)
	text := []rune{0x2400}
	for i := range all {
		all[i] = byte(i)
		if i > 0 {
			text = append(text, rune(i))
		}
	}
	db := postgresDB(t, srv, "bytes", "UTF8")
	for _, table := range []string{"sip_trace", "raw"} {
		mustCreate(t, db, PostgreSQL, table, siptrace.DefaultColumns())
	}
	mustExec(t, db, "ALTER TABLE raw ALTER COLUMN msg TYPE BYTEA USING ''")
	rec := record()
	rec.Msg, rec.CallID = all, []byte("Grüße\x00中文😀")
	n := insert(t, db, mustPlan(t, mustInspect(t, db, PostgreSQL, "sip_trace")), rec)
	var msg, callID string
	if err := db.QueryRow("SELECT msg, callid FROM sip_trace").Scan(&msg, &callID); err != nil {
		t.Fatal(err)
	}
	if msg != string(text) || callID != "Grüße␀中文😀" {
		t.Errorf("got %q and %q", msg, callID)
	}
	if n.Bytewise[fieldMsg] != 1 || n.NUL[fieldMsg] != 1 || n.Bytewise[fieldCallID] != 0 || n.NUL[fieldCallID] != 1 {
		t.Errorf("got counts %+v", n)
	}
	for _, want := range [][]byte{all, {}} {
		rec.Msg = want
		insert(t, db, mustPlan(t, mustInspect(t, db, PostgreSQL, "raw")), rec)
		var got []byte
		if err := db.QueryRow("SELECT msg FROM raw ORDER BY id DESC LIMIT 1").Scan(&got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("bytea: got %q, %v, want %q", got, err, want)
		}
	}
}

// Databases that are not UTF8, through a connection that is.
func testPostgresEncodings(t *testing.T, srv *servers.Postgres) {
	all := make([]byte, 255) // but NUL
	var latin1 []rune
	for i := range all {
		all[i] = byte(i + 1)
		latin1 = append(latin1, rune(i+1))
	}
	with := func(holes ...byte) []byte {
		b := bytes.Clone(all)
		for _, h := range holes {
			b[h-1] = '?'
		}
		return b
	}
	for _, tt := range []struct {
		encoding string
		bytes    []byte // what the bytes 1 to 255 become
		text     string
		want     string // what text becomes
	}{
		{"SQL_ASCII", []byte(string(latin1)), "Grüße\x00😀", "Grüße␀😀"},
		{"LATIN1", all, "Grüße\x00", "Gr\xfc\xdfe?"},
		{"LATIN1", all, "中\x00", "中?"},
		{"LATIN2", all, "Łódź", "\xa3\xf3d\xbc"},
		{"KOI8R", all, "Привет", "\xf0\xd2\xc9\xd7\xc5\xd4"},
		{"WIN1251", with(0x98), "Привет", "\xcf\xf0\xe8\xe2\xe5\xf2"},
		{"WIN1252", with(0x81, 0x8d, 0x8f, 0x90, 0x9d), "€", "\x80"},
		{"EUC_JP", append(all[:127:127], bytes.Repeat([]byte{'?'}, 128)...), "ab日本\x00", "ab???????"},
	} {
		t.Run(tt.encoding, func(t *testing.T) {
			db := postgresDB(t, srv, "enc", tt.encoding)
			mustCreate(t, db, PostgreSQL, "sip_trace", siptrace.DefaultColumns())
			tab := mustInspect(t, db, PostgreSQL, "sip_trace")
			p := mustPlan(t, tab)
			as, err := sql.Open("pgx", srv.DSN("enc")+"&client_encoding=UTF8")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = as.Close() })
			rec := record()
			rec.Msg, rec.CallID, rec.FromTag = all, []byte(tt.text), bytes.Repeat([]byte("ü"), 200)
			n := insert(t, as, p, rec)
			var msg, callID, tag []byte
			row := db.QueryRow("SELECT convert_to(msg, $1), convert_to(callid, $1), convert_to(fromtag, $1) FROM sip_trace", tt.encoding)
			if err := row.Scan(&msg, &callID, &tag); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(msg, tt.bytes) || string(callID) != tt.want || len(tag) != 128 {
				t.Errorf("got %q, %q, %d bytes\nwant %q, %q, 128 bytes", msg, callID, len(tag), tt.bytes, tt.want)
			}
			if n.Cut[fieldFromTag] != 1 || n.Bytewise[fieldMsg] != 1 || n.NUL[fieldCallID] != uint64(strings.Count(tt.text, "\x00")) {
				t.Errorf("got counts %+v", n)
			}
			if got := lines(tab.Check()); !strings.HasPrefix(got, fmt.Sprintf("note: sip_trace: the database has the encoding %s, not UTF8: ", tt.encoding)) {
				t.Errorf("got problems:\n%s", got)
			}
		})
	}
}

// A user that may only add rows.
func testPostgresPrivileges(t *testing.T, srv *servers.Postgres) {
	db := postgresDB(t, srv, "private", "")
	mustCreate(t, db, PostgreSQL, "sip_trace", siptrace.DefaultColumns())
	insert(t, db, mustPlan(t, mustInspect(t, db, PostgreSQL, "sip_trace")), record())
	mustExec(t, db, "CREATE ROLE adder LOGIN PASSWORD 'pw'", "GRANT INSERT ON sip_trace TO adder", "GRANT USAGE ON sip_trace_id_seq TO adder")
	as, err := sql.Open("pgx", fmt.Sprintf("postgres://adder:pw@%s/private?sslmode=disable", srv.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = as.Close() })
	tx, err := as.Begin() // an error would end it
	if err != nil {
		t.Fatal(err)
	}
	tab, err := Inspect(t.Context(), tx, PostgreSQL, "sip_trace", siptrace.DefaultColumns())
	if err != nil || tab.Form != FormV4 || tab.MaxID != 0 || tab.Version != 0 {
		t.Fatalf("got %+v, %v", tab, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	insert(t, as, mustPlan(t, tab), record())
}

// The ways of the driver to send a statement; a pooler needs the last two.
func testPostgresModes(t *testing.T, srv *servers.Postgres) {
	db := postgresDB(t, srv, "modes", "")
	mustCreate(t, db, PostgreSQL, "sip_trace", siptrace.DefaultColumns())
	p := mustPlan(t, mustInspect(t, db, PostgreSQL, "sip_trace"))
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		as, err := sql.Open("pgx", srv.DSN("modes")+"&default_query_exec_mode="+mode)
		if err != nil {
			t.Fatal(err)
		}
		insert(t, as, p, record(), record())
		_ = as.Close()
	}
	if got, want := dump(t, db, "SELECT COUNT(*), MIN(time_stamp)::text, MAX(time_us) FROM sip_trace"), "count=10 min=2026-11-21 10:47:11 max=447093 \n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
