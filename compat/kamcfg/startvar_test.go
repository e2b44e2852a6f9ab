package kamcfg

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func startOptions() Options {
	env := map[string]string{"SET": "val", "NUMBER": "7", "EMPTY": ""}
	return Options{
		Env:      func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: mapFiles(map[string]string{"role-5.6.cfg": "alias=included\n"}),
		HostName: func(part string) (string, error) {
			v, ok := map[string]string{"n": "vm", "f": "vm.example.com", "d": "example.com", "i": "192.0.2.2"}[part]
			if !ok {
				return "", errors.New("write n, f, d or i")
			}
			return v, nil
		},
		Transform: func(text, transformation string) (string, error) {
			if transformation != "{s.len}" {
				return "", errors.New("it is not known")
			}
			return fmt.Sprint(len(text)), nil
		},
		Interfaces: host,
	}
}

const variableDefs = "#!define D q\n#!define L a1b2\n#!define N 7\n#!define E\n#!define Q \"str val\"\n"

// variableFacts is a table of facts: what Kamailio 5.6.3 with pv, textops and ipops
// makes of a variable in #!substdef, first within a string, then by itself. unknown is
// what we don't know.
var variableFacts = []struct{ name, repl, inString, alone, unknown string }{
	{"version", "$version(num)", "5.6.3", "5.6.3", ""},
	{"version and text", "$version(num){s.len}", "5.6.3{s.len}", "5.6.3{s.len}", ""},
	{"major and minor", `$(version(num){re.subst,/^(([^\.])*\.([^\.])*)\..*/\1/})x`, "5.6x", "5.6x", ""},
	{"two transformations", "$(version(num){re.subst,/[.].*//}{s.len})", "1", "1", ""},
	{"and space between", "$(version(num){s.len} {s.len})", "1", "1", ""},
	{"flags of a transformation", "$(def(D){re.subst,/Q/zz/i})", "zz", "zz", ""},
	{"host", "$HN(n)", "vm", "vm", ""},
	{"host with domain", "$HN(f)", "vm.example.com", "vm.example.com", ""},
	{"domain", "$HN(d)", "example.com", "example.com", ""},
	{"address", "$HN(i)", "192.0.2.2", "192.0.2.2", ""},
	{"define", "<$def(D)$(def(D))>", "<qq>", "<qq>", ""},
	{"define with quotes", "$def(Q)", `"str val"`, `"str val"`, ""},
	{"define without value", "a$def(E)b", "ab", "ab", ""},
	{"not defined", "a$def(NOSUCH)b", "ab", "a<null>b", ""},
	{"not defined, transformed", "a$(def(NOSUCH){s.len})b", "ab", "ab", ""},
	{"number", "$defn(N)", "7", "7", ""},
	{"number, not defined", "$defn(NOSUCH)", "0", "0", ""},
	{"number, with quotes", "$defn(Q)", `"str val"`, `"str val"`, ""},
	{"value without quotes (since 6.0)", "$defv(Q)$defv(D)", "str valq", "str valq", ""},
	{"environment", "$env(SET)$(env(SET))$envn(NUMBER)", "valval7", "valval7", ""},
	{"empty in the environment", "a$env(EMPTY)b", "ab", "ab", ""},
	{"dollar", "a$$b", "a$b", "a$b", ""},
	{"text behind", "$def(D).x$def(D)(x)$(def(D))x", "q.xq(x)qx", "q.xq(x)qx", ""},
	{"parentheses in a name", "a$def(a(b)c)b", "ab", "a<null>b", ""},

	// Kamailio knows these; it takes a message of its own for those of messages.
	{"not in the environment", "a$env(NOSUCH)b", "a$env(NOSUCH)b", "a$env(NOSUCH)b", "$env(NOSUCH) has no value here; set the environment variable for siptraced"},
	{"variable", "$var(x)", "$var(x)", "$var(x)", "$var(x) has no value here; its value is known only within Kamailio"},
	{"of a message", "$ci-$rU", "$ci-$rU", "$ci-$rU", "$ci has no value here"},
	{"index", "$(avp(x)[0])", "$(avp(x)[0])", "$(avp(x)[0])", "$(avp(x)[0]) has no value here"},
	{"other transformation", "$(def(D){s.nosuch})", "$(def(D){s.nosuch})", "$(def(D){s.nosuch})", "$(def(D){s.nosuch}) has no value here; {s.nosuch} is not known here: it is not known"},
	{"bad transformation", "$(def(D){re.subst,/(/})", "$(def(D){re.subst,/(/})", "$(def(D){re.subst,/(/})", "{re.subst} has no third separator"},
	{"part of the host's name", "$HN(x)", "$HN(x)", "$HN(x)", "$HN(x) has no value here; write n, f, d or i"},
	{"part of the version", "$version(x)", "$version(x)", "$version(x)", "$version(x) has no value here"},
}

