package migrate

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// sample is a configuration with siptrace at work. @NAME@ is filled in: PORT of
// the proxy, BOB of a phone, SINK where mirrors go, SINK2 of others, DBURL.
type sample struct {
	name string
	base string // path under examples, or absolute
	// edits are made to the sample as it is installed: each has to find its
	// text.
	edits [][2]string
	// lines stand before the routes, calls at the beginning of the main route,
	// tail at the end.
	lines, calls, tail string
	files              map[string]string // included ones
	over               string            // where the proxy finds siptraced; empty: udp:127.0.0.1:@HEP@
	domain             string            // alias of the proxy; empty: its address
	pair               bool              // runs end to end in the short form
	quiet              bool              // takes no calls: only the two halves are checked
	mirrors            bool              // the sinks get the same from siptraced
	tables             []string          // beside sip_trace
	columns            map[string]string // with other names
	skip               string            // why the tables can't be equal
}

// examples is where Debian's package has its samples; an image without
// documentation gets them from the package itself.
var examples = sync.OnceValue(func() string { return "/usr/share/doc/kamailio/examples" })

const (
	standard = `loadmodule "db_mysql.so"
loadmodule "siptrace.so"
modparam("siptrace", "db_url", "@DBURL@")
`
	traced = `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 3)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
`
	listen = "listen=udp:127.0.0.1:@PORT@\nauto_aliases=no\n"
)

// oob are the edits that kamailio-oob.cfg needs.
var oob = [][2]string{
	{`mpath="/usr/local/lib/kamailio/modules/"`, ""},
	{"#listen=udp:10.0.0.10:5060\n", listen},
	{"children=4", "children=1"},
}

