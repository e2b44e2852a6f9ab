package migrate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

const head = `loadmodule "siptrace.so"
modparam("siptrace", "trace_on", 1)
`

// plan migrates files; "main" is kamailio.cfg.
func plan(t *testing.T, opt Options, files map[string]string) (*Plan, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "etc")
	for name, text := range files {
		if name == "main" {
			name = "kamailio.cfg"
		}
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return New(filepath.Join(dir, "kamailio.cfg"), opt)
}

func mustPlan(t *testing.T, text string) *Plan {
	t.Helper()
	p, err := plan(t, Options{}, map[string]string{"main": text})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// changed is a file as the patch leaves it.
func changed(t *testing.T, p *Plan, file string) string {
	t.Helper()
	name := filepath.Join(filepath.Dir(p.main), file)
	var b strings.Builder
	unified(&b, p.files[name], p.edits[name])
	got := apply(t, string(p.files[name]), b.String())
	if want := string(result(p.files[name], p.edits[name])); got != want {
		t.Errorf("%s: the diff makes %q, want %q", file, got, want)
	}
	return got
}

// apply is patch, for diffs that fit without searching.
func apply(t testing.TB, text, diff string) string {
	t.Helper()
	var out strings.Builder
	old := lines(text)
	at, sign := 0, byte(0)
	for _, l := range lines(diff) {
		switch l[0] {
		case '@':
			var from, n, to, m int
			if _, err := fmt.Sscanf(l, "@@ -%d,%d +%d,%d @@", &from, &n, &to, &m); err != nil {
				t.Fatalf("%q: %v", l, err)
			}
			if n > 0 {
				from--
			}
			for ; at < from; at++ {
				out.WriteString(old[at])
			}
		case '\\':
			if sign != '-' {
				text := strings.TrimSuffix(out.String(), "\n")
				out.Reset()
				out.WriteString(text)
			}
		case '+':
			out.WriteString(l[1:])
		default:
			if at >= len(old) || strings.TrimSuffix(old[at], "\n") != strings.TrimSuffix(l[1:], "\n") {
				t.Fatalf("line %d is not %q:\n%s", at+1, l, diff)
			}
			if l[0] == ' ' {
				out.WriteString(old[at])
			}
			at++
		}
		sign = l[0]
	}
	for ; at < len(old); at++ {
		out.WriteString(old[at])
	}
	return out.String()
}

// TestChange shows the proxy's half line by line.
func TestChange(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{
			"all traffic",
			head + `modparam("siptrace", "duplicate_uri", "sip:192.0.2.1") # homer
modparam("siptrace", "trace_mode", 3)
modparam("siptrace", "db_url", "mysql://a@b/c") /* rows */
modparam("siptrace", "table", "x") // and where
`,
			head + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060") # homer
modparam("siptrace", "trace_mode", 1)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_to_database", 0)
`,
		},
		{
			"one line, no line end",
			`loadmodule "siptrace"; modparam("siptrace","trace_on",0); modparam("siptrace","db_url","mysql://a@b/c")`,
			`loadmodule "siptrace"; modparam("siptrace","trace_on",0); ` + "\n" + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_to_database", 0)`,
		},
		{
			"CR LF",
			"loadmodule \"siptrace\"\r\nmodparam(\"siptrace\", \"db_url\", \"mysql://a@b/c\")\r\ndebug=2\r\n",
			"loadmodule \"siptrace\"\r\n" + marker + "\r\nmodparam(\"siptrace\", \"duplicate_uri\", \"sip:127.0.0.1:9060\")\r\nmodparam(\"siptrace\", \"hep_mode_on\", 1)\r\n" +
				"modparam(\"siptrace\", \"hep_version\", 3)\r\nmodparam(\"siptrace\", \"trace_to_database\", 0)\r\ndebug=2\r\n",
		},
		{
			"defines, several modules, a value twice",
			`#!define URI "sip:192.0.2.1"
#!define CHOICE modparam("siptrace", "hep_version", 2)
loadmodule "siptrace"
CHOICE
modparam("siptrace", "duplicate_uri", URI)
modparam("siptrace", "trace_on", 0)
modparam("siptrace", "trace_on", 1)
modparam("acc|siptrace", "db_url", "mysql://a@b/c")
modparam("siptrace|rtimer", "trace_to_database", 1)
`,
			`#!define URI "sip:192.0.2.1"
#!define CHOICE modparam("siptrace", "hep_version", 2)
loadmodule "siptrace"
CHOICE
` + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "trace_on", 0)
modparam("siptrace", "trace_on", 1)
modparam("acc|siptrace", "db_url", "mysql://a@b/c")
modparam("siptrace|rtimer", "trace_to_database", 1)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_to_database", 0)
`,
		},
		{
			"tracing of users while it is off",
			`loadmodule "siptrace"
modparam("siptrace", "traced_user_avp", "$avp(u)")
modparam("siptrace", "trace_on", 0)
`,
			`loadmodule "siptrace"
modparam("siptrace", "traced_user_avp", "$avp(u)")
modparam("siptrace", "trace_on", 0)
` + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_to_database", 0)
`,
		},
		{
			"calls and the event route",
			head + `#!define URI "sip:192.0.2.1"
request_route {
	sip_trace("sip:192.0.2.2:5070;transport=tcp", "$ci", "t"); # sip_trace("sip:x")
	sip_trace(URI); sip_trace("$var(x)", "c"); sip_trace(); sip_trace("", "d");
	hlog("sip:192.0.2.1", "x"); sip_trace_mode("t");
}

event_route[siptrace:msg] {
	drop();
}
`,
			head + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_to_database", 0)
#!define URI "sip:192.0.2.1"
request_route {
	sip_trace("sip:127.0.0.1:9060", "$ci", "t"); # sip_trace("sip:x")
	sip_trace("sip:127.0.0.1:9060"); sip_trace("sip:127.0.0.1:9060", "c"); sip_trace(); sip_trace("", "d");
	hlog("sip:192.0.2.1", "x"); sip_trace_mode("t");
}

`,
		},
		{
			"calls to other collectors while nothing is stored",
			head + `modparam("siptrace", "duplicate_uri", "sip:10.1.1.1:9060")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 2)
request_route {
	if(method == "REGISTER"){ sip_trace("sip:10.1.1.1:9060", "", "t"); }
	if (is_method("INVITE|BYE|UPDATE|CANCEL")) { sip_trace("sip:10.2.2.2:9060", "", "t"); sip_trace("$var(x)"); }
}
`,
			head + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 2)
request_route {
	if(method == "REGISTER"){ sip_trace("sip:127.0.0.1:9060", "", "t"); }
	if (is_method("INVITE|BYE|UPDATE|CANCEL")) { sip_trace("sip:10.2.2.2:9060", "", "t"); sip_trace("$var(x)"); }
}
`,
		},
		{
			"duplicate_uri that nothing is sent to",
			head + `modparam("siptrace", "duplicate_uri", "sip:10.1.1.1:9060")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "hep_mode_on", 1)
request_route { sip_trace("sip:10.2.2.2:9060", "", "t"); }
`,
			head + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
request_route { sip_trace("sip:127.0.0.1:9060", "", "t"); }
`,
		},
		{
			"duplicates of other nodes go on as SIP",
			head + `modparam("siptrace", "xheaders_read", 1)
modparam("siptrace", "hep_mode_on", 1)
route { sip_trace(); }
`,
			head + `modparam("siptrace", "hep_mode_on", 0)
` + marker + `
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_to_database", 0)
route { sip_trace(); }
`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := changed(t, mustPlan(t, c.text), "kamailio.cfg"); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// TestSinks holds the measured table: where Kamailio 5.6.3 puts a message, and
// that siptraced with the migrated parameters puts it there.
func TestSinks(t *testing.T) {
	const dup = "modparam(\"siptrace\", \"duplicate_uri\", \"sip:192.0.2.1\")\n"
	type want struct{ db, hep, sip bool }
	try := func(name, text string, w want) {
		p := mustPlan(t, "loadmodule \"siptrace\"\n"+text)
		q := p.effective()
		got := q.Sinks(len(q.DuplicateURI) > 0)
		if g := (want{got&siptrace.ToStore != 0, got&siptrace.ToHEP != 0, got&siptrace.ToSIP != 0}); g != w {
			t.Errorf("%s: got %+v, want %+v\n%s", name, g, w, p.YAML())
		}
		if err := q.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for mode := 1; mode <= 7; mode++ {
		for db := range 2 {
			for hep := range 2 {
				text := fmt.Sprintf(dup+"modparam(\"siptrace\",\"trace_mode\",%d)\nmodparam(\"siptrace\",\"trace_to_database\",%d)\nmodparam(\"siptrace\",\"hep_mode_on\",%d)\n", mode, db, hep)
				try(fmt.Sprintf("trace_mode %d, trace_to_database %d, hep_mode_on %d", mode, db, hep), text, want{mode&2 != 0, mode&1 != 0, mode&4 != 0})
			}
		}
	}
	for _, c := range []struct {
		db, hep int
		dup     bool
		call    string
		want    want
	}{
		{0, 0, false, `sip_trace()`, want{}},
		{0, 0, false, `sip_trace("sip:192.0.2.1")`, want{sip: true}},
		{0, 0, true, `sip_trace()`, want{sip: true}},
		{0, 0, true, `sip_trace_mode("t")`, want{sip: true}},
		{0, 0, true, `sip_trace("", "x", "t")`, want{sip: true}},
		{0, 1, false, `sip_trace_mode("t")`, want{}},
		{0, 1, false, `sip_trace("sip:192.0.2.1")`, want{hep: true}},
		{0, 1, true, `sip_trace()`, want{hep: true}},
		{1, 0, true, `sip_trace()`, want{db: true}},
		{1, 0, true, `sip_trace_mode("t")`, want{db: true}},
		{1, 0, false, `sip_trace("sip:192.0.2.1")`, want{db: true, sip: true}},
		{1, 0, true, `sip_trace("sip:192.0.2.1")`, want{db: true, sip: true}},
		{1, 1, false, `sip_trace()`, want{db: true}},
		{1, 1, true, `sip_trace()`, want{db: true, hep: true}},
	} {
		text := fmt.Sprintf("modparam(\"siptrace\",\"trace_to_database\",%d)\nmodparam(\"siptrace\",\"hep_mode_on\",%d)\nroute { %s; }\n", c.db, c.hep, c.call)
		if c.dup {
			text = dup + text
		}
		try(fmt.Sprintf("%+v", c), text, c.want)
	}
	// Collectors that the proxy sends to by itself are none of siptraced's.
	for calls, want := range map[string]string{
		`sip_trace("sip:192.0.2.1"); sip_trace("sip:192.0.2.2");`: "[sip:192.0.2.1]",
		`sip_trace("sip:192.0.2.2"); sip_trace("$var(x)");`:       "[sip:192.0.2.2]",
		`sip_trace(); sip_trace("sip:192.0.2.2");`:                "[sip:192.0.2.1]",
		`hlog("x"); sip_trace("sip:192.0.2.2");`:                  "[sip:192.0.2.1]",
		`sip_trace("$var(x)"); sip_trace_mode("t");`:              "[sip:192.0.2.1]",
	} {
		p := mustPlan(t, head+dup+"modparam(\"siptrace\", \"trace_to_database\", 0)\nmodparam(\"siptrace\", \"hep_mode_on\", 1)\nroute { "+calls+" }\n")
		if got := fmt.Sprint(p.effective().DuplicateURI); got != want {
			t.Errorf("%s: siptraced mirrors to %s, want %s", calls, got, want)
		}
	}
	// What a KEMI script traces is not known: what it may trace goes where the module puts it.
	try("KEMI", dup+"cfgengine \"lua\"\n", want{db: true})
	try("KEMI, HEP", dup+"cfgengine=\"python\"\nmodparam(\"siptrace\",\"hep_mode_on\",1)\nmodparam(\"siptrace\",\"trace_to_database\",0)\n", want{hep: true})
	try("not KEMI", dup+"cfgengine \"native\"\n", want{})
	// trace_init_mode can switch trace_mode off.
	try("rules only", dup+"modparam(\"siptrace\",\"trace_mode\",7)\nmodparam(\"siptrace\",\"trace_init_mode\",2)\nroute { sip_trace(); }\n", want{db: true})
}

// TestRoute shows siptraced's event route.
func TestRoute(t *testing.T) {
	const request = open + aboutKept + aboutStateless + "\tif (" + newRequest + ") {\n\t\tkeep_trace();\n"
	const users = "modparam(\"siptrace\", \"traced_user_avp\", \"$avp(s:u)\")\nmodparam(\"siptrace\", \"trace_table_avp\", \"$avp(t)\")\n"
	for _, c := range []struct {
		name, text, want string
		left             int
	}{
		{"none", "event_route[siptrace:msg] { drop; }", "", 0}, // it never ran
		{
			"own, with its comments",
			"modparam(\"siptrace\", \"trace_mode\", 1)\nevent_route[siptrace:msg] {\n\t# all\n\tdrop;\n}",
			open + "\t# all\n\tdrop;\n}\n", 0,
		},
		{
			"own, with defines and other routes",
			"#!define WHO \"^alice\"\nmodparam(\"siptrace\", \"trace_mode\", 1)\nevent_route[siptrace:msg] { # all\n\troute(OFF);\n}\nroute[OFF] {\n\tif ($fU =~ WHO) drop; # her\n}\n",
			open + " # all\n\troute(OFF);\n}\nroute[OFF] {\n\tif ($fU =~ \"^alice\") drop;\n}\n", 0,
		},
		{
			"what siptraced can't run stays, and doesn't run twice",
			"modparam(\"siptrace\", \"trace_mode\", 1)\nevent_route[siptrace:msg] { $sht(a=>b) = 1; }",
			open + "}\n", 0,
		},
		{
			"plain",
			users + "route { $avp(u) = \"a\"; $avp(other) = \"b\"; $avp(s:t) = \"x\" + $fU; }",
			open + aboutStateless + aboutCanceling + "\tif (" + notStateless + " && " + notCanceling + ") {\n\t\t# kamailio.cfg:5, route\n\t\t$avp(u) = \"a\";\n\t}\n" +
				"\tif (" + notStateless + ") {\n\t\t# kamailio.cfg:5, route\n\t\t$avp(s:t) = \"x\" + $fU;\n\t}\n}\n", 0,
		},
		{
			"within conditions",
			users + `request_route {
	if (is_method("MESSAGE|NOTIFY") && ($fU == "a" || $fU=="b")) {
		xlog("x");
		if ($tU != $null) $(avp(u)[*]) = $tU;
		else { record_route(); }
	} else if ($fd == "c") {
		$avp(s:u) = "c";
	} else t_relay();
	while ($var(i) > 0) { $var(i) = $var(i) - 1; }
	switch ($rU) { case "x": drop; break; default: exit; }
}`,
			open + aboutStateless + aboutCanceling + "\tif (" + notStateless + " && " + notCanceling + ") {\n" + `		# kamailio.cfg:6, request_route
		if (is_method("MESSAGE|NOTIFY") && ($fU == "a" || $fU=="b")) {
			if ($tU != $null) {
				$(avp(u)[*]) = $tU;
			}
		} else if ($fd == "c") {
			$avp(s:u) = "c";
		}
	}
}
`, 0,
		},
		{
			"what differs within a transaction is asked of the request",
			users + "route { route(USER); sip_trace_mode(\"t\"); }\nroute[USER] { if ($si == \"192.0.2.7\") $avp(u) = $rU; if (is_method(\"INVITE\")) $avp(t) = \"calls\"; }",
			request + `		# kamailio.cfg:6, route[USER]
		if ($si == "192.0.2.7") {
			$avp(u) = $rU;
		}
		# kamailio.cfg:6, route[USER]
		if (is_method("INVITE")) {
			$avp(t) = "calls";
		}
	}
}
`, 0,
		},
		{
			"the script ends before it",
			users + `route {
	if (has_totag()) { sip_trace("", "", "t"); if (loose_route()) { t_relay(); exit; } sl_send_reply("404", "No"); drop; }
	if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
	$avp(u) = $fU;
	if (is_method("OPTIONS")) exit;
	t_relay();
	exit;
}`,
			request + `		# kamailio.cfg:6, route
		if (has_totag()) {
			exit;
		}
		# kamailio.cfg:7, route
		if (is_method("CANCEL")) {
			exit;
		}
		# kamailio.cfg:8, route
		$avp(u) = $fU;
	}
}
`, 0,
		},
		{
			"a route returns before it, and calls another",
			users + `route { route(A); route(A); route(NONE); sip_trace_mode("d"); route(B); }
