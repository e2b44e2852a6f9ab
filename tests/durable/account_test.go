package durable

import (
	"path/filepath"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestClusterAccountFull: the cluster's account has no room for anything, not even for
// how far the sinks came. Once the database takes its rows the spool is emptied all the
// same, and takes messages again.
func TestClusterAccountFull(t *testing.T) {
	parallel(t)
	nodes := servers.StartNATSCluster(t, natsServer, 3, servers.NATSOptions{Server: `accounts {
  SPOOL { jetstream { max_file: 6291456 }, users: [ { user: u, password: p } ] }
}
no_auth_user: u`})
	d := sqliteFile(t, filepath.Join(t.TempDir(), "rows.db"))
	ctl := filepath.Join(t.TempDir(), "ctl")
	p := newPlace(t, d.url, "spool.nats="+servers.NATSURL(nodes), "spool.shards=1", "spool.max_bytes=0", "rpc.ctl=unix:"+ctl)
	run := p.start(t)
	deliver(t, p.addr, 20, 20)
	servers.WaitFor(t, time.Minute, "the first rows", func() bool { return d.count() == 20 })
	lock(t, d)
	servers.WaitFor(t, time.Minute, "messages to be refused", func() bool {
		deliver(t, p.addr, 1000, 50)
		return run.CountersNow(t)[spoolFull] > 0
	})
	time.Sleep(2 * time.Second) // the servers tell each other what is in use
	deliver(t, p.addr, 200, 1)  // what room is left for small batches
	execute(t, d.db, "ROLLBACK")
	run.drained(t, time.Minute)
	servers.WaitFor(t, time.Minute, "the spool to be empty", func() bool { return sinks(t, ctl)["spool"]["bytes"] == 0. })
	before := run.CountersNow(t)
	deliver(t, p.addr, 500, 20)
	servers.WaitFor(t, time.Minute, "messages to be taken again", func() bool { return run.CountersNow(t)[servers.Written] == before[servers.Written]+500 })
	c := run.stop(t)
	if c[spoolFull] != before[spoolFull] || c[missed] != 0 || int64(d.count()) != c[servers.Written] {
		t.Errorf("counters %v, %d rows; refused before the spool was empty: %d", c, d.count(), before[spoolFull])
	}
}