var samples = []sample{
	{
		name: "default", base: "/etc/kamailio/kamailio.cfg", pair: true, mirrors: true,
		edits: [][2]string{
			{"####### Defined Values #########\n", "#!define WITH_MYSQL\n#!define WITH_SIPTRACE\n#!define HOMER \"sip:127.0.0.1:@SINK@\"\n#!define DBURL \"@DBURL@\"\n"},
			{"# listen=udp:10.0.0.10:5060\n", listen},
			{"children=8", "children=1"},
			{"# ----- jsonrpcs params -----\n", `#!ifdef WITH_SIPTRACE
loadmodule "siptrace.so"
modparam("siptrace", "db_url", DBURL) # the same as all
modparam("siptrace", "duplicate_uri", HOMER)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "hep_capture_id", 301)
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 3)
#!else
modparam("siptrace", "trace_mode", 1)
#!endif

`},
		},
		tail: `
event_route[siptrace:msg] {
	# monitoring is not of interest
	if (is_method("OPTIONS") && $fU == "alice") {
		drop();
	}
}
`,
	},
	{
		name: "basic", base: "pkg/kamailio-basic.cfg", pair: true, mirrors: true,
		edits: [][2]string{
			{"#listen=udp:10.0.0.10:5060\n", listen},
			{"children=4", "children=1"},
			{"####### Defined Values #########\n", "#!define FLT_TRACE 22\n#!substdef \"!HOMER_URI!sip:127.0.0.1:@SINK@!g\"\n"},
			{"	route(REQINIT);\n", "	route(REQINIT);\n	route(TRACE);\n"},
		},
		lines: "include_file \"trace/params.cfg\"\n", tail: "\ninclude_file \"trace/routes.cfg\"",
		files: map[string]string{
			"trace/params.cfg": standard + `modparam("siptrace", "duplicate_uri",
	"HOMER_URI")
modparam("siptrace", "trace_flag", FLT_TRACE); modparam("siptrace", "trace_on", 1)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 2)`,
			"trace/routes.cfg": `route[TRACE] {
	setflag(FLT_TRACE);
	if (is_method("INVITE")) {
		sip_trace("HOMER_URI", "$ci-trace", "t");
	} else {
		sip_trace();
	}
}
`,
		},
	},
	{
		name: "users", base: "pkg/kamailio-oob.cfg", pair: true, tables: []string{"sip_trace_alt"}, edits: oob,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "traced_user_avp", "$avp(s:traced)")
modparam("siptrace", "trace_table_avp", "$avp(table)")
`,
		calls: `	if ($fU == "alice") {
		xlog("L_DBG", "traced\n");
		$avp(traced) = "sip:alice";
		if (is_method("MESSAGE")) $avp(traced) = "texts " + $tU;
	} else if ($tU =~ "^bob") $avp(s:table) = "sip_trace_alt";
	sip_trace_mode("t");
`,
	},
	{
		name: "tables", base: "pkg/kamailio-oob.cfg", tables: []string{"sip_trace_alt"}, edits: oob,
		lines: standard + `modparam("siptrace", "traced_user_avp", "$avp(s:traced)")
modparam("siptrace", "trace_table_avp", "$avp(table)")
`,
		calls: `	if ($ua == $null && !is_method("INVITE|ACK")) {
		$avp(traced) = "x-" + $rm;
		if ($si == "127.0.0.1") $avp(traced) = "near";
	}
	if ($fU == "alice") $avp(table) = "sip_trace_alt";
	sip_trace_mode("t");
`,
	},
	{
		name: "minimal", base: "mixed/kamailio-minimal-proxy.cfg",
		edits: [][2]string{{"# listen=udp:127.0.0.1:5060\n", listen}, {`":9"`, `":@BOB@"`}, {"children=2", "children=1"}},
		lines: standard + `modparam("siptrace", "trace_on", yes)
modparam("siptrace", "trace_local_ip", "udp:192.0.2.40:5060")
`,
		calls: "	sip_trace(\"sip:127.0.0.1:@SINK@\", \"$ci\", \"t\");\n",
	},
	{
		name: "dialog", base: "pkg/kamailio-basic.cfg", mirrors: true, pair: true,
		edits: [][2]string{
			{"#listen=udp:10.0.0.10:5060\n", "listen=udp:127.0.0.1:@PORT@ advertise 203.0.113.9:5060\nauto_aliases=no\nalias=\"127.0.0.1:@PORT@\"\n"},
			{"children=4", "children=1"},
			{"		setflag(FLT_ACC); # do accounting\n	}\n\n	# dispatch", "		setflag(FLT_ACC); # do accounting\n		dlg_manage();\n	}\n\n	# dispatch"},
		},
		lines: `loadmodule "dialog.so"
` + standard + `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "trace_on", 1)
`,
		calls: "	if (is_method(\"INVITE\") && !has_totag()) sip_trace(\"sip:127.0.0.1:@SINK@\", \"$ci-d\", \"d\");\n",
	},
	{
		name: "anycast", base: "mixed/kamailio-minimal-anycast.cfg",
		edits: [][2]string{
			{`"/IPADDR_THISNODE/192.168.178.75/"`, `"/IPADDR_THISNODE/127.0.0.1/"`},
			{`#!define IPADDR_THISNODE "192.168.178.75"`, `#!define IPADDR_THISNODE "127.0.0.1"`},
			{"listen=udp:IPADDR_THISNODE:5060\n", "listen=udp:127.0.0.1:@PORT@\nauto_aliases=no\n"},
			{`"udp:IPADDR_ANYCAST:5060"`, `"udp:127.0.0.1:@PORT@"`},
			{`"udp:IPADDR_THISNODE:5060"`, `"udp:127.0.0.1:@PORT@"`},
			{"$du = \"sip:\" + IPADDR_MAINSRV;", "$du = \"sip:127.0.0.1:@BOB@\";"},
			{"children=8", "children=1"},
		},
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 2)
modparam("siptrace", "trace_to_database", 0)
`,
	},
	{
		name: "load", base: "exec/exec_dist.cfg", quiet: true, // its $SIP_USER is none since 5.6
		edits: [][2]string{
			{"modules/exec/", ""},
			{"modules/sl/", ""},
			{"modules/tm/", ""},
			{"fork=no\n", "children=1\n"},
			{"listen=192.168.2.16\n", "listen=127.0.0.1:@PORT@\ndisable_tcp=yes\nauto_aliases=no\n"},
			{"sip:00$SIP_USER@192.168.2.35", "sip:$SIP_USER@127.0.0.1:@BOB@"},
			{"sip:11$SIP_USER@192.168.2.34", "sip:$SIP_USER@127.0.0.1:@BOB@"},
		},
		lines: standard + `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 1)
