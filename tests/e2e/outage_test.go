package e2e

import (
	"context"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestOutage stops the database in the middle of 20,000 messages and starts it
// 20 seconds later: the daemon takes everything in meanwhile, and in the end
// every message has its row, those of a call in order.
func TestOutage(t *testing.T) {
	t.Parallel()
	t.Run("mariadb", func(t *testing.T) {
		m := servers.StartMariaDB(t, servers.WithFsync())
		outage(t, mariaDB(t, m, "trace", "utf8mb4"), func() { m.Stop(t) }, func() { m.Start(t) })
	})
	if !servers.Long() {
		return
	}
	t.Run("mariadb killed", func(t *testing.T) {
		m := servers.StartMariaDB(t, servers.WithFsync())
		outage(t, mariaDB(t, m, "trace", "utf8mb4"), m.Kill, func() { m.Start(t) })
	})
	t.Run("postgres", func(t *testing.T) {
		p := servers.StartPostgres(t)
		outage(t, postgres(t, p, "trace"), func() { p.Stop(t) }, func() { p.Start(t) })
	})
}

func outage(t *testing.T, d *database, stop, comeBack func()) {
	t.Helper()
	const (
		messages = 20000
		down     = 20 * time.Second
		rate     = 700 // per second, so that messages come before, in and after the outage
	)
	d.createTable(t, nil)
	run := start(t, options{dbURL: d.url, set: []string{"local=udp:" + load.Proxy.String()}})
	list := load.Calls(messages, time.Now())
	f, err := vectors.NewUDPFeeder(run.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	begin := time.Now()
	var back time.Time // when the database comes back
	const first = messages / 8
	during := 0
	for i, msg := range list {
		if i == first {
			stopping := time.Now()
			stop()
			back = time.Now().Add(down)
			begin = begin.Add(time.Since(stopping)) // what takes long is not made up for
		}
		if during == 0 && i > first && time.Now().After(back) {
			during = i - first
			comeBack()
		}
		if err := f.Send(ctx, msg.Packet); err != nil {
			t.Fatalf("%v\n%s", err, run.Tail(30))
		}
		if ahead := time.Until(begin.Add(time.Duration(i) * time.Second / rate)); ahead > 5*time.Millisecond {
			time.Sleep(ahead)
		}
	}
	if during == 0 {
		t.Fatalf("all messages were sent before the outage was over, in %v", time.Since(begin))
	}
	if err := f.Wait(ctx); err != nil {
		t.Fatalf("%v\n%s", err, run.Tail(30))
	}
	t.Logf("%d messages came during the outage of %v", during, down)
	d.await(t, run, "sip_trace", messages, 3*time.Minute)
	c := run.stop(t)
	if c[servers.Received] != messages || c[servers.Written] != messages {
		t.Errorf("counters: %v", c)
	}
	report(t, diffLoad(list, d.rows(t, "sip_trace", nil), time.Local))
	if t.Failed() {
		t.Logf("siptraced:\n%s", run.Tail(30))
	}
}

// TestDatabaseDownAtStart: the daemon starts and takes messages without its
// database, also when it is stopped and started before the database comes.
func TestDatabaseDownAtStart(t *testing.T) {
	t.Parallel()
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m, "trace", "utf8mb4")
	d.createTable(t, nil)
	m.Stop(t)

	list := load.Calls(600, time.Now())
	dir := t.TempDir()
	send := func(run *daemon, part []load.Message) {
		packets := make([][]byte, len(part))
		for i, msg := range part {
			packets[i] = msg.Packet
		}
		run.feed(t, "udp", packets...)
	}
	o := options{dbURL: d.url, dir: dir, set: []string{"local=udp:" + load.Proxy.String(), "shutdown_timeout=2s"}}
	run := start(t, o)
	send(run, list[:200])
	c := run.stop(t)
	if c[servers.Written] != 0 || c[servers.Pending] != 200 {
		t.Errorf("counters of the first run: %v, want 200 pending", c)
	}
	run = start(t, o)
	send(run, list[200:400])
	m.Start(t)
	send(run, list[400:])
	d.await(t, run, "sip_trace", len(list), 3*time.Minute)
	run.stop(t)
	report(t, diffLoad(list, d.rows(t, "sip_trace", nil), time.Local))
}

// TestCrash kills the daemon without warning: what the spool had acknowledged
// is written by the next run, and nothing is written twice.
func TestCrash(t *testing.T) {
	t.Parallel()
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m, "trace", "utf8mb4")
	d.createTable(t, nil)
	list := load.Calls(4000, time.Now())
	dir := t.TempDir()
	o := options{dbURL: d.url, dir: dir, set: []string{"local=udp:" + load.Proxy.String()}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := start(t, o)
	f, err := vectors.NewUDPFeeder(run.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range list[:2000] {
		if err := f.Send(ctx, msg.Packet); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	// What was read is in the spool when a batch closed over it.
	servers.WaitFor(t, time.Minute, "the messages to be spooled", func() bool { return run.CountersNow(t)[servers.Spooled] == 2000 })
	run.Kill()
	run = start(t, o)
	rest := make([][]byte, 0, 2000)
	for _, msg := range list[2000:] {
		rest = append(rest, msg.Packet)
	}
	run.feed(t, "udp", rest...)
	d.await(t, run, "sip_trace", len(list), 3*time.Minute)
	run.MustStop(t)
	report(t, diffLoad(list, d.rows(t, "sip_trace", nil), time.Local))
}
