package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"

	_ "modernc.org/sqlite" // the driver sqlite
)

// scripts is where Debian's packages of Kamailio have the SQL scripts.
const scripts = "/usr/share/kamailio"

// database is one database of one server, or one SQLite file.
type database struct {
	kind    string // mariadb, postgres, sqlite
	url     string // as db_url
	storage vectors.Storage
	db      *sql.DB
}

// mariaDB makes an empty database; charset is utf8mb4 or latin1.
func mariaDB(tb testing.TB, m *servers.MariaDB, name, charset string) *database {
	tb.Helper()
	m.CreateDatabase(tb, name, charset)
	d := &database{kind: "mariadb", url: m.URL(name), storage: vectors.UTF8, db: m.Open(tb, name)}
	if charset == "latin1" {
		d.storage = vectors.Latin1
	}
	return d
}

// postgres makes an empty database with the encoding UTF8.
func postgres(tb testing.TB, p *servers.Postgres, name string) *database {
	tb.Helper()
	p.CreateDatabase(tb, name, "")
	return &database{kind: "postgres", url: p.URL(name), storage: vectors.Postgres, db: p.Open(tb, name)}
}

// sqliteFile names a file that is not there yet. For Kamailio, an absolute path
// has four slashes before it.
func sqliteFile(tb testing.TB, file string) *database {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return &database{kind: "sqlite", url: "sqlite:///" + file, storage: vectors.SQLite, db: db}
}

// script is the path of one of Kamailio's scripts for this kind of database.
func (d *database) script(name string) string {
	dir := map[string]string{"mariadb": "mysql", "postgres": "postgres", "sqlite": "db_sqlite"}[d.kind]
	return filepath.Join(scripts, dir, name+"-create.sql")
}

// createTable makes the tables version and sip_trace as Kamailio's own scripts
// do, with some columns under other names.
func (d *database) createTable(tb testing.TB, renamed map[string]string) {
	tb.Helper()
	for _, name := range []string{"standard", "siptrace"} {
		b, err := os.ReadFile(d.script(name))
		if err != nil {
			tb.Fatal(err)
		}
		text := string(b)
		for from, to := range renamed {
			// Definitions, and the columns of indexes.
			text = strings.NewReplacer(
				"`"+from+"`", "`"+to+"`",
				"    "+from+" ", "    "+to+" ",
				"("+from+")", "("+to+")",
			).Replace(text)
		}
		d.exec(tb, text)
	}
}

// exec runs statements, more than one at a time where they are text only.
func (d *database) exec(tb testing.TB, text string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, q := range statements(text) {
		if _, err := d.db.ExecContext(ctx, q); err != nil {
			tb.Fatalf("%s: %s: %v", d.kind, q, err)
		}
	}
}

// statements cuts a script at the semicolons that end lines, and leaves out
// lines that are comments.
func statements(text string) []string {
	var list []string
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "--") {
			continue
		}
		b.WriteString(line)
		if strings.HasSuffix(strings.TrimRight(line, " \r\n"), ";") {
			list = append(list, strings.TrimSpace(b.String()))
			b.Reset()
		}
	}
	if rest := strings.TrimSpace(b.String()); rest != "" {
		list = append(list, rest)
	}
	return list
}

// expression is how the bytes of a column are read, whatever the character set.
func (d *database) expression(column string) string {
	switch {
	case column == "time_stamp" && d.kind == "mariadb":
		return "DATE_FORMAT(time_stamp, '%Y-%m-%d %H:%i:%s')"
	case column == "time_stamp" && d.kind == "postgres":
		return "to_char(time_stamp, 'YYYY-MM-DD HH24:MI:SS')"
	case column == "time_stamp":
		// Kamailio writes a Julian day less half a second, and reads text as well.
		return "CASE typeof(time_stamp) WHEN 'real' THEN strftime('%Y-%m-%d %H:%M:%S', time_stamp + 0.5/86400) ELSE CAST(time_stamp AS TEXT) END"
	case column == "id" || column == "time_us":
		return column
	case d.kind == "mariadb":
		return "CAST(`" + column + "` AS BINARY)"
	default:
		return `"` + column + `"`
	}
}

// rows reads a table in the order of id; renamed says which columns have other
// names.
func (d *database) rows(tb testing.TB, table string, renamed map[string]string) []vectors.Row {
	tb.Helper()
	rows, err := d.tryRows(table, renamed)
	if err != nil {
		tb.Fatalf("%s: read %s: %v", d.kind, table, err)
	}
	return rows
}

func (d *database) tryRows(table string, renamed map[string]string) ([]vectors.Row, error) {
	cols := []string{d.expression("id"), d.expression("time_stamp"), d.expression("time_us")}
	for _, c := range vectors.Columns {
		if to, ok := renamed[c]; ok {
			c = to
		}
		cols = append(cols, d.expression(c))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rs, err := d.db.QueryContext(ctx, "SELECT "+strings.Join(cols, ", ")+" FROM "+table+" ORDER BY id")
	if err != nil {
		return nil, err
	}
	return vectors.ReadRows(rs)
}

// count is the number of rows, or -1 as long as there is no answer.
func (d *database) count(table string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n := -1
	if err := d.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil {
		return -1
	}
	return n
}

// await waits until the table has n rows.
func (d *database) await(tb testing.TB, run *daemon, table string, n int, timeout time.Duration) {
	tb.Helper()
	deadline := time.Now().Add(timeout)
	for {
		got := d.count(table)
		if got >= n {
			return
		}
		if !run.Running() {
			tb.Fatalf("%s: siptraced ended with %d of %d rows written\n%s", d.kind, got, n, run.Tail(30))
		}
		if time.Now().After(deadline) {
			tb.Errorf("%s: %d of %d rows after %v\n%s", d.kind, got, n, timeout, run.Tail(30))
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// databaseName makes a name for a database out of a test's name.
func databaseName(name string) string {
	return "t_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
}

// value reads one value.
func (d *database) value(tb testing.TB, query string, args ...any) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var v sql.NullString
	if err := d.db.QueryRowContext(ctx, query, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %s: %v", d.kind, query, err)
	}
	return v.String
}

// dump reads a whole result as text, one line per row: name=value of each
// column.
func (d *database) dump(tb testing.TB, query string, args ...any) []string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rs, err := d.db.QueryContext(ctx, query, args...)
	if err != nil {
		tb.Fatalf("%s: %s: %v", d.kind, query, err)
	}
	defer rs.Close()
	names, err := rs.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	var lines []string
	for rs.Next() {
		vals := make([]sql.NullString, len(names))
		dest := make([]any, len(names))
		for i := range vals {
			dest[i] = &vals[i]
		}
		if err := rs.Scan(dest...); err != nil {
			tb.Fatalf("%s: %s: %v", d.kind, query, err)
		}
		var b strings.Builder
		for i, n := range names {
			v := "NULL"
			if vals[i].Valid {
				v = fmt.Sprintf("%q", vals[i].String)
			}
			fmt.Fprintf(&b, "%s=%s ", strings.ToLower(n), v)
		}
		lines = append(lines, b.String())
	}
	if err := rs.Err(); err != nil {
		tb.Fatalf("%s: %s: %v", d.kind, query, err)
	}
	return lines
}
