package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// A ladder is written as lines: who > whom, the message, its branch, and the tags
// of From and To. Ends: a is the caller, p the proxy, b, c, d are branches.
var (
	ends = map[string]string{
		"a": "198.51.100.9:5060", "p": "192.0.2.1:5060", "b": "203.0.113.20:5060", "c": "203.0.113.21:5060", "d": "203.0.113.22:5060",
	}
	ladderLine = regexp.MustCompile(`^(\w) > (\w) +(?:(\d{3}) )?(\w+)/(\d+) +(\S+) +(\S+) +(\S+)$`)
)

// ladder makes the packets of a call.
func ladder(t *testing.T, callID, text string) [][]byte {
	t.Helper()
	var out [][]byte
	at := traceTime
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		m := ladderLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("ladder: %q", line)
		}
		src, dst, status, method, cseq, branch, from, to := m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]
		first := method + " sip:bob@example.org SIP/2.0"
		if status != "" {
			first = "SIP/2.0 " + status + " Reason"
		}
		tag := func(s string) string {
			if s == "-" {
				return ""
			}
			return ";tag=" + s
		}
		at = at.Add(10 * time.Millisecond)
		out = append(out, load.HEP3(load.UDP, netip.MustParseAddrPort(ends[src]), netip.MustParseAddrPort(ends[dst]), at, fmt.Appendf(nil,
			"%s\r\nVia: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK%s\r\nFrom: <sip:%s@example.org>%s\r\nTo: <sip:%s@example.org>%s\r\nCall-ID: %s\r\nCSeq: %s %s\r\nContent-Length: 0\r\n\r\n",
			first, branch, from, tag(from), to, tag(to), callID, cseq, method)))
	}
	return out
}

// forked is a call to three branches: two ring, b answers, c is cancelled while it
// answers as well (the two cross), d is busy; re-INVITE, REFER with its NOTIFY, a
// late BYE, and the end of what c answered.
const forked = `
a > p     INVITE/1   a1  alice -
p > a 100 INVITE/1   a1  alice -
p > b     INVITE/1   p1  alice -
p > c     INVITE/1   p2  alice -
p > d     INVITE/1   p3  alice -
b > p 180 INVITE/1   p1  alice tb
p > a 180 INVITE/1   a1  alice tb
d > p 486 INVITE/1   p3  alice td
p > d     ACK/1      p3  alice td
c > p 180 INVITE/1   p2  alice tc
p > a 180 INVITE/1   a1  alice tc
b > p 200 INVITE/1   p1  alice tb
p > a 200 INVITE/1   a1  alice tb
p > c     CANCEL/1   p2  alice -
c > p 200 INVITE/1   p2  alice tc
p > a 200 INVITE/1   a1  alice tc
c > p 481 CANCEL/1   p2  alice tc
a > p     ACK/1      a2  alice tb
p > b     ACK/1      p4  alice tb
a > p     ACK/1      a3  alice tc
p > c     ACK/1      p5  alice tc
a > p     BYE/2      a4  alice tc
p > c     BYE/2      p6  alice tc
c > p 200 BYE/2      p6  alice tc
p > a 200 BYE/2      a4  alice tc
b > p     INVITE/9   b1  tb    alice
p > b 100 INVITE/9   b1  tb    alice
p > a     INVITE/9   p7  tb    alice
a > p 200 INVITE/9   p7  tb    alice
p > b 200 INVITE/9   b1  tb    alice
b > p     ACK/9      b2  tb    alice
p > a     ACK/9      p8  tb    alice
a > p     REFER/3    a5  alice tb
p > b     REFER/3    p9  alice tb
b > p 202 REFER/3    p9  alice tb
p > a 202 REFER/3    a5  alice tb
b > p     NOTIFY/10  b3  tb    alice
p > a     NOTIFY/10  pa  tb    alice
a > p 200 NOTIFY/10  pa  tb    alice
p > b 200 NOTIFY/10  b3  tb    alice
b > p     BYE/11     b4  tb    alice
p > a     BYE/11     pb  tb    alice
a > p 481 BYE/11     pb  tb    alice
p > b 481 BYE/11     b4  tb    alice
`

