package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/compat/kamcfg"
	"siptraced/tests/servers"
)

const kamailioCfg = `loadmodule "siptrace.so"
#!define DBURL "mysql://u:secret@127.0.0.1/db"
listen=udp:192.0.2.1:5060 advertise 203.0.113.7:5070
listen=tcp:192.0.2.1:5060
modparam("siptrace", "db_url", DBURL)
modparam("siptrace", "trace_on", 1)
modparam("siptrace|other", "trace_mode", 3)
modparam("other", "trace_mode", 9)
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "auth_key", "hidden")
request_route { exit; }
`

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func overwrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, c *Config, name string) Value {
	t.Helper()
	i := slices.IndexFunc(c.Values, func(v Value) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no value %s", name)
	}
	return c.Values[i]
}

// Each place wins over the ones before it, and says so.
func TestPrecedence(t *testing.T) {
	cfg := file(t, "kamailio.cfg", kamailioCfg)
	yaml := file(t, "siptraced.yaml", "siptrace:\n  table: from_yaml\n  trace_mode: 1\nlisten:\n  - udp:127.0.0.1:1\n  - tcp:127.0.0.1:2\nspool:\n  dir: /yaml\n")
	src := Sources{
		KamailioCfg: cfg, File: yaml,
		Environ: []string{"SIPTRACED_SIPTRACE__TRACE_MODE=5", "SIPTRACED_SPOOL__DIR=/env", "SIPTRACED_LISTEN=udp:127.0.0.1:3", "PATH=/bin"},
		Set:     []string{"spool.dir=/set", "siptrace.duplicate_uri="},
	}
	c, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, text, origin string }{
		{"siptrace.db_url", `"mysql://u:***@127.0.0.1/db"`, cfg + ":5"},
		{"siptrace.trace_on", "1", cfg + ":6"},
		{"siptrace.auth_key", "***", cfg + ":10"},
		{"siptrace.table", `"from_yaml"`, yaml + ":2"},
		{"siptrace.trace_mode", "5", "SIPTRACED_SIPTRACE__TRACE_MODE"},
		{"siptrace.duplicate_uri", "unset", "--set siptrace.duplicate_uri"},
		{"siptrace.hep_version", "1", "default"},
		{"listen", "udp:127.0.0.1:3", "SIPTRACED_LISTEN"},
		{"spool.dir", "/set", "--set spool.dir"},
		{"spool.shards", "2", "default"},
	}
	for _, tt := range tests {
		if got := value(t, c, tt.name); got.Text != tt.text || got.Origin != tt.origin {
			t.Errorf("%s: got %s from %s, want %s from %s", tt.name, got.Text, got.Origin, tt.text, tt.origin)
		}
	}
	if c.Store.URL.Password != "secret" || c.Params.TraceMode != 5 || c.Spool.Dir != "/set" || len(c.Params.DuplicateURI) != 0 || len(c.Ingest.Listen) != 1 {
		t.Errorf("got %+v", c)
	}
	if len(c.Own) != 2 || c.Own[0].Advertised.String() != "203.0.113.7:5070" || c.Sockets[0].Origin != cfg+":3" {
		t.Errorf("sockets: got %+v, %+v", c.Own, c.Sockets)
	}
}

func TestEmbeddedDefaults(t *testing.T) {
	c, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Params.TraceOn || c.Params.DBURL != "sqlite://siptraced.db" || c.Ingest.Listen[0].String() != "udp:127.0.0.1:9060" || c.Ingest.Listen[1].String() != "tcp:127.0.0.1:9060" {
		t.Errorf("got %+v", c)
	}
	// With a kamailio.cfg the module's own defaults hold.
	c, err = Load(Sources{KamailioCfg: file(t, "kamailio.cfg", "loadmodule \"siptrace\"\nrequest_route { exit; }\n")})
	if err != nil {
		t.Fatal(err)
	}
	if c.Params.TraceOn || !strings.HasPrefix(c.Params.DBURL, "mysql://kamailio") || !c.ProxyTraces() || len(c.Warnings) != 0 {
		t.Errorf("with kamailio.cfg: got %+v, warnings %q", c.Params, c.Warnings)
	}
}

