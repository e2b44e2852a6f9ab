package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"siptraced/tests/servers"
)

// TestVersion builds siptraced as an operator does, with `go build` in a clone, and
// wants the commit in what it says of itself.
func TestVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	copySources(t, dir)
	run := func(env []string, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git := func(args ...string) string {
		t.Helper()
		return run(nil, "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"}, args...)...)
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "sources")
	// Which is the default of the Go command, whatever this machine has.
	bin := filepath.Join(t.TempDir(), "siptraced")
	run([]string{"GOFLAGS=-buildvcs=auto"}, "go", "build", "-o", bin, "./cmd/siptraced")
	commit := git("rev-parse", "HEAD")
	for _, arg := range []string{"--version", "version"} {
		r := servers.RunSiptraced(t, servers.Command{Bin: bin, Args: []string{arg}})
		if r.Code != 0 || !strings.Contains(r.Stdout, "\nrevision: "+commit+", committed 2") || !regexp.MustCompile(`^siptraced \S+ \(\S+/linux\) `+commit[:7]+`\n`).MatchString(r.Stdout) {
			t.Errorf("%s: exit code %d, want commit %s in\n%s%s", arg, r.Code, commit, r.Stdout, r.Stderr)
		}
	}
	d := servers.StartSiptraced(t, servers.Command{Bin: bin, Args: []string{
		"run", "--set", "listen=udp:127.0.0.1:0", "--set", "rpc.http=", "--set", "rpc.ctl=unix:ctl", "--set", "siptrace.trace_to_database=0",
	}})
	for method, want := range map[string]string{"core.version": commit[:7], "core.info": "id: " + commit} {
		r := servers.RunSiptraced(t, servers.Command{Bin: bin, Dir: d.Dir, Args: []string{"rpc", "-s", "unix:ctl", method}})
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("%s: want %s in %q, %s", method, want, r.Stdout, r.Stderr)
		}
	}
	d.MustStop(t)
}

// copySources copies what the build needs of the module.
func copySources(t *testing.T, to string) {
	t.Helper()
	for _, name := range []string{"cmd", "compat", "rpc", "hep", "dbschema", "xheaders", "go.mod", "go.sum"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, name), to).CombinedOutput(); err != nil {
			t.Fatalf("cp %s: %v\n%s", name, err, out)
		}
	}
}

// TestUsage: what the command line has wrong ends with exit code 2, and names what
// would be right.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"chek"}, `did you mean "check"?`},
		{[]string{"frobnicate"}, "siptraced --help"},
		{[]string{"schema", "foo"}, "siptraced schema --help"},
		{[]string{"schema", "chekc"}, `did you mean "check"?`},
		{[]string{"check", "x"}, `"x"`},
		{[]string{"check", "--no-such-flag"}, "no-such-flag"},
		{[]string{"version", "x"}, `"x"`},
	} {
		if r := siptraced(t, 2, tt.args...); !strings.Contains(r.Stderr, tt.want) || r.Stdout != "" {
			t.Errorf("%q: got %q, want %q", tt.args, r.Stderr, tt.want)
		}
	}
}
