package rules

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// call is a call of alice with bob: 13 messages.
func call(id string) [][]byte {
	var out [][]byte
	for _, m := range load.Call(load.Spec{CallID: id}, time.Now()) {
		out = append(out, m.Packet)
	}
	return out
}

const callMessages = 13

// proxied are the settings for traffic of package load.
var proxied = []string{"local=udp:" + load.Proxy.String(), "siptrace.hep_mode_on=1", "siptrace.hep_version=3"}

// usersOf are the traced_users of the rows of a call, in order.
func (d *daemon) usersOf(t *testing.T, table, callID string) []string {
	t.Helper()
	servers.WaitFor(t, 30*time.Second, "the rows", func() bool { return d.CountersNow(t)[servers.Pending] == 0 })
	var out []string
	for _, r := range d.db.rows(t, table) {
		if r.CallID == callID {
			out = append(out, r.TracedUser)
		}
	}
	return out
}

// repeated is list n times.
func repeated(n int, list ...string) string { return fmt.Sprint(strings.Repeat(fmt.Sprint(list), n)) }

func chunked(list []string, n int) string {
	var b strings.Builder
	for i := 0; i < len(list); i += n {
		b.WriteString(fmt.Sprint(list[i:min(i+n, len(list))]))
	}
	return b.String()
}

// Rules by Kamailio's own kamcmd and by JSON-RPC: started, listed, stopped.
func TestRPC(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	d := start(t, options{set: proxied})
	if got := d.kamcmd(t, "siptrace.trace.start", "id=vip", "filter=from.uri.user == 'alice'", "scope=d", "destination="+s.uri,
		"correlation_id=$ci-abc", "users=sip:alice@example.org,crew", "limit=1h"); !strings.Contains(got, "id: vip") {
		t.Fatalf("start: %s", got)
	}
	d.feed(t, call("one")...)
	if got, want := chunked(d.usersOf(t, "sip_trace", "one"), 3), repeated(callMessages, "", "crew", "sip:alice@example.org"); got != want {
		t.Errorf("users: got %s, want %s", got, want)
	}
	for i, p := range s.await(t, callMessages) {
		payload, cid := p.Payload()
		if string(cid) != "one-abc" || !strings.Contains(string(payload), "Call-ID: one\r\n") {
			t.Errorf("mirrored packet %d: correlation id %q, %.60q", i, cid, payload)
		}
	}
	list := d.kamcmd(t, "siptrace.trace.list", "vip")
	for _, want := range []string{"id: vip", "filter: from.uri.user == 'alice'", "scope: d", "users: sip:alice@example.org,crew", "matched: 13", "traced: 13", "by: unix:"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in %s", want, list)
		}
	}
	if got := d.kamcmd(t, "siptrace.trace.stop", "vip"); got != "vip" {
		t.Errorf("stop: %s", got)
	}
	d.feed(t, call("two")...)
	if got, want := chunked(d.usersOf(t, "sip_trace", "two"), 1), repeated(callMessages, ""); got != want {
		t.Errorf("after the end: users %s, want %s", got, want)
	}
	if n := len(s.packets()); n != callMessages {
		t.Errorf("after the end: %d packets mirrored, want %d", n, callMessages)
	}

	// Named parameters of JSON-RPC.
	got := d.call(t, "siptrace.trace.start", `{"filter":"request.method == 'BYE'","users":["late"],"limit":3600}`)
	if !strings.Contains(got, `"id":"rule-1"`) {
		t.Errorf("JSON-RPC start: %s", got)
	}
	d.feed(t, call("three")...)
	if got := strings.Join(d.usersOf(t, "sip_trace", "three"), ","); got != ",,,,,,,,,,late,,late,," {
		t.Errorf("JSON-RPC: users %q", got)
	}
	if got := d.call(t, "siptrace.trace.list", `[]`); !strings.Contains(got, `"matched":2`) || !strings.Contains(got, `"by":"http:`) {
		t.Errorf("JSON-RPC list: %s", got)
	}
	if got := d.call(t, "siptrace.trace.stop", `["all"]`); !strings.Contains(got, `["rule-1"]`) {
		t.Errorf("JSON-RPC stop: %s", got)
	}
	// By position.
	if got := d.kamcmd(t, "siptrace.trace.start", "request.method == 'BYE'", "t", "", "", "placed", "", "1h", "p"); got != "{\n\tid: p\n}" {
		t.Errorf("by position: %s", got)
	}
	d.feed(t, call("four")...)
	if got := strings.Join(d.usersOf(t, "sip_trace", "four"), ","); got != ",,,,,,,,,,placed,,placed,,placed,,placed" {
		t.Errorf("by position: users %q", got)
	}
	d.stop(t)
	log := d.Stderr()
	for _, want := range []string{`msg="rule changed" rule="rule vip"`, "method=siptrace.trace.stop", "peer=\"unix:"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log", want)
		}
	}
}

