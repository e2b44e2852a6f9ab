package rules

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/pipeline"
	"siptraced/compat/kamcfg"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// rig is an engine with one message after another.
type rig struct {
	t      *testing.T
	engine *Engine
	count  *counters.Set
	params siptrace.Params
	// decision is nil when nothing has to be decided.
	decision *Decision
	further  []siptrace.Record
}

func route(t testing.TB, text string) *kamcfg.Route {
	t.Helper()
	cfg, err := kamcfg.ParseBytes("test.cfg", []byte("event_route[siptrace:msg] {"+text+"}"), kamcfg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &cfg.EventRoutes[0]
}

func newRig(t *testing.T, routeText string, set func(*Config)) *rig {
	t.Helper()
	cfg := Config{Params: siptrace.DefaultParams(), Tables: []string{"sip_trace*"}}
	cfg.Params.TraceOn, cfg.Params.TracedUserAVP, cfg.Params.TraceTableAVP = true, "$avp(s:tu)", "$avp(tt)"
	if routeText != "" {
		cfg.Route = route(t, routeText)
	}
	if set != nil {
		set(&cfg)
	}
	r := &rig{t: t, count: counters.New(), params: cfg.Params}
	var err error
	if r.engine, err = New(Options{Config: cfg, Counters: r.count, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.engine.Close)
	r.renew()
	return r
}

// renew has the rules in force now decide.
func (r *rig) renew() {
	r.decision = nil
	r.engine.SetParams(r.params)
	if d := r.engine.Decider(); d != nil {
		r.decision = d.NewDecision()
	}
}

// start starts a rule of words.
func (r *rig) start(words ...string) {
	r.t.Helper()
	rule, err := ParseWords(words, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	rule.Started = time.Now()
	if _, err := r.engine.Start(rule); err != nil {
		r.t.Fatal(err)
	}
	r.renew()
}

// text is a message: "INVITE" or "200 INVITE".
func text(what, call, branch, toTag string) string {
	first, cseq, ok := strings.Cut(what, " ")
	line := "SIP/2.0 " + first + " X"
	if !ok {
		cseq, line = first, first+" sip:bob@example.com SIP/2.0"
	}
	if cseq == "ACK" && ok {
		cseq = "INVITE"
	}
	if toTag != "" {
		toTag = ";tag=" + toTag
	}
	return line + "\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK" + branch + "\r\nFrom: <sip:alice@example.com>;tag=f\r\nTo: <sip:bob@example.com>" + toTag +
		"\r\nCall-ID: " + call + "\r\nCSeq: 1 " + cseq + "\r\nContent-Length: 0\r\n\r\n"
}

// handle has a message decided on, and says what became of it: "dropped CAUSE", or
// users, table, destinations and correlation id.
func (r *rig) handle(message string, direction string) string {
	r.t.Helper()
	var m sipmsg.Message
	if err := m.Parse([]byte(message)); err != nil {
		r.t.Fatal(err)
	}
	proxy, peer := netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("192.0.2.9:5060")
	rec := siptrace.Record{
		Time: time.Now(), CallID: m.CallID, Method: m.MethodName(), Status: m.Status, Msg: m.Raw, Direction: direction, FromTag: m.From.Tag, ToTag: m.To.Tag,
		From: siptrace.Endpoint{Proto: siptrace.UDP, Addr: peer}, To: siptrace.Endpoint{Proto: siptrace.UDP, Addr: proxy},
	}
	if direction == siptrace.Out {
		rec.From, rec.To = rec.To, rec.From
	}
	if r.decision == nil {
		return "nothing to decide"
	}
	o, further := r.decision.Decide(&rec, &m)
	for i := range further {
		r.further = append(r.further, further[i].Clone())
	}
	if o != counters.Spooled {
		return o.String()
	}
	return describe(&rec)
}

func describe(rec *siptrace.Record) string {
	return fmt.Sprintf("users %q table %q to %q cid %q", rec.Users, rec.Table, rec.Destinations, rec.CorrelationID)
}

const plain = `users [] table "" to [] cid ""`

func TestNoRules(t *testing.T) {
	if r := newRig(t, "", nil); r.decision != nil {
		t.Error("without a rule there is something to decide")
	}
	r := newRig(t, "", nil)
	r.start("id=x")
	if r.decision == nil {
		t.Fatal("a rule, and nothing to decide")
	}
	if _, err := r.engine.Stop("x"); err != nil {
		t.Fatal(err)
	}
	if r.engine.Decider() != nil {
		t.Error("the rule is stopped, and there is something to decide")
	}
}

// The event route: what it says of one message.
func TestRoute(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for _, tt := range []struct {
		name, route string
		set         func(*Config)
		want        string
		count       string // a counter that goes to 1 and beyond
	}{
		{name: "nothing", route: `;`, want: plain},
		{name: "drop", route: `if (is_method("INVITE")) drop();`, want: "dropped.event_route"},
		{name: "drop something else", route: `if (is_method("REGISTER")) drop();`, want: plain},
		{name: "users", route: `$avp(s:tu)="a"; $avp(s:tu)="b"; $avp(s:tu)="b";`, want: `users ["b" "b" "a"] table "" to [] cid ""`},
		{name: "another AVP", route: `$avp(s:other)="a";`, want: plain},
		{name: "integer AVP", route: `$avp(i:6843)="sip:a@b";`, set: func(c *Config) { c.Params.TracedUserAVP = "6843" }, want: `users ["sip:a@b"] table "" to [] cid ""`},
		{name: "table", route: `$avp(tt)="sip_trace_alt";`, want: `users [] table "sip_trace_alt" to [] cid ""`},
		{name: "table that is not allowed", route: `$avp(tt)="subscriber";`, want: plain, count: "rules.table_refused"},
		{name: "hostile table", route: "$avp(tt)=\"sip_trace`; DROP TABLE sip_trace; --\";", want: plain, count: "rules.table_refused"},
		{name: "table of many characters", route: `$avp(tt)="sip_trace` + long[:200] + `";`, want: plain, count: "rules.table_refused"},
		{name: "user of 10 kB", route: `$avp(s:tu)="` + long + `"; $avp(s:tu)="short";`, want: fmt.Sprintf(`users ["short" %q] table "" to [] cid ""`, long[:maxUserBytes]), count: "rules.users_cut"},
		{name: "sip_trace", route: `sip_trace("sip:h:1", "$ci-abc");`, want: `users [] table "" to ["sip:h:1"] cid "c-abc"`},
		{name: "two addresses", route: `sip_trace("sip:h:1"); sip_trace("sip:h:2;transport=tcp");`, want: `users [] table "" to ["sip:h:1" "sip:h:2;transport=tcp"] cid ""`},
		{name: "address that is none", route: `$var(x)="tel:12"; sip_trace("$var(x)");`, want: plain, count: "rules.route_errors"},
		{name: "address that mirrors do not know", route: `$var(x)="sip:h;transport=sctp"; sip_trace("$var(x)");`, want: plain, count: "rules.destination_refused"},
		{name: "beside trace_mode", route: `sip_trace("sip:h:1");`, set: func(c *Config) {
			c.Params.TraceMode, c.Params.DuplicateURI = 1, []string{"sip:homer", "sip:h:1"}
		}, want: `users [] table "" to ["sip:h:1" "sip:homer"] cid ""`},
		{name: "in place of duplicate_uri", route: `sip_trace("sip:h:1");`, set: func(c *Config) { c.Params.DuplicateURI = []string{"sip:homer"} }, want: `users [] table "" to ["sip:h:1"] cid ""`},
		{name: "trace_init_mode 1", route: `sip_trace("sip:h:1"); $avp(s:tu)="a";`, set: func(c *Config) { c.Params.TraceInitMode, c.Params.TraceMode = 1, 3 }, want: `users ["a"] table "" to [] cid ""`, count: "rules.ignored"},
		{name: "trace_init_mode 2", route: `;`, set: func(c *Config) { c.Params.TraceInitMode = 2 }, want: "dropped.trace_init_mode"},
		{name: "trace_init_mode 2, chosen", route: `sip_trace();`, set: func(c *Config) { c.Params.TraceInitMode = 2 }, want: plain},
		{name: "trace_init_mode 2, users", route: `$avp(s:tu)="a";`, set: func(c *Config) { c.Params.TraceInitMode = 2 }, want: `users ["a"] table "" to [] cid ""`},
		{name: "trace_init_mode 2, trace_mode bits do not count", route: `sip_trace("sip:h:1");`, set: func(c *Config) {
			c.Params.TraceInitMode, c.Params.TraceMode, c.Params.DuplicateURI = 2, 3, []string{"sip:homer"}
		}, want: `users [] table "" to ["sip:h:1"] cid ""`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.route, tt.set)
			if got := r.handle(text("INVITE", "c", "1", ""), siptrace.In); got != tt.want {
				t.Errorf("got  %.300s\nwant %.300s", got, tt.want)
			}
			if n := r.count.Snapshot()[tt.count]; tt.count != "" && n == 0 {
				t.Errorf("%s is not counted: %v", tt.count, r.count.Snapshot())
			}
		})
	}
}

// keep_trace(): who has the AVPs of a request, and goes where it goes, as in Kamailio.
func TestKeepTrace(t *testing.T) {
	alice, none := `users ["INVITE"] table "sip_trace_alt" to [] cid ""`, plain
	to := func(uri string) string { return fmt.Sprintf(`users [] table "" to [%q] cid ""`, uri) }
	const stateless = "0123456789abcdef0123456789abcdef.1"
	type step struct{ what, branch, toTag, direction, want string }
	for _, tt := range []struct {
		name, route string
		steps       []step
	}{
		{"a call", `if (is_request() && $siptrace(direction) == "in") { keep_trace(); if (!has_totag()) { $avp(s:tu) = $rm; $avp(tt) = "sip_trace_alt"; } }`, []step{
			{"INVITE", "1", "", siptrace.In, alice},
			{"100 INVITE", "1", "", siptrace.Out, alice},
			{"INVITE", "2", "", siptrace.Out, alice},
			{"CANCEL", "1", "", siptrace.In, alice}, // not its own
			{"200 CANCEL", "1", "x", siptrace.Out, `users [] table "sip_trace_alt" to [] cid ""`},
			{"CANCEL", "2", "", siptrace.Out, alice},
			{"200 CANCEL", "2", "x", siptrace.In, alice},
			{"487 INVITE", "2", "b", siptrace.In, alice},
			{"ACK", "2", "b", siptrace.Out, alice},
			{"487 INVITE", "1", "b", siptrace.Out, alice},
			{"ACK", "1", "b", siptrace.In, alice},
			{"200 INVITE", "2", "b", siptrace.In, alice},
			{"ACK", "3", "b", siptrace.In, none}, // for a 2xx
			{"ACK", "1", stateless, siptrace.In, none},
			{"BYE", "4", "b", siptrace.In, none},
			{"200 BYE", "4", "b", siptrace.Out, none},
		}},
		{"no users for the INVITE are none for its CANCEL and ACK", `if (is_request() && $siptrace(direction) == "in") { keep_trace(); if (!is_method("INVITE")) $avp(s:tu) = $rm; }`, []step{
			{"INVITE", "1", "", siptrace.In, none},
			{"CANCEL", "1", "", siptrace.In, none},
			{"487 INVITE", "1", "b", siptrace.Out, none},
			{"ACK", "1", "b", siptrace.In, none},
			{"ACK", "3", "b", siptrace.In, `users ["ACK"] table "" to [] cid ""`},
		}},
		{"a collector", `if (is_request() && $siptrace(direction) == "in") { keep_trace(); if (is_method("INVITE")) sip_trace("sip:h:1"); else sip_trace("sip:h:2"); }`, []step{
			{"INVITE", "1", "", siptrace.In, to("sip:h:1")},
			{"INVITE", "2", "", siptrace.Out, to("sip:h:1")},
			{"180 INVITE", "2", "b", siptrace.In, to("sip:h:1")},
			{"CANCEL", "1", "", siptrace.In, none}, // the module takes duplicate_uri
			{"200 CANCEL", "1", "x", siptrace.Out, to("sip:h:1")},
			{"CANCEL", "2", "", siptrace.Out, to("sip:h:1")},
			{"ACK", "3", "b", siptrace.In, to("sip:h:2")}, // for a 2xx
			{"BYE", "4", "b", siptrace.In, to("sip:h:2")},
			{"200 BYE", "4", "b", siptrace.Out, to("sip:h:2")},
		}},
		{"replies alone", `if (is_request() && $siptrace(direction) == "in") { keep_trace("replies"); $avp(s:tu) = $rm; }`, []step{
			{"INVITE", "1", "", siptrace.In, `users ["INVITE"] table "" to [] cid ""`},
			{"480 INVITE", "1", "b", siptrace.Out, `users ["INVITE"] table "" to [] cid ""`},
			{"INVITE", "2", "", siptrace.Out, none},
			{"CANCEL", "1", "", siptrace.In, `users ["CANCEL"] table "" to [] cid ""`},
			{"ACK", "1", "b", siptrace.In, `users ["ACK"] table "" to [] cid ""`},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.route, nil)
			for _, s := range tt.steps {
				if got := r.handle(text(s.what, "c", s.branch, s.toTag), s.direction); got != s.want {
					t.Errorf("%s %s: got %s, want %s", s.what, s.branch, got, s.want)
				}
			}
			if len(r.further) > 0 {
				t.Errorf("%d messages were looked back at", len(r.further))
			}
		})
	}
	r := newRig(t, `if (is_request() && $siptrace(direction) == "in") { keep_trace(); $avp(s:tu) = "a"; }`, nil)
	r.handle(text("100 INVITE", "c", "1", ""), siptrace.Out)
	r.handle(text("INVITE", "c", "1", ""), siptrace.In)
	if len(r.further) != 1 || describe(&r.further[0]) != `users ["a"] table "" to [] cid ""` {
		t.Errorf("a reply that overtook the request: got %+v", r.further)
	}
}

