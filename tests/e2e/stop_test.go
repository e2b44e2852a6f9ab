package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// mute is a database server that takes connections and says nothing.
func mute(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { _ = l.Close() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	})
	return fmt.Sprintf("mysql://u:p@%s/d", l.Addr())
}

// TestSecondSignal: while a sink is waited for the log says so, and the second
// SIGTERM ends the wait; what waits is there at the next start.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options{dbURL: mute(t), dir: dir, set: []string{"local=udp:" + load.Proxy.String(), "shutdown_timeout=10m"}}
	run := start(t, o)
	list := load.Calls(100, time.Now())
	for _, m := range list {
		run.feed(t, "udp", m.Packet)
	}
	run.Signal(t, syscall.SIGTERM)
	servers.WaitFor(t, 20*time.Second, "a line that says what is waited for", func() bool {
		return strings.Contains(run.Stderr(), "sink=store messages="+fmt.Sprint(len(list)))
	})
	run.Signal(t, syscall.SIGTERM)
	if code := run.Wait(t, 30*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	c := run.Counters(t)
	if err := c.Balanced(); err != nil || c[servers.Pending] != int64(len(list)) {
		t.Errorf("counters %v, %v: want %d pending", c, err, len(list))
	}
	d := sqliteFile(t, dir+"/late.db")
	o.dbURL = "sqlite://" + dir + "/late.db"
	run = start(t, o)
	d.await(t, run, "sip_trace", len(list), time.Minute)
	run.stop(t)
}

// TestStopUnderFlood: a flood that goes on does not put the end off, and neither
// does a database that is down.
func TestStopUnderFlood(t *testing.T) {
	t.Parallel()
	run := start(t, options{
		dbURL: fmt.Sprintf("mysql://u:p@127.0.0.1:%d/d", servers.FreePort(t)),
		set:   []string{"local=udp:" + load.Proxy.String(), "shutdown_timeout=10m"},
	})
	stop := make(chan struct{})
	var senders sync.WaitGroup
	defer senders.Wait()
	defer close(stop)
	packets := load.Calls(50, time.Now())
	for range 2 {
		c, err := net.Dial("udp", run.addr)
		if err != nil {
			t.Fatal(err)
		}
		senders.Go(func() {
			defer c.Close()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					_, _ = c.Write(packets[i%len(packets)].Packet)
				}
			}
		})
	}
	time.Sleep(time.Second)
	run.Signal(t, syscall.SIGTERM)
	if code := run.Wait(t, time.Minute); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if err := run.Counters(t).Balanced(); err != nil {
		t.Errorf("books: %v", err)
	}
}
