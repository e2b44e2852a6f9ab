package mirror

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// program is the siptraced that the tests drive, built by TestMain; plain is never
// one with the race detector.
var program, plain string

func TestMain(m *testing.M) {
	os.Exit(servers.Main(m, &program, servers.MainOptions{Plain: &plain, Prepare: sideBySide}))
}

// sideBySide runs more tests at once than there are processors: most of the time
// they wait. The flag of the command line comes later and wins.
func sideBySide(string) error { return flag.Set("test.parallel", "8") }

// patience is how long a test waits for what has to happen.
var patience = servers.Pick(time.Minute, 5*time.Minute)

// daemon is a running siptraced with one socket for HEP and SIP.
type daemon struct {
	*servers.Siptraced
	network string
	addr    string
	ctl     string // unix socket for kamcmd
	table   *table // SQLite, if the test has no database of its own
	fed     int    // packets
}

// options are what runs of the daemon differ in.
type options struct {
	network string   // udp if empty
	port    int      // a free one if 0
	config  string   // kamailio.cfg
	yaml    string   // text of siptraced.yaml
	db      *table   // a SQLite file if nil
	set     []string // more --set arguments
	dir     string   // working directory, a new one if empty
	bin     string   // program if empty
}

// start starts the daemon on 127.0.0.1.
func start(tb testing.TB, o options) *daemon {
	tb.Helper()
	if o.network == "" {
		o.network = "udp"
	}
	if o.port == 0 {
		o.port = servers.FreePort(tb)
	}
	if o.dir == "" {
		o.dir = tb.TempDir()
	}
	d := &daemon{network: o.network, addr: fmt.Sprintf("127.0.0.1:%d", o.port), ctl: servers.ShortDir(tb) + "/ctl", table: o.db}
	if d.table == nil {
		d.table = sqliteFile(tb, filepath.Join(o.dir, "trace.db"))
	}
	args := []string{"run"}
	if o.yaml != "" {
		args = append(args, "-c", write(tb, filepath.Join(o.dir, "siptraced.yaml"), o.yaml))
	}
	if o.config != "" {
		args = append(args, "--kamailio-cfg", o.config)
	}
	for _, s := range append([]string{
		"listen=" + o.network + ":" + d.addr, "siptrace.db_url=" + d.table.url,
		"spool.dir=" + filepath.Join(o.dir, "spool"), "rpc.ctl=unix:" + d.ctl, "rpc.http=",
	}, o.set...) {
		args = append(args, "--set", s)
	}
	d.Siptraced = servers.StartSiptraced(tb, servers.Command{Bin: cmp.Or(o.bin, program), Args: args, Dir: o.dir})
	return d
}

// stop ends the daemon in order and checks its books.
func (d *daemon) stop(tb testing.TB) servers.Counters {
	tb.Helper()
	d.MustStop(tb)
	c := d.Counters(tb)
	if err := c.Balanced(); err != nil {
		tb.Errorf("books: %v", err)
	}
	var late []string
	for _, m := range namedByRule.FindAllStringSubmatch(d.Stderr(), -1) {
		late = append(late, m[1])
	}
	if err := c.MirrorsBalanced(late...); err != nil {
		tb.Errorf("books: %v", err)
	}
	return c
}

// namedByRule is the log line about a mirror that comes while the daemon runs.
var namedByRule = regexp.MustCompile(`a rule named a new destination.* sink=mirror\.(\S+)`)

// feed sends packets to the daemon, and fails the test if the kernel lost one.
// It returns where they came from, if that was one UDP socket.
func (d *daemon) feed(tb testing.TB, packets ...[]byte) (source string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	d.fed += len(packets)
	err := func() error {
		if d.network != "udp" {
			return vectors.Feed(ctx, d.network, d.addr, packets)
		}
		f, err := vectors.NewUDPFeeder(d.addr)
		if err != nil {
			return err
		}
		defer f.Close()
		source = f.Source()
		for _, p := range packets {
			if err := f.Send(ctx, p); err != nil {
				return err
			}
		}
		return f.Wait(ctx)
	}()
	if err != nil {
		tb.Fatalf("feed: %v\n%s", err, d.Tail(30))
	}
	return source
}

