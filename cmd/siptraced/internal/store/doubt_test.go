package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/tests/servers"
)

// cluster are SQLite files that stand for the hosts of one database.
type cluster struct {
	files []string

	mu   sync.Mutex // covers what follows
	away []bool     // hosts that take no connection
	plan []fault    // of the next COMMITs, the first one first
}

// fault is what becomes of a COMMIT.
type fault struct {
	done, answered bool // it is carried out; the answer arrives
	then           func()
}

var errAway = errors.New("the host is away")

func newCluster(t *testing.T, hosts int) *cluster {
	c := &cluster{away: make([]bool, hosts)}
	for i := range hosts {
		c.files = append(c.files, filepath.Join(t.TempDir(), fmt.Sprint(i)+".db"))
	}
	return c
}

// set has the store use the cluster.
func (c *cluster) set(cfg *Config) {
	cfg.Connect = func(_ siptrace.DBURL, host int) (driver.Connector, error) {
		return &faultyConnector{sqliteConnector{c.files[host]}, c, host}, nil
	}
}

func (c *cluster) url() siptrace.DBURL {
	u := siptrace.DBURL{Driver: siptrace.DriverSQLite, Database: "cluster"}
	for i := range c.files {
		u.Hosts = append(u.Hosts, fmt.Sprint(i))
	}
	return u
}

func (c *cluster) use(hosts ...int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.away {
		c.away[i] = !slices.Contains(hosts, i)
	}
}

func (c *cluster) isAway(host int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away[host]
}

func (c *cluster) next() (fault, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.plan) == 0 {
		return fault{}, false
	}
	f := c.plan[0]
	c.plan = c.plan[1:]
	return f, true
}

// rows are the messages of a host's table.
func (c *cluster) rows(t *testing.T, host int) []string {
	t.Helper()
	db := c.open(t, host)
	defer db.Close()
	return backend{db: db}.rows(t)
}

func (c *cluster) open(t *testing.T, host int) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", sqliteDSN(c.files[host]))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

type faultyConnector struct {
	sqliteConnector
	cluster *cluster
	host    int
}

func (f *faultyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	if f.cluster.isAway(f.host) {
		return nil, errAway
	}
	c, err := f.sqliteConnector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, connector: f}, nil
}

type faultyConn struct {
	driver.Conn
	connector *faultyConnector
	rows      bool // it has written some
	broken    bool
}

func (c *faultyConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	if c.broken || c.connector.cluster.isAway(c.connector.host) {
		return nil, errAway
	}
	if text == "COMMIT" && c.rows {
		if f, ok := c.connector.cluster.next(); ok {
			end := "ROLLBACK"
			if f.done {
				end = "COMMIT"
			}
			if _, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, end, nil); err != nil {
				return nil, err
			}
			f.then()
			if f.answered {
				return driver.ResultNoRows, nil
			}
			c.broken = true
			return nil, errAway
		}
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, text, args)
}

func (c *faultyConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	if c.broken || c.connector.cluster.isAway(c.connector.host) {
		return nil, errAway
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, text, args)
}

func (c *faultyConn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	if c.broken || c.connector.cluster.isAway(c.connector.host) {
		return nil, errAway
	}
	if strings.HasPrefix(text, "INSERT INTO sip_trace") || strings.HasPrefix(text, `INSERT INTO "sip_trace"`) {
		c.rows = true
	}
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, text)
}

// standby has a host begin with what another one has.
func (c *cluster) standby(t *testing.T, of, host int) {
	t.Helper()
	db := c.open(t, of)
	defer db.Close()
	if _, err := db.Exec("VACUUM INTO '" + c.files[host] + "'"); err != nil {
		t.Fatal(err)
	}
}

