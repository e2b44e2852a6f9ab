package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestModuleNotLoaded: a proxy that doesn't trace yet. run says so and takes messages
// as without a kamailio.cfg, with that proxy's sockets; the lines that it prints,
// put into the file, make it that proxy's trace.
func TestModuleNotLoaded(t *testing.T) {
	t.Parallel()
	port := servers.FreePort(t)
	dir := t.TempDir()
	cfg := filepath.Join(dir, "kamailio.cfg")
	proxy := func(lines string) {
		write(t, cfg, "listen=udp:192.0.2.1:5060\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\n"+lines+"request_route { exit; }\n")
	}
	proxy("")
	args := append([]string{"run", "--kamailio-cfg", cfg, "--set", fmt.Sprintf("listen=udp:127.0.0.1:%d", port)}, noControl...)
	d := &daemon{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	d.Siptraced = servers.StartSiptraced(t, servers.Command{Bin: program, Args: args, Dir: dir})
	d.feed(t, "udp", good("not-loaded"))
	db := sqliteFile(t, filepath.Join(dir, "siptraced.db"))
	db.await(t, d, "sip_trace", 1, time.Minute)
	log := d.Stderr()
	if n := strings.Count(log, "siptrace is not loaded in "+cfg+": that proxy mirrors nothing"); n != 1 || !strings.Contains(log, "level=WARN msg=configuration warning=") {
		t.Errorf("said %d times that siptrace is not loaded, want once, as a warning:\n%s", n, log)
	}
	if strings.Contains(log, "mysql") {
		t.Errorf("a database that nobody named:\n%s", log)
	}
	var lines strings.Builder
	for line := range strings.Lines(log) {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "loadmodule ") || strings.HasPrefix(text, "modparam(") {
			lines.WriteString(text + "\n")
		}
	}
	if !strings.Contains(lines.String(), `loadmodule "siptrace.so"`) {
		t.Fatalf("no lines for kamailio.cfg:\n%s", log)
	}
	proxy(lines.String())
	if v := servers.CheckKamailio(t, cfg, nil, "-l", "udp:127.0.0.1"); !v.Accepted {
		t.Errorf("Kamailio refuses the lines:\n%s", v.Output)
	}
	before := len(d.Stderr())
	d.Signal(t, syscall.SIGHUP)
	servers.WaitFor(t, time.Minute, "the configuration to be read again", func() bool { return strings.Contains(d.Stderr()[before:], "siptrace.hep_mode_on") })
	d.feed(t, "udp", good("loaded"))
	db.await(t, d, "sip_trace", 2, time.Minute)
	if after := d.Stderr()[before:]; strings.Contains(after, "not loaded") {
		t.Errorf("the module is loaded now:\n%s", after)
	}
	d.stop(t)
}
