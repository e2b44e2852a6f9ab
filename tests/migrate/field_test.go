package migrate

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"siptraced/tests/servers"
)

// field is a configuration in the manner of a real one, testdata/field/NAME, and
// what siptraced check says of it.
type field struct {
	name string
	args []string // what Kamailio is started with: -A, -l, by flags that both have
	// version is what only siptraced is told: this Kamailio is 5.6.3.
	version string
	env     []string
	err     string   // check refuses it with that
	values  []string // parameters, "name = value (place)"
	sockets string
	says    []string // notes and warnings
	silent  []string // what no note says
	// alone is why the verdict of Kamailio 5.6.3 isn't ours.
	alone string
}

const (
	newer   = "5.6.3 doesn't know that"
	loopUDP = "udp:127.0.0.1:5060"
)

var fields = []field{
	{
		name: "roles", sockets: loopUDP,
		values: []string{"trace_on = 0 (kamailio.cfg:19)", `duplicate_uri = "sip:127.0.0.1:9060" (kamailio.cfg:20)`, "hep_capture_id = 4242 (kamailio.cfg:23)"},
		says: []string{
			"kamailio.cfg:4: $(version(num){re.subst,", "is answered for Kamailio 5.6.3, because the version isn't given; --kamailio-version X.Y.Z",
			"kamailio.cfg:9: $def(KEEP_CACHE_PERIOD): KEEP_CACHE_PERIOD is not defined here", "trace_on is 0",
		},
	},
	{
		name: "modparamx", sockets: loopUDP,
		values: []string{"trace_on = 1 (kamailio.cfg:21)", "hep_mode_on = 1 (kamailio.cfg:22)", `duplicate_uri = "sip:10.20.30.40:9060" (kamailio.cfg:23)`, `table = "trace_1" (kamailio.cfg:24)`},
	},
	{name: "modparamx-quotes", err: `kamailio.cfg:15: duplicate_uri`, alone: "the module refuses such a URI later than -c"},
	{
		name: "ignored-methods", sockets: loopUDP,
		values: []string{"trace_mode = 1 (kamailio.cfg:21)"},
		says:   []string{"36      if ($rm =~ $sel(cfg_get.node.trace_ignored_methods))", "39      if (($sel(cfg_get.node.trace_internal) == 0)"},
	},
	{
		name: "empty-names", alone: newer, sockets: "udp:127.0.0.1:5060 advertise 203.0.113.10:5060, tcp:127.0.0.1:5060 advertise 203.0.113.10:5060",
		values: []string{`duplicate_uri = "sip:127.0.0.1:9060" (kamailio.cfg:33)`, "hep_capture_id = 1 (kamailio.cfg:36)"},
		silent: []string{"can't evaluate"},
	},
	{
		name: "expressions", alone: newer,
		values: []string{`duplicate_uri = "sip:hep-fra.example.net:9060" (kamailio.cfg:27)`},
		says: []string{
			"kamailio.cfg:3: #!ifexp counts as false, since Kamailio can't evaluate its expression: & is for numbers", "kamailio.cfg:6: #!ifexp counts as false",
			"kamailio.cfg:9: KAMAILIO_VERSION is answered for Kamailio 5.7.0",
		},
	},
	{
		name: "surplus-endif", sockets: loopUDP, values: []string{"trace_on = 1 (kamailio.cfg:22)"},
		says: []string{"kamailio.cfg:31: Kamailio warns at an #!endif without #!ifdef, and goes on", "kamailio.cfg:35: #!ifdef WITH_RATING is never closed; Kamailio counts the #!endif at"},
	},
	{name: "surplus-endif-alone", err: "kamailio.cfg:2: #!endif without #!ifdef"},
	{
		name: "gateway", args: []string{"-l", "udp:127.0.0.1:5061", "-A", "WITH_HOMER", "-A", `HEPURI="sip:127.0.0.1:9062"`}, sockets: "udp:127.0.0.1:5061",
		values: []string{`duplicate_uri = "sip:127.0.0.1:9062" (kamailio.cfg:18)`},
	},
	{
		name: "gateway-without",
		says: []string{"siptrace is not loaded in ", "It is loaded at ", "kamailio.cfg:17 only within #!ifdef WITH_HOMER: if Kamailio is started with that (-A), say so here too: --define WITH_HOMER"},
	},
	{name: "gateway-half", args: []string{"-A", "WITH_HOMER"}, err: `kamailio.cfg:18: unexpected "HEPURI" where a string or a number should be; put a string in quotes; a name is taken only if it is defined, by #!define further up or by --define`},
	{name: "gateway-twice", args: []string{"-A", "WITH_HOMER"}, err: "kamailio.cfg:1: WITH_HOMER is already defined; it is given by --define"},
	{name: "ports-given", args: []string{"-A", "KAMAILIO_UDP_PORT=5066"}, sockets: "udp:127.0.0.1:5066, tcp:127.0.0.1:5060"},
	{name: "sockets-given", args: []string{"-l", "udp:127.0.0.1:5099", "-l", "127.0.0.3"}, sockets: "udp:127.0.0.2:5060, udp:127.0.0.1:5099, udp:127.0.0.3:5060, tcp:127.0.0.3:5060"},
	{
		name: "environment", sockets: loopUDP, values: []string{`duplicate_uri = "sip:heplify:9060" (kamailio.cfg:22)`},
		says: []string{"kamailio.cfg:1: $env(FIELD_DBPASS) has no value here: it is refused only where", "kamailio.cfg:2: $env(FIELD_DBHOST)"},
	},
	{
		name: "environment-trace", alone: "its environment may have what ours lacks",
		err: "kamailio.cfg:16: parameter duplicate_uri of siptrace hangs on a variable: $env(FIELD_CAPTURE) has no value here",
	},
	{name: "environment-listen", err: "kamailio.cfg:2: the address of listen hangs on a variable: $env(FIELD_POD_IP) has no value here"},
	{
		name: "environment-set", env: []string{"FIELD_HEP_URI=sip:192.0.2.77:9060", "FIELD_POD_IP=127.0.0.1"}, sockets: loopUDP,
		values: []string{`duplicate_uri = "sip:192.0.2.77:9060" (kamailio.cfg:21)`},
	},
	{name: "environment-defenv", err: "kamailio.cfg:1: environment variable FIELD_HEP_URI is not set; set it for siptraced"},
	{name: "environment-include", err: "kamailio.cfg:2: the name of the included file hangs on a variable: $env(FIELD_SITE)", alone: "its environment may have what ours lacks"},
	{name: "ims-pcscf", sockets: loopUDP, values: []string{`duplicate_uri = "sip:127.0.0.1:9060" (kamailio.cfg:47)`}},
	{name: "ims-icscf", sockets: "udp:127.0.0.1:4060", values: []string{"trace_flag = 22 (kamailio.cfg:50)"}},
	{name: "ims-scscf", sockets: "udp:127.0.0.1:6060", values: []string{"trace_on = 1 (kamailio.cfg:51)"}},
	{
		name: "mobile6", sockets: "udp:[3ffe:400:190:56:201:2ff:fedd:52b5]:5060, tcp:[3ffe:400:190:56:201:2ff:fedd:52b5]:5060, udp:[::1]:5070, udp:[::1]:5080, tcp:[::1]:5080",
		values: []string{`duplicate_uri = "sip:[::1]:9061" (kamailio.cfg:9)`},
	},
	{name: "mobile6-protocol", err: "kamailio.cfg:2: address of listen is malformed; write IPv6 in brackets, as in udp:[::1]:5060"},
	{name: "no-line-end", err: "kamailio.cfg:13: #!ifdef WITH_WEBSOCKETS is never closed; the #!endif at "},
	{name: "plain-endif", err: "kamailio.cfg:13: #!ifdef MIRRORING_PORT is never closed; the #endif at "},
	{name: "no-loadmodule", err: `kamailio.cfg:13: modparam("siptrace", "trace_on") without loadmodule "siptrace.so": Kamailio refuses the file`},
	{name: "own-names", values: []string{"hep_version = 3 (kamailio.cfg:23)"}, says: []string{"kamailio.cfg:5: KAMAILIO_6 is answered for"}, silent: []string{"KAMAILIO_DBMS"}},
	{name: "version-given", version: "5.8.1", alone: newer, values: []string{`duplicate_uri = "sip:127.0.0.1:9058" (kamailio.cfg:20)`}, silent: []string{"the version isn't given"}},
	{
		name: "lua", alone: "the proxy can run it",
		err: `kamailio.cfg:19: evcb_msg: a KEMI function "ksr_siptrace_event" can't run here`,
	},
	{name: "event-route", sockets: loopUDP, says: []string{`32      if (is_method("OPTIONS") || is_method("REGISTER"))`}},
	{name: "event-route-lists", err: "kamailio.cfg:32: ds_is_from_list() can't be run outside the proxy", alone: "the proxy can run it"},
	{
		name: "socket-blocks", alone: newer, sockets: "udp:127.0.0.1:5060 advertise 203.0.113.20:5060, tcp:127.0.0.1:5060, tcp:127.0.0.1:5061",
		values: []string{"trace_on = 1 (kamailio.cfg:27)"},
	},
	{
		name: "undefined-again", version: "6.2.0", alone: newer, sockets: "udp:127.0.0.1:5060 advertise 203.0.113.30:5060",
		values: []string{`duplicate_uri = "sip:192.0.2.2:9060" (kamailio.cfg:20)`},
	},
	{name: "two-collectors", sockets: loopUDP, values: []string{`duplicate_uri = "sip:10.1.1.1:9060" (kamailio.cfg:14)`}},
	{name: "define-as-argument", says: []string{"every message that comes in is dropped"}},
	{name: "database", sockets: "udp:127.0.0.1:2608", values: []string{`db_url = "mysql://kamailio:***@localhost/kamailio" (kamailio.cfg:16)`, `table = "sip_trace" (kamailio.cfg:17)`, "trace_sl_acks = 0 (kamailio.cfg:20)"}},
	{name: "database-default", sockets: loopUDP, values: []string{"trace_flag = 1 (kamailio.cfg:16)"}},
	{name: "database-and-collector", values: []string{`duplicate_uri = "sip:127.0.0.1:9061" (kamailio.cfg:25)`, "hep_capture_id = 16 (kamailio.cfg:28)", "trace_to_database = 1 (kamailio.cfg:20)"}},
	{name: "mode-three", sockets: loopUDP, values: []string{"trace_mode = 3 (kamailio.cfg:20)", "auth_key = *** (kamailio.cfg:19)", "hep_mode_on = 1 (kamailio.cfg:17)"}},
	{name: "all-commented", values: []string{"trace_flag = 22 (kamailio.cfg:15)"}},
	{name: "switched-by-rpc", values: []string{"trace_on = 0 (kamailio.cfg:20)", "hep_version = 2 (kamailio.cfg:17)"}, says: []string{"trace_on is 0"}},
	{name: "own-socket", sockets: "udp:127.0.0.1:5060, udp:127.0.0.1:9066", values: []string{`force_send_sock = "sip:127.0.0.1:9066" (kamailio.cfg:21)`, "xheaders_read = 0 (kamailio.cfg:22)"}},
	{name: "own-socket-name", sockets: "udp:127.0.0.1:5060, udp:127.0.0.1:9066", values: []string{`send_sock_name = "hep" (kamailio.cfg:21)`}},
	{name: "misspelt", err: `kamailio.cfg:19: siptrace has no parameter "send_sock_address": did you mean "send_sock_addr"?`},
	{name: "made-up", err: `kamailio.cfg:19: siptrace has no parameter "correlation_id_header"`},
	{name: "windows", sockets: loopUDP, values: []string{`duplicate_uri = "sip:127.0.0.1:9060" (kamailio.cfg:6)`}},
	{name: "latin1", err: "kamailio.cfg:5: table", alone: "the database refuses such a name later"},
	{name: "interfaces", sockets: "udp:127.0.0.1:5060, tcp:127.0.0.1:5060, udp:127.0.0.1:5070"},
	{name: "chains", values: []string{`duplicate_uri = "sip:192.0.2.34:9060" (kamailio.cfg:22)`, `table = "sip_trace" (kamailio.cfg:23)`, `date_column = "trace" (kamailio.cfg:24)`}},
	{name: "local-file", values: []string{`duplicate_uri = "sip:198.51.100.5:9060" (kamailio.cfg:17)`}},
	{
		name: "no-trace", sockets: "udp:127.0.0.1:5060, tcp:127.0.0.1:5060",
		says: []string{"siptrace is not loaded in ", "that proxy mirrors nothing", "Put the lines that siptraced run prints into it"},
	},
	{name: "advertise-name", sockets: "udp:127.0.0.1:5060 advertise 203.0.113.44:5060, udp:127.0.0.1:5070 advertise 203.0.113.45:0"},
	{name: "init-mode", values: []string{"trace_init_mode = 2 (kamailio.cfg:14)"}, says: []string{"trace_init_mode is 2"}},
}

