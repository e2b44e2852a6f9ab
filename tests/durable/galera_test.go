package durable

import (
	"context"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestGalera kills the server of a Galera cluster that the daemon writes to,
// under load: the daemon goes on with another one, no row is lost or doubled.
func TestGalera(t *testing.T) {
	parallel(t)
	r := random(t)
	nodes := servers.StartGalera(t, 3)
	nodes[0].CreateDatabase(t, "trace", "utf8mb4")
	d := &database{url: servers.GaleraURL(nodes, "trace"), db: nodes[0].Open(t, "trace")}
	d.createTables(t)
	p := newPlace(t, d.url)
	run := p.start(t)
	s := send(t, 1, servers.Pick(1000, 5000), p.addr)
	rounds := servers.Pick(2, 10)
	longest := time.Duration(0)
	for range rounds {
		run.written(t, 1, 2*time.Minute)
		time.Sleep(between(r, 0, 2*time.Second))
		i := inUse(t, nodes)
		nodes[i].Kill()
		killed := time.Now()
		run.written(t, 1, 2*time.Minute)
		longest = max(longest, time.Since(killed))
		time.Sleep(between(r, 0, time.Second))
		nodes[i].Rejoin(t, len(nodes))
	}
	s.finish(t, 3*time.Minute)
	run.drained(t, 15*time.Minute) // a slow machine writes three copies slowly
	c := run.stop(t)
	t.Logf("server killed %d times, the table stood still for %v at most; %v", rounds, longest.Round(time.Millisecond), c)
	if c["store.retries"] == 0 {
		t.Error("the daemon never noticed that its server was gone")
	}
	if _, attempts := s.progress(); attempts != 1 {
		t.Errorf("the sender's connection ended %d times, although only a database server was killed", attempts-1)
	}
	for i, n := range nodes {
		t.Logf("server %d:", i)
		d.db = n.Open(t, "trace")
		execute(t, d.db, "SET GLOBAL wsrep_sync_wait = 1") // for connections from now on
		d.db = n.Open(t, "trace")
		if v := d.verify(t, whole, s); int64(v.rows) != c[servers.Written] {
			t.Errorf("rows: %d, but written: %d", v.rows, c[servers.Written])
		}
	}
}

// inUse is the server that the daemon is connected to.
func inUse(tb testing.TB, nodes []*servers.MariaDB) int {
	tb.Helper()
	best, most := 0, -1
	for i, n := range nodes {
		db := n.Open(tb, "")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		var count int
		// The connections of this test have no default database.
		err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = 'trace' AND ID <> CONNECTION_ID()").Scan(&count)
		cancel()
		_ = db.Close()
		if err != nil {
			tb.Fatal(err)
		}
		if count > most {
			best, most = i, count
		}
	}
	if most < 1 {
		tb.Fatal("the daemon is connected to no server")
	}
	return best
}
