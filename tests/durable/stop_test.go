package durable

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// TestStopWithoutCluster: with the spool's cluster gone and all of the daemon's
// memory for batches taken, SIGTERM ends it all the same; what it had in hand is
// counted.
func TestStopWithoutCluster(t *testing.T) {
	parallel(t)
	nodes := servers.StartNATSCluster(t, natsServer, 3)
	p := newPlace(t, "sqlite://"+filepath.Join(t.TempDir(), "rows.db"), "spool.nats="+servers.NATSURL(nodes), "shutdown_timeout=2s")
	run := p.start(t)
	for _, n := range nodes {
		n.Kill()
	}
	c, err := net.Dial("udp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// More than two shards of eight batches hold, until the intake waits.
	const messages = 12000
	packets := load.Calls(messages, time.Now())
	for i, m := range packets {
		if _, err := c.Write(m.Packet); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	run.Signal(t, syscall.SIGTERM)
	if code := run.Wait(t, 30*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	got := run.Counters(t)
	if err := got.Balanced(); err != nil || got["rejected.shutdown"] == 0 {
		t.Errorf("counters %v, %v: want them balanced, and messages in rejected.shutdown", got, err)
	}
}
