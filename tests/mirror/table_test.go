package mirror

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"

	_ "modernc.org/sqlite" // the driver sqlite
)

// table is a table sip_trace of MariaDB or SQLite.
type table struct {
	url string // as db_url
	db  *sql.DB
	my  bool
}

// sqliteFile names a file that is not there yet; the daemon makes the table.
func sqliteFile(tb testing.TB, file string) *table {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return &table{url: "sqlite:///" + file, db: db}
}

// kamailioFile is a SQLite file with Kamailio's own tables.
func kamailioFile(tb testing.TB) *table {
	tb.Helper()
	t := sqliteFile(tb, filepath.Join(tb.TempDir(), "kamailio.db"))
	for _, script := range []string{"standard", "siptrace"} {
		b, err := os.ReadFile(filepath.Join("/usr/share/kamailio/db_sqlite", script+"-create.sql"))
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := t.db.ExecContext(context.Background(), string(b)); err != nil {
			tb.Fatal(err)
		}
	}
	return t
}

// mariaDB makes a database with Kamailio's own tables.
func mariaDB(tb testing.TB, m *servers.MariaDB, name string) *table {
	tb.Helper()
	m.CreateDatabase(tb, name, "utf8mb4")
	for _, script := range []string{"standard", "siptrace"} {
		m.LoadScript(tb, name, filepath.Join("/usr/share/kamailio/mysql", script+"-create.sql"))
	}
	return &table{url: m.URL(name), db: m.Open(tb, name), my: true}
}

// rows reads the table in the order of id.
func (t *table) rows(tb testing.TB) []vectors.Row {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cols := []string{"id", "CAST(time_stamp AS TEXT)", "time_us"}
	if t.my {
		cols[1] = "DATE_FORMAT(time_stamp, '%Y-%m-%d %H:%i:%s')"
	}
	for _, c := range vectors.Columns {
		if t.my {
			c = "CAST(" + c + " AS BINARY)"
		}
		cols = append(cols, c)
	}
	rs, err := t.db.QueryContext(ctx, "SELECT "+strings.Join(cols, ", ")+" FROM sip_trace ORDER BY id")
	if err != nil {
		tb.Fatal(err)
	}
	rows, err := vectors.ReadRows(rs)
	if err != nil {
		tb.Fatal(err)
	}
	return rows
}

// number reads one number, -1 if there is no answer.
func (t *table) number(query string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n := -1
	if err := t.db.QueryRowContext(ctx, query).Scan(&n); err != nil {
		return -1
	}
	return n
}

// hold keeps a SQLite file locked until the returned function is called.
func (t *table) hold(tb testing.TB) (release func()) {
	tb.Helper()
	ctx := context.Background()
	c, err := t.db.Conn(ctx)
	if err == nil {
		_, err = c.ExecContext(ctx, "BEGIN EXCLUSIVE")
	}
	if err != nil {
		tb.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		if _, err := c.ExecContext(ctx, "ROLLBACK"); err != nil {
			tb.Error(err)
		}
		_ = c.Close()
	})
	tb.Cleanup(release)
	return release
}

// await waits until the table has n rows.
func (t *table) await(tb testing.TB, n int) {
	tb.Helper()
	got := 0
	servers.WaitFor(tb, patience, fmt.Sprintf("%d rows", n), func() bool {
		got = t.number("SELECT COUNT(*) FROM sip_trace")
		return got >= n
	})
}

// fill reads a file of testdata and puts values in the place of @NAME@.
func fill(tb testing.TB, file string, values map[string]string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		tb.Fatal(err)
	}
	text := string(b)
	for k, v := range values {
		text = strings.ReplaceAll(text, "@"+k+"@", v)
	}
	return text
}

// logLines are the log lines that are kept beside the table, "callid: text".
func (t *table) logLines(tb testing.TB) []string {
	tb.Helper()
	rs, err := t.db.QueryContext(context.Background(), "SELECT callid, msg FROM siptraced_log ORDER BY id")
	if err != nil {
		tb.Fatal(err)
	}
	defer rs.Close()
	var list []string
	for rs.Next() {
		var callID, text string
		if err := rs.Scan(&callID, &text); err != nil {
			tb.Fatal(err)
		}
		list = append(list, callID+": "+text)
	}
	if err := rs.Err(); err != nil {
		tb.Fatal(err)
	}
	return list
}
