package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// place is where a daemon runs, before and after it was killed: one address
// (UDP and TCP), one directory with the spool in it, one configuration.
type place struct {
	addr string
	dir  string
	args []string
}

// newPlace sets up a place; set are further settings.
func newPlace(tb testing.TB, dbURL string, set ...string) *place {
	tb.Helper()
	p := &place{addr: fmt.Sprintf("127.0.0.1:%d", servers.FreePort(tb)), dir: tb.TempDir()}
	p.args = []string{"run"}
	for _, s := range append([]string{
		"listen=udp:" + p.addr + ",tcp:" + p.addr,
		"siptrace.db_url=" + dbURL, "siptrace.trace_on=1", "local=udp:" + load.Proxy.String(),
		"spool.dir=" + filepath.Join(p.dir, "spool"), "shutdown_timeout=50s",
		"rpc.ctl=", "rpc.http=",
	}, set...) {
		p.args = append(p.args, "--set", s)
	}
	return p
}

// daemon is a running siptraced.
type daemon struct{ *servers.Siptraced }

// start starts the daemon of the place; set are settings of this run alone.
func (p *place) start(tb testing.TB, set ...string) *daemon {
	tb.Helper()
	args := p.args
	for _, s := range set {
		args = append(args[:len(args):len(args)], "--set", s)
	}
	return &daemon{servers.StartSiptraced(tb, servers.Command{Bin: program, Args: args, Dir: p.dir})}
}

// spool is the spool's directory.
func (p *place) spool() string { return filepath.Join(p.dir, "spool") }

// size is what the spool takes on disk, in bytes.
func (p *place) size() int64 {
	var sum int64
	_ = filepath.WalkDir(p.spool(), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files go while the daemon runs
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// The counters beside those of package servers that the books are made of.
const (
	missed    = "store.missed"
	spoolFull = "rejected.spool_full"
)

// stop ends the daemon in order and checks its books.
func (d *daemon) stop(tb testing.TB) servers.Counters {
	tb.Helper()
	d.MustStop(tb)
	c := d.Counters(tb)
	balanced(tb, c)
	return c
}

// balanced checks that every message read ended in exactly one counted place,
// and every message spooled too.
func balanced(tb testing.TB, c servers.Counters) {
	tb.Helper()
	if err := intakeBalanced(c); err != nil {
		tb.Error(err)
	}
	in := c[servers.Backlog] + c[servers.Spooled]
	out := c[servers.Written] + c[servers.Aside] + c[missed] + c[servers.Pending]
	if in != out {
		tb.Errorf("books of the database: backlog %d + spooled %d = %d, but written %d + set aside %d + missed %d + pending %d = %d: %v",
			c[servers.Backlog], c[servers.Spooled], in, c[servers.Written], c[servers.Aside], c[missed], c[servers.Pending], out, c)
	}
}

// intakeBalanced is the half of the books that a daemon keeps for itself when it
// shares its spool with others.
func intakeBalanced(c servers.Counters) error {
	if _, ok := c[servers.Received]; !ok {
		return fmt.Errorf("no counter %q in %v", servers.Received, c)
	}
	out := c.Sum(servers.Rejected) + c.Sum(servers.Dropped) + c[servers.Spooled]
	if c[servers.Received] != out {
		return fmt.Errorf("books of the intake: received %d, but rejected %d + dropped %d + spooled %d = %d: %v",
			c[servers.Received], c.Sum(servers.Rejected), c.Sum(servers.Dropped), c[servers.Spooled], out, c)
	}
	return nil
}

// drained waits until nothing waits for the database any more.
func (d *daemon) drained(tb testing.TB, timeout time.Duration) {
	tb.Helper()
	deadline := time.Now().Add(timeout)
	for {
		c := d.CountersNow(tb)
		if n, ok := c[servers.Pending]; ok && n == 0 {
			return
		}
		if !d.Running() || time.Now().After(deadline) {
			tb.Fatalf("%d messages still wait for the database after %v: %v\n%s", c[servers.Pending], timeout, c, d.Tail(30))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// written waits until the daemon has written n messages more than when asked
// first.
func (d *daemon) written(tb testing.TB, n int64, timeout time.Duration) {
	tb.Helper()
	first := d.CountersNow(tb)[servers.Written]
	deadline := time.Now().Add(timeout)
	for {
		c := d.CountersNow(tb)
		if c[servers.Written] >= first+n {
			return
		}
		if !d.Running() || time.Now().After(deadline) {
			tb.Fatalf("%d messages written within %v, want %d: %v\n%s", c[servers.Written]-first, timeout, n, c, d.Tail(30))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// memory reads a line of /proc/<pid>/status in bytes: VmHWM is the most memory
// that the process ever had, VmRSS what it has.
func (d *daemon) memory(tb testing.TB, name string) int64 {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name+":" && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return n << 10
		}
	}
	tb.Fatalf("no %s in %s", name, b)
	return 0
}

const mib = 1 << 20