`,
	},
	{
		name: "accounting", base: "kamailio/acc.cfg",
		edits: [][2]string{
			{`mpath="/usr/local/lib/kamailio/modules/"`, "listen=udp:127.0.0.1:@PORT@\nchildren=1\nauto_aliases=no\n"},
			{"	# record-route INVITES", "	if (uri == myself) $du = \"sip:127.0.0.1:@BOB@\";\n	# record-route INVITES"},
			{`loadmodule "acc.so"`, "loadmodule \"pv.so\"\nloadmodule \"acc.so\""},
		},
		lines: standard + `modparam("siptrace", "xheaders_write", 1)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "trace_on", 1)
`,
		calls: "	sip_trace(\"sip:127.0.0.1:@SINK2@;transport=udp\", \"\", \"t\");\n",
	},
	{
		name: "replicate", base: "kamailio/replicate.cfg",
		edits: [][2]string{
			{`mpath="/usr/local/lib/kamailio/modules/"`, "listen=udp:127.0.0.1:@PORT@\nauto_aliases=no\nchildren=1\n"},
			{"fork=no\n", ""},
			{"debug=3 ", "debug=2 "},
			{`loadmodule "auth_db.so"`, "loadmodule \"auth_db.so\"\nloadmodule \"pv.so\"\nmodparam(\"auth_db\", \"db_url\", \"@DBURL@\")"},
			{"backup.foo.bar)", "127.0.0.9)"},
			{"sip:backup.foo.bar:5060", "sip:127.0.0.1:@BOB@"},
		},
		lines: `loadmodule "siptrace.so"
modparam("siptrace|auth_db", "db_url", "@DBURL@")
modparam("siptrace", "traced_user_avp", "$avp(u)")
modparam("siptrace", "trace_flag", 3)
`,
		calls: "	if ($fU == \"alice\") $avp(u) = $fu;\n	setflag(3);\n	sip_trace();\n",
	},
	{
		name: "answers", base: "mixed/uas.cfg",
		edits: [][2]string{
			{`"modules/sl/sl.so"`, `"sl.so"`}, {`"modules/tm/tm.so"`, "\"tm.so\"\nlisten=udp:127.0.0.1:@PORT@\nauto_aliases=no\nchildren=1\n"},
		},
		lines: standard + "modparam(\"siptrace\", \"trace_on\", 1)\r\n",
		calls: "	sip_trace();\n", tail: "\nreply_route {\n	sip_trace();\n}\n",
	},
	{
		name: "users of new calls", base: "pkg/kamailio-oob.cfg", pair: true, edits: oob,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "traced_user_avp", "$avp(s:traced)")
modparam("siptrace", "trace_flag", 22)
`,
		calls: `	setflag(22);
	if (has_totag()) {
		sip_trace();
		loose_route();
		t_relay();
		exit;
	}
	$avp(s:traced) = $fU;
	sip_trace();
`,
	},
	{
		name: "users of a route", base: "pkg/kamailio-oob.cfg", pair: true, tables: []string{"sip_trace_alt"}, edits: oob,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "traced_user_avp", "$avp(s:traced)")
modparam("siptrace", "trace_table_avp", "$avp(s:table)")
`,
		calls: `	route(WHO);
	sip_trace_mode("t");
`,
		tail: `
route[WHO] {
	if (has_totag()) return;
	if (!mf_process_maxfwd_header("10") || is_method("OPTIONS") && $rU == $null) {
		sl_send_reply("403", "No");
		drop;
	}
	$var(who) = "user " + $fU;
	if ($rU == "nobody") setflag(7);
	switch ($rm) {
		case "INVITE":
			if (isflagset(7)) {
				$avp(s:table) = "sip_trace_alt";
				return;
			}
			break;
		case "MESSAGE":
			$avp(s:traced) = "texts";
		default:
			$var(who) = "other " + $fU;
	}
	$avp(s:traced) = $var(who);
}
`,
	},
	{
		name: "users of messages", base: "pkg/kamailio-oob.cfg", pair: true, edits: oob,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "traced_user_avp", "$avp(s:traced)")
`,
		calls: `	if ($rU == "nobody") $avp(s:traced) = "lost " + $rm;
	if (is_method("ACK|CANCEL|BYE")) $avp(s:traced) = "ends with " + $rm;
	if (is_method("MESSAGE")) {
		$avp(s:traced) = "text";
	}
	sip_trace();
	if (is_method("MESSAGE")) $avp(s:traced) = "too late";
`,
	},
	{
		name: "two collectors", base: "pkg/kamailio-oob.cfg", pair: true, mirrors: true, edits: oob,
		lines: `loadmodule "siptrace.so"
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "hep_capture_id", 77)
`,
		calls: `	if(method == "REGISTER"){ sip_trace("sip:127.0.0.1:@SINK@", "", "t"); }
	if (is_method("INVITE|BYE|UPDATE|CANCEL")) { sip_trace("sip:127.0.0.1:@SINK2@", "$ci-voip", "t"); }
`,
	},
	{
		name: "two collectors and rows", base: "pkg/kamailio-oob.cfg", pair: true, mirrors: true, edits: oob,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "traced_user_avp", "$avp(s:traced)")
