package mirror

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// carriers are the ways between two siptraceds. Over exact ones a copy that comes
// back is known for certain; over the others one in a hundred may be taken for
// another message.
var carriers = []struct {
	name, destination, set string
	exact, rare            bool
}{
	{"HEP3 over TCP", "protocol=hep3;transport=tcp", "", true, false},
	{"HEP3 over UDP", "protocol=hep3", "", true, false},
	{"HEP3 with the time of relaying", "protocol=hep3;time=relay", "", true, true},
	{"HEP2", "protocol=hep2", "", false, true},
	{"HEP1", "protocol=hep1", "", false, false},
	{"SIP", "protocol=sip;xheaders=0", "", false, false},
	{"SIP over TCP", "protocol=sip;xheaders=0;transport=tcp", "", false, true},
	{"SIP with headers", "protocol=sip;xheaders=1", "siptrace.xheaders_read=1", false, true},
}

// troubles are what happens to a ring while messages go round.
var troubles = []struct {
	name     string
	messages int // in the short form
	set      string
	run      func(t *testing.T, r *ring)
}{
	{"full speed", 3000, "", func(t *testing.T, r *ring) { r.feed(t, 0, 1) }},
	// Longer than the minute for which earlier versions remembered.
	{"one away", 3000, "", func(t *testing.T, r *ring) {
		r.feed(t, 0, 0.5)
		quiet(t, r.nodes...)
		r.halt(t, 1)
		r.feed(t, 0.5, 0.6)
		time.Sleep(servers.Pick(2*time.Second, 70*time.Second))
		r.start(t, 1)
		r.feed(t, 0.6, 1)
	}},
	// An ordinary upgrade, with messages not yet delivered.
	{"all restarted", 3000, "", func(t *testing.T, r *ring) {
		r.feed(t, 0, 0.5)
		quiet(t, r.nodes...)
		r.halt(t, 1)
		r.feed(t, 0.5, 0.6)
		r.halt(t, 0)
		for i := range r.nodes {
			if r.nodes[i] != nil && i > 1 {
				r.halt(t, i)
			}
		}
		for i := range r.nodes {
			r.start(t, i)
		}
		r.feed(t, 0.6, 1)
	}},
	{"one refuses", 30_000, "spool.max_bytes=16MiB", func(t *testing.T, r *ring) {
		r.feed(t, 0, 0.2)
		quiet(t, r.nodes...)
		release := r.nodes[1].table.hold(t)
		r.feed(t, 0.2, 1)
		quiet(t, r.nodes[0])
		release()
	}},
}

// TestRings has siptraceds mirror to each other in a ring of two or three, over
// each carrier, in each trouble. The first one gets messages. Each one has each of
// them once, and two seconds after the last one it is quiet.
func TestRings(t *testing.T) {
	t.Parallel()
	for _, size := range []int{2, 3} {
		for _, c := range carriers {
			for _, trouble := range troubles {
				if !servers.Long() && trouble.name != "full speed" && (size > 2 || c.rare) {
					continue
				}
				t.Run(fmt.Sprintf("%d, %s, %s", size, c.name, trouble.name), func(t *testing.T) {
					if !servers.Long() || trouble.name == "one away" { // which mostly waits
						t.Parallel() // full speed needs the machine alone
					}
					r := newRing(t, size, servers.Pick(trouble.messages, 60_000), c.destination, c.set, trouble.set)
					trouble.run(t, r)
					r.judge(t, c.exact)
				})
			}
		}
	}
}

// ring is some siptraceds that mirror each to the next one.
type ring struct {
	list    [][]byte
	options []options
	nodes   []*daemon
	lost    []int64 // of each: datagrams that the kernel dropped, and what was refused
}

