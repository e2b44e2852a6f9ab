package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// live is one directory in which `check --live` runs.
type live struct {
	dir, tmp string
	port     int
}

func newLive(t *testing.T) *live {
	t.Helper()
	return &live{dir: t.TempDir(), tmp: t.TempDir(), port: servers.FreePort(t)}
}

func (l *live) command(args ...string) servers.Command {
	fixed := []string{"check", "--live", "--set", fmt.Sprintf("listen=udp:127.0.0.1:%d,tcp:127.0.0.1:%[1]d", l.port), "--set", "rpc.http=", "--set", "rpc.ctl=unix:ctl"}
	return servers.Command{Bin: program, Dir: l.dir, Env: []string{"TMPDIR=" + l.tmp}, Args: append(fixed, args...)}
}

// check runs it, and wants its exit code, in one line each all the words of an entry
// of want, and no file left behind.
func (l *live) check(t *testing.T, code int, want [][]string, args ...string) {
	t.Helper()
	before := listed(t, l.dir)
	r := servers.RunSiptraced(t, l.command(args...))
	if r.Code != code {
		t.Errorf("exit code %d, want %d", r.Code, code)
	}
	for _, words := range want {
		if !lineHas(r.Stdout, words...) {
			t.Errorf("no line with %q", words)
		}
	}
	if code == 0 && strings.Contains(r.Stdout, "FAILED") {
		t.Error("FAILED, and exit code 0")
	}
	if after := listed(t, l.dir); after != before {
		t.Errorf("files before: %s\nafter: %s", before, after)
	}
	if left := listed(t, l.tmp); left != "" {
		t.Errorf("left in the temporary directory: %s", left)
	}
	if t.Failed() {
		t.Logf("%s%s", r.Stdout, r.Stderr)
	}
}

// listed are the files of a directory.
func listed(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// lineHas reports whether one line has all the texts.
func lineHas(text string, parts ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			return true
		}
	}
	return false
}

// liveServer is a database server on which accounts can be made.
type liveServer struct {
	name, scheme, addr string
	open               func(t *testing.T, name string) *database
	// account makes a user with the password "secret"; grant are statements that give
	// it rights on the present tables.
	account func(t *testing.T, d *database, user string, rights string)
	// tables lists every table with its rows.
	tables string
}

// TestLiveDatabase: what `check --live` finds in a database, and that it leaves
// nothing there.
func TestLiveDatabase(t *testing.T) {
	t.Parallel()
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		m := servers.StartMariaDB(t)
		liveDatabase(t, liveServer{
			name: "MariaDB", scheme: "mysql", addr: m.Addr(),
			open: func(t *testing.T, name string) *database { return mariaDB(t, m, name, "utf8mb4") },
			account: func(t *testing.T, d *database, user, rights string) {
				d.exec(t, fmt.Sprintf("CREATE OR REPLACE USER '%s'@'%%' IDENTIFIED BY 'secret'", user))
				on := "*"
				if right, table, one := strings.Cut(rights, " ON "); one {
					rights, on = right, table
				}
				d.exec(t, fmt.Sprintf("GRANT %s ON %s TO '%s'@'%%'", rights, on, user))
			},
			tables: "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1",
		})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		p := servers.StartPostgres(t)
		liveDatabase(t, liveServer{
			name: "postgres", scheme: "postgres", addr: p.Addr(),
			open: func(t *testing.T, name string) *database { return postgres(t, p, name) },
			account: func(t *testing.T, d *database, user, rights string) {
				d.exec(t, "CREATE ROLE "+user+" LOGIN PASSWORD 'secret'")
				on := "ALL TABLES IN SCHEMA public"
				if right, table, one := strings.Cut(rights, " ON "); one {
					rights, on = right, table
				}
				if rest, create := strings.CutSuffix(rights, ", CREATE, DROP"); create {
					rights = rest
					d.exec(t, "GRANT CREATE ON SCHEMA public TO "+user)
				}
				d.exec(t, fmt.Sprintf("GRANT %s ON %s TO %s", rights, on, user))
				d.exec(t, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+user)
			},
			tables: "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
		})
	})
}