// settle waits until what was fed is dealt with and nothing waits for a sink.
func (d *daemon) settle(tb testing.TB) servers.Counters {
	tb.Helper()
	var c servers.Counters
	servers.WaitFor(tb, patience, "the packets to be dealt with", func() bool {
		c = d.CountersNow(tb)
		if c[servers.Received] < int64(d.fed) || c[servers.Pending] != 0 {
			return false
		}
		for _, m := range c.Mirrors() {
			if c["mirror."+m+".pending"] != 0 {
				return false
			}
		}
		return c.Balanced() == nil
	})
	return c
}

// collect opens a sink on a free port, closed with the test.
func collect(tb testing.TB, network, host string) *vectors.Sink {
	tb.Helper()
	addr := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(servers.FreePort(tb)))
	s, err := vectors.Collect(network, addr.String(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// uri is a destination as duplicate_uri has it.
func uri(s *vectors.Sink, network string) string {
	return fmt.Sprintf("sip:%s;transport=%s", s.Addr(), network)
}

// closed closes a sink and returns what it got, without the chunks that siptraced
// adds to HEP3.
func closed(tb testing.TB, s *vectors.Sink) (list [][]byte) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Errorf("sink: %v", err)
	}
	for _, p := range s.Packets() {
		p, err := vectors.CutMarks(p, s.Stream())
		if err != nil {
			tb.Error(err)
		}
		list = append(list, p)
	}
	return list
}

// await waits until a sink has n packets; whoever compares says what is missing.
func await(tb testing.TB, d *daemon, n int, sinks ...*vectors.Sink) {
	tb.Helper()
	deadline := time.Now().Add(patience / 2)
	for {
		if !slices.ContainsFunc(sinks, func(s *vectors.Sink) bool { return s.Len() < n }) || !d.Running() {
			return
		}
		if time.Now().After(deadline) {
			for _, s := range sinks {
				tb.Errorf("%s: %d of %d packets after %v", s.Addr(), s.Len(), n, patience/2)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// report fails the test with the first few problems.
func report(tb testing.TB, what string, problems []string) {
	tb.Helper()
	const most = 8
	if len(problems) == 0 {
		return
	}
	more := ""
	if len(problems) > most {
		more = fmt.Sprintf("\n... and %d more", len(problems)-most)
		problems = problems[:most]
	}
	tb.Errorf("%s:\n%s%s", what, strings.Join(problems, "\n"), more)
}

// write writes a file of the test and returns its path.
func write(tb testing.TB, file, text string) string {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	return file
}

// packets are those of load's messages.
func packets(list []load.Message) [][]byte {
	var out [][]byte
	for _, m := range list {
		out = append(out, m.Packet)
	}
	return out
}

// inOrder says which of load's messages did not come exactly once and, within
// their call, in order; got are the SIP messages that came.
func inOrder(list []load.Message, got [][]byte) []string {
	problems, repeated := cameAll(list, got)
	return append(problems, repeated...)
}

// cameAll is inOrder with those that came again told apart.
func cameAll(list []load.Message, got [][]byte) (problems, repeated []string) {
	index := make(map[string]int, len(list))
	for i, m := range list {
		index[m.Payload] = i
	}
	seen := make([]int, len(list))
	last := make(map[string]int)
	for _, p := range got {
		i, ok := index[string(p)]
		if !ok {
			problems = append(problems, fmt.Sprintf("never sent: %.80q", p))
			continue
		}
		m := list[i]
		if seen[i]++; seen[i] > 1 {
			repeated = append(repeated, fmt.Sprintf("message %d of call %s came %d times", m.Index, m.CallID, seen[i]))
			continue
		}
		if l, ok := last[m.CallID]; ok && l > m.Index {
			problems = append(problems, fmt.Sprintf("call %s: message %d came after message %d", m.CallID, m.Index, l))
		}
		last[m.CallID] = max(last[m.CallID], m.Index)
	}
	for i, n := range seen {
		if n == 0 {
			problems = append(problems, fmt.Sprintf("message %d of call %s did not come", list[i].Index, list[i].CallID))
		}
	}
	return problems, repeated
}

// payloads are the SIP messages in HEP packets.
func payloads(got [][]byte) ([][]byte, error) {
	var errs []error
	var list [][]byte
	for _, p := range got {
		m, err := vectors.Decode(p)
		errs = append(errs, err)
		list = append(list, m.Payload)
	}
	return list, errors.Join(errs...)
}
