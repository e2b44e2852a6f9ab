package servers

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver mysql
)

// User and Password open every database server started here.
const (
	User     = "siptraced"
	Password = "siptraced-pw"
)

// startTimeout is how long a server may take to answer; servers start within
// a second or two, but two of them on a busy machine may not.
const startTimeout = 90 * time.Second

// MariaDB is a running server. The zero value is of no use; see StartMariaDB.
type MariaDB struct {
	Port int // on 127.0.0.1

	dir  string
	args []string
	env  []string
	proc *Process
	log  string
}

type mariaDBConfig struct {
	sqlMode  *string
	charset  string
	fsync    bool
	extra    []string
	timezone string
}

// MariaDBOption changes how StartMariaDB starts the server.
type MariaDBOption func(*mariaDBConfig)

// WithSQLMode sets the server's sql_mode; "" is a server that is not strict.
// Without it MariaDB's own default holds, which is strict.
func WithSQLMode(mode string) MariaDBOption {
	return func(c *mariaDBConfig) { c.sqlMode = &mode }
}

// WithServerCharset sets the server's default character set, utf8mb4 if not given.
func WithServerCharset(charset string) MariaDBOption {
	return func(c *mariaDBConfig) { c.charset = charset }
}

// WithFsync keeps the commit as safe as a server in production has it. Without
// it a commit is written but not forced to the disk, which is much faster.
func WithFsync() MariaDBOption {
	return func(c *mariaDBConfig) { c.fsync = true }
}

// WithServerArgs adds arguments to mariadbd's command line.
func WithServerArgs(args ...string) MariaDBOption {
	return func(c *mariaDBConfig) { c.extra = append(c.extra, args...) }
}

// WithServerTimezone sets the server's TZ, which is the machine's otherwise.
func WithServerTimezone(tz string) MariaDBOption {
	return func(c *mariaDBConfig) { c.timezone = tz }
}

// StartMariaDB starts a MariaDB server with an empty data directory and waits
// until it answers. It ends with the test.
func StartMariaDB(tb testing.TB, opts ...MariaDBOption) *MariaDB {
	tb.Helper()
	cfg := mariaDBConfig{charset: "utf8mb4"}
	for _, o := range opts {
		o(&cfg)
	}
	m := &MariaDB{Port: FreePort(tb), dir: newDir(tb, "mariadb")}
	m.log = filepath.Join(m.dir, "mariadbd.log")
	data := filepath.Join(m.dir, "data")
	// Its own: a server that starts removes what others have left in a shared one.
	tmp := filepath.Join(m.dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		tb.Fatal(err)
	}
	common := []string{"--no-defaults", "--datadir=" + data, "--tmpdir=" + tmp, "--innodb-log-file-size=16M"}
	if os.Geteuid() == 0 {
		// A server of a test has no user of its own; root's files are root's.
		common = append(common, "--user=root")
	}
	installMariaDB(tb, data, tmp)
	initFile := filepath.Join(m.dir, "init.sql")
	// Runs at each start; so the account is there after a restart as well.
	sqlText := fmt.Sprintf("CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s';\nGRANT ALL PRIVILEGES ON *.* TO '%s'@'%%' WITH GRANT OPTION;\n",
		User, Password, User)
	if err := os.WriteFile(initFile, []byte(sqlText), 0o644); err != nil {
		tb.Fatal(err)
	}
	m.args = append(common,
		"--bind-address=127.0.0.1",
		"--port="+strconv.Itoa(m.Port),
		"--socket="+filepath.Join(m.dir, "s"),
		"--pid-file="+filepath.Join(m.dir, "pid"),
		"--log-error="+m.log,
		"--init-file="+initFile,
		"--skip-name-resolve",
		"--character-set-server="+cfg.charset,
		"--innodb-buffer-pool-size=64M",
		"--max-connections=200",
		"--performance-schema=OFF",
	)
	if cfg.sqlMode != nil {
		m.args = append(m.args, "--sql-mode="+*cfg.sqlMode)
	}
	if !cfg.fsync {
		m.args = append(m.args, "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0",
			"--innodb-flush-method=nosync", "--innodb-doublewrite=OFF")
	}
	m.args = append(m.args, cfg.extra...)
	if cfg.timezone != "" {
		m.env = []string{"TZ=" + cfg.timezone}
	}
	m.Start(tb)
	return m
}