func liveDatabase(t *testing.T, s liveServer) {
	const through = "came back as it was, and the table is gone again"
	for _, tt := range []struct {
		name   string
		create bool // siptraced schema create
		script bool // Kamailio's scripts
		rights string
		url    string // other than that of the user; %s is the address
		code   int
		want   [][]string
	}{
		{"all is well", true, false, "SELECT, INSERT, UPDATE, CREATE, DROP", "", 0, [][]string{
			{"ok ", "database", s.name}, {"ok ", "table", "version 4"}, {"ok ", "INSERT into sip_trace works"}, {"ok ", "siptraced_position can be written"}, {"ok ", "siptraced_log can be written"}, {"ok ", "message", through},
		}},
		{"Kamailio's table alone", false, true, "SELECT, INSERT, UPDATE, CREATE, DROP", "", 0, [][]string{
			{"ok ", "siptraced_position is not there yet: run makes it"}, {"ok ", "siptraced_log is not there yet"}, {"ok ", "message", through},
		}},
		{"no right to make tables", true, false, "SELECT, INSERT, UPDATE", "", 0, [][]string{
			{"ok ", "siptraced_position can be written"}, {"ok ", "message", "SQLite file of its own"}, {"not tried", "the user can't make a table there"},
		}},
		{"wrong password", true, false, "SELECT", s.scheme + "://%s:wrong@%s/%s", 1, [][]string{{"FAILED", "database", "siptrace.db_url: --set siptrace.db_url"}, {"not tried", "message"}}},
		{"no such database", true, false, "SELECT", s.scheme + "://%s:secret@%s/%s_none", 1, [][]string{{"FAILED", "database", "_none"}}},
		{"no such server", true, false, "SELECT", s.scheme + "://%s:secret@127.0.0.1:1/%[3]s", 1, [][]string{{"FAILED", "database", "connection refused", "start it"}}},
		{"no table", false, false, "", "", 1, [][]string{{"FAILED", "table", "no such table", "siptraced schema create"}}},
		{"no INSERT", true, false, "SELECT", "", 1, [][]string{{"FAILED", "grants", "denied", "GRANT INSERT ON", "sip_trace"}, {"FAILED", "siptraced_position", "twice"}}},
		{"nothing beside the table", false, true, "SELECT, INSERT", "", 1, [][]string{
			{"ok ", "INSERT into sip_trace works"}, {"FAILED", "siptraced_position", "rows may be written twice", "siptraced schema create"}, {"warning", "siptraced_log"},
		}},
		{"INSERT alone", true, false, "INSERT ON sip_trace", "", 1, [][]string{{"ok ", "INSERT into sip_trace works"}, {"warning", "SELECT from sip_trace"}, {"FAILED", "siptraced_position"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := databaseName(tt.name)
			d := s.open(t, name)
			if tt.create {
				siptraced(t, 0, "schema", "create", "--db-url", d.url)
			}
			if tt.script {
				d.createTable(t, nil)
			}
			url, user := d.url, "u_"+name
			if tt.rights != "" {
				s.account(t, d, user, tt.rights)
				url = fmt.Sprintf("%s://%s:secret@%s/%s", s.scheme, user, s.addr, name)
			}
			if tt.url != "" {
				url = fmt.Sprintf(tt.url, user, s.addr, name)
			}
			before := contents(t, d, s.tables)
			newLive(t).check(t, tt.code, tt.want, "--set", "siptrace.db_url="+url, "--set", "siptrace.trace_to_database=1")
			if after := contents(t, d, s.tables); after != before {
				t.Errorf("the database before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
	// schema check says what run would warn of, with the same user.
	t.Run("schema check", func(t *testing.T) {
		d := s.open(t, "schema_check")
		d.createTable(t, nil)
		s.account(t, d, "u_schema_check", "SELECT, INSERT")
		const warning = "warning: siptraced_position: the position can't be kept, after a crash rows may be written twice"
		before := contents(t, d, s.tables)
		r := siptraced(t, 0, "schema", "check", "--db-url", fmt.Sprintf("%s://u_schema_check:secret@%s/schema_check", s.scheme, s.addr))
		if !strings.Contains(r.Stdout, warning) || !strings.Contains(r.Stdout, "siptraced schema create") || !strings.Contains(r.Stdout, "can be written") {
			t.Errorf("no warning in\n%s", r.Stdout)
		}
		if r := siptraced(t, 0, "schema", "check", "--db-url", d.url); strings.Contains(r.Stdout, "warning") {
			t.Errorf("a user who may make tables: warning in\n%s", r.Stdout)
		}
		if after := contents(t, d, s.tables); after != before {
			t.Errorf("the database before:\n%s\nafter:\n%s", before, after)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		d := s.open(t, "interrupted")
		d.createTable(t, nil)
		before := contents(t, d, s.tables)
		l := newLive(t)
		// Whatever it is at work on.
		for wait := time.Duration(0); wait < 200*time.Millisecond; wait += 20 * time.Millisecond {
			c := l.command("--set", "siptrace.db_url="+d.url)
			p := servers.StartProgram(t, c)
			time.Sleep(wait)
			p.Signal(t, syscall.SIGINT)
			p.Wait(t, time.Minute)
		}
		if after := contents(t, d, s.tables); after != before {
			t.Errorf("the database before:\n%s\nafter:\n%s", before, after)
		}
		if left := listed(t, l.dir) + listed(t, l.tmp); left != "" {
			t.Errorf("left: %s", left)
		}
	})
}

// contents are the tables of a database with their rows.
func contents(t *testing.T, d *database, tables string) string {
	t.Helper()
	var out []string
	for _, line := range d.dump(t, tables) {
		table, _, _ := strings.Cut(strings.TrimSuffix(strings.SplitN(line, `"`, 3)[1], " "), `"`)
		out = append(out, append([]string{line}, d.dump(t, "SELECT * FROM "+table)...)...)
	}
	return strings.Join(out, "\n")
}

// TestLiveHost: what `check --live` finds on the host.
func TestLiveHost(t *testing.T) {
	t.Parallel()
	good := [][]string{{"ok ", "listen", "udp", "is free"}, {"ok ", "rpc", "ctl unix:ctl is free"}, {"ok ", "spool", "siptraced.spool can be written"}, {"ok ", "rejects"}, {"ok ", "message"}}
	t.Run("all is well", func(t *testing.T) {
		t.Parallel()
		newLive(t).check(t, 0, append(good, []string{"ok ", "siptraced.db is not there yet"}))
	})
	t.Run("port in use", func(t *testing.T) {
		t.Parallel()
		l := newLive(t)
		me := fmt.Sprintf("(pid %d)", os.Getpid())
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", l.port))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		l.check(t, 1, [][]string{{"FAILED", "listen", fmt.Sprintf("udp:127.0.0.1:%d is in use by e2e.test %s", l.port, me), "key listen: --set listen"}, {"ok ", "tcp"}})
		tcp, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		l.check(t, 1, [][]string{{"FAILED", "listen", "tcp", me}, {"FAILED", "listen", "udp", me}})
		l.port = servers.FreePort(t)
		l.check(t, 1, [][]string{{"FAILED", "rpc", tcp.Addr().String(), me, "key rpc.http"}}, "--set", "rpc.http="+tcp.Addr().String())
		ctl, err := net.Listen("unix", filepath.Join(l.dir, "ctl"))
		if err != nil {
			t.Fatal(err)
		}
		defer ctl.Close()
		l.check(t, 1, [][]string{{"FAILED", "rpc", "unix:ctl", "another program answers at it", "key rpc.ctl"}})
	})
	t.Run("not of this host", func(t *testing.T) {
		t.Parallel()
		newLive(t).check(t, 1, [][]string{{"FAILED", "listen", "192.0.2.1"}}, "--set", "listen=udp:192.0.2.1:9060")
	})
	t.Run("no cluster", func(t *testing.T) {
		t.Parallel()
		newLive(t).check(t, 1, [][]string{{"FAILED", "spool", "no server of the cluster answers", "spool.nats"}}, "--set", "spool.nats=nats://127.0.0.1:1")
	})
	t.Run("files", func(t *testing.T) {
		t.Parallel()
		l := newLive(t)
		write(t, filepath.Join(l.dir, "plain"), "")
		write(t, filepath.Join(l.dir, "damaged"), "{")
		for _, tt := range []struct{ key, value string }{
			{"store.reject_file", "none/rejects"},
			{"store.reject_file", "."},
			{"rules.state_file", "none/rules"},
			{"rules.state_file", "damaged"},
			{"rpc.state_file", "plain/x"},
			{"spool.dir", "plain"},
			{"spool.dir", "plain/spool"},
		} {
			l.check(t, 1, [][]string{{"FAILED", strings.TrimSuffix(tt.value, "."), "(key " + tt.key + ": --set " + tt.key + ")"}}, "--set", tt.key+"="+tt.value)
		}
		l.check(t, 1, [][]string{{"FAILED", "database", "none/x.db"}}, "--set", "siptrace.db_url=sqlite://none/x.db")
	})
	t.Run("another user", func(t *testing.T) {
		t.Parallel()
		dir := servers.ShortDir(t)
		asNobody(t, dir)
		home := filepath.Join(dir, "home")
		for _, name := range []string{"rejects", "db", "spool"} {
			if err := os.Mkdir(filepath.Join(home, name), 0o755); err != nil { // root's
				t.Fatal(err)
			}
		}
		l := newLive(t)
		c := l.command("--set", "store.reject_file=rejects/x", "--set", "siptrace.db_url=sqlite://db/x.db", "--set", "spool.dir=spool")
		c.Args = append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", filepath.Join(dir, "siptraced")}, c.Args...)
		c.Bin, c.Dir, c.Env = "/usr/bin/setpriv", home, nil
		r := servers.RunSiptraced(t, c)
		for _, want := range [][]string{
			{"ok ", "user", "nobody"}, {"FAILED", "rejects/x: permission denied", "store.reject_file"}, {"FAILED", "db/x.db: permission denied"}, {"FAILED", "spool", "permission denied", "spool.dir"},
		} {
			if !lineHas(r.Stdout, want...) {
				t.Errorf("no line with %q in\n%s%s", want, r.Stdout, r.Stderr)
			}
		}
		if r.Code != 1 {
			t.Errorf("exit code %d", r.Code)
		}
	})
	t.Run("beside siptraced", func(t *testing.T) {
		t.Parallel()
		l := newLive(t)
		args := l.command().Args
		d := servers.StartSiptraced(t, servers.Command{Bin: program, Dir: l.dir, Args: append([]string{"run"}, args[2:]...)})
		files := "ctl siptraced.db siptraced.db-shm siptraced.db-wal siptraced.rejects.jsonl siptraced.spool"
		servers.WaitFor(t, time.Minute, "the daemon to have its files", func() bool { return listed(t, l.dir) == files })
		by := fmt.Sprintf("in use by the running siptraced (pid %d)", d.PID())
		beside := [][]string{{"ok ", "running"}, {"ok ", "udp", by}, {"ok ", "tcp", by}, {"ok ", "rpc", by}, {"ok ", "spool", by}, {"ok ", "database"}, {"ok ", "message", "the table is gone again"}}
		l.check(t, 0, beside)
		// It takes messages all the while.
		(&daemon{Siptraced: d, addr: fmt.Sprintf("127.0.0.1:%d", l.port)}).feed(t, "udp", []byte("not sip"))
		l.check(t, 0, beside)
		// One that can't be asked is another program.
		l.check(t, 1, [][]string{
			{"FAILED", "listen", "udp", fmt.Sprintf("in use by %s (pid %d)", filepath.Base(program), d.PID())}, {"FAILED", "spool", fmt.Sprintf("in use by another siptraced (pid %d)", d.PID()), "spool.dir"},
		}, "--set", "rpc.ctl=unix:other")
		d.MustStop(t)
		l.check(t, 0, good)
	})
}
