package durable

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestOutageLong takes the database away for a while under load: the intake
// goes on as before, in time and memory, and once the database is back
// everything arrives in order and the spool gives its disk space back.
func TestOutageLong(t *testing.T) {
	// Not beside other tests: it measures times.
	for _, tt := range []struct {
		name       string
		open       func(t *testing.T) (d *database, leave, comeBack func())
		rate       int
		down, calm time.Duration // calm: before the outage, for comparison
	}{
		{"mariadb", func(t *testing.T) (*database, func(), func()) {
			m := servers.StartMariaDB(t, servers.WithFsync())
			return mariaDB(t, m), func() { m.Stop(t) }, func() { m.Start(t) }
		}, servers.Pick(2000, 5000), servers.Pick(10*time.Second, 5*time.Minute), servers.Pick(3*time.Second, 20*time.Second)},
		// It neither answers nor ends its connections.
		{"mariadb frozen", func(t *testing.T) (*database, func(), func()) {
			m := servers.StartMariaDB(t, servers.WithFsync())
			d := mariaDB(t, m)
			signal := func(sig syscall.Signal) func() {
				return func() {
					if err := syscall.Kill(m.PID(), sig); err != nil {
						t.Fatal(err)
					}
				}
			}
			return d, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)
		}, servers.Pick(1000, 5000), servers.Pick(4*time.Second, 90*time.Second), servers.Pick(2*time.Second, 10*time.Second)},
		{"postgres", func(t *testing.T) (*database, func(), func()) {
			p := servers.StartPostgres(t)
			return postgres(t, p), func() { p.Stop(t) }, func() { p.Start(t) }
		}, servers.Pick(1000, 5000), servers.Pick(3*time.Second, time.Minute), servers.Pick(2*time.Second, 10*time.Second)},
		{"sqlite", func(t *testing.T) (*database, func(), func()) {
			d := sqliteFile(t, filepath.Join(t.TempDir(), "trace.db"))
			return d, func() { lock(t, d) }, func() { execute(t, d.db, "ROLLBACK") }
		}, servers.Pick(1000, 5000), servers.Pick(3*time.Second, time.Minute), servers.Pick(2*time.Second, 10*time.Second)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, leave, comeBack := tt.open(t)
			p := newPlace(t, d.url)
			run := p.start(t, "spool.max_bytes="+servers.Pick("32MiB", "8GiB"))
			// The spool gives space back in whole files. Of each of its two shards one is in
			// use, and one is kept to be used again. What else is there is small.
			kept := 4*servers.Pick[int64](mib, 64*mib) + mib
			s := send(t, 1, tt.rate, p.addr)
			time.Sleep(time.Second) // the first ones have nothing prepared
			calm := time.Now()
			time.Sleep(tt.calm)
			calmMemory := run.memory(t, "VmRSS")
			leave()
			away := time.Now()
			first, _ := s.progress()
			time.Sleep(tt.down)
			back := time.Now()
			last, _ := s.progress()
			peak := p.size()
			memory := run.memory(t, "VmHWM")
			comeBack()
			begin := time.Now()
			time.Sleep(servers.Pick(2*time.Second, time.Minute)) // while more comes in
			s.finish(t, 3*time.Minute)
			run.drained(t, servers.Pick(3*time.Minute, 15*time.Minute))
			drain := time.Since(begin)
			// What the table has is removed from the spool about once a second.
			var after int64
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
				if after = p.size(); after < max(peak/4, kept) || time.Now().After(deadline) {
					break
				}
			}
			most := run.memory(t, "VmHWM")
			c := run.stop(t)

			before, before99, n := s.median(calm, away)
			during, during99, m := s.median(away, back)
			ratio := during.Seconds() / before.Seconds()
			t.Logf("acknowledgement: median %v (99 %%: %v) of %d before, %v (99 %%: %v) of %d during the outage of %v: ratio %.2f",
				before, before99, n, during, during99, m, tt.down, ratio)
			t.Logf("memory: %.0f MiB before, at most %.0f MiB in the outage and %.0f MiB after it; spool: %.1f MiB at the end of the outage, %.1f MiB after it; written in %v",
				float64(calmMemory)/mib, float64(memory)/mib, float64(most)/mib, float64(peak)/mib, float64(after)/mib, drain.Round(time.Millisecond))
			t.Log(c)
			if n < 50 || m < 50 {
				t.Errorf("only %d and %d acknowledgements to measure", n, m)
			}
			// A few milliseconds more are no slower intake.
			if ratio > 3 && during > before+5*time.Millisecond {
				t.Errorf("acknowledgements took %v in the outage and %v before it", during, before)
			}
			if _, attempts := s.progress(); attempts != 1 {
				t.Errorf("the sender's connection ended %d times", attempts-1)
			}
			if most >= 128*mib {
				t.Errorf("memory: %d MiB, want less than 128", most/mib)
			}
			if least := int64(last-first) * 600; peak < least {
				t.Errorf("spool: %d bytes at the end of the outage, want at least %d: was the database away?", peak, least)
			}
			if after >= max(peak/4, kept) {
				t.Errorf("spool: %d bytes after the outage, %d in it", after, peak)
			}
			v := d.verify(t, whole, s)
			if int64(v.rows) != c[servers.Written] {
				t.Errorf("rows: %d, but written: %d", v.rows, c[servers.Written])
			}
		})
	}
}

// lock keeps everybody else from writing to the file, until the same connection
// says ROLLBACK.
func lock(tb testing.TB, d *database) {
	tb.Helper()
	d.db.SetMaxOpenConns(1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		_, err := d.db.ExecContext(ctx, "BEGIN IMMEDIATE")
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			tb.Fatal(err)
		}
	}
}
