package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// spoolTool runs a command of siptraced spool.
func spoolTool(t *testing.T, args ...string) servers.Result {
	t.Helper()
	return servers.RunSiptraced(t, servers.Command{Bin: program, Dir: t.TempDir(), Args: append([]string{"spool"}, args...)})
}

// TestSpoolTool: what waits in the spool of a running daemon is checked, and dumped in
// each format; every dump, put back, makes the same rows as the spool itself, once.
func TestSpoolTool(t *testing.T) {
	t.Parallel()
	const calls = 20
	messages := load.Calls(13*calls, time.Now())
	spool := filepath.Join(t.TempDir(), "spool")
	set := []string{"spool.dir=" + spool, "local=udp:" + load.Proxy.String(), "spool.shards=3"}
	run := start(t, options{dbURL: "mysql://nobody:nothing@127.0.0.1:1/none", set: set})
	for _, m := range messages {
		run.feed(t, "udp", m.Packet)
	}
	servers.WaitFor(t, time.Minute, "the messages to be spooled", func() bool {
		return run.CountersNow(t)[servers.Spooled] == int64(len(messages))
	})
	whole := fmt.Sprintf("%d messages in ", len(messages))
	expect(t, spoolTool(t, "check", spool), 0, whole, fmt.Sprintf("process %d works on it", run.PID()), "nothing is wrong")
	bar := servers.RunSiptraced(t, servers.Command{Bin: "/usr/bin/script", Dir: t.TempDir(), Args: []string{"-qfec", program + " spool check " + spool, "/dev/null"}})
	expect(t, bar, 0, "% |", whole)
	expect(t, spoolTool(t, "repair", spool), 1, "stop siptraced first")
	expect(t, spoolTool(t, "forget", "store", "--set", "spool.dir="+spool), 1, "stop siptraced first")

	dir := t.TempDir()
	dumps := map[string]string{}
	for _, format := range []string{"hep", "json", "pcapng"} {
		dumps[format] = filepath.Join(dir, format)
		expect(t, spoolTool(t, "dump", spool, "--format", format, "--output", dumps[format]), 0, fmt.Sprintf("%d messages\n", len(messages)))
		expect(t, spoolTool(t, "dump", spool, "--format", format, "--output", dumps[format]), 1, "exists")
	}
	oneCall(t, spool)
	tsharkSees(t, dumps["pcapng"], len(messages))
	run.Signal(t, syscall.SIGKILL)
	run.Wait(t, time.Minute)
	expect(t, spoolTool(t, "check", spool), 0, whole, "nothing is wrong")

	d := sqliteFile(t, filepath.Join(dir, "spool.db"))
	run = start(t, options{dbURL: d.url, set: set})
	d.await(t, run, "sip_trace", len(messages), time.Minute)
	run.stop(t)
	want := spooledRows(t, d)
	for format, file := range dumps {
		d := sqliteFile(t, filepath.Join(dir, format+".db"))
		run := start(t, options{network: "tcp", dbURL: d.url, set: []string{"spool.dir=" + t.TempDir(), set[1]}})
		replay := servers.Command{Bin: program, Args: []string{"replay", file, "--to", run.addr}, Dir: t.TempDir()}
		for range 2 {
			expect(t, servers.RunSiptraced(t, replay), 0, fmt.Sprintf("%d acknowledged", len(messages)))
		}
		run.stop(t)
		got, wanted := spooledRows(t, d), want
		if format == "pcapng" { // TLS is in clear there
			wanted = nil
			for _, row := range want {
				wanted = append(wanted, strings.ReplaceAll(row, "tls:", "tcp:"))
			}
			slices.Sort(wanted)
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: %d rows, want %d as\n%.500s\ngot\n%.500s", format, len(got), len(wanted), strings.Join(wanted, "\n"), strings.Join(got, "\n"))
		}
	}
	expect(t, spoolTool(t, "repair", spool), 0, "nothing")
	expect(t, spoolTool(t, "forget", "mirror.none", "--set", "spool.dir="+spool), 1, "there are store")
	expect(t, spoolTool(t, "forget", "store", "--set", "spool.dir="+spool), 0, "nothing is kept for store any longer")
}

func expect(t *testing.T, r servers.Result, code int, want ...string) {
	t.Helper()
	for _, w := range want {
		if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, w) {
			t.Errorf("exit code %d, want %d and %q\n%.3000s%s", r.Code, code, w, r.Stdout, r.Stderr)
		}
	}
}

// spooledRows are the rows of a table, as texts.
func spooledRows(t *testing.T, d *database) []string {
	t.Helper()
	rows := d.dump(t, "SELECT callid, method, status, fromip, toip, fromtag, totag, direction, traced_user, time_us, msg FROM sip_trace")
	slices.Sort(rows)
	return rows
}

