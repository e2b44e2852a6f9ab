package servers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
)

// Postgres is a running PostgreSQL server. The zero value is of no use; see
// StartPostgres.
type Postgres struct {
	Port int // on 127.0.0.1

	dir  string
	bin  string
	cred *syscall.Credential
	proc *Process
}

// StartPostgres starts a PostgreSQL server with an empty cluster (UTF8, locale
// C) and waits until it answers. It ends with the test. PostgreSQL refuses to
// run as root: then it runs as the user postgres that its package made.
func StartPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	p := &Postgres{Port: FreePort(tb), dir: newDir(tb, "postgres"), bin: postgresBin(tb)}
	data := filepath.Join(p.dir, "data")
	if os.Geteuid() == 0 {
		p.cred = credential(tb, "postgres")
		chown(tb, p.dir, p.cred)
	}
	pw := filepath.Join(p.dir, "pw")
	if err := os.WriteFile(pw, []byte(Password+"\n"), 0o644); err != nil {
		tb.Fatal(err)
	}
	newData(tb, "postgres", data, func(dir string) {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "-D", dir, "-U", User, "--pwfile="+pw,
			"-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
		cmd.Dir = p.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
		if out, err := cmd.CombinedOutput(); err != nil {
			tb.Fatalf("servers: initdb: %v\n%s", err, out)
		}
	})
	p.Start(tb)
	return p
}

// Start starts the server again after Stop or Kill, on the same port and with
// the same data.
func (p *Postgres) Start(tb testing.TB) {
	tb.Helper()
	if p.proc != nil && p.proc.Running() {
		tb.Fatal("servers: postgres already runs")
	}
	p.proc = start(tb, command{
		name: "postgres", path: filepath.Join(p.bin, "postgres"), dir: p.dir, cred: p.cred,
		args: []string{
			"-D", filepath.Join(p.dir, "data"), "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port), "-k", "",
			"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=100",
		},
	})
	dsn := p.DSN("postgres")
	ready := waitFor(startTimeout, func() bool { return !p.proc.Running() || ping("pgx", dsn) })
	if !ready || !p.proc.Running() {
		tb.Fatalf("servers: postgres does not answer on port %d (%s)\n%s", p.Port, p.proc.state(), p.proc.Tail(40))
	}
}

// Stop shuts the server down in order, ending the connections it has, and
// waits until it is gone.
func (p *Postgres) Stop(tb testing.TB) {
	tb.Helper()
	// SIGINT is PostgreSQL's "fast" shutdown; SIGTERM would wait for its clients.
	if !p.proc.end(syscall.SIGINT, 60*time.Second) {
		tb.Log("servers: postgres did not stop when asked and was killed")
	}
}

// Kill ends the server as a crash would.
func (p *Postgres) Kill() { p.proc.Kill() }

// Restart is Stop and Start.
func (p *Postgres) Restart(tb testing.TB) {
	tb.Helper()
	p.Stop(tb)
	p.Start(tb)
}

// Addr is host:port of the server.
func (p *Postgres) Addr() string { return "127.0.0.1:" + strconv.Itoa(p.Port) }

// DSN is a connection URL for jackc/pgx.
func (p *Postgres) DSN(db string) string {
	return p.URL(db) + "?sslmode=disable"
}

// URL is the database in the form of siptrace's db_url.
func (p *Postgres) URL(db string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s", User, Password, p.Addr(), db)
}

// Open opens a database; it is closed with the test.
func (p *Postgres) Open(tb testing.TB, db string) *sql.DB {
	tb.Helper()
	return open(tb, "pgx", p.DSN(db))
}

// CreateDatabase creates an empty database with that encoding (UTF8, LATIN1,
// SQL_ASCII, ...), in place of one of that name. "" is UTF8.
func (p *Postgres) CreateDatabase(tb testing.TB, name, encoding string) {
	tb.Helper()
	if encoding == "" {
		encoding = "UTF8"
	}
	db := p.Open(tb, "postgres")
	defer db.Close()
	exec1(tb, db, `DROP DATABASE IF EXISTS "`+name+`"`)
	exec1(tb, db, fmt.Sprintf(`CREATE DATABASE "%s" ENCODING '%s' TEMPLATE template0`, name, encoding))
}

// LoadScript runs a file of SQL statements as psql would.
func (p *Postgres) LoadScript(tb testing.TB, db, file string) {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatalf("servers: %v", err)
	}
	// Only the simple protocol takes more than one statement at a time.
	d := open(tb, "pgx", p.DSN(db)+"&default_query_exec_mode=simple_protocol")
	defer d.Close()
	exec1(tb, d, string(b))
}

// postgresBin finds the newest server where Debian puts it, which is not on PATH.
func postgresBin(tb testing.TB) string {
	tb.Helper()
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(dirs) == 0 {
		return filepath.Dir(find(tb, "postgres"))
	}
	return filepath.Dir(slices.MaxFunc(dirs, func(a, b string) int { return version(a) - version(b) }))
}

func version(path string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	if err != nil {
		return 0
	}
	return n
}

func credential(tb testing.TB, name string) *syscall.Credential {
	tb.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		tb.Fatalf("servers: %v", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		tb.Fatalf("servers: user %s has uid %q, gid %q", name, u.Uid, u.Gid)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// chown gives a directory and what is in it to a user.
func chown(tb testing.TB, dir string, c *syscall.Credential) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(c.Uid), int(c.Gid)))
	})
	if err != nil {
		tb.Fatalf("servers: %v", err)
	}
}
