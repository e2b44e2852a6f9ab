package rules

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

var traceTime = time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)

// proxyCfg is a kamailio.cfg with parameters of siptrace.
func proxyCfg(t *testing.T, params ...string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("#!KAMAILIO\nlisten=udp:192.0.2.1:5060 advertise 203.0.113.7:5070\nloadmodule \"siptrace.so\"\n")
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		fmt.Fprintf(&b, "modparam(\"siptrace\", \"%s\", %s)\n", name, value)
	}
	b.WriteString("request_route {\n\texit;\n}\n")
	return write(t, filepath.Join(t.TempDir(), "kamailio.cfg"), b.String())
}

// Each parameter that decides what is traced, by what it does to one call.
func TestParameters(t *testing.T) {
	t.Parallel()
	refused := [][]byte{
		packet("198.51.100.9:5060", "192.0.2.1:5060", msg("INVITE", "neg", "1", "")),
		packet("192.0.2.1:5060", "198.51.100.9:5060", msg("404 INVITE", "neg", "1", "own")),
		packet("198.51.100.9:5060", "192.0.2.1:5060", msg("ACK", "neg", "1", "own")),
	}
	for _, tt := range []struct {
		name    string
		params  []string
		set     []string
		route   string
		rules   []string // by RPC
		packets [][]byte
		rows    int
		hep     int // mirrored packets
		dropped string
		check   func(t *testing.T, rows []vectors.Row)
	}{
		{name: "trace_on 1", params: []string{"trace_on=1"}, rows: callMessages},
		{name: "trace_on 0", params: []string{"trace_on=0"}, dropped: "dropped.trace_off"},
		{name: "trace_to_database 0", params: []string{"trace_on=1", "trace_to_database=0"}, dropped: "dropped.no_sink"},
		{name: "trace_to_database 0, trace_mode 2", params: []string{"trace_on=1", "trace_to_database=0", "trace_mode=2"}, rows: callMessages},
		{name: "trace_mode 1 mirrors", params: []string{"trace_on=1", "trace_to_database=0", "trace_mode=1"}, hep: callMessages},
		{name: "trace_mode 3", params: []string{"trace_on=1", "trace_mode=3", "hep_mode_on=0"}, rows: callMessages, hep: callMessages},
		{name: "hep_mode_on", params: []string{"trace_on=1", "hep_mode_on=1"}, rows: callMessages, hep: callMessages},
		{name: "trace_init_mode 0", params: []string{"trace_on=1", "trace_mode=3", "trace_init_mode=0"}, rules: []string{"filter=request.method == 'BYE'", "users=u"}, rows: callMessages + 2, hep: callMessages},
		{name: "trace_init_mode 1", params: []string{"trace_on=1", "trace_mode=3", "trace_init_mode=1"}, route: `sip_trace("sip:127.0.0.1:9"); $avp(u)="x"; if (is_method("ACK")) drop;`, rows: callMessages - 2, hep: callMessages - 2},
		{name: "trace_init_mode 2, no rule", params: []string{"trace_on=1", "trace_mode=3", "trace_init_mode=2"}, dropped: "dropped.trace_init_mode"},
		{name: "trace_init_mode 2, a rule", params: []string{"trace_on=1", "hep_mode_on=1", "trace_init_mode=2"}, rules: []string{"filter=request.method == 'BYE'"}, rows: 2, hep: 2},
		{name: "trace_init_mode 2, a transaction", params: []string{"trace_on=1", "hep_mode_on=1", "trace_init_mode=2"}, rules: []string{"filter=status.code == '200' && call-id == 'params'", "scope=t"}, rows: callMessages, hep: callMessages},
		{name: "trace_init_mode 2, the event route", params: []string{"trace_on=1", "hep_mode_on=1", "trace_init_mode=2"}, route: `if (is_method("BYE")) sip_trace();`, rows: 4, hep: 4},
		{name: "trace_sl_acks 1", params: []string{"trace_on=1", "trace_sl_acks=1"}, packets: refused, rows: 3},
		{name: "trace_sl_acks 0", params: []string{"trace_on=1", "trace_sl_acks=0"}, packets: refused, rows: 2},
		{name: "trace_dialog_ack 1", params: []string{"trace_on=1", "trace_dialog_ack=1"}, packets: answered(), rules: []string{"filter=request.method == 'INVITE'", "scope=d", "table=sip_trace_d"}, rows: 0, check: func(t *testing.T, rows []vectors.Row) {
			wantMethods(t, rows, "INVITE INVITE INVITE INVITE ACK ACK BYE BYE")
		}},
		{name: "trace_dialog_ack 0", params: []string{"trace_on=1", "trace_dialog_ack=\"0\""}, packets: answered(), rules: []string{"filter=request.method == 'INVITE'", "scope=d", "table=sip_trace_d"}, rows: 2, check: func(t *testing.T, rows []vectors.Row) {
			wantMethods(t, rows, "INVITE INVITE INVITE INVITE BYE BYE")
		}},
		{name: "trace_dialog_spiral 1", params: []string{"trace_on=1", "trace_dialog_spiral=1"}, packets: spiral(), rules: []string{"filter=request.method == 'INVITE'", "scope=d", "table=sip_trace_d"}, rows: 0},
		// The second way through the proxy is left out: the request as it comes back, and the reply to it as it goes.
		{name: "trace_dialog_spiral 0", params: []string{"trace_on=1", "trace_dialog_spiral=0"}, packets: spiral(), rules: []string{"filter=request.method == 'INVITE'", "scope=d", "table=sip_trace_d"}, rows: 2, check: func(t *testing.T, rows []vectors.Row) {
			wantMethods(t, rows, "INVITE INVITE INVITE INVITE INVITE INVITE")
		}},
		{name: "trace_local_ip", params: []string{"trace_on=1", `trace_local_ip="udp:10.0.0.1:5060"`}, rows: callMessages, check: wantLocal("udp:10.0.0.1:5060")},
		{name: "trace_local_ip without a transport", params: []string{"trace_on=1", `trace_local_ip="10.0.0.1:5064"`}, rows: callMessages, check: wantLocal("udp:10.0.0.1:5064")},
		{name: "trace_local_ip with trace_mode", params: []string{"trace_on=1", "trace_mode=2", `trace_local_ip="udp:10.0.0.1:5060"`}, rows: callMessages, check: wantLocal("udp:192.0.2.1:5060")},
		{name: "data_mode 0", params: []string{"trace_on=1", "data_mode=0"}, rows: callMessages, check: wantLocal("udp:192.0.2.1:5060")},
		{name: "data_mode 1", params: []string{"trace_on=1", "data_mode=1"}, rows: callMessages, check: wantLocal("udp:203.0.113.7:5070")},
		{name: "data_mode 2", params: []string{"trace_on=1", "data_mode=2"}, rows: callMessages, check: wantLocal("udp:192.0.2.1:5060")},
		{name: "evcb_msg", params: []string{"trace_on=1", `evcb_msg="my_hook"`}, route: "hook", rows: callMessages - 2},
		{name: "traced_user_avp", params: []string{"trace_on=1", `traced_user_avp="$avp(s:x)"`}, route: `$avp(x)="u";`, rows: 2 * callMessages},
		{name: "trace_table_avp", params: []string{"trace_on=1", `trace_table_avp="$avp(s:x)"`}, route: `if (is_method("BYE")) $avp(x)="sip_trace_d";`, rows: callMessages - 4, check: func(t *testing.T, rows []vectors.Row) { wantMethods(t, rows, "BYE BYE BYE BYE") }},
		{name: "trace_table_avp, not there", params: []string{"trace_on=1", `trace_table_avp="$avp(s:x)"`}, route: `$avp(x)="sip_trace_none";`, rows: callMessages},
		{name: "tables", params: []string{"trace_on=1", `trace_table_avp="$avp(s:x)"`}, set: []string{"tables=nothing,other_*"}, route: `$avp(x)="sip_trace_d";`, rows: callMessages},
		{name: "table", params: []string{"trace_on=1", `table="sip_trace_d"`}, check: func(t *testing.T, rows []vectors.Row) {
			if len(rows) != callMessages {
				t.Errorf("%d rows in the table, want %d", len(rows), callMessages)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, dir := newSink(t), t.TempDir()
			db := sqliteFile(t, filepath.Join(dir, "trace.db")).create(t, []string{"sip_trace_d"})
			switch {
			case tt.route == "hook":
				tt.route = "event_route[my_hook] {\n\tif (is_method(\"ACK\")) drop;\n}\n"
			case tt.route != "":
				tt.route = "event_route[siptrace:msg] {\n\t" + tt.route + "\n}\n"
			}
			o := options{config: proxyCfg(t, append(tt.params, "hep_version=3")...), route: tt.route, set: tt.set, dir: dir, db: db}
			if tt.hep > 0 {
				o.mirror = s.uri
			}
			d := start(t, o)
			if tt.rules != nil {
				if got := d.kamcmd(t, append([]string{"siptrace.trace.start"}, tt.rules...)...); !strings.Contains(got, "id: ") {
					t.Fatal(got)
				}
			}
			if tt.packets == nil {
				for _, m := range load.Call(load.Spec{CallID: "params"}, traceTime) {
					tt.packets = append(tt.packets, m.Packet)
				}
			}
			d.feed(t, tt.packets...)
			if tt.hep > 0 {
				s.await(t, tt.hep)
			}
			c := d.stop(t)
			if got := len(db.rows(t, "sip_trace")); got != tt.rows {
				t.Errorf("%d rows, want %d (%v)", got, tt.rows, c)
			}
			if got := len(s.packets()); got != tt.hep {
				t.Errorf("%d packets mirrored, want %d", got, tt.hep)
			}
			if tt.dropped != "" && c[tt.dropped] != int64(len(tt.packets)) {
				t.Errorf("%s: got %d, want %d", tt.dropped, c[tt.dropped], len(tt.packets))
			}
			if tt.check != nil {
				rows := db.rows(t, "sip_trace_d")
				if strings.HasPrefix(tt.name, "trace_local_ip") || strings.HasPrefix(tt.name, "data_mode") {
					rows = db.rows(t, "sip_trace")
				}
				tt.check(t, rows)
			}
		})
	}
}

func wantMethods(t *testing.T, rows []vectors.Row, want string) {
	t.Helper()
	var got []string
	for _, r := range rows {
		got = append(got, r.Method)
	}
	if s := strings.Join(got, " "); s != want {
		t.Errorf("methods: got %s, want %s", s, want)
	}
}

// wantLocal checks the proxy's own end of each row.
func wantLocal(want string) func(*testing.T, []vectors.Row) {
	return func(t *testing.T, rows []vectors.Row) {
		t.Helper()
		for _, r := range rows {
			if got := map[string]string{"in": r.ToIP, "out": r.FromIP}[r.Direction]; got != want {
				t.Errorf("row %d, %s: own end %s, want %s", r.ID, r.Direction, got, want)
			}
		}
	}
}

// msg is a message: "INVITE" or "200 INVITE".
func msg(what, callID, branch, toTag string) string {
	first, cseq, reply := strings.Cut(what, " ")
	line := first + " sip:bob@example.org SIP/2.0"
	if reply {
		line = "SIP/2.0 " + first + " Reason"
	} else {
		cseq = first
	}
	if toTag != "" {
		toTag = ";tag=" + toTag
	}
	return fmt.Sprintf("%s\r\nVia: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bK%s\r\nFrom: <sip:alice@example.org>;tag=f\r\nTo: <sip:bob@example.org>%s\r\n"+
		"Call-ID: %s\r\nCSeq: 1 %s\r\nContent-Length: 0\r\n\r\n", line, branch, toTag, callID, cseq)
}

func packet(src, dst, text string) []byte {
	return load.HEP3(load.UDP, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), traceTime, []byte(text))
}

