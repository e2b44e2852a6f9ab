package migrate

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/hep"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestPairs lets Kamailio alone write its table, then the migrated pair: the
// same calls have to make the same rows, and the same packets for those who get
// mirrors.
func TestPairs(t *testing.T) {
	t.Parallel()
	db := servers.StartMariaDB(t)
	list := samples
	if servers.Long() {
		list = append(list, recorded(t)...)
	}
	for i, s := range list {
		if s.quiet || s.skip != "" || !s.pair && !servers.Long() {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.compare(t, db, "trace"+strconv.Itoa(i))
		})
	}
}

// side is what one run left.
type side struct {
	rows    map[string][]vectors.Row // by table
	mirrors []string
	again   int
}

func (s sample) compare(t *testing.T, server *servers.MariaDB, name string) {
	t.Helper()
	db := newDatabase(t, server, name, s)
	v := values(servers.FreePorts(t, 6), server.URL(name))
	h := s.migrate(t, v)
	const attempts = 3
	for attempt := 1; ; attempt++ {
		alone := s.run(t, db, v, h.original, "")
		pair := s.run(t, db, v, h.cfg, h.yaml)
		if alone.again+pair.again > 0 && attempt < attempts {
			t.Logf("%d messages came again, so the runs can't be compared: once more", alone.again+pair.again)
			continue
		}
		var problems []string
		n := 0
		for table := range alone.rows {
			n += len(alone.rows[table])
			problems = append(problems, diff("row of "+table, texts(t, alone.rows[table], alone.rows[table]), texts(t, pair.rows[table], alone.rows[table]))...)
		}
		if s.mirrors {
			problems = append(problems, diff("mirror", alone.mirrors, pair.mirrors)...)
		}
		t.Logf("%d rows, %d packets mirrored; the pair mirrored %d", n, len(alone.mirrors), len(pair.mirrors))
		if len(problems) > 10 {
			problems = append(problems[:10], fmt.Sprintf("and %d more", len(problems)-10))
		}
		for _, p := range problems {
			t.Error(p)
		}
		return
	}
}

// databaseName is a name for a database made from that of a test.
func databaseName(name string) string { return strings.ReplaceAll(name, " ", "_") }