// What can't be is refused, and says what could.
func TestRPCRefused(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"siptrace.trace.start"}, "key=value words"},
		{[]string{"siptrace.trace.start", "hello"}, "filter: "},
		{[]string{"siptrace.trace.start", "true", "t", "", "", "", "", "", "id", "more"}, "key=value words"},
		{[]string{"siptrace.trace.start", "filter=from.uri.user =="}, "filter: "},
		{[]string{"siptrace.trace.start", "filter=from.uri.user regex '(((a+)+)+'"}, "filter: "},
		{[]string{"siptrace.trace.start", "filter=" + long}, "at most 4096"},
		{[]string{"siptrace.trace.start", "scope=x"}, "none of m (message)"},
		{[]string{"siptrace.trace.start", "destination=tel:1"}, "not a SIP URI"},
		{[]string{"siptrace.trace.start", "destination=sip:h;transport=sctp"}, "udp, tcp or tls"},
		{[]string{"siptrace.trace.start", "table=subscriber"}, "not allowed"},
		{[]string{"siptrace.trace.start", "table=sip_trace`; DROP TABLE x"}, "letters, digits"},
		{[]string{"siptrace.trace.start", "limit=soon"}, "limit: "},
		{[]string{"siptrace.trace.start", "limit=-5m"}, "limit: "},
		{[]string{"siptrace.trace.start", "id=a b"}, "without blanks"},
		{[]string{"siptrace.trace.start", "correlation_id=$nonsense(x)", "id=y"}, "correlation_id: "},
		{[]string{"siptrace.trace.stop", "nobody"}, "there is no rule nobody"},
		{[]string{"siptrace.trace.stop"}, "Not enough parameters"},
		{[]string{"siptrace.trace.list", "nobody"}, "there is no rule nobody"},
		{[]string{"sip_trace_dst"}, "Not enough parameters"},
		{[]string{"sip_trace_dst_cid_type", "sip:h", "x"}, "Not enough parameters"},
		{[]string{"sip_trace_mode", "q"}, "none of m (message)"},
		{[]string{"hlog"}, "Not enough parameters"},
		{[]string{"hlog_cid", "x"}, "Not enough parameters"},
		{[]string{"sip_trace_msg", "text", "127.0.0.1:1", "udp:127.0.0.1:2", "sip:127.0.0.1:9"}, "proto:address:port"},
		{[]string{"sip_trace_msg", "text", "udp:127.0.0.1:1", "udp:127.0.0.1:2", "nonsense"}, "can't be a destination"},
	} {
		if got := d.kamcmd(t, tt.args...); !strings.Contains(got, "error:") || !strings.Contains(got, tt.want) {
			t.Errorf("%.80q: got %q, want an error with %q", tt.args, got, tt.want)
		}
	}
	if got := d.kamcmd(t, "siptrace.trace.start", "id=x"); !strings.Contains(got, "id: x") {
		t.Error(got)
	}
	if got := d.kamcmd(t, "siptrace.trace.start", "id=x"); !strings.Contains(got, "there is a rule x already") {
		t.Error(got)
	}
	// A parameter that is misspelt is named with the one that is meant, and is no filter.
	for _, params := range []string{`["id=x", "destinaton=sip:1.2.3.4"]`, `{"destinaton": "sip:1.2.3.4"}`} {
		if got := d.call(t, "siptrace.trace.start", params); !strings.Contains(got, `there is no parameter`) || !strings.Contains(got, "did you mean destination? id, filter, scope, destination") {
			t.Errorf("siptrace.trace.start %s: %s", params, got)
		}
	}
	if got := d.call(t, "siptrace.trace.start", `{"filtr":"x"}`); !strings.Contains(got, "there is no parameter") {
		t.Error(got)
	}
	var last string
	for range 260 {
		if last = d.call(t, "siptrace.trace.start", `["scope=m"]`); strings.Contains(last, "at most 256") {
			break
		}
	}
	if !strings.Contains(last, "at most 256") {
		t.Errorf("after 260 rules: %s", last)
	}
	d.stop(t)
}

