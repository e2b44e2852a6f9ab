package servers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Run runs a program to its end, which has to come within two minutes, and returns
// what it printed.
func Run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	return run(tb, "", "", find(tb, name), args...)
}

func run(tb testing.TB, dir, stdin, path string, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s %q: %v\n%s%s", path, args, err, out.String(), errOut.String())
	}
	return out.String()
}

// NodeScript is a script of Node.js with the packages that its package.json names.
type NodeScript struct{ node, dir, file string }

// NewNodeScript copies a directory with a script and its package.json, and has npm
// put the packages there.
func NewNodeScript(tb testing.TB, dir, file string) *NodeScript {
	tb.Helper()
	s := &NodeScript{find(tb, "node"), newDir(tb, "node"), file}
	for _, name := range []string{"package.json", file} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(s.dir, name), b, 0o644)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	Run(tb, "npm", "install", "--prefix", s.dir, "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--no-update-notifier")
	return s
}

// Run runs the script to its end.
func (s *NodeScript) Run(tb testing.TB, stdin string, args ...string) {
	tb.Helper()
	run(tb, s.dir, stdin, s.node, append([]string{s.file}, args...)...)
}

// Listen runs the script until the test ends, and waits until it has bound a port.
func (s *NodeScript) Listen(tb testing.TB, network string, port int, args ...string) *Process {
	tb.Helper()
	p := start(tb, command{name: s.file, path: s.node, args: append([]string{s.file}, args...), dir: s.dir})
	WaitFor(tb, startTimeout, s.file+" to listen", func() bool { return !p.Running() || bound(network, port) })
	return p
}

// RTPEngine is a running rtpengine, without its kernel module.
type RTPEngine struct {
	*Process
	control net.Conn // of its NG protocol
	calls   int
}

// Where rtpengine takes ports for media: above those that FreePort gives, below
// those that the kernel gives.
const firstMedia, lastMedia = firstPort + portBlocks*portBlock, 32767

// StartRTPEngine starts rtpengine, which sends what it learns of RTCP as HEP3 to a
// collector, over udp or tcp. It ends with the test.
func StartRTPEngine(tb testing.TB, homer, network string, captureID int) *RTPEngine {
	tb.Helper()
	dir, control := newDir(tb, "rtpengine"), fmt.Sprintf("127.0.0.1:%d", FreePort(tb))
	r := &RTPEngine{Process: start(tb, command{name: "rtpengine", path: find(tb, "rtpengine"), dir: dir, args: []string{
		"--config-file=none", "--foreground", "--log-stderr", "--table=-1", "--interface=127.0.0.1", "--listen-ng=" + control,
		fmt.Sprintf("--port-min=%d", firstMedia), fmt.Sprintf("--port-max=%d", lastMedia),
		"--homer=" + homer, "--homer-protocol=" + network, fmt.Sprintf("--homer-id=%d", captureID),
		"--pidfile=" + filepath.Join(dir, "pid"),
	}})}
	var err error
	if r.control, err = net.Dial("udp", control); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.control.Close() })
	WaitFor(tb, startTimeout, "rtpengine to answer", func() bool {
		_, err := r.command("d7:command4:pinge")
		return !r.Running() || err == nil
	})
	return r
}

// Command sends a command of the NG protocol with these values, "command" the first
// of them, and returns the answer as it came, bencoded.
func (r *RTPEngine) Command(tb testing.TB, values ...[2]string) string {
	tb.Helper()
	var b strings.Builder
	b.WriteByte('d')
	for _, v := range values {
		fmt.Fprintf(&b, "%d:%s%d:%s", len(v[0]), v[0], len(v[1]), v[1])
	}
	b.WriteByte('e')
	answer, err := r.command(b.String())
	if err != nil || !strings.Contains(answer, "6:result2:ok") {
		tb.Fatalf("rtpengine: %s: %q, %v", b.String(), answer, err)
	}
	return answer
}

func (r *RTPEngine) command(text string) (answer string, err error) {
	r.calls++
	cookie := fmt.Sprintf("%d ", r.calls)
	if _, err := r.control.Write([]byte(cookie + text)); err != nil {
		return "", err
	}
	buf := make([]byte, 64<<10)
	_ = r.control.SetReadDeadline(time.Now().Add(time.Second))
	for {
		n, err := r.control.Read(buf)
		if err != nil {
			return "", err
		}
		if answer, ok := strings.CutPrefix(string(buf[:n]), cookie); ok {
			return answer, nil
		}
	}
}