route[A] {
	if (has_totag()) return;
	if (is_method("REGISTER")) return(0);
	route(B);
	$avp(u) = $fU;
	if (is_method("PRACK")) return;
	xlog("done");
}
route[B] { if ($rU == "x") exit; break; $avp(u) = "never"; }
route[NONE] { xlog("none"); }`,
			request + `		# kamailio.cfg:5, route
		route(A_AVPS);
		# kamailio.cfg:5, route
		route(A_AVPS);
		# kamailio.cfg:5, route
		route(B_AVPS);
	}
}
route[A_AVPS] {
	# kamailio.cfg:7, route[A]
	if (has_totag()) {
		return;
	}
	# kamailio.cfg:8, route[A]
	if (is_method("REGISTER")) {
		return(0);
	}
	# kamailio.cfg:9, route[A]
	route(B_AVPS);
	# kamailio.cfg:10, route[A]
	$avp(u) = $fU;
}
route[B_AVPS] {
	# kamailio.cfg:14, route[B]
	if ($rU == "x") {
		exit;
	}
	# kamailio.cfg:14, route[B]
	break;
	# kamailio.cfg:14, route[B]
	$avp(u) = "never";
}
`, 0,
		},
		{
			"variables and flags that it asks for",
			users + `route {
	$var(who) = "user " + $fU;
	$var(none) = 1;
	if ($si == "192.0.2.1") setflag(5);
	setflag(6);
	if (isflagset(5)) $avp(u) = $var(who);
	sip_trace_mode("t");
}`,
			request + `		# kamailio.cfg:6, route
		$var(who) = "user " + $fU;
		# kamailio.cfg:8, route
		if ($si == "192.0.2.1") {
			setflag(5);
		}
		# kamailio.cfg:10, route
		if (isflagset(5)) {
			$avp(u) = $var(who);
		}
	}
}
`, 0,
		},
		{
			"switch and while",
			users + `route {
	$var(i) = 0;
	while ($var(i) < 3) { $var(i) = $var(i) + 1; if ($rU == "x") break; xlog("round"); }
	switch ($rm) {
		case "INVITE": $avp(u) = "call"; break;
		case "OPTIONS":
		case "REGISTER": xlog("x"); exit;
		default: $avp(t) = "x" + $var(i);
	}
	$avp(u) = "last";
	sip_trace_mode("t");
}`,
			request + `		# kamailio.cfg:6, route
		$var(i) = 0;
		# kamailio.cfg:7, route
		while ($var(i) < 3) {
			$var(i) = $var(i) + 1;
			if ($rU == "x") {
				break;
			}
		}
		# kamailio.cfg:8, route
		switch ($rm) {
		case "INVITE":
			$avp(u) = "call";
			break;
		case "OPTIONS":
		case "REGISTER":
			exit;
		default:
			$avp(t) = "x" + $var(i);
		}
		# kamailio.cfg:14, route
		$avp(u) = "last";
	}
}
`, 0,
		},
		{
			"sip_trace() takes the request before it",
			users + "route {\n\tif ($rU == \"x\") $avp(u) = \"a\";\n\tsip_trace();\n\t$avp(u) = \"late\";\n}\n",
			open + aboutRequests + aboutStateless + "\tif (" + newRequest + ") {\n\t\tkeep_trace(\"replies\");\n" + `		# kamailio.cfg:6, route
		if ($rU == "x") {
			$avp(u) = "a";
		}
		# kamailio.cfg:7, route
		exit; # sip_trace() takes the request as it is here
		# kamailio.cfg:8, route
		$avp(u) = "late";
	}
}
`, 0,
		},
		{
			"sip_trace() takes it if a flag is not set",
			users + "modparam(\"siptrace\", \"trace_flag\", 22)\nroute {\n\tif ($rU == \"x\") setflag(22);\n\tsip_trace();\n\t$avp(u) = \"late\";\n}\n",
			request + `		# kamailio.cfg:7, route
		if ($rU == "x") {
			setflag(22);
		}
		# kamailio.cfg:8, route
		if (!isflagset(22)) exit; # sip_trace() takes the request as it is here
		# kamailio.cfg:9, route
		$avp(u) = "late";
	}
}
`, 0,
		},
		{
			"after the event route's own",
			users + "modparam(\"siptrace\", \"trace_mode\", 3)\nroute { if (has_totag()) exit; $avp(u) = $fU; }\nevent_route[siptrace:msg] {\n\tif (is_method(\"OPTIONS\")) drop;\n}",
			open + "\tif (is_method(\"OPTIONS\")) drop;\n" + strings.TrimPrefix(request, open) + "\t\t# kamailio.cfg:6, route\n\t\tif (has_totag()) {\n\t\t\texit;\n\t\t}\n\t\t# kamailio.cfg:6, route\n\t\t$avp(u) = $fU;\n\t}\n}\n", 0,
		},
		{
			"several collectors",
			`modparam("siptrace", "duplicate_uri", "sip:192.0.2.1")
