package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Build builds ./cmd/siptraced into dir and returns the program's path. With race
// it is built with the race detector. Tests call Main.
func Build(dir string, race bool) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	bin, args := filepath.Join(dir, "siptraced"), []string{"build"}
	if race {
		bin += "-race"
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", bin, "./cmd/siptraced")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("servers: go build ./cmd/siptraced: %w\n%s", err, out)
	}
	return bin, nil
}

// moduleRoot is the directory with go.mod, at or above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("servers: no go.mod at or above the working directory")
		}
		dir = up
	}
}

// Command is one call of siptraced.
type Command struct {
	Bin  string   // what Build returned
	Args []string // run, --set, ...
	Dir  string   // working directory; "" means a new, empty one
	Env  []string // NAME=value, added to the environment
}

func (c *Command) prepare(tb testing.TB) {
	tb.Helper()
	if c.Bin == "" {
		tb.Fatal("servers: Command without Bin")
	}
	if c.Dir == "" {
		c.Dir = newDir(tb, "siptraced")
	}
}

// Result is what a call of siptraced that has ended left.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// RunSiptraced runs siptraced to its end, which has to come within a minute.
func RunSiptraced(tb testing.TB, c Command) Result {
	tb.Helper()
	c.prepare(tb)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Bin, c.Args...)
	cmd.Dir, cmd.Env = c.Dir, append(os.Environ(), c.Env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		tb.Fatalf("siptraced %q: %v\n%s\n%s", c.Args, err, stderr.String(), stdout.String())
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
}

// StartProgram starts a call of siptraced that the test ends. It ends with the test.
func StartProgram(tb testing.TB, c Command) *Process {
	tb.Helper()
	c.prepare(tb)
	return start(tb, command{name: "siptraced", path: c.Bin, args: c.Args, dir: c.Dir, env: c.Env})
}

// Siptraced is a running daemon.
type Siptraced struct {
	*Process
	Dir string // its working directory
}

// readyLine is the log line that the daemon writes when all its sockets are
// bound.
var readyLine = regexp.MustCompile(`(?m)\bmsg="?ready"?(\s|$)`)

// StartSiptraced starts the daemon and waits until it is ready. It ends with
// the test.
func StartSiptraced(tb testing.TB, c Command) *Siptraced {
	tb.Helper()
	c.prepare(tb)
	s := &Siptraced{Dir: c.Dir}
	s.Process = start(tb, command{name: "siptraced", path: c.Bin, args: c.Args, dir: c.Dir, env: c.Env})
	ready := waitFor(startTimeout, func() bool { return !s.Running() || readyLine.MatchString(s.Stderr()) })
	if !ready || !s.Running() {
		tb.Fatalf("siptraced %q did not get ready: %s\n%s", c.Args, s.state(), s.Tail(40))
	}
	return s
}

// Stop asks the daemon to drain and end, and returns its exit code. A daemon
// that is still there after a minute fails the test.
func (s *Siptraced) Stop(tb testing.TB) int {
	tb.Helper()
	s.Signal(tb, syscall.SIGTERM)
	return s.Wait(tb, time.Minute)
}

// MustStop is Stop for tests in which the daemon has no reason to fail.
func (s *Siptraced) MustStop(tb testing.TB) {
	tb.Helper()
	if code := s.Stop(tb); code != 0 {
		tb.Errorf("siptraced: exit code %d after SIGTERM, want 0\n%s", code, s.Tail(40))
	}
}

// Counters reads the last line of counters that the daemon printed.
func (s *Siptraced) Counters(tb testing.TB) Counters {
	tb.Helper()
	c, n := lastCounters(s.Stdout())
	if n == 0 {
		tb.Fatalf("siptraced printed no counters\n%s", s.Tail(40))
	}
	return c
}

// CountersNow has the running daemon print its counters and returns them.
func (s *Siptraced) CountersNow(tb testing.TB) Counters {
	tb.Helper()
	_, before := lastCounters(s.Stdout())
	s.Signal(tb, syscall.SIGUSR1)
	WaitFor(tb, time.Minute, "siptraced to print its counters", func() bool {
		_, n := lastCounters(s.Stdout())
		return n > before || !s.Running()
	})
	return s.Counters(tb)
}

func itoa(n int) string { return strconv.Itoa(n) }
