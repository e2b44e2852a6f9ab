package servers

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// Sngrep is a running sngrep that listens for HEP3.
type Sngrep struct{ *Process }

// StartSngrep runs sngrep without a screen, listening at a UDP port of
// 127.0.0.1; what it makes of the packets goes to a pcap file. It ends with the
// test.
func StartSngrep(tb testing.TB, port int, pcap string) *Sngrep {
	tb.Helper()
	return startSngrep(tb, port, command{args: []string{"-F", "-N", "-O", pcap, "-L", listener(port)}})
}

// StartSngrepScreen runs sngrep on a terminal of its own, the bytes of which are
// its standard output.
func StartSngrepScreen(tb testing.TB, port int) *Sngrep {
	tb.Helper()
	return startSngrep(tb, port, command{terminal: true, args: []string{"-F", "-L", listener(port)}})
}

func listener(port int) string { return fmt.Sprintf("udp:127.0.0.1:%d", port) }

func startSngrep(tb testing.TB, port int, c command) *Sngrep {
	tb.Helper()
	c.name, c.path, c.dir, c.env = "sngrep", find(tb, "sngrep"), newDir(tb, "sngrep"), []string{"TERM=xterm"}
	s := &Sngrep{start(tb, c)}
	WaitFor(tb, startTimeout, "sngrep to listen", func() bool { return !s.Running() || bound("udp", port) })
	return s
}

// Stop ends sngrep in order; its file is complete then.
func (s *Sngrep) Stop(tb testing.TB) {
	tb.Helper()
	if !s.end(os.Interrupt, 10*time.Second) {
		tb.Log("servers: sngrep did not stop when asked and was killed")
	}
}
