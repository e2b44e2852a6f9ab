package durable

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// deliver sends n messages to a daemon over UDP, each some of them in a batch of their
// own.
func deliver(t *testing.T, addr string, n, each int) {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, m := range load.Calls(n, time.Now()) {
		if _, err := c.Write(m.Packet); err != nil {
			t.Fatal(err)
		}
		if i%each == each-1 {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// TestMirrorOfOneInstance: of two siptraceds on one cluster one has a mirror, whose
// destination is away. The other one trims what the database has, and leaves what waits
// for the mirror; it says what that is. Once the mirror is gone for good, and forgotten
// by command, nothing is kept for it.
func TestMirrorOfOneInstance(t *testing.T) {
	parallel(t)
	nodes := servers.StartNATSCluster(t, natsServer, 3)
	d := mariaDB(t, servers.StartMariaDB(t))
	receiver := sqliteFile(t, filepath.Join(t.TempDir(), "mirrored.db"))
	destination := newPlace(t, receiver.url)
	_, port, err := net.SplitHostPort(destination.addr)
	if err != nil {
		t.Fatal(err)
	}
	with := newPlace(t, d.url, "spool.nats="+servers.NATSURL(nodes), "siptrace.hep_mode_on=1", "siptrace.hep_version=3",
		"siptrace.duplicate_uri=sip:127.0.0.1:"+port+";transport=tcp")
	ctl := filepath.Join(t.TempDir(), "ctl")
	without := newPlace(t, d.url, "spool.nats="+servers.NATSURL(nodes), "rpc.ctl=unix:"+ctl)
	runs := []*daemon{with.start(t), without.start(t)}
	const messages = 500
	deliver(t, with.addr, messages, 5) // more batches than are read ahead
	servers.WaitFor(t, time.Minute, "all rows in the database", func() bool { return d.count() == messages })
	time.Sleep(servers.Pick(4*time.Second, time.Minute)) // both trim once a second
	sink := elsewhere(t, ctl)
	last := destination.start(t)
	stands(t, receiver, messages)
	last.stop(t)
	if n := receiver.count(); n != messages {
		t.Errorf("the mirror's destination has %d messages, want %d", n, messages)
	}
	deliver(t, without.addr, messages, 5)
	servers.WaitFor(t, time.Minute, "all rows in the database", func() bool { return d.count() == 2*messages })
	stopShared(t, runs[0])
	forget := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{"spool", "forget", sink, "--set", "spool.nats=" + servers.NATSURL(nodes)}})
	if forget.Code != 0 {
		t.Errorf("spool forget %s: exit code %d\n%s%s", sink, forget.Code, forget.Stdout, forget.Stderr)
	}
	servers.WaitFor(t, time.Minute, "the spool to be empty", func() bool {
		out := sinks(t, ctl)
		return out["mirror"] == nil && out["spool"]["bytes"] == 0.
	})
	stopShared(t, runs[1])
}

// elsewhere waits until a daemon says what waits for a mirror of another one, and
// returns its name.
func elsewhere(t *testing.T, ctl string) (sink string) {
	t.Helper()
	servers.WaitFor(t, time.Minute, "siptrace.sinks to have the mirror of the other instance, and what waits for it", func() bool {
		m := sinks(t, ctl)["mirror"]
		n, _ := m["pending"].(float64)
		sink, _ = m["sink"].(string)
		return m["elsewhere"] == 1. && n > 100
	})
	return sink
}

// sinks are the entries of siptrace.sinks: "store", "mirror" and "spool".
func sinks(t *testing.T, ctl string) map[string]map[string]any {
	t.Helper()
	r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{"rpc", "--server", "unix:" + ctl, "--json", "siptrace.sinks"}})
	var list []map[string]any
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		t.Fatalf("siptrace.sinks: %v\n%s%s", err, r.Stdout, r.Stderr)
	}
	out := map[string]map[string]any{}
	for _, e := range list {
		name, _ := e["sink"].(string)
		kind, _, _ := strings.Cut(name, ".")
		if name == "" {
			kind = "spool"
		}
		out[kind] = e
	}
	return out
}

// TestAnswerLost: the cluster's answer to a batch is lost with the connection, which
// comes back after more than JetStream's window for duplicates (two minutes; in the
// short form the window is short).
func TestAnswerLost(t *testing.T) {
	parallel(t)
	const window = 100 * time.Millisecond
	nodes := servers.StartNATSCluster(t, natsServer, 3, servers.NATSOptions{Cluster: "no_advertise: true"})
	w := servers.NewWire(t, nodes[0].Port)
	d := sqliteFile(t, filepath.Join(t.TempDir(), "rows.db"))
	p := newPlace(t, d.url, "spool.nats=nats://"+w.Addr, "spool.shards=1")
	run := p.start(t)
	deliver(t, p.addr, 20, 20)
	servers.WaitFor(t, time.Minute, "the first rows", func() bool { return d.count() == 20 })
	time.Sleep(2 * time.Second) // they are trimmed by now
	if !servers.Long() {
		shortWindow(t, servers.NATSURL(nodes), window)
	}
	w.LoseAt("HPUB siptraced.trace.", false, nil)
	deliver(t, p.addr, 50, 50)
	time.Sleep(time.Second)
	w.Cut()
	time.Sleep(servers.Pick(10*window, 135*time.Second))
	w.Mend()
	servers.WaitFor(t, 2*time.Minute, "the rest of the rows", func() bool { return d.count() >= 70 })
	stands(t, d, 70)
	if n := d.count(); n != 70 {
		t.Errorf("%d rows, want 70", n)
	}
	c := run.stop(t)
	if c[servers.Spooled] != 70 || c[servers.Written] != 70 {
		t.Errorf("counters %v, want 70 spooled and written", c)
	}
}

// shortWindow has the first shard's stream forget the ids of messages sooner.
func shortWindow(t *testing.T, url string, window time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(ctx, "SIPTRACED_0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Duplicates = window
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
}