// answered is a call whose ACK has a transaction of its own.
func answered() [][]byte {
	const a, p, b = "198.51.100.9:5060", "192.0.2.1:5060", "203.0.113.20:5060"
	return [][]byte{
		packet(a, p, msg("INVITE", "answered", "1", "")),
		packet(p, b, msg("INVITE", "answered", "2", "")),
		packet(b, p, msg("200 INVITE", "answered", "2", "t")),
		packet(p, a, msg("200 INVITE", "answered", "1", "t")),
		packet(a, p, msg("ACK", "answered", "3", "t")),
		packet(p, b, msg("ACK", "answered", "4", "t")),
		packet(a, p, msg("BYE", "answered", "5", "t")),
		packet(p, b, msg("BYE", "answered", "6", "t")),
	}
}

// spiral is an INVITE that the proxy sends to itself before it goes on.
func spiral() [][]byte {
	const a, p, b = "198.51.100.9:5060", "192.0.2.1:5060", "203.0.113.20:5060"
	return [][]byte{
		packet(a, p, msg("INVITE", "spiral", "1", "")),
		packet(p, p, msg("INVITE", "spiral", "2", "")),
		packet(p, p, msg("INVITE", "spiral", "2", "")),
		packet(p, b, msg("INVITE", "spiral", "3", "")),
		packet(b, p, msg("200 INVITE", "spiral", "3", "t")),
		packet(p, p, msg("200 INVITE", "spiral", "2", "t")),
		packet(p, p, msg("200 INVITE", "spiral", "2", "t")),
		packet(p, a, msg("200 INVITE", "spiral", "1", "t")),
	}
}

