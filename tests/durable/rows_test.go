package durable

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"

	_ "modernc.org/sqlite" // the driver sqlite
)

// database is where the rows are.
type database struct {
	url string // as db_url
	db  *sql.DB
}

// mariaDB makes an empty database with the tables of siptraced.
func mariaDB(tb testing.TB, m *servers.MariaDB) *database {
	tb.Helper()
	m.CreateDatabase(tb, "trace", "utf8mb4")
	d := &database{url: m.URL("trace"), db: m.Open(tb, "trace")}
	d.createTables(tb)
	return d
}

// postgres is mariaDB for PostgreSQL. What is committed there survives a crash
// of the server, though not one of the machine.
func postgres(tb testing.TB, p *servers.Postgres) *database {
	tb.Helper()
	p.CreateDatabase(tb, "trace", "")
	d := &database{url: p.URL("trace"), db: p.Open(tb, "trace")}
	execute(tb, d.db, "ALTER DATABASE trace SET synchronous_commit = on")
	d.createTables(tb)
	return d
}

// sqliteFile is mariaDB for a file.
func sqliteFile(tb testing.TB, file string) *database {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	d := &database{url: "sqlite:///" + file, db: db}
	d.createTables(tb)
	return d
}

func (d *database) createTables(tb testing.TB) {
	tb.Helper()
	r := servers.RunSiptraced(tb, servers.Command{Bin: program, Args: []string{"schema", "create", "--db-url", d.url}})
	if r.Code != 0 {
		tb.Fatalf("schema create: exit code %d\n%s%s", r.Code, r.Stderr, r.Stdout)
	}
}

func execute(tb testing.TB, db *sql.DB, text string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := db.ExecContext(ctx, text); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
}

// count is the number of rows, or -1 as long as there is no answer.
func (d *database) count() int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n := -1
	if err := d.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sip_trace").Scan(&n); err != nil {
		return -1
	}
	return n
}

// row is what the tests look at.
type row struct {
	id     int64
	callID string
	msg    []byte // valid until the next row
}

// each reads the table in the order of id.
func (d *database) each(f func(row)) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	rs, err := d.db.QueryContext(ctx, "SELECT id, callid, msg FROM sip_trace ORDER BY id")
	if err != nil {
		return err
	}
	defer rs.Close()
	var r row
	var msg sql.RawBytes
	for rs.Next() {
		if err := rs.Scan(&r.id, &r.callID, &msg); err != nil {
			return err
		}
		r.msg = msg
		f(r)
	}
	return rs.Err()
}

// verdict is what a table turned out to hold.
type verdict struct {
	rows       int
	accepted   int // messages acknowledged
	lost       int // of them, those without a row
	doubled    int // rows that are there already
	disordered int // rows of a call out of order
	broken     int // rows that differ from what was sent, or that nobody sent
	extra      int // rows of attempts that were not acknowledged: sent again later

	gone     []gone // those lost
	examples []string
}

// gone is a message that was lost.
type gone struct{ sender, number int }

