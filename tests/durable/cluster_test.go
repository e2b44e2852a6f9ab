package durable

import (
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestNATSCluster runs two daemons on one spool in a cluster of three NATS
// servers, each of them intake and writer. A NATS server and the daemon that
// writes are killed under load: senders go on with the other daemon, no row is
// lost or doubled, and those of a call keep their order.
func TestNATSCluster(t *testing.T) {
	parallel(t)
	r := random(t)
	nodes := servers.StartNATSCluster(t, natsServer, 3)
	m := servers.StartMariaDB(t, servers.WithFsync())
	d := mariaDB(t, m)
	var places []*place
	var runs []*daemon
	for range 2 {
		p := newPlace(t, d.url, "spool.nats="+servers.NATSURL(nodes))
		places, runs = append(places, p), append(runs, p.start(t))
	}
	rate := servers.Pick(500, 2500)
	senders := []*sender{
		send(t, 1, rate, places[0].addr, places[1].addr),
		send(t, 2, rate, places[1].addr, places[0].addr),
	}
	for _, s := range senders {
		servers.WaitFor(t, 2*time.Minute, "the first acknowledgement", func() bool { n, _ := s.progress(); return n > 0 })
	}
	live := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{
		"check", "--live", "--set", "spool.nats=" + servers.NATSURL(nodes), "--set", "spool.monitor=" + servers.NATSMonitors(nodes), "--set", "siptrace.db_url=" + d.url, "--set", "listen=udp:127.0.0.1:0", "--set", "rpc.http=", "--set", "rpc.ctl=",
	}})
	if live.Code != 0 || !strings.Contains(live.Stdout, "the cluster answers, and has JetStream") || !strings.Contains(live.Stdout, "server node2 syncs its files every 2m0s") {
		t.Errorf("check --live: exit code %d\n%s%s", live.Code, live.Stdout, live.Stderr)
	}
	pause := func() {
		time.Sleep(between(r, 500*time.Millisecond, servers.Pick(2500*time.Millisecond, 5*time.Second)))
	}
	longest := time.Duration(0)
	// goOn waits until both senders have an answer to what they send now.
	goOn := func(what string) {
		t.Helper()
		begin := time.Now()
		for _, s := range senders {
			before, _ := s.progress()
			servers.WaitFor(t, 2*time.Minute, "an acknowledgement to each sender after "+what, func() bool { n, _ := s.progress(); return n > before })
		}
		longest = max(longest, time.Since(begin))
	}
	rounds := servers.Pick(1, 10)
	for i := range rounds {
		pause()
		node := nodes[r.IntN(len(nodes))]
		node.Kill()
		goOn("a NATS server was killed")
		pause()
		w := writing(t, runs)
		runs[w].Kill()
		goOn("a daemon was killed")
		pause()
		if r.IntN(2) == 0 {
			node.Start(t)
			runs[w] = places[w].start(t)
		} else { // with a server of three away
			runs[w] = places[w].start(t)
			pause()
			node.Start(t)
		}
		goOn("both came back")
		if i == rounds/2 { // and once in order
			pause()
			stopShared(t, runs[1-w])
			goOn("a daemon was stopped")
			runs[1-w] = places[1-w].start(t)
		}
	}
	accepted := 0
	for _, s := range senders {
		s.finish(t, 3*time.Minute)
		n, attempts := s.progress()
		accepted += n
		t.Logf("sender %d: %d messages, %d connections", s.sender, n, attempts)
	}
	stands(t, d, accepted)
	for i, run := range runs {
		t.Logf("daemon %d: %v", i+1, stopShared(t, run))
	}
	t.Logf("%d times a NATS server and a daemon killed, longest pause of the intake %v", rounds, longest.Round(time.Millisecond))
	d.verify(t, within, append(senders, clusterBooks(t, d, m, places)...)...)
}

