package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// TestReload changes the configuration of a running daemon.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := filepath.Join(dir, "kamailio.cfg")
	port := servers.FreePort(t)
	text := func(traceOn int, more string) string {
		return fmt.Sprintf("#!KAMAILIO\nlisten=udp:192.0.2.1:5060\nloadmodule \"siptrace.so\"\n"+
			"modparam(\"siptrace\", \"trace_on\", %d)\nmodparam(\"siptrace\", \"trace_to_database\", 1)\n%s\nrequest_route { exit; }\n", traceOn, more)
	}
	write(t, cfg, text(1, ""))
	db := sqliteFile(t, filepath.Join(dir, "trace.db"))
	db.createTable(t, nil)
	run := start(t, options{port: port, config: cfg, dbURL: db.url, set: []string{"spool.dir=" + t.TempDir()}})
	calls := 0
	send := func() {
		t.Helper()
		calls++
		run.feed(t, "udp", good(fmt.Sprintf("reload-%d", calls)))
	}
	// reload has the daemon read its files again and returns what it logged.
	reload := func(what string) string {
		t.Helper()
		before := len(run.Stderr())
		run.Signal(t, syscall.SIGHUP)
		servers.WaitFor(t, time.Minute, "the log to say "+what, func() bool {
			return strings.Contains(run.Stderr()[before:], what) || !run.Running()
		})
		time.Sleep(100 * time.Millisecond)
		return run.Stderr()[before:]
	}

	send()
	db.await(t, run, "sip_trace", 1, 2*time.Minute)
	received := run.CountersNow(t)[servers.Received]

	write(t, cfg, text(0, ""))
	reload("trace_on")
	send()
	servers.WaitFor(t, time.Minute, "the packet to be counted", func() bool { return run.CountersNow(t)[servers.Received] > received })
	if up := run.CountersNow(t); up.Sum(servers.Dropped) == 0 {
		t.Errorf("tracing is off: no message counted as dropped: %v", up)
	}

	// A configuration that is wrong changes nothing, and is said with its place.
	write(t, cfg, text(1, `modparam("siptrace", "trace_onn", 1)`))
	if log := reload("trace_onn"); !strings.Contains(log, "kamailio.cfg:6") {
		t.Errorf("no place of the mistake in\n%s", log)
	}
	send()

	write(t, cfg, text(1, ""))
	reload("trace_on")
	send()
	db.await(t, run, "sip_trace", 2, 2*time.Minute)

	// What cannot change while the daemon runs is named as such.
	write(t, cfg, text(1, `modparam("siptrace", "table", "another_table")`))
	log := reload("table")
	if !strings.Contains(log, "restart") && !strings.Contains(log, "another_table") {
		t.Errorf("a new table: the log neither takes it nor asks for a restart:\n%s", log)
	}
	c := run.stop(t)
	if c[servers.Received] != int64(calls) {
		t.Errorf("received %d, want %d: %v", c[servers.Received], calls, c)
	}
	rows := db.rows(t, "sip_trace", nil)
	for i, want := range []string{"reload-1", "reload-4"} {
		if i >= len(rows) || rows[i].CallID != want {
			t.Errorf("row %d: want call %s, rows: %+v", i, want, rows)
		}
	}
}

// TestDrain: what was taken in is written before the daemon ends.
func TestDrain(t *testing.T) {
	t.Parallel()
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m, "trace", "utf8mb4")
	d.createTable(t, nil)
	run := start(t, options{dbURL: d.url, set: []string{"local=udp:" + load.Proxy.String()}})
	list := load.Calls(3000, time.Now())
	packets := make([][]byte, len(list))
	for i, m := range list {
		packets[i] = m.Packet
	}
	run.feed(t, "udp", packets...) // returns when the socket is empty
	c := run.stop(t)
	if c[servers.Written] != int64(len(list)) || c[servers.Pending] != 0 {
		t.Errorf("counters: %v, want %d written, none pending", c, len(list))
	}
	report(t, diffLoad(list, d.rows(t, "sip_trace", nil), time.Local))
}