// Values over the bounds of a message are cut, whatever the number.
func TestManyUsers(t *testing.T) {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, "$avp(s:tu)=%q;", strings.Repeat(string(rune('a'+i%26)), 900))
	}
	r := newRig(t, b.String(), nil)
	var rec siptrace.Record
	var m sipmsg.Message
	if err := m.Parse([]byte(text("INVITE", "c", "1", ""))); err != nil {
		t.Fatal(err)
	}
	r.decision.Decide(&rec, &m)
	size := 0
	for _, u := range rec.Users {
		size += len(u)
	}
	if size > maxUsersBytes || len(rec.Users) < 5 || r.count.Snapshot()["rules.users_cut"] == 0 {
		t.Errorf("%d users of %d bytes, %v", len(rec.Users), size, r.count.Snapshot())
	}
}

// hlog() and sip_trace_msg() make records of their own; drop does not undo them.
func TestActions(t *testing.T) {
	r := newRig(t, `hlog("one"); hlog("$ci-x", "two"); hlog("", "three");
		sip_trace_msg("text", "udp:192.0.2.5:1", "tcp:192.0.2.6:2", "sip:h:9", "");
		$var(x)="192.0.2.5:1"; sip_trace_msg("text", "$var(x)", "tcp:192.0.2.6:2", "sip:h:9", ""); xlog("L_WARN", "hello"); drop();`, nil)
	if got := r.handle(text("INVITE", "c", "1", ""), siptrace.In); got != "dropped.event_route" {
		t.Errorf("got %s", got)
	}
	var got []string
	for _, m := range r.further {
		got = append(got, fmt.Sprintf("%d %s %q %s>%s %s", m.Type, m.Msg, m.CorrelationID, m.From, m.To, m.Destinations))
	}
	want := []string{
		`100 one "c" any:255.255.255.255:5060>any:255.255.255.255:5060 []`,
		`100 two "c-x" any:255.255.255.255:5060>any:255.255.255.255:5060 []`,
		`100 three "" any:255.255.255.255:5060>any:255.255.255.255:5060 []`,
		`0 text "" tcp:192.0.2.5:1>tcp:192.0.2.6:2 [sip:h:9]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if r.further[2].CorrelationID == nil || r.further[3].CorrelationID != nil {
		t.Error("an empty correlation id is there with hlog, and absent with sip_trace_msg")
	}
	if n := r.count.Snapshot()["rules.route_errors"]; n == 0 {
		t.Error("an address without protocol is not counted")
	}
}

// A whole transaction or dialog gets what its first message was given, and what
// came a moment before is traced again where that adds something.
func TestScopes(t *testing.T) {
	r := newRig(t, "", func(c *Config) { c.Params.DuplicateURI = []string{"sip:homer"} })
	r.start("id=other", "filter=call-id == 'nobody'", "scope=d")
	steps := []struct{ what, branch, toTag, direction string }{
		{"INVITE", "1", "", siptrace.In},
		{"100 INVITE", "1", "", siptrace.Out},
		{"INVITE", "2", "", siptrace.Out},
		{"180 INVITE", "2", "t", siptrace.In},
	}
	for _, s := range steps {
		if got := r.handle(text(s.what, "c", s.branch, s.toTag), s.direction); got != plain {
			t.Errorf("%s: got %s", s.what, got)
		}
	}
	r.start("id=x", "filter=status.code == '200'", "scope=d", "users=a,b", "destination=sip:h:1", "correlation_id=$ci-x", "table=sip_trace_x")
	want := `users ["b" "a"] table "sip_trace_x" to ["sip:h:1"] cid "c-x"`
	if got := r.handle(text("200 INVITE", "c", "2", "t"), siptrace.In); got != want {
		t.Errorf("got %s", got)
	}
	if len(r.further) != len(steps) {
		t.Fatalf("%d messages looked back at, want %d", len(r.further), len(steps))
	}
	for i, m := range r.further {
		got := describe(&m)
		if got != `users ["" "b" "a"] table "sip_trace_x" to ["sip:h:1"] cid "c-x"` || m.Sinks != siptrace.ToStore|siptrace.ToSIP {
			t.Errorf("looked back: %s, sinks %b", got, m.Sinks)
		}
		if !strings.HasPrefix(string(m.Msg), strings.SplitN(text(steps[i].what, "c", steps[i].branch, steps[i].toTag), " ", 2)[0]) {
			t.Errorf("looked back at %.20s, want %s", m.Msg, steps[i].what)
		}
	}
	for _, s := range []struct{ what, branch, toTag, direction string }{
		{"200 INVITE", "1", "t", siptrace.Out}, {"ACK", "3", "t", siptrace.In}, {"ACK", "4", "t", siptrace.Out},
	} {
		if got := r.handle(text(s.what, "c", s.branch, s.toTag), s.direction); got != want {
			t.Errorf("%s: got %s", s.what, got)
		}
	}
	if got := r.handle(text("INVITE", "d", "1", ""), siptrace.In); got != plain {
		t.Errorf("another call: got %s", got)
	}
	if list := r.engine.List(); list[1].Matched != 2 || list[1].Traced != 8 {
		t.Errorf("matched %d, traced %d; want 2 and 8", list[1].Matched, list[1].Traced)
	}
	if _, err := r.engine.Stop("x"); err != nil {
		t.Fatal(err)
	}
	r.renew()
	if got := r.handle(text("BYE", "c", "9", "t"), siptrace.In); got != plain {
		t.Errorf("after the end of the rule: got %s", got)
	}
}

// Calls of sip_trace() in the event route begin scopes as well, with the AVPs of
// that moment; trace_flag chooses where no mode is given.
func TestRouteScopes(t *testing.T) {
	for _, tt := range []struct {
		name, route string
		flag        int
		want        string // of the reply
	}{
		{"transaction", `if (is_request()) { $avp(s:tu)="a"; sip_trace("sip:h:1", "$ci-$cs", "t"); }`, -1, `users ["a"] table "" to ["sip:h:1"] cid "c-1"`},
		{"mode first", `if (is_request()) { sip_trace_mode("t"); $avp(tt)="sip_trace_x"; }`, -1, `users [] table "sip_trace_x" to [] cid ""`},
		{"message", `if (is_request()) { $avp(s:tu)="a"; sip_trace("sip:h:1", "$ci", "m"); }`, -1, plain},
		{"no mode", `if (is_request()) { $avp(s:tu)="a"; sip_trace(); }`, -1, plain},
		{"no mode, trace_flag not set", `if (is_request()) { $avp(s:tu)="a"; sip_trace(); }`, 22, plain},
		{"no mode, trace_flag set", `if (is_request()) { setflag(22); $avp(s:tu)="a"; sip_trace(); }`, 22, `users ["a"] table "" to [] cid ""`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.route, func(c *Config) { c.Params.TraceFlag = tt.flag })
			r.handle(text("INVITE", "c", "1", ""), siptrace.In)
			r.handle(text("INVITE", "c", "1", ""), siptrace.In) // retransmitted
			if got := r.handle(text("200 INVITE", "c", "1", "t"), siptrace.Out); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// trace_on 0: what is looked back at is traced for users alone.
func TestLookBackOff(t *testing.T) {
	for _, tt := range []struct {
		users string
		want  int
	}{{"users=a", 1}, {"users=", 0}} {
		r := newRig(t, "", func(c *Config) { c.Params.TraceOn = false })
		r.start("filter=status.code == '200'", "scope=t", "destination=sip:h:1", tt.users)
		r.handle(text("INVITE", "c", "1", ""), siptrace.In)
		r.handle(text("200 INVITE", "c", "1", "t"), siptrace.Out)
		if len(r.further) != tt.want {
			t.Errorf("%s: %d records, want %d", tt.users, len(r.further), tt.want)
		}
	}
}

// trace_sl_acks 0 leaves out the ACK for a reply of the proxy's own.
func TestStatelessACKs(t *testing.T) {
	for _, keep := range []bool{true, false} {
		r := newRig(t, ";", func(c *Config) { c.Params.TraceSLAcks = keep })
		r.handle(text("INVITE", "c", "1", ""), siptrace.In)
		r.handle(text("404 INVITE", "c", "1", "own"), siptrace.Out)
		want := plain
		if !keep {
			want = "dropped.sl_ack"
		}
		if got := r.handle(text("ACK", "c", "1", "own"), siptrace.In); got != want {
			t.Errorf("trace_sl_acks %t: got %s, want %s", keep, got, want)
		}
	}
}

// A route with twenty conditions, and a message that needs all of them.
func BenchmarkRoute(b *testing.B) {
	var route20 strings.Builder
	for i := range 20 {
		fmt.Fprintf(&route20, "if ($fU == \"user-%d\" && is_method(\"INVITE|BYE\")) { $avp(s:tu) = \"user-%d\"; }\n", i, i)
	}
	for _, bm := range []struct{ name, route string }{{"empty", ";"}, {"20 conditions", route20.String()}} {
		b.Run(bm.name, func(b *testing.B) {
			cfg := Config{Params: siptrace.DefaultParams(), Route: route(b, bm.route)}
			cfg.Params.TraceOn, cfg.Params.TracedUserAVP = true, "$avp(s:tu)"
			e, err := New(Options{Config: cfg, Counters: counters.New(), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			d := e.Decider().NewDecision()
			raw := []byte(strings.Replace(text("INVITE", "c", "1", ""), "alice", "user-19", 1))
			var m sipmsg.Message
			if err := m.Parse(raw); err != nil {
				b.Fatal(err)
			}
			var rec siptrace.Record
			b.ReportAllocs()
			for b.Loop() {
				rec = siptrace.Record{CallID: m.CallID, Msg: raw, Direction: siptrace.In}
				d.Decide(&rec, &m)
			}
			if want := map[bool]int{true: 1, false: 0}[bm.name != "empty"]; len(rec.Users) != want {
				b.Errorf("%d users, want %d", len(rec.Users), want)
			}
		})
	}
}

// The whole way of a message into the spool, without rules and with twenty
// conditions.
func BenchmarkPipeline(b *testing.B) {
	var route20 strings.Builder
	for i := range 20 {
		fmt.Fprintf(&route20, "if ($fU == \"user-%d\" && is_method(\"INVITE|BYE\")) { $avp(s:tu) = \"user-%d\"; }\n", i, i)
	}
	in := &ingest.Packet{Data: []byte(text("INVITE", "c", "1", "")), Net: "udp", Source: netip.MustParseAddrPort("192.0.2.9:5060"), Local: netip.MustParseAddrPort("192.0.2.1:5060")}
	for _, bm := range []struct {
		name  string
		route *kamcfg.Route
	}{{"no rules", nil}, {"20 conditions", route(b, route20.String())}} {
		b.Run(bm.name, func(b *testing.B) {
			cfg := Config{Params: siptrace.DefaultParams(), Route: bm.route}
			cfg.Params.TraceOn, cfg.Params.TracedUserAVP = true, "$avp(s:tu)"
			c := counters.New()
			e, err := New(Options{Config: cfg, Counters: c, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			r := pipeline.Rules{Params: cfg.Params, Own: siptrace.NewSockets(nil, false), Routing: cfg.Params.Routing(siptrace.Mirroring{})}
			if d := e.Decider(); d != nil {
				r.NewDecision = func() pipeline.Decision { return d.NewDecision() }
			}
			p := pipeline.New(r, nowhere{}, c)
			b.ReportAllocs()
			for b.Loop() {
				p.Handle(in)
			}
		})
	}
}

// nowhere is a spool.
type nowhere struct{}

func (nowhere) Put(*siptrace.Record) error         { return nil }
func (nowhere) Mark() uint64                       { return 0 }
func (nowhere) Sync(context.Context, uint64) error { return nil }
