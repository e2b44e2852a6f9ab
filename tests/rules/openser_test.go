package rules

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// The table of OpenSER's documentation of 2006.
const table2006 = "CREATE TABLE `sip_trace` (" +
	"`id` bigint(20) NOT NULL auto_increment, `date` datetime NOT NULL default '0000-00-00 00:00:00', `callid` varchar(254) NOT NULL default ''," +
	"`traced_user` varchar(128) NOT NULL default '', `msg` text NOT NULL, `method` varchar(50) NOT NULL default ''," +
	"`status` varchar(254) NOT NULL default '', `fromip` varchar(50) NOT NULL default '', `toip` varchar(50) NOT NULL default ''," +
	"`fromtag` varchar(64) NOT NULL default '', `direction` varchar(4) NOT NULL default ''," +
	"PRIMARY KEY (`id`), INDEX user_idx (traced_user), INDEX date_id (date), INDEX ip_idx (fromip), KEY `call_id` (`callid`))"

const openserCfg = `debug=3
fork=yes
log_stderror=no
listen=udp:192.0.2.1:5060
fifo="/tmp/openser_fifo"
mpath="/usr/lib/openser/modules/"
loadmodule "mysql.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "siptrace.so"
modparam("siptrace", "db_url", "@URL@")
modparam("siptrace", "trace_flag", 22)
modparam("siptrace", "trace_on", @ON@)
@AVP@
route {
	setflag(22);
	t_relay();
}
`

// OpenSER 1.0 and 1.1: the table of then, AVPs with numbers, the default number.
func TestOpenSER(t *testing.T) {
	t.Parallel()
	maria := servers.StartMariaDB(t, servers.WithSQLMode(""))
	for i, tt := range []struct {
		name, avp, route string
		on               int
		want             string
	}{
		{"default AVP", "", `$avp(i:6843)="sip:alice@example.org";`, 1, ",sip:alice@example.org"},
		{"default AVP, off", "", `$avp(i:6843)="sip:alice@example.org";`, 0, "sip:alice@example.org"},
		{"its own AVP", `modparam("siptrace", "traced_user_avp", 123)`, `$avp(i:123)="a"; $avp(i:123)="b"; $avp(i:6843)="c";`, 1, ",b,a"},
		{"none set", "", `$avp(i:1)="x";`, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("openser_%d", i)
			maria.CreateDatabase(t, name, "latin1")
			db := maria.Open(t, name)
			if _, err := db.Exec(table2006); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			cfg := strings.NewReplacer("@URL@", maria.URL(name), "@ON@", fmt.Sprint(tt.on), "@AVP@", tt.avp).Replace(openserCfg)
			d := start(t, options{
				config: write(t, filepath.Join(dir, "openser.cfg"), cfg), route: "event_route[siptrace:msg] {\n" + tt.route + "\n}\n",
				set: []string{"openser=1"}, dir: dir, db: &database{kind: "mariadb", url: maria.URL(name), db: db},
			})
			m := load.Call(load.Spec{CallID: "old"}, traceTime)[3]
			d.feed(t, m.Packet)
			d.stop(t)
			rs, err := db.Query("SELECT CONCAT_WS('|', DATE_FORMAT(date, '%Y-%m-%d %H:%i:%s'), callid, method, status, fromip, toip, fromtag, direction, LENGTH(msg)), traced_user FROM sip_trace ORDER BY id")
			if err != nil {
				t.Fatal(err)
			}
			defer rs.Close()
			var users []string
			for rs.Next() {
				var row, user string
				if err := rs.Scan(&row, &user); err != nil {
					t.Fatal(err)
				}
				users = append(users, user)
				want := fmt.Sprintf("2026-11-21 10:00:00|old|INVITE|180|udp:203.0.113.20:5060|udp:192.0.2.1:5060|c0|in|%d", len(m.Payload))
				if row != want {
					t.Errorf("got  %s\nwant %s", row, want)
				}
			}
			if err := rs.Err(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(users, ","); got != tt.want || len(users) == 0 {
				t.Errorf("users: got %q (%d rows), want %q", got, len(users), tt.want)
			}
		})
	}
}
