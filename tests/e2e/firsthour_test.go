package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// hour is a new operator's first hour with README.md: a clone, Debian's Kamailio with
// its own kamailio.cfg, phones, and a shell.
type hour struct {
	t     *testing.T
	dir   string // the clone, where every command of README.md is run
	text  string // README.md
	proxy string // the proxy's kamailio.cfg
	port  int    // the proxy's
	kam   *servers.Kamailio
	run   *servers.Siptraced // the daemon of the last command that started one
	calls int
	db    *servers.MariaDB
	// table is the operator's, collected the collector's; first is the first call in
	// the table.
	table, collected *database
	first            int
}

// step is a line of README.md's shell blocks, known by a part of it, and what the
// operator does there.
type step struct {
	part string
	do   func(h *hour, line string)
}

// TestReadme is a new operator's first hour: every shell line of README.md in its
// order, and what an operator comes across beside them.
func TestReadme(t *testing.T) {
	t.Parallel()
	defaultPorts(t)
	h := &hour{t: t, dir: filepath.Join(t.TempDir(), "siptraced"), text: readme(t)}
	steps := []step{
		{"go run ./cmd/siptraced run", (*hour).firstRun},
		{"sqlite3 siptraced.db", (*hour).look},
		{"go build -o siptraced ./cmd/siptraced", (*hour).build},
		{"./siptraced check --live", (*hour).check},
		{"./siptraced run --kamailio-cfg", (*hour).collector},
		{"./siptraced rpc -s http:127.0.0.1:8060 siptrace.sinks", (*hour).caughtUp},
		{"./siptraced schema create -c siptraced.yaml", (*hour).createTable},
		{"./siptraced run --kamailio-cfg", (*hour).intoTable},
		{"mysql -h 127.0.0.1", (*hour).countRows},
	}
	for _, block := range blocks(h.text, "sh") {
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if len(steps) == 0 || !strings.Contains(line, steps[0].part) {
				t.Fatalf("README.md has %q, want the steps %v", line, steps)
			}
			t.Log(line)
			steps[0].do(h, line)
			steps = steps[1:]
		}
	}
	for _, s := range steps {
		t.Errorf("README.md has no %q any more", s.part)
	}
	h.both()
}

// firstRun clones, starts siptraced, puts what it prints into Debian's kamailio.cfg,
// and calls.
func (h *hour) firstRun(line string) {
	h.clone()
	args := strings.Fields(line)
	// The first start compiles.
	h.run = servers.StartSiptraced(h.t, servers.Command{Bin: goTool(h.t), Args: args[1:], Dir: h.dir})
	group := h.run.PID()
	h.t.Cleanup(func() { _ = syscall.Kill(-group, syscall.SIGKILL) }) // what go run started
	printsAll(h.t, h.run.Stderr(), blocks(h.text, "cfg")...)
	h.startProxy(blocks(h.text, "cfg")[0])
	h.call()
}

