package servers

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that runs beside the test.
type Process struct {
	Name   string // what it is called in messages
	cmd    *exec.Cmd
	stdout *capture
	stderr *capture
	done   chan struct{} // closed when the program has ended
}

// command says what to start.
type command struct {
	name string
	path string
	args []string
	dir  string
	env  []string // added to the test's own environment
	cred *syscall.Credential
	// terminal gives the program a terminal of its own, of 40 lines by 180
	// columns; what it writes there is its standard output.
	terminal bool
}

// start runs the program. It ends with the test at the latest, also when the
// test process is killed.
func start(tb testing.TB, c command) *Process {
	tb.Helper()
	p := &Process{Name: c.name, stdout: &capture{}, stderr: &capture{}, done: make(chan struct{})}
	p.cmd = exec.Command(c.path, c.args...)
	p.cmd.Dir = c.dir
	p.cmd.Env = append(os.Environ(), c.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	// A group of its own keeps an interrupt typed at the test from reaching the
	// server before the test can end it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: c.cred}
	if c.terminal {
		defer onTerminal(tb, p)()
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("servers: start %s: %v", c.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the state is read from cmd.ProcessState
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("%s: %s\n%s", p.Name, p.state(), p.Tail(40))
			p.keep(tb, c.dir)
		}
	})
	return p
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running reports whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal; a program that has ended already is left alone.
func (p *Process) Signal(tb testing.TB, sig os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Fatalf("%s: signal %v: %v", p.Name, sig, err)
	}
}

// Wait waits for the end of the program and returns its exit code, or -1 when
// a signal ended it. A program that still runs after the timeout fails the test.
func (p *Process) Wait(tb testing.TB, timeout time.Duration) int {
	tb.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(timeout):
		tb.Fatalf("%s still runs after %v\n%s", p.Name, timeout, p.Tail(40))
		return -1
	}
}

// end asks the program to end, and makes it end if it does not within the
// grace time. It reports whether asking was enough.
func (p *Process) end(sig os.Signal, grace time.Duration) bool {
	if p.Running() {
		_ = p.cmd.Process.Signal(sig) // it may end between the two lines
	}
	select {
	case <-p.done:
		return true
	case <-time.After(grace):
		p.Kill()
		return false
	}
}

// Kill ends the program at once and waits until it is gone.
func (p *Process) Kill() {
	if p.Running() {
		_ = p.cmd.Process.Kill()
	}
	<-p.done
}

// Stdout returns what the program has written to standard output so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr returns what the program has written to standard error so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Tail returns the last n lines of both outputs, for failure messages.
func (p *Process) Tail(n int) string {
	return fmt.Sprintf("--- %s, end of stderr:\n%s\n--- %s, end of stdout:\n%s",
		p.Name, tail(p.Stderr(), n), p.Name, tail(p.Stdout(), n))
}

// keep writes both outputs whole to files of the program's directory, which
// stays there when the test failed.
func (p *Process) keep(tb testing.TB, dir string) {
	tb.Helper()
	for suffix, text := range map[string]string{"stdout": p.Stdout(), "stderr": p.Stderr()} {
		if text == "" {
			continue
		}
		file := filepath.Join(dir, fmt.Sprintf("%s.%d.%s", p.Name, p.PID(), suffix))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			tb.Logf("servers: %v", err)
		}
	}
}

func (p *Process) state() string {
	if p.Running() {
		return "running"
	}
	return p.cmd.ProcessState.String()
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	for i, l := range lines {
		if len(l) > 1000 {
			lines[i] = l[:1000] + "..."
		}
	}
	return strings.Join(lines, "\n")
}

// capture keeps an output; it is read while the program still writes.
type capture struct {
	mu  sync.Mutex // covers buf
	buf bytes.Buffer
}

func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(b)
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

// LogDir is the environment variable that names the directory where servers
// keep their directories; those of failed tests stay there with their logs.
// Unset means the system's temporary directory.
const LogDir = "SIPTEST_LOGS"

// newDir makes a directory for one server. Its path is short, because the path
// of a Unix socket has room for 107 bytes only.
func newDir(tb testing.TB, name string) string {
	tb.Helper()
	dir, err := os.MkdirTemp(os.Getenv(LogDir), "siptraced-"+name+"-")
	if err != nil {
		tb.Fatalf("servers: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("servers: %s: files kept in %s", name, dir)
			// Databases are large and tell little; the logs beside them are what matters.
			_ = os.RemoveAll(filepath.Join(dir, "data"))
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			tb.Logf("servers: %v", err)
		}
	})
	return dir
}

// ShortDir is a temporary directory whose name leaves room for a socket's name
// within the 107 bytes of a Unix address.
func ShortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/tmp", "srv")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// find returns the first program of that name, on PATH or in one of the
// directories where Debian has programs for root.
func find(tb testing.TB, name string) string {
	tb.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	tb.Fatalf("servers: %s is not installed; tests/run installs it", name)
	return ""
}
