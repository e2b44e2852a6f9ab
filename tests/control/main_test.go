package control

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"

	_ "modernc.org/sqlite" // the driver sqlite
)

// Where Debian's packages install the programs.
const (
	kamcmd = "/usr/sbin/kamcmd"
	kamctl = "/usr/sbin/kamctl"
)

// program is the siptraced that the tests drive, built by TestMain.
var program string

func TestMain(m *testing.M) {
	os.Exit(servers.Main(m, &program, servers.MainOptions{Prepare: installed}))
}

func installed(string) error {
	for _, p := range []string{kamcmd, kamctl} {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("control: not installed; tests/run installs it: %w", err)
		}
	}
	return nil
}

// loopback is an address of 127.0.0.1 that is free.
func loopback(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", servers.FreePort(tb))
}

// ends are the places where a server takes commands; siptraced and Kamailio
// have those of the first line in common.
type ends struct {
	ctl, ctlGram, tcp, udp, fifo         string
	gram, gramUDP, jsonTCP, http, mi, in string
}

// newEnds chooses paths in a new directory and free ports.
func newEnds(tb testing.TB) ends {
	tb.Helper()
	dir := servers.ShortDir(tb)
	return ends{
		ctl: dir + "/ctl", ctlGram: dir + "/ctld", tcp: loopback(tb), udp: loopback(tb), fifo: dir + "/fifo",
		gram: dir + "/gram", gramUDP: loopback(tb), jsonTCP: loopback(tb), http: loopback(tb), mi: dir + "/mi", in: loopback(tb),
	}
}

// kinds are the kinds of address that kamcmd knows.
var kinds = []string{"unix", "unixd", "tcp", "udp"}

// address is what kamcmd's -s takes.
func (e ends) address(kind string) string {
	return map[string]string{"unix": "unixs:" + e.ctl, "unixd": "unixd:" + e.ctlGram, "tcp": "tcp:" + e.tcp, "udp": "udp:" + e.udp}[kind]
}

// printed is what a program left.
type printed struct {
	stdout, stderr string
	exit           int
	took           time.Duration
}

func (p printed) String() string {
	return fmt.Sprintf("stdout %q, stderr %q, exit %d", p.stdout, p.stderr, p.exit)
}

// execute runs a program with a deadline: kamcmd and kamctl have none.
func execute(tb testing.TB, stdin string, env []string, path string, args ...string) printed {
	tb.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	// A group of its own, as kamctl has children that wait as well.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	took := time.Since(begin)
	if !timer.Stop() {
		tb.Fatalf("%s %q: no end in a minute; stdout %q, stderr %q", path, args, out.String(), errOut.String())
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		tb.Fatal(err)
	}
	return printed{out.String(), errOut.String(), cmd.ProcessState.ExitCode(), took}
}

func (e ends) kamcmd(tb testing.TB, kind string, args ...string) printed {
	tb.Helper()
	return execute(tb, "", nil, kamcmd, append([]string{"-s", e.address(kind)}, args...)...)
}

func (e ends) kamctl(tb testing.TB, args ...string) printed {
	tb.Helper()
	return execute(tb, "", []string{"RPCFIFOPATH=" + e.fifo}, kamctl, args...)
}

// set switches tracing by kamcmd.
func (e ends) set(tb testing.TB, word string) {
	tb.Helper()
	want := map[string]string{"on": "Enabled\n", "off": "Disabled\n"}[word]
	if p := e.kamcmd(tb, "unix", "siptrace.status", word); p.stdout != want || p.exit != 0 {
		tb.Fatalf("siptrace.status %s: %v", word, p)
	}
}

// promptly is less than what any of the programs or siptraced waits for, on a
// busy machine.
const promptly = 20 * time.Second