// TestField: check reads each of testdata/field as said, and accepts what Kamailio
// accepts, with the same values and sockets.
func TestField(t *testing.T) {
	t.Parallel()
	dirs, err := os.ReadDir("testdata/field")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.name == d.Name() }) {
			t.Errorf("testdata/field/%s has no row", d.Name())
		}
	}
	var compared atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, f := range fields {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				f.run(t, &compared)
			})
		}
	})
	t.Logf("%d configurations, %d values as Kamailio has them", len(fields), compared.Load())
	if compared.Load() < 150 {
		t.Errorf("only %d values were compared", compared.Load())
	}
}

func (f field) run(t *testing.T, compared *atomic.Int64) {
	cfg, err := filepath.Abs(filepath.Join("testdata", "field", f.name, "kamailio.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	// An address that no duplicate_uri has.
	args := append([]string{"check", "--kamailio-cfg", cfg, "--set", "listen=udp:127.9.9.9:9060"}, f.args...)
	if f.version != "" {
		args = append(args, "--kamailio-version", f.version)
	}
	r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: args, Env: f.env})
	got := checked(r.Stdout)
	kamailio := f.kamailio(t, cfg, got)
	if f.alone == "" && kamailio.Accepted != (r.Code == 0) {
		t.Errorf("siptraced check: exit code %d\n%s\nkamailio -c: %s", r.Code, r.Stderr, kamailio.Output)
	}
	if f.err != "" {
		if r.Code != 1 || !strings.Contains(r.Stderr, f.err) {
			t.Errorf("exit code %d, want 1 and %s\n%s", r.Code, f.err, r.Stderr)
		}
		return
	}
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s", r.Code, r.Stderr)
	}
	for _, want := range f.values {
		name, _, _ := strings.Cut(want, " = ")
		v := got.values[name]
		if text := name + " = " + v.text + " (" + v.place + ")"; text != want {
			t.Errorf("got  %s\nwant %s", text, want)
		}
	}
	if s := strings.Join(got.sockets, ", "); f.sockets != "" && s != f.sockets {
		t.Errorf("sockets:\n got %s\nwant %s", s, f.sockets)
	}
	for _, s := range f.says {
		if !strings.Contains(r.Stdout, s) {
			t.Errorf("check doesn't say %s\n%s", s, r.Stdout)
		}
	}
	for _, s := range f.silent {
		if strings.Contains(r.Stdout, s) {
			t.Errorf("check says %s\n%s", s, r.Stdout)
		}
	}
	if f.alone == "" {
		compared.Add(int64(f.compare(t, got, kamailio)))
	}
}

