package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// sinks are the answer to siptrace.sinks, by sink; the spool is "spool".
func sinks(t *testing.T, d *daemon, ctl string) map[string]map[string]any {
	t.Helper()
	r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{"rpc", "-s", ctl, "--json", "siptrace.sinks"}})
	var list []map[string]any
	if err := json.Unmarshal([]byte(r.Stdout), &list); r.Code != 0 || err != nil {
		t.Fatalf("siptrace.sinks: %v\n%s%s", err, r.Stdout, r.Stderr)
	}
	out := map[string]map[string]any{}
	for _, s := range list {
		name, ok := s["sink"].(string)
		if !ok {
			name = "spool"
		}
		out[name] = s
	}
	return out
}

// outageLines are the lines of the log that say of the database that it is away.
func outageLines(d *daemon) (lines []string) {
	for line := range strings.Lines(d.Stderr()) {
		if strings.Contains(line, "level=ERROR") && strings.Contains(line, "sink=store") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestAway: while the database is away the log says so once, siptrace.sinks knows it
// and how long messages wait, which is not since the last row; then all is well again.
func TestAway(t *testing.T) {
	t.Parallel()
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m, "trace", "utf8mb4")
	d.createTable(t, nil)
	ctl := "unix:" + filepath.Join(t.TempDir(), "ctl")
	run := start(t, options{dbURL: d.url, set: []string{"rpc.ctl=" + ctl, "shutdown_timeout=10m"}})
	run.feed(t, "udp", good("away-1"))
	d.await(t, run, "sip_trace", 1, time.Minute)
	state := func() (store, spool map[string]any) {
		t.Helper()
		all := sinks(t, run, ctl)
		return all["store"], all["spool"]
	}
	store, spool := state()
	if store["connected"] != 1.0 || store["last_error"] != "" || store["lag_seconds"] != 0.0 || store["pending"] != 0.0 || store["named_by"] != "configuration" {
		t.Errorf("while all is well: %v", store)
	}
	if spool["max_bytes"] != float64(8<<30) || spool["oldest_seconds"] != 0.0 || spool["full"] != 0.0 || spool["disk_free_bytes"] == 0.0 || spool["bytes"] == nil || spool["share_percent"] != 0.0 {
		t.Errorf("the spool: %v", spool)
	}
	time.Sleep(3 * time.Second) // nothing comes
	m.Stop(t)
	before := time.Now()
	for i := range 4 { // on every shard
		run.feed(t, "udp", good(fmt.Sprintf("away-%d", i+2)))
	}
	servers.WaitFor(t, time.Minute, "the database to be missed", func() bool {
		store, _ = state()
		return store["last_error"] != "" && store["pending"] == 4.0
	})
	if lag := store["lag_seconds"].(float64); lag > time.Since(before).Seconds() {
		t.Errorf("lag_seconds is %v, the messages came %s ago", lag, time.Since(before))
	}
	if waiting := store["waiting_bytes"].(float64); store["connected"] != 0.0 || waiting == 0 {
		t.Errorf("while the database is away: %v", store)
	}
	servers.WaitFor(t, time.Minute, "several attempts, and a lag", func() bool {
		store, spool = state()
		return store["retries"].(float64) >= 10 && store["lag_seconds"].(float64) >= 2
	})
	if oldest := spool["oldest_seconds"].(float64); oldest < store["lag_seconds"].(float64) {
		t.Errorf("the oldest message of the spool is %v s old, that of its sink %v s", oldest, store["lag_seconds"])
	}
	if lines := outageLines(run); len(lines) != 1 || !strings.Contains(lines[0], "messages wait in the spool") {
		t.Errorf("the log says %d times that the database is away, want once:\n%s", len(lines), strings.Join(lines, ""))
	}
	m.Start(t)
	d.await(t, run, "sip_trace", 5, time.Minute)
	servers.WaitFor(t, time.Minute, "the sink to be well", func() bool {
		store, _ = state()
		return store["connected"] == 1.0 && store["last_error"] == "" && store["lag_seconds"] == 0.0
	})
	if n := strings.Count(run.Stderr(), "sink: connected again"); n != 1 {
		t.Errorf("the log says %d times that the database is back, want once:\n%s", n, run.Stderr())
	}
	run.stop(t)
}

// TestStopAway: whoever stops siptraced while the database is away does not wait for
// it, whether messages wait or not; these are there at the next start.
func TestStopAway(t *testing.T) {
	t.Parallel()
	for _, messages := range []int{0, 3} {
		t.Run(fmt.Sprint(messages, " messages"), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := options{dbURL: fmt.Sprintf("mysql://u:p@127.0.0.1:%d/d", servers.FreePort(t)), dir: dir, set: []string{"shutdown_timeout=10m"}}
			run := start(t, o)
			for i := range messages {
				run.feed(t, "udp", good(fmt.Sprintf("stop-%d", i)))
			}
			servers.WaitFor(t, time.Minute, "the database to be missed", func() bool { return run.CountersNow(t)["store.retries"] > 2 })
			run.Signal(t, syscall.SIGTERM)
			if code := run.Wait(t, 30*time.Second); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if c := run.Counters(t); c[servers.Pending] != int64(messages) {
				t.Errorf("%v: want %d pending", c, messages)
			}
			if lines := outageLines(run); len(lines) != 1 || messages == 0 && strings.Contains(lines[0], "wait in the spool") {
				t.Errorf("the log of the outage, want one line that does not speak of messages where there are none:\n%s", strings.Join(lines, ""))
			}
			late := sqliteFile(t, filepath.Join(dir, "late.db"))
			o.dbURL = "sqlite://" + filepath.Join(dir, "late.db")
			run = start(t, o)
			if messages > 0 {
				late.await(t, run, "sip_trace", messages, time.Minute)
			}
			run.stop(t)
		})
	}
}