func (v *verdict) wrong(n *int, format string, args ...any) {
	*n++
	if len(v.examples) < 12 {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

// order is how much order a call's rows must have.
type order bool

const (
	// whole: in each attempt, and each attempt behind the ones before it. One that
	// the sender ended itself has no place among those that follow it: siptraced
	// may read the rest of it beside them.
	whole order = true
	// within: in each attempt for itself, when attempts went to several daemons.
	within order = false
)

// judge compares rows, which each hands out in the order of id, with what the
// senders know.
func judge(o order, senders []*sender, each func(func(row)) error) (*verdict, error) {
	v := &verdict{}
	type one struct{ sender, number, attempt int }
	type place struct {
		callID  string
		attempt int
	}
	seen := map[one]struct{}{}
	last := map[place]int{}    // number in the attempt
	latest := map[string]int{} // attempt of the call
	var want []byte
	err := each(func(r row) {
		v.rows++
		var m one
		var ok bool
		m.sender, m.number, m.attempt, ok = identify(r.msg)
		var from *sender
		for _, s := range senders {
			if ok && s.sender == m.sender && m.number < s.sent && m.attempt <= s.attempt {
				from = s
			}
		}
		if from == nil {
			v.wrong(&v.broken, "row %d was never sent: %q", r.id, r.msg)
			return
		}
		want = from.message(want[:0], m.number, m.attempt)
		if !bytes.Equal(r.msg, want) || r.callID != from.callID(m.number) {
			v.wrong(&v.broken, "row %d: call %s, message\n%q\nwant call %s, message\n%q", r.id, r.callID, r.msg, from.callID(m.number), want)
			return
		}
		if _, ok := seen[m]; ok {
			v.wrong(&v.doubled, "row %d: %+v is there a second time", r.id, m)
			return
		}
		seen[m] = struct{}{}
		p := place{r.callID, m.attempt}
		if n := last[p]; m.number < n {
			v.wrong(&v.disordered, "row %d: %+v comes behind number %d in %s", r.id, m, n, r.callID)
		} else if a := latest[r.callID]; o == whole && m.attempt < a && !from.impatient[m.attempt] {
			v.wrong(&v.disordered, "row %d: %+v comes behind attempt %d in %s", r.id, m, a, r.callID)
			latest[r.callID] = m.attempt
		}
		last[p], latest[r.callID] = m.number, max(latest[r.callID], m.attempt)
		if m.number >= len(from.accepted) || int(from.accepted[m.number]) != m.attempt {
			v.extra++
		}
	})
	if err != nil {
		return nil, err
	}
	for _, s := range senders {
		v.accepted += len(s.accepted)
		for n, a := range s.accepted {
			if _, ok := seen[one{s.sender, n, int(a)}]; !ok {
				v.gone = append(v.gone, gone{s.sender, n})
				v.wrong(&v.lost, "message %d of sender %d, acknowledged at attempt %d, has no row", n, s.sender, a)
			}
		}
	}
	return v, nil
}

func (v *verdict) String() string {
	return fmt.Sprintf("%d rows for %d messages acknowledged and %d repeated: lost %d, doubled %d, out of order %d, broken %d",
		v.rows, v.accepted, v.extra, v.lost, v.doubled, v.disordered, v.broken)
}

// verify reads the table and fails the test unless every acknowledged message is
// there once, whole and in order. The senders must have ended.
func (d *database) verify(tb testing.TB, o order, senders ...*sender) *verdict {
	tb.Helper()
	v, err := judge(o, senders, d.each)
	if err != nil {
		tb.Fatalf("reading the table: %v", err)
	}
	tb.Log(v)
	if v.lost+v.doubled+v.disordered+v.broken > 0 {
		tb.Errorf("%v\n%s", v, strings.Join(v.examples, "\n"))
	}
	if v.accepted == 0 {
		tb.Error("no message was acknowledged: the test shows nothing")
	}
	return v
}

// TestJudge: each kind of damage to a table is found.
func TestJudge(t *testing.T) {
	type entry struct{ number, attempt int }
	sound := func() []entry {
		var list []entry
		for n := range 1500 {
			list = append(list, entry{n, 1})
		}
		for n := 1000; n < 3000; n++ { // sent again behind the last mark
			list = append(list, entry{n, 2})
		}
		return list
	}
	for _, tt := range []struct {
		name   string
		order  order
		damage func([]entry) []entry
		want   verdict
		alter  func(msg []byte)
		gaveUp int // attempt
	}{
		{name: "sound", order: whole, want: verdict{extra: 500}},
		{name: "sound, attempts mixed", order: within, want: verdict{extra: 500}, damage: func(l []entry) []entry { return append(l[1500:], l[:1500]...) }},
		{name: "attempts mixed", order: whole, want: verdict{extra: 500, disordered: 80}, damage: func(l []entry) []entry {
			return append(l[1500:], l[:1500]...)
		}},
		{name: "attempts mixed, sender gave up the first", order: whole, gaveUp: 1, want: verdict{extra: 500}, damage: func(l []entry) []entry {
			return append(l[1500:], l[:1500]...)
		}},
		{name: "attempts mixed, sender gave up the second", order: whole, gaveUp: 2, want: verdict{extra: 500, disordered: 80}, damage: func(l []entry) []entry {
			return append(l[1500:], l[:1500]...)
		}},
		{name: "two swapped, sender gave up", order: whole, gaveUp: 1, want: verdict{extra: 500, disordered: 1}, damage: func(l []entry) []entry {
			l[0], l[open] = l[open], l[0]
			return l
		}},
		{name: "one lost", order: whole, want: verdict{extra: 500, lost: 1}, damage: func(l []entry) []entry { return append(l[:10], l[11:]...) }},
		{name: "repeated one missing", order: whole, want: verdict{extra: 499}, damage: func(l []entry) []entry { return append(l[:1100], l[1101:]...) }},
		{name: "one doubled", order: whole, want: verdict{extra: 500, doubled: 1}, damage: func(l []entry) []entry { return append(l, l[3000]) }},
		{name: "two swapped", order: within, want: verdict{extra: 500, disordered: 1}, damage: func(l []entry) []entry {
			l[0], l[open] = l[open], l[0]
			return l
		}},
		{name: "never sent", order: whole, want: verdict{extra: 500, broken: 1}, damage: func(l []entry) []entry { return append(l, entry{3000, 2}) }},
		{name: "attempt never made", order: whole, want: verdict{extra: 500, broken: 1}, damage: func(l []entry) []entry { return append(l, entry{2999, 3}) }},
		{name: "all broken", order: whole, want: verdict{broken: 3500, lost: 3000}, alter: func(msg []byte) { msg[len(msg)-1]++ }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &sender{traffic: newTraffic(t, 3), sent: 3000, attempt: 2, impatient: map[int]bool{tt.gaveUp: true}}
			for n := range 3000 {
				s.accepted = append(s.accepted, uint16(1+n/1000-n/2000)) // 1 up to 999, then 2
			}
			list := sound()
			if tt.damage != nil {
				list = tt.damage(list)
			}
			got, err := judge(tt.order, []*sender{s}, func(f func(row)) error {
				for i, e := range list {
					msg := s.message(nil, e.number, e.attempt)
					if tt.alter != nil {
						tt.alter(msg)
					}
					f(row{int64(i + 1), s.callID(e.number), msg})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.examples) == 0 != (got.lost+got.doubled+got.disordered+got.broken == 0) {
				t.Errorf("examples: %q", got.examples)
			}
			tt.want.rows, tt.want.accepted = len(list), 3000
			if len(got.gone) != got.lost {
				t.Errorf("gone: got %d, want %d", len(got.gone), got.lost)
			}
			got.examples, got.gone = nil, nil
			if fmt.Sprint(got) != fmt.Sprint(&tt.want) || got.extra != tt.want.extra {
				t.Errorf("got  %v\nwant %v", got, &tt.want)
			}
		})
	}
}
