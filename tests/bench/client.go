package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sync/errgroup"
)

// The columns that a row gives a value to.
var columns = []string{
	"time_stamp", "time_us", "callid", "traced_user", "msg", "method", "status", "fromip", "toip", "fromtag", "totag", "direction",
}

// way is one way of a plain client to write rows: no spool, no positions, each
// statement a transaction of its own.
type way struct {
	name    string
	rows    int // of a statement
	conns   int
	pragmas string // of SQLite
	open    opener
}

// opener prepares a statement for so many rows.
type opener func(ctx context.Context, c *sql.Conn, rows int) (statement, error)

// statement writes rows; args has the values of all of them, row after row.
type statement func(ctx context.Context, args []any) error

// bestWays are the ways that siptraced is compared with.
var bestWays = map[string]way{
	mariaDB:  {name: "prepared INSERT", rows: 500, conns: 2, open: preparedInsert},
	postgres: {name: "COPY", rows: 1000, conns: 2, open: copyRows},
	sqliteDB: {name: "single rows, a transaction", rows: 1000, conns: 1, open: grouped(preparedInsert, 1)},
}

// insertText is the INSERT for n rows.
func insertText(n int, placeholder func(i int) string) string {
	var s strings.Builder
	s.WriteString("INSERT INTO sip_trace (" + strings.Join(columns, ",") + ") VALUES ")
	for row := range n {
		s.WriteString([]string{"(", ",("}[min(row, 1)])
		for i := range columns {
			if i > 0 {
				s.WriteByte(',')
			}
			s.WriteString(placeholder(row*len(columns) + i + 1))
		}
		s.WriteByte(')')
	}
	return s.String()
}

func question(int) string { return "?" }
func dollar(i int) string { return "$" + strconv.Itoa(i) }
func isPgx(c any) bool    { _, ok := c.(*stdlib.Conn); return ok }
func anyConn(c *sql.Conn) (out any, err error) {
	err = c.Raw(func(dc any) error {
		out = dc
		return nil
	})
	return out, err
}

// preparedInsert uses database/sql as it is meant.
func preparedInsert(ctx context.Context, c *sql.Conn, rows int) (statement, error) {
	dc, err := anyConn(c)
	if err != nil {
		return nil, err
	}
	mark := question
	if isPgx(dc) {
		mark = dollar
	}
	stmt, err := c.PrepareContext(ctx, insertText(rows, mark))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, args []any) error {
		_, err := stmt.ExecContext(ctx, args...)
		return err
	}, nil
}

// direct goes past database/sql to the driver's own statement.
func direct(ctx context.Context, c *sql.Conn, rows int) (statement, error) {
	dc, err := anyConn(c)
	if err != nil {
		return nil, err
	}
	stmt, err := dc.(driver.ConnPrepareContext).PrepareContext(ctx, insertText(rows, question))
	if err != nil {
		return nil, err
	}
	exec, ok := stmt.(driver.StmtExecContext)
	if !ok {
		return nil, fmt.Errorf("%T has no ExecContext", stmt)
	}
	named := make([]driver.NamedValue, rows*len(columns))
	for i := range named {
		named[i].Ordinal = i + 1
	}
	return func(ctx context.Context, args []any) error {
		for i, a := range args {
			named[i].Value = a
		}
		_, err := exec.ExecContext(ctx, named)
		return err
	}, nil
}

// grouped executes statements of few rows each, in one transaction.
func grouped(open opener, group int) opener {
	return func(ctx context.Context, c *sql.Conn, _ int) (statement, error) {
		write, err := open(ctx, c, group)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, args []any) error {
			if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
				return err
			}
			for n := group * len(columns); len(args) > 0; args = args[n:] {
				if err := write(ctx, args[:n]); err != nil {
					return err
				}
			}
			_, err := c.ExecContext(ctx, "COMMIT")
			return err
		}, nil
	}
}

func pgxConn(c *sql.Conn) (*pgx.Conn, error) {
	dc, err := anyConn(c)
	if err != nil {
		return nil, err
	}
	return dc.(*stdlib.Conn).Conn(), nil
}

// directPgx prepares the INSERT with pgx itself.
func directPgx(ctx context.Context, c *sql.Conn, rows int) (statement, error) {
	conn, err := pgxConn(c)
	if err != nil {
		return nil, err
	}
	const name = "bench_insert"
	if _, err := conn.Prepare(ctx, name, insertText(rows, dollar)); err != nil {
		return nil, err
	}
	return func(ctx context.Context, args []any) error {
		_, err := conn.Exec(ctx, name, args...)
		return err
	}, nil
}

// copyRows uses PostgreSQL's COPY, binary.
func copyRows(_ context.Context, c *sql.Conn, _ int) (statement, error) {
	conn, err := pgxConn(c)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, args []any) error {
		n := len(args) / len(columns)
		_, err := conn.CopyFrom(ctx, pgx.Identifier{"sip_trace"}, columns, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
			return args[i*len(columns) : (i+1)*len(columns)], nil
		}))
		return err
	}, nil
}