// report is what check says.
type report struct {
	values  map[string]struct{ text, place string }
	sockets []string
}

var (
	valueLine  = regexp.MustCompile(`(?m)^siptrace\.(\w+) = (.*?)  \((?:[^()]*/)?([^()]*)\)`)
	socketLine = regexp.MustCompile(`(?m)^socket = (.*?)  \(`)
)

func checked(out string) report {
	r := report{values: map[string]struct{ text, place string }{}}
	for _, m := range valueLine.FindAllStringSubmatch(out, -1) {
		r.values[m[1]] = struct{ text, place string }{m[2], m[3]}
	}
	for _, m := range socketLine.FindAllStringSubmatch(out, -1) {
		r.sockets = append(r.sockets, m[1])
	}
	return r
}

var paramLine = regexp.MustCompile(`(?m)^[ \t]*modparam\(\s*"siptrace"\s*,\s*"(\w+)"\s*,\s*(.*?)\s*\)[ \t]*;?[ \t]*\r?$`)

// kamailio has the real one read the configuration. It prints no parameters, but
// aliases: so each value stands as one behind its line, a string with the parameter's
// name behind it, a number as its port.
func (f field) kamailio(t *testing.T, cfg string, got report) servers.Verdict {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(cfg), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		write(t, filepath.Join(dir, filepath.Base(name)), paramLine.ReplaceAllStringFunc(readFile(t, name), func(line string) string {
			m := paramLine.FindStringSubmatch(line)
			v, ok := got.values[m[1]]
			switch {
			case !ok || v.text == "***" || slices.Contains([]string{"yes", "on"}, m[2]):
				return line
			case strings.HasPrefix(v.text, `"`):
				return line + "\nalias=" + m[2] + " \"=" + m[1] + "\";"
			}
			return line + "\nalias=" + m[1] + ".number:" + m[2] + ";"
		}))
	}
	return servers.CheckKamailio(t, filepath.Join(dir, "kamailio.cfg"), f.env, f.args...)
}