// works fails the test if the real programs are not served, and promptly. kamctl
// is a shell script with children of its own, and takes longer.
func (e ends) works(tb testing.TB, after string) {
	tb.Helper()
	for _, kind := range kinds {
		p := e.kamcmd(tb, kind, "siptrace.status", "check")
		if p.stdout != "Enabled\n" || p.stderr != "" || p.exit != 0 || p.took > promptly {
			tb.Errorf("after %s: kamcmd, %s: %v, in %v", after, kind, p, p.took)
		}
	}
	p := e.kamctl(tb, "rpc", "siptrace.status", "check")
	if !strings.Contains(p.stdout, `"result": "Enabled"`) || p.stderr != "" || p.exit != 0 || p.took > promptly {
		tb.Errorf("after %s: kamctl: %v, in %v", after, p, p.took)
	}
}

// daemon is a running siptraced.
type daemon struct {
	*servers.Siptraced
	ends
	db *sql.DB // its default database
}

// options are what runs of the daemon differ in.
type options struct {
	ends *ends    // new ones if nil
	dir  string   // working directory, a new one if empty
	set  []string // more --set arguments
}

// start starts siptraced with every kind of listener.
func start(tb testing.TB, o options) *daemon {
	tb.Helper()
	if o.ends == nil {
		e := newEnds(tb)
		o.ends = &e
	}
	e := *o.ends
	args := []string{"run"}
	for _, s := range append([]string{
		"listen=udp:" + e.in,
		"siptrace.duplicate_uri=",
		"rpc.ctl=unix:" + e.ctl + ",unixd:" + e.ctlGram + ",tcp:" + e.tcp + ",udp:" + e.udp,
		"rpc.fifo=" + e.fifo,
		"rpc.datagram=unixd:" + e.gram + ",udp:" + e.gramUDP,
		"rpc.tcp=" + e.jsonTCP,
		"rpc.http=" + e.http,
		"rpc.mi_fifo=" + e.mi,
	}, o.set...) {
		args = append(args, "--set", s)
	}
	d := &daemon{ends: e}
	d.Siptraced = servers.StartSiptraced(tb, servers.Command{Bin: program, Args: args, Dir: o.dir})
	var err error
	if d.db, err = sql.Open("sqlite", "file:"+filepath.Join(d.Dir, "siptraced.db")+"?_pragma=busy_timeout(10000)"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.db.Close() })
	return d
}

// feed sends packets, and waits until each of them is counted in one of the
// places where a message can end.
func (d *daemon) feed(tb testing.TB, packets ...[]byte) {
	tb.Helper()
	before := d.CountersNow(tb)[servers.Received]
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := vectors.Feed(ctx, "udp", d.in, packets); err != nil {
		tb.Fatal(err)
	}
	var c servers.Counters
	servers.WaitFor(tb, 20*time.Second, "the packets to be dealt with", func() bool {
		c = d.CountersNow(tb)
		return c[servers.Received] == before+int64(len(packets)) && c.Balanced() == nil && c[servers.Pending] == 0
	})
}

// rows are Call-ID and direction of the rows, sorted: only messages of one call
// keep their order.
func (d *daemon) rows(tb testing.TB) []string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rs, err := d.db.QueryContext(ctx, "SELECT callid, direction FROM sip_trace ORDER BY callid, direction")
	if err != nil {
		tb.Fatal(err)
	}
	defer rs.Close()
	list := []string{}
	for rs.Next() {
		var callID, direction string
		if err := rs.Scan(&callID, &direction); err != nil {
			tb.Fatal(err)
		}
		list = append(list, callID+" "+direction)
	}
	if err := rs.Err(); err != nil {
		tb.Fatal(err)
	}
	return list
}

// packet is a mirrored INVITE.
func packet(callID string) []byte {
	return load.Call(load.Spec{CallID: callID}, time.Now())[0].Packet
}

