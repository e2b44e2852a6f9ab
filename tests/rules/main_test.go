package rules

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"

	_ "modernc.org/sqlite" // the driver sqlite
)

// kamcmd is where Debian's package installs it.
const kamcmd = "/usr/sbin/kamcmd"

// program is the siptraced that the tests drive, built by TestMain.
var program string

func TestMain(m *testing.M) { os.Exit(servers.Main(m, &program, servers.MainOptions{})) }

// daemon is a running siptraced.
type daemon struct {
	*servers.Siptraced
	addr, ctl, http string
	db              *database
}

// options are what runs differ in.
type options struct {
	config string   // kamailio.cfg; empty: none
	route  string   // event route, in a file of its own
	set    []string // more --set arguments
	dir    string   // working directory; empty: a new one
	db     *database
	mirror string // duplicate_uri; empty: none
}

// arguments are those of run and check.
func (o *options) arguments(tb testing.TB) []string {
	tb.Helper()
	args := []string{"--set", "siptrace.duplicate_uri=" + o.mirror}
	if o.config != "" {
		args = append(args, "--kamailio-cfg", o.config)
	}
	if o.route != "" {
		args = append(args, "--set", "event_route="+write(tb, filepath.Join(tb.TempDir(), "route.cfg"), o.route))
	}
	if o.db != nil {
		args = append(args, "--set", "siptrace.db_url="+o.db.url)
	}
	for _, s := range o.set {
		args = append(args, "--set", s)
	}
	return args
}

// start starts siptraced on 127.0.0.1.
func start(tb testing.TB, o options) *daemon {
	tb.Helper()
	if o.dir == "" {
		o.dir = tb.TempDir()
	}
	if o.db == nil {
		o.db = sqliteFile(tb, filepath.Join(o.dir, "trace.db"))
	}
	short, err := os.MkdirTemp("/tmp", "ctl") // unix addresses are short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(short) })
	d := &daemon{
		addr: loopback(tb), http: loopback(tb), ctl: filepath.Join(short, "ctl"), db: o.db,
	}
	args := append([]string{"run"}, o.arguments(tb)...)
	for _, s := range []string{
		"listen=udp:" + d.addr, "rpc.ctl=unix:" + d.ctl, "rpc.http=" + d.http, "timezone=UTC",
	} {
		args = append(args, "--set", s)
	}
	d.Siptraced = servers.StartSiptraced(tb, servers.Command{Bin: program, Args: args, Dir: o.dir})
	return d
}

func loopback(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", servers.FreePort(tb))
}

// feed sends packets, and waits until each has ended in a counted place.
func (d *daemon) feed(tb testing.TB, packets ...[]byte) {
	tb.Helper()
	if len(packets) == 0 {
		return
	}
	before := d.CountersNow(tb)[servers.Received]
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := vectors.Feed(ctx, "udp", d.addr, packets); err != nil {
		tb.Fatalf("feed: %v\n%s", err, d.Tail(30))
	}
	servers.WaitFor(tb, time.Minute, "the packets to be dealt with", func() bool {
		c := d.CountersNow(tb)
		return c[servers.Received] == before+int64(len(packets)) && c.Balanced() == nil
	})
}

// stop ends the daemon in order and checks its books.
func (d *daemon) stop(tb testing.TB) servers.Counters {
	tb.Helper()
	d.MustStop(tb)
	c := d.Counters(tb)
	if err := c.Balanced(); err != nil {
		tb.Errorf("books: %v", err)
	}
	return c
}

// kamcmd calls a method with Kamailio's own program.
func (d *daemon) kamcmd(tb testing.TB, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, kamcmd, append([]string{"-s", "unixs:" + d.ctl}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatalf("kamcmd %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// call calls a method by JSON-RPC over HTTP; params is JSON.
func (d *daemon) call(tb testing.TB, method, params string) string {
	tb.Helper()
	body := fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":%s,"id":1}`, method, params)
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Post("http://"+d.http+"/RPC", "application/json", strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		tb.Fatalf("%s: %v: %s", method, err, b)
	}
	return compact.String()
}

// sink takes what is mirrored.
type sink struct {
	conn net.PacketConn
	uri  string

	mu   sync.Mutex // covers got
	got  []vectors.Datagram
	done chan struct{}
}

func newSink(tb testing.TB) *sink {
	tb.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &sink{conn: c, uri: "sip:" + c.LocalAddr().String(), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := make([]byte, 1<<16)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.got = append(s.got, vectors.Datagram{N: len(s.got) + 1, Packet: bytes.Clone(buf[:n])})
			s.mu.Unlock()
		}
	}()
	tb.Cleanup(func() { _ = c.Close(); <-s.done })
	return s
}

// packets are those that came.
func (s *sink) packets() []vectors.Datagram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]vectors.Datagram(nil), s.got...)
}

