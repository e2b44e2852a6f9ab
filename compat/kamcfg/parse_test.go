package kamcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// host has the interfaces of a small server.
func host() ([]Interface, error) {
	return []Interface{
		{"lo", []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}},
		{"eth0", []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("fe80::2%eth0")}},
		{"eth0.100", []netip.Addr{netip.MustParseAddr("::ffff:198.51.100.2")}},
	}, nil
}

func parse(t *testing.T, src string, opt Options) *Config {
	t.Helper()
	c, err := ParseBytes("kamailio.cfg", []byte(src), opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// siptraceParams are the lines for siptrace as "name=value", the last of each.
func siptraceParams(c *Config) map[string]string {
	m := map[string]string{}
	for _, p := range c.Params {
		if p.For("siptrace") {
			m[p.Name] = p.Value.String()
		}
	}
	return m
}

func diff(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func pairs(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}

// TestRecorded reads configurations that real proxies ran with.
func TestRecorded(t *testing.T) {
	common := map[string]string{
		"duplicate_uri": `"sip:127.0.0.1:15090"`, "hep_mode_on": "1", "hep_version": "3",
		"trace_on": "1", "trace_mode": "3",
	}
	tests := []struct {
		name   string
		params map[string]string // beside or instead of common; "" takes one away
		local  []string
		adv    string
		events []string
	}{
		{"advertise", nil, []string{"udp:127.0.0.1:15060"}, "203.0.113.7:5070", nil},
		{"data-mode-v614", map[string]string{"data_mode": "1"}, []string{"udp:127.0.0.1:15060"}, "203.0.113.7:5070", nil},
		{"event-route-drop", nil, []string{"udp:127.0.0.1:15060"}, "", []string{"siptrace:msg"}},
		{"hep2-tls", map[string]string{"hep_version": "2"}, []string{"udp:127.0.0.1:15060", "tcp:127.0.0.1:15060", "tls:127.0.0.1:15061"}, "", nil},
		{"hep3-ipv6-sink", map[string]string{"duplicate_uri": `"sip:[::1]:15090"`}, []string{"udp:[::1]:15060", "udp:127.0.0.1:15060"}, "", nil},
		{"hlog", map[string]string{"hep_capture_id": "2001", "trace_to_database": "0", "trace_on": "", "trace_mode": ""}, []string{"udp:127.0.0.1:15060"}, "", nil},
		{"traced-user-on", map[string]string{"traced_user_avp": `"$avp(s:tu)"`, "trace_flag": "22", "trace_to_database": "1", "trace_mode": ""}, []string{"udp:127.0.0.1:15060"}, "", nil},
		{"wildcard-listen", nil, []string{"udp:0.0.0.0:15060", "udp:127.0.0.1:15060", "udp:192.0.2.2:15060", "udp:198.51.100.2:15060"}, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse(filepath.Join("testdata/vectors", tt.name+".cfg"), Options{Interfaces: host})
			if err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(common)
			want["db_url"] = fmt.Sprintf("%q", "mysql://vec:vecpw@127.0.0.1:3306/vec_"+strings.ReplaceAll(tt.name, "-", "_"))
			for k, v := range tt.params {
				if want[k] = v; v == "" {
					delete(want, k)
				}
			}
			diff(t, "siptrace", pairs(siptraceParams(c)), pairs(want))
			diff(t, "local", c.Local(), tt.local)
			adv := ""
			if l := c.Listens[0]; l.AdvertiseHost != "" {
				adv = fmt.Sprintf("%s:%d", l.AdvertiseHost, l.AdvertisePort)
			}
			if adv != tt.adv {
				t.Errorf("advertise: got %q, want %q", adv, tt.adv)
			}
			var events []string
			for _, r := range c.EventRoutes {
				events = append(events, r.Name)
			}
			diff(t, "event routes", events, tt.events)
			if len(c.Notes) > 0 {
				t.Errorf("notes: %v", c.Notes)
			}
		})
	}
}

// TestOperator reads a configuration in several files that uses most of the
// language; "kamailio -c" of 5.6.3 takes it.
func TestOperator(t *testing.T) {
	c, err := Parse("testdata/operator/kamailio.cfg", Options{Interfaces: host})
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "siptrace", pairs(siptraceParams(c)), []string{
		`db_url="mysql://kamailio:s3cret@127.0.0.1/kamailio"`, `duplicate_uri="sip:127.0.0.1:9060"`,
		"hep_capture_id=2001", "hep_mode_on=1", "hep_version=3",
		`trace_local_ip="udp:203.0.113.7:5060"`, "trace_mode=1", "trace_on=1",
	})
	var places, listens, aliases, modules []string
	for _, p := range c.Params {
		places = append(places, fmt.Sprintf("%s %s", p.Pos, p.Name))
	}
	diff(t, "places", places, []string{
		"testdata/operator/siptrace.cfg:3 db_url", "testdata/operator/siptrace.cfg:6 duplicate_uri",
		"testdata/operator/siptrace.cfg:7 trace_on", "testdata/operator/siptrace.cfg:9 trace_mode",
		"testdata/operator/siptrace.cfg:10 hep_mode_on", "testdata/operator/siptrace.cfg:11 hep_version",
		"testdata/operator/siptrace.cfg:12 hep_capture_id", "testdata/operator/siptrace.cfg:13 trace_local_ip",
		"testdata/operator/siptrace.cfg:14 trace_mode",
	})
	for _, l := range c.Listens {
		listens = append(listens, fmt.Sprintf("%d %s:%s:%d %s:%d %s", l.Pos.Line, l.Proto, l.Host, l.Port, l.AdvertiseHost, l.AdvertisePort, l.Name))
	}
	diff(t, "listens", listens, []string{
		"27 udp:127.0.0.1:5060 203.0.113.7:5060 public", "28 tcp:127.0.0.1:5060 203.0.113.7:0 ", "35 udp:::1:5062 :0 ",
	})
	for _, a := range c.Aliases {
		aliases = append(aliases, fmt.Sprintf("%s:%s:%d", a.Proto, a.Host, a.Port))
	}
	diff(t, "aliases", aliases, []string{":sip.example.com:0", ":pbx.example.com:0", "udp:example.net:5060"})
	for _, m := range c.Modules {
		modules = append(modules, m.Name)
	}
	diff(t, "modules", modules, []string{"tm", "sl", "pv", "xlog", "siputils", "textops", "siptrace"})
	diff(t, "files", c.Files, []string{
		"testdata/operator/kamailio.cfg", "testdata/operator/kamailio-local.cfg", "testdata/operator/siptrace.cfg",
		"testdata/operator/routes/trace.cfg", "testdata/operator/routes/drop.inc",
	})
	for name, want := range map[string]Value{
		"debug": {Int: 2, IsInt: true}, "log_stderror": {IsInt: true}, "log_facility": {Str: "LOG_LOCAL0"},
		"fork": {Int: 1, IsInt: true}, "mycfg.timeout": {Int: 30, IsInt: true},
		"server_header": {Str: "Server: a # that is no comment, // nor is this"},
	} {
		if g, ok := c.Global(name); !ok || g.Value != want {
			t.Errorf("%s: got %v, want %v", name, g.Value, want)
		}
	}

	r, ok := c.EventRoute("siptrace:msg")
	if !ok {
		t.Fatal("no event_route[siptrace:msg]")
	}
	var got []string
	for _, k := range r.Tokens {
		at := fmt.Sprintf("%s:%d", filepath.Base(k.Pos.File), k.Pos.Line)
		text := k.Text
		if k.Kind == String {
			text = quote(text)
		}
		if n := len(got); n > 0 && strings.HasPrefix(got[n-1], at+" ") {
			if !k.Adjoins {
				text = " " + text
			}
			got[n-1] += text
		} else {
			got = append(got, at+" "+text)
		}
	}
	diff(t, "event route", got, []string{
		`trace.cfg:9 if (is_method("OPTIONS|NOTIFY") &&`,
		`trace.cfg:10 $ua =~ "^203.0.113.7") {`,
		`drop.inc:2 drop;`,
		`trace.cfg:12 }`,
		`trace.cfg:13 $var(n) = 1 + 1;`,
		`trace.cfg:14 xlog("L_DBG", "kept 203.0.113.7\n"`,
		`trace.cfg:15 );`,
		`trace.cfg:19 return;`,
	})
	if r.Pos.Line != 7 {
		t.Errorf("event route at line %d, want 7", r.Pos.Line)
	}
}

// TestDebianSamples reads the configurations that Debian's package kamailio
// 5.6.3-2 installs. Those that Kamailio itself refuses before it comes to modules are
// refused here for the same reason.
func TestDebianSamples(t *testing.T) {
	const main, samples = "/etc/kamailio/kamailio.cfg", "/usr/share/doc/kamailio/examples"
	refused := map[string]string{
		"ims/icscf/kamailio.cfg":       ":19: can't read the included file",
		"ims/scscf/kamailio.cfg":       ":35: can't read the included file",
		"kemi/kamailio-basic-kemi.cfg": ":414: can't read the included file",
		"pkg/sip-router-basic.cfg":     ":121: #!endif without #!ifdef",
		"pkg/sip-router-oob.cfg":       ":1718: #!ifdef WITH_XMLRPC is never closed",
	}
	files := []string{main}
	err := filepath.WalkDir(samples, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".cfg" {
			files = append(files, path)
		}
		return err
	})
	if _, statErr := os.Stat(main); statErr != nil || err != nil || len(files) < 10 {
		t.Fatalf("the samples of Debian's package kamailio are not installed (apt install kamailio, and don't exclude /usr/share/doc): %v %v", statErr, err)
	}
	for _, f := range files {
		name, _ := filepath.Rel(samples, f)
		_, err := Parse(f, Options{CommandLine: CommandLine{Version: "5.6.3"}})
		switch want := refused[name]; {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (err == nil || !strings.HasPrefix(err.Error(), f+want)):
			t.Errorf("%s: got error %v, want %s", name, err, want)
		}
	}
}

func TestParseMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kamailio.cfg")
	_, err := Parse(path, Options{})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, fs.ErrNotExist) || e.Pos != (Pos{File: path}) {
		t.Errorf("got %v", err)
	}
}

func TestModparam(t *testing.T) {
	defs := "#!define A abc\n"
	tests := []struct {
		name, src string
		module    string // that it is for
		want      Value
		err       string
	}{
		{"string", `modparam("m", "p", "v")`, "m", Value{Str: "v"}, ""},
		{"single quotes", `modparam('m', 'p', 'v\n')`, "m", Value{Str: `v\n`}, ""},
		{"empty string", `modparam("m", "p", "")`, "m", Value{}, ""},
		{"integer", `modparam("m", "p", 12)`, "m", Value{Int: 12, IsInt: true}, ""},
		{"negative", `modparam("m", "p", -1)`, "m", Value{Int: -1, IsInt: true}, ""},
		{"hexadecimal", `modparam("m", "p", 0xAb)`, "m", Value{Int: 0xab, IsInt: true}, ""},
		{"all bits", `modparam("m", "p", 0xffffffff)`, "m", Value{Int: -1, IsInt: true}, ""},
		{"octal", `modparam("m", "p", 010)`, "m", Value{Int: 8, IsInt: true}, ""},
		{"binary", `modparam("m", "p", 101b)`, "m", Value{Int: 5, IsInt: true}, ""},
		{"yes", `modparam("m", "p", yes)`, "m", Value{Int: 1, IsInt: true}, ""},
		{"enable", `modparam("m", "p", enable)`, "m", Value{Int: 1, IsInt: true}, ""},
		{"off", `modparam("m", "p", off)`, "m", Value{IsInt: true}, ""},
		{"space and semicolon", "modparam  (\n\"m\" , \"p\" , 1 ) ;", "m", Value{Int: 1, IsInt: true}, ""},
		{"comments inside", "modparam(\"m\", # x\n\"p\", /* , */ 1)", "m", Value{Int: 1, IsInt: true}, ""},
		{"joined strings", "modparam(\"m\", \"p\", \"a\"\n \"b\")", "m", Value{Str: "ab"}, ""},
		{"list of modules", `modparam("l|m", "p", 1)`, "m", Value{Int: 1, IsInt: true}, ""},
		{"pattern of modules", `modparam("m.*", "p", 1)`, "mno", Value{Int: 1, IsInt: true}, ""},
		{"plain modparam leaves variables", `modparam("m", "p", "$def(A)")`, "m", Value{Str: "$def(A)"}, ""},
		{"modparamx", `modparamx("m", "p", "x$def(A)$(env(HOME))$$")`, "m", Value{Str: "xabc/root$"}, ""},

		{"YES is no boolean", `modparam("m", "p", YES)`, "", Value{}, `unexpected "YES" where a string or a number should be`},
		{"too large", `modparam("m", "p", 2147483648)`, "", Value{}, "2147483648: number doesn't fit 32 bits"},
		{"bare word", `modparam("m", "p", abc)`, "", Value{}, "#!define"},
		{"expression", `modparam("m", "p", 1+1)`, "", Value{}, `unexpected "+"`},
		{"unquoted module", `modparam(m, "p", 1)`, "", Value{}, "put it in quotes"},
		{"unquoted parameter", `modparam("m", p, 1)`, "", Value{}, "put it in quotes"},
		{"two arguments", `modparam("m", "p")`, "", Value{}, "modparam has too few arguments"},
		{"one argument", `modparam("m")`, "", Value{}, "modparam has too few arguments"},
		{"four arguments", `modparam("m", "p", 1, 2)`, "", Value{}, "modparam has too many arguments"},
		{"no parenthesis", `modparam "m"`, "", Value{}, "unexpected string after modparam"},
		{"not closed", "modparam(\"m\", \"p\", 1\n\nfork=no", "", Value{}, ":2: parenthesis of modparam is never closed"},
		{"strings that don't join", `modparam("m", "p", 'a' "b")`, "", Value{}, "only strings in double quotes"},
		{"bad pattern", `modparam("m(", "p", 1)`, "", Value{}, `not a regular expression; separate names by |`},
		{"capital letters", `MODPARAM("m", "p", 1)`, "", Value{}, "did you mean modparam?"},
	}
	env := func(name string) (string, bool) { return "/root", name == "HOME" }
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseBytes("kamailio.cfg", []byte(defs+tt.src), Options{Env: env})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p := c.Params[0]; p.Value != tt.want || p.Name != "p" || !p.For(tt.module) || p.For("n") || p.For("xm") {
				t.Errorf("got %+v, want %v for %s", p, tt.want, tt.module)
			}
		})
	}
}