func number(tb testing.TB, s string) int {
	tb.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// run has the phones call each other.
func (s sample) run(t *testing.T, db *database, v map[string]string, cfg, yaml string) side {
	t.Helper()
	domain := s.domain
	if domain == "" {
		domain = "127.0.0.1:" + v["PORT"]
	}
	phones := newPhones(t, number(t, v["ALICE"]), number(t, v["BOB"]), number(t, v["PORT"]), domain)
	defer phones.close()
	return s.during(t, db, v, cfg, yaml, func(*sink) int { return phones.traffic() })
}

// during runs Kamailio while there is traffic, with siptraced beside it if there
// is a configuration for it.
func (s sample) during(t *testing.T, db *database, v map[string]string, cfg, yaml string, traffic func(*sink) int) side {
	t.Helper()
	out := side{rows: map[string][]vectors.Row{}}
	mirrors := newSink(t, number(t, v["SINK"]), number(t, v["SINK2"]))
	var d *servers.Siptraced
	if yaml != "" {
		d = servers.StartSiptraced(t, servers.Command{Bin: program, Args: []string{"run", "-c", yaml, "--set", "rpc.http=", "--set", "rpc.ctl="}})
	}
	kamailio := servers.StartKamailioFile(t, cfg, "udp:127.0.0.1:"+v["PORT"])
	out.again = traffic(mirrors)
	kamailio.Stop(t)
	if d != nil {
		d.MustStop(t)
		if err := d.Counters(t).Balanced(); err != nil {
			t.Errorf("books: %v", err)
		}
	}
	out.mirrors = mirrors.close()
	for _, table := range db.tables {
		out.rows[table] = db.take(t, table)
	}
	if t.Failed() {
		t.Logf("%s", kamailio.Tail(20))
	}
	return out
}

// database is one database of the server.
type database struct {
	*sql.DB
	tables  []string
	columns []string
}

// newDatabase makes the tables that Kamailio's scripts make, and like ones.
func newDatabase(tb testing.TB, m *servers.MariaDB, name string, s sample) *database {
	tb.Helper()
	m.CreateDatabase(tb, name, "utf8mb4")
	for _, script := range []string{"standard", "siptrace", "auth_db"} {
		m.LoadScript(tb, name, filepath.Join("/usr/share/kamailio/mysql", script+"-create.sql"))
	}
	d := &database{m.Open(tb, name), append([]string{"sip_trace"}, s.tables...), slices.Clone(vectors.Columns[:])}
	var changes []string
	for _, table := range s.tables {
		changes = append(changes, "CREATE TABLE "+table+" LIKE sip_trace")
	}
	for i, c := range d.columns {
		if to, ok := s.columns[c]; ok {
			d.columns[i] = to
			changes = append(changes, "ALTER TABLE sip_trace RENAME COLUMN "+c+" TO "+to)
		}
	}
	for _, q := range changes {
		if _, err := d.Exec(q); err != nil {
			tb.Fatalf("%s: %v", q, err)
		}
	}
	return d
}

// settle waits until a table has had the same number of rows for a second: the
// proxy writes its last one after it has sent the message.
func (d *database) settle(tb testing.TB, table string) {
	tb.Helper()
	for n, since := -1, time.Now(); time.Since(since) < time.Second; time.Sleep(50 * time.Millisecond) {
		var now int
		if err := d.QueryRow("SELECT COUNT(*) FROM " + table).Scan(&now); err != nil {
			tb.Fatal(err)
		}
		if now != n {
			n, since = now, time.Now()
		}
	}
}

// take reads a table and empties it.
func (d *database) take(tb testing.TB, table string) []vectors.Row {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rs, err := d.QueryContext(ctx, "SELECT id, DATE_FORMAT(time_stamp, '%Y-%m-%d %H:%i:%s'), time_us, "+strings.Join(d.columns, ", ")+" FROM "+table+" ORDER BY id")
	if err != nil {
		tb.Fatal(err)
	}
	rows, err := vectors.ReadRows(rs)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := d.ExecContext(ctx, "DELETE FROM "+table); err != nil {
		tb.Fatal(err)
	}
	return slices.DeleteFunc(rows, func(r vectors.Row) bool { return strings.HasPrefix(r.CallID, barrier) })
}

// What Kamailio makes up anew in each run.
var (
	branch = regexp.MustCompile(`z9hG4bK[0-9a-f]+\.[0-9a-f.]+`)
	tag    = regexp.MustCompile(`(;tag=)([^;>\r\n]*)`)
	once   = regexp.MustCompile(`((?:nonce|response)=")[^"]*"|(;(?:did|expires)=)[^;>\r\n]*|(X-Siptrace-Time: )[^\r\n]*`)
)

func steady(text string) string {
	text = branch.ReplaceAllString(text, "BRANCH")
	text = once.ReplaceAllString(text, "${1}${2}${3}ONCE")
	return tag.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, ";tag=fix-") {
			return s
		}
		return ";tag=KAMAILIO"
	})
}

// texts are rows without id and time. Two things that siptraced has by its own
// rules are taken as sip_trace() has them where it does: the To tag of replies
// that the proxy made, and IPv6 addresses without brackets.
func texts(t *testing.T, rows, theirs []vectors.Row) (out []string) {
	t.Helper()
	noTag := map[string]bool{}
	for _, r := range theirs {
		if r.ToTag == "" {
			noTag[steady(r.Msg)] = true
		}
	}
	for _, r := range rows {
		if noTag[steady(r.Msg)] {
			r.ToTag = ""
		}
		for _, tag := range []*string{&r.FromTag, &r.ToTag} {
			if *tag != "" && !strings.HasPrefix(*tag, "fix-") {
				*tag = "KAMAILIO"
			}
		}
		out = append(out, fmt.Sprintf("%s user %q %s %s %s>%s %s tags %s %s: %q", r.CallID, r.TracedUser, r.Method, r.Status,
			strings.NewReplacer("[", "", "]", "").Replace(r.FromIP), strings.NewReplacer("[", "", "]", "").Replace(r.ToIP),
			r.Direction, r.FromTag, r.ToTag, steady(r.Msg)))
	}
	return out
}

