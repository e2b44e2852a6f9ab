package mirror

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestLoops lets what is mirrored come back: each message is stored once, the
// copies that come back are counted, and then it is quiet. Without the time of
// the original a copy that comes back can't be told from what a second proxy
// would send of the same message, so that a few are taken.
func TestLoops(t *testing.T) {
	t.Parallel()
	const few = 12
	for _, f := range []struct {
		name, destination, set string
		copies                 int // of one message, at most
	}{
		{"hep3", "protocol=hep3", "", 1},
		{"hep3 time of relaying", "protocol=hep3;time=relay", "", few},
		{"hep2", "protocol=hep2", "", 1},
		{"hep1", "protocol=hep1", "", few},
		{"headers", "protocol=sip;xheaders=1", "siptrace.xheaders_read=1", 1},
		{"plain SIP", "protocol=sip;xheaders=0", "", few},
		{"hep3 over TCP", "protocol=hep3;transport=tcp", "", 1},
	} {
		t.Run("two, "+f.name, func(t *testing.T) {
			t.Parallel()
			ports := servers.FreePorts(t, 2)
			var ds [2]*daemon
			for i := range ds {
				set := []string{
					fmt.Sprintf("listen=udp:127.0.0.1:%d,tcp:127.0.0.1:%d", ports[i], ports[i]),
					fmt.Sprintf("destinations=sip:127.0.0.1:%d;name=other;%s", ports[1-i], f.destination),
				}
				if f.set != "" {
					set = append(set, f.set)
				}
				ds[i] = start(t, options{port: ports[i], set: set})
			}
			in := again(t)
			ds[0].feed(t, in...)
			quiet(t, ds[:]...)
			for i, d := range ds {
				c := d.stop(t)
				t.Logf("%v", c)
				if got := c["store.rows"]; got < int64(len(in)) || got > int64(len(in)*f.copies) {
					t.Errorf("siptraced %d: %d rows of %d messages, want up to %d for each", i, got, len(in), f.copies)
				}
				if i == 0 && c["dropped.loop"] < int64(len(in)) {
					t.Errorf("%d copies of %d messages dropped as they came back", c["dropped.loop"], len(in))
				}
			}
		})
	}

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

// quiet waits until nothing comes and goes any more.
func quiet(t *testing.T, ds ...*daemon) {
	t.Helper()
	last, since := "", time.Now()
	servers.WaitFor(t, patience, "the daemons to be quiet", func() bool {
		now := ""
		for _, d := range ds {
			c := d.CountersNow(t)
			now += fmt.Sprintf("%d %d %d ", c[servers.Received], c[servers.Spooled], c[servers.Written])
			waits := c[servers.Pending]
			for _, m := range c.Mirrors() {
				now += fmt.Sprint(c["mirror."+m+".sent"], " ")
				waits += c["mirror."+m+".pending"]
			}
			if c[servers.Received] > 1000 {
				t.Fatalf("a storm: %d messages came", c[servers.Received])
			}
			if waits > 0 || c[servers.Received] == 0 && d.fed > 0 {
				now = ""
			}
		}
		if now != last || now == "" {
			last, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
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
