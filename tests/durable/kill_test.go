package durable

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestKillDaemon kills siptraced without warning at random moments under load
// and starts it again: every message that it acknowledged has its row, no
// message has two.
func TestKillDaemon(t *testing.T) {
	parallel(t)
	maria := func(t *testing.T) (*database, func()) {
		return mariaDB(t, servers.StartMariaDB(t, servers.WithFsync())), nil
	}
	for _, tt := range []struct {
		name   string
		open   func(t *testing.T) (d *database, comeBack func())
		rounds int
		rate   int
		set    []string
	}{
		{"mariadb", maria, servers.Pick(3, 120), servers.Pick(2000, 5000), nil},
		// Everything is in the spool when the daemon starts again.
		{"mariadb away", func(t *testing.T) (*database, func()) {
			m := servers.StartMariaDB(t, servers.WithFsync())
			d := mariaDB(t, m)
			m.Stop(t)
			return d, func() { m.Start(t) }
		}, servers.Pick(2, 20), servers.Pick(2000, 5000), []string{"shutdown_timeout=1s"}},
		// Small batches: more moments between two of them.
		{"mariadb small batches", maria, servers.Pick(1, 20), 2000, []string{"spool.batch_bytes=2KiB", "spool.batch_age=1ms", "store.batch_rows=20", "spool.shards=4"}},
		{"postgres", func(t *testing.T) (*database, func()) { return postgres(t, servers.StartPostgres(t)), nil }, servers.Pick(2, 20), servers.Pick(2000, 5000), nil},
		{"sqlite", func(t *testing.T) (*database, func()) {
			return sqliteFile(t, filepath.Join(t.TempDir(), "trace.db")), nil
		}, servers.Pick(2, 80), servers.Pick(2000, 5000), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := random(t)
			d, comeBack := tt.open(t)
			p := newPlace(t, d.url, tt.set...)
			run := p.start(t)
			s := send(t, 1, tt.rate, p.addr)
			longest := time.Duration(0)
			for i := range tt.rounds {
				time.Sleep(between(r, 50*time.Millisecond, 2500*time.Millisecond))
				run.Kill()
				run.alone(t)
				killed := time.Now()
				before, _ := s.progress()
				time.Sleep(between(r, 0, 200*time.Millisecond))
				run = p.start(t)
				servers.WaitFor(t, 2*time.Minute, "an acknowledgement after the restart", func() bool {
					n, _ := s.progress()
					return n > before
				})
				longest = max(longest, time.Since(killed))
				if i == tt.rounds/2 {
					// Once in between in order: the same books, the same rows.
					run.stop(t)
					run = p.start(t)
				}
			}
			if comeBack != nil {
				comeBack()
			}
			s.finish(t, 3*time.Minute)
			run.drained(t, 3*time.Minute)
			c := run.stop(t)
			run.alone(t)
			_, attempts := s.progress()
			t.Logf("killed %d times, %d attempts, longest pause of the intake %v; last run: %v", tt.rounds, attempts, longest.Round(time.Millisecond), c)
			d.verify(t, whole, s)
		})
	}
}

// TestKillBoth kills the daemon and its database at about the same time.
func TestKillBoth(t *testing.T) {
	parallel(t)
	r := random(t)
	m := servers.StartMariaDB(t, servers.WithFsync())
	d := mariaDB(t, m)
	p := newPlace(t, d.url)
	run := p.start(t)
	s := send(t, 1, servers.Pick(2000, 5000), p.addr)
	rounds := servers.Pick(2, 20)
	for i := range rounds {
		if i > 0 {
			run.written(t, 1, 2*time.Minute)
		}
		time.Sleep(between(r, 0, 2*time.Second))
		first, second := run.Kill, m.Kill
		if r.IntN(2) == 0 {
			first, second = second, first
		}
		first()
		time.Sleep(between(r, 0, 50*time.Millisecond))
		second()
		if r.IntN(2) == 0 {
			run = p.start(t)
			m.Start(t)
		} else {
			m.Start(t)
			run = p.start(t)
		}
	}
	s.finish(t, 3*time.Minute)
	run.drained(t, 3*time.Minute)
	c := run.stop(t)
	t.Logf("both killed %d times; last run: %v", rounds, c)
	d.verify(t, whole, s)
}

