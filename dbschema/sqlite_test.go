package dbschema

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver sqlite

	"siptraced/compat/siptrace"
)

func sqliteDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "trace.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// sqliteCatalog is all that SQLite says of the database.
func sqliteCatalog(t *testing.T, db *sql.DB) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(strings.Join(strings.Fields(dump(t, db, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")), " "))
	for _, q := range []string{
		"SELECT m.name AS of, x.* FROM sqlite_master m, pragma_table_xinfo(m.name) x WHERE m.type = 'table' ORDER BY m.name, cid",
		`SELECT m.name AS of, l.name, l."unique", l.origin, l.partial FROM sqlite_master m, pragma_index_list(m.name) l ORDER BY m.name, l.name`,
		"SELECT m.name AS of, x.* FROM sqlite_master m, pragma_index_xinfo(m.name) x WHERE m.type = 'index' ORDER BY m.name, seqno",
		"SELECT * FROM version",
	} {
		b.WriteString(dump(t, db, q))
	}
	return b.String()
}

func TestSQLiteCreate(t *testing.T) {
	kamailio, ours := sqliteDB(t), sqliteDB(t)
	for _, name := range []string{"standard", "siptrace"} {
		text, err := os.ReadFile(scripts + "db_sqlite/" + name + "-create.sql")
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, kamailio, string(text))
	}
	if _, err := Inspect(t.Context(), ours, SQLite, "sip_trace", siptrace.DefaultColumns()); !errors.Is(err, ErrNoTable) {
		t.Errorf("no table: got %v", err)
	}
	mustCreate(t, ours, SQLite, "sip_trace", siptrace.DefaultColumns())
	// The text of the definitions too, but for white space.
	got, want := strings.ReplaceAll(sqliteCatalog(t, ours), "( ", "("), strings.ReplaceAll(sqliteCatalog(t, kamailio), "( ", "(")
	got, want = strings.ReplaceAll(got, " )", ")"), strings.ReplaceAll(want, " )", ")")
	if got != want || !strings.Contains(want, "sip_trace_callid_idx") {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	for _, db := range []*sql.DB{kamailio, ours} {
		tab := mustInspect(t, db, SQLite, "sip_trace")
		if got := lines(tab.Check()); got != "" || tab.Form != FormV4 || tab.Version != 4 || tab.View || tab.JulianDay || len(tab.Columns) != 13 {
			t.Errorf("got %+v and problems:\n%s", tab, got)
		}
		insert(t, db, mustPlan(t, tab), record(), record())
		want := "id=1 time_stamp=2026-11-21 10:47:11 type=text time_us=447093 callid=a84b4c76e66710@pc33.example.org traced_user= method=INVITE status= " +
			"fromip=udp:192.0.2.7:5070 toip=tls:[2001:db8::1]:5061 fromtag=1928301774 totag= direction=in msg=INVITE sip:bob@example.org SIP/2.0\r\n\r\n msgtype=text \n"
		got := dump(t, db, "SELECT id, CAST(time_stamp AS TEXT) time_stamp, typeof(time_stamp) type, time_us, callid, traced_user, method, status, fromip, toip,"+
			" fromtag, totag, direction, msg, typeof(msg) msgtype FROM sip_trace ORDER BY id")
		if got != want+strings.Replace(want, "id=1", "id=2", 1) {
			t.Errorf("got %s\nwant twice %s", got, want)
		}
		if tab := mustInspect(t, db, SQLite, "SIP_TRACE"); tab.MaxID != 2 {
			t.Errorf("MaxID: got %d, want 2", tab.MaxID)
		}
	}
}

func TestSQLiteRenamed(t *testing.T) {
	db := sqliteDB(t)
	cols := siptrace.DefaultColumns()
	cols.CallID, cols.Msg, cols.FromIP, cols.Date = `call "id"`, "order", "Source", "current_time"
	for _, table := range []string{"sip_trace", `trace "2"`, "select"} {
		mustCreate(t, db, SQLite, table, cols)
		tab, err := Inspect(t.Context(), db, SQLite, table, cols)
		if err != nil {
			t.Fatal(err)
		}
		if got := lines(tab.Check()); got != "" || tab.Form != FormV4 {
			t.Errorf("%s: got form %v and problems:\n%s", table, tab.Form, got)
		}
		insert(t, db, mustPlan(t, tab), record())
		got := dump(t, db, `SELECT "call ""id""" a, "order" b, source c, CAST("current_time" AS TEXT) d FROM `+tab.name.quoted)
		want := "a=a84b4c76e66710@pc33.example.org b=INVITE sip:bob@example.org SIP/2.0\r\n\r\n c=udp:192.0.2.7:5070 d=2026-11-21 10:47:11 \n"
		if got != want {
			t.Errorf("%s: got %q, want %q", table, got, want)
		}
	}
}

func TestSQLiteCheck(t *testing.T) {
	tests := []struct {
		name  string
		spoil []string
		want  string
		left  string
	}{
		{
			name: "no version table", spoil: []string{"DROP TABLE version"},
			want: "error: version: the table version is missing, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "index and columns", spoil: []string{"DROP INDEX sip_trace_callid_idx", "ALTER TABLE sip_trace DROP COLUMN time_us", "ALTER TABLE sip_trace DROP COLUMN direction"},
			want: "note: sip_trace.time_us: the column is missing\nerror: sip_trace.direction: the column is missing\n" +
				"warning: sip_trace.callid: has no index: readers search by it\n",
			left: "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db := sqliteDB(t)
			mustCreate(t, db, SQLite, "sip_trace", siptrace.DefaultColumns())
			mustExec(t, db, tt.spoil...)
			tab := mustInspect(t, db, SQLite, "sip_trace")
			if got := lines(tab.Check()); got != tt.want {
				t.Errorf("got problems:\n%s\nwant\n%s", got, tt.want)
			}
			fix(t, db, tab)
			if got := lines(mustInspect(t, db, SQLite, "sip_trace").Check()); got != tt.left {
				t.Errorf("fixed: got problems:\n%s\nwant\n%s", got, tt.left)
			}
		})
	}
}

func TestSQLiteBytes(t *testing.T) {
	db := sqliteDB(t)
	mustCreate(t, db, SQLite, "sip_trace", siptrace.DefaultColumns())
	p := mustPlan(t, mustInspect(t, db, SQLite, "sip_trace"))
	long := strings.Repeat("é", 300)
	for _, tt := range []struct{ in, want string }{
		{"Grüße 中文 😀", "Grüße 中文 😀"},
		{"Gr\xfc\xdfe", "Grüße"},
		{"a\x00b", "a\x00b"},
		{long, long}, // SQLite does not hold to the width, and Kamailio does not cut
	} {
		rec := record()
		rec.Msg, rec.CallID = []byte(tt.in), []byte(tt.in)
		n := insert(t, db, p, rec)
		var msg, callID, types string
		row := db.QueryRow("SELECT msg, callid, typeof(msg) || typeof(callid) FROM sip_trace ORDER BY id DESC LIMIT 1")
		if err := row.Scan(&msg, &callID, &types); err != nil {
			t.Fatal(err)
		}
		if msg != tt.want || callID != tt.want || types != "texttext" || n.Cut != (Counts{}).Cut {
			t.Errorf("%q: got %q, %q of type %s, counts %+v", tt.in, msg, callID, types, n)
		}
	}
}

// A file that Kamailio's db_sqlite fills has Julian day numbers, which sort
// before any text: rows of both kinds in one column would put a reader's
// ORDER BY and WHERE out of order.
func TestSQLiteJulianDay(t *testing.T) {
	db := sqliteDB(t)
	mustCreate(t, db, SQLite, "sip_trace", siptrace.DefaultColumns())
	// What Kamailio 5.6.3 wrote at 2026-11-21 10:47:11 UTC, in New York.
	mustExec(t, db, "INSERT INTO sip_trace (time_stamp, msg) VALUES (2461365.9494270831, x'00')")
	tab := mustInspect(t, db, SQLite, "sip_trace")
	if !tab.JulianDay {
		t.Fatal("Julian days not seen")
	}
	insert(t, db, mustPlan(t, tab), record())
	got := dump(t, db, "SELECT typeof(time_stamp) type, printf('%.9f', time_stamp) t FROM sip_trace")
	if want := strings.Repeat("type=real t=2461365.949427083 \n", 2); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSQLiteView(t *testing.T) {
	db := sqliteDB(t)
	mustCreate(t, db, SQLite, "store", siptrace.DefaultColumns())
	mustExec(t, db, "CREATE VIEW sip_trace AS SELECT * FROM store",
		"CREATE TRIGGER keep INSTEAD OF INSERT ON sip_trace BEGIN INSERT INTO store (callid, msg) VALUES (NEW.callid, NEW.msg); END")
	tab := mustInspect(t, db, SQLite, "sip_trace")
	insert(t, db, mustPlan(t, tab), record())
	if got, want := dump(t, db, "SELECT callid FROM store"), "callid=a84b4c76e66710@pc33.example.org \n"; got != want || !tab.View {
		t.Errorf("got %q, want %q", got, want)
	}
}