// clone copies what a clone has.
func (h *hour) clone() {
	h.t.Helper()
	for _, name := range []string{"cmd", "compat", "rpc", "hep", "dbschema", "xheaders"} {
		if err := os.CopyFS(filepath.Join(h.dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		write(h.t, filepath.Join(h.dir, name), readFile(h.t, filepath.Join(root, name)))
	}
}

func goTool(tb testing.TB) string {
	tb.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// startProxy puts lines behind the last loadmodule of the kamailio.cfg that Debian
// ships, and starts it. Where it listens stands in the file for that, which Debian's
// includes. It has one worker: with Debian's eight, on a busy machine, one of them
// sends a 200 on before another one its 180, which sipp does not take.
func (h *hour) startProxy(lines string) {
	h.t.Helper()
	debian := readFile(h.t, "/etc/kamailio/kamailio.cfg")
	last := strings.LastIndex(debian, "\nloadmodule ") + 1
	last += strings.Index(debian[last:], "\n") + 1
	if last < 2 {
		h.t.Fatal("Debian's kamailio.cfg has no loadmodule")
	}
	// The last one stands in an #!ifdef.
	last += strings.Index(debian[last:], "#!endif\n") + len("#!endif\n")
	dir := h.t.TempDir()
	h.port = servers.FreePort(h.t)
	listen := "udp:127.0.0.1:" + strconv.Itoa(h.port)
	write(h.t, filepath.Join(dir, "kamailio-local.cfg"), "listen="+listen+"\nalias=\"example.test\"\n")
	cfg := debian[:last] + lines + debian[last:]
	oneWorker := strings.Replace(cfg, "\nchildren=8\n", "\nchildren=1\n", 1)
	if oneWorker == cfg {
		h.t.Fatal("Debian's kamailio.cfg has no children=8")
	}
	h.proxy = write(h.t, filepath.Join(dir, "kamailio.cfg"), oneWorker)
	h.kam = servers.StartKamailioFile(h.t, h.proxy, listen)
}

// call has a phone register, and another one call it.
func (h *hour) call() {
	h.t.Helper()
	h.calls++
	proxy, user := "127.0.0.1:"+strconv.Itoa(h.port), fmt.Sprintf("bob%d", h.calls)
	phone := func(name string) servers.Sipp {
		return servers.Sipp{Name: name, Scenario: readFile(h.t, "testdata/sipp/"+name+".xml"), Remote: proxy, Calls: 1, User: user}
	}
	callee := phone("answer-call")
	callee.Remote, callee.LocalPort = "", servers.FreePort(h.t)
	answering := servers.StartSipp(h.t, callee)
	register := phone("register-open")
	register.Keys = map[string]string{"contact": fmt.Sprintf("127.0.0.1:%d", callee.LocalPort)}
	servers.RunSipp(h.t, time.Minute, register)
	servers.RunSipp(h.t, time.Minute, phone("call"))
	answering.Expect(h.t, time.Minute)
}

// wantCall are the messages of a call, with their directions: the proxy passes on
// what stands there twice.
var wantCall = []string{
	"ACK  in", "ACK  out", "BYE  in", "BYE  out", "BYE 200 in", "BYE 200 out", "INVITE  in", "INVITE  out", "INVITE 100 out",
	"INVITE 180 in", "INVITE 180 out", "INVITE 200 in", "INVITE 200 out", "REGISTER  in", "REGISTER 200 out",
}

// await waits until a call is in a table, whole and once.
func (h *hour) await(table *database, call int) {
	h.t.Helper()
	var got []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		got = nil
		rows, err := table.tryRows("sip_trace", nil)
		for _, r := range rows {
			if strings.Contains(r.Msg, fmt.Sprintf("<sip:bob%d@example.test>", call)) {
				got = append(got, r.Method+" "+r.Status+" "+r.Direction)
			}
		}
		slices.Sort(got)
		if slices.Equal(got, wantCall) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("call %d: %v, rows %q, want %q\n%s", call, err, got, wantCall, h.run.Tail(30))
		}
	}
}

// look reads what the first run wrote.
func (h *hour) look(line string) {
	h.await(sqliteFile(h.t, filepath.Join(h.dir, "siptraced.db")), h.calls)
	awaitOutput(h.t, h.dir, line, "|INVITE|200|udp:127.0.0.1:")
}

// build ends the first run as its operator does, with Ctrl-C, and builds.
func (h *hour) build(line string) {
	if err := syscall.Kill(-h.run.PID(), syscall.SIGINT); err != nil {
		h.t.Fatal(err)
	}
	h.run.Wait(h.t, time.Minute)
	awaitOutput(h.t, h.dir, line, "")
}

// ours is a line of README.md with the files and addresses of the test.
func (h *hour) ours(line string) string {
	return strings.ReplaceAll(line, "/etc/kamailio/kamailio.cfg", h.proxy)
}

// start starts the daemon of a line, in the place of the one before.
func (h *hour) start(line string) {
	h.t.Helper()
	if h.run.Running() {
		h.run.MustStop(h.t)
	}
	args := strings.Fields(strings.ReplaceAll(h.ours(line), "'", ""))
	h.run = servers.StartSiptraced(h.t, servers.Command{Bin: filepath.Join(h.dir, args[0]), Args: args[1:], Dir: h.dir})
}

// check asks the world before the daemon runs.
func (h *hour) check(line string) { awaitOutput(h.t, h.dir, h.ours(line), "came back as it was") }

// collector has siptraced keep what a collector misses that is away. But first
// without one: the proxy stores nothing, and siptraced keeps all.
func (h *hour) collector(line string) {
	alone, _, ok := strings.Cut(line, " --set")
	if !ok {
		h.t.Fatalf("no destination in %q", line)
	}
	h.start(alone)
	if n := strings.Count(h.run.Stderr(), "siptraced keeps them in siptraced.db"); n != 1 {
		h.t.Errorf("siptraced says %d times that it keeps the messages, want once:\n%s", n, h.run.Stderr())
	}
	h.call()
	h.await(sqliteFile(h.t, filepath.Join(h.dir, "siptraced.db")), h.calls)

	h.start(line)
	if strings.Contains(h.run.Stderr(), "keeps them") {
		h.t.Errorf("siptraced keeps what a collector gets:\n%s", h.run.Stderr())
	}
	h.call()
	h.awaitPending("mirror.127.0.0.1-9061-tcp.pending")
}

// caughtUp starts the collector, which another siptraced plays; it gets what it
// missed.
func (h *hour) caughtUp(line string) {
	dir := h.t.TempDir()
	servers.StartSiptraced(h.t, servers.Command{
		Bin: program, Dir: dir,
		Args: append([]string{"run", "--set", "listen=tcp:127.0.0.1:9061", "--set", "local=udp:127.0.0.1:" + strconv.Itoa(h.port)}, noControl...),
	})
	awaitOutput(h.t, h.dir, line, "pending: 0")
	awaitOutput(h.t, h.dir, line, "connected: 1")
	h.collected = sqliteFile(h.t, filepath.Join(dir, "siptraced.db"))
	h.await(h.collected, h.calls)
	h.call()
	h.await(h.collected, h.calls)
}

// configure writes the siptraced.yaml of README.md, with another password.
func (h *hour) configure(password string, more ...string) {
	h.t.Helper()
	yaml := strings.Replace(blocks(h.text, "yaml")[0], "127.0.0.1/kamailio", h.db.Addr()+"/kamailio", 1)
	write(h.t, filepath.Join(h.dir, "siptraced.yaml"), strings.Replace(yaml, ":kamailiorw@", ":"+password+"@", 1)+strings.Join(more, ""))
}

// createTable has the database that README.md names, and the user.
func (h *hour) createTable(line string) {
	h.db = servers.StartMariaDB(h.t)
	h.table = mariaDB(h.t, h.db, "kamailio", "utf8mb4")
	h.table.exec(h.t, "CREATE USER 'kamailio'@'%' IDENTIFIED BY 'kamailiorw'")
	h.table.exec(h.t, "GRANT ALL ON kamailio.* TO 'kamailio'@'%'")
	h.configure("kamailiorw")
	awaitOutput(h.t, h.dir, line, "sip_trace made")
}

// intoTable fills the table; with a wrong password first, and with a database that is
// away at the end.
func (h *hour) intoTable(line string) {
	h.configure("wrong")
	h.start(line)
	h.first = h.calls + 1
	h.call()
	h.awaitPending(servers.Pending)
	h.configure("kamailiorw")
	h.run.Signal(h.t, syscall.SIGHUP)
	since := time.Now()
	h.await(h.table, h.calls)
	h.t.Logf("rows %v after the SIGHUP that mended the password", time.Since(since).Round(time.Millisecond))

	h.db.Stop(h.t)
	h.call()
	h.awaitPending(servers.Pending)
	since = time.Now()
	h.run.MustStop(h.t)
	h.t.Logf("siptraced ended %v after SIGTERM, with the database away", time.Since(since).Round(time.Millisecond))
	h.db.Start(h.t)
	h.start(line)
	h.await(h.table, h.calls)
}

// awaitPending waits until a call waits for a sink.
func (h *hour) awaitPending(counter string) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		c := h.run.CountersNow(h.t)
		if c[counter] == int64(len(wantCall)) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s is %d, want %d: %v", counter, c[counter], len(wantCall), c)
		}
	}
}

// countRows asks with Debian's client.
func (h *hour) countRows(line string) {
	line = strings.Replace(line, "-h 127.0.0.1", "-h 127.0.0.1 -P "+strconv.Itoa(h.db.Port), 1)
	awaitOutput(h.t, h.dir, line, "\n"+strconv.Itoa((h.calls-h.first+1)*len(wantCall))+"\n")
}

// both adds the collector.
func (h *hour) both() {
	h.configure("kamailiorw", blocks(h.text, "yaml")[1])
	h.run.Signal(h.t, syscall.SIGHUP)
	servers.WaitFor(h.t, time.Minute, "the collector to be taken over", func() bool { return strings.Contains(h.run.Stderr(), "setting=destinations") })
	h.call()
	h.await(h.table, h.calls)
	h.await(h.collected, h.calls)
	h.run.MustStop(h.t)
}
