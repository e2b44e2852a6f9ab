package control

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// between is a mirrored INVITE from one address to another.
func between(tb testing.TB, callID, src, dst string) []byte {
	tb.Helper()
	a, err1 := netip.ParseAddrPort(src)
	b, err2 := netip.ParseAddrPort(dst)
	if err1 != nil || err2 != nil {
		tb.Fatal(err1, err2)
	}
	m := load.Call(load.Spec{CallID: callID}, time.Now())[0]
	return load.HEP3(load.UDP, a, b, time.Now(), []byte(m.Payload))
}

// TestForward puts siptraced in front of a real Kamailio: what siptraced does not
// have is answered by it.
func TestForward(t *testing.T) {
	theirs := newEnds(t)
	k := kamailio(t, theirs)
	d := start(t, options{set: []string{"rpc.forward=unix:" + theirs.ctl}})

	equal := func(t *testing.T) {
		t.Helper()
		for _, args := range []string{
			"core.psx", "core.ps", "core.info", "core.version", "tm.stats", "core.sockets_list", "corex.list_sockets", "core.tcp_info", "core.echo a 5 1.25 b",
			"cfg.get tm fr_timer", "cfg.get tm nosuch", "cfg.list tm", "stats.get_statistics tm:", "stats.fetchn tm:", "stats.get_statistics nogroup:",
			"cnt.get core drop_requests", "cnt.grp_get_all tm", "cnt.var_list core", "system.methodHelp tm.stats", "tm.cancel", "pkg.stats", "no.such", "no.such with 1 parameter",
			"core.prints_one", "ctl.listen", "siptrace.status check", "siptrace.status bogus", "siptrace.status", "system.methodHelp siptrace.status",
		} {
			words := strings.Fields(args)
			for _, kind := range []string{"unix", "udp"} {
				a, b := theirs.kamcmd(t, "unix", words...), d.kamcmd(t, kind, words...)
				compare(t, "kamcmd, "+kind+": "+args, "", a, b)
			}
		}
		for _, args := range []string{"core.psx", "core.info", "tm.stats", "core.version", "corex.list_sockets", "cfg.get tm fr_timer", "stats.get_statistics tm:", "no.such"} {
			words := append([]string{"rpc"}, strings.Fields(args)...)
			compare(t, "kamctl: "+args, "", theirs.kamctl(t, words...).masked(), d.kamctl(t, words...).masked())
		}
		for _, c := range []struct{ args, has string }{{"core.psx", "DSC: "}, {"tm.stats", "current: 0"}, {"core.info", "version: kamailio "}} {
			if p := d.kamcmd(t, "unix", c.args); !strings.Contains(p.stdout, c.has) {
				t.Errorf("%s: %v, want %q in it", c.args, p, c.has)
			}
		}
	}
	methods := func(e ends) []string { return strings.Fields(e.kamcmd(t, "unix", "system.listMethods").stdout) }

	t.Run("answers", equal)
	t.Run("list of methods", func(t *testing.T) {
		list := methods(d.ends)
		want := append(methods(theirs), "siptrace.info", "siptrace.sinks", "siptrace.sources", "siptrace.reload")
		slices.Sort(want)
		want = slices.Compact(want)
		for _, m := range want {
			if !slices.Contains(list, m) {
				t.Errorf("%s is not listed", m)
			}
		}
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Errorf("not sorted, or doubles: %q", list)
		}
		if p := d.kamctl(t, "rpc", "system.listMethods"); !strings.Contains(p.stdout, `"tm.stats"`) || !strings.Contains(p.stdout, `"siptrace.sinks"`) {
			t.Errorf("kamctl: %v", p)
		}
	})
	t.Run("interactive", func(t *testing.T) {
		p := execute(t, "siptrace.status check\ntm.stats\ncore.version\nquit\n", nil, kamcmd, "-s", d.address("unix"))
		for _, want := range []string{"Enabled\n", "current: 0\n", "kamailio 5."} {
			if !strings.Contains(p.stdout, want) || p.exit != 0 {
				t.Errorf("%q is missing: %v", want, p)
			}
		}
	})
	t.Run("each has its own status", func(t *testing.T) {
		d.set(t, "off")
		if p := theirs.kamcmd(t, "unix", "siptrace.status", "check"); p.stdout != "Enabled\n" {
			t.Errorf("the proxy says %v", p)
		}
		d.set(t, "on")
	})

	elsewhere := "198.51.100.7:5060"
	t.Run("direction", func(t *testing.T) {
		d.feed(t, between(t, "sent", theirs.in, elsewhere), between(t, "received", elsewhere, theirs.in), between(t, "foreign", elsewhere, "198.51.100.8:5060"))
		if got, want := d.rows(t), []string{"foreign in", "received in", "sent out"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})

	// away checks that commands for the proxy fail clearly, and in time.
	away := func(t *testing.T, why string) {
		t.Helper()
		for _, kind := range kinds {
			p := d.kamcmd(t, kind, "tm.stats")
			if !strings.HasPrefix(p.stdout, "error: 5") || !strings.Contains(p.stdout, why) || p.exit != 0 || p.took > promptly {
				t.Errorf("kamcmd, %s: %v in %v, want a fault that it %s", kind, p, p.took, why)
			}
			if kind == "unix" {
				t.Logf("kamcmd tm.stats: %q in %v", p.stdout, p.took)
			}
		}
		p := d.kamctl(t, "rpc", "core.info")
		if !strings.Contains(p.stdout, `"code": 5`) || p.took > promptly {
			t.Errorf("kamctl: %v in %v, want a fault", p, p.took)
		}
		p = d.kamcmd(t, "unix", "system.listMethods")
		if !strings.Contains(p.stdout, "siptrace.status\n") || p.took > promptly {
			t.Errorf("list of methods: %v in %v, want our own", p, p.took)
		}
		d.works(t, "the proxy's end")
	}
	k.Stop(t)
	t.Run("stopped", func(t *testing.T) { away(t, "is not there") })

	// It comes back with another socket for SIP.
	old := theirs.in
	theirs.in = loopback(t)
	k = kamailio(t, theirs)
	t.Run("started again", equal)
	t.Run("another socket", func(t *testing.T) {
		d.Signal(t, syscall.SIGHUP)
		servers.WaitFor(t, time.Minute, "the new socket to be learned", func() bool { return strings.Contains(lastLine(d.Stderr(), "the proxy's sockets"), theirs.in) })
		before := len(d.rows(t))
		d.feed(t, between(t, "z-sent", theirs.in, elsewhere), between(t, "z-received", elsewhere, theirs.in))
		if got, want := d.rows(t)[before:], []string{"z-received in", "z-sent out"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q (old socket %s)", got, want, old)
		}
	})

	// A proxy that takes connections and says nothing.
	t.Run("stuck", func(t *testing.T) {
		pids := group(t, k.PID())
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		defer func() {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
		}()
		away(t, "does not answer in time")
	})
	t.Run("goes on", equal)
	d.MustStop(t)
	if err := d.Counters(t).Balanced(); err != nil {
		t.Errorf("books: %v", err)
	}
}

