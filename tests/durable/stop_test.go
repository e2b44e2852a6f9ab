package durable

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// TestStopWithoutCluster: with the spool's cluster gone, or frozen, and all of the
// daemon's memory for batches taken, SIGTERM ends it all the same; what it had in hand
// is counted.
func TestStopWithoutCluster(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, n *servers.NATS){
		"killed": func(_ *testing.T, n *servers.NATS) { n.Kill() },
		"frozen": func(t *testing.T, n *servers.NATS) { n.Freeze(t) },
	} {
		t.Run(name, func(t *testing.T) { stopWithoutCluster(t, leave) })
	}
}

func stopWithoutCluster(t *testing.T, leave func(t *testing.T, n *servers.NATS)) {
	parallel(t)
	nodes := servers.StartNATSCluster(t, natsServer, 3)
	p := newPlace(t, "sqlite://"+filepath.Join(t.TempDir(), "rows.db"), "spool.nats="+servers.NATSURL(nodes), "shutdown_timeout=2s")
	run := p.start(t)
	for _, n := range nodes {
		n.Kill()
	}
	fillMemory(t, p.addr)
	run.Signal(t, syscall.SIGTERM)
	if code := run.Wait(t, 30*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	got := run.Counters(t)
	if err := got.Balanced(); err != nil || got["rejected.shutdown"] == 0 {
		t.Errorf("counters %v, %v: want them balanced, and messages in rejected.shutdown", got, err)
	}
}

// TestStopFrozen: with the disk of the spool frozen, SIGTERM ends the daemon's work in
// time. The process itself may be held by the kernel until the disk thaws.
func TestStopFrozen(t *testing.T) {
	parallel(t)
	for _, tt := range []struct {
		name  string
		taken bool // messages are on their way to the disk
	}{
		{"messages are under way", true},
		{"nothing is under way", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parallel(t)
			disk := t.TempDir()
			ext4(t, disk, "256M")
			p := newPlace(t, "sqlite://"+filepath.Join(t.TempDir(), "rows.db"), "spool.dir="+disk+"/spool", "shutdown_timeout=2s")
			run := p.start(t)
			thaw := freeze(t, disk)
			if tt.taken {
				fillMemory(t, p.addr)
			}
			run.Signal(t, syscall.SIGTERM)
			servers.WaitFor(t, 20*time.Second, "the last counters", func() bool { return strings.Contains(run.Stdout(), `"counters"`) })
			thaw()
			if code := run.Wait(t, 30*time.Second); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if got := run.Counters(t); got.Balanced() != nil || (got["rejected.shutdown"] > 0) != tt.taken {
				t.Errorf("counters %v, %v: want them balanced, messages in rejected.shutdown: %v", got, got.Balanced(), tt.taken)
			}
		})
	}
}

// fillMemory sends more than two shards of eight batches hold, so that the intake
// waits for the spool where that takes nothing.
func fillMemory(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const messages = 12000
	for i, m := range load.Calls(messages, time.Now()) {
		if _, err := c.Write(m.Packet); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
}