// The functions of the script as commands: from now on, for all messages.
func TestKEMI(t *testing.T) {
	t.Parallel()
	dup := newSink(t)
	d := start(t, options{set: proxied, mirror: dup.uri})
	next := 0
	for _, tt := range []struct {
		args []string
		cid  string // correlation id of the mirrored packets; "none"
		n    int    // of those at the address
	}{
		{[]string{"sip_trace_dst", "URI"}, "", callMessages},
		{[]string{"sip_trace", "URI", "$ci-x", "t", "filter=request.method == 'INVITE'"}, "CALL-x", 9}, // with its ACKs
		{[]string{"sip_trace_dst_cid", "URI", "fixed"}, "fixed", callMessages},
		{[]string{"sip_trace_dst_cid_type", "URI", "$ci", "d"}, "CALL", callMessages},
		{[]string{"siptrace.sip_trace_dst", "URI", "filter=request.method == 'BYE'"}, "", 2},
	} {
		s := newSink(t)
		next++
		id := fmt.Sprintf("call-%d", next)
		args := append([]string(nil), tt.args...)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "URI", s.uri)
		}
		if got := d.kamcmd(t, args...); !strings.Contains(got, "id: rule-1") {
			t.Errorf("%q: %s", tt.args, got)
			continue
		}
		before := len(dup.packets())
		d.feed(t, call(id)...)
		for _, p := range s.await(t, tt.n) {
			if _, cid := p.Payload(); string(cid) != strings.ReplaceAll(tt.cid, "CALL", id) {
				t.Errorf("%q: correlation id %q, want %q", tt.args, cid, tt.cid)
			}
		}
		d.kamcmd(t, "siptrace.trace.stop", "all")
		dup.await(t, before+callMessages-tt.n)
		if n := len(s.packets()); n != tt.n {
			t.Errorf("%q: %d packets, want %d", tt.args, n, tt.n)
		}
	}
	// sip_trace_mode names no address: duplicate_uri it is.
	d.kamcmd(t, "sip_trace_mode", "t")
	before := len(dup.packets())
	d.feed(t, call("mode")...)
	dup.await(t, before+callMessages)
	d.kamcmd(t, "siptrace.trace.stop", "all")

	s := newSink(t)
	if got := d.kamcmd(t, "sip_trace_msg", "hello", "udp:192.0.2.5:1", "udp:192.0.2.6:2", s.uri, "cid"); got != "" {
		t.Errorf("sip_trace_msg: %s", got)
	}
	if p, cid := s.await(t, 1)[0].Payload(); string(p) != "hello" || string(cid) != "cid" {
		t.Errorf("sip_trace_msg: got %q, correlation id %q", p, cid)
	}
	before = len(dup.packets())
	d.kamcmd(t, "siptrace.status", "off")
	for _, args := range [][]string{{"hlog", "one line"}, {"hlog", "cid", "two"}, {"hlog_cid", "cid", "three"}, {"siptrace.hlog", "four"}} {
		if got := d.kamcmd(t, args...); got != "" {
			t.Errorf("%q: %s", args, got)
		}
	}
	var got []string
	for _, p := range dup.await(t, before+4)[before:] {
		payload, cid := p.Payload()
		got = append(got, fmt.Sprintf("%s/%s", cid, payload))
	}
	if want := "[/one line cid/two cid/three /four]"; fmt.Sprint(got) != want {
		t.Errorf("hlog: got %s, want %s", got, want)
	}
	rows := len(d.db.rows(t, "sip_trace"))
	d.stop(t)
	if want := (next + 1) * callMessages; rows != want {
		t.Errorf("%d rows, want %d: sip_trace_msg and hlog write none", rows, want)
	}
}

// Rules started by RPC survive a restart, and a crash; their time goes on.
func TestRulesSurvive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options{set: proxied, dir: dir}
	d := start(t, o)
	d.kamcmd(t, "siptrace.trace.start", "id=long", "filter=request.method == 'BYE'", "users=u", "limit=1h")
	d.kamcmd(t, "siptrace.trace.start", "id=short", "users=v", "limit=1")
	servers.WaitFor(t, 20*time.Second, "the short rule to end", func() bool { return !strings.Contains(d.kamcmd(t, "siptrace.trace.list"), "id: short") })
	d.kamcmd(t, "siptrace.trace.start", "id=brief", "users=w", "limit=2")
	d.Kill()
	time.Sleep(2 * time.Second) // what the rule has to outlive is the clock
	d = start(t, o)
	list := d.kamcmd(t, "siptrace.trace.list")
	if !strings.Contains(list, "id: long") || strings.Contains(list, "id: brief") || !strings.Contains(list, "filter: request.method == 'BYE'") {
		t.Errorf("after a crash: %s", list)
	}
	d.feed(t, call("after")...)
	if got := strings.Join(d.usersOf(t, "sip_trace", "after"), ","); got != ",,,,,,,,,,u,,u,," {
		t.Errorf("after a crash: users %q", got)
	}
	d.stop(t)
	// A rule that is not possible any more does not keep the daemon from starting.
	state := filepath.Join(dir, "siptraced.rules.json")
	text := read(t, state)
	write(t, state, strings.Replace(text, `"request.method == 'BYE'"`, `"request.method =="`, 1))
	d = start(t, o)
	if got := d.kamcmd(t, "siptrace.trace.list"); strings.Contains(got, "id: long") {
		t.Errorf("a rule that can't be: %s", got)
	}
	d.stop(t)
	if !strings.Contains(d.Stderr(), "can't be put into force again") {
		t.Error("nobody was told of the rule that can't be")
	}
	// A file that nobody can read does.
	write(t, state, "{")
	r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{"run", "--set", "listen=udp:" + loopback(t), "--set", "rpc.http="}, Dir: dir})
	if r.Code != 1 || !strings.Contains(r.Stderr, "rules_state siptraced.rules.json") || !strings.Contains(r.Stderr, "fix or remove it") {
		t.Errorf("exit %d: %s", r.Code, r.Stderr)
	}
}

