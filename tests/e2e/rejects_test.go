package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestRejectFile: the reject file is there from the start or refused, and goes on
// under its name after it was moved away and SIGHUP came.
func TestRejectFile(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"none/rejects", "."} {
		r := siptraced(t, 1, "run", "--set", "listen=udp:127.0.0.1:0", "--set", "rpc.ctl=", "--set", "rpc.http=", "--set", "store.reject_file="+path)
		if !strings.Contains(r.Stderr, "store.reject_file") || !strings.Contains(r.Stderr, "name a file that siptraced may make and write") {
			t.Errorf("%s: neither key nor remedy in\n%s", path, r.Stderr)
		}
	}
	d := sqliteFile(t, filepath.Join(t.TempDir(), "rotated.db"))
	d.createTable(t, nil)
	d.exec(t, "PRAGMA journal_mode=WAL")
	refusing(t, d)
	run := start(t, options{dbURL: d.url})
	file := filepath.Join(run.Dir, "siptraced.rejects.jsonl")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("at start: %v, %v", info, err)
	}
	const rounds, each = 5, 20
	var files []string
	for i := range rounds {
		for j := range each {
			run.feed(t, "udp", good(fmt.Sprintf("bad-%d-%d", i, j)))
			if j == each/2 { // while rows are refused
				moved := fmt.Sprintf("%s.%d", file, i)
				if err := os.Rename(file, moved); err != nil {
					t.Fatal(err)
				}
				files = append(files, moved)
				run.Signal(t, syscall.SIGHUP)
				servers.WaitFor(t, time.Minute, "the new file", func() bool {
					_, err := os.Stat(file)
					return !errors.Is(err, fs.ErrNotExist)
				})
			}
		}
	}
	servers.WaitFor(t, time.Minute, "all to be refused", func() bool { return run.CountersNow(t)[servers.Aside] == rounds*each })
	if n := strings.Count(run.Stderr(), "rows rejected"); n == 0 || n > 3 { // each minute, and the test may take more than one
		t.Errorf("%d lines in the log about %d rows, want one each minute", n, rounds*each)
	}
	run.stop(t)
	lines := map[string]int{}
	for _, f := range append(files, file) {
		for line := range strings.Lines(readFile(t, f)) {
			_, rest, _ := strings.Cut(line, `"callid":"`)
			call, _, _ := strings.Cut(rest, `"`)
			lines[call]++
		}
	}
	if len(lines) != rounds*each {
		t.Errorf("%d calls in %d files, want %d", len(lines), len(files)+1, rounds*each)
	}
	for call, n := range lines {
		if n != 1 {
			t.Errorf("%s is there %d times", call, n)
		}
	}
}

// TestRejectFileFull: rows for which the reject file has no room wait, and the log says
// so without going back and forth; with room they are noted, and the others go on.
// Malformed messages never take the room of rows, and are counted.
func TestRejectFileFull(t *testing.T) {
	t.Parallel()
	d := sqliteFile(t, filepath.Join(t.TempDir(), "full.db"))
	d.createTable(t, nil)
	d.exec(t, "PRAGMA journal_mode=WAL")
	refusing(t, d)
	run := start(t, options{dbURL: d.url, set: []string{"store.reject_max_bytes=64KiB", "siptrace.xheaders_read=1", "spool.shards=1"}})
	file := filepath.Join(run.Dir, "siptraced.rejects.jsonl")
	malformed := []byte(strings.Replace(string(optionsOf("malformed", 500)), "CSeq:", "X-Siptrace-Method: OPTIONS\r\nCSeq:", 1))
	for range 60 {
		run.feed(t, "udp", malformed)
	}
	servers.WaitFor(t, time.Minute, "the room of malformed messages to be used up", func() bool { return run.CountersNow(t)["rejects.not_noted"] > 0 })
	if n := strings.Count(run.Stderr(), "rejects: messages that can't be used came in"); n != 1 {
		t.Errorf("%d lines in the log about 60 messages within a minute, want one", n)
	}
	const calls = 60
	for i := range calls {
		run.feed(t, "udp", good(fmt.Sprintf("bad-%d", i)), good(fmt.Sprintf("fine-%d", i)))
	}
	// Once nothing goes any more, each further attempt changes nothing in the log.
	retries := func(more int64) {
		t.Helper()
		before := run.CountersNow(t)["store.retries"]
		servers.WaitFor(t, 2*time.Minute, "further attempts", func() bool { return run.CountersNow(t)["store.retries"] >= before+more })
	}
	said := func() int { return strings.Count(run.Stderr(), "msg=\"sink:") }
	retries(4)
	before := said()
	retries(3)
	if n := said() - before; before == 0 || n > 1 { // one of them is due each minute
		t.Errorf("%d lines of the sink's state while nothing changes:\n%s", n, run.Tail(30))
	}
	if !strings.Contains(run.Stderr(), "store.reject_max_bytes") {
		t.Errorf("the bound is not named:\n%s", run.Tail(30))
	}
	c := run.CountersNow(t)
	if c[servers.Pending] == 0 {
		t.Errorf("nothing waits: %v", c)
	}
	if info, err := os.Stat(file); err != nil || info.Size() > 64<<10 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	seen := 0
	for i := 0; run.CountersNow(t)[servers.Pending] > 0; i++ {
		if i == 20 {
			t.Fatalf("rows wait with room for them\n%s", run.Tail(30))
		}
		moved := fmt.Sprintf("%s.%d", file, i)
		if err := os.Rename(file, moved); err != nil {
			t.Fatal(err)
		}
		run.Signal(t, syscall.SIGHUP)
		before := run.CountersNow(t)[servers.Aside]
		servers.WaitFor(t, time.Minute, "rows to go on", func() bool {
			c := run.CountersNow(t)
			return c[servers.Aside] > before || c[servers.Pending] == 0
		})
		seen += strings.Count(readFile(t, moved), `"callid":"bad-`)
	}
	d.await(t, run, "sip_trace", calls, time.Minute)
	run.stop(t)
	seen += strings.Count(readFile(t, file), `"callid":"bad-`)
	if seen != calls || d.count("sip_trace") != calls {
		t.Errorf("%d rows in the files, %d in the table; want %d, %d", seen, d.count("sip_trace"), calls, calls)
	}
}
