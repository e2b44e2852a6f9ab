package mirror

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestChain has a real Kamailio send SIP duplicates with X-Siptrace headers to
// another one, straight and by way of siptraced, while sipp calls, gives up,
// writes and asks. All three tables have to be equal, and so do the duplicates
// that the two last nodes send on.
func TestChain(t *testing.T) {
	t.Parallel()
	db := servers.StartMariaDB(t)
	ports := servers.FreePorts(t, 5)
	proxy, tee, collecting, behind := ports[0], ports[1], ports[2], ports[3]
	straight, relayed, ours := mariaDB(t, db, "straight"), mariaDB(t, db, "relayed"), mariaDB(t, db, "siptraced")

	last := func(port int, tab *table) (*servers.Kamailio, *vectors.Sink) {
		next := collect(t, "udp", "127.0.0.1")
		cfg := fill(t, "collector.cfg", map[string]string{
			"PORT": strconv.Itoa(port), "DBURL": tab.url, "NEXT": strconv.Itoa(int(next.Addr().Port())),
		})
		return servers.StartKamailio(t, cfg, "udp:127.0.0.1:"+strconv.Itoa(port)), next
	}
	b1, next1 := last(collecting, straight)
	b2, next2 := last(behind, relayed)
	d := start(t, options{port: ports[4], db: ours, set: []string{
		"siptrace.trace_on=1", "siptrace.xheaders_read=1", "siptrace.xheaders_write=1", "siptrace.hep_mode_on=0",
		"siptrace.duplicate_uri=sip:127.0.0.1:" + strconv.Itoa(behind),
	}})
	duplicates := double(t, tee, collecting, ports[4])
	a := servers.StartKamailio(t, fill(t, "proxy.cfg", map[string]string{
		"PORT": strconv.Itoa(proxy), "MIRROR": strconv.Itoa(tee),
	}), "udp:127.0.0.1:"+strconv.Itoa(proxy))

	traffic(t, "127.0.0.1:"+strconv.Itoa(proxy))
	if t.Failed() {
		t.Fatalf("no traffic to compare\n%s", a.Tail(30))
	}
	time.Sleep(500 * time.Millisecond) // the last messages are on their way
	a.Stop(t)
	n := duplicates()
	straight.await(t, n)
	relayed.await(t, n)
	ours.await(t, n)
	d.stop(t)
	b1.Stop(t)
	b2.Stop(t)

	want := straight.rows(t)
	t.Logf("%d rows straight, %d relayed, %d of siptraced", len(want), len(relayed.rows(t)), len(ours.rows(t)))
	if n < 60 || len(want) != n {
		t.Errorf("%d rows of %d duplicates", len(want), n)
	}
	report(t, "table behind siptraced", diffRows(want, relayed.rows(t)))
	report(t, "siptraced's table", diffRows(want, ours.rows(t)))
	sent := closed(t, next1)
	if len(sent) != n || len(byCall(sent)) < 12 {
		t.Errorf("%d duplicates of %d calls sent on, want %d of 12 or more", len(sent), len(byCall(sent)), n)
	}
	report(t, "duplicates sent on", diffCalls(sent, closed(t, next2)))
	for _, m := range []string{"INVITE", "ACK", "BYE", "CANCEL", "MESSAGE", "OPTIONS"} {
		if !slices.ContainsFunc(want, func(r vectors.Row) bool { return r.Method == m }) {
			t.Errorf("no %s in the traffic", m)
		}
	}
	if t.Failed() {
		t.Logf("siptraced:\n%s", d.Tail(30))
	}
}

// double sends every datagram that comes to a port on to two others. What it
// returns says how many came, and ends it.
func double(t *testing.T, port int, to ...int) func() int {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	count := make(chan int, 1)
	go func() {
		n := 0
		defer func() { count <- n }()
		b := make([]byte, 1<<16)
		for {
			size, _, err := c.ReadFromUDP(b)
			if err != nil {
				return
			}
			n++
			for _, p := range to {
				if _, err := c.WriteToUDP(b[:size], &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p}); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	return func() int {
		_ = c.Close()
		return <-count
	}
}

// traffic runs sipp's phones through a proxy that finds the callee by its port.
func traffic(t *testing.T, proxy string) {
	t.Helper()
	phone := func(name string) servers.Sipp {
		b, err := os.ReadFile(filepath.Join("..", "e2e", "testdata", "sipp", name+".xml"))
		if err != nil {
			t.Fatal(err)
		}
		return servers.Sipp{Name: name, Scenario: string(b), Remote: proxy, Calls: 3, Rate: 10}
	}
	for _, kind := range []string{"call", "cancel", "message"} {
		callee := phone("answer-" + kind)
		callee.Remote, callee.Calls, callee.LocalPort = "", 0, servers.FreePort(t)
		answering := servers.StartSipp(t, callee)
		caller := phone(kind)
		caller.User = strconv.Itoa(callee.LocalPort)
		servers.RunSipp(t, time.Minute, caller)
		time.Sleep(200 * time.Millisecond) // the callee's last answers
		answering.Stop()
	}
	servers.RunSipp(t, time.Minute, phone("options"))
}

// diffRows compares two tables: all columns but id, rows of a call in order.
func diffRows(want, got []vectors.Row) []string {
	lines := func(rows []vectors.Row) [][]byte {
		var list [][]byte
		for _, r := range rows {
			list = append(list, fmt.Appendf(nil, "%s.%06d %s %s>%s %s %s tags %s %s user %q: %s", r.TimeStamp, r.TimeUS, r.Direction, r.FromIP, r.ToIP,
				r.Method, r.Status, r.FromTag, r.ToTag, r.TracedUser, r.Msg))
		}
		return list
	}
	return diffCalls(lines(want), lines(got))
}

// byCall sorts messages, or texts that hold one, by their Call-ID.
func byCall(list [][]byte) map[string][][]byte {
	calls := make(map[string][][]byte)
	for _, m := range list {
		call := ""
		if f := callID.FindSubmatch(m); f != nil {
			call = string(f[1])
		}
		calls[call] = append(calls[call], m)
	}
	return calls
}

var callID = regexp.MustCompile(`(?i)\nCall-ID: ([^\r\n]*)`)

func quote(list [][]byte) string {
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "\n  %.300q", m)
	}
	return b.String()
}

// diffCalls compares two lists of messages, those of each call in their order.
func diffCalls(want, got [][]byte) []string {
	var problems []string
	a, b := byCall(want), byCall(got)
	for call, list := range a {
		if !slices.EqualFunc(list, b[call], slices.Equal[[]byte]) {
			problems = append(problems, "call "+call+":\nwant "+quote(list)+"\ngot  "+quote(b[call]))
		}
	}
	for call, list := range b {
		if a[call] == nil {
			problems = append(problems, "surplus call "+call+": "+quote(list))
		}
	}
	return problems
}