// cancelled is given up while it rings; the 200 for the CANCEL, the 487 and its
// ACK come in the order that networks make of them.
const cancelled = `
a > p     INVITE/1   a1  alice -
p > b     INVITE/1   p1  alice -
b > p 180 INVITE/1   p1  alice tb
p > a 180 INVITE/1   a1  alice tb
a > p     CANCEL/1   a1  alice -
p > b     CANCEL/1   p1  alice -
b > p 487 INVITE/1   p1  alice tb
p > b     ACK/1      p1  alice tb
p > a 487 INVITE/1   a1  alice tb
a > p     ACK/1      a1  alice tb
p > a 200 CANCEL/1   a1  alice tp
b > p 200 CANCEL/1   p1  alice tb
`

// A whole call gets what a rule says, whichever message of it the rule matched:
// what came before is looked back at, what comes later is followed.
func TestForks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, ladder, filter, scope string }{
		{"fork, from the INVITE on", forked, "request.method == 'INVITE' && call-id == 'it'", "d"},
		{"fork, from the 200 on", forked, "status.code == '200' && call-id == 'it'", "d"},
		{"fork, from the CANCEL on", forked, "request.method == 'CANCEL' && call-id == 'it'", "d"},
		{"fork, from the re-INVITE on", forked, "from.uri.user == 'tb' && call-id == 'it'", "d"},
		{"cancelled, from the INVITE on", cancelled, "request.method == 'INVITE' && call-id == 'it'", "d"},
		{"cancelled, from the 487 on", cancelled, "status.code == '487' && call-id == 'it'", "d"},
		{"cancelled, as a transaction", cancelled, "request.method == 'CANCEL' && call-id == 'it'", "t"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, s := t.TempDir(), newSink(t)
			db := sqliteFile(t, filepath.Join(dir, "trace.db")).create(t, []string{"sip_trace_d"})
			d := start(t, options{set: proxied, dir: dir, db: db})
			if got := d.kamcmd(t, "siptrace.trace.start", "id=x", "filter="+tt.filter, "scope="+tt.scope, "table=sip_trace_d", "users=u", "destination="+s.uri, "correlation_id=$ci-c"); !strings.Contains(got, "id: x") {
				t.Fatal(got)
			}
			packets := ladder(t, "it", tt.ladder)
			var all [][]byte
			for i, p := range ladder(t, "another", tt.ladder) {
				all = append(all, p, packets[i])
			}
			d.feed(t, all...)
			for i, p := range s.await(t, len(packets)) {
				if payload, cid := p.Payload(); string(cid) != "it-c" {
					t.Errorf("mirrored packet %d: correlation id %q: %.40q", i, cid, payload)
				}
			}
			d.stop(t)
			if n := len(s.packets()); n != len(packets) {
				t.Errorf("%d packets mirrored, want %d", n, len(packets))
			}
			users := map[string][]string{}
			for _, r := range db.rows(t, "sip_trace_d") {
				users[r.Msg+r.FromIP] = append(users[r.Msg+r.FromIP], r.TracedUser)
				if r.CallID != "it" {
					t.Errorf("row %d is of call %s", r.ID, r.CallID)
				}
			}
			if len(users) != len(packets) {
				t.Errorf("%d messages in the table of the rule, want %d", len(users), len(packets))
			}
			for m, u := range users {
				if !slices.Equal(u, []string{"", "u"}) {
					t.Errorf("users %q: %.60q", u, m)
				}
			}
			for _, r := range db.rows(t, "sip_trace") {
				if r.TracedUser != "" {
					t.Errorf("row %d of the other table has a user", r.ID)
				}
			}
		})
	}
}