func TestModparamxUnresolved(t *testing.T) {
	for _, v := range []string{"$env(NO)", "$var(x)", "$ci", "$(env(HOME){s.nosuch})"} {
		c := parse(t, `modparamx("m", "p", "a`+v+`")`, Options{Env: func(string) (string, bool) { return "", false }})
		if p := c.Params[0]; p.Unresolved == nil || p.Value.Str != "a"+v {
			t.Errorf("%s: got %q, %v", v, p.Value.Str, p.Unresolved)
		}
	}
}

// TestErrors has one row for each mistake at the level of statements and files.
func TestErrors(t *testing.T) {
	tests := []struct{ name, src, want string }{
		{"string", "fork=no\nlog_name=\"x\n\n", `kamailio.cfg:2: string is never closed; close it with "`},
		{"string in single quotes", "log_name='x\"", `kamailio.cfg:1: string is never closed; close it with '`},
		{"string closed by the next one", "modparam(\"m\", \"p\", \"v)\nmodparam(\"m\", \"q\", 1)\n", `:2: string is never closed; close it with ", or the one at kamailio.cfg:1, which goes over more than one line`},
		{"string closed by another", "modparam(\"m\", \"p\", \"v)\nlog_name=\"x\"\"\n", ":1: parenthesis of modparam is never closed; the string at kamailio.cfg:1 goes over more than one line: is its closing quote missing?"},
		{"comment", "/* a /* b */\nfork=no", ":1: comment is never closed; close it with */ (comments nest)"},
		{"variable", "route { $var(x; }", ":1: variable is never closed"},
		{"block", "route {\n if (1) {\n}\n", ":1: block of route is never closed"},
		{"block before the next", "route[A] {\n if (1) {\n}\n\nroute[B] { exit; }\n", ":1: block of route is not closed where the next one begins (kamailio.cfg:5)"},
		{"one brace too many", "route {\n}}\n", `:2: unexpected "}" where a statement should begin; a block above has one closing brace too many`},
		{"block without brace", "route exit;", `:1: unexpected "exit" where the block of route should begin`},
		{"name of a block", "route[A { exit; }", ":1: name of the route is never closed"},
		{"unknown block", "local_route { exit; }", "the blocks are route, request_route"},
		{"misspelt block", "reqest_route { exit; }", "did you mean request_route?"},
		{"event route without name", "event_route { exit; }", "write event_route[module:event]"},
		{"event route, bracket", "event_route[siptrace:msg { exit; }\n", "name of the event route is never closed"},
		{"event route, space", "event_route[siptrace : msg] { exit; }", "write it without space"},
		{"event route twice", "event_route[a:b] { exit; }\nevent_route[a:b] { exit; }", ":2: event_route[a:b] is already at kamailio.cfg:1"},
		{"misspelt statement", "\nloadmodul \"x\"", ":2: unexpected string after loadmodul; did you mean loadmodule?"},
		{"unknown statement", "frobnicate \"secret\"", ":1: unexpected string after frobnicate; write name=value"},
		{"no statement", "fork=no\n+", `:2: unexpected "+" where a statement should begin`},
		{"value missing", "fork=;", "where the value of fork should be"},
		{"value at the end", "fork=", "unexpected end of the file"},
		{"value too large", "children=99999999999", "number doesn't fit 32 bits"},
		{"port", "port=70000", "port is not one; ports are 1 to 65535"},
		{"loadmodule", "loadmodule tm", `write loadmodule "name.so"`},
		{"loadmodule, parenthesis", "loadmodule(\"tm\"\nfork=no", ":1: parenthesis of loadmodule is never closed"},
		{"loadmodule, options", `loadmodule("tm", g)`, "options of loadmodule are a string"},
		{"include_file", "include_file \"not-there.cfg\"", ":1: can't read the included file: open not-there.cfg"},
		{"include_file, quotes", "include_file 'a.cfg'", "include_file wants a file name in double quotes"},
		{"include_file, parenthesis", `include_file("a.cfg")`, "without parentheses"},
		{"include_file, line", "include_file \"a.cfg\n\"", "file name after include_file is never closed"},
		{"include of itself", "\ninclude_file \"self.cfg\"", "self.cfg:2: files include each other more than 10 deep; does a file include itself?"},
		{"unreadable import", "import_file \"secret.cfg\"", ":1: can't read the included file: permission denied; make it readable for siptraced"},
		{"error in an included file", "include_file \"bad.cfg\"", "bad.cfg:3: unexpected"},
		{"string not closed in an included file", "include_file \"open.cfg\"\n\"", "open.cfg:1: string is never closed"},
	}
	files := map[string]string{
		"self.cfg": "\nimport_file \"self.cfg\"", "bad.cfg": "\n\n)", "open.cfg": "log_name=\"x",
	}
	read := func(name string) ([]byte, error) {
		if s, ok := files[name]; ok {
			return []byte(s), nil
		}
		if name == "secret.cfg" {
			return nil, fs.ErrPermission
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseBytes("kamailio.cfg", []byte(tt.src), Options{ReadFile: read})
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("\n got %v\nwant %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret\"") {
				t.Errorf("error repeats a string: %v", err)
			}
		})
	}
	_, err := ParseBytes("kamailio.cfg", nil, Options{CommandLine: CommandLine{Version: "five"}})
	if err == nil || !strings.Contains(err.Error(), "--kamailio-version five: the version of Kamailio is malformed") {
		t.Errorf("version: got %v", err)
	}
}

