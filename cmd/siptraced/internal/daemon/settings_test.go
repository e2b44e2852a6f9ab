package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
)

// logged is a log that several goroutines write.
type logged struct {
	mu   sync.Mutex // covers text
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// running is a daemon with its configuration file.
type running struct {
	*daemon
	dir  string
	yaml string // path
	err  *logged
}

// start runs a daemon in a directory; yaml is what its file says beside the
// directories and the sockets, which are free ones.
func start(t *testing.T, dir, yaml string) *running {
	t.Helper()
	r := &running{dir: dir, yaml: filepath.Join(dir, "siptraced.yaml"), err: &logged{}}
	r.write(t, yaml)
	d, err := r.begin(t)
	if err != nil {
		t.Fatal(err)
	}
	r.daemon = d
	t.Cleanup(func() {
		if !r.stopping {
			d.stop()
		}
	})
	return r
}

func (r *running) write(t *testing.T, yaml string) {
	t.Helper()
	base := fmt.Sprintf("listen: [\"udp:127.0.0.1:0\"]\nspool: {dir: %s}\nstore: {reject_file: %s}\n", filepath.Join(r.dir, "spool"), filepath.Join(r.dir, "rejects"))
	if err := os.WriteFile(r.yaml, []byte(base+yaml), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *running) begin(t *testing.T) (*daemon, error) {
	load := func() (*config.Config, error) {
		return config.Load(config.Sources{File: r.yaml, Set: []string{"rpc.ctl=", "shutdown_timeout=10s", "rules.state_file=" + filepath.Join(r.dir, "rules.json")}})
	}
	cfg, err := load()
	if err != nil {
		return nil, err
	}
	d := newDaemon(Options{Load: load, Stdout: &logged{}, Stderr: r.err}, cfg)
	return d, d.start(t.Context())
}

// send sends n requests and waits until they are in the spool.
func (r *running) send(t *testing.T, n int) {
	t.Helper()
	before := r.counters.Snapshot()["spooled"]
	c, err := net.Dial("udp", r.ingest.Sockets()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		fmt.Fprintf(c, "OPTIONS sip:a@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK%d\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: %d-%d\r\nCSeq: 1 OPTIONS\r\n\r\n", i, before, i)
	}
	r.await(t, "the requests in the spool", func(c map[string]uint64) bool { return c["spooled"] == before+uint64(n) })
}

func (r *running) await(t *testing.T, what string, is func(map[string]uint64) bool) {
	t.Helper()
	for range 1000 {
		if is(r.counters.Snapshot()) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waiting for %s: %v\n%s", what, r.counters.Snapshot(), r.err)
}

const quiet = "rpc: {http: []}\n"

// With a state file there is one store as well: what is spooled once is written
// once.
func TestStateFileAndDatabase(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := os.WriteFile(state, []byte(`{"siptrace.trace_on": "1", "siptrace.trace_to_database": "1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, fmt.Sprintf("rpc: {http: [], state_file: %s}\nsiptrace: {db_url: \"sqlite://%s/trace.db\"}\n", state, dir))
	r.send(t, 5)
	r.await(t, "rows", func(c map[string]uint64) bool { return c["store.pending"] == 0 && c["store.written"] >= 5 })
	r.stop()
	if c := r.counters.Snapshot(); c["spooled"] != 5 || c["store.written"] != 5 || c["store.rows"] != 5 || c["store.retries"] != 0 {
		t.Errorf("spooled %d, written %d, rows %d, retries %d; want 5, 5, 5, 0", c["spooled"], c["store.written"], c["store.rows"], c["store.retries"])
	}
}

// Values that are never printed are compared as well as others.
func TestReloadComparesSecrets(t *testing.T) {
	const old = "siptrace: {db_url: \"mysql://u:first@127.0.0.1:9/db\", auth_key: first, trace_to_database: 0}\n" +
		"rpc: {http: [], token: first}\n" +
		"destinations: [{uri: \"sip:127.0.0.1:9\", name: d, capture_id: 1, auth_key: first, filter: \"request.method == 'INVITE'\", max_bytes: 1MiB}]\n"
	for i, tt := range []struct{ setting, from, to string }{
		{"siptrace.auth_key", "auth_key: first, trace", "auth_key: second, trace"},
		{"siptrace.db_url", "u:first@", "u:second@"},
		{"rpc.token", "token: first", "token: second"},
		{"destinations", "capture_id: 1", "capture_id: 2"},
		{"destinations", "auth_key: first, filter", "auth_key: second, filter"},
		{"destinations", "INVITE", "BYE"},
		{"destinations", "max_bytes: 1MiB", "max_bytes: 2MiB"},
	} {
		t.Run(fmt.Sprint(i, " ", tt.setting), func(t *testing.T) {
			r := start(t, t.TempDir(), old)
			r.write(t, strings.Replace(old, tt.from, tt.to, 1))
			changed, err := r.Reload()
			if err != nil {
				t.Fatal(err)
			}
			if len(changed) != 1 || !strings.HasPrefix(changed[0], tt.setting+": ") {
				t.Errorf("changed: %q, want %s", changed, tt.setting)
			}
			if all := r.err.String() + strings.Join(changed, "\n"); strings.Contains(all, "first") || strings.Contains(all, "second") {
				t.Errorf("a secret is shown: %s", all)
			}
			if changed, err := r.Reload(); err != nil || len(changed) != 0 {
				t.Errorf("again: %q, %v; want nothing", changed, err)
			}
		})
	}
}

// What needs a restart does not make other settings change again.
func TestReloadKeepsRemoteChanges(t *testing.T) {
	file := func(traceOn int, more string) string {
		return fmt.Sprintf("%ssiptrace: {trace_on: %d, trace_to_database: 0}\n%s", quiet, traceOn, more)
	}
	const restart = "receive_buffer: 1MiB\n"
	r := start(t, t.TempDir(), file(1, ""))
	reload := func(text string, want ...string) {
		t.Helper()
		r.write(t, text)
		changed, err := r.Reload()
		if err != nil {
			t.Fatal(err)
		}
		if len(changed) != len(want) {
			t.Errorf("changed %q, want %q", changed, want)
		}
		for i, w := range want {
			if i < len(changed) && !strings.HasPrefix(changed[i], w+": ") {
				t.Errorf("changed %q, want %q", changed, want)
			}
		}
	}
	traceOn := func(want int64) {
		t.Helper()
		if v, _ := r.Setting("siptrace.trace_on"); v != want {
			t.Errorf("trace_on is %v, want %d", v, want)
		}
	}
	reload(file(0, restart), "siptrace.trace_on", "receive_buffer")
	traceOn(0)
	if _, err := r.Set("siptrace.trace_on", int64(1)); err != nil {
		t.Fatal(err)
	}
	// What waits for a restart is reported each time; nothing else has changed.
	reload(file(0, restart), "receive_buffer")
	traceOn(1)
	reload(file(0, ""))
	traceOn(1)
	// A change in the file wins over what remote control set.
	reload(file(1, ""), "siptrace.trace_on")
	reload(file(0, ""), "siptrace.trace_on")
	traceOn(0)
}

// A change that fails in one part leaves the others as they were, and reports
// nothing as changed.
func TestReloadFailsAsAWhole(t *testing.T) {
	file := func(token, more string) string {
		return "siptrace: {trace_to_database: 0}\nrpc: {http: [\"127.0.0.1:0\"], token: " + token + "}\n" + more
	}
	r := start(t, t.TempDir(), file("first", ""))
	rule := rules.Rule{ID: "one", Scope: "m", Started: time.Now()}
	if _, err := r.engine.Start(&rule); err != nil {
		t.Fatal(err)
	}
	r.write(t, file("second", "rules: [{id: one, filter: \"request.method == 'INVITE'\"}]\nlog: {level: debug}\nspool_max: 0\n"))
	if _, err := r.Reload(); err == nil || !strings.Contains(err.Error(), "spool_max") {
		t.Errorf("a key that nobody knows: %v", err)
	}
	r.write(t, file("second", "rules: [{id: one, filter: \"request.method == 'INVITE'\"}]\nlog: {level: debug}\n"))
	if changed, err := r.Reload(); err == nil || !strings.Contains(err.Error(), "one") {
		t.Fatalf("error %v, changed %q; want that the rule's id is in use", err, changed)
	}
	if strings.Contains(r.err.String(), "configuration changed") {
		t.Errorf("reported as changed:\n%s", r.err)
	}
	if v, _ := r.Setting("log.level"); v != "info" || r.level.Level() != slog.LevelInfo {
		t.Errorf("log.level is %v, want info", v)
	}
	if got := r.post(t, "first"); got != http.StatusOK {
		t.Errorf("the token in force: status %d", got)
	}
	if got := r.post(t, "second"); got != http.StatusUnauthorized {
		t.Errorf("the token that was not taken over: status %d", got)
	}
	// The same changes, once nothing is in their way.
	if _, err := r.engine.Stop("one"); err != nil {
		t.Fatal(err)
	}
	changed, err := r.Reload()
	if err != nil || len(changed) != 3 {
		t.Errorf("changed %q, %v; want three settings", changed, err)
	}
	if got := r.post(t, "first"); got != http.StatusUnauthorized {
		t.Errorf("a revoked token: status %d", got)
	}
}

// post asks for siptrace.status over HTTP, and returns the status of HTTP.
func (r *running) post(t *testing.T, token string) int {
	t.Helper()
	_, address, _ := strings.Cut(r.rpc[0].Addresses()[0], "tcp:")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/RPC", strings.NewReader(`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// Another db_url has the store connect anew; it stays one store.
func TestReloadDatabase(t *testing.T) {
	dir := t.TempDir()
	file := func(db string) string {
		return fmt.Sprintf("%ssiptrace: {db_url: \"sqlite://%s/%s\"}\n", quiet, dir, db)
	}
	r := start(t, dir, file("first.db"))
	rows := func(n uint64) func(map[string]uint64) bool {
		return func(c map[string]uint64) bool { return c["store.rows"] == n && c["store.pending"] == 0 }
	}
	r.send(t, 3)
	r.await(t, "three rows", rows(3))
	r.write(t, file("second.db"))
	if changed, err := r.Reload(); err != nil || len(changed) != 1 || strings.Contains(changed[0], "restart") {
		t.Fatalf("changed %q, %v; want db_url, at once", changed, err)
	}
	r.send(t, 2)
	r.await(t, "two rows more", rows(5))
	r.stop()
	if c := r.counters.Snapshot(); c["store.written"] != 5 || c["spooled"] != 5 {
		t.Errorf("spooled %d, written %d; want 5, 5", c["spooled"], c["store.written"])
	}
	for name, want := range map[string]int{"first.db": 3, "second.db": 2} {
		db, err := store.Database(t.Context(), siptrace.DBURL{Driver: siptrace.DriverSQLite, Database: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sip_trace").Scan(&n); err != nil || n != want {
			t.Errorf("%s: %d rows, %v; want %d", name, n, err, want)
		}
		_ = db.Close()
	}
}

// Remote control changes settings as SIGHUP does, and keeps what it changed, and
// nothing else, over a restart.
func TestRemoteSettings(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	file := func(more string) string {
		return fmt.Sprintf("rpc: {http: [], state_file: %s}\nsiptrace: {trace_to_database: 0, hep_capture_id: 1%s}\n", state, more)
	}
	r := start(t, dir, file(""))
	for _, tt := range []struct {
		name  string
		value any
		err   string
	}{
		{"siptrace.duplicate_uri", "sip:127.0.0.1:9", ""},
		{"siptrace.data_mode", int64(1), ""},
		{"siptrace.trace_on", "maybe", "trace_on"},
		{"siptrace.trace_init_mode", int64(1), "trace_mode"}, // it would trace nothing
		{"siptrace.db_url", "sqlite://x", "can't be changed by remote control"},
		{"siptrace.table", "x", "can't be changed by remote control"},
		{"rpc.state_file", "/x", "can't be changed by remote control"},
		{"log.level", "loud", "debug, info"},
		{"log.level", "warn", ""},
	} {
		if _, err := r.Set(tt.name, tt.value); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s = %v: %v, want %q", tt.name, tt.value, err, tt.err)
		}
	}
	for _, name := range r.Settings() {
		if _, ok := r.Setting(name); !ok {
			t.Errorf("%s has no value", name)
		}
	}
	r.saveState()
	r.stop()
	r = start(t, dir, file(", data_mode: 0, hep_version: 2"))
	for name, want := range map[string]any{"siptrace.duplicate_uri": "sip:127.0.0.1:9", "siptrace.data_mode": int64(1), "siptrace.hep_version": int64(2), "log.level": "warn"} {
		if v, _ := r.Setting(name); v != want {
			t.Errorf("after a restart: %s is %v, want %v", name, v, want)
		}
	}
	if !slices.Contains(r.Sinks(), "mirror.127.0.0.1-9-udp") {
		t.Errorf("sinks: %q, want the mirror of duplicate_uri", r.Sinks())
	}
	r.stop()
	if err := os.WriteFile(state, []byte(`{"siptrace.trace_on": "maybe"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.begin(t); err == nil || !strings.Contains(err.Error(), state) || !strings.Contains(err.Error(), "trace_on") {
		t.Errorf("a state that can't be: %v", err)
	}
}

// plan in one table: what is in force afterwards, and what is reported.
func TestPlan(t *testing.T) {
	load := func(set ...string) *config.Config {
		c, err := config.Load(config.Sources{Set: append([]string{"rpc.ctl=", "rpc.http="}, set...)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, tt := range []struct {
		name      string
		old, next []string
		remote    string // siptrace.trace_on, set by remote control
		changed   []string
		restart   []string
		traceOn   bool // in force afterwards
		shards    int
	}{
		{"nothing", nil, nil, "", nil, nil, true, 2},
		{"the default, written", nil, []string{"spool.shards=2", "siptrace.trace_on=1"}, "", nil, nil, true, 2},
		{"live", nil, []string{"siptrace.trace_on=0"}, "", []string{"siptrace.trace_on"}, nil, false, 2},
		{"restart", nil, []string{"spool.shards=4"}, "", nil, []string{"spool.shards"}, true, 2},
		{"both", nil, []string{"spool.shards=4", "siptrace.trace_on=0"}, "", []string{"siptrace.trace_on"}, []string{"spool.shards"}, false, 2},
		{"remote stays", nil, []string{"log.level=debug"}, "0", []string{"log.level"}, nil, false, 2},
		{"remote stays beside a restart", nil, []string{"spool.shards=4"}, "0", nil, []string{"spool.shards"}, false, 2},
		{"the file wins where it changes", []string{"siptrace.trace_on=0"}, []string{"siptrace.trace_on=1"}, "0", []string{"siptrace.trace_on"}, nil, true, 2},
		{"taken out", []string{"siptrace.trace_on=0", "spool.shards=4"}, nil, "", []string{"siptrace.trace_on"}, []string{"spool.shards"}, true, 4},
		{"two names", []string{"mirror_time=relay"}, []string{"mirror.time=relay"}, "", nil, nil, true, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := load(tt.old...)
			if tt.remote != "" {
				var err error
				if old, err = old.With(config.Set{Name: "siptrace.trace_on", Text: tt.remote, Origin: "remote control"}); err != nil {
					t.Fatal(err)
				}
			}
			next := load(tt.next...)
			live, changes, err := plan(old, next)
			if err != nil {
				t.Fatal(err)
			}
			var changed, restart []string
			for _, c := range changes {
				if c.Restart == "" {
					changed = append(changed, c.Name)
				} else {
					restart = append(restart, c.Name)
				}
			}
			if !slices.Equal(changed, tt.changed) || !slices.Equal(restart, tt.restart) {
				t.Errorf("changed %q, restart %q; want %q, %q", changed, restart, tt.changed, tt.restart)
			}
			if live.Params.TraceOn != tt.traceOn || live.Spool.Shards != tt.shards {
				t.Errorf("trace_on %v, shards %d; want %v, %d", live.Params.TraceOn, live.Spool.Shards, tt.traceOn, tt.shards)
			}
			// Once it is in force, only what needs a restart is left.
			_, changes, err = plan(live, next)
			if err != nil || len(changes) != len(tt.restart) {
				t.Errorf("again: %v, %v; want %q", changes, err, tt.restart)
			}
		})
	}
}

// Destinations come, change and go while the daemon runs.
func TestReloadDestinations(t *testing.T) {
	file := func(list string) string {
		return quiet + "siptrace: {trace_to_database: 0, trace_on: 1}\nlocal: [\"udp:192.0.2.1:5060\"]\ndestinations: [" + list + "]\n"
	}
	r := start(t, t.TempDir(), file(""))
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	a, b := listen(), listen()
	entry := func(c *net.UDPConn, name, key string) string {
		return fmt.Sprintf("{uri: \"sip:%s\", name: %s, auth_key: %s}", c.LocalAddr(), name, key)
	}
	// mirrored sends one request, and returns what a destination gets of it.
	mirrored := func(c *net.UDPConn) string {
		r.send(t, 1)
		buf := make([]byte, 64<<10)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	for _, tt := range []struct {
		list  string
		sinks []string
		at    *net.UDPConn
		key   string
	}{
		{entry(a, "a", "first"), []string{"mirror.a"}, a, "first"},
		{entry(a, "a", "second"), []string{"mirror.a"}, a, "second"},
		{entry(a, "a", "second") + ", " + entry(b, "b", "third"), []string{"mirror.a", "mirror.b"}, b, "third"},
		{entry(b, "b", "third"), []string{"mirror.b"}, b, "third"},
	} {
		r.write(t, file(tt.list))
		if changed, err := r.Reload(); err != nil || strings.Contains(strings.Join(changed, " "), "restart") {
			t.Fatalf("%s: changed %q, %v", tt.list, changed, err)
		}
		if tt.at == a || len(tt.sinks) == 2 {
			if got := mirrored(tt.at); !strings.Contains(got, tt.key) {
				t.Errorf("%s: %q was sent, without the key", tt.list, got)
			}
		}
		var mirrors []string
		for _, name := range r.Sinks() {
			if strings.HasPrefix(name, "mirror.") {
				mirrors = append(mirrors, name)
			}
		}
		slices.Sort(mirrors)
		if !slices.Equal(mirrors, tt.sinks) {
			t.Errorf("%s: sinks %q, want %q", tt.list, mirrors, tt.sinks)
		}
	}
}