// installMariaDB makes the data directory of a server without databases.
func installMariaDB(tb testing.TB, data, tmp string) {
	tb.Helper()
	newData(tb, "mariadb", data, func(dir string) {
		args := []string{
			"--no-defaults", "--datadir=" + dir, "--tmpdir=" + tmp, "--innodb-log-file-size=16M",
			"--skip-test-db", "--auth-root-authentication-method=normal",
		}
		if os.Geteuid() == 0 {
			args = append(args, "--user=root")
		}
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, find(tb, "mariadb-install-db"), args...).CombinedOutput()
		if err != nil {
			tb.Fatalf("servers: mariadb-install-db: %v\n%s", err, out)
		}
	})
}

// Start starts the server again after Stop or Kill, on the same port and with
// the same data.
func (m *MariaDB) Start(tb testing.TB) {
	tb.Helper()
	if m.proc != nil && m.proc.Running() {
		tb.Fatal("servers: mariadbd already runs")
	}
	m.proc = start(tb, command{name: "mariadbd", path: find(tb, "mariadbd"), args: m.args, dir: m.dir, env: m.env})
	dsn := m.DSN("")
	ready := waitFor(startTimeout, func() bool { return !m.proc.Running() || ping("mysql", dsn) })
	if !ready || !m.proc.Running() {
		b, _ := os.ReadFile(m.log)
		tb.Fatalf("servers: mariadbd does not answer on port %d (%s)\n%s\n%s", m.Port, m.proc.state(), tail(string(b), 40), m.proc.Tail(20))
	}
}

// Stop shuts the server down in order and waits until it is gone.
func (m *MariaDB) Stop(tb testing.TB) {
	tb.Helper()
	if !m.proc.end(syscall.SIGTERM, 60*time.Second) {
		tb.Log("servers: mariadbd did not stop when asked and was killed")
	}
}

// Kill ends the server as a crash would.
func (m *MariaDB) Kill() { m.proc.Kill() }

// Restart is Stop and Start.
func (m *MariaDB) Restart(tb testing.TB) {
	tb.Helper()
	m.Stop(tb)
	m.Start(tb)
}

// PID is the process id of the server.
func (m *MariaDB) PID() int { return m.proc.PID() }

// Addr is host:port of the server.
func (m *MariaDB) Addr() string { return "127.0.0.1:" + strconv.Itoa(m.Port) }

// DSN is a data source name for go-sql-driver/mysql: user and password over
// TCP, no parameters.
func (m *MariaDB) DSN(db string) string {
	return fmt.Sprintf("%s:%s@tcp(%s)/%s", User, Password, m.Addr(), db)
}

// URL is the database in the form of siptrace's db_url.
func (m *MariaDB) URL(db string) string {
	return fmt.Sprintf("mysql://%s:%s@%s/%s", User, Password, m.Addr(), db)
}

// Open opens a database; it is closed with the test.
func (m *MariaDB) Open(tb testing.TB, db string) *sql.DB {
	tb.Helper()
	return open(tb, "mysql", m.DSN(db)+"?multiStatements=true")
}

// CreateDatabase creates an empty database with that default character set,
// in place of one of that name. "" leaves the choice to the server.
func (m *MariaDB) CreateDatabase(tb testing.TB, name, charset string) {
	tb.Helper()
	db := m.Open(tb, "")
	defer db.Close()
	q := "CREATE OR REPLACE DATABASE `" + name + "`"
	if charset != "" {
		q += " CHARACTER SET " + charset
	}
	exec1(tb, db, q)
}

// LoadScript runs a file of SQL statements as the mysql client would.
func (m *MariaDB) LoadScript(tb testing.TB, db, file string) {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatalf("servers: %v", err)
	}
	d := m.Open(tb, db)
	defer d.Close()
	exec1(tb, d, string(b))
}

func exec1(tb testing.TB, db *sql.DB, q string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if _, err := db.ExecContext(ctx, q); err != nil {
		if len(q) > 200 {
			q = q[:200] + "..."
		}
		tb.Fatalf("servers: %s: %v", q, err)
	}
}

func open(tb testing.TB, driver, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		tb.Fatalf("servers: open %s: %v", driver, err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// ping reports whether a new connection is accepted and answers.
func ping(driver, dsn string) bool {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return false
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return db.PingContext(ctx) == nil
}
