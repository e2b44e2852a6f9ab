package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite"

	"siptraced/cmd/siptraced/internal/rawconn"
	"siptraced/cmd/siptraced/internal/statefile"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

const (
	dialTimeout = 5 * time.Second
	// ioTimeout bounds one statement: a server that does not answer for so long
	// is taken for dead.
	ioTimeout = 60 * time.Second
)

// session is one connection to the database and what was prepared on it.
type session struct {
	db      *sql.DB
	conn    *sql.Conn
	dialect dbschema.Dialect
	tables  map[string]*table
	move    *sql.Stmt // of the position
	cut     func()    // ends the connection, whatever it does; nil: nobody can
	file    string    // of SQLite
	opened  fs.FileInfo
}

// gone reports whether the file of the session was moved away or removed: what is
// written there nobody finds.
func (s *session) gone() bool {
	if s.opened == nil {
		return false
	}
	now, err := os.Stat(s.file)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(s.opened, now)
}

// dial opens one connection to the first of the hosts of cfg.URL, from the first-th
// on, that takes writes; it says which one that was.
func dial(ctx context.Context, cfg *Config, first int) (s *session, host int, err error) {
	u, connect := cfg.URL, cfg.Connect
	if connect == nil {
		connect = connector
	}
	dialect, ok := dbschema.DialectOf(u.Driver)
	if !ok {
		return nil, 0, fmt.Errorf("db_url: rows can't be written to %q yet: use mysql, postgres or sqlite", u.Driver)
	}
	n := max(1, len(u.Hosts))
	var errs []error
	for i := range n {
		host = (first + i) % n
		c, err := connect(u, host)
		if err != nil {
			return nil, 0, err
		}
		s, err := open(ctx, c, dialect, n > 1)
		if err == nil {
			return s, host, nil
		}
		if n > 1 {
			err = fmt.Errorf("%s: %w", u.Hosts[host], err)
		}
		errs = append(errs, err)
	}
	return nil, first, errors.Join(errs...)
}

func open(ctx context.Context, c driver.Connector, d dbschema.Dialect, several bool) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	s := &session{db: sql.OpenDB(c), dialect: d, tables: map[string]*table{}}
	if c, ok := c.(serverConnector); ok {
		s.cut = c.wire.cut
	}
	s.db.SetMaxOpenConns(1)
	var err error
	if s.conn, err = s.db.Conn(ctx); err != nil {
		s.close()
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the server does not answer: %w", err)
		}
		return nil, err
	}
	if c, ok := c.(sqliteConnector); ok {
		s.file = c.path
		if s.opened, err = os.Stat(c.path); err != nil {
			s.close()
			return nil, err
		}
	}
	if several {
		if err := s.writable(ctx); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *session) close() {
	if s.conn != nil {
		if s.move != nil {
			_ = s.move.Close()
		}
		_ = s.conn.Raw(func(any) error {
			for _, t := range s.tables {
				for _, stmt := range t.stmts {
					if stmt != nil {
						_ = stmt.Close()
					}
				}
			}
			return nil
		})
		_ = s.conn.Close()
	}
	_ = s.db.Close()
}

// writable tells a primary from its standby, and a Galera node that takes
// writes from one that does not.
func (s *session) writable(ctx context.Context) error {
	switch s.dialect {
	case dbschema.MySQL:
		if err := s.notIf(ctx, "SELECT @@GLOBAL.read_only <> 0", errReadOnly); err != nil {
			return err
		}
		// MySQL has no such table; a server without Galera no such row.
		err := s.notIf(ctx, "SELECT VARIABLE_VALUE <> 'ON' FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'WSREP_READY' AND @@GLOBAL.wsrep_on = 1", errNotReady)
		if errors.Is(err, errNotReady) {
			return err
		}
		// What another node committed has to be seen here before the position is
		// read (MariaDB documentation, wsrep_sync_wait).
		_, _ = s.conn.ExecContext(ctx, "SET SESSION wsrep_sync_wait = 1")
	case dbschema.PostgreSQL:
		return s.notIf(ctx, "SELECT pg_is_in_recovery()", errReadOnly)
	}
	return nil
}

var (
	errReadOnly = errors.New("the server takes no writes")
	errNotReady = errors.New("the Galera node is not ready")
)

// notIf returns the answer when the query says yes.
func (s *session) notIf(ctx context.Context, query string, answer error) error {
	var yes bool
	if err := s.conn.QueryRowContext(ctx, query).Scan(&yes); err != nil {
		return err
	}
	if yes {
		return answer
	}
	return nil
}

// bounded is the context of one statement, which ends with ctx, or when the server is
// taken for dead. The drivers watch a context that can end with a goroutine of its own,
// which they wake twice for each statement. So theirs can't: the connection ends with
// ctx, and has a bound for each answer itself (patient).
func (s *session) bounded(ctx context.Context) (statement context.Context, end func()) {
	if s.cut == nil || ctx.Err() != nil {
		return context.WithTimeout(ctx, ioTimeout)
	}
	stop := context.AfterFunc(ctx, s.cut)
	return context.WithoutCancel(ctx), func() { stop() }
}