`,
		calls: `	if(method == "REGISTER"){ sip_trace("sip:127.0.0.1:@SINK@", "", "t"); }
	if (is_method("INVITE|BYE|UPDATE|CANCEL")) { $avp(s:traced) = $rm; sip_trace("sip:127.0.0.1:@SINK2@", "", "t"); }
`,
	},
	{
		// The proxy's own replies are left out of the duplicates there.
		name: "two collectors and duplicates", base: "pkg/kamailio-oob.cfg", edits: oob,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
`,
		calls: `	if(method == "REGISTER"){ sip_trace("sip:127.0.0.1:@SINK@", "", "t"); }
	if (is_method("INVITE|BYE|UPDATE|CANCEL")) { sip_trace("sip:127.0.0.1:@SINK2@", "", "t"); }
`,
	},
	{
		name: "two collectors, HEP2", base: "pkg/kamailio-oob.cfg", mirrors: true, edits: oob,
		lines: `loadmodule "siptrace.so"
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_mode", 1)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 2)
`,
		calls: `	$var(x) = "sip:127.0.0.1:@SINK2@";
	if (is_method("INVITE")) sip_trace("$var(x)");
`,
	},
	{
		name: "over TCP", base: "pkg/kamailio-oob.cfg", pair: true, mirrors: true, over: "tcp:127.0.0.1:@HEP@",
		edits: slices.Concat(oob, [][2]string{{"auto_aliases=no\n", "auto_aliases=no\nlisten=tcp:127.0.0.1:@PORT@\n"}}),
		lines: standard + traced,
	},
	{
		name: "over IPv6", base: "pkg/kamailio-oob.cfg", pair: true, mirrors: true, over: "udp:[::1]:@HEP@",
		edits: slices.Concat(oob, [][2]string{{"auto_aliases=no\n", "auto_aliases=no\nlisten=udp:[::1]:@PORT@\n"}}),
		lines: standard + traced,
	},
	{
		name: "over TCP and IPv6", base: "pkg/kamailio-oob.cfg", mirrors: true, over: "tcp:[::1]:@HEP@",
		edits: slices.Concat(oob, [][2]string{{"auto_aliases=no\n", "auto_aliases=no\nlisten=tcp:[::1]:@PORT@\n"}}),
		lines: standard + traced,
	},
	{
		name: "stateless ACKs", base: "pkg/kamailio-oob.cfg", pair: true, mirrors: true, edits: oob,
		lines: standard + `modparam("siptrace", "trace_on", 1)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "hep_mode_on", 1)
`,
		calls: "	# sip_trace();\n	if (is_method(\"INVITE\")) {\n		sl_send_reply(\"480\", \"Gone\");\n		exit;\n	}\n",
	},
	{
		name: "capture", base: "pkg/sipcapture.cfg", quiet: true,
		edits: [][2]string{{`mpath="/usr/local/lib/kamailio/modules/"`, ""}},
		lines: `loadmodule "siptrace.so"
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:@SINK@")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
`,
		calls: "	sip_trace();\n",
	},
}