// A COMMIT that is not answered is carried out or not, and the next session may be one
// with another server of the same database that lacks it, and then with the first one
// again. The server that is used last has each message once, in order, and nobody is
// taken for a copy of the spool.
func TestCommitInDoubt(t *testing.T) {
	const first, total = 10, 60
	type step struct {
		done, answered bool
		use            int
	}
	for _, tt := range []struct {
		name  string
		plan  []step
		backs []uint64 // how often positions may go back: it depends on what a transaction takes in
	}{
		{"carried out", []step{{true, false, 0}}, []uint64{0}},
		{"not carried out", []step{{false, false, 0}}, []uint64{0}},
		{"several", []step{{false, false, 0}, {true, false, 0}, {true, false, 0}}, []uint64{0}},
		{"carried out, then a server without it", []step{{true, false, 1}}, []uint64{0}},
		{"not carried out, then another server", []step{{false, false, 1}}, []uint64{0}},
		{"carried out, a server without it fails too, and the first one again", []step{{true, false, 1}, {false, false, 0}}, []uint64{0}},
		{"carried out on both", []step{{true, false, 1}, {true, false, 0}}, []uint64{0}},
		{"carried out on both, twice", []step{{true, false, 1}, {true, false, 0}, {true, false, 1}, {true, false, 0}}, []uint64{0}},
		{"answered, then a server without it", []step{{true, true, 1}}, []uint64{1}},
		{"answered, then in doubt, then a server without both", []step{{true, true, 0}, {true, false, 1}}, []uint64{1}},
		{"in doubt, answered by another server, then the first one", []step{{true, false, 1}, {true, true, 1}, {true, true, 0}}, []uint64{1}},
		{"in doubt, a server without it goes on, then the first one and back", []step{{true, false, 1}, {true, true, 0}, {true, false, 1}}, []uint64{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 2)
			c.use(0)
			r := newRig(t, c.url(), t.TempDir(), c.set, func(cfg *Config) { cfg.BatchRows = 10 })
			behind := r.spool.Run(stuck{}, spool.Options{}) // and so the spool keeps everything
			put := func(from, to int) {
				for i := from; i < to; i++ {
					r.put(t, "call", fmt.Sprintf("%03d", i))
					time.Sleep(time.Millisecond)
				}
				servers.WaitFor(t, 30*time.Second, "all messages", func() bool { return r.count.Snapshot()["store.written"] == uint64(to) })
			}
			put(0, first)
			c.standby(t, 0, 1)
			for _, s := range tt.plan {
				c.plan = append(c.plan, fault{s.done, s.answered, func() { c.use(s.use) }})
			}
			put(first, total)
			last := tt.plan[len(tt.plan)-1].use
			behind.Stop(t.Context())
			got := r.stop(t)
			if got["store.written"] != total || !slices.Contains(tt.backs, got["store.position_back"]) {
				t.Errorf("written %d, positions went back %d times, want %d and %v", got["store.written"], got["store.position_back"], total, tt.backs)
			}
			if _, left := c.next(); left {
				t.Error("the test shows nothing: a fault is left")
			}
			var want []string
			for i := range total {
				want = append(want, fmt.Sprintf("%03d", i))
			}
			if rows := c.rows(t, last); !slices.Equal(rows, want) {
				t.Errorf("%d rows, want %d in order: %q", len(rows), total, rows)
			}
			if text := r.log.String(); strings.Contains(text, "copy") {
				t.Errorf("log:\n%s", text)
			}
		})
	}
}

// A server without the last rows gets them again, and the COMMIT of that is not
// answered: they are there once, and counted once.
func TestRewriteInDoubt(t *testing.T) {
	for _, done := range []bool{true, false} {
		t.Run(fmt.Sprint("carried out ", done), func(t *testing.T) {
			c, dir := newCluster(t, 2), t.TempDir()
			c.use(0)
			r := newRig(t, c.url(), dir, c.set)
			behind := r.spool.Run(stuck{}, spool.Options{}) // and so the spool keeps everything
			put := func(from, to int) {
				for i := from; i < to; i++ {
					r.put(t, "call", fmt.Sprintf("%03d", i))
				}
				servers.WaitFor(t, 30*time.Second, "the rows", func() bool { return r.count.Snapshot()["store.written"] == uint64(to) })
			}
			put(0, 10)
			c.standby(t, 0, 1)
			put(10, 50)
			behind.Stop(t.Context())
			r.stop(t)
			c.use(1)
			c.plan = []fault{{done: done, then: func() {}}}
			r = newRig(t, c.url(), dir, c.set)
			behind = r.spool.Run(stuck{}, spool.Options{})
			r.put(t, "call", "050")
			servers.WaitFor(t, 30*time.Second, "the rows", func() bool { return len(c.rows(t, 1)) >= 51 })
			behind.Stop(t.Context())
			if got := r.stop(t); got["store.written"] != 1 || got["store.position_back"] != 1 || got["store.rewritten"] != 40 {
				t.Errorf("written %d, want 1; went back %d times, want once; written again %d, want 40", got["store.written"], got["store.position_back"], got["store.rewritten"])
			}
			if rows := c.rows(t, 1); len(rows) != 51 || !slices.IsSorted(rows) || len(slices.Compact(rows)) != 51 {
				t.Errorf("%d rows, want 51 in order", len(rows))
			}
		})
	}
}