// TestForwardNobodyThere starts siptraced before its proxy.
func TestForwardNobodyThere(t *testing.T) {
	theirs := newEnds(t)
	d := start(t, options{set: []string{"rpc.forward=unix:" + theirs.ctl}})
	if p := d.kamcmd(t, "unix", "core.psx"); !strings.HasPrefix(p.stdout, "error: 5") || !strings.Contains(p.stdout, "is not there") {
		t.Errorf("core.psx: %v, want a fault that it is not there", p)
	}
	d.works(t, "a start without the proxy")
	kamailio(t, theirs)
	compare(t, "core.psx", "", theirs.kamcmd(t, "unix", "core.psx"), d.kamcmd(t, "unix", "core.psx"))
	d.MustStop(t)
}

// TestForwardStatus passes siptrace.status on.
func TestForwardStatus(t *testing.T) {
	theirs := newEnds(t)
	kamailio(t, theirs)
	d := start(t, options{set: []string{"rpc.forward=unix:" + theirs.ctl, "rpc.forward_status=1"}})
	for _, word := range []string{"off", "on"} {
		d.set(t, word)
		want := map[string]string{"off": "Disabled\n", "on": "Enabled\n"}[word]
		if p := theirs.kamcmd(t, "unix", "siptrace.status", "check"); p.stdout != want {
			t.Errorf("after %s the proxy says %v", word, p)
		}
	}
	d.MustStop(t)
}

// lastLine is the last line of a log that holds text.
func lastLine(log, text string) string {
	last := ""
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			last = line
		}
	}
	return last
}