// unnest hands each column over as one array.
func unnest(ctx context.Context, c *sql.Conn, rows int) (statement, error) {
	conn, err := pgxConn(c)
	if err != nil {
		return nil, err
	}
	const name = "bench_unnest"
	types := make([]string, len(columns))
	for i := range types {
		types[i] = "$" + strconv.Itoa(i+1) + "::text[]"
	}
	types[0], types[1] = "$1::timestamp[]", "$2::integer[]"
	text := "INSERT INTO sip_trace (" + strings.Join(columns, ",") + ") SELECT * FROM unnest(" + strings.Join(types, ",") + ")"
	if _, err := conn.Prepare(ctx, name, text); err != nil {
		return nil, err
	}
	times, micros := make([]time.Time, rows), make([]int64, rows)
	texts := make([][]string, len(columns))
	for i := range texts {
		texts[i] = make([]string, rows)
	}
	return func(ctx context.Context, args []any) error {
		for i, a := range args {
			row, col := i/len(columns), i%len(columns)
			switch v := a.(type) {
			case time.Time:
				times[row] = v
			case int64:
				micros[row] = v
			case string:
				texts[col][row] = v
			}
		}
		list := []any{times, micros}
		for _, t := range texts[2:] {
			list = append(list, t)
		}
		_, err := conn.Exec(ctx, name, list...)
		return err
	}, nil
}

// rowMaker makes the arguments of rows; they are valid until reset.
type rowMaker struct {
	traffic *traffic
	times   bool // a time.Time instead of its text
	fixed   [][]any
	buf     []byte
	second  int64
	stamp   any
	args    []any
}

func newRowMaker(kind string) (*rowMaker, error) {
	t, err := newTraffic(prepared)
	if err != nil {
		return nil, err
	}
	m := &rowMaker{traffic: t, times: kind == postgres}
	for _, p := range t.templates {
		// Made once: what is the same in each round.
		m.fixed = append(m.fixed, []any{"", p.method, p.status, p.fromIP, p.toIP, p.fromTag, p.toTag, p.direction})
	}
	return m, nil
}

// rows makes the rows of messages i to i+n.
func (m *rowMaker) rows(i, n int) []any {
	m.buf, m.args = m.buf[:0], m.args[:0]
	now := time.Now()
	if sec := now.Unix(); sec != m.second {
		m.second = sec
		if m.times {
			m.stamp = now.UTC().Truncate(time.Second)
		} else {
			m.stamp = now.Format(time.DateTime)
		}
	}
	us := any(int64(now.Nanosecond() / 1000))
	for ; n > 0; i, n = i+1, n-1 {
		p := m.traffic.at(i, now)
		f := m.fixed[i%len(m.fixed)]
		callID := m.text(p.callID)
		m.args = append(m.args, m.stamp, us, callID, f[0], m.text(p.payload), f[1], f[2], f[3], f[4], f[5], f[6], f[7])
	}
	return m.args
}

// text copies b to memory that is used again after the next call of rows.
func (m *rowMaker) text(b []byte) string {
	start := len(m.buf)
	m.buf = append(m.buf, b...) // strings made before keep the memory they point to
	return unsafe.String(&m.buf[start], len(b))
}

// clientResult is what a plain client reached.
type clientResult struct {
	rate        float64 // rows per second
	cpu, server float64 // CPU seconds per 100,000 rows
	others      float64 // percent of the machine that other programs took
}