func (s *session) exec(ctx context.Context, text string, args ...any) (sql.Result, error) {
	ctx, end := s.bounded(ctx)
	defer end()
	return s.conn.ExecContext(ctx, text, args...)
}

// begin opens a transaction. SQLite takes the write lock at once: two writers
// that both began with reading could not both go on.
func (s *session) begin(ctx context.Context) error {
	text := "BEGIN"
	if s.dialect == dbschema.SQLite {
		text = "BEGIN IMMEDIATE"
	}
	_, err := s.exec(ctx, text)
	return err
}

// connector makes what database/sql needs to reach one host.
func connector(u siptrace.DBURL, host int) (driver.Connector, error) {
	switch u.Driver {
	case siptrace.DriverMySQL:
		return mysqlConnector(u, host)
	case siptrace.DriverPostgres:
		return postgresConnector(u, host)
	default:
		return sqliteConnector{u.Database}, nil
	}
}

func mysqlConnector(u siptrace.DBURL, i int) (driver.Connector, error) {
	host, port, err := u.HostPort(u.Hosts[i])
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = 3306
	}
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = u.User, u.Password, u.Database
	c.Net, c.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	// As the C client does: localhost without a port is the local socket, where
	// there is one.
	if socket := mysqlSocket(); host == "localhost" && port == 3306 && socket != "" {
		c.Net, c.Addr = "unix", socket
	}
	w := &wire{}
	c.Timeout, c.DialFunc = dialTimeout, w.dial
	c.MaxAllowedPacket = 0 // ask the server
	c.Logger = &mysql.NopLogger{}
	// What the arguments of package dbschema are in, for every table.
	if err := c.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return nil, fmt.Errorf("db_url: %w", err)
	}
	// The position is fenced by counting the rows that matched.
	c.ClientFoundRows = true
	made, err := mysql.NewConnector(c)
	return serverConnector{made, w}, err
}

// serverConnector is a driver's, and the connection that it makes.
type serverConnector struct {
	driver.Connector
	wire *wire
}

// wire is the connection to a server, below the driver's.
type wire struct {
	mu   sync.Mutex // covers conn
	conn net.Conn   // the last one
}

// dial connects for a driver.
func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c = &patient{Conn: rawconn.Wrap(c)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = c
	return c, nil
}

// cut ends the connection.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		_ = w.conn.Close()
	}
}

// patient is a connection whose peer has ioTimeout for each answer, or less where the
// driver says so.
type patient struct {
	net.Conn

	mu  sync.Mutex // held while a deadline is set; covers own
	own time.Time  // the driver's; zero: none
}

func (c *patient) Read(b []byte) (int, error) {
	if err := c.bound(c.Conn.SetReadDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *patient) Write(b []byte) (int, error) {
	if err := c.bound(c.Conn.SetWriteDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *patient) bound(set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Now().Add(ioTimeout)
	if !c.own.IsZero() && c.own.Before(t) {
		t = c.own
	}
	return set(t)
}

// SetDeadline is what drivers set; they know no other one.
func (c *patient) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = t
	return c.Conn.SetDeadline(t)
}

func postgresConnector(u siptrace.DBURL, i int) (driver.Connector, error) {
	host, port, err := u.HostPort(u.Hosts[i])
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig("")
	if err != nil {
		return nil, fmt.Errorf("db_url: %w", err)
	}
	if port == 0 {
		port = 5432
	}
	c.Host, c.Port, c.User, c.Password, c.Database = host, uint16(port), u.User, u.Password, u.Database
	c.Fallbacks, c.TLSConfig = nil, nil
	w := &wire{}
	c.ConnectTimeout, c.DialFunc = dialTimeout, w.dial
	c.RuntimeParams["application_name"] = "siptraced"
	c.RuntimeParams["client_encoding"] = "UTF8"
	return serverConnector{stdlib.GetConnector(*c), w}, nil
}

// sqliteDSN asks for a write-ahead log, so that readers and the writer do not
// hold each other up, and for commits that a loss of power can't undo: what is
// committed leaves the spool.
func sqliteDSN(path string) string {
	// The path is part of a URI there.
	path = strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	if strings.HasPrefix(path, "/") {
		path = "//" + path // an authority that is empty
	}
	return "file:" + path + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
}

type sqliteConnector struct{ path string }

// Connect opens the file. SQLite would make one that everybody can read, and its
// own errors do not name it.
func (c sqliteConnector) Connect(context.Context) (driver.Conn, error) {
	// Where none can be made, SQLite may still be able to read one.
	if err := statefile.Make(c.path); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return nil, fmt.Errorf("database file: %w", err)
	}
	conn, err := c.Driver().Open(sqliteDSN(c.path))
	if err != nil {
		return nil, fmt.Errorf("database file %s: %w", c.path, err)
	}
	return conn, nil
}

func (c sqliteConnector) Driver() driver.Driver { return &sqlite.Driver{} }

// Database opens the first host that answers, for work on the schema.
func Database(ctx context.Context, u siptrace.DBURL) (*sql.DB, error) {
	s, _, err := dial(ctx, &Config{URL: u}, 0)
	if err != nil {
		return nil, err
	}
	if err := s.conn.Close(); err != nil {
		return nil, err
	}
	return s.db, nil
}