// A module whose name isn't known may be siptrace.
func TestModuleUnresolved(t *testing.T) {
	c, err := Load(Sources{KamailioCfg: file(t, "kamailio.cfg", "loadmodulex \"$env(FIELD_NOSUCH).so\"\nmodparam(\"siptrace\", \"trace_mode\", 1)\n")})
	if err != nil || c.Params.TraceMode != 1 || !c.ProxyTraces() {
		t.Errorf("got %v", err)
	}
}

// A proxy without the module has no say in what is traced; its sockets hold.
func TestModuleNotLoaded(t *testing.T) {
	for _, tt := range []struct{ name, src, warning string }{
		{"none", "listen=udp:192.0.2.1:5060\n", "that proxy mirrors nothing. siptraced runs as without a kamailio.cfg, but for the sockets. Put the lines that siptraced run prints into it"},
		{"others", "loadmodule \"sl.so\"\nmodparam(\"acc|siptrace\", \"trace_on\", 0)\nlisten=udp:192.0.2.1:5060\n", "Put the lines that siptraced run prints into it"},
		{
			"within a define", "#!ifdef WITH_HOMER\nloadmodule \"siptrace.so\"\nmodparam(\"siptrace\", \"trace_mode\", 1)\n#!endif\nlisten=udp:192.0.2.1:5060\n",
			"kamailio.cfg:2 only within #!ifdef WITH_HOMER: if Kamailio is started with that (-A), say so here too: --define WITH_HOMER",
		},
		{"within two", "#!ifdef A\n#!ifndef C\n#!ifdef B\nloadmodule \"siptrace.so\"\n#!endif\n#!endif\n#!endif\nlisten=udp:192.0.2.1:5060\n", "only within #!ifdef A and #!ifdef B: if Kamailio is started with that (-A), say so here too: --define A --define B"},
		{"without a define", "#!define NO\n#!ifndef NO\nloadmodule \"siptrace.so\"\n#!endif\nlisten=udp:192.0.2.1:5060\n", "kamailio.cfg:3 only within #!ifndef NO, which doesn't hold"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := file(t, "kamailio.cfg", tt.src)
			c, err := Load(Sources{KamailioCfg: cfg})
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0], "siptrace is not loaded in "+cfg+": ") || !strings.Contains(c.Warnings[0], tt.warning) {
				t.Errorf("got warnings %q, want %s", c.Warnings, tt.warning)
			}
			if !c.Params.TraceOn || c.Params.DBURL != "sqlite://siptraced.db" || c.ProxyTraces() || len(c.Own) != 1 {
				t.Errorf("got %+v, sockets %v", c.Params, c.Own)
			}
			if v := value(t, c, "siptrace.db_url"); v.Origin != "default, siptrace is not loaded in "+cfg {
				t.Errorf("db_url: got %s", v)
			}
		})
	}
}

