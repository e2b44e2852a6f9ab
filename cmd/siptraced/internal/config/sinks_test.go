package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// What most proxies have: nothing is stored, a collector on the same host gets HEP.
const hepOnly = `#!KAMAILIO
listen=udp:192.0.2.1:5060
loadmodule "siptrace.so"
modparam("siptrace", "db_url", "mysql://kamailio:kamailiorw@localhost/kamailio")
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_flag", 22)
modparam("siptrace", "trace_on", 1)
request_route { exit; }
`

// Where messages go that a proxy mirrors to us, and what is said when nobody sent
// them there, or when they go nowhere.
func TestSinks(t *testing.T) {
	const (
		own     = "siptraced.db"
		kept    = "siptraced keeps them in siptraced.db (SQLite; store.keep_bytes 2GiB, store.keep 168h)"
		dropped = "every message that comes in is dropped (dropped.no_sink)"
		remark  = "only mirrors get the messages"
	)
	tests := []struct {
		name     string
		cfg      string
		set      []string
		stores   bool
		database string // where rows go
		bytes    int64  // store.keep_bytes in force
		keep     time.Duration
		warning  string // part of the only one; empty: there is none
		remark   string
	}{
		{"no configuration", "", nil, true, own, 2 << 30, 168 * time.Hour, "", "rows go into siptraced.db (SQLite; store.keep_bytes 2GiB, store.keep 168h)"},
		{"HEP to siptraced", hepOnly, nil, true, own, 2 << 30, 168 * time.Hour, kept, "not a mirror"},
		{"HEP to siptraced by script", strings.ReplaceAll(strings.ReplaceAll(hepOnly, `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")`, ""), "exit;", `sip_trace("sip:127.0.0.1:9060", "$ci"); exit;`), nil, true, own, 2 << 30, 168 * time.Hour, kept, ""},
		{"HEP to another one by script", strings.ReplaceAll(strings.ReplaceAll(hepOnly, `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")`, ""), "exit;", `sip_trace("sip:192.0.2.9:9060"); exit;`), nil, false, "", 0, 0, dropped, ""},
		{"other bounds", hepOnly, []string{"store.keep=3d", "store.keep_bytes=0"}, true, own, 0, 72 * time.Hour, "siptraced.db (SQLite; store.keep 72h)", ""},
		{"nothing is traced yet", strings.ReplaceAll(hepOnly, `"trace_on", 1`, `"trace_on", 0`), nil, true, own, 2 << 30, 168 * time.Hour, kept, ""},
		{"siptraced on another address", hepOnly, []string{"listen=udp:127.0.0.1:9061"}, false, "", 0, 0, "", "mirrors to no address that siptraced listens on (udp:127.0.0.1:9061)"},
		{"a collector on another port", hepOnly, []string{"destinations=sip:127.0.0.1:9061"}, false, "", 0, 0, "", remark},
		{"another collector as well", hepOnly, []string{"siptrace.duplicate_uri=sip:127.0.0.1:9060,sip:192.0.2.9:9060"}, false, "", 0, 0, "", remark},
		{"a database of siptraced's own", hepOnly, []string{"siptrace.db_url=postgres://u:p@127.0.0.1/d"}, true, "d", 0, 0, "siptraced keeps them in the database of siptrace.db_url", ""},
		{"a database, in full", hepOnly, []string{"siptrace.db_url=sqlite:///var/trace.db", "siptrace.trace_to_database=1"}, true, "/var/trace.db", 0, 0, "", ""},
		{"mirrors unset by the operator", hepOnly, []string{"siptrace.duplicate_uri="}, true, own, 2 << 30, 168 * time.Hour, kept, ""},
		{"the operator wants none", hepOnly, []string{"siptrace.trace_to_database=0"}, false, "", 0, 0, dropped, "not a mirror"},
		{"that alone", "", []string{"siptrace.trace_to_database=0"}, false, "", 2 << 30, 168 * time.Hour, dropped, ""},
		{"a rule with a destination", "", []string{"siptrace.trace_to_database=0", "rules.list=" + file(t, "rules.yaml", "- destination: sip:127.0.0.1:9061\n")}, false, "", 2 << 30, 168 * time.Hour, "every message for which no rule names a destination is dropped", ""},
		{"only what rules name", hepOnly, []string{"siptrace.trace_to_database=0", "siptrace.duplicate_uri=sip:192.0.2.9:9060", "mirror.mode=explicit"}, false, "", 0, 0, dropped, ""},
		{"no mirror at all", strings.ReplaceAll(hepOnly, `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9060")`, ""), nil, false, "", 0, 0, dropped, ""},
		{"trace_mode stores", strings.ReplaceAll(hepOnly, `"trace_flag", 22`, `"trace_mode", 3`), nil, true, "kamailio", 0, 0, "", ""},
		{"the proxy stores", strings.ReplaceAll(hepOnly, `"trace_to_database", 0`, `"trace_to_database", 1`), nil, true, "kamailio", 0, 0, "", "not a mirror"},
		{"SQLite, bounded", "", []string{"siptrace.db_url=sqlite:///var/trace.db", "store.keep_bytes=1GiB"}, true, "/var/trace.db", 1 << 30, 0, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := Sources{Set: append([]string{"rpc.http="}, tt.set...)}
			if tt.cfg != "" {
				src.KamailioCfg = file(t, "kamailio.cfg", tt.cfg)
			}
			c, err := Load(src)
			if err != nil {
				t.Fatal(err)
			}
			if c.Params.Stores() != tt.stores || tt.stores && c.Store.URL.Database != tt.database {
				t.Errorf("stores %v in %q, want %v in %q", c.Params.Stores(), c.Store.URL.Database, tt.stores, tt.database)
			}
			if tt.bytes != c.Store.KeepBytes || tt.keep != c.Store.Keep {
				t.Errorf("bounds %d, %s; want %d, %s", c.Store.KeepBytes, c.Store.Keep, tt.bytes, tt.keep)
			}
			if want := min(1, len(tt.warning)); len(c.Warnings) != want || want == 1 && !strings.Contains(c.Warnings[0], tt.warning) {
				t.Errorf("warnings %q, want %q", c.Warnings, tt.warning)
			}
			for _, w := range c.Warnings {
				if !strings.Contains(w, "siptrace.db_url") || !strings.Contains(w, "destinations") || strings.Contains(w, `"`) {
					t.Errorf("the warning does not say what to set, or can't be searched for in the log: %s", w)
				}
			}
			if tt.remark != "" && !slices.ContainsFunc(c.Remarks, func(r string) bool { return strings.Contains(r, tt.remark) }) {
				t.Errorf("remarks %q, want %q", c.Remarks, tt.remark)
			}
			for _, n := range c.Notes {
				if strings.Contains(n, "not a mirror") || strings.Contains(n, "no rows are written") {
					t.Errorf("warned of what is as it should be: %s", n)
				}
			}
		})
	}
}

