package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// fill puts values in the place of @NAME@.
func fill(text string, values map[string]string) string {
	for k, v := range values {
		text = strings.ReplaceAll(text, "@"+k+"@", v)
	}
	return text
}

func readFile(tb testing.TB, file string) string {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// leg is a way for phones to reach the proxy.
type leg struct {
	name      string
	transport string // sipp's -t
	param     string // of a SIP URI
	local     string // address of the phones
	proxy     string // address of the proxy, without port
}

// TestSideBySide lets a real Kamailio write its own table, with siptraced beside
// it, while sipp registers, calls, gives up, writes and subscribes. The two
// tables have to be equal.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	db := servers.StartMariaDB(t)
	theirs := mariaDB(t, db, "kamailio", "utf8mb4")
	ours := mariaDB(t, db, "siptraced", "utf8mb4")
	theirs.createTable(t, nil)
	ours.createTable(t, nil)

	// Kamailio's configuration is siptraced's as well; only the database differs.
	ports := servers.FreePorts(t, 2)
	port := strconv.Itoa(ports[0])
	cfg := fill(readFile(t, "testdata/proxy.cfg"), map[string]string{
		"PORT": port, "HEPPORT": strconv.Itoa(ports[1]), "DBURL": theirs.url,
	})
	file := write(t, filepath.Join(t.TempDir(), "kamailio.cfg"), cfg)
	run := start(t, options{port: ports[1], config: file, dbURL: ours.url, set: []string{"spool.dir=" + t.TempDir()}})
	kam := servers.StartKamailio(t, cfg, "udp:127.0.0.1:"+port, "udp:[::1]:"+port, "tcp:127.0.0.1:"+port)

	legs := []leg{
		{name: "udp", transport: "u1", param: "udp", local: "127.0.0.1", proxy: "127.0.0.1"},
		{name: "tcp", transport: "t1", param: "tcp", local: "127.0.0.1", proxy: "127.0.0.1"},
		{name: "ipv6", transport: "u1", param: "udp", local: "::1", proxy: "[::1]"},
	}
	for _, l := range legs {
		t.Run(l.name, func(t *testing.T) { l.traffic(t, l.proxy+":"+port) })
	}
	if t.Failed() {
		t.Fatalf("no traffic to compare\n%s", kam.Tail(30))
	}
	// The last messages are on their way.
	for n, since := -1, time.Now(); time.Since(since) < time.Second; time.Sleep(100 * time.Millisecond) {
		if now := theirs.count("sip_trace") + ours.count("sip_trace"); now != n {
			n, since = now, time.Now()
		}
	}
	kam.Stop(t)
	a := theirs.rows(t, "sip_trace", nil)
	ours.await(t, run, "sip_trace", len(a), time.Minute)
	run.stop(t)
	b := ours.rows(t, "sip_trace", nil)
	if len(a) < 150 {
		t.Errorf("Kamailio wrote only %d rows", len(a))
	}
	t.Logf("%d rows of Kamailio, %d of siptraced", len(a), len(b))
	report(t, diffTables(a, b, time.Local, 500*time.Millisecond))
	wantMethods(t, a, "REGISTER", "INVITE", "ACK", "BYE", "CANCEL", "MESSAGE", "SUBSCRIBE", "NOTIFY", "OPTIONS")
	if t.Failed() {
		t.Logf("siptraced:\n%s", run.Tail(30))
	}
}

// wantMethods makes sure that the traffic was what the test promises.
func wantMethods(t *testing.T, rows []vectors.Row, methods ...string) {
	t.Helper()
	for _, m := range methods {
		for _, proto := range []string{"udp:127.", "tcp:127.", "udp:[::1]"} {
			if !slices.ContainsFunc(rows, func(r vectors.Row) bool { return r.Method == m && strings.HasPrefix(r.FromIP, proto) }) {
				t.Errorf("no %s from %s... in Kamailio's table", m, proto)
			}
		}
	}
}