func TestValues(t *testing.T) {
	c, err := Load(Sources{Set: []string{
		"timezone=America/New_York", "local=udp:192.0.2.1:5060,tls:[2001:db8::1]", "spool.sync_interval=always", "spool.max_bytes=1GiB",
		"store.batch_age=1s", "receive_buffer=64KiB", "log.level=debug", "siptrace.trace_local_ip=udp:10.0.0.1:5060",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Store.Location.String() != "America/New_York" || c.Spool.SyncInterval != 0 || c.Spool.MaxBytes != 1<<30 || c.Store.BatchAge != time.Second || c.Ingest.ReceiveBuffer != 64<<10 {
		t.Errorf("got %+v", c)
	}
	if len(c.Own) != 3 { // trace_local_ip is the proxy's own address too
		t.Errorf("own sockets: got %+v", c.Own)
	}
}

// trace_db_mode stands for two settings; what is set itself wins.
func TestDBMode(t *testing.T) {
	for _, tt := range []struct {
		set          []string
		sync, gather time.Duration
		origin       string
	}{
		{nil, 100 * time.Millisecond, 5 * time.Millisecond, "default"},
		{[]string{"siptrace.trace_db_mode=1"}, 10 * time.Second, time.Second, "trace_db_mode 1"},
		{[]string{"siptrace.trace_delayed=1"}, 10 * time.Second, time.Second, "trace_db_mode 1"},
		{[]string{"siptrace.trace_db_mode=2"}, time.Second, 200 * time.Millisecond, "trace_db_mode 2"},
		{[]string{"siptrace.trace_db_mode=2", "store.batch_age=7ms"}, time.Second, 7 * time.Millisecond, "--set store.batch_age"},
	} {
		c, err := Load(Sources{Set: tt.set})
		if err != nil {
			t.Fatal(err)
		}
		if v := value(t, c, "store.batch_age"); c.Spool.SyncInterval != tt.sync || c.Store.BatchAge != tt.gather || v.Text != tt.gather.String() || v.Origin != tt.origin {
			t.Errorf("%v: sync %v, gather %v, shown %v", tt.set, c.Spool.SyncInterval, c.Store.BatchAge, v)
		}
	}
}

// Every error says where, what, and what to do.
func TestErrors(t *testing.T) {
	cfg := func(text string) Sources {
		return Sources{KamailioCfg: file(t, "kamailio.cfg", `loadmodule "siptrace.so" `+text)}
	}
	yaml := func(text string) Sources { return Sources{File: file(t, "siptraced.yaml", text)} }
	set := func(s ...string) Sources { return Sources{Set: s} }
	tests := []struct {
		name string
		src  Sources
		want []string
	}{
		{"unknown parameter", cfg("\nmodparam(\"siptrace\", \"trace_onn\", 1)\n"), []string{"kamailio.cfg:2", "trace_onn", `"trace_on"`}},
		{"wrong type", cfg("modparam(\"siptrace\", \"trace_on\", \"1\")\n"), []string{"kamailio.cfg:1", "trace_on", "without quotes"}},
		{"out of range", cfg("modparam(\"siptrace\", \"hep_version\", 4)\n"), []string{"kamailio.cfg:1", "hep_version", "1 to 3"}},
		{"combination", cfg("modparam(\"siptrace\", \"trace_init_mode\", 1)\n"), []string{"kamailio.cfg:1", "trace_init_mode"}},
		{"without the module", Sources{KamailioCfg: file(t, "kamailio.cfg", "\nmodparam(\"siptrace\", \"trace_on\", 1)\n")}, []string{"kamailio.cfg:2: modparam(\"siptrace\", \"trace_on\") without loadmodule \"siptrace.so\": Kamailio refuses the file (no module matching siptrace). If the file is a part of another one, name that one"}},
		{"the module within a define", Sources{KamailioCfg: file(t, "kamailio.cfg", "#!ifdef H\nloadmodule \"siptrace.so\"\n#!endif\nmodparam(\"siptrace\", \"trace_on\", 1)\n")}, []string{"kamailio.cfg:4: modparam", "only within #!ifdef H: if Kamailio is started with that (-A), say so here too: --define H"}},
		{"unclosed string", cfg("listen=udp:1.2.3.4:5060\nmodparam(\"siptrace\", \"table\", \"x)\n"), []string{"kamailio.cfg:2", "string"}},
		{"missing include", cfg("include_file \"nope.cfg\"\n"), []string{"kamailio.cfg:1", "nope.cfg"}},
		{"missing file", Sources{KamailioCfg: "/nonexistent/kamailio.cfg"}, []string{"/nonexistent/kamailio.cfg"}},
		{"missing yaml", Sources{File: "/nonexistent.yaml"}, []string{"/nonexistent.yaml"}},
		{"broken yaml", yaml("listen: [\n"), []string{"siptraced.yaml"}},
		{"unknown key", yaml("spool:\n  dri: x\n"), []string{"siptraced.yaml:2", "spool.dri", `"spool.dir"`}},
		{"unknown parameter in yaml", yaml("siptrace:\n  trace_onn: 1\n"), []string{"siptraced.yaml:2", "trace_onn", `"trace_on"`}},
		{"wrong type in yaml", yaml("siptrace:\n  table: 5\n"), []string{"siptraced.yaml:2", "table", "quotes"}},
		{"list for a value", yaml("timezone: [a, b]\n"), []string{"siptraced.yaml:1", "timezone"}},
		{"unknown set", set("spol.dir=x"), []string{"--set spol.dir", `"spool.dir"`}},
		{"set without value", set("spool.dir"), []string{"--set spool.dir", "key=value"}},
		{"time zone", set("timezone=Mars/Olympus"), []string{"--set timezone", "Mars/Olympus"}},
		{"listen", set("listen=sctp:1.2.3.4:5"), []string{"--set listen", "udp:host:port"}},
		{"no listen", set("listen="), []string{"--set listen", "nothing would come in"}},
		{"local", set("local=1.2.3.4"), []string{"--set local", "proto:address:port"}},
		{"size", set("spool.max_bytes=lots"), []string{"--set spool.max_bytes", "8MiB"}},
		{"duration", set("spool.batch_age=5"), []string{"--set spool.batch_age", "500ms"}},
		{"range", set("spool.shards=0"), []string{"--set spool.shards", "1 to 64"}},
		{"policy", set("spool.full=panic"), []string{"refuse-new"}},
		{"level", set("log.level=loud"), []string{"--set log.level", "debug, info"}},
		{"rpc reachable from outside", set("rpc.http=0.0.0.0:8060"), []string{"token"}},
		{"rpc over udp from outside", set("rpc.ctl=udp:192.0.2.1:2049"), []string{"UDP"}},
		{"rpc over tcp from outside", set("rpc.ctl=tcp:192.0.2.1:2049"), []string{"client certificates"}},
		{"rpc mode", set("rpc.mode=rw"), []string{"--set rpc.mode", "0660"}},
		{"forward_status alone", set("rpc.forward_status=1"), []string{"rpc.forward"}},
		{"tls without certificate", set("listen=tls:127.0.0.1:1"), []string{"tls.certificate"}},
		{"db_url", set("siptrace.db_url=mysql://u:hush@h"), []string{"--set siptrace.db_url", "database name"}},
		{"environment", Sources{Environ: []string{"SIPTRACED_SPOOL__DRI=x"}}, []string{"SIPTRACED_SPOOL__DRI", `"SIPTRACED_SPOOL__DIR"`}},
		{"environment, a parameter", Sources{Environ: []string{"SIPTRACED_SIPTRACE__TABEL=x"}}, []string{"SIPTRACED_SIPTRACE__TABEL", `"SIPTRACED_SIPTRACE__TABLE"`}},
		{"two names in two places", Sources{File: file(t, "siptraced.yaml", "mirror_time: relay\n"), Set: []string{"mirror.time=original"}}, []string{"--set mirror.time", "siptraced.yaml:1", "mirror_time"}},
		{"two names in one file", yaml("mirror: explicit\nmirror.mode: all\n"), []string{"siptraced.yaml:1", "siptraced.yaml:2", "mirror.mode"}},
		{"mirror bound", yaml("mirror:\n  time: relay\n  max_bytes: 5\n"), []string{"siptraced.yaml:3", "mirror.max_bytes", "1 MiB"}},
		{"mirror authorities", Sources{Environ: []string{"SIPTRACED_MIRROR__TLS__CA=/nonexistent"}}, []string{"SIPTRACED_MIRROR__TLS__CA: mirror.tls.ca", "/nonexistent"}},
		{"send_sock_name", set("siptrace.send_sock_name=x"), []string{"--set siptrace.send_sock_name", "listen="}},
		{"member", yaml("destinations:\n  - uri: sip:127.0.0.1:9\n  - uri: sip:127.0.0.1:8\n    max_age: soon\n"), []string{"siptraced.yaml:4", "entry 2", "max_age", "24h"}},
		{"unknown member", yaml("destinations:\n  - uri: sip:127.0.0.1:9\n    captureid: 5\n"), []string{"siptraced.yaml:2", "entry 1", "capture_id"}},
		{"key in a URI", set("destinations=sip:h:port;auth_key=hush;transport=udp"), []string{"--set destinations", "auth_key=***", "port"}},
		{"key in a mapping's URI", yaml("destinations: [{uri: \"sip:h;transport=x;auth_key=hush\"}]\n"), []string{"siptraced.yaml:1", "auth_key=***"}},
		{"client authorities", set("listen=tls:127.0.0.1:1", "tls.certificate=/nonexistent", "tls.private_key=/nonexistent"), []string{"--set tls.certificate", "/nonexistent"}},
		{"one listener of several", set("rpc.tcp=127.0.0.1:1", "rpc.http=0.0.0.0:8060"), []string{"--set rpc.http"}},
		{"rules file", set("rules=/nonexistent.yaml"), []string{"--set rules", "/nonexistent.yaml"}},
		{"connections", set("max_connections=0"), []string{"--set max_connections", "1 to"}},
		{"memory", set("memory_limit=1MiB"), []string{"--set memory_limit", "32MiB"}},
		{"two at once", set("spool.shards=0", "log.level=loud"), []string{"spool.shards", "log.level"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(tt.src)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("%q holds the password", err)
			}
		})
	}
}

// What Kamailio has from its own command line comes by flags, keys and the
// environment, and the later of them wins.
func TestKamailioCommandLine(t *testing.T) {
	cfg := file(t, "kamailio.cfg", `loadmodule "siptrace.so" #!ifdef WITH_HOMER
modparam("siptrace", "duplicate_uri", HEPURI)
#!endif
#!ifdef KAMAILIO_6
modparam("siptrace", "trace_on", 1)
#!endif
listen=udp:127.0.0.1:5060
`)
	yaml := file(t, "siptraced.yaml", "kamailio_cfg: "+cfg+"\ndefines: [WITH_HOMER, 'HEPURI=\"sip:u:secret@192.0.2.1:9060\"']\nkamailio_listen: udp:127.0.0.2\nkamailio_version: 6.0.1\n")
	flags := kamcfg.CommandLine{Defines: []string{"WITH_HOMER", `HEPURI="sip:192.0.2.9:9060"`}, Listens: []string{"tcp:127.0.0.3", "tcp:127.0.0.4"}, Version: "6.1.4"}
	for _, tt := range []struct {
		name    string
		src     Sources
		want    map[string]string // text and origin
		sockets string
	}{
		{"keys", Sources{File: yaml}, map[string]string{
			"kamailio_cfg": cfg + " " + yaml + ":1", "defines": "WITH_HOMER, HEPURI=*** " + yaml + ":2", "kamailio_listen": "udp:127.0.0.2 " + yaml + ":3",
			"kamailio_version": "6.0.1 " + yaml + ":4", "siptrace.trace_on": "1 " + cfg + ":5",
		}, "udp:127.0.0.1:5060 (" + cfg + ":7), udp:127.0.0.2:5060 (-l udp:127.0.0.2)"},
		{"flags", Sources{File: yaml, KamailioCfg: cfg, Kamailio: flags}, map[string]string{
			"kamailio_cfg": cfg + " --kamailio-cfg", "defines": "WITH_HOMER, HEPURI=*** --define", "kamailio_listen": "tcp:127.0.0.3, tcp:127.0.0.4 -l",
			"kamailio_version": "6.1.4 --kamailio-version", "siptrace.duplicate_uri": `"sip:192.0.2.9:9060" ` + cfg + ":2",
		}, "udp:127.0.0.1:5060 (" + cfg + ":7), tcp:127.0.0.3:5060 (-l tcp:127.0.0.3), tcp:127.0.0.4:5060 (-l tcp:127.0.0.4)"},
		{"--set", Sources{File: yaml, Set: []string{"defines=WITH_HOMER,HEPURI=\"sip:192.0.2.7:9060\"", "kamailio_listen="}, Environ: []string{"SIPTRACED_KAMAILIO_VERSION=5.8.0"}}, map[string]string{
			"defines": "WITH_HOMER, HEPURI=*** --set defines", "kamailio_version": "5.8.0 SIPTRACED_KAMAILIO_VERSION", "siptrace.trace_on": "0 default",
			"siptrace.duplicate_uri": `"sip:192.0.2.7:9060" ` + cfg + ":2",
		}, "udp:127.0.0.1:5060 (" + cfg + ":7)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Load(tt.src)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.want {
				if v := value(t, c, name); v.Text+" "+v.Origin != want {
					t.Errorf("%s: got %s %s, want %s", name, v.Text, v.Origin, want)
				}
			}
			var sockets []string
			for _, s := range c.Sockets {
				sockets = append(sockets, s.Text+" ("+s.Origin+")")
			}
			if got := strings.Join(sockets, ", "); got != tt.sockets {
				t.Errorf("sockets: got %s, want %s", got, tt.sockets)
			}
		})
	}
	for _, tt := range []struct {
		name string
		src  Sources
		want string
	}{
		{"define without a name", Sources{KamailioCfg: cfg, Kamailio: kamcfg.CommandLine{Defines: []string{"=x"}}}, "--define : there is no name to define"},
		{"address", Sources{KamailioCfg: cfg, Kamailio: kamcfg.CommandLine{Listens: []string{"udp:::1"}}}, "-l udp:::1: address is malformed"},
		{"version", Sources{KamailioCfg: cfg, Kamailio: kamcfg.CommandLine{Version: "six"}}, "--kamailio-version six: the version of Kamailio is malformed"},
		{"list for one value", Sources{File: file(t, "y.yaml", "kamailio_version: [a, b]\n")}, "y.yaml:1: kamailio_version: want one value"},
	} {
		if _, err := Load(tt.src); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	c, err := Load(Sources{Kamailio: flags})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(c.Notes, func(n string) bool { return strings.Contains(n, "say how to read a kamailio.cfg, and none is named") }) {
		t.Errorf("defines without a kamailio.cfg: got notes %q", c.Notes)
	}
}

// What only the proxy can decide is refused with the ways out, and these work.
func TestRouteThatCantRun(t *testing.T) {
	const load = "loadmodule \"siptrace.so\"\nmodparam(\"siptrace\", \"trace_on\", 1)\n"
	for _, tt := range []struct {
		name, src string
		want      []string
		out       string // the way out
	}{
		{
			"function", load + "event_route[siptrace:msg] {\n\tif (ds_is_from_list()) drop;\n}\n",
			[]string{"kamailio.cfg:4: ds_is_from_list()", "siptraced migrate ", "kamailio.cfg leaves it in the proxy", "--set event_route= goes without it"},
			"event_route=",
		},
		{
			"variable", load + "event_route[siptrace:msg] { if ($dlg_var(x) == 1) drop; }\n",
			[]string{"kamailio.cfg:3: $dlg_var has no value outside the proxy", "siptraced migrate ", "--set event_route="},
			"event_route=",
		},
		{
			"KEMI", load + "modparam(\"siptrace\", \"evcb_msg\", \"ksr_siptrace_event\")\n",
			[]string{"kamailio.cfg:3: evcb_msg: a KEMI function \"ksr_siptrace_event\" can't run here", "event_route[ksr_siptrace_event] { ... }", "siptraced migrate ", "--set siptrace.evcb_msg= goes without it"},
			"siptrace.evcb_msg=",
		},
		{"KEMI, other way", load + "modparam(\"siptrace\", \"evcb_msg\", \"ksr_siptrace_event\")\n", []string{"evcb_msg"}, "event_route="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := Sources{KamailioCfg: file(t, "kamailio.cfg", tt.src)}
			_, err := Load(src)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
			src.Set = []string{tt.out}
			c, err := Load(src)
			if err != nil {
				t.Fatalf("--set %s: %v", tt.out, err)
			}
			if c.Rules.Route != nil {
				t.Errorf("--set %s: there is an event route still: %v", tt.out, c.Rules.Route.Pos)
			}
		})
	}
	_, err := Load(Sources{Set: []string{"siptrace.evcb_msg=x"}})
	if err == nil || strings.Contains(err.Error(), "migrate") {
		t.Errorf("without a kamailio.cfg: got %v", err)
	}
	// One that can run does, and has the configuration's own variables.
	c, err := Load(Sources{KamailioCfg: file(t, "kamailio.cfg", "own.ignored = \"OPTIONS\" desc \"x\"\n"+load+"event_route[siptrace:msg] { if ($rm =~ $sel(cfg_get.own.ignored)) drop; }\n")})
	if err != nil || c.Rules.Route == nil {
		t.Errorf("got %v", err)
	}
}