// recorded are the recordings whose configuration this Kamailio takes, with
// their fixed ports and database replaced.
func recorded(tb testing.TB) (out []sample) {
	tb.Helper()
	names, err := vectors.Names()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := vectors.Dir()
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range names {
		s := sample{name: name, base: filepath.Join(dir, name, "kamailio.cfg"), domain: "vec.example", mirrors: true}
		switch name {
		case "mode2-db-only", "mode3-hepmode-off": // the ACK of a stateless reply goes by sip_trace()'s rules as well
			s.mirrors = false
		case "traced-user-off": // the callbacks of a transaction mirror although tracing is off
			s.mirrors = false
		case "xheaders-write", "xheaders-write-off", "xheaders-write-ipv6", "xheaders-chain", "xheaders-chain-hep", "xheaders-chain-strip":
			s.mirrors = false // the proxy's own replies are left out there
		case "xheaders-mode4", "xheaders-mode4-evroute", "xheaders-chain-mode4": // headers that lack, or are empty
			s.mirrors = false
		}
		switch {
		case name == "data-mode-v614" || name == "sip-trace-msg-v614":
			continue // known to newer releases only
		case strings.Contains(name, "-tls"):
			continue // the keys are not kept
		case name == "trace-table-avp":
			s.tables = []string{"sip_trace_alt"}
		case name == "table-and-columns":
			s.columns = map[string]string{"callid": "x_callid", "msg": "x_msg", "fromip": "x_from"}
		case name == "spiral-script":
			s.skip = "of a message to the proxy itself only one copy is mirrored, and its direction is a guess"
		case name == "xheaders-mode7-evroute":
			s.skip = "the module writes X-Siptrace headers into its rows"
		case name == "traced-user-mode3":
			s.skip = "stateless replies are traced twice there, once with users"
		case name == "local-ip-noproto":
			s.skip = "siptraced adds the protocol that is missing"
		case strings.HasPrefix(name, "xheaders-odd"):
			s.skip = "takes duplicates of another node"
		}
		out = append(out, s)
	}
	return out
}

var (
	routeLine = regexp.MustCompile(`(?m)^(request_)?route\s*\{`)
	sipPort   = regexp.MustCompile(`\b150[67]0\b`)
	sinkPort  = regexp.MustCompile(`\b1509[01]\b`)
	workers   = regexp.MustCompile(`(?m)^children=\d+`)
	fixedURL  = regexp.MustCompile(`"mysql://vec:[^"]*"`)
)

// build writes the configuration into a directory and returns its main file.
func (s sample) build(tb testing.TB, dir string, values map[string]string) string {
	tb.Helper()
	path := s.base
	if !filepath.IsAbs(path) {
		path = filepath.Join(examples(), path)
	}
	text := readFile(tb, path)
	if s.domain != "" {
		text = sipPort.ReplaceAllString(text, "@PORT@")
		text = sinkPort.ReplaceAllString(text, "@SINK@")
		text = workers.ReplaceAllString(text, "children=1") // more of them overtake each other
		text = fixedURL.ReplaceAllString(text, `"@DBURL@"`)
	}
	for _, e := range s.edits {
		if !strings.Contains(text, e[0]) {
			tb.Fatalf("%s: no %q in %s", s.name, e[0], path)
		}
		text = strings.Replace(text, e[0], e[1], 1)
	}
	if s.lines+s.calls != "" {
		at := routeLine.FindStringIndex(text)
		if at == nil {
			tb.Fatalf("%s: no main route in %s", s.name, path)
		}
		text = text[:at[0]] + s.lines + "\n" + text[at[0]:at[1]] + "\n" + s.calls + text[at[1]:]
	}
	for name, text := range s.files {
		write(tb, filepath.Join(dir, name), filled(text, values))
	}
	return write(tb, filepath.Join(dir, "kamailio.cfg"), filled(text+s.tail, values))
}

// filled is a text with the values in the place of their names.
func filled(text string, values map[string]string) string {
	for k, v := range values {
		text = strings.ReplaceAll(text, "@"+k+"@", v)
	}
	return text
}

// halves are the two sides of a migration.
type halves struct {
	dir, cfg, yaml string
	original       string // kamailio.cfg as it was
}