// TestRestartUDP ends the daemon in order under a load of datagrams, several
// times: what it read is in the table or counted, and nothing else is.
func TestRestartUDP(t *testing.T) {
	parallel(t)
	d := mariaDB(t, servers.StartMariaDB(t, servers.WithFsync()))
	p := newPlace(t, d.url)
	run := p.start(t)
	stop, done := make(chan struct{}), make(chan struct{})
	s := &sender{traffic: newTraffic(t, 1), attempt: 1}
	rate := servers.Pick(2000, 5000)
	go func() {
		defer close(done)
		datagrams(t, p.addr, s, rate, stop)
	}()
	var received, dropped int64
	rounds := servers.Pick(3, 20)
	for i := range rounds {
		time.Sleep(time.Second)
		if i == rounds-1 {
			close(stop)
			<-done
			time.Sleep(200 * time.Millisecond) // what is in the socket
		}
		c := run.stop(t)
		received += c[servers.Received]
		dropped += c.Sum("kernel_drops")
		if n := c.Sum(servers.Rejected) + c.Sum(servers.Dropped); n != 0 {
			t.Errorf("run %d: %d messages not taken: %v", i, n, c)
		}
		if i < rounds-1 {
			run = p.start(t)
		}
	}
	v, err := judge(whole, []*sender{s}, d.each)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d datagrams sent, %d received in %d runs, %d dropped by the kernel, %d rows", s.sent, received, rounds, dropped, v.rows)
	if int64(v.rows) != received {
		t.Errorf("rows: got %d, want %d", v.rows, received)
	}
	if v.doubled+v.disordered+v.broken > 0 {
		t.Errorf("%v: %q", v, v.examples)
	}
	if received < int64(rounds*rate/4) { // of a second in each run
		t.Errorf("only %d of %d datagrams were received", received, s.sent)
	}
}

// datagrams sends messages over UDP until stop is closed, whether somebody
// listens or not.
func datagrams(tb testing.TB, addr string, s *sender, rate int, stop <-chan struct{}) {
	tb.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		tb.Error(err)
		return
	}
	defer c.Close()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	var buf []byte
	for {
		select {
		case <-stop:
			return
		case now := <-tick.C:
			for s.sent < int(now.Sub(begin).Seconds()*float64(rate)) {
				buf = s.append(buf[:0], s.sent, s.attempt, now)
				s.sent++
				_, _ = c.Write(buf) // refused while nobody listens
			}
		}
	}
}

// TestKillDatabase kills the database server at random moments under load.
func TestKillDatabase(t *testing.T) {
	parallel(t)
	for _, tt := range []struct {
		name string
		open func(t *testing.T) (d *database, kill, again func())
	}{
		{"mariadb", func(t *testing.T) (*database, func(), func()) {
			m := servers.StartMariaDB(t, servers.WithFsync())
			return mariaDB(t, m), m.Kill, func() { m.Start(t) }
		}},
		{"postgres", func(t *testing.T) (*database, func(), func()) {
			p := servers.StartPostgres(t)
			return postgres(t, p), func() { p.Crash(t) }, func() { p.Start(t) }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := random(t)
			d, kill, again := tt.open(t)
			p := newPlace(t, d.url)
			run := p.start(t)
			s := send(t, 1, servers.Pick(2000, 5000), p.addr)
			rounds := servers.Pick(2, 25)
			for range rounds {
				if r.IntN(4) > 0 { // else while it comes back
					run.written(t, 1, 2*time.Minute)
				}
				time.Sleep(between(r, 0, 2*time.Second))
				kill()
				time.Sleep(between(r, 0, 500*time.Millisecond))
				again()
			}
			s.finish(t, 3*time.Minute)
			run.drained(t, 3*time.Minute)
			c := run.stop(t)
			t.Logf("database killed %d times: %v", rounds, c)
			if c["store.retries"] == 0 {
				t.Error("the daemon never noticed that its database was gone")
			}
			if _, attempts := s.progress(); attempts != 1 {
				t.Errorf("the sender's connection ended %d times, although only the database was killed", attempts-1)
			}
			v := d.verify(t, whole, s)
			if int64(v.rows) != c[servers.Written] {
				t.Errorf("rows: %d, but written: %d", v.rows, c[servers.Written])
			}
		})
	}
}