// The event route and the rules of a file change with SIGHUP and siptrace.reload;
// a wrong one keeps the one in force.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	route := write(t, filepath.Join(dir, "route.cfg"), "event_route[siptrace:msg] {\n\tif (is_method(\"BYE\")) drop;\n}\n")
	rules := write(t, filepath.Join(dir, "rules.yaml"), "- {id: invites, filter: \"request.method == 'INVITE'\", users: [first]}\n- 'id=acks filter=\"request.method == ''ACK''\" users=ack'\n")
	d := start(t, options{set: append([]string{"event_route=" + route, "rules=" + rules, "siptrace.traced_user_avp=$avp(u)"}, proxied...), dir: dir})
	run := func(id, want string) {
		t.Helper()
		d.feed(t, call(id)...)
		if got := strings.Join(d.usersOf(t, "sip_trace", id), ","); got != want {
			t.Errorf("%s: users %q, want %q", id, got, want)
		}
	}
	run("one", ",first,,,first,,,,,,ack,,ack")
	if got := d.kamcmd(t, "siptrace.trace.stop", "invites"); !strings.Contains(got, "configuration") {
		t.Errorf("stop of a rule of the file: %s", got)
	}

	write(t, route, "event_route[siptrace:msg] {\n\tif (is_method(\"INVITE\")) {\n\t\tdorp();\n\t}\n}\n")
	if got := d.kamcmd(t, "siptrace.reload"); !strings.Contains(got, "route.cfg:3") || !strings.Contains(got, "dorp") {
		t.Errorf("reload of a wrong route: %s", got)
	}
	write(t, route, "event_route[siptrace:msg] {\n\tdrop")
	d.Signal(t, syscall.SIGHUP)
	servers.WaitFor(t, 20*time.Second, "the refusal", func() bool { return strings.Contains(d.Stderr(), "the one in force stays") })
	run("two", ",first,,,first,,,,,,ack,,ack")

	write(t, route, "event_route[siptrace:msg] {\n\t$avp(u) = \"all\";\n}\n")
	if got := d.kamcmd(t, "siptrace.reload"); !strings.Contains(got, "rules:") {
		t.Errorf("reload: %s", got)
	}
	write(t, rules, "- {id: byes, filter: \"request.method == 'NONE'\", users: [x]}\n")
	d.Signal(t, syscall.SIGHUP)
	servers.WaitFor(t, 20*time.Second, "the rules", func() bool { return strings.Contains(d.kamcmd(t, "siptrace.trace.list"), "id: byes") })
	run("three", strings.Repeat(",all,", callMessages-1)+",all")

	write(t, rules, "- {id: byes, filter: \"request.method ==\"}\n")
	if got := d.kamcmd(t, "siptrace.reload"); !strings.Contains(got, "rules.yaml") || !strings.Contains(got, "filter") {
		t.Errorf("reload of wrong rules: %s", got)
	}
	if got := d.kamcmd(t, "siptrace.trace.list"); !strings.Contains(got, "id: byes") {
		t.Errorf("after a wrong rule: %s", got)
	}
	d.stop(t)
}

