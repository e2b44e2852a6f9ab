package durable

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// databases opens an empty database of each kind.
func databases() map[string]func(t *testing.T) *database {
	return map[string]func(t *testing.T) *database{
		"mariadb":  func(t *testing.T) *database { return mariaDB(t, servers.StartMariaDB(t)) },
		"postgres": func(t *testing.T) *database { return postgres(t, servers.StartPostgres(t)) },
		"sqlite": func(t *testing.T) *database {
			return sqliteFile(t, filepath.Join(t.TempDir(), "trace.db"))
		},
	}
}

// copyOf is a place like p with a copy of its spool.
func (p *place) copyOf(tb testing.TB, dbURL string, set ...string) *place {
	tb.Helper()
	other := newPlace(tb, dbURL, set...)
	copyDir(tb, p.spool(), other.spool())
	return other
}

func copyDir(tb testing.TB, from, to string) {
	tb.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		tb.Fatal(err)
	}
}

// restore puts a copy of the spool's files back into its directory.
func (p *place) restore(tb testing.TB, backup string) {
	tb.Helper()
	files, err := os.ReadDir(p.spool())
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range files {
		if err := os.RemoveAll(filepath.Join(p.spool(), f.Name())); err != nil {
			tb.Fatal(err)
		}
	}
	copyDir(tb, backup, p.spool())
}

// sent sends n messages as one sender and waits until all of them are acknowledged.
func sent(tb testing.TB, number, n int, addr string) *sender {
	tb.Helper()
	s := send(tb, number, 5000, addr)
	s.upTo(n)
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		tb.Fatalf("sender %d: not all of %d messages acknowledged within a minute", number, n)
	}
	return s
}

// errorsOf are the lines of the log at level ERROR that have a word.
func (d *daemon) errorsOf(word string) (lines []string) {
	for line := range strings.Lines(d.Stderr()) {
		if strings.Contains(line, "ERROR") && strings.Contains(line, word) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// alone checks that no copy of the spool is suspected.
func (d *daemon) alone(tb testing.TB) {
	tb.Helper()
	if lines := d.errorsOf("copies of a spool"); len(lines) > 0 {
		tb.Errorf("it says that there are copies of its spool: %q", lines)
	}
}

// TestSpoolRestored puts an older copy of the spool's directory back while the
// database went on: what comes afterwards is written all the same, over several
// restarts, and the log says what happened.
func TestSpoolRestored(t *testing.T) {
	parallel(t)
	for name, open := range databases() {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			d := open(t)
			p := newPlace(t, d.url)
			run := p.start(t)
			senders := []*sender{sent(t, 1, 1000, p.addr)}
			run.stop(t)
			backup := filepath.Join(t.TempDir(), "backup")
			copyDir(t, p.spool(), backup)
			run = p.start(t)
			senders = append(senders, sent(t, 2, 3000, p.addr))
			run.stop(t)
			p.restore(t, backup)
			for i := range 3 {
				rows := d.count()
				run = p.start(t)
				s := sent(t, 3+i, 1500, p.addr)
				c := run.stop(t)
				t.Logf("run %d after the restore: written %d, rows %d", i+1, c[servers.Written], d.count()-rows)
				if c[servers.Written] != 1500 || d.count()-rows != 1500 {
					t.Errorf("run %d after the restore: written %d, rows %d, want 1500 of both", i+1, c[servers.Written], d.count()-rows)
				}
				senders = append(senders, s)
				if lines := run.errorsOf("restored from an older copy"); (len(lines) > 0) != (i == 0) {
					t.Errorf("run %d after the restore says %q", i+1, lines)
				}
			}
			d.verify(t, whole, senders...)
		})
	}
}

// TestSpoolRestoredBehind is TestSpoolRestored with a copy whose last run had written
// less than the database has of it: the copy was made while siptraced was at work.
func TestSpoolRestoredBehind(t *testing.T) {
	parallel(t)
	for name, open := range databases() {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			d := open(t)
			p := newPlace(t, d.url)
			run := p.start(t)
			one := sent(t, 1, 1000, p.addr)
			run.drained(t, time.Minute)
			time.Sleep(1500 * time.Millisecond) // what it knows of itself is written down
			run.Signal(t, syscall.SIGSTOP)
			backup := filepath.Join(t.TempDir(), "backup")
			copyDir(t, p.spool(), backup)
			run.Signal(t, syscall.SIGCONT)
			two := sent(t, 2, 3000, p.addr)
			run.stop(t)
			p.restore(t, backup)
			run = p.start(t)
			three := sent(t, 3, 1500, p.addr)
			c := run.stop(t)
			t.Logf("after the restore: written %d", c[servers.Written])
			d.verify(t, whole, one, two, three)
			if said := run.errorsOf("older"); len(said) == 0 {
				t.Errorf("the log does not say that the spool is older than the database:\n%s", run.Tail(20))
			}
		})
	}
}

