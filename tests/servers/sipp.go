package servers

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Sipp is one run of sipp.
type Sipp struct {
	Name      string            // for messages
	Scenario  string            // the scenario's XML
	Remote    string            // host:port to call; "" for a scenario that waits for calls
	LocalIP   string            // 127.0.0.1 if empty
	LocalPort int               // 0 means a free one
	Transport string            // sipp's -t: u1 (UDP, one socket, also if empty), t1 (TCP, one socket)
	Calls     int               // how many calls; 0 means no end, for a scenario that waits
	Rate      int               // calls per second, 10 if zero
	Keys      map[string]string // words in [brackets] of the scenario
	User      string            // [service], sipp's -s
	AuthUser  string            // for [authentication]
	AuthPass  string
}

// SippRun is a sipp that runs.
type SippRun struct {
	*Process
	Dir string
}

// StartSipp starts sipp and returns at once, or, for a scenario that waits for
// calls, when its port is bound. It ends with the test.
func StartSipp(tb testing.TB, s Sipp) *SippRun {
	tb.Helper()
	dir := newDir(tb, "sipp")
	file := filepath.Join(dir, "scenario.xml")
	// sipp reads the XML declaration only as the very first bytes.
	if err := os.WriteFile(file, []byte(strings.TrimSpace(s.Scenario)+"\n"), 0o644); err != nil {
		tb.Fatal(err)
	}
	if s.LocalIP == "" {
		s.LocalIP = "127.0.0.1"
	}
	if s.LocalPort == 0 {
		s.LocalPort = FreePort(tb)
	}
	if s.Transport == "" {
		s.Transport = "u1"
	}
	if s.Rate == 0 {
		s.Rate = 10
	}
	args := []string{
		"-sf", file, "-nostdin", "-i", s.LocalIP, "-p", itoa(s.LocalPort), "-t", s.Transport,
		"-r", itoa(s.Rate), "-trace_err", "-error_file", filepath.Join(dir, "errors.log"),
		// A control port of its own: sipp tries 8888 and up otherwise.
		"-ci", "127.0.0.1", "-cp", itoa(FreePort(tb)),
	}
	if s.Calls > 0 {
		args = append(args, "-m", itoa(s.Calls))
	}
	for k, v := range s.Keys {
		args = append(args, "-key", k, v)
	}
	if s.User != "" {
		args = append(args, "-s", s.User)
	}
	if s.AuthUser != "" {
		args = append(args, "-au", s.AuthUser, "-ap", s.AuthPass)
	}
	if s.Remote != "" {
		args = append(args, s.Remote)
	}
	r := &SippRun{Dir: dir}
	r.Process = start(tb, command{name: "sipp-" + s.Name, path: find(tb, "sipp"), args: args, dir: dir})
	if s.Remote == "" {
		proto := "udp"
		if strings.HasPrefix(s.Transport, "t") {
			proto = "tcp"
		}
		WaitFor(tb, startTimeout, "sipp "+s.Name+" to listen", func() bool { return !r.Running() || bound(proto, s.LocalPort) })
	}
	return r
}

// RunSipp runs sipp to its end. A failed call fails the test.
func RunSipp(tb testing.TB, timeout time.Duration, s Sipp) {
	tb.Helper()
	r := StartSipp(tb, s)
	r.Expect(tb, timeout)
}

// Expect waits for the end of the run and fails the test when a call failed.
func (r *SippRun) Expect(tb testing.TB, timeout time.Duration) {
	tb.Helper()
	if code := r.Wait(tb, timeout); code != 0 {
		errs, err := os.ReadFile(filepath.Join(r.Dir, "errors.log"))
		if err != nil {
			errs = []byte("(no error file)")
		}
		tb.Fatalf("%s: exit code %d\n%s\n%s", r.Name, code, tail(string(errs), 30), r.Tail(60))
	}
}

// Stop ends a run that waits for calls.
func (r *SippRun) Stop() {
	r.end(syscall.SIGTERM, 5*time.Second)
}
