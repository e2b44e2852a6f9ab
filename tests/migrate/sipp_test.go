package migrate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// newCalls names the user of the requests that begin something: the script ends for
// those within a dialog before it gets there.
const newCalls = `	setflag(22);
	if (has_totag()) {
		sip_trace();
		loose_route();
		t_relay();
		exit;
	}
	$avp(s:traced_user) = $fU;
	sip_trace();
	if (is_method("CANCEL")) {
		if (t_check_trans()) t_relay();
		exit;
	}
	record_route();
	$du = "sip:127.0.0.1:@BOB@";
	t_relay();
	exit;
`

// TestNewCalls has sipp call, and give up a call: who has a row for a user is the same
// with Kamailio alone and with the pair.
func TestNewCalls(t *testing.T) {
	t.Parallel()
	server := servers.StartMariaDB(t)
	s := sample{
		name: "new calls", base: "pkg/kamailio-oob.cfg", edits: oob, calls: newCalls,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_flag", 22)
modparam("siptrace", "traced_user_avp", "$avp(s:traced_user)")
`,
	}
	db := newDatabase(t, server, "newcalls", s)
	v := values(servers.FreePorts(t, 6), server.URL("newcalls"))
	h := s.migrate(t, v)
	phone := func(name string) servers.Sipp {
		return servers.Sipp{Name: name, Scenario: readFile(t, filepath.Join("..", "e2e", "testdata", "sipp", name+".xml")), Rate: 1}
	}
	for _, kind := range []string{"call", "cancel"} {
		run := func(cfg, yaml string) []vectors.Row {
			return s.during(t, db, v, cfg, yaml, func(*sink) int {
				callee := phone("answer-" + kind)
				callee.LocalPort = number(t, v["BOB"])
				answering := servers.StartSipp(t, callee)
				defer answering.Stop()
				caller := phone(kind)
				caller.Remote, caller.LocalPort, caller.Calls, caller.User = "127.0.0.1:"+v["PORT"], number(t, v["ALICE"]), 1, "bob"
				servers.RunSipp(t, time.Minute, caller)
				db.settle(t, "sip_trace")
				return 0
			}).rows["sip_trace"]
		}
		alone, pair := users(run(h.original, "")), users(run(h.cfg, h.yaml))
		n := 0
		for _, row := range alone {
			if strings.HasSuffix(row, `""`) {
				n++
			}
		}
		if n == 0 || n == len(alone) {
			t.Errorf("%s: %d of %d rows of Kamailio alone are without a user, want some: %q", kind, n, len(alone), alone)
		}
		for _, p := range diff(kind+": row", alone, pair) {
			t.Error(p)
		}
	}
}

// users are rows by what tells one message of a call from another, with their users,
// each once: a busy machine sends some again.
func users(rows []vectors.Row) (out []string) {
	for _, r := range rows {
		out = append(out, fmt.Sprintf("%s %s %s %s>%s user %q", r.Method, r.Status, r.Direction, r.FromIP, r.ToIP, r.TracedUser))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
