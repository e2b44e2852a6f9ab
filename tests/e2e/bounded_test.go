package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// TestBounded: the file that siptraced makes because nobody named a database is
// bounded by size and by age, and one that the operator named is not.
func TestBounded(t *testing.T) {
	t.Parallel()
	const bound, messages = 2 << 20, 6000
	dir := t.TempDir()
	path := filepath.Join(dir, "siptraced.db")
	file := sqliteFile(t, path)
	settled := func(run *daemon, written int64) servers.Counters {
		t.Helper()
		var c servers.Counters
		servers.WaitFor(t, 2*time.Minute, "the rows", func() bool {
			c = run.CountersNow(t)
			return c[servers.Pending] == 0 && c[servers.Written] == written
		})
		return c
	}
	run := start(t, options{dir: dir, set: []string{fmt.Sprintf("store.keep_bytes=%d", bound), "local=udp:" + load.Proxy.String()}})
	list := load.Calls(messages, time.Now())
	var largest int64
	for i, m := range list {
		run.feed(t, "udp", m.Packet)
		if i%500 == 499 {
			settled(run, int64(i+1))
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, st.Size())
		}
	}
	c := run.stop(t)
	if largest > bound {
		t.Errorf("the file had %d bytes, the bound is %d", largest, bound)
	}
	left := file.count("sip_trace")
	if c["store.pruned.keep_bytes"] == 0 || c["store.pruned.keep"] != 0 || int64(left)+c["store.pruned.keep_bytes"] != messages {
		t.Errorf("%d rows are left: %v", left, c)
	}
	newest := list[messages-1].CallID
	want := 0
	for _, m := range list {
		if m.CallID == newest {
			want++
		}
	}
	if got := file.value(t, "SELECT COUNT(*) FROM sip_trace WHERE callid = ?", newest); got != fmt.Sprint(want) {
		t.Errorf("%s rows of the newest call are left, want %d", got, want)
	}

	// Rows of last month, in a file that the operator named, and in one that nobody did.
	file.exec(t, "UPDATE sip_trace SET time_stamp = '2001-02-03 04:05:06'")
	run = start(t, options{dir: dir, dbURL: "sqlite://" + path})
	run.feed(t, "udp", good("named"))
	settled(run, 1)
	time.Sleep(2 * time.Second) // a bound would be looked at
	if c = run.stop(t); c["store.pruned.keep"]+c["store.pruned.keep_bytes"] != 0 || file.count("sip_trace") != left+1 {
		t.Errorf("a database that the operator named was pruned: %d rows of %d, %v", file.count("sip_trace"), left+1, c)
	}
	run = start(t, options{dir: dir})
	run.feed(t, "udp", good("own"))
	servers.WaitFor(t, time.Minute, "the old rows to go", func() bool { return run.CountersNow(t)["store.pruned.keep"] == int64(left) })
	run.stop(t)
	if n := file.count("sip_trace"); n != 2 {
		t.Errorf("%d rows are left, want the 2 new ones", n)
	}
}