// group are a process and its children.
func group(tb testing.TB, pid int) []int {
	tb.Helper()
	list := []int{pid}
	for _, f := range strings.Fields(string(readFile(tb, fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)))) {
		n := 0
		if _, err := fmt.Sscan(f, &n); err != nil {
			tb.Fatal(err)
		}
		list = append(list, n)
	}
	if len(list) < 3 {
		tb.Fatalf("processes of %d: %v", pid, list)
	}
	return list
}

// TestStatus switches tracing off and on.
func TestStatus(t *testing.T) {
	d := start(t, options{})
	const off = "dropped.trace_off"
	check := func(want string, rows int, dropped int64) {
		t.Helper()
		if p := d.kamctl(t, "rpc", "siptrace.status", "check"); !strings.Contains(p.stdout, want) {
			t.Errorf("status: %v, want %s", p, want)
		}
		if got := d.rows(t); len(got) != rows {
			t.Errorf("%d rows, want %d: %q", len(got), rows, got)
		}
		if n := d.CountersNow(t)[off]; n != dropped {
			t.Errorf("%s: got %d, want %d", off, n, dropped)
		}
	}
	batch := func(name string) [][]byte {
		var list [][]byte
		for i := range 10 {
			list = append(list, packet(fmt.Sprintf("%s-%d", name, i)))
		}
		return list
	}
	d.feed(t, batch("first")...)
	check("Enabled", 10, 0)
	d.set(t, "off") // kamcmd has its answer: from here on nothing is traced
	d.feed(t, batch("second")...)
	check("Disabled", 10, 10)
	if p := d.kamctl(t, "rpc", "siptrace.status", "on"); !strings.Contains(p.stdout, `"Enabled"`) {
		t.Errorf("kamctl: %v", p)
	}
	d.feed(t, batch("third")...)
	check("Enabled", 20, 10)
	for _, r := range d.rows(t) {
		if strings.HasPrefix(r, "second") {
			t.Errorf("a row of what came while it was off: %s", r)
		}
	}
	// The other ways to switch.
	for i, c := range []struct {
		how  string
		call func()
	}{
		{"MI FIFO", func() {
			f := replyFIFO(t, fmt.Sprintf("/tmp/control_test_%d", os.Getpid()))
			writeFIFO(t, d.mi, fmt.Sprintf(":sip_trace:control_test_%d\noff\n\n", os.Getpid()))
			if got := readReply(t, f, 1); got != "200 OK\n\n" {
				t.Errorf("MI: got %q", got)
			}
		}},
		{"HTTP", func() {
			c := dial(t, "tcp", d.http)
			write(t, c, []byte(strings.Replace(strings.Replace(string(httpRequest), "check", "off", 1), fmt.Sprint(len(jsonRequest)), fmt.Sprint(len(jsonRequest)-2), 1)))
			if got, _ := readQuiet(t, c, 1); !strings.Contains(string(got), "Disabled") {
				t.Errorf("HTTP: got %q", got)
			}
		}},
		{"cfg.seti", func() {
			if p := d.kamcmd(t, "unix", "cfg.seti", "siptrace", "trace_on", "0"); p.stdout != "" || p.exit != 0 {
				t.Errorf("cfg.seti: %v", p)
			}
		}},
	} {
		d.set(t, "on")
		c.call()
		d.feed(t, packet("off-by-"+c.how))
		check("Disabled", 20, int64(11+i))
	}
	d.set(t, "on")

	const changes = 8 // what changes nothing is not one
	servers.WaitFor(t, time.Minute, "the changes to be logged", func() bool { return strings.Count(d.Stderr(), `msg="setting changed"`) >= changes })
	log := d.Stderr()
	for _, want := range []string{
		"method=siptrace.status peer=\"unix:" + d.ctl + " uid=" + fmt.Sprint(os.Getuid()),
		"method=siptrace.status peer=fifo:" + d.fifo,
		"method=sip_trace peer=fifo:" + d.mi,
		"method=siptrace.status peer=http:127.0.0.1:",
		"method=cfg.seti peer=\"unix:" + d.ctl + " uid=" + fmt.Sprint(os.Getuid()),
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, linesWith(log, "setting changed"))
		}
	}
	if first := strings.SplitN(linesWith(log, "setting changed"), "\n", 2)[0]; !strings.Contains(first, "setting=siptrace.trace_on from=1 to=0") {
		t.Errorf("first change: %s", first)
	}
	if n := strings.Count(log, `msg="setting changed"`); n != changes {
		t.Errorf("%d changes logged, want %d:\n%s", n, changes, linesWith(log, "setting changed"))
	}

	// Nothing is kept over a restart.
	d.set(t, "off")
	d.MustStop(t)
	if err := d.Counters(t).Balanced(); err != nil {
		t.Errorf("books: %v", err)
	}
	d = start(t, options{ends: &d.ends, dir: d.Dir})
	if p := d.kamcmd(t, "unix", "siptrace.status", "check"); p.stdout != "Enabled\n" {
		t.Errorf("after a restart: %v, want what the configuration says", p)
	}
	d.MustStop(t)
}