func newRing(t *testing.T, size, n int, destination, set, second string) *ring {
	r := &ring{list: packets(load.Calls(n, time.Now().Add(-time.Hour))), lost: make([]int64, size)}
	ports := servers.FreePorts(t, size)
	for i := range size {
		dir := t.TempDir()
		o := options{bin: plain, network: "tcp", port: ports[i], dir: dir, db: sqliteFile(t, filepath.Join(dir, "trace.db")), set: []string{
			fmt.Sprintf("listen=udp:127.0.0.1:%d,tcp:127.0.0.1:%d", ports[i], ports[i]), "receive_buffer=64MiB",
			fmt.Sprintf("destinations=sip:127.0.0.1:%d;name=next;%s", ports[(i+1)%size], destination),
		}}
		if set != "" {
			o.set = append(o.set, set)
		}
		if i == 1 && second != "" {
			o.set = append(o.set, second)
		}
		r.options = append(r.options, o)
		r.nodes = append(r.nodes, nil)
		r.start(t, i)
	}
	return r
}

func (r *ring) start(t *testing.T, i int) { r.nodes[i] = start(t, r.options[i]) }

// halt ends a node in order.
func (r *ring) halt(t *testing.T, i int) {
	c := r.nodes[i].stop(t)
	r.note(i, c)
	r.nodes[i] = nil
}

func (r *ring) note(i int, c servers.Counters) {
	r.lost[i] += c.Sum("kernel_drops") + c.Sum(servers.Rejected)
}

// feed gives the first node a part of the messages, as fast as it takes them.
func (r *ring) feed(t *testing.T, from, to float64) {
	t.Helper()
	n := float64(len(r.list))
	d := r.nodes[0]
	d.feed(t, r.list[int(from*n):int(to*n)]...)
	servers.WaitFor(t, patience, "the messages to be read", func() bool { return d.CountersNow(t)[servers.Received] >= int64(d.fed) })
}

// judge waits until it is quiet, and looks at the tables.
func (r *ring) judge(t *testing.T, exact bool) {
	t.Helper()
	fed := time.Now()
	after := quiet(t, r.nodes...).Sub(fed)
	received := make([]int64, len(r.nodes))
	for i, d := range r.nodes {
		received[i] = d.CountersNow(t)[servers.Received]
	}
	time.Sleep(servers.Pick(200*time.Millisecond, 2*time.Second))
	for i, d := range r.nodes {
		if now := d.CountersNow(t)[servers.Received]; now != received[i] {
			t.Errorf("siptraced %d: not quiet, %d messages more", i, now-received[i])
		}
	}
	n, most := len(r.list), len(r.list)
	if !exact {
		most += n / 100
	}
	text := fmt.Sprintf("quiet after %.1f s; ", max(after, 0).Seconds())
	for i, d := range r.nodes {
		c := d.stop(t)
		r.note(i, c)
		rows, texts := d.table.number("SELECT COUNT(*) FROM sip_trace"), d.table.number("SELECT COUNT(DISTINCT msg) FROM sip_trace")
		text += fmt.Sprintf("siptraced %d: %d rows of %d messages, %d lost, %d dropped as loops; ", i, rows, texts, r.lost[i], c["dropped.loop"])
		if rows > most {
			t.Errorf("siptraced %d: %d rows of %d messages\n%v\n%s", i, rows, n, c, d.Tail(20))
		}
		if i == 0 && texts != n {
			t.Errorf("siptraced 0: %d different messages in the table, want %d", texts, n)
		}
	}
	t.Log(text)
}

// TestLoops lets what is mirrored come back to one siptraced.
func TestLoops(t *testing.T) {
	t.Parallel()
	t.Run("itself by another address", func(t *testing.T) {
		t.Parallel()
		port := servers.FreePort(t)
		d := start(t, options{port: port, set: []string{
			fmt.Sprintf("listen=udp:0.0.0.0:%d", port), fmt.Sprintf("destinations=sip:127.0.0.2:%d;name=self", port),
		}})
		once(t, d)
	})
	t.Run("itself by way of another", func(t *testing.T) {
		t.Parallel()
		ports := servers.FreePorts(t, 2)
		double(t, ports[1], ports[0])
		d := start(t, options{port: ports[0], set: []string{fmt.Sprintf("destinations=sip:127.0.0.1:%d;name=around", ports[1])}})
		once(t, d)
	})
	t.Run("the proxy's own configuration", func(t *testing.T) {
		t.Parallel()
		// Its duplicate_uri is our socket, which is right, and no mirror.
		port := servers.FreePort(t)
		cfg := write(t, filepath.Join(t.TempDir(), "kamailio.cfg"), fmt.Sprintf(`#!KAMAILIO
listen=udp:192.0.2.1:5060
loadmodule "siptrace.so"
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:%d")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 1)
`, port))
		d := start(t, options{port: port, config: cfg})
		c := once(t, d)
		if len(c.Mirrors()) > 0 || c["dropped.loop"] != 0 {
			t.Errorf("mirrors to itself: %v", c)
		}
		if !strings.Contains(d.Stderr(), "not a mirror") {
			t.Errorf("does not say that duplicate_uri is no mirror:\n%s", d.Stderr())
		}
	})
}

