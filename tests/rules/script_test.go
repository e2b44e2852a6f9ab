package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/vectors"
)

// scripted are the recordings of sip_trace() and sip_trace_mode(), with the calls
// of request_route in the event route. CID is the correlation id of each packet
// that is sent on, with CALL for its Call-ID: of the whole scope, where the module
// sends it with the first message alone.
var scripted = []struct{ name, route, cid string }{
	{"script-message", `sip_trace();`, ""},
	{"script-message-dest", `if (is_request()) { sip_trace("URI", "$ci-abc", "m"); } else { sip_trace("URI", "$ci-abc"); }`, "CALL-abc"},
	{"script-onsend", `sip_trace();`, ""},
	{"script-flag", `if (is_method("INVITE|MESSAGE|CANCEL|ACK|BYE")) setflag(22); if (is_request()) sip_trace();`, ""},
	{"script-flag-nodb", `setflag(22); if (is_request()) sip_trace();`, ""},
	{"script-transaction", `if (is_request()) sip_trace("URI", "$ci-abc", "t");`, "CALL-abc"},
	{"script-transaction-v614", `if (is_request()) sip_trace("URI", "$ci-abc", "t");`, "CALL-abc"},
	{"script-transaction-nodest", `if (is_request()) sip_trace_mode("t");`, ""},
	{"script-sl-acks-off", `if (is_request()) sip_trace_mode("t");`, ""},
	{"script-fork", `if (is_request()) sip_trace("URI", "$ci-abc", "t");`, "CALL-abc"},
	{"script-dialog", `if (is_method("INVITE") && is_request() && !has_totag()) sip_trace("URI", "$ci-abc", "d");`, "CALL-abc"},
	{"script-dialog-v614", `if (is_method("INVITE") && is_request() && !has_totag()) sip_trace("URI", "$ci-abc", "d");`, "CALL-abc"},
	{"script-dialog-nodest", `if (is_method("INVITE") && !has_totag()) sip_trace_mode("d");`, ""},
	{"retransmit-script", `if (is_request()) sip_trace_mode("t");`, ""},
	{"spiral-script", `if (is_request()) sip_trace_mode("t");`, ""},
	{"advertise-script", `if (is_request()) sip_trace_mode("t");`, ""},
	{"local-ip-script", `if (is_request()) sip_trace_mode("t");`, ""},
}

// TestScripts feeds each recording with its own configuration, once with all
// traffic traced, and once only what the route chose: the rows and the mirrors are
// the same, because the scopes are whole.
func TestScripts(t *testing.T) {
	t.Parallel()
	for kind, open := range backends(t, "mariadb", "sqlite") {
		for _, only := range []bool{false, true} {
			if only && kind != "sqlite" {
				continue
			}
			t.Run(fmt.Sprintf("%s/only=%t", kind, only), func(t *testing.T) {
				for _, tt := range scripted {
					if only && tt.name == "script-dialog-nodest" {
						continue // an ACK alone, which begins no dialog
					}
					t.Run(tt.name, func(t *testing.T) {
						t.Parallel()
						s, db, to := recording(t, tt.name), open(t), newSink(t)
						o := options{
							config: s.Config, db: db, mirror: to.uri,
							route: "event_route[siptrace:msg] {\n\t" + strings.ReplaceAll(tt.route, "URI", to.uri) + "\n}\n",
						}
						if only {
							o.set = []string{"siptrace.trace_init_mode=2"}
						}
						d := start(t, o)
						from := time.Now()
						d.feed(t, s.Packets()...)
						got := to.await(t, len(s.Datagrams))
						c := d.stop(t)
						wants, err := s.Wants(db.storage)
						if err != nil {
							t.Fatal(err)
						}
						report(t, vectors.Compare(wants, db.rows(t, "sip_trace"), vectors.Window{From: from, To: time.Now()}))
						if want := c["rules.table_refused"] + c["rules.route_errors"]; want != 0 {
							t.Errorf("errors of rules: %v", c)
						}
						report(t, sameMessages(s.Datagrams, got, tt.cid))
					})
				}
			})
		}
	}
}

// sameMessages says where what was sent on is not what came in, and where a
// correlation id is another one.
func sameMessages(in, out []vectors.Datagram, cid string) []string {
	var problems []string
	open := map[string]int{}
	for i := range in {
		payload, _ := in[i].Payload()
		open[string(payload)+"\x00"+in[i].Ends()]++
	}
	for i := range out {
		payload, got := out[i].Payload()
		open[string(payload)+"\x00"+out[i].Ends()]--
		want := cid
		if strings.Contains(cid, "CALL") {
			want = strings.ReplaceAll(cid, "CALL", callID(string(payload)))
		}
		if string(got) != want {
			problems = append(problems, fmt.Sprintf("packet %d: correlation id %q, want %q: %.40q", i+1, got, want, payload))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(open)) {
		if n := open[k]; n != 0 {
			problems = append(problems, fmt.Sprintf("%d copies missing (surplus, if below zero) of %.60q", n, k))
		}
	}
	return problems
}

// callID is the Call-ID of a message of the recordings.
func callID(text string) string {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Call-ID") {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