// Remote control switches the table off, and on again to where the rows were.
func TestKeptRemotely(t *testing.T) {
	c, err := Load(Sources{KamailioCfg: file(t, "kamailio.cfg", hepOnly), Set: []string{"rpc.http="}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		value    string
		stores   bool
		warnings int
	}{{"0", false, 1}, {"1", true, 1}} {
		if c, err = c.With(Set{Name: toDatabase, Text: tt.value, Origin: "remote control"}); err != nil {
			t.Fatal(err)
		}
		if c.Params.Stores() != tt.stores || len(c.Warnings) != tt.warnings || tt.stores && c.Store.URL.Database != "siptraced.db" {
			t.Errorf("trace_to_database %s: stores %v in %s, warnings %q", tt.value, c.Params.Stores(), c.Store.URL, c.Warnings)
		}
	}
}

// What is set by default, and where it comes from, can be seen.
func TestKeptValues(t *testing.T) {
	cfg := file(t, "kamailio.cfg", hepOnly)
	c, err := Load(Sources{KamailioCfg: cfg, Set: []string{"rpc.http="}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, origin string }{
		{"kamailio_cfg", cfg, "--kamailio-cfg"},
		{toDatabase, "1", "nothing else takes the messages; 0 in " + cfg + ":7"},
		{dbURL, `"sqlite://siptraced.db"`, "nothing else takes the messages"},
		{"store.keep_bytes", "2GiB", "default"},
		{"store.keep", "168h", "default"},
	} {
		if got := value(t, c, tt.name); got.Text != tt.text || !strings.Contains(got.Origin, tt.origin) {
			t.Errorf("%s: got %s from %s, want %s from %s", tt.name, got.Text, got.Origin, tt.text, tt.origin)
		}
	}
}

// A server's tables are not siptraced's to prune.
func TestBoundsOfServers(t *testing.T) {
	for _, tt := range []struct{ set, place string }{{"store.keep=7d", "--set store.keep"}, {"store.keep_bytes=1GiB", "--set store.keep_bytes"}} {
		_, err := Load(Sources{Set: []string{"siptrace.db_url=mysql://u:p@127.0.0.1/d", tt.set}})
		if err == nil || !strings.Contains(err.Error(), tt.place) || !strings.Contains(err.Error(), "SQLite files only") {
			t.Errorf("%s: got %v", tt.set, err)
		}
	}
	for _, set := range []string{"store.keep=0s", "store.keep_bytes=0"} {
		if _, err := Load(Sources{Set: []string{"siptrace.db_url=mysql://u:p@127.0.0.1/d", set}}); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// Bounds that can't be are refused with their place.
func TestWrongBounds(t *testing.T) {
	for _, tt := range []struct{ set, want string }{
		{"store.keep_bytes=1000", "0 (no bound) or at least 256 KiB"},
		{"store.keep_bytes=much", "is not a size"},
		{"store.keep=-1h", "0s (no bound) or more"},
		{"store.keep=7", "write 500ms, 10s, 24h, 7d"},
		{"store.keep=x7d", "write 500ms, 10s, 24h, 7d"},
		{"store.keep=99999d", "write 500ms, 10s, 24h, 7d"},
	} {
		key, _, _ := strings.Cut(tt.set, "=")
		_, err := Load(Sources{Set: []string{tt.set}})
		if err == nil || !strings.Contains(err.Error(), "--set "+key) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.set, err, tt.want)
		}
	}
}
