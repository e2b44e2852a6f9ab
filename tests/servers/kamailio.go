package servers

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Kamailio is a running Kamailio.
type Kamailio struct {
	*Process
	Dir string // holds kamailio.cfg and the control sockets
}

// StartKamailio runs Kamailio in the foreground with that configuration and
// waits until each socket of listen is bound; listen has entries as they stand
// in the configuration, "udp:127.0.0.1:15060" or "tcp:[::1]:15060". It ends
// with the test.
func StartKamailio(tb testing.TB, cfg string, listen ...string) *Kamailio {
	tb.Helper()
	dir := newDir(tb, "kamailio")
	file := filepath.Join(dir, "kamailio.cfg")
	if err := os.WriteFile(file, []byte(cfg), 0o644); err != nil {
		tb.Fatal(err)
	}
	return startKamailio(tb, dir, file, listen)
}

// StartKamailioFile is StartKamailio with a configuration that lies in a file,
// beside those that it includes.
func StartKamailioFile(tb testing.TB, file string, listen ...string) *Kamailio {
	tb.Helper()
	return startKamailio(tb, newDir(tb, "kamailio"), file, listen)
}

func startKamailio(tb testing.TB, dir, file string, listen []string) *Kamailio {
	tb.Helper()
	k := &Kamailio{Dir: dir}
	k.Process = start(tb, command{
		name: "kamailio", path: find(tb, "kamailio"), dir: k.Dir,
		// -DD: do not become a daemon, but have the usual processes; -E: log to
		// stderr; -Y: where the control sockets go.
		args: []string{
			"-f", patient(tb, k.Dir, file), "-DD", "-E", "-w", k.Dir, "-Y", k.Dir, "-P", filepath.Join(k.Dir, "pid"),
			"-m", "64", "-M", "8",
		},
	})
	tb.Cleanup(func() { k.Stop(tb) }) // killed, it would leave its children behind
	ready := waitFor(startTimeout, func() bool {
		if !k.Running() {
			return true
		}
		for _, l := range listen {
			proto, port := listenPort(tb, l)
			if !bound(proto, port) {
				return false
			}
		}
		return true
	})
	// The sockets are bound before the worker processes connect to the
	// database; a failure there ends Kamailio right after.
	if ready {
		select {
		case <-k.done:
		case <-time.After(300 * time.Millisecond):
		}
	}
	if !ready || !k.Running() {
		tb.Fatalf("servers: kamailio did not start on %v: %s\n%s", listen, k.state(), k.Tail(40))
	}
	return k
}

// patient has Kamailio wait for MariaDB on a busy machine. By default it gives up an
// INSERT after two seconds and sends it again, without a word; where the first one
// was only late the table has the row twice (db_mysql, timeout_interval).
func patient(tb testing.TB, dir, file string) string {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	if !strings.Contains(string(text), "db_mysql") {
		return file
	}
	outer := filepath.Join(dir, "patient.cfg")
	lines := "include_file " + strconv.Quote(file) + "\nmodparam(\"db_mysql\", \"timeout_interval\", 60)\n"
	if err := os.WriteFile(outer, []byte(lines), 0o644); err != nil {
		tb.Fatal(err)
	}
	if !CheckKamailio(tb, outer, nil).Accepted {
		return file // the module is loaded under some condition only
	}
	return outer
}

// Stop ends Kamailio in order.
func (k *Kamailio) Stop(tb testing.TB) {
	tb.Helper()
	if !k.end(syscall.SIGTERM, 30*time.Second) {
		tb.Log("servers: kamailio did not stop when asked and was killed")
	}
}

// listenPort takes proto and port from "proto:host:port"; the proto of a
// stream is tcp for the kernel's tables.
func listenPort(tb testing.TB, listen string) (string, int) {
	tb.Helper()
	proto, rest, _ := strings.Cut(listen, ":")
	_, p, err := net.SplitHostPort(rest)
	if err != nil {
		tb.Fatalf("servers: listen %q: %v", listen, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		tb.Fatalf("servers: listen %q: %v", listen, err)
	}
	if proto != "udp" {
		proto = "tcp"
	}
	return proto, port
}

// Verdict is what "kamailio -c" says of a configuration.
type Verdict struct {
	Accepted bool
	// Sockets are the addresses it would listen on, "udp:127.0.0.1:5060 advertise
	// 192.0.2.1:5060"; Aliases the host names it would take for its own, in the order
	// of the file, "*:example.com:5060" with * for any protocol or port.
	Sockets, Aliases []string
	Output           string // what it printed altogether
}

// CheckKamailio has Kamailio check a configuration. env adds to the environment, args
// to its command line.
func CheckKamailio(tb testing.TB, file string, env []string, args ...string) Verdict {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, find(tb, "kamailio"), append([]string{"-c", "-E", "-m", "16", "-M", "8", "-f", file}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		tb.Fatalf("servers: kamailio -c -f %s: %v\n%s", file, err, stderr.String())
	}
	sockets, aliases, _ := strings.Cut(stdout.String(), "Aliases: \n")
	v := Verdict{Accepted: err == nil, Output: stdout.String() + stderr.String()}
	for _, m := range socketLine.FindAllStringSubmatch(sockets, -1) {
		if strings.Contains(m[2], ":") {
			m[2] = "[" + m[2] + "]"
		}
		v.Sockets = append(v.Sockets, m[1]+":"+m[2]+":"+m[3]+m[4])
	}
	for _, m := range aliasLine.FindAllStringSubmatch(aliases, -1) {
		v.Aliases = append(v.Aliases, m[1]+":"+m[2])
	}
	slices.Reverse(v.Aliases) // the last one is printed first
	return v
}

var (
	socketLine = regexp.MustCompile(`(?m)^ +(\w+): (?:\S+ )?\[?([0-9a-f.:]+?)\]?:(\d+)(?: virtual)?(?: name \S+)?( advertise \S+)?\s*$`)
	aliasLine  = regexp.MustCompile(`(?m)^ {13}(\w+|\*): ((?s:.*?:(?:\d+|\*)))$`)
)