request_route {
	sip_trace();
	if (method == "REGISTER") sip_trace("sip:192.0.2.1", "$ci", "t");
	if (is_method("INVITE")) { sip_trace("sip:192.0.2.2", "", "t"); exit; }
	if (lookup("location")) sip_trace("sip:192.0.2.3", "", "t");
	if (is_method("BYE")) sip_trace("sip:192.0.2.2");
}
`,
			request + `		# kamailio.cfg:6, request_route
		if (method == "REGISTER") {
			sip_trace("sip:192.0.2.1");
		}
		# kamailio.cfg:7, request_route
		if (is_method("INVITE")) {
			sip_trace("sip:192.0.2.2");
			exit;
		}
		# kamailio.cfg:9, request_route
		if (is_method("BYE")) {
			sip_trace("sip:192.0.2.2");
		}
	}
}
`, 1,
		},
		{
			"duplicates by name only", // with the database on, sip_trace() alone brings none
			"route { sip_trace_mode(\"t\"); if ($rU == \"x\") sip_trace(\"sip:192.0.2.1\", \"\", \"t\"); }\n",
			request + "\t\t# kamailio.cfg:3, route\n\t\tif ($rU == \"x\") {\n\t\t\tsip_trace(\"sip:192.0.2.1\");\n\t\t}\n\t}\n}\n", 0,
		},
		{"beyond it", users + "route { $avp(u) = $sht(users=>$fU); if (lookup(\"location\")) $avp(t) = \"x\"; }", "", 2},
		{
			"what ends the script by a variable beyond it", users + "route { $var(x) = $sht(a=>b); if ($var(x) == 1) exit; $avp(u) = \"a\"; }",
			open + aboutStateless + aboutCanceling + "\tif (" + notStateless + " && " + notCanceling + ") {\n\t\t# kamailio.cfg:5, route\n\t\t$avp(u) = \"a\";\n\t}\n}\n", 0,
		},
		{
			"called where that can't be seen, and everywhere",
			users + "route { route(A); if (lookup(\"location\")) { route(A); } }\nroute[A] { $avp(u) = \"a\"; }",
			open + aboutStateless + aboutCanceling + "\tif (" + notStateless + " && " + notCanceling + ") {\n\t\t# kamailio.cfg:6, route[A]\n\t\t$avp(u) = \"a\";\n\t}\n}\n", 1,
		},
		{"by variables beyond it", users + "route { $var(x) = $sht(a=>b); $avp(u) = $var(x); $avp(t) = $avp(loaded); if ($rc == 1) $avp(t) = \"y\"; if (route(X)) $avp(t) = \"z\"; }", "", 4},
		{"in routes of replies and of nobody", users + "route { sip_trace(); }\nonreply_route[A] { $avp(u) = \"a\"; }\nroute[B] { $avp(u) = \"b\"; }", "", 2},
		{"a function may change it", users + "route { $var(x) = 1; sht_lock(\"a=>$var(x)\"); $avp(u) = \"x$var(x)\"; }", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustPlan(t, head+c.text)
			if p.route != "" {
				if err := compile(strings.TrimPrefix(p.route, open)); err != nil {
					t.Error(err)
				}
			}
			if p.route != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", p.route, c.want)
			}
			if len(p.left) != c.left {
				t.Errorf("%d statements left, want %d: %+v", len(p.left), c.left, p.left)
			}
		})
	}
}

// TestListen finds an address for siptraced that is not one of those around it.
func TestListen(t *testing.T) {
	for _, c := range []struct{ name, opt, text, want, err string }{
		{"default", "", "", "sip:127.0.0.1:9060", ""},
		{"homer is there", "", `modparam("siptrace", "duplicate_uri", "sip:localhost:9060;transport=tcp")`, "sip:127.0.0.1:9061", ""},
		{"named in a route", "", `route { sip_trace("sip:127.0.0.1:9060"); sip_trace("sip:u@[::1]:9061"); }`, "sip:127.0.0.1:9062", ""},
		{"the proxy is there", "", "listen=udp:0.0.0.0:9060", "sip:127.0.0.1:9061", ""},
		{"IPv6 only", "", "listen=udp:[2001:db8::1]:5060", "sip:[::1]:9060", ""},
		{"TCP only", "", "listen=tcp:192.0.2.1:5060", "sip:127.0.0.1:9060;transport=tcp", ""},
		{"elsewhere", "tcp:192.0.2.9:9060", `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")`, "sip:192.0.2.9:9060;transport=tcp", ""},
		{"itself", "udp:127.0.0.1:9070", `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9070")`, "", "mirror to itself"},
		{"every address", "udp:0.0.0.0:9060", "", "", "want udp:host:port"},
		{"over IPv6", "tcp:[2001:db8::9]:9060", "listen=tcp:[2001:db8::1]:5060", "sip:[2001:db8::9]:9060;transport=tcp", ""},
		{"a name", "udp:trace.example.com:9060", "listen=udp:[2001:db8::1]:5060", "sip:trace.example.com:9060", ""},
		{"no socket of that family", "udp:[2001:db8::9]:9060", "listen=udp:192.0.2.1:5060", "", "no socket of that transport and family"},
		{"no socket of that transport", "tcp:192.0.2.9:9060", "listen=udp:192.0.2.1:5060", "", "no socket of that transport and family"},
		{"both transports", "tcp:192.0.2.9:9060", "listen=192.0.2.1", "sip:192.0.2.9:9060;transport=tcp", ""},
		{"without TCP", "tcp:192.0.2.9:9060", "disable_tcp=yes\nlisten=192.0.2.1", "", "no socket of that transport and family"},
		{"no port", "udp:127.0.0.1", "", "", "want udp:host:port"},
		{"TLS", "tls:127.0.0.1:9060", "", "", "want udp:host:port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan(t, Options{Listen: c.opt}, map[string]string{"main": head + c.text})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.listen.uri(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestErrors are about configurations that can't be read, with their places.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"syntax", "loadmodule \"siptrace\"\nmodparam(\"siptrace\", \"trace_on\", )\n", "kamailio.cfg:2: "},
		{"missing file", head + "include_file \"no.cfg\"\n", "kamailio.cfg:3: can't read"},
		{"no such parameter", head + "modparam(\"siptrace\", \"trace_onn\", 1)\n", "kamailio.cfg:3: siptrace has no parameter \"trace_onn\": did you mean \"trace_on\"?"},
		{"wrong type", head + "modparam(\"siptrace\", \"hep_version\", \"3\")\n", "kamailio.cfg:3: hep_version"},
		{"no siptrace", "debug=2\n", "siptrace is not loaded"},
		{"parameters without the module", "debug=2\nmodparam(\"siptrace\", \"trace_on\", 1)\n", "kamailio.cfg:2: modparam(\"siptrace\", \"trace_on\") without loadmodule"},
		{"done already", head + marker + "\n", "kamailio.cfg:3: this has been migrated already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := plan(t, Options{}, map[string]string{"main": c.text})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestIncluded changes files where they lie.
func TestIncluded(t *testing.T) {
	p, err := plan(t, Options{}, map[string]string{
		"main":           head + "include_file \"sub/a.cfg\"\ninclude_file \"../other/b.cfg\"\ninclude_file \"sub/a.cfg\"\n",
		"sub/a.cfg":      "modparam(\"siptrace\", \"table\", \"x\")\n",
		"../other/b.cfg": "modparam(\"siptrace\", \"trace_mode\", 2)",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Dir, filepath.Dir(filepath.Dir(p.main)); got != want {
		t.Errorf("root %s, want %s", got, want)
	}
	var names []string
	for l := range strings.Lines(p.Patch()) {
		if name, ok := strings.CutPrefix(l, "+++ "); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	if want := []string{"etc/sub/a.cfg", "other/b.cfg"}; !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	if got := changed(t, p, "sub/a.cfg"); got[0] != '#' || strings.Contains(got, "table") {
		t.Errorf("sub/a.cfg:\n%s", got)
	}
	if got := changed(t, p, "../other/b.cfg"); got != "modparam(\"siptrace\", \"trace_mode\", 1)" {
		t.Errorf("other/b.cfg:\n%s", got)
	}
}

// TestCommandLine: what Kamailio has from its command line is in siptraced.yaml, which
// names the same kamailio.cfg.
func TestCommandLine(t *testing.T) {
	opt := Options{Kamailio: kamcfg.CommandLine{Defines: []string{"WITH_HOMER", `URI="sip:192.0.2.1:9060"`}, Listens: []string{"udp:192.0.2.2:5060"}, Version: "5.8.4"}}
	p, err := plan(t, opt, map[string]string{"main": "#!ifdef WITH_HOMER\n" + head + "modparam(\"siptrace\", \"duplicate_uri\", URI)\n#!endif\nroute { sip_trace(); }\n"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`defines: ["WITH_HOMER", "URI=\"sip:192.0.2.1:9060\""] # Kamailio's own -A`, `kamailio_listen: ["udp:192.0.2.2:5060"] # Kamailio's own -l`, `kamailio_version: "5.8.4"`,
	} {
		if !strings.Contains(p.YAML(), want+"\n") {
			t.Errorf("no %s in\n%s", want, p.YAML())
		}
	}
	if got := changed(t, p, "kamailio.cfg"); !strings.Contains(got, "modparam(\"siptrace\", \"duplicate_uri\", \"sip:127.0.0.1:9060\")\n") {
		t.Errorf("kamailio.cfg becomes\n%s", got)
	}
}

// TestNotes looks for what an operator has to be told.
func TestNotes(t *testing.T) {
	const users = "modparam(\"siptrace\", \"traced_user_avp\", \"$avp(u)\")\n"
	for _, c := range []struct{ name, text, want string }{
		{"password", `modparam("siptrace", "db_url", "mysql://u:secret@h/d")` + "\nroute { sip_trace(); }", "mysql://u:***@h/d"},
		{"flag", `modparam("siptrace", "trace_flag", 22)` + "\nroute { sip_trace(); }", "The flag of kamailio.cfg:3 is never in a message"},
		{"users from a database", users + `route { avp_db_load("$fu", "$avp(u)/x"); sip_trace(); }`, "avp_db_load(), kamailio.cfg:4"},
		{"users from nowhere", users, "no route assigns it"},
		{"users left", users + "route { $avp(u) = $sht(a=>b); }", "as the correlation id: sip_trace(\"\", VALUE"},
		{
			"what can't be seen ends the script before it", users + "route {\n\tif (!mf_process_maxfwd_header(\"10\")) {\n\t\tsl_send_reply(\"483\", \"Too many hops\");\n\t\texit;\n\t}\n\t$avp(u) = $fU;\n\tsip_trace();\n}\n",
			"kamailio.cfg:5 ends the way of some messages in route before an AVP is set for siptrace, and which these are siptraced can't work out: mf_process_maxfwd_header() is not known here",
		},
		{"routes that call each other", users + "route { route(A); sip_trace_mode(\"t\"); }\nroute[A] { if ($rU == \"x\") route(B); $avp(u) = \"a\"; }\nroute[B] { if (is_method(\"BYE\")) exit; route(A); }\n", "the routes call each other"},
		{"users of trace_mode", users + "modparam(\"siptrace\", \"trace_mode\", 3)\nroute { $avp(u) = \"x\"; }", "never sees the AVPs"},
		{
			"other collectors", "modparam(\"siptrace\", \"trace_to_database\", 0)\nmodparam(\"siptrace\", \"hep_mode_on\", 1)\nroute { sip_trace(\"sip:192.0.2.1\"); sip_trace(\"sip:192.0.2.2\"); sip_trace(\"$avp(d)\"); }",
			"past siptraced. They are sip:192.0.2.2 (kamailio.cfg:5), $avp(d) (kamailio.cfg:5). For their sake the proxy's hep_version stays 1.",
		},
		{"a collector that can't be told", `route { sip_trace("sip:192.0.2.1"); if (lookup("location")) sip_trace("sip:192.0.2.2"); }`, "kamailio.cfg:3 names a collector in route, and for which messages siptraced can't work out: lookup() can't be run"},
		{"several destinations", `route { sip_trace("sip:192.0.2.1"); sip_trace("sip:192.0.2.2"); }`, "sip:192.0.2.2 (kamailio.cfg:3)"},
		{"destination at run time", `route { sip_trace("$avp(d)"); }`, "works its address out"},
		{"no duplicates", `modparam("siptrace", "duplicate_uri", "sip:192.0.2.1")` + "\nroute { sip_trace(); }", "nothing went to sip:192.0.2.1"},
		{"on", "", "kamcmd siptrace.status on, off and check work as before (at start: on)"},
		{"off", "modparam(\"siptrace\", \"trace_on\", 0)", "kamcmd siptrace.status on, off and check work as before (at start: off)"},
		{"off but for users", users + "modparam(\"siptrace\", \"trace_on\", 0)", "siptraced rpc siptrace.status on"},
		{"flag without use", `modparam("siptrace", "trace_flag", 22)`, "of no effect, because no sip_trace() is called"},
		{"headers not read", `modparam("siptrace", "xheaders_read", 0)`, "xheaders_read (kamailio.cfg:3): off, in siptraced as well."},
		{"headers read", `modparam("siptrace", "xheaders_read", 1)`, "xheaders_read (kamailio.cfg:3): siptraced reads the headers."},
		{"nothing", "", "Nothing was stored, and nothing is"},
		{"nothing at all", "", "siptraced drops what it gets"},
		{"ACKs alone", "loadmodule \"sl.so\"", "are all that the module traces here"},
		{"ACKs alone are stored", "loadmodule \"sl.so\"", "Storing: siptraced writes the same table"},
		{"ACKs left out", "loadmodule \"sl.so\"\nmodparam(\"siptrace\", \"trace_sl_acks\", 0)", "Nothing was stored, and nothing is"},
		{"back", "", "patch -R -p0"},
		{"TLS only", "listen=tls:192.0.2.1:5061", "the proxy has none for tcp"},
		{"no TCP for big messages", "listen=udp:192.0.2.1:5060", "if the proxy has a TCP socket of that family"},
		{"TCP for big messages", "listen=udp:192.0.2.1:5060\nlisten=tcp:192.0.2.1:5060", "with --listen tcp:127.0.0.1:9060 it does.\n"},
		{"KEMI", "cfgengine \"lua\"", "KEMI script (lua)"},
		{"idle", "#!ifdef WITH_X\nmodparam(\"siptrace\", \"trace_mode\", 1)\n#!endif\n", "kamailio.cfg:4 is not in force"},
		{"advertised name", "listen=udp:192.0.2.1:5060 advertise sip.example.com:5060", "the name sip.example.com"},
		{"event route that never ran", "event_route[siptrace:msg] { drop; }", "never ran"},
		{"event route that stays", "modparam(\"siptrace\", \"trace_mode\", 1)\nevent_route[siptrace:msg] { $sht(a=>b) = 1; }", "stays in the proxy"},
		{"sip_trace_msg", `route { sip_trace_msg("x", "udp:192.0.2.1:5060", "udp:192.0.2.2:5060", "sip:192.0.2.3", ""); }`, "past siptraced"},
		{"source address", "listen=udp:192.0.2.1:5060 name \"out\"\nmodparam(\"siptrace\", \"send_sock_name\", \"out\")", "mirrors from sip:192.0.2.1:9061, because"},
		{"mixed sinks", "modparam(\"siptrace\", \"trace_mode\", 1)\nroute { sip_trace(); }", "can't tell the copies apart"},
	} {
		t.Run(c.name, func(t *testing.T) {
			notes := mustPlan(t, head+c.text).Notes()
			if !strings.Contains(notes, c.want) || strings.Contains(notes, "secret") {
				t.Errorf("want %q in:\n%s", c.want, notes)
			}
		})
	}
}

// FuzzRoutes cuts down any routes: without end or fault, to what siptraced can run.
func FuzzRoutes(f *testing.F) {
	f.Add(`route { if (has_totag()) { exit; } route(A); switch ($rm) { case "x": break; default: exit; } } route[A] { while ($var(i) < 3) { $var(i) = 1; } $avp(u) = $var(i); }`)
	f.Add(`route { if () { } $avp(u) = 1; case 1: } route[A] { route(A); else }`)
	f.Add(`route { sip_trace("sip:192.0.2.1"); if (isflagset(1)) return(0); setflag(1); sip_trace("sip:192.0.2.2", "", "t"); }`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4000 {
			return
		}
		cfg, err := kamcfg.ParseBytes("kamailio.cfg", []byte(text), kamcfg.Options{})
		if err != nil {
			return
		}
		p := &Plan{main: "kamailio.cfg", cfg: cfg, params: siptrace.DefaultParams(), set: map[string]kamcfg.Param{}, edits: map[string][]edit{}}
		p.params.TracedUserAVP, p.params.TraceTableAVP = "$avp(u)", "$avp(t)"
		p.readCalls()
		p.script = true
		p.destinations()
		p.readRoutes()
		if p.route == "" {
			return
		}
		if err := compile(strings.TrimPrefix(p.route, open)); err != nil {
			t.Errorf("%v in\n%s", err, p.route)
		}
	})
}

// FuzzUnified applies diffs of any edits.
func FuzzUnified(f *testing.F) {
	f.Add("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n", 2, 3, "x\n", 14, 16, "", 20, 20, "y")
	f.Add("a", 0, 1, "", 1, 1, "b", 1, 1, "c")
	f.Add("", 0, 0, "x\n", 0, 0, "y\n", 0, 0, "")
	f.Fuzz(func(t *testing.T, text string, a, b int, x string, c, d int, y string, e, g int, z string) {
		if len(text) > 10_000 || strings.Contains(text+x+y+z, "\r") {
			return
		}
		edits := []edit{{a, b, x}, {c, d, y}, {e, g, z}}
		at := 0
		var want strings.Builder
		for i, ed := range edits {
			if ed.from < at || ed.to < ed.from || ed.to > len(text) || i > 0 && ed.from == edits[i-1].from && ed.to > ed.from && edits[i-1].to > edits[i-1].from {
				return
			}
			want.WriteString(text[at:ed.from] + ed.text)
			at = ed.to
		}
		want.WriteString(text[at:])
		var diff strings.Builder
		unified(&diff, []byte(text), edits)
		if got := apply(t, text, diff.String()); got != want.String() {
			t.Errorf("got %q, want %q\n%s", got, want.String(), diff.String())
		}
	})
}
