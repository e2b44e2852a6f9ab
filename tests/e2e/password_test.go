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

// A password of the database that changed is taken at SIGHUP, and so is another
// user. What came in between waits in the spool, and is written once. Users may do
// no more than the table needs: the sink's offset can't be kept beside the rows.
func TestReloadPassword(t *testing.T) {
	t.Parallel()
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		m := servers.StartMariaDB(t)
		d := mariaDB(t, m, "trace", "utf8mb4")
		d.createTable(t, nil)
		reloadPassword(t, d, "mysql", m.Addr(), func(user, password string) {
			d.exec(t, fmt.Sprintf("CREATE USER IF NOT EXISTS '%s'@'%%'", user))
			d.exec(t, fmt.Sprintf("ALTER USER '%s'@'%%' IDENTIFIED BY '%s'", user, password))
			d.exec(t, fmt.Sprintf("GRANT SELECT, INSERT ON trace.* TO '%s'@'%%'", user))
		}, func(user string) { d.exec(t, "KILL USER '"+user+"'@'%'") })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		p := servers.StartPostgres(t)
		d := postgres(t, p, "trace")
		d.createTable(t, nil)
		reloadPassword(t, d, "postgres", p.Addr(), func(user, password string) {
			if d.value(t, "SELECT COUNT(*) FROM pg_roles WHERE rolname = $1", user) == "0" {
				d.exec(t, "CREATE ROLE "+user+" LOGIN")
			}
			d.exec(t, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", user, password))
			d.exec(t, "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO "+user)
			d.exec(t, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+user)
		}, func(user string) {
			d.value(t, "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", user)
		})
	})
}

// reloadPassword has a daemon write to d as users whose passwords change. account
// makes a user, or changes its password; disconnect ends its sessions.
func reloadPassword(t *testing.T, d *database, scheme, addr string, account func(user, password string), disconnect func(user string)) {
	cfg := filepath.Join(t.TempDir(), "kamailio.cfg")
	configure := func(user, password string) {
		write(t, cfg, fmt.Sprintf("#!KAMAILIO\nlisten=udp:192.0.2.1:5060\nloadmodule \"siptrace.so\"\n"+
			"modparam(\"siptrace\", \"trace_on\", 1)\nmodparam(\"siptrace\", \"trace_to_database\", 1)\n"+
			"modparam(\"siptrace\", \"db_url\", \"%s://%s:%s@%s/trace\")\nrequest_route { exit; }\n", scheme, user, password, addr))
	}
	account("tracer", "first-secret")
	configure("tracer", "first-secret")
	state := write(t, filepath.Join(t.TempDir(), "state"), `{"siptrace.trace_on": "1"}`)
	run := start(t, options{config: cfg, set: []string{"spool.dir=" + t.TempDir(), "rpc.state_file=" + state}})
	sent := 0
	send := func(n int) {
		t.Helper()
		for range n {
			sent++
			run.feed(t, "udp", good(fmt.Sprintf("password-%d", sent)))
		}
	}
	send(5)
	d.await(t, run, "sip_trace", sent, time.Minute)

	account("tracer", "second-secret")
	disconnect("tracer")
	send(5)
	servers.WaitFor(t, time.Minute, "the daemon to be refused", func() bool { return run.CountersNow(t)["store.retries"] > 0 })
	if n := d.count("sip_trace"); n != 5 {
		t.Errorf("%d rows while the password is wrong, want 5", n)
	}
	configure("tracer", "second-secret")
	run.Signal(t, syscall.SIGHUP)
	d.await(t, run, "sip_trace", sent, time.Minute)

	account("other", "third-secret")
	configure("other", "third-secret")
	run.Signal(t, syscall.SIGHUP)
	servers.WaitFor(t, time.Minute, "the other user to be taken", func() bool { return strings.Count(run.Stderr(), "db_url") > 1 })
	account("tracer", "fourth-secret")
	disconnect("tracer")
	send(5)
	d.await(t, run, "sip_trace", sent, time.Minute)

	c := run.stop(t)
	if c[servers.Written] != int64(sent) || d.count("sip_trace") != sent {
		t.Errorf("%d rows, counters %v; want %d", d.count("sip_trace"), c, sent)
	}
	if strings.Contains(run.Stderr(), "secret") {
		t.Errorf("a password is in the log:\n%s", run.Stderr())
	}
}
