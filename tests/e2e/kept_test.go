package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestKept is the commonest real set-up: the proxy stores nothing and mirrors to
// siptraced alone, with the very lines that siptraced prints. The messages are kept
// in a file, which is said once; SIGHUP leads to a database, to nothing, and back.
func TestKept(t *testing.T) {
	t.Parallel()
	port := servers.FreePort(t)
	listen := fmt.Sprintf("listen=udp:127.0.0.1:%d", port)
	dir := t.TempDir()
	cfg := filepath.Join(dir, "kamailio.cfg")
	proxy := func(lines string) {
		write(t, cfg, "#!KAMAILIO\nlisten=udp:192.0.2.1:5060\n"+lines+"request_route { exit; }\n")
	}

	hint := servers.StartSiptraced(t, servers.Command{Bin: program, Args: append([]string{"run", "--set", listen}, noControl...)})
	hint.MustStop(t)
	var lines strings.Builder
	for line := range strings.Lines(hint.Stderr()) {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "loadmodule ") || strings.HasPrefix(text, "modparam(") {
			lines.WriteString(text + "\n")
		}
	}
	proxy(lines.String())

	yaml := write(t, filepath.Join(dir, "siptraced.yaml"), "")
	args := append([]string{"--kamailio-cfg", cfg, "-c", yaml, "--set", listen}, noControl...)
	run := &daemon{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	run.Siptraced = servers.StartSiptraced(t, servers.Command{Bin: program, Args: append([]string{"run"}, args...), Dir: dir})
	sent := 0
	send := func() {
		t.Helper()
		sent++
		run.feed(t, "udp", good(fmt.Sprintf("kept-%d", sent)))
	}
	send()
	own := sqliteFile(t, filepath.Join(dir, "siptraced.db"))
	own.await(t, run, "sip_trace", 1, time.Minute)
	const kept = "siptraced keeps them in siptraced.db"
	for _, line := range strings.Split(run.Stderr(), "\n") {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "not a mirror") || strings.Contains(line, "mysql") {
			t.Errorf("in the log of a set-up that is as it should be: %s", line)
		}
	}
	if n := strings.Count(run.Stderr(), kept); n != 1 || !strings.Contains(run.Stderr(), "level=WARN msg=configuration warning=") {
		t.Errorf("said %d times where the messages are, want once, as a warning:\n%s", n, run.Stderr())
	}
	check := servers.RunSiptraced(t, servers.Command{Bin: program, Args: append([]string{"check"}, args...), Dir: dir})
	if check.Code != 0 || strings.Count(check.Stdout, kept) != 1 {
		t.Errorf("check: code %d, want the same line once:\n%s", check.Code, check.Stdout)
	}

	// reload has the daemon read its files again, and waits for a line of the log.
	reload := func(what string) {
		t.Helper()
		before := len(run.Stderr())
		run.Signal(t, syscall.SIGHUP)
		servers.WaitFor(t, time.Minute, "the log to say "+what, func() bool { return strings.Contains(run.Stderr()[before:], what) })
	}
	write(t, yaml, "siptrace: {trace_to_database: 1, db_url: \"sqlite://"+filepath.Join(dir, "named.db")+"\"}\n")
	reload("siptrace.db_url")
	send()
	named := sqliteFile(t, filepath.Join(dir, "named.db"))
	named.await(t, run, "sip_trace", 1, time.Minute)

	write(t, yaml, "siptrace: {trace_to_database: 0}\n")
	reload("every message that comes in is dropped")
	send()
	servers.WaitFor(t, time.Minute, "the message to be dropped", func() bool { return run.CountersNow(t)["dropped.no_sink"] == 1 })

	write(t, yaml, "")
	reload(kept)
	send()
	own.await(t, run, "sip_trace", 2, time.Minute)
	if n := named.count("sip_trace"); n != 1 {
		t.Errorf("%d rows in the database that was named for a while, want 1", n)
	}
	// What went into the other one is not missing here.
	if n := own.count("sip_trace"); n != 2 || strings.Contains(run.Stderr(), "level=ERROR") {
		t.Errorf("%d rows in the file, want 2, and no error:\n%s", n, run.Tail(30))
	}
	run.stop(t)
}

// TestDropped: whoever has messages dropped is told at start, and by check.
func TestDropped(t *testing.T) {
	t.Parallel()
	const dropped = "every message that comes in is dropped"
	args := append([]string{"--set", fmt.Sprintf("listen=udp:127.0.0.1:%d", servers.FreePort(t)), "--set", "siptrace.trace_to_database=0"}, noControl...)
	run := servers.StartSiptraced(t, servers.Command{Bin: program, Args: append([]string{"run"}, args...)})
	check := servers.RunSiptraced(t, servers.Command{Bin: program, Args: append([]string{"check"}, args...)})
	for what, text := range map[string]string{"run": run.Stderr(), "check": check.Stdout} {
		if strings.Count(text, dropped) != 1 || !strings.Contains(text, "siptrace.db_url") {
			t.Errorf("%s does not say once that everything is dropped, and what to set:\n%s", what, text)
		}
	}
	if strings.Contains(run.Stderr(), "database=") {
		t.Errorf("names a database that is not used:\n%s", run.Stderr())
	}
	run.MustStop(t)
}
