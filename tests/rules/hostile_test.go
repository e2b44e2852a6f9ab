package rules

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"siptraced/tests/servers"
)

// hostileRoute takes users and tables from the network, as no route should.
const hostileRoute = `event_route[siptrace:msg] {
	if ($hdr(X-User) != $null) { $avp(s:tu) = $hdr(X-User); $avp(s:tu) = "checked"; }
	if ($hdr(X-Table) != $null) $avp(s:tt) = $hdr(X-Table);
	if ($hdr(X-Cid) != $null) sip_trace("$hdr(X-To)", "$hdr(X-Cid)");
	else if ($hdr(X-To) != $null) sip_trace("$hdr(X-To)");
	if ($hdr(X-Re) =~ "^(a+)+$") $avp(s:tu) = "matched";
}
`

// Names and values of AVPs that come from the network: no table but the allowed
// ones is touched, no message is lost, everything is bounded and counted.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 10_000)
	names := []string{
		"sip_trace`; DROP TABLE sip_trace; --", `sip_trace"; DROP TABLE sip_trace; --`, "sip_trace'; DROP TABLE sip_trace; --", "sip_trace; DELETE FROM sip_trace",
		"information_schema.tables", "mysql.user", "pg_catalog.pg_class", "version", "siptraced_position", "sip_trace_none", "SIP_TRACE_ALT ", "sip_trace_\x00",
		"sip_trace_" + long, "sip_trace_%s%n", "../sip_trace", "sip_trace*", "sip_trace_é", " ", "sip_trace_wrong",
	}
	var packets [][]byte
	add := func(header, value string) {
		m := msg("OPTIONS", fmt.Sprintf("h-%d", len(packets)), fmt.Sprint(len(packets)), "")
		m = strings.Replace(m, "Content-Length", header+": "+value+"\r\nContent-Length", 1)
		packets = append(packets, packet("198.51.100.9:5060", "192.0.2.1:5060", m))
	}
	for _, n := range names {
		add("X-Table", n)
	}
	add("X-Table", "sip_trace_alt")
	hostile := len(packets)
	add("X-User", long)
	add("X-User", "'; DROP TABLE sip_trace; --")
	add("X-User", "\xff\xfe\x00")
	add("X-To", "sip:"+long)
	add("X-To", "tel:12")
	add("X-To", "sip:[::1")
	add("X-To", "sip:127.0.0.1:9\r\nX-Cid: "+long)
	add("X-Re", strings.Repeat("a", 30_000)+"!")
	for i := range 500 { // far more destinations than there can be
		add("X-To", fmt.Sprintf("sip:127.0.0.%d:%d", 1+i%250, 20000+i))
	}
	for kind, open := range backends(t, "mariadb", "postgres", "sqlite") {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			db := open(t, "sip_trace_alt")
			if _, err := db.db.Exec("CREATE TABLE sip_trace_wrong (id INTEGER, msg VARCHAR(10))"); err != nil {
				t.Fatal(err)
			}
			d := start(t, options{db: db, route: hostileRoute, set: append([]string{"siptrace.traced_user_avp=$avp(s:tu)", "siptrace.trace_table_avp=$avp(s:tt)"}, proxied...)})
			d.feed(t, packets...)
			c := d.stop(t)
			alt, rows := db.rows(t, "sip_trace_alt"), db.rows(t, "sip_trace")
			if len(alt) != 1 || alt[0].CallID != fmt.Sprintf("h-%d", hostile-1) {
				t.Errorf("%d rows in sip_trace_alt", len(alt))
			}
			calls := map[string][]string{}
			for i := range rows {
				calls[rows[i].CallID] = append(calls[rows[i].CallID], rows[i].TracedUser)
			}
			if len(calls) != len(packets)-1 {
				t.Errorf("%d messages in the table, want %d", len(calls), len(packets)-1)
			}
			users := calls[fmt.Sprintf("h-%d", hostile)]
			if len(users) != 3 || users[1] != "checked" || !strings.HasPrefix(long, users[2]) || len(users[2]) < 255 {
				t.Errorf("a user of 10 kB: %.80q", users)
			}
			if u := calls[fmt.Sprintf("h-%d", hostile+1)]; len(u) != 3 || u[2] != "'; DROP TABLE sip_trace; --" {
				t.Errorf("a user with SQL in it: %q", u)
			}
			if c["rules.table_refused"] == 0 || c["store.table_fallback"] == 0 || c["rules.users_cut"] == 0 || c["rules.destination_refused"]+c["rules.route_errors"] == 0 {
				t.Errorf("not counted: %v", c)
			}
			if c[servers.Aside] != 0 || c["store.missed"] != 0 || c.Sum(servers.Rejected) != 0 {
				t.Errorf("messages were lost: %v", c)
			}
			if c["mirrors.too_many"] == 0 {
				t.Errorf("500 destinations, and none was too many: %v", c)
			}
		})
	}
}

// A dry run over a recording: which messages the recorded route drops, and why.
func TestDryRun(t *testing.T) {
	t.Parallel()
	s, all := recording(t, "event-route-drop"), recording(t, "hep3-core")
	r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{
		"check", "--kamailio-cfg", s.Config, "--set", "rules=" + write(t, filepath.Join(t.TempDir(), "r.yaml"), "- {id: byes, filter: \"request.method == 'BYE'\", users: [u]}\n"),
		"--dry-run", filepath.Join(filepath.Dir(all.Config), "datagrams.jsonl"),
	}})
	drops := 0
	for i := range all.Datagrams {
		payload, _ := all.Datagrams[i].Payload()
		if strings.Contains(string(payload), " REGISTER\r\n") {
			drops++
		}
	}
	for _, want := range []string{
		"event_route[siptrace:msg] {", `if (is_method("REGISTER")) true`, "    -> dropped.event_route\n", "    rule byes matches\n", `traced_user ["" "u"]`,
		fmt.Sprintf("%d messages, %d dropped.event_route, %d taken\n", len(all.Datagrams), drops, len(all.Datagrams)-drops),
	} {
		if r.Code != 0 || !strings.Contains(r.Stdout, want) {
			t.Errorf("exit %d, no %q in the output: %s", r.Code, want, r.Stderr)
		}
	}
}