// client writes n rows in a plain way, as fast as it can.
func (d *database) client(w way, n int) clientResult {
	d.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	// A client that has nothing else to do need not save memory.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	db := d.open(w.pragmas)
	defer db.Close()
	type connection struct {
		write statement
		maker *rowMaker
	}
	var list []connection
	for range w.conns {
		c, err := db.Conn(ctx)
		if err != nil {
			d.b.Fatal(err)
		}
		defer c.Close()
		write, err := w.open(ctx, c, w.rows)
		if err != nil {
			d.b.Fatalf("%s, %s: %v", d.kind, w.name, err)
		}
		maker, err := newRowMaker(d.kind)
		if err != nil {
			d.b.Fatal(err)
		}
		list = append(list, connection{write, maker})
	}
	statements := (n + w.rows - 1) / w.rows // whole ones
	d.b.waitQuiet()
	cpu, server, begin, other := ownCPU(), d.cpu(), time.Now(), newStrangers()
	g, gctx := errgroup.WithContext(ctx)
	for k, c := range list {
		g.Go(func() error {
			for s := k; s < statements; s += len(list) {
				if err := c.write(gctx, c.maker.rows(s*w.rows, w.rows)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		d.b.Fatalf("%s, %s: %v", d.kind, w.name, err)
	}
	took := time.Since(begin).Seconds()
	rows := float64(statements * w.rows)
	served := d.cpu() - server
	r := clientResult{rate: rows / took, cpu: per100k(ownCPU()-cpu, rows), server: per100k(served, rows), others: other.share(served)}
	if got := d.count(db); got != int(rows) {
		d.b.Errorf("%s, %s: %d rows in the table, want %.0f", d.kind, w.name, got, rows)
	}
	return r
}

// per100k is CPU seconds per 100,000 rows.
func per100k(seconds, rows float64) float64 {
	if rows == 0 {
		return 0
	}
	return seconds * 1e5 / rows
}

// clients compares ways of writing.
func clients(b *bench) {
	t := table{
		title: fmt.Sprintf("Plain clients: %d rows, median of %d rounds", b.opt.messages, b.opt.rounds),
		head:  []string{"database, way", "rows", "conns", "rows/s", "client CPU s/100k", "server CPU s/100k"},
	}
	const safe = sqliteSafe
	lists := map[string][]way{
		mariaDB: {
			{name: "prepared INSERT", rows: 500, conns: 1, open: preparedInsert},
			{name: "prepared INSERT", rows: 500, conns: 2, open: preparedInsert},
			{name: "prepared INSERT", rows: 500, conns: 4, open: preparedInsert},
			{name: "prepared INSERT", rows: 100, conns: 2, open: preparedInsert},
			{name: "prepared INSERT", rows: 200, conns: 2, open: preparedInsert},
			{name: "prepared INSERT", rows: 1000, conns: 2, open: preparedInsert},
			{name: "prepared INSERT, driver alone", rows: 500, conns: 2, open: direct},
			{name: "prepared INSERT, driver alone", rows: 200, conns: 2, open: direct},
		},
		postgres: {
			{name: "prepared INSERT", rows: 500, conns: 2, open: preparedInsert},
			{name: "prepared INSERT, pgx alone", rows: 500, conns: 2, open: directPgx},
			{name: "INSERT from unnest", rows: 500, conns: 2, open: unnest},
			{name: "COPY", rows: 500, conns: 2, open: copyRows},
			{name: "COPY", rows: 1000, conns: 1, open: copyRows},
			{name: "COPY", rows: 1000, conns: 2, open: copyRows},
			{name: "COPY", rows: 1000, conns: 4, open: copyRows},
		},
		sqliteDB: {
			{name: "prepared INSERT", rows: 500, conns: 1, open: preparedInsert},
			{name: "prepared INSERT", rows: 100, conns: 1, open: preparedInsert},
			{name: "single rows, a transaction", rows: 500, conns: 1, open: grouped(preparedInsert, 1)},
			{name: "single rows, a transaction", rows: 1000, conns: 1, open: grouped(preparedInsert, 1)},
			{name: "single rows, a transaction", rows: 4000, conns: 1, open: grouped(preparedInsert, 1)},
			{name: "single rows, driver alone", rows: 1000, conns: 1, open: grouped(direct, 1)},
			{name: "5 rows, a transaction", rows: 1000, conns: 1, open: grouped(preparedInsert, 5)},
			{name: "20 rows, a transaction", rows: 1000, conns: 1, open: grouped(preparedInsert, 20)},
			{name: "single rows, synchronous=NORMAL", rows: 1000, conns: 1, open: grouped(preparedInsert, 1), pragmas: strings.Replace(safe, "FULL", "NORMAL", 1)},
			{name: "single rows, cache 64 MB", rows: 1000, conns: 1, open: grouped(preparedInsert, 1), pragmas: safe + "&_pragma=cache_size(-64000)"},
			{name: "single rows, checkpoint each 64 MB", rows: 1000, conns: 1, open: grouped(preparedInsert, 1), pragmas: safe + "&_pragma=wal_autocheckpoint(16000)"},
			{name: "single rows, both", rows: 1000, conns: 1, open: grouped(preparedInsert, 1), pragmas: safe + "&_pragma=wal_autocheckpoint(16000)&_pragma=cache_size(-64000)"},
		},
	}
	for _, kind := range b.opt.kinds {
		b.section(func() {
			d := b.startDatabase(kind)
			rates := make([][]float64, len(lists[kind]))
			cpus := make([][]float64, len(lists[kind]))
			servers := make([][]float64, len(lists[kind]))
			for range b.opt.rounds {
				for i, w := range lists[kind] {
					d.fresh()
					r := d.client(w, b.opt.messages)
					b.Logf("%s, %s, %d rows, %d connections: %.0f rows/s", kind, w.name, w.rows, w.conns, r.rate)
					rates[i], cpus[i], servers[i] = append(rates[i], r.rate), append(cpus[i], r.cpu), append(servers[i], r.server)
				}
			}
			for i, w := range lists[kind] {
				t.add(kind+", "+w.name, w.rows, w.conns, median(rates[i]), median(cpus[i]), median(servers[i]))
				name := fmt.Sprintf("%s, %d rows, %d connections", w.name, w.rows, w.conns)
				b.add(kind, name, median(rates[i]), "rows/s")
				b.add(kind, name+": client CPU", median(cpus[i]), "s/100000 rows")
			}
		})
	}
	t.print(b.out)
}