// A listen line without a protocol is a socket for each that the proxy has.
func TestSocketsOfAllProtocols(t *testing.T) {
	for _, tt := range []struct{ src, want string }{
		{"listen=192.0.2.1:5070\n", "udp:192.0.2.1:5070, tcp:192.0.2.1:5070"},
		{"disable_tcp=yes\nlisten=192.0.2.1\n", "udp:192.0.2.1:5060"},
		{"enable_tls=yes\nlisten=192.0.2.1:5070\n", "udp:192.0.2.1:5070, tcp:192.0.2.1:5070, tls:192.0.2.1:5071"},
		{"enable_tls=yes\nlisten=192.0.2.1\n", "udp:192.0.2.1:5060, tcp:192.0.2.1:5060, tls:192.0.2.1:5061"},
	} {
		c, err := Load(Sources{KamailioCfg: file(t, "kamailio.cfg", "loadmodule \"siptrace.so\"\n"+tt.src)})
		if err != nil {
			t.Fatal(err)
		}
		if got := socketList(c); got != tt.want || len(c.Own) != len(c.Sockets) {
			t.Errorf("%q: got %s, want %s", tt.src, got, tt.want)
		}
	}
}

// $HN is the host's name as the module ipops has it.
func TestHostName(t *testing.T) {
	dir := t.TempDir()
	parts := []string{"n", "f", "d", "i"}
	if name, err := os.Hostname(); err != nil {
		t.Fatal(err)
	} else if _, err := net.LookupHost(name); err != nil {
		parts = parts[:1] // the others are asked of the resolver
	}
	src := "auto_aliases=no\nloadmodule \"ipops.so\"\n"
	for _, p := range parts {
		src += "#!subst \"/HN_" + p + "/<$HN(" + p + ")>/\"\nalias=\"" + p + "HN_" + p + "\"\n"
	}
	path := filepath.Join(dir, "kamailio.cfg")
	overwrite(t, path, src+"request_route { exit; }\n")
	v := servers.CheckKamailio(t, path, nil)
	for i, p := range parts {
		got, err := HostName(p)
		if want := "*:" + p + "<" + got + ">:*"; err != nil || i >= len(v.Aliases) || v.Aliases[i] != want {
			t.Errorf("$HN(%s): got %q, %v; Kamailio has %q\n%s", p, want, err, v.Aliases, v.Output)
		}
	}
	if _, err := HostName("x"); err == nil {
		t.Error("$HN(x) has a value")
	}
}