// await waits until n packets came.
func (s *sink) await(tb testing.TB, n int) []vectors.Datagram {
	tb.Helper()
	servers.WaitFor(tb, 30*time.Second, fmt.Sprintf("%d mirrored packets", n), func() bool { return len(s.packets()) >= n })
	return s.packets()
}

// database is one database of one server, or one SQLite file.
type database struct {
	kind, url string
	storage   vectors.Storage
	db        *sql.DB
}

func sqliteFile(tb testing.TB, file string) *database {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return &database{kind: "sqlite", url: "sqlite:///" + file, storage: vectors.SQLite, db: db}
}

// backends starts the servers of the kinds; each call of what is returned gives an
// empty database with the tables of these names.
func backends(tb testing.TB, kinds ...string) map[string]func(tb testing.TB, tables ...string) *database {
	tb.Helper()
	var n atomic.Int64
	name := func() string { return fmt.Sprintf("rules_%d", n.Add(1)) }
	out := map[string]func(testing.TB, ...string) *database{}
	for _, kind := range kinds {
		switch kind {
		case "mariadb":
			m := servers.StartMariaDB(tb)
			out[kind] = func(tb testing.TB, tables ...string) *database {
				db := name()
				m.CreateDatabase(tb, db, "utf8mb4")
				return (&database{kind, m.URL(db), vectors.UTF8, m.Open(tb, db)}).create(tb, tables)
			}
		case "postgres":
			p := servers.StartPostgres(tb)
			out[kind] = func(tb testing.TB, tables ...string) *database {
				db := name()
				p.CreateDatabase(tb, db, "")
				return (&database{kind, p.URL(db), vectors.Postgres, p.Open(tb, db)}).create(tb, tables)
			}
		default:
			out[kind] = func(tb testing.TB, tables ...string) *database {
				return sqliteFile(tb, filepath.Join(tb.TempDir(), "trace.db")).create(tb, tables)
			}
		}
	}
	return out
}

// create makes tables with the program's own command.
func (d *database) create(tb testing.TB, tables []string) *database {
	tb.Helper()
	for _, t := range append([]string{"sip_trace"}, tables...) {
		r := servers.RunSiptraced(tb, servers.Command{Bin: program, Args: []string{"schema", "create", "--db-url", d.url, "--table", t}})
		if r.Code != 0 {
			tb.Fatalf("%s: %s", t, r.Stderr)
		}
	}
	return d
}

func (d *database) expression(column string) string {
	switch {
	case column == "time_stamp" && d.kind == "mariadb":
		return "DATE_FORMAT(time_stamp, '%Y-%m-%d %H:%i:%s')"
	case column == "time_stamp" && d.kind == "postgres":
		return "to_char(time_stamp, 'YYYY-MM-DD HH24:MI:SS')"
	case column == "time_stamp":
		return "CAST(time_stamp AS TEXT)"
	case column == "id", column == "time_us", d.kind != "mariadb":
		return column
	}
	return "CAST(`" + column + "` AS BINARY)"
}

// rows reads a table in the order of id; nil when there is none.
func (d *database) rows(tb testing.TB, table string) []vectors.Row {
	tb.Helper()
	var cols []string
	for _, c := range append([]string{"id", "time_stamp", "time_us"}, vectors.Columns[:]...) {
		cols = append(cols, d.expression(c))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rs, err := d.db.QueryContext(ctx, "SELECT "+strings.Join(cols, ", ")+" FROM "+table+" ORDER BY id")
	if err != nil {
		if d.kind == "sqlite" && strings.Contains(err.Error(), "no such table") {
			return nil
		}
		tb.Fatalf("%s: %v", d.kind, err)
	}
	rows, err := vectors.ReadRows(rs)
	if err != nil {
		tb.Fatal(err)
	}
	return rows
}

// report fails the test with the first few problems.
func report(tb testing.TB, problems []string) {
	tb.Helper()
	const most = 12
	if n := len(problems); n > most {
		problems = append(problems[:most:most], fmt.Sprintf("... and %d more", n-most))
	}
	if len(problems) > 0 {
		tb.Error(strings.Join(problems, "\n"))
	}
}

func write(tb testing.TB, file, text string) string {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	return file
}

func read(tb testing.TB, file string) string {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func recording(tb testing.TB, name string) *vectors.Scenario {
	tb.Helper()
	s, err := vectors.Load(name)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