// TestSpoolCopied runs two daemons with copies of one spool on one database at the
// same time, both with what was taken in before the copy was made, and with messages
// of their own: each message has its row once, and an ERROR tells the operator.
func TestSpoolCopied(t *testing.T) {
	parallel(t)
	for name, open := range databases() {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			d := open(t)
			nowhere := fmt.Sprintf("siptrace.db_url=mysql://nobody:nothing@127.0.0.1:%d/none", servers.FreePort(t))
			a := newPlace(t, d.url, "store.batch_rows=50")
			run := a.start(t, nowhere, "shutdown_timeout=100ms")
			before := sent(t, 1, 20000, a.addr)
			run.stop(t)
			b := a.copyOf(t, d.url, "store.batch_rows=50")
			runs := []*daemon{a.start(t), b.start(t)}
			ofA, ofB := send(t, 2, 1000, a.addr), send(t, 3, 1000, b.addr)
			servers.WaitFor(t, 2*time.Minute, "the rows from before the copy", func() bool { return d.count() >= 20000 })
			time.Sleep(time.Second)
			ofA.finish(t, time.Minute)
			ofB.finish(t, time.Minute)
			said := 0
			for i, run := range runs {
				run.drained(t, 2*time.Minute)
				c := run.stop(t)
				lines := run.errorsOf("copy")
				said += len(lines)
				t.Logf("daemon %d: backlog %d, spooled %d, written %d; says %q", i+1, c[servers.Backlog], c[servers.Spooled], c[servers.Written], lines)
			}
			if said == 0 {
				t.Error("no ERROR says that a copy of the spool is at work")
			}
			v := d.verify(t, within, before, ofA, ofB)
			if int64(v.rows) != int64(v.accepted+v.extra) {
				t.Errorf("%d rows", v.rows)
			}
			// And again, with the numbers that both went on with.
			runs = []*daemon{a.start(t), b.start(t)}
			moreA, moreB := sent(t, 4, 2000, a.addr), sent(t, 5, 2000, b.addr)
			for _, run := range runs {
				run.stop(t)
			}
			d.verify(t, within, before, ofA, ofB, moreA, moreB)
		})
	}
}

// TestSpoolRestoredMirror restores the spool of a siptraced that sends to another one,
// and runs a copy of it beside it: what both take in afterwards is not taken by the
// receiver for what it had before, and what both have from before the copy arrives
// once.
func TestSpoolRestoredMirror(t *testing.T) {
	parallel(t)
	d := sqliteFile(t, filepath.Join(t.TempDir(), "trace.db"))
	to := newPlace(t, d.url)
	receiver := to.start(t)
	mirror := []string{"siptrace.trace_to_database=0", "destinations=sip:" + to.addr + ";transport=tcp"}
	a := newPlace(t, d.url, mirror...)
	senders := []*sender{}
	use := func(number int, places ...*place) {
		t.Helper()
		var runs []*daemon
		for i, p := range places {
			runs = append(runs, p.start(t))
			senders = append(senders, sent(t, number+i, 1500, p.addr))
		}
		for _, run := range runs {
			run.MustStop(t)
		}
	}
	use(1, a)
	backup := filepath.Join(t.TempDir(), "backup")
	copyDir(t, a.spool(), backup)
	use(2, a)
	a.restore(t, backup)
	use(3, a)
	// What is sent now waits in both.
	receiver.stop(t)
	run := a.start(t, "shutdown_timeout=100ms")
	senders = append(senders, sent(t, 4, 1500, a.addr))
	run.MustStop(t)
	b := a.copyOf(t, d.url, mirror...)
	receiver = to.start(t)
	use(5, a, b)
	use(7, b, a)
	c := receiver.stop(t)
	t.Logf("the receiver dropped %d as repeated", c["dropped.repeated"])
	d.verify(t, within, senders...)
}

// TestPositionsLost kills siptraced and takes from its spool all that tells how far its
// sinks are, and where its logs end: the database knows how far it is. Nothing is lost
// or written twice.
func TestPositionsLost(t *testing.T) {
	parallel(t)
	d := sqliteFile(t, filepath.Join(t.TempDir(), "trace.db"))
	p := newPlace(t, d.url)
	run := p.start(t)
	senders := []*sender{sent(t, 1, 3000, p.addr)}
	run.Kill()
	for _, pattern := range []string{"positions", "shard-*/tail", "shard-*/*.idx"} {
		files, err := filepath.Glob(filepath.Join(p.spool(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			remove(t, f)
		}
	}
	for i := range 2 {
		run = p.start(t)
		senders = append(senders, sent(t, 2+i, 1500, p.addr))
		run.drained(t, time.Minute)
		run.stop(t)
	}
	d.verify(t, whole, senders...)
}