// clusterBooks checks the books of daemons that share a spool, while none is
// killed: what waits is in messages and the same for all of them, and what was
// spooled, over all of them, is what was written.
func clusterBooks(t *testing.T, d *database, m *servers.MariaDB, places []*place) []*sender {
	t.Helper()
	before := d.count()
	m.Stop(t)
	var runs []*daemon
	for _, p := range places {
		runs = append(runs, p.start(t))
	}
	rate := servers.Pick(500, 2500)
	senders := []*sender{send(t, 3, rate, places[0].addr), send(t, 4, rate, places[1].addr)}
	for _, s := range senders {
		servers.WaitFor(t, 2*time.Minute, "messages enough", func() bool { n, _ := s.progress(); return n > 2*rate })
		s.setRate(0)
	}
	servers.WaitFor(t, 2*time.Minute, "all daemons to say that everything waits", func() bool {
		var spooled int64
		for _, run := range runs {
			spooled += run.CountersNow(t)[servers.Spooled]
		}
		for _, run := range runs {
			if run.CountersNow(t)[servers.Pending] != spooled {
				return false
			}
		}
		return spooled >= int64(2*2*rate)
	})
	m.Start(t)
	for _, s := range senders {
		s.setRate(rate)
	}
	time.Sleep(time.Second)
	books := []servers.Counters{stopShared(t, runs[0])}
	runs[0] = places[0].start(t)
	time.Sleep(time.Second)
	for _, s := range senders {
		s.finish(t, 3*time.Minute)
	}
	servers.WaitFor(t, 2*time.Minute, "all daemons to say that nothing waits", func() bool {
		for _, run := range runs {
			if run.CountersNow(t)[servers.Pending] != 0 {
				return false
			}
		}
		return true
	})
	var spooled, written, elsewhere, rest int64
	for _, run := range runs {
		c := stopShared(t, run)
		rest += c[servers.Pending] // that of the first run was for the others to write
		books = append(books, c)
	}
	for _, c := range books {
		spooled, written, elsewhere = spooled+c[servers.Spooled], written+c[servers.Written], elsewhere+c["store.written_elsewhere"]
		rest += c[servers.Aside] + c[missed]
	}
	t.Logf("books of all daemons: spooled %d, written %d, seen written by another %d", spooled, written, elsewhere)
	if rows := int64(d.count() - before); spooled != written || rest != 0 || rows != written {
		t.Errorf("books of all daemons: spooled %d, but written %d, rows %d, %d elsewhere: %v", spooled, written, rows, rest, books)
	}
	return senders
}

// stands waits until the table has n rows at least, and no more come.
func stands(tb testing.TB, d *database, n int) {
	tb.Helper()
	last, since := -1, time.Now()
	for deadline := time.Now().Add(2 * time.Minute); time.Since(since) < 3*time.Second || last < n; time.Sleep(200 * time.Millisecond) {
		if c := d.count(); c != last {
			last, since = c, time.Now()
		}
		if time.Now().After(deadline) {
			tb.Errorf("%d rows two minutes after the last message, want %d", last, n)
			return
		}
	}
}

// writing is which of the daemons writes the most at present.
func writing(tb testing.TB, runs []*daemon) int {
	tb.Helper()
	first := make([]int64, len(runs))
	for i, run := range runs {
		first[i] = run.CountersNow(tb)["store.transactions"]
	}
	time.Sleep(500 * time.Millisecond)
	w, most := 0, int64(-1)
	for i, run := range runs {
		if n := run.CountersNow(tb)["store.transactions"] - first[i]; n > most {
			w, most = i, n
		}
	}
	return w
}

// stopShared ends a daemon in order that shares its spool with others.
func stopShared(tb testing.TB, run *daemon) servers.Counters {
	tb.Helper()
	run.MustStop(tb)
	c := run.Counters(tb)
	if err := intakeBalanced(c); err != nil {
		tb.Error(err)
	}
	return c
}