// again is a call with messages that come again, as those of a phone over UDP
// do: the same bytes a little later.
func again(t *testing.T) [][]byte {
	t.Helper()
	at := time.Now().Add(-time.Minute)
	first, later := load.Call(load.Spec{}, at), load.Call(load.Spec{}, at.Add(500*time.Millisecond))
	in := packets(first)
	for _, i := range []int{0, 0, 3, 5} {
		in = append(in, later[i].Packet)
	}
	return in
}

// once feeds one daemon and wants each message stored once.
func once(t *testing.T, d *daemon) servers.Counters {
	t.Helper()
	in := again(t)
	d.feed(t, in...)
	quiet(t, d)
	c := d.stop(t)
	t.Logf("%v", c)
	if got := c["store.rows"]; got != int64(len(in)) {
		t.Errorf("%d rows of %d messages", got, len(in))
	}
	return c
}

// quiet waits until nothing comes and goes any more, and returns since when.
func quiet(t *testing.T, ds ...*daemon) time.Time {
	t.Helper()
	last, since, same := "", time.Now(), 0
	servers.WaitFor(t, patience, "the daemons to be quiet", func() bool {
		now, busy := "", false
		for _, d := range ds {
			c := d.CountersNow(t)
			now += fmt.Sprintf("%d %d %d ", c[servers.Received], c[servers.Spooled], c[servers.Written])
			waits := c[servers.Pending]
			for _, m := range c.Mirrors() {
				now += fmt.Sprint(c["mirror."+m+".sent"], " ")
				waits += c["mirror."+m+".pending"]
			}
			if c[servers.Received] > servers.Pick(int64(150_000), 1_000_000) {
				t.Fatalf("a storm: %d messages came", c[servers.Received])
			}
			busy = busy || waits > 0 || c[servers.Received] == 0 && d.fed > 0
		}
		if same++; now != last || busy {
			last, since, same = now, time.Now(), 0
		}
		return time.Since(since) > time.Second && same > 3
	})
	return since
}