// TestBounds: nothing that a file can say costs more than its bounds.
func TestBounds(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("#!define X0 \"lol\"\n")
	for i := range 40 {
		fmt.Fprintf(&bomb, "#!define X%d X%d X%d\n", i+1, i, i)
	}
	tests := []struct{ name, src, want string }{
		{"define of itself", "#!define X X\nalias=X", ":2: define X contains itself"},
		{"defines of each other", "#!define X a Y\n#!define Y X\nalias=X", ":3: define X contains itself"},
		{"defines that double", bomb.String() + "alias=X40", "too much to put in for define"},
		{"substitution that doubles", strings.Repeat("#!subst '/[a]/aa/g'\n", 40) + "alias='a'", "string grows beyond"},
		{"substitution that grows", "#!subst '/a/" + strings.Repeat("b", 2000) + "/g'\nalias='" + strings.Repeat("a", 100) + "'", "string grows beyond"},
		{"directive of subst", "#!subst '/a/" + strings.Repeat("b", maxSubst) + "/'", "string of #!subst has 2052 bytes"},
		{"work of substitutions", strings.Repeat("#!subst '/(x{500})?y/z/'\n", 100) + strings.Repeat("alias='"+strings.Repeat("a", 50000)+"'\n", 20), "too much work"},
		{"substitutions", strings.Repeat("#!subst '/a/b/'\n", maxSubsts+1), "more than 256 substitutions"},
		{"string", "alias='" + strings.Repeat("a", maxString+1) + "'", "string is longer than"},
		{"variable", "route { $(" + strings.Repeat("a", maxString+1), "variable is longer than"},
		{"name", strings.Repeat("a", maxString+2), "name is longer than"},
		{"directive", "#!define X " + strings.Repeat("a", maxString+2), "directive is longer than"},
		{"file", strings.Repeat(" ", maxBytes+1), "more than 4194304"},
		{"includes", strings.Repeat("include_file \"empty.cfg\"\n", maxFiles+1), "more than 1000 files"},
		{"text", "#!define X " + strings.Repeat("aaaaaaaaa ", maxString/11) + "\nflags a " + strings.Repeat("X\n", 100), "the configuration is longer than"},
	}
	read := func(string) ([]byte, error) { return nil, nil }
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseBytes("kamailio.cfg", []byte(tt.src), Options{ReadFile: read})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.200v, want %s", err, tt.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	known := []string{"db_url", "table", "trace_on", "trace_mode", "hep_mode_on", "traced_user_avp"}
	for name, want := range map[string]string{
		"tabel": "table", "trace_onn": "trace_on", "Trace_On": "trace_on", "dburl": "db_url",
		"trace_user_avp": "traced_user_avp", "xyz": "", "": "", strings.Repeat("x", 1000): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("Nearest(%.20q) = %q, want %q", name, got, want)
		}
	}
}