// Whatever is wrong with a value, the error begins with the place that has it: the
// variable, --set, the line of the file.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		key, value string
		more       []string // good settings that have it looked at
	}{
		{"listen", "udp:::1", nil},
		{"listen", "", nil},
		{"listen", "tls:127.0.0.1:9061", nil},
		{"local", "udp", nil},
		{"receive_buffer", "1", nil},
		{"max_connections", "0", nil},
		{"tls.certificate", dir + "/none", nil},
		{"tls.certificate", dir + "/none", []string{"tls.private_key=" + dir + "/none"}},
		{"spool.nats", "nats://u:%zz@h", nil},
		{"spool.monitor", "a:8222", nil},
		{"spool.monitor", "http://a:8222,nats://b", nil},
		{"spool.dir", "", nil},
		{"spool.shards", "65", nil},
		{"spool.sync_interval", "-1s", nil},
		{"spool.max_bytes", "1", nil},
		{"spool.max_age", "-1s", nil},
		{"spool.full", "never", nil},
		{"spool.batch_age", "2m", nil},
		{"timezone", "Nowhere", nil},
		{"store.batch_rows", "0", nil},
		{"store.reject_file", "", nil},
		{"store.reject_max_bytes", "1", nil},
		{"store.keep", "7d", []string{"siptrace.db_url=mysql://u@h/d", "siptrace.trace_to_database=1"}},
		{"event_route", dir + "/none", nil},
		{"rules.list", dir + "/none", nil},
		{"rules.tables", "[", nil},
		{"destinations", "sip:x:y", nil},
		{"mirror.mode", "some", nil},
		{"mirror.max_bytes", "1", nil},
		{"mirror.tls.ca", dir + "/none", []string{"destinations=sip:h:1;transport=tls"}},
		{"rpc.ctl", "tcp:0.0.0.0:2049", nil},
		{"rpc.http", "0.0.0.0:8060", nil},
		{"rpc.mode", "rw", nil},
		{"rpc.rate", "-1", nil},
		{"rpc.forward_status", "1", nil},
		{"log.level", "loud", nil},
		{"memory_limit", "1", nil},
		{"shutdown_timeout", "2h", nil},
		{"siptrace.trace_on", "maybe", nil},
		{"siptrace.db_url", "mysql://h", nil},
		{"siptrace.duplicate_uri", "sip:x:y", nil},
		{"siptrace.trace_init_mode", "1", nil},
		{"siptrace.nothing", "1", nil},
		{"nothing", "1", nil},
	} {
		yaml := tt.value
		if yaml == "" || strings.ContainsAny(yaml, "[:%") {
			yaml = "\"" + yaml + "\""
		}
		for place, src := range map[string]Sources{
			"--set " + tt.key: {Set: append(slices.Clone(tt.more), tt.key+"="+tt.value)},
			envName(tt.key):   {Set: tt.more, Environ: []string{envName(tt.key) + "=" + tt.value}},
			file(t, "siptraced.yaml", "# first\n"+tt.key+": "+yaml+"\n"): {Set: tt.more},
		} {
			if strings.HasSuffix(place, ".yaml") {
				src.File = place
				place += ":2"
			}
			if _, err := Load(src); err == nil || !strings.HasPrefix(err.Error(), place+": ") {
				t.Errorf("%s = %q: %v; want the place %s", tt.key, tt.value, err, place)
			}
		}
	}
}

