package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"modernc.org/sqlite"

	"siptraced/tests/servers"
)

// Kinds of databases.
const (
	mariaDB  = "mariadb"
	postgres = "postgres"
	sqliteDB = "sqlite"
)

// database is a server with an empty table sip_trace, or a SQLite file.
type database struct {
	b     *bench
	level int // of the section that it ends with
	kind  string
	pid   int // of the server; 0 is none
	m     *servers.MariaDB
	p     *servers.Postgres
	file  string
}

// name of the database on a server.
const dbName = "trace"

// scripts is where Debian's packages of Kamailio have its SQL scripts: the
// tables measured are those that an operator has.
const scripts = "/usr/share/kamailio"

// startDatabase starts a server, in the dimensions of a machine that does little
// else: a table larger than the buffer pool is possible, a redo log that is too
// small is not.
func (b *bench) startDatabase(kind string) *database {
	b.Helper()
	d := &database{b: b, kind: kind, level: b.setLevel(func(l int) int { return l })}
	switch kind {
	case mariaDB:
		opts := []servers.MariaDBOption{servers.WithServerArgs(
			"--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M", "--innodb-io-capacity=2000",
		)}
		if b.opt.fsync {
			opts = append(opts, servers.WithFsync())
		}
		d.m = servers.StartMariaDB(b, opts...)
	case postgres:
		d.p = servers.StartPostgres(b)
	default:
		d.file = filepath.Join(b.TempDir(), "trace", "trace.db")
	}
	d.fresh()
	return d
}

// fresh makes the table anew, empty.
func (d *database) fresh() {
	d.b.Helper()
	switch d.kind {
	case mariaDB:
		d.m.CreateDatabase(d.b, dbName, "utf8mb4")
		for _, s := range []string{"standard", "siptrace"} {
			d.m.LoadScript(d.b, dbName, filepath.Join(scripts, "mysql", s+"-create.sql"))
		}
	case postgres:
		d.p.CreateDatabase(d.b, dbName, "")
		for _, s := range []string{"standard", "siptrace"} {
			d.p.LoadScript(d.b, dbName, filepath.Join(scripts, "postgres", s+"-create.sql"))
		}
	default:
		if err := os.RemoveAll(filepath.Dir(d.file)); err != nil {
			d.b.Fatal(err)
		}
		d.b.newDir(filepath.Dir(d.file))
		db := d.open("")
		defer db.Close()
		for _, s := range []string{"standard", "siptrace"} {
			text, err := os.ReadFile(filepath.Join(scripts, "db_sqlite", s+"-create.sql"))
			if err == nil {
				_, err = db.Exec(string(text))
			}
			if err != nil {
				d.b.Fatalf("%s: %v", s, err)
			}
		}
	}
	d.pid = d.server()
}

// server is the process that the others of the server descend from.
func (d *database) server() int {
	switch d.kind {
	case mariaDB:
		return d.m.PID()
	case postgres:
		db := d.open("")
		defer db.Close()
		var file string
		if err := db.QueryRow("SELECT pg_read_file('postmaster.pid')").Scan(&file); err != nil {
			d.b.Fatal(err)
		}
		line, _, _ := strings.Cut(file, "\n")
		pid, err := strconv.Atoi(line)
		if err != nil {
			d.b.Fatal(err)
		}
		return pid
	}
	return 0
}

// down makes the database unreachable, and up brings it back as it was.
func (d *database) down() {
	d.b.Helper()
	switch d.kind {
	case mariaDB:
		d.m.Stop(d.b)
	case postgres:
		d.p.Stop(d.b)
	default:
		d.rename(filepath.Dir(d.file), filepath.Dir(d.file)+".away")
	}
}

func (d *database) up() {
	d.b.Helper()
	switch d.kind {
	case mariaDB:
		d.b.at(d.level, func() { d.m.Start(d.b) })
	case postgres:
		d.b.at(d.level, func() { d.p.Start(d.b) })
	default:
		d.rename(filepath.Dir(d.file)+".away", filepath.Dir(d.file))
	}
	d.pid = d.server()
}

func (d *database) rename(from, to string) {
	if err := os.Rename(from, to); err != nil {
		d.b.Fatal(err)
	}
}

// url is the database as siptraced's db_url.
func (d *database) url() string {
	switch d.kind {
	case mariaDB:
		return d.m.URL(dbName)
	case postgres:
		return d.p.URL(dbName)
	}
	return "sqlite:///" + d.file
}

// Pragmas of SQLite: what siptraced sets is what it is compared with.
const sqliteSafe = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"

// open opens the database; pragmas are for SQLite, sqliteSafe if empty.
func (d *database) open(pragmas string) *sql.DB {
	switch d.kind {
	case mariaDB:
		cfg, err := mysql.ParseDSN(d.m.DSN(dbName))
		if err != nil {
			d.b.Fatal(err)
		}
		c, err := mysql.NewConnector(cfg)
		if err != nil {
			d.b.Fatal(err)
		}
		return sql.OpenDB(c)
	case postgres:
		db, err := sql.Open("pgx", d.p.DSN(dbName))
		if err != nil {
			d.b.Fatal(err)
		}
		return db
	}
	if pragmas == "" {
		pragmas = sqliteSafe
	}
	return sql.OpenDB(sqliteFile("file:" + d.file + "?" + pragmas))
}

// sqliteFile is a driver.Connector; the driver's name is not registered twice.
type sqliteFile string

func (f sqliteFile) Connect(context.Context) (driver.Conn, error) { return f.Driver().Open(string(f)) }
func (f sqliteFile) Driver() driver.Driver                        { return &sqlite.Driver{} }

// newest is the largest id of the table, 0 if it is empty. It reads one entry
// of one index, whatever the size of the table.
func newest(ctx context.Context, db *sql.DB) (int64, error) {
	var id sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT MAX(id) FROM sip_trace").Scan(&id)
	return id.Int64, err
}

// count reads the whole table: for the end of a measurement.
func (d *database) count(db *sql.DB) int {
	d.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var n int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sip_trace").Scan(&n); err != nil {
		d.b.Fatalf("%s: %v", d.kind, err)
	}
	return n
}

// cpu is the server's CPU time so far; without a server 0.
func (d *database) cpu() float64 {
	if d.pid == 0 {
		return 0
	}
	s, err := usage{d.pid}.tree()
	if err != nil {
		d.b.Error(err)
	}
	return s
}

// watcher looks at the newest id again and again and notes when it changed.
type watcher struct {
	stop   context.CancelFunc
	done   chan struct{}
	notes  []note
	failed error
}

// note is one look: the newest id from that moment on.
type note struct {
	at time.Time
	id int64
}

// watch looks every so often, from now on until end is called. A database that
// does not answer is looked at again.
func watch(db *sql.DB, every time.Duration) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for last := int64(0); ; {
			id, err := newest(ctx, db)
			now := time.Now()
			w.failed = err
			if err == nil && id != last {
				last = id
				w.notes = append(w.notes, note{now, id})
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
		}
	}()
	return w
}

// end stops looking. The notes are in order; there are none if no row came.
func (w *watcher) end() ([]note, error) {
	w.stop()
	<-w.done
	if errors.Is(w.failed, context.Canceled) {
		w.failed = nil
	}
	return w.notes, w.failed
}