// Kamailio's configuration; @...@ is filled in.
const kamailioCfg = `#!KAMAILIO
debug=1
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
dns=no
rev_dns=no
listen=udp:@IN@
loadmodule "ctl.so"
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "counters.so"
loadmodule "cfg_rpc.so"
loadmodule "tm.so"
loadmodule "siptrace.so"
modparam("ctl", "binrpc", "unix:@CTL@")
modparam("ctl", "binrpc", "unixd:@CTLGRAM@")
modparam("ctl", "binrpc", "tcp:@TCP@")
modparam("ctl", "binrpc", "udp:@UDP@")
modparam("jsonrpcs", "transport", 2)
modparam("jsonrpcs", "fifo_name", "@FIFO@")
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "trace_on", 1)
request_route {
	drop;
}
`

// kamailio starts a real Kamailio.
func kamailio(tb testing.TB, e ends) *servers.Kamailio {
	tb.Helper()
	cfg := strings.NewReplacer("@IN@", e.in, "@CTL@", e.ctl, "@CTLGRAM@", e.ctlGram, "@TCP@", e.tcp, "@UDP@", e.udp, "@FIFO@", e.fifo).Replace(kamailioCfg)
	k := servers.StartKamailio(tb, cfg, "udp:"+e.in)
	tb.Cleanup(func() { k.Stop(tb) }) // killed, it would leave its children behind
	servers.WaitFor(tb, 20*time.Second, "Kamailio to take commands", func() bool {
		_, err1 := os.Stat(e.fifo)
		c, err2 := net.Dial("unix", e.ctl)
		if err2 == nil {
			_ = c.Close()
		}
		return err1 == nil && err2 == nil
	})
	return k
}

// anID is the id in a reply, the process id of kamctl.
var anID = regexp.MustCompile(`"id":\s*\d+`)

func (p printed) masked() printed {
	p.stdout, p.took = anID.ReplaceAllString(p.stdout, `"id": ID`), 0
	return p
}

// quiet is how long nothing has to come for "no answer".
const quiet = 150 * time.Millisecond

// readQuiet reads until want bytes are there and nothing more comes, and tells
// whether the other side has closed.
func readQuiet(tb testing.TB, c net.Conn, want int) (got []byte, closed bool) {
	tb.Helper()
	buf := make([]byte, 64<<10)
	for {
		wait := quiet
		if len(got) < want {
			wait = 30 * time.Second
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return got, false
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			return got, true
		default:
			tb.Fatal(err)
		}
	}
}

func dial(tb testing.TB, network, address string) net.Conn {
	tb.Helper()
	c, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// dialGram is a unix datagram socket with an address of its own, for replies.
func dialGram(tb testing.TB, address string) net.Conn {
	tb.Helper()
	local := filepath.Join(servers.ShortDir(tb), "r")
	c, err := net.DialUnix("unixgram", &net.UnixAddr{Name: local, Net: "unixgram"}, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

func write(tb testing.TB, w io.Writer, b []byte) {
	tb.Helper()
	if _, err := w.Write(b); err != nil {
		tb.Fatal(err)
	}
}

// replyFIFO makes a reply FIFO and opens it as its reader; it is removed with
// the test.
func replyFIFO(tb testing.TB, path string) *os.File {
	tb.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.Remove(path) })
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	return f
}

// readReply reads replies until want bytes are there and nothing more comes.
func readReply(tb testing.TB, f *os.File, want int) string {
	tb.Helper()
	var got []byte
	buf := make([]byte, 64<<10)
	last := time.Now()
	for {
		wait := quiet
		if len(got) < want {
			wait = 30 * time.Second
		}
		if time.Since(last) > wait {
			return string(got)
		}
		_ = f.SetReadDeadline(last.Add(wait))
		n, err := f.Read(buf)
		got = append(got, buf[:n]...)
		switch {
		case n > 0:
			last = time.Now()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return string(got)
		case err != nil && !errors.Is(err, io.EOF):
			tb.Fatal(err)
		default: // no writer at the moment
			time.Sleep(time.Millisecond)
		}
	}
}

// writeFIFO writes to a command FIFO as clients do, in one piece.
func writeFIFO(tb testing.TB, path, text string) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	write(tb, f, []byte(text))
}