// evcb_msg names another event route; what can't be found or run is refused at
// start, with its place.
func TestRefusedAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self := filepath.Join(dir, "self.cfg")
	write(t, self, "include_file \"self.cfg\"\n")
	for i := range 40 {
		write(t, filepath.Join(dir, fmt.Sprintf("deep%d.cfg", i)), fmt.Sprintf("include_file \"deep%d.cfg\"\n", i+1))
	}
	write(t, filepath.Join(dir, "deep40.cfg"), "event_route[siptrace:msg] { drop; }\n")
	route := func(text string) string { return "event_route=" + write(t, filepath.Join(t.TempDir(), "r.cfg"), text) }
	hook := "event_route[ksr_msg] {\n\tdrop;\n}\nevent_route[siptrace:msg] {\n\txlog(\"never\");\n}\n"
	for _, tt := range []struct {
		name string
		set  []string
		want string // in the error; empty: it is taken
		out  string // printed
	}{
		{"hook", []string{route(hook), "siptrace.evcb_msg=ksr_msg"}, "", "event_route[ksr_msg] {"},
		{"no hook", []string{route(hook), "siptrace.evcb_msg=ksr_other"}, "there is no event_route[ksr_other]", ""},
		{"hook of KEMI", []string{"siptrace.evcb_msg=ksr_siptrace_msg"}, "event_route[ksr_siptrace_msg]", ""},
		{"no route in the file", []string{route("#!define X\n")}, "there is no event_route[siptrace:msg]", ""},
		{"unknown function", []string{route("event_route[siptrace:msg] {\n\n\tt_relay();\n}\n")}, "r.cfg:3: ", ""},
		{"no file", []string{"event_route=" + filepath.Join(dir, "none.cfg")}, "none.cfg", ""},
		{"includes itself", []string{"event_route=" + self}, "self.cfg", ""},
		{"endless includes", []string{"event_route=" + filepath.Join(dir, "deep0.cfg")}, "deep", ""},
		{"regex bomb", []string{route("event_route[siptrace:msg] {\n\tif (search(\"" + strings.Repeat("(", 2000) + "a" + strings.Repeat("){1,1000}", 2000) + "\")) drop;\n}\n")}, "r.cfg:2", ""},
		{"rules that are none", []string{"rules=" + write(t, filepath.Join(dir, "r.yaml"), "- {id: x, colour: blue}\n")}, "colour", ""},
		{"rules twice", []string{"rules=" + write(t, filepath.Join(dir, "r2.yaml"), "- {id: x}\n- {id: x}\n")}, "the id x is there already", ""},
		{"bad pattern", []string{"tables=[a"}, "not a pattern", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"check"}
			for _, s := range tt.set {
				args = append(args, "--set", s)
			}
			began := time.Now()
			r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: args})
			if time.Since(began) > 20*time.Second {
				t.Errorf("took %v", time.Since(began))
			}
			switch {
			case tt.want == "" && (r.Code != 0 || !strings.Contains(r.Stdout, tt.out)):
				t.Errorf("exit %d\n%s\n%s", r.Code, r.Stderr, r.Stdout)
			case tt.want != "" && (r.Code != 1 || !strings.Contains(r.Stderr, tt.want)):
				t.Errorf("exit %d, want an error with %q: %.500s", r.Code, tt.want, r.Stderr)
			}
		})
	}
}

// YAML holds the text of the event route and rules as well.
func TestYAML(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "siptraced.yaml"), `siptrace:
  traced_user_avp: "$avp(s:u)"
event_route: |
  event_route[siptrace:msg] {
      if (is_method("ACK")) drop;
      route(NAME);
  }
  route[NAME] {
      $avp(s:u) = $fU;
  }
rules:
  - id: one
    filter: request.method == 'BYE'
    users: [last]
`)
	r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{"check", "-c", file}, Dir: dir})
	for _, want := range []string{"event_route[siptrace:msg] {", "route[NAME] {", `rule one: filter="request.method == 'BYE'"`, "siptraced.yaml:"} {
		if r.Code != 0 || !strings.Contains(r.Stdout, want) {
			t.Errorf("exit %d, no %q: %s\n%s", r.Code, want, r.Stderr, r.Stdout)
		}
	}
	addr := loopback(t)
	p := servers.StartSiptraced(t, servers.Command{Bin: program, Dir: dir, Args: []string{
		"run", "-c", file, "--set", "listen=udp:" + addr, "--set", "local=udp:" + load.Proxy.String(), "--set", "rpc.http=", "--set", "rpc.ctl=unix:" + filepath.Join(dir, "c"),
	}})
	d := &daemon{Siptraced: p, addr: addr, db: sqliteFile(t, filepath.Join(dir, "siptraced.db"))}
	d.feed(t, call("yaml")...)
	if got := strings.Join(d.usersOf(t, "sip_trace", "yaml"), ","); got != strings.Repeat(",alice,", 7)+",alice,last,,alice,last,,alice,,alice" {
		t.Errorf("users %q", got)
	}
	d.stop(t)
}