// oneCall dumps one of the calls, and what came before any.
func oneCall(t *testing.T, spool string) {
	t.Helper()
	all := spoolTool(t, "dump", spool)
	var first struct{ CallID string }
	line, _, _ := strings.Cut(all.Stdout, "\n")
	if err := json.Unmarshal([]byte(line), &first); err != nil || first.CallID == "" {
		t.Fatalf("%v: %s", err, line)
	}
	n := strings.Count(all.Stdout, `"callid":"`+first.CallID+`"`)
	one := spoolTool(t, "dump", spool, "--call-id", first.CallID, "--since", "1h")
	expect(t, one, 0, fmt.Sprintf("%d messages\n", n))
	if got := strings.Count(one.Stdout, "\n"); got != n || n == 0 {
		t.Errorf("%d lines, want %d", got, n)
	}
	expect(t, spoolTool(t, "dump", spool, "--until", "2020-01-02 03:04:05"), 0, "0 messages\n")
	expect(t, spoolTool(t, "dump", spool, "--since", "yesterday"), 2, "is no time")
	expect(t, spoolTool(t, "dump", spool, "--format", "pcap"), 2, "want hep, pcapng or json")
	expect(t, spoolTool(t, "dump", filepath.Dir(spool)), 1, "has no spool")
}

// tsharkSees counts the SIP messages that tshark finds in a file.
func tsharkSees(t *testing.T, file string, want int) {
	t.Helper()
	out, err := exec.Command("tshark", "-r", file, "-n", "-Y", "sip && !_ws.malformed", "-T", "fields", "-e", "sip.Call-ID").Output()
	if got := strings.Count(string(out), "\n"); err != nil || got != want {
		t.Errorf("tshark finds %d messages, want %d: %v", got, want, err)
	}
}

// TestSpoolDamaged: a damaged spool is found to be so, is mended once, and read from
// then on.
func TestSpoolDamaged(t *testing.T) {
	t.Parallel()
	spool := filepath.Join(t.TempDir(), "spool")
	set := []string{"spool.dir=" + spool, "spool.shards=1"}
	run := start(t, options{dbURL: "mysql://nobody:nothing@127.0.0.1:1/none", set: set})
	const messages = 50
	for i := range messages {
		run.feed(t, "udp", good(fmt.Sprintf("call-%d", i)))
		servers.WaitFor(t, time.Minute, "the message to be spooled", func() bool { return run.CountersNow(t)[servers.Spooled] == int64(i+1) })
	}
	run.stop(t)
	files, err := filepath.Glob(filepath.Join(spool, "shard-0", "*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("segments: %q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	write(t, files[0], strings.Replace(string(b), "Call-ID: call-25", "Call-ID: cell-25", 1))
	expect(t, spoolTool(t, "check", spool), 1, "WRONG", "1 messages are lost", "siptraced spool repair "+spool)
	var report struct {
		Lost  int
		Wrong []string
	}
	r := spoolTool(t, "check", spool, "--json")
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code != 1 || report.Lost != 1 || len(report.Wrong) != 1 {
		t.Errorf("exit code %d, %v: %s", r.Code, err, r.Stdout)
	}
	expect(t, spoolTool(t, "repair", spool), 0, "was wrong:", "written anew", "1 messages are lost", "damaged-")
	expect(t, spoolTool(t, "check", spool), 0, "nothing is wrong", "known when the spool was repaired")
	expect(t, spoolTool(t, "repair", spool), 0, "nothing was done")
	d := sqliteFile(t, filepath.Join(t.TempDir(), "rows.db"))
	run = start(t, options{dbURL: d.url, set: set})
	d.await(t, run, "sip_trace", messages-1, time.Minute)
	run.MustStop(t)
	if missed := run.Counters(t)["store.missed"]; missed != 1 {
		t.Errorf("%d messages are counted as missed, want 1", missed)
	}
	if n := d.count("sip_trace"); n != messages-1 {
		t.Errorf("%d rows, want %d", n, messages-1)
	}
}

// TestFirstEdition: the spool of siptraced's first edition is refused by everybody, who
// say how to drain it, and nothing in it is touched.
func TestFirstEdition(t *testing.T) {
	t.Parallel()
	spool := t.TempDir()
	block := filepath.Join(spool, "jetstream", "$G", "streams", "SIPTRACED_0", "msgs", "1.blk")
	if err := os.MkdirAll(filepath.Dir(block), 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, block, "messages")
	const remedy = "start the former version with the same configuration until nothing waits"
	expect(t, spoolTool(t, "check", spool), 1, remedy)
	expect(t, spoolTool(t, "dump", spool), 1, remedy)
	expect(t, spoolTool(t, "repair", spool), 1, remedy)
	expect(t, spoolTool(t, "forget", "store", "--set", "spool.dir="+spool), 1, remedy)
	args := append([]string{"run", "--set", "spool.dir=" + spool, "--set", fmt.Sprintf("listen=udp:127.0.0.1:%d", servers.FreePort(t))}, noControl...)
	expect(t, servers.RunSiptraced(t, servers.Command{Bin: program, Args: args, Dir: t.TempDir()}), 1, remedy)
	var files []string
	err := filepath.WalkDir(spool, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || !slices.Equal(files, []string{block}) {
		t.Errorf("files %q, %v", files, err)
	}
}