// dialogs are set up, all stay open, and end: 13 messages each. What is lost on
// the way, and what overtakes, is chosen at random.
func dialogs(n int, rnd *rand.Rand, begin, end int) (packets [][]byte, calls []string, methods []bool) {
	const together = 40
	for first := 0; first < n; first += together {
		var queues [][]load.Message
		for c := first; c < min(first+together, n); c++ {
			list := load.Call(load.Spec{CallID: fmt.Sprintf("d-%05d", c)}, traceTime)[begin:end]
			for i := range list { // up to two places ahead
				j := min(len(list)-1, i+rnd.IntN(3))
				list[i], list[j] = list[j], list[i]
			}
			queues = append(queues, list)
		}
		for len(queues) > 0 {
			q := rnd.IntN(len(queues))
			m := queues[q][0]
			if queues[q] = queues[q][1:]; len(queues[q]) == 0 {
				queues = slices.Delete(queues, q, q+1)
			}
			if rnd.IntN(50) == 0 {
				continue // lost
			}
			packets = append(packets, m.Packet)
			calls = append(calls, m.CallID)
			methods = append(methods, strings.HasPrefix(m.Payload, "INVITE "))
		}
	}
	return packets, calls, methods
}

// 10,000 dialogs open at once, every second one of them traced as a whole: each is
// complete, whatever was lost or overtook, and memory stays bounded.
func TestManyDialogs(t *testing.T) {
	const n = 10_000
	dir := t.TempDir()
	db := sqliteFile(t, filepath.Join(dir, "trace.db")).create(t, []string{"sip_trace_d"})
	d := start(t, options{set: proxied, dir: dir, db: db})
	if got := d.kamcmd(t, "siptrace.trace.start", "filter=request.method == 'INVITE' && call-id regex 'd-[0-9]*[02468]$'", "scope=d", "table=sip_trace_d"); !strings.Contains(got, "id: ") {
		t.Fatal(got)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	want, matched := map[string]int{}, map[string]bool{}
	fed := 0
	began := time.Now()
	open := int64(0)
	for _, phase := range [][2]int{{0, 9}, {9, callMessages}} {
		packets, calls, invites := dialogs(n, rnd, phase[0], phase[1])
		d.feed(t, packets...)
		fed += len(packets)
		for i, c := range calls {
			want[c]++
			matched[c] = matched[c] || invites[i]
		}
		open = max(open, d.CountersNow(t)["rules.scopes"])
	}
	took := time.Since(began)
	servers.WaitFor(t, 10*time.Minute, "the rows", func() bool { return d.CountersNow(t)[servers.Pending] == 0 })
	peak := peakMemory(t, d.PID())
	c := d.stop(t)
	rs, err := db.db.Query("SELECT callid, COUNT(*) FROM sip_trace_d GROUP BY callid")
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	got := map[string]int{}
	for rs.Next() {
		var call string
		var count int
		if err := rs.Scan(&call, &count); err != nil {
			t.Fatal(err)
		}
		got[call] = count
	}
	if err := rs.Err(); err != nil {
		t.Fatal(err)
	}
	traced, messages, untraced, problems := 0, 0, 0, []string(nil)
	for call, count := range want {
		number, err := strconv.Atoi(strings.TrimPrefix(call, "d-"))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case number%2 == 1 || !matched[call]:
			untraced++
			count = 0
		default:
			traced++
			messages += count
		}
		if got[call] != count {
			problems = append(problems, fmt.Sprintf("%s: %d messages in the table, want %d", call, got[call], count))
		}
	}
	slices.Sort(problems)
	report(t, problems)
	t.Logf("%d dialogs, %d messages after loss of 2 %% and reordering, in %.1f s: %d dialogs traced with %d messages, %d looked back at, %d scopes open at most, %d evicted; peak memory %.0f MiB",
		n, fed, took.Seconds(), traced, messages, c["rules.looked_back"], open, c["rules.scopes_evicted"], float64(peak)/(1<<20))
	if open < n/2-50 || c["rules.scopes_evicted"] != 0 {
		t.Errorf("%d scopes open at most, %d evicted; %d dialogs were open at once", open, c["rules.scopes_evicted"], n/2)
	}
	// The race detector takes several times as much.
	if most := int64(256 << 20); peak > most && os.Getenv("SIPTEST_RACE") == "" {
		t.Errorf("peak memory %d MiB", peak>>20)
	}
}

// peakMemory is the largest resident size of a process so far, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