var (
	stringAlias = regexp.MustCompile(`^\*:(?P<value>.*)=(?P<name>\w+):\*$`)
	numberAlias = regexp.MustCompile(`^\*:(?P<name>\w+)\.number:(?P<value>\d+|\*)$`)
)

// compare puts the values and sockets beside those that Kamailio has, and gives
// the number of values.
func (f field) compare(t *testing.T, got report, kamailio servers.Verdict) int {
	t.Helper()
	last := map[string]string{}
	for _, a := range kamailio.Aliases {
		for _, form := range []*regexp.Regexp{stringAlias, numberAlias} {
			if m := form.FindStringSubmatch(a); m != nil {
				last[m[form.SubexpIndex("name")]] = m[form.SubexpIndex("value")]
			}
		}
	}
	for name, want := range last {
		text := got.values[name].text
		if s, err := strconv.Unquote(text); err == nil {
			text = s
		} else if want == "*" {
			want = "0"
		}
		if text != want && !strings.Contains(text, "***") {
			t.Errorf("%s: got %s, Kamailio has %s", name, text, want)
		}
	}
	if len(f.values) > 0 && len(last) == 0 {
		t.Errorf("Kamailio says no value:\n%s", kamailio.Output)
	}
	if ours, theirs := slices.Sorted(slices.Values(got.sockets)), slices.Sorted(slices.Values(kamailio.Sockets)); !slices.Equal(ours, theirs) {
		t.Errorf("sockets:\n got %q\nKamailio has %q", ours, theirs)
	}
	return len(last)
}

