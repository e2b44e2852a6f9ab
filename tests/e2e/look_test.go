package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestLook: an operator looks into the file with sqlite3 while siptraced writes it, and
// siptraced is killed. SQLite removes the write-ahead log when the last program closes
// the file, and knows by their locks which one is the last: a lock that siptraced loses
// has its rows go into a log that nobody finds, and a kill loses them.
func TestLook(t *testing.T) {
	t.Parallel()
	port := servers.FreePort(t)
	dir := t.TempDir()
	yaml := filepath.Join(dir, "siptraced.yaml")
	args := append([]string{"run", "-c", write(t, yaml, ""), "--set", fmt.Sprintf("listen=udp:127.0.0.1:%d", port)}, noControl...)
	rows := 0
	look := func() {
		t.Helper()
		awaitOutput(t, dir, `sqlite3 siptraced.db "SELECT COUNT(*) || ' rows' FROM sip_trace" 2>&1 || :`, fmt.Sprintf("%d rows", rows))
	}
	for start := range 2 {
		run := &daemon{addr: fmt.Sprintf("127.0.0.1:%d", port)}
		run.Siptraced = servers.StartSiptraced(t, servers.Command{Bin: program, Args: args, Dir: dir})
		for again := range 3 {
			if again > 0 { // each writer connects again, while the other one is connected
				write(t, yaml, fmt.Sprintf("store.batch_rows: %d\n", 1000*start+1000+again))
				run.Signal(t, syscall.SIGHUP)
			}
			rows++
			run.feed(t, "udp", good(fmt.Sprintf("look-%d", rows)))
			look()
		}
		run.Signal(t, syscall.SIGKILL)
		run.Wait(t, time.Minute)
		look()
	}
}

// TestMoved: an operator moves the file away, or removes it, while siptraced writes: the
// rows go into a new one from then on.
func TestMoved(t *testing.T) {
	t.Parallel()
	run := start(t, options{})
	file := filepath.Join(run.Dir, "siptraced.db")
	for i := range 3 {
		for range 2 * (i + 1) {
			run.feed(t, "udp", good(fmt.Sprintf("moved-%d", i)))
		}
		db := sqliteFile(t, file)
		db.await(t, run, "sip_trace", 2*(i+1), 30*time.Second)
		if err := db.db.Close(); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(file + part); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	run.stop(t)
}