// migrate builds a sample, has it migrated, and checks both halves with the
// programs that will read them.
func (s sample) migrate(t *testing.T, values map[string]string) halves {
	t.Helper()
	h := halves{dir: t.TempDir(), original: s.build(t, t.TempDir(), values)}
	h.cfg = s.build(t, h.dir, values)
	if o := command(t, h.dir, "", "kamailio", "-c", "-f", h.cfg); o.code != 0 {
		t.Fatalf("kamailio -c of the original: %v", o)
	}
	over := s.over
	if over == "" {
		over = "udp:127.0.0.1:@HEP@"
	}
	args := []string{"migrate", "--listen", filled(over, values), h.cfg}
	all := must(t, h.dir, "", program, args...)
	patch := must(t, h.dir, "", program, append(args, "--patch")...)
	yaml := must(t, h.dir, "", program, append(args, "--yaml")...)
	notes := must(t, h.dir, "", program, append(args, "--notes")...)
	for what, part := range map[string]string{"patch": patch, "siptraced.yaml": yaml, "words": notes} {
		if part == "" || !strings.Contains(all, part) {
			t.Errorf("the whole output lacks the %s:\n%s", what, part)
		}
	}
	// patch finds its part in all of the output.
	out := must(t, h.dir, all, "patch", "-p0", "--batch", "--fuzz=0", "--no-backup-if-mismatch")
	if strings.Contains(out, "offset") || strings.Count(out, "patching file ") != strings.Count(patch, "\n+++ ") {
		t.Errorf("patch says:\n%s", out)
	}
	h.yaml = write(t, filepath.Join(h.dir, "siptraced.yaml"), yaml)
	if o := command(t, h.dir, "", "kamailio", "-c", "-f", h.cfg); o.code != 0 {
		t.Errorf("kamailio -c of the changed one: %v\n%s", o, patch)
	}
	if o := command(t, h.dir, "", program, "check", "-c", h.yaml); o.code != 0 {
		t.Errorf("siptraced check: %v\n%s", o, yaml)
	}
	// What is done is not done twice.
	if o := command(t, h.dir, "", program, "migrate", h.cfg); o.code != 1 || !strings.Contains(o.stderr, "migrated already") {
		t.Errorf("migrated again: %v", o)
	}
	s.goBack(t, h, all)
	return h
}

// goBack takes the patch back, as the notes say: each file has to be what it was.
func (s sample) goBack(t *testing.T, h halves, printed string) {
	t.Helper()
	dir := t.TempDir()
	for name := range s.files {
		write(t, filepath.Join(dir, name), readFile(t, filepath.Join(h.dir, name)))
	}
	write(t, filepath.Join(dir, "kamailio.cfg"), readFile(t, h.cfg))
	must(t, dir, printed, "patch", "-R", "-p0", "--batch", "--fuzz=0", "--no-backup-if-mismatch")
	for name := range s.files {
		if got, want := readFile(t, filepath.Join(dir, name)), readFile(t, filepath.Join(filepath.Dir(h.original), name)); got != want {
			t.Errorf("%s after patch -R: got\n%s\nwant\n%s", name, got, want)
		}
	}
	if got, want := readFile(t, filepath.Join(dir, "kamailio.cfg")), readFile(t, h.original); got != want {
		t.Errorf("kamailio.cfg after patch -R: got\n%s\nwant\n%s", got, want)
	}
}

// values are ports that are free, and a database nobody has yet.
func values(ports []int, dbURL string) map[string]string {
	m := map[string]string{"DBURL": dbURL}
	for i, name := range []string{"PORT", "BOB", "ALICE", "SINK", "SINK2", "HEP"} {
		m[name] = strconv.Itoa(ports[i])
	}
	return m
}

// TestHalves has every configuration migrated: Kamailio takes the one half,
// siptraced the other.
func TestHalves(t *testing.T) {
	t.Parallel()
	ports := []int{15060, 15112, 15111, 15090, 15092, 15099} // never bound
	if n := len(samples); n < 10 {
		t.Fatalf("%d samples", n)
	}
	list := samples
	for i, s := range recorded(t) {
		if servers.Long() || i%8 == 0 || s.name == "traced-user-on" || s.name == "event-route-drop" {
			list = append(list, s)
		}
	}
	for _, s := range list {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.migrate(t, values(ports, "mysql://u:p@127.0.0.1:3306/none"))
		})
	}
}

// TestExamples makes sure that the samples are those of the package.
func TestExamples(t *testing.T) {
	if _, err := os.Stat(examples()); err != nil {
		t.Fatalf("the samples of Debian's package are not installed: %v", err)
	}
}