// TestWaysOut: what only the proxy can decide stays there with migrate, or is left
// out, as the errors of check say.
func TestWaysOut(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]string{"lua": "siptrace.evcb_msg=", "event-route-lists": "event_route="} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg := write(t, filepath.Join(dir, "kamailio.cfg"), readFile(t, filepath.Join("testdata", "field", name, "kamailio.cfg")))
			check := []string{"check", "--kamailio-cfg", cfg}
			r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: check})
			for _, way := range []string{"siptraced migrate " + cfg + " leaves it in the proxy", "--set " + set + " goes without it"} {
				if !strings.Contains(r.Stderr, way) {
					t.Errorf("check doesn't name %q:\n%s", way, r.Stderr)
				}
			}
			must(t, dir, "", program, append(check, "--set", set)...)
			patch := must(t, dir, "", program, "migrate", "--patch", cfg)
			yaml := write(t, filepath.Join(dir, "siptraced.yaml"), must(t, dir, "", program, "migrate", "--yaml", cfg))
			must(t, dir, patch, "patch", "-p0")
			if v := servers.CheckKamailio(t, cfg, nil); !v.Accepted {
				t.Errorf("Kamailio refuses its half:\n%s", v.Output)
			}
			if text := readFile(t, cfg); name == "lua" != strings.Contains(text, `"evcb_msg"`) || name != "lua" && !strings.Contains(text, "ds_is_from_list") {
				t.Errorf("the proxy doesn't decide any more:\n%s", text)
			}
			must(t, dir, "", program, "check", "-c", yaml)
		})
	}
}
