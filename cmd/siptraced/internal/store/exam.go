package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"siptraced/dbschema"
)

// Exam finds out what a writer will find in a database. What it writes there is
// taken back.
type Exam struct {
	session *session
	cfg     Config
	host    int // in db_url
	// Host is the one of db_url that answered, "" where there is none; Server what it
	// says of itself.
	Host, Server string
}

// ErrNotTried says that something can't be tried without leaving a trace.
var ErrNotTried = errors.New("not tried")

// Examine logs in. An error is the database's, of every host.
func Examine(ctx context.Context, cfg Config) (*Exam, error) {
	s, host, err := dial(ctx, &cfg, 0)
	if err != nil {
		return nil, err
	}
	e := &Exam{session: s, cfg: cfg, host: host}
	if host < len(cfg.URL.Hosts) {
		e.Host = cfg.URL.Hosts[host]
	}
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	query := map[dbschema.Dialect]string{
		dbschema.MySQL: "SELECT VERSION()", dbschema.PostgreSQL: "SHOW server_version", dbschema.SQLite: "SELECT sqlite_version()",
	}[s.dialect]
	if err := s.conn.QueryRowContext(ctx, query).Scan(&e.Server); err != nil {
		s.close()
		return nil, err
	}
	return e, nil
}

// Close ends the session.
func (e *Exam) Close() { e.session.close() }

// Table looks at the table; the error may wrap [dbschema.ErrNoTable].
func (e *Exam) Table(ctx context.Context) (*dbschema.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	return dbschema.Inspect(ctx, e.session.conn, e.session.dialect, e.cfg.Table, e.cfg.Columns)
}

// Insert has the table take a row, which is taken back. The error may be ErrNotTried.
func (e *Exam) Insert(ctx context.Context, found *dbschema.Table) error {
	plan, err := dbschema.NewPlan(found)
	if err != nil {
		return err
	}
	if !plan.Undoes() {
		return fmt.Errorf("INSERT into %s: %w: a table of the engine %s keeps what is rolled back", e.cfg.Table, ErrNotTried, found.Engine)
	}
	encoder := plan.NewEncoder(e.cfg.Location)
	for _, rec := range probes(time.Now()) {
		if err = e.undone(ctx, statement{plan.Insert(1), encoder.AppendArgs(nil, rec, nil)}); err == nil {
			return nil
		}
	}
	return err
}

// Select reads from the table: not needed for writing, but for its readers.
func (e *Exam) Select(ctx context.Context, found *dbschema.Table) error {
	rows, err := e.session.conn.QueryContext(ctx, found.SelectMessages(), examName)
	if err != nil {
		return err
	}
	defer rows.Close()
	return rows.Err()
}

// IsRefused reports whether the server answered, and does not let the user in.
func IsRefused(err error) bool {
	if my := (*mysql.MySQLError)(nil); errors.As(err, &my) {
		return true
	}
	pg := (*pgconn.PgError)(nil)
	return errors.As(err, &pg)
}

// Beside is one of siptraced's own tables beside the configured one.
type Beside struct {
	Table   string
	Without string // what happens without it
	New     bool   // it is not there, and run makes it
	Err     error  // it can't be used; nil: it can
}

// Beside looks at siptraced's own tables: they have to be there, or the user has to
// be allowed to make them.
func (e *Exam) Beside(ctx context.Context) []Beside {
	position := Beside{Table: dbschema.PositionTable, Without: "the position can't be kept, after a crash rows may be written twice", Err: e.position(ctx)}
	log := Beside{Table: dbschema.LogTable, Without: "log lines (hlog) are not kept", Err: e.log(ctx)}
	list := []Beside{position, log}
	for i := range list {
		if !isMissing(list[i].Err) {
			continue
		}
		_, drop, err := e.Scratch(ctx)
		if err == nil {
			list[i].New, list[i].Err = true, drop(context.WithoutCancel(ctx))
		}
	}
	return list
}

// position does with the table of positions what a writer does.
func (e *Exam) position(ctx context.Context) error {
	text := dbschema.PositionSQL(e.session.dialect)
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	var n int64
	if err := e.session.conn.QueryRowContext(ctx, text.Select, examName).Scan(&n); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return e.undone(ctx, statement{text.Insert, []any{examName, int64(0)}}, statement{text.Update, []any{int64(1), examName, int64(0)}})
}

// log does with the table of log lines what a writer does.
func (e *Exam) log(ctx context.Context) error {
	text := dbschema.LogSQL(e.session.dialect)
	if _, err := e.session.exec(ctx, text.Probe); err != nil {
		return err
	}
	line := dbschema.Log{Time: time.Now(), Text: []byte("probe"), Source: "127.0.0.1:5060"}
	return e.undone(ctx, statement{text.Insert, dbschema.AppendLogArgs(nil, e.session.dialect, line, e.cfg.Location)})
}

// examName begins the names of what an Exam makes.
const examName = "siptraced_check"

// statement is SQL text with its arguments.
type statement struct {
	text string
	args []any
}

// undone executes statements in a transaction that is rolled back.
func (e *Exam) undone(ctx context.Context, list ...statement) (err error) {
	if err := e.session.begin(ctx); err != nil {
		return err
	}
	for _, st := range list {
		if _, err = e.session.exec(ctx, st.text, st.args...); err != nil {
			break
		}
	}
	_, rollback := e.session.exec(context.WithoutCancel(ctx), "ROLLBACK")
	return errors.Join(err, rollback)
}

// Scratch makes a table with the columns of the configured one, of a name that there
// is only once; drop removes it. The error wraps ErrNotTried where the user may not
// make tables, or not remove them again.
func (e *Exam) Scratch(ctx context.Context) (name string, drop func(context.Context) error, err error) {
	name = fmt.Sprintf("%s_%08x", examName, rand.Uint32())
	create, remove, err := dbschema.Scratch(e.session.dialect, name, e.cfg.Columns)
	if err != nil {
		return "", nil, err
	}
	if e.session.dialect == dbschema.MySQL {
		// Another right than CREATE there; without it the table would stay.
		if _, err := e.session.exec(ctx, remove); isDenied(err) {
			return "", nil, fmt.Errorf("%w: %w", ErrNotTried, err)
		}
	}
	// Whoever goes away before the answer does not know whether there is a table to
	// remove.
	if _, err := e.session.exec(context.WithoutCancel(ctx), create); err != nil {
		if isDenied(err) {
			err = fmt.Errorf("%w: %w", ErrNotTried, err)
		}
		return "", nil, err
	}
	return name, func(ctx context.Context) error {
		if _, err := e.session.exec(ctx, remove); err == nil {
			return nil
		}
		// A statement that was given up has cost the session.
		s, _, err := dial(ctx, &e.cfg, e.host)
		if err != nil {
			return err
		}
		defer s.close()
		_, err = s.exec(ctx, remove)
		return err
	}, nil
}

// Messages are the SIP messages that a table has of a call.
func (e *Exam) Messages(ctx context.Context, table, callID string) (list []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	found, err := dbschema.Inspect(ctx, e.session.conn, e.session.dialect, table, e.cfg.Columns)
	if err != nil {
		return nil, err
	}
	rows, err := e.session.conn.QueryContext(ctx, found.SelectMessages(), callID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}