// A variable that names no key is an error with the one that is meant.
func TestUnknownVariable(t *testing.T) {
	for name, want := range map[string]string{
		"SIPTRACED_LISTN": `SIPTRACED_LISTN: this environment variable names no setting: did you mean "SIPTRACED_LISTEN"?`, "SIPTRACED_SIPTRACE__TABEL": `did you mean "SIPTRACED_SIPTRACE__TABLE"?`,
	} {
		if _, err := Load(Sources{Environ: []string{name + "=x"}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// The lines of an event route within siptraced.yaml are those of that file.
func TestRouteLines(t *testing.T) {
	const route = "event_route[siptrace:msg] {\n  is_methd(\"INVITE\");\n}\n"
	indented := "  " + strings.ReplaceAll(strings.TrimSuffix(route, "\n"), "\n", "\n  ") + "\n"
	for _, tt := range []struct{ name, yaml, want string }{
		{"a block", "spool: {dir: x}\n\nevent_route: |\n" + indented, "siptraced.yaml:5: is_methd"},
		{"a block with blank lines and a comment", "event_route: |-\n\n  # first\n" + indented, "siptraced.yaml:5: is_methd"},
		{"quoted", "event_route: " + fmt.Sprintf("%q", route), "siptraced.yaml:1, line:2: is_methd"},
	} {
		_, err := Load(Sources{File: file(t, "siptraced.yaml", tt.yaml)})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
		c, err := Load(Sources{File: file(t, "siptraced.yaml", strings.ReplaceAll(tt.yaml, "is_methd", "is_method"))})
		if err != nil {
			t.Fatal(err)
		}
		if v := value(t, c, "event_route"); tt.name != "quoted" && !strings.HasSuffix(v.Text, "siptraced.yaml:4") {
			t.Errorf("%s: check prints %s, want line 4", tt.name, v)
		}
	}
	if _, err := Load(Sources{Set: []string{"event_route=" + route}}); err == nil || !strings.Contains(err.Error(), "--set event_route, line:2: is_methd") {
		t.Errorf("--set: %v", err)
	}
}