// TestStateFile keeps the state over a restart, and over a crash.
func TestStateFile(t *testing.T) {
	dir := servers.ShortDir(t)
	o := options{dir: dir, set: []string{"rpc.state_file=" + dir + "/state"}}
	d := start(t, o)
	d.set(t, "off")
	if p := d.kamcmd(t, "unix", "cfg.sets", "siptraced", "log.level", "debug"); p.stdout != "" || p.exit != 0 {
		t.Errorf("cfg.sets: %v", p)
	}
	for _, end := range []string{"SIGTERM", "SIGKILL"} {
		if end == "SIGTERM" {
			d.MustStop(t)
		} else {
			d.Kill()
		}
		d = start(t, o)
		if p := d.kamcmd(t, "unix", "siptrace.status", "check"); p.stdout != "Disabled\n" {
			t.Errorf("after %s: %v, want that it is still off", end, p)
		}
		if p := d.kamcmd(t, "unix", "cfg.get", "siptraced", "log.level"); p.stdout != "debug\n" {
			t.Errorf("after %s: log.level %v, want debug", end, p)
		}
		before := d.CountersNow(t)["dropped.trace_off"]
		d.feed(t, packet("while-off"))
		if n := d.CountersNow(t)["dropped.trace_off"]; n != before+1 {
			t.Errorf("after %s: dropped.trace_off %d, want %d", end, n, before+1)
		}
	}
	// Many changes at once leave a whole file.
	done := make(chan printed)
	for i := range 40 {
		go func() {
			done <- execute(t, "", nil, kamcmd, "-s", d.address("unix"), "siptrace.status", []string{"on", "off"}[i%2])
		}()
	}
	for range 40 {
		if p := <-done; p.exit != 0 {
			t.Errorf("kamcmd: %v", p)
		}
	}
	d.set(t, "on")
	d.set(t, "off")
	d.MustStop(t)
	if strings.Contains(d.Stderr(), "level=ERROR") {
		t.Errorf("errors:\n%s", linesWith(d.Stderr(), "level=ERROR"))
	}
	d = start(t, o)
	if p := d.kamcmd(t, "unix", "siptrace.status", "check"); p.stdout != "Disabled\n" {
		t.Errorf("in the end: %v, want that it is off", p)
	}
	d.set(t, "on")
	d.MustStop(t)

	// With a state there is one store as well: what is spooled once is written once.
	d = start(t, o)
	before := len(d.rows(t))
	for i := range 5 {
		d.feed(t, packet(fmt.Sprintf("one-store-%d", i)))
	}
	if n := len(d.rows(t)) - before; n != 5 {
		t.Errorf("%d rows for 5 messages", n)
	}
	d.MustStop(t)
	if c := d.Counters(t); c["spooled"] != 5 || c["store.written"] != 5 || c["store.rows"] != 5 {
		t.Errorf("spooled %d, written %d, rows %d; want 5 of each", c["spooled"], c["store.written"], c["store.rows"])
	}

	// A damaged file is said, and not taken for nothing.
	if err := os.WriteFile(dir+"/state", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := servers.RunSiptraced(t, servers.Command{Bin: program, Dir: dir, Args: []string{"run", "--set", "listen=udp:127.0.0.1:0", "--set", "rpc.ctl=", "--set", "rpc.http=", "--set", o.set[0]}})
	if r.Code == 0 || !strings.Contains(r.Stderr, dir+"/state") {
		t.Errorf("damaged state file: exit %d, %s", r.Code, r.Stderr)
	}
}

// linesWith are the lines of a log that hold text.
func linesWith(log, text string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			b.WriteString(line)
		}
	}
	return b.String()
}
