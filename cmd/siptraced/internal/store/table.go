package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/stdlib"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

// sizes are the rows of the statements that are prepared, the largest first:
// whatever number of rows there is, few statements make it. A server is asked
// over a connection, and takes long statements best; SQLite is called in this
// process, and the cost of a row there grows with its statement. 200 rows of
// usual messages stay under the 256 KiB to which the MySQL driver keeps its
// buffer between statements.
var (
	sizes       = [...]int{200, 100, 50, 25, 12, 6, 3, 1}
	sqliteSizes = [...]int{1}
)

func (s *session) sizes() []int {
	if s.dialect == dbschema.SQLite {
		return sqliteSizes[:]
	}
	return sizes[:]
}

// table is one table on one connection: how its rows are written, the
// statements prepared for it, and the rows of the transaction in hand.
type table struct {
	name    string
	plan    *dbschema.Plan
	encoder *dbschema.Encoder
	stmts   [len(sizes)]driver.Stmt
	width   int // arguments of a row

	args  []any
	named []driver.NamedValue // the same for the driver
	rows  []row
	arrivals
}

// row is one row of the transaction in hand.
type row struct {
	record int // its record's number in the transaction
	user   []byte
}

// open looks at the table and plans its rows. tell is told what is wrong with it.
func (s *session) open(ctx context.Context, cfg *Config, name string, tell func(table string, p dbschema.Problem)) (*table, error) {
	if t := s.tables[name]; t != nil {
		return t, nil
	}
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	found, err := dbschema.Inspect(ctx, s.conn, s.dialect, name, cfg.Columns)
	if errors.Is(err, dbschema.ErrNoTable) && s.dialect == dbschema.SQLite && name == cfg.Table {
		// A file of our own making: there is nobody else to make the table. One that
		// a rule named has to be there.
		found, err = s.create(ctx, cfg, name)
	}
	if errors.Is(err, dbschema.ErrNoTable) {
		return nil, fmt.Errorf("%w; make it with: siptraced schema create --db-url ... --table %s", err, name)
	}
	if err != nil {
		return nil, err
	}
	plan, err := dbschema.NewPlan(found)
	if err != nil {
		return nil, err
	}
	for _, p := range found.Check() {
		tell(name, p)
	}
	t := &table{name: name, plan: plan, encoder: plan.NewEncoder(cfg.Location), width: len(plan.Columns())}
	s.tables[name] = t
	return t, nil
}

// create makes the table in one transaction, unless another writer was faster.
func (s *session) create(ctx context.Context, cfg *Config, name string) (*dbschema.Table, error) {
	texts, err := dbschema.Create(s.dialect, name, cfg.Columns)
	if err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	found, err := dbschema.Inspect(ctx, s.conn, s.dialect, name, cfg.Columns)
	if errors.Is(err, dbschema.ErrNoTable) {
		for _, text := range texts {
			if _, err := s.exec(ctx, text); err != nil {
				return nil, fmt.Errorf("making table %s: %w", name, err)
			}
		}
		found, err = dbschema.Inspect(ctx, s.conn, s.dialect, name, cfg.Columns)
	}
	if err != nil {
		return nil, err
	}
	_, err = s.exec(ctx, "COMMIT")
	return found, err
}

// reset forgets the rows in hand.
func (t *table) reset() {
	t.args, t.rows, t.arrivals = t.args[:0], t.rows[:0], arrivals{}
	t.encoder.Reset()
}

// add encodes the rows of a record.
func (t *table) add(rec *siptrace.Record, number int) {
	t.arrivals.add(rec.Time, max(1, len(rec.Users)))
	if rec.Users == nil {
		t.args = t.encoder.AppendArgs(t.args, rec, nil)
		t.rows = append(t.rows, row{record: number})
		return
	}
	for _, u := range rec.Users {
		t.args = t.encoder.AppendArgs(t.args, rec, u)
		t.rows = append(t.rows, row{record: number, user: u})
	}
}

// insert writes rows lo to hi with as few statements as the prepared sizes
// allow. On an error the rows of earlier statements are in the transaction;
// done says how far it came, and size how many rows the failed statement had.
func (s *session) insert(ctx context.Context, t *table, lo, hi int) (done, size int, err error) {
	if t.plan.Copies() {
		if err := s.copyIn(ctx, t, lo, hi); err != nil {
			return lo, hi - lo, err
		}
		return hi, 0, nil
	}
	for k, n := range s.sizes() {
		if n > t.plan.MaxRows() {
			continue
		}
		for hi-lo >= n {
			if t.stmts[k] == nil {
				if t.stmts[k], err = s.prepare(ctx, t.plan.Insert(n)); err != nil {
					return lo, n, err
				}
			}
			if err := s.run(ctx, t, t.stmts[k], t.args[lo*t.width:(lo+n)*t.width]); err != nil {
				return lo, n, err
			}
			lo += n
		}
	}
	return lo, 0, nil
}

// prepare and run speak with the driver itself: database/sql would look at and
// copy each of the thousands of arguments.
func (s *session) prepare(ctx context.Context, text string) (stmt driver.Stmt, err error) {
	err = s.conn.Raw(func(c any) (err error) {
		stmt, err = c.(driver.ConnPrepareContext).PrepareContext(ctx, text)
		return err
	})
	if err != nil {
		return nil, err // with an error SQLite's driver returns a statement that is nil inside
	}
	return stmt, nil
}

func (s *session) run(ctx context.Context, t *table, stmt driver.Stmt, args []any) error {
	ctx, end := s.bounded(ctx)
	defer end()
	t.named = t.named[:0]
	for i, a := range args {
		t.named = append(t.named, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s.conn.Raw(func(any) error {
		_, err := stmt.(driver.StmtExecContext).ExecContext(ctx, t.named)
		return err
	})
}

// copyIn writes rows lo to hi with PostgreSQL's COPY, which costs half of what
// INSERT does.
func (s *session) copyIn(ctx context.Context, t *table, lo, hi int) error {
	ctx, end := s.bounded(ctx)
	defer end()
	return s.conn.Raw(func(c any) error {
		_, err := c.(*stdlib.Conn).Conn().CopyFrom(ctx, t.plan.Identifier(), t.plan.Columns(), &rowSource{t: t, next: lo, end: hi})
		return err
	})
}

// rowSource hands the rows in hand to COPY (pgx.CopyFromSource).
type rowSource struct {
	t         *table
	next, end int
}

func (r *rowSource) Next() bool {
	r.next++
	return r.next <= r.end
}

func (r *rowSource) Values() ([]any, error) {
	return r.t.args[(r.next-1)*r.t.width : r.next*r.t.width], nil
}

func (r *rowSource) Err() error { return nil }