// diff compares two lists without regard to their order.
func diff(what string, alone, pair []string) (problems []string) {
	count := map[string]int{}
	for _, s := range alone {
		count[s]++
	}
	for _, s := range pair {
		count[s]--
	}
	for s, n := range count {
		if len(s) > 300 {
			s = s[:300] + "..."
		}
		if n > 0 {
			problems = append(problems, fmt.Sprintf("%s missing %d times: %s", what, n, s))
		} else if n < 0 {
			problems = append(problems, fmt.Sprintf("%s too many %d times: %s", what, -n, s))
		}
	}
	slices.Sort(problems)
	return problems
}

// sink takes what is mirrored.
type sink struct {
	conns []net.PacketConn
	wait  sync.WaitGroup
	mu    sync.Mutex
	got   []string
}

func newSink(tb testing.TB, ports ...int) *sink {
	tb.Helper()
	s := &sink{}
	for _, port := range ports {
		c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			tb.Fatal(err)
		}
		s.conns = append(s.conns, c)
		s.wait.Go(func() {
			buf := make([]byte, 65536)
			for {
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				if bytes.Contains(buf[:n], []byte("Call-ID: "+barrier)) {
					continue
				}
				s.mu.Lock()
				s.got = append(s.got, fmt.Sprintf("at %d: %s", port, packet(buf[:n])))
				s.mu.Unlock()
			}
		})
	}
	return s
}

func (s *sink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

func (s *sink) close() []string {
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.wait.Wait()
	return s.got
}

// packet is what of a mirrored packet is the same in each run: not its moment.
func packet(b []byte) string {
	var p hep.Packet
	if hep.Detect(b) == 0 {
		return "SIP " + steady(string(b))
	}
	if err := p.Decode(b); err != nil {
		return err.Error()
	}
	if p.Type == hep.TypeLog { // its destination is who gets it first
		return fmt.Sprintf("HEP%d %v capture id %d, correlation id %q, log: %s", p.Version, p.Src, p.CaptureID, p.CorrelationID, p.Payload)
	}
	return fmt.Sprintf("HEP%d %v>%v capture id %d, correlation id %q, key %q: %s", p.Version, p.Src, p.Dst, p.CaptureID, p.CorrelationID, p.AuthKey, steady(string(p.Payload)))
}

// TestCollector has the second node of a chain migrated: it takes SIP duplicates
// with X-Siptrace headers, and passes them on untouched to siptraced, which
// writes the rows with the moments that the headers have.
func TestCollector(t *testing.T) {
	t.Parallel()
	db := servers.StartMariaDB(t)
	for i, name := range []string{"xheaders-chain", "xheaders-chain-hep", "xheaders-chain-strip"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain, err := vectors.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			packets := chain.First.Packets()
			s := sample{name: name, base: chain.Config, domain: "vec.example"}
			base := "collector" + strconv.Itoa(i)
			d := newDatabase(t, db, base, s)
			v := values(servers.FreePorts(t, 6), db.URL(base))
			h := s.migrate(t, v)
			collect := func(cfg, yaml string) side {
				return s.during(t, d, v, cfg, yaml, func(mirrors *sink) int {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					if err := vectors.Feed(ctx, "udp", "127.0.0.1:"+v["PORT"], packets); err != nil {
						t.Error(err)
					}
					servers.WaitFor(t, 30*time.Second, "the mirror of each packet", func() bool { return mirrors.len() >= len(packets) })
					return 0
				})
			}
			alone, pair := collect(h.original, ""), collect(h.cfg, h.yaml)
			a, b := alone.rows["sip_trace"], pair.rows["sip_trace"]
			if len(a) != len(packets) {
				t.Errorf("Kamailio alone wrote %d rows of %d packets", len(a), len(packets))
			}
			for _, p := range slices.Concat(diff("row", moments(t, a), moments(t, b)), diff("mirror", alone.mirrors, pair.mirrors)) {
				t.Error(p)
			}
		})
	}
}

// moments are the texts of rows with their times.
func moments(t *testing.T, rows []vectors.Row) []string {
	out := texts(t, rows, nil)
	for i, r := range rows {
		out[i] = fmt.Sprintf("%s.%06d %s", r.TimeStamp, r.TimeUS, out[i])
	}
	return out
}
