package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// program is the siptraced that the tests drive, built by TestMain.
var program string

func TestMain(m *testing.M) { os.Exit(servers.Main(m, &program, servers.MainOptions{})) }

// daemon is a running siptraced with one socket for HEP.
type daemon struct {
	*servers.Siptraced
	addr string // of its UDP and TCP socket
}

// options are what most runs of the daemon differ in.
type options struct {
	network string   // udp if empty
	port    int      // a free one if 0
	config  string   // kamailio.cfg
	dbURL   string   // siptrace.db_url
	set     []string // more --set arguments
	args    []string // more arguments
	env     []string
	dir     string
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
	addr := fmt.Sprintf("127.0.0.1:%d", o.port)
	args := []string{"run"}
	if o.config != "" {
		args = append(args, "--kamailio-cfg", o.config)
	}
	args = append(args, "--set", "listen="+o.network+":"+addr)
	if o.dbURL != "" {
		args = append(args, "--set", "siptrace.db_url="+o.dbURL)
	}
	// The recorded configurations mirror to a collector that is not there.
	args = append(args, "--set", "siptrace.duplicate_uri=")
	args = append(args, noControl...)
	for _, s := range o.set {
		args = append(args, "--set", s)
	}
	args = append(args, o.args...)
	d := &daemon{addr: addr}
	d.Siptraced = servers.StartSiptraced(tb, servers.Command{Bin: program, Args: args, Dir: o.dir, Env: o.env})
	return d
}

// noControl leaves the default addresses of remote control to the tests that use
// them: there is one of each.
var noControl = []string{"--set", "rpc.http=", "--set", "rpc.ctl="}

// defaultPorts has a test wait for the addresses that siptraced has by default.
func defaultPorts(tb testing.TB) {
	tb.Helper()
	servers.Claim(tb, "default-ports")
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

// feed sends packets to the daemon, and fails the test if the kernel lost one.
func (d *daemon) feed(tb testing.TB, network string, packets ...[]byte) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := vectors.Feed(ctx, network, d.addr, packets); err != nil {
		tb.Fatalf("feed: %v\n%s", err, d.Tail(30))
	}
}

// dial opens a TCP connection to the daemon.
func (d *daemon) dial(tb testing.TB) net.Conn {
	tb.Helper()
	c, err := net.DialTimeout("tcp", d.addr, 10*time.Second)
	if err != nil {
		tb.Fatalf("%v\n%s", err, d.Tail(30))
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// report fails the test with the first few problems.
func report(tb testing.TB, problems []string) {
	tb.Helper()
	const most = 12
	if len(problems) == 0 {
		return
	}
	more := ""
	if len(problems) > most {
		more = fmt.Sprintf("\n... and %d more", len(problems)-most)
		problems = problems[:most]
	}
	tb.Errorf("%s%s", strings.Join(problems, "\n"), more)
}

// write writes a file of the test.
func write(tb testing.TB, file, text string) string {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	return file
}