func TestStartVariables(t *testing.T) {
	for _, tt := range variableFacts {
		t.Run(tt.name, func(t *testing.T) {
			repl := strings.ReplaceAll(tt.repl, `\`, `\\`)
			c := parse(t, variableDefs+"#!substdefs \"!FOO!"+repl+"!g\"\nlog_name=\"<FOO>\"\nalias=FOO\n#!substdef '!BAR!"+tt.repl+"!'\n", startOptions())
			g, _ := c.Global("log_name")
			if g.Value.Str != "<"+tt.inString+">" {
				t.Errorf("in a string: got %q, want %q", g.Value.Str, tt.inString)
			}
			if got, known := c.Defines["BAR"]; known != (tt.unknown == "") || known && got != tt.alone {
				t.Errorf("alone: got %q, want %q", got, tt.alone)
			}
			got := ""
			if g.Value.Unresolved != nil {
				got = g.Value.Unresolved.Error()
			}
			if (got == "") != (tt.unknown == "") || !strings.Contains(got, strings.Split(tt.unknown+"; ", "; ")[0]) && !strings.Contains(got, tt.unknown) {
				t.Errorf("unresolved: got %q, want %q", got, tt.unknown)
			}
			if tt.unknown != "" && !strings.Contains(fmt.Sprint(c.Notes), "is refused only where a parameter of siptrace, a listen line or an include needs it") {
				t.Errorf("got notes %v", c.Notes)
			}
		})
	}
}

// TestVariablesLater: a variable is evaluated where the substitution is put to use,
// and for the define of #!substdef at once.
func TestVariablesLater(t *testing.T) {
	c := parse(t, "#!subst \"/FOO/<$def(X)>/g\"\n#!substdef \"!BAR!<$def(X)>!g\"\nlog_name=\"FOO BAR\"\n#!define X abc\nlog_prefix=\"FOO BAR\"", Options{})
	before, _ := c.Global("log_name")
	after, _ := c.Global("log_prefix")
	if before.Value.Str != "<> <>" || after.Value.Str != "<abc> <abc>" || c.Defines["BAR"] != "<<null>>" {
		t.Errorf("got %q, %q, %q", before.Value.Str, after.Value.Str, c.Defines["BAR"])
	}
	if len(c.Notes) != 2 || c.Notes[0].String() != "kamailio.cfg:2: $def(X): X is not defined here; Kamailio puts nothing for it, or <null>" {
		t.Errorf("got notes %v", c.Notes)
	}
}

// TestUnresolved: what isn't known is refused where we need it, and nowhere else.
func TestUnresolved(t *testing.T) {
	const defs = "#!substdef \"!ADDR!$env(NOSUCH)!g\"\n#!substdefs \"!TEXT!a$var(x)b!g\"\n#!substdef \"!MAJOR!$(version(num){re.subst,/^([0-9]+[.][0-9]+).*/\\\\1/})!g\"\n"
	for _, tt := range []struct{ name, src, err string }{
		{"nowhere", "", ""},
		{"alias", "alias=ADDR alias=ADDR:5060 alias=x:ADDR alias=\"ADDR:SIP_PORT\" alias=udp:ADDR alias=TEXT fork=no", ""},
		{"other module", `modparam("dispatcher", "db_url", "mysql://ADDR/x") modparam("acc", "flag", ADDR) modparam("acc", "text", TEXT)` + "\n" + `modparamx("acc", "x", "ADDR $ci") modparamx("acc", "x", $var(x)) modparamx("$env(NOSUCH)", "x", 1)`, ""},
		{"module's name", `loadmodule "ADDR.so" loadmodulex "$env(NOSUCH).so" modparam("ADDR", "trace_on", 1)`, ""},
		{"global", "server_header=TEXT user_agent_header=\"x ADDR\" server_id=ADDR\ncustom.addr=ADDR:5060 desc \"x\"\ncustom.other=ADDR.example.com fork=no", ""},
		{"route", `route { $var(a) = ADDR; $var(b) = "ADDR"; xlog("TEXT"); if (ADDR == 1) { exit; } }`, ""},
		{"condition", "#!ifdef ADDR\n#!endif\n#!ifexp ADDR == \"x\"\nalias=\n#!endif\n", ""},
		{"expression left out", "#!subst \"/ADDR/x/\"\n", ""},
		{"transformation of it", "#!substdef \"!X!$(def(ADDR){s.len})!\"\nalias=\"X\"", ""},
		{"transformation by it", "#!substdef \"!X!$(def(MAJOR){re.subst,/ADDR/x/})!\"\nalias=\"X\"", ""},
		{"known include", `include_file "role-MAJOR.cfg"`, ""},

		{"siptrace", "\n" + `modparam("siptrace", "duplicate_uri", "sip:ADDR:9060")`, "kamailio.cfg:5: parameter duplicate_uri of siptrace hangs on a variable: $env(NOSUCH) has no value here (kamailio.cfg:1); set the environment variable for siptraced as it is set for Kamailio"},
		{"siptrace, alone", `modparam("siptrace", "trace_on", ADDR)`, "kamailio.cfg:4: parameter trace_on of siptrace hangs on a variable: $env(NOSUCH)"},
		{"siptrace, define", "#!define URI \"sip:ADDR\"\n" + `modparam("siptrace", "duplicate_uri", URI)`, "kamailio.cfg:5: parameter duplicate_uri of siptrace hangs on a variable: $env(NOSUCH)"},
		{"siptrace, quoted define", `modparam("siptrace", "table", TEXT)`, "parameter table of siptrace hangs on a variable: $var(x) has no value here (kamailio.cfg:2); its value is known only within Kamailio"},
		{"siptrace, variable of a define", `modparamx("siptrace", "table", $def(TEXT))`, "$def(TEXT): $var(x) has no value here"},
		{"siptrace, changed by a substitution", "#!subst \"/[0-9]/x/g\"\n" + `modparam("siptrace", "table", "ADDR")`, "parameter table of siptrace hangs on a variable: $env(NOSUCH)"},
		{"siptrace and others", `modparam("acc|siptrace", "trace_on", ADDR)`, "parameter trace_on of acc|siptrace hangs on a variable"},
		{"parameter's name", `modparamx("siptrace", "$env(NOSUCH)", 1)`, "hangs on a variable: $env(NOSUCH) has no value here; set"},
		{"listen", "listen=udp:ADDR:5060", "kamailio.cfg:4: the address of listen hangs on a variable: $env(NOSUCH) has no value here (kamailio.cfg:1)"},
		{"listen in quotes", `listen=udp:"ADDR":5060`, "the address of listen hangs on a variable"},
		{"listen, list", `listen=udp:(127.0.0.1, ADDR):5060`, "the address of listen hangs on a variable"},
		{"listen, part of a name", "listen=udp:sip.ADDR:5060", "the address of listen hangs on a variable"},
		{"port", "listen=udp:127.0.0.1:ADDR", "the port hangs on a variable"},
		{"advertise", "listen=udp:127.0.0.1:5060 advertise ADDR:5060", "the address of advertise hangs on a variable"},
		{"socket", "socket={bind=udp:ADDR:5060}", "the address of bind hangs on a variable"},
		{"port=", "port=ADDR", "port, on which the sockets hang, hangs on a variable: $env(NOSUCH)"},
		{"include", `include_file "ADDR/x.cfg"`, "kamailio.cfg:4: the name of the included file hangs on a variable: $env(NOSUCH)"},
		{"import", `import_file "ADDR.cfg"`, "the name of the included file hangs on a variable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &Parser{Path: "kamailio.cfg", Options: startOptions()}
			_, err := p.Unmarshal([]byte(defs + tt.src))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %s", err, tt.err)
			}
		})
	}
}

// TestUnresolvedTokens: a compiler of routes sees which text isn't known.
func TestUnresolvedTokens(t *testing.T) {
	c := parse(t, "#!substdef \"!ADDR!$env(NOSUCH)!g\"\nevent_route[siptrace:msg] { if ($si == ADDR) drop; $var(x) = \"sip:ADDR\"; }", startOptions())
	var got []string
	for _, k := range c.EventRoutes[0].Tokens {
		if k.Unresolved != nil {
			got = append(got, k.Text+": "+k.Unresolved.Error())
		}
	}
	const why = "kamailio.cfg:1: $env(NOSUCH) has no value here; set the environment variable for siptraced as it is set for Kamailio"
	diff(t, "tokens", got, []string{"$env(NOSUCH): " + why, "sip:$env(NOSUCH): " + why})
}

// TestModparamx: what a variable becomes there, by itself and within a string.
func TestModparamx(t *testing.T) {
	const defs = "#!define D q\n#!define N 7\n#!define Q \"str val\"\n#!define M $$x\n"
	for _, tt := range []struct {
		value string
		want  Value
		err   string
	}{
		{"$defn(N)", Value{Int: 7, IsInt: true}, ""},
		{"$(defn(N))", Value{Int: 7, IsInt: true}, ""},
		{"$defn(NOSUCH)", Value{IsInt: true}, ""},
		{"$defn(D)", Value{IsInt: true}, ""},
		{"$def(N)", Value{Str: "7"}, ""},
		{"$def(Q)", Value{Str: `"str val"`}, ""},
		{"$defv(Q)", Value{Str: "str val"}, ""},
		{"$def(M)", Value{Str: "$$x"}, ""},
		{"$env(SET)", Value{Str: "val"}, ""},
		{"$envn(NUMBER)", Value{Int: 7, IsInt: true}, ""},
		{"$(def(D){s.len})", Value{Str: "1"}, ""},
		{`"$def(N)"`, Value{Str: "7"}, ""},
		{`"a$def(NOSUCH)b"`, Value{Str: "a<null>b"}, ""},
		{"1", Value{Int: 1, IsInt: true}, ""},
		{"N", Value{Int: 7, IsInt: true}, ""},
		{"$def(NOSUCH)", Value{}, "$def(NOSUCH) has no value, and Kamailio refuses that here; define it further up"},
		{"$ci", Value{}, `unexpected "$ci"`},
		{"$(def(D){s.len)", Value{}, `unexpected`},
	} {
		t.Run(tt.value, func(t *testing.T) {
			c, err := ParseBytes("kamailio.cfg", []byte(defs+`modparamx("m", "p", `+tt.value+`)`), startOptions())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Params[0].Value; got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	// What is defined further down doesn't count, nor what it is redefined as.
	c := parse(t, "#!define X a\nmodparamx(\"m\", \"p\", \"$def(X)$def(Y)\")\n#!define Y b\n#!redefine X c\nmodparamx(\"m\", \"p\", \"$def(X)$def(Y)\")\nloadmodulex \"$def(X).so\"\n#!redefine X d\n", startOptions())
	if got := c.Params[0].Value.Str + " " + c.Params[1].Value.Str + " " + c.Modules[0].Name + " " + c.Defines["X"]; got != "a<null> cb c d" {
		t.Errorf("defines over the file: got %s", got)
	}
	if _, err := ParseBytes("kamailio.cfg", []byte("modparamx(\"m\", \"p\", $def(X))\n#!define X a\n"), startOptions()); err == nil {
		t.Error("a define further down counts")
	}
	if _, err := ParseBytes("kamailio.cfg", []byte(`modparam("m", "p", $def(D))`), startOptions()); err == nil {
		t.Error("modparam takes a variable")
	}
}

// TestNUL: Kamailio's strings end there.
func TestNUL(t *testing.T) {
	c := parse(t, "alias=\"a\x00b\" alias=\"c\\x00d\" alias=\"e\\000f\" \"g\" alias='h\x00i'\n#!define X j\x00k\nalias=X alias=l\x00\x00", Options{})
	var got []string
	for _, a := range c.Aliases {
		got = append(got, a.Host)
	}
	if s := strings.Join(got, " "); s != "a c e h j l" {
		t.Errorf("got %q", s)
	}
}

// TestVariablesOften: what a variable costs is bounded, however often it is used.
func TestVariablesOften(t *testing.T) {
	opt, asked := startOptions(), 0
	opt.HostName = func(string) (string, error) { asked++; return "vm", nil }
	c := parse(t, "#!subst \"/a/$HN(f)/g\"\n#!subst \"/c/$env(NOSUCH)/g\"\n"+strings.Repeat("log_name=\"aac\"\n", 1000), opt)
	if asked != 1 {
		t.Errorf("the host's name is looked up %d times", asked)
	}
	if v := c.Globals[999].Value; v.Str != "vmvm$env(NOSUCH)" || len(c.Notes) != 1 {
		t.Errorf("got %+v, notes %.300v", v, c.Notes)
	}
	_, err := ParseBytes("kamailio.cfg", []byte("#!define D q\n#!subst \"!b!$(def(D){re.subst,/q/z/})!\"\n"+strings.Repeat("log_name=\"b\"\n", 17_000)), opt)
	if err == nil || !strings.Contains(err.Error(), "the substitutions are too much work") {
		t.Errorf("got %v", err)
	}
}