// All columns under other names, words of SQL among them.
func TestColumns(t *testing.T) {
	t.Parallel()
	names := map[string]string{
		"date": "order", "callid": "select", "traced_user": "from", "msg": "x-msg", "method": "group", "status": "Status2", "fromip": "table",
		"toip": "to", "fromtag": "user", "totag": "where", "direction": "desc",
	}
	var set []string
	for column, name := range names {
		set = append(set, "siptrace."+column+"_column="+name)
	}
	for kind, open := range backends(t, "mariadb", "postgres", "sqlite") {
		t.Run(kind, func(t *testing.T) {
			db := open(t)
			args := []string{"schema", "create", "--db-url", db.url, "--table", "sip_trace_named"}
			for _, s := range set {
				args = append(args, "--set", s)
			}
			if r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: args}); r.Code != 0 {
				t.Fatal(r.Stderr)
			}
			d := start(t, options{db: db, set: append(append([]string{"siptrace.table=sip_trace_named"}, set...), proxied...)})
			d.feed(t, load.Call(load.Spec{CallID: "columns"}, traceTime)[3].Packet)
			d.stop(t)
			quote := `"`
			if kind == "mariadb" {
				quote = "`"
			}
			var row string
			text := "CONCAT_WS('|', %s)"
			if kind == "sqlite" {
				text = "concat_ws('|', %s)"
			}
			var cols []string
			for _, c := range []string{"callid", "traced_user", "method", "status", "fromip", "toip", "fromtag", "totag", "direction"} {
				name := names[c]
				if kind == "postgres" {
					name = strings.ToLower(name)
				}
				cols = append(cols, quote+name+quote)
			}
			if err := db.db.QueryRow(fmt.Sprintf("SELECT "+text+" FROM sip_trace_named", strings.Join(cols, ", "))).Scan(&row); err != nil {
				t.Fatal(err)
			}
			if want := "columns||INVITE|180|udp:203.0.113.20:5060|udp:192.0.2.1:5060|c0|e0|in"; row != want {
				t.Errorf("got %s, want %s", row, want)
			}
		})
	}
}