// traffic runs the phones of one leg, one kind after the other.
func (l leg) traffic(t *testing.T, proxy string) {
	t.Helper()
	scenario := func(name string) string { return readFile(t, "testdata/sipp/"+name+".xml") }
	phone := func(name, user string) servers.Sipp {
		return servers.Sipp{
			Name: l.name + "-" + name, Scenario: scenario(name), Remote: proxy, LocalIP: l.local,
			Transport: l.transport, Calls: 3, Rate: 10, User: user,
		}
	}
	const timeout = 2 * time.Minute
	for _, kind := range []struct{ name, user string }{
		{"call", "bob"}, {"cancel", "carol"}, {"message", "dave"}, {"subscribe", "erin"},
	} {
		port := servers.FreePort(t)
		kind.user += "-" + l.name // a user has one phone
		callee := phone("answer-"+kind.name, kind.user)
		callee.Remote, callee.Calls, callee.LocalPort = "", 0, port
		answering := servers.StartSipp(t, callee)

		register := phone("register", kind.user)
		register.Calls = 1
		register.AuthUser, register.AuthPass = kind.user, "secret"
		host := l.local
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		register.Keys = map[string]string{"contact": fmt.Sprintf("%s:%d;transport=%s", host, port, l.param)}
		servers.RunSipp(t, timeout, register)
		servers.RunSipp(t, timeout, phone(kind.name, kind.user))
		time.Sleep(200 * time.Millisecond) // the callee's last answers
		answering.Stop()
	}
	servers.RunSipp(t, timeout, phone("options", "monitor"))
}

// diffTables compares two tables as sets of rows, all columns but id, time
// within the tolerance; and for calls over UDP the order as well, because there
// one process of Kamailio handles all messages of a socket.
func diffTables(a, b []vectors.Row, loc *time.Location, tolerance time.Duration) []string {
	var problems []string
	key := func(r vectors.Row) vectors.Row {
		r.ID, r.TimeStamp, r.TimeUS = 0, "", 0
		return r
	}
	open := make(map[vectors.Row][]*vectors.Row)
	for i := range a {
		k := key(a[i])
		open[k] = append(open[k], &a[i])
	}
	brief := func(r *vectors.Row) string {
		first, _, _ := strings.Cut(r.Msg, "\r\n")
		return fmt.Sprintf("%s %s > %s callid %q method %q status %q tags %q %q: %s", r.Direction, r.FromIP, r.ToIP, r.CallID, r.Method, r.Status, r.FromTag, r.ToTag, first)
	}
	for i := range b {
		k := key(b[i])
		list := open[k]
		if len(list) == 0 {
			problems = append(problems, "only in siptraced's table: "+brief(&b[i]))
			continue
		}
		open[k] = list[1:]
		ta, err1 := list[0].Moment(loc)
		tb, err2 := b[i].Moment(loc)
		if err1 != nil || err2 != nil || ta.Sub(tb).Abs() > tolerance {
			problems = append(problems, fmt.Sprintf("times %v and %v (%v, %v): %s", ta, tb, err1, err2, brief(&b[i])))
		}
	}
	for _, list := range open {
		for _, r := range list {
			problems = append(problems, "only in Kamailio's table: "+brief(r))
		}
	}
	if len(problems) > 0 {
		return problems
	}
	calls := func(rows []vectors.Row) map[string][]string {
		m := make(map[string][]string)
		for i := range rows {
			if strings.HasPrefix(rows[i].FromIP, "udp:") && strings.HasPrefix(rows[i].ToIP, "udp:") {
				m[rows[i].CallID] = append(m[rows[i].CallID], brief(&rows[i]))
			}
		}
		return m
	}
	theirs := calls(a)
	for callID, order := range calls(b) {
		if !slices.Equal(order, theirs[callID]) {
			problems = append(problems, fmt.Sprintf("order of call %s:\nsiptraced:\n  %s\nKamailio:\n  %s",
				callID, strings.Join(order, "\n  "), strings.Join(theirs[callID], "\n  ")))
		}
	}
	return problems
}