// TestModes has a real Kamailio send every message twice to one port, as HEP and
// as a SIP duplicate (trace_mode 5 and 7), with its own configuration for both
// ends: one row each, and mirrored once each.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []int{5, 7} {
		for _, headers := range []int{0, 1} {
			t.Run(fmt.Sprintf("trace_mode %d, xheaders_write %d", mode, headers), func(t *testing.T) {
				t.Parallel()
				ports := servers.FreePorts(t, 2)
				proxy := strconv.Itoa(ports[0])
				cfg := fill(t, "modes.cfg", map[string]string{
					"PORT": proxy, "MIRROR": strconv.Itoa(ports[1]), "MODE": strconv.Itoa(mode), "HEADERS": strconv.Itoa(headers),
					"DBURL": kamailioFile(t).url,
				})
				sink := collect(t, "udp", "127.0.0.1")
				d := start(t, options{
					port: ports[1], config: write(t, filepath.Join(t.TempDir(), "kamailio.cfg"), cfg),
					set: []string{"destinations=" + uri(sink, "udp")},
				})
				k := servers.StartKamailio(t, cfg, "udp:127.0.0.1:"+proxy)
				const calls = 5
				b, err := os.ReadFile(filepath.Join("..", "e2e", "testdata", "sipp", "options.xml"))
				if err != nil {
					t.Fatal(err)
				}
				servers.RunSipp(t, time.Minute, servers.Sipp{Name: "options", Scenario: string(b), Remote: "127.0.0.1:" + proxy, Calls: calls})
				servers.WaitFor(t, patience, "both copies of all messages", func() bool { return d.CountersNow(t)[servers.Received] >= 4*calls })
				k.Stop(t)
				d.settle(t)
				c := d.stop(t)
				t.Logf("%v", c)
				rows := d.table.rows(t)
				if len(rows) != 2*calls || c[servers.Received] != 4*calls {
					t.Errorf("%d rows of %d messages, %d received", len(rows), 2*calls, c[servers.Received])
				}
				directions := map[string]int{}
				for _, r := range rows {
					directions[r.Direction+" "+r.Status]++
					if own := "udp:127.0.0.1:" + proxy; r.FromIP != own && r.ToIP != own {
						t.Errorf("row from %s to %s, want %s among them", r.FromIP, r.ToIP, own)
					}
				}
				if directions["in "] != calls || directions["out 200"] != calls {
					t.Errorf("directions: %v", directions)
				}
				var want, got [][]byte
				for _, r := range rows {
					want = append(want, []byte(r.Msg))
				}
				for _, p := range closed(t, sink) {
					h, err := vectors.Decode(p)
					if err != nil {
						t.Error(err)
					}
					got = append(got, h.Payload)
				}
				report(t, "mirrored", diffCalls(want, got))
			})
		}
	}
}

// TestRepeated loses the answers to keep-alives with the connections that they
// would have come over: what is delivered again is stored once. So it is when the
// receiver restarts meanwhile.
func TestRepeated(t *testing.T) {
	t.Parallel()
	const messages = 500 // less than may be under way without an answer
	ports := servers.FreePorts(t, 3)
	receiver := options{network: "tcp", port: ports[0], dir: t.TempDir()}
	receiver.db = sqliteFile(t, filepath.Join(receiver.dir, "trace.db"))
	b := start(t, receiver)
	cut := deaf(t, ports[1], ports[0])
	a := start(t, options{network: "tcp", set: []string{fmt.Sprintf("destinations=sip:127.0.0.1:%d;name=b;transport=tcp;ack=keepalive", ports[1])}})
	list := load.Calls(messages, time.Now().Add(-time.Hour))
	a.feed(t, packets(list)...)
	servers.WaitFor(t, patience, "all to be received", func() bool { return b.CountersNow(t)[servers.Spooled] >= messages })
	cut(true)
	servers.WaitFor(t, patience, "repeated deliveries", func() bool { return b.CountersNow(t)["dropped.repeated"] > 0 })
	b.stop(t)
	b = start(t, receiver)
	cut(true)
	servers.WaitFor(t, patience, "repeated deliveries after the restart", func() bool { return b.CountersNow(t)["dropped.repeated"] > 0 })
	cut(false)
	a.settle(t)
	a.stop(t)
	c := b.stop(t)
	t.Logf("%v", c)
	if rows := b.table.number("SELECT COUNT(*) FROM sip_trace"); rows != messages {
		t.Errorf("%d rows of %d messages", rows, messages)
	}
}

// deaf hands connections on to another port, and no byte back. What it returns
// ends those that are there; the next ones get what comes back unless they are to
// be deaf too.
func deaf(t *testing.T, port, to int) func(again bool) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	isDeaf := true
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to))
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			back := io.Writer(in)
			if isDeaf {
				back = io.Discard
			}
			mu.Unlock()
			all.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			all.Go(func() { _, _ = io.Copy(back, out); _ = in.Close() })
		}
	})
	end := func(again bool) {
		mu.Lock()
		defer mu.Unlock()
		isDeaf = again
		for _, c := range open {
			_ = c.Close()
		}
		open = nil
	}
	t.Cleanup(func() {
		_ = l.Close()
		end(false)
		all.Wait()
	})
	return end
}
