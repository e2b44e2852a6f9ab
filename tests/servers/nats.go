package servers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BuildNATS builds the NATS server that the daemon has inside as a program of
// its own into dir, and returns its path; or that of the one that SIPTEST_NATS
// names.
func BuildNATS(dir string) (string, error) {
	if bin := os.Getenv("SIPTEST_NATS"); bin != "" {
		return filepath.Abs(bin)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	bin := filepath.Join(dir, "nats-server")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/nats-io/nats-server/v2")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("servers: go build nats-server: %w\n%s", err, out)
	}
	return bin, nil
}

// NATS is one server of a cluster with JetStream.
type NATS struct {
	Port int // for clients, on 127.0.0.1

	bin, dir string
	monitor  int // port of its HTTP pages
	proc     *Process
}

// NATSOptions are more lines of the servers' configuration.
type NATSOptions struct {
	Server    string // of the server
	JetStream string // of its block jetstream
	Cluster   string // of its block cluster
}

// StartNATSCluster starts n servers that form one cluster, each with a store
// of its own, and waits until each of them takes part. They end with the test.
func StartNATSCluster(tb testing.TB, bin string, n int, options ...NATSOptions) []*NATS {
	tb.Helper()
	var o NATSOptions
	for _, more := range options {
		o = more
	}
	var list []*NATS
	var routes []string
	ports := FreePorts(tb, n)
	for _, p := range ports {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", p))
	}
	for i := range n {
		s := &NATS{Port: FreePort(tb), bin: bin, dir: newDir(tb, "nats"), monitor: FreePort(tb)}
		cfg := fmt.Sprintf(`server_name: node%d
listen: "127.0.0.1:%d"
http: "127.0.0.1:%d"
%s
jetstream {
  store_dir: %q, max_memory_store: 67108864, max_file_store: 8589934592
  %s
}
cluster {
  name: spool, listen: "127.0.0.1:%d", routes: [%s]
  %s
}
`, i, s.Port, s.monitor, o.Server, filepath.Join(s.dir, "data"), o.JetStream, ports[i], strings.Join(routes, ", "), o.Cluster)
		if err := os.WriteFile(filepath.Join(s.dir, "nats.conf"), []byte(cfg), 0o644); err != nil {
			tb.Fatal(err)
		}
		s.run(tb)
		list = append(list, s)
	}
	for _, s := range list {
		s.await(tb)
	}
	return list
}

// NATSURL names all servers, in the form of the daemon's key spool.nats.
func NATSURL(list []*NATS) string {
	var hosts []string
	for _, s := range list {
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", s.Port))
	}
	return "nats://" + strings.Join(hosts, ",")
}

// MonitorURL is where the server's monitoring pages are.
func (s *NATS) MonitorURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.monitor) }

// NATSMonitors names the monitoring pages of all servers, in the form of the daemon's key
// spool.monitor.
func NATSMonitors(list []*NATS) string {
	var pages []string
	for _, s := range list {
		pages = append(pages, s.MonitorURL())
	}
	return strings.Join(pages, ",")
}

// Freeze has the server do nothing until Thaw: its connections stay, and what is sent
// to it waits.
func (s *NATS) Freeze(tb testing.TB) { s.proc.Signal(tb, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *NATS) Thaw(tb testing.TB) { s.proc.Signal(tb, syscall.SIGCONT) }

// Start starts the server again after Kill, and waits until it has caught up.
func (s *NATS) Start(tb testing.TB) {
	tb.Helper()
	s.run(tb)
	s.await(tb)
}

func (s *NATS) run(tb testing.TB) {
	tb.Helper()
	s.proc = start(tb, command{name: "nats-server", path: s.bin, args: []string{"-c", filepath.Join(s.dir, "nats.conf")}, dir: s.dir})
}

func (s *NATS) await(tb testing.TB) {
	tb.Helper()
	client := http.Client{Timeout: 2 * time.Second}
	healthy := func() bool {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", s.monitor))
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	if !waitFor(startTimeout, func() bool { return !s.proc.Running() || healthy() }) || !s.proc.Running() {
		tb.Fatalf("servers: nats-server is not healthy on port %d (%s)\n%s", s.Port, s.proc.state(), s.proc.Tail(40))
	}
}

// Kill ends the server as a crash would.
func (s *NATS) Kill() { s.proc.Kill() }

// Stop ends the server in order.
func (s *NATS) Stop(tb testing.TB) {
	tb.Helper()
	if !s.proc.end(syscall.SIGTERM, 30*time.Second) {
		tb.Log("servers: nats-server did not stop when asked and was killed")
	}
}
