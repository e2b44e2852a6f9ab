package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestFileModes runs the daemon as a service of systemd with an umask that takes
// nothing away. No file with messages or settings is for every user, and all of them
// are in systemd's directories.
func TestFileModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state, logs, runtime := filepath.Join(dir, "state"), filepath.Join(dir, "logs"), servers.ShortDir(t)
	for _, d := range []string{state, logs} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	wrapper := write(t, filepath.Join(dir, "siptraced"), "#!/bin/sh\numask 0\nexec "+program+" \"$@\"\n")
	if err := os.Chmod(wrapper, 0o755); err != nil {
		t.Fatal(err)
	}
	port := servers.FreePort(t)
	d := &daemon{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	d.Siptraced = servers.StartSiptraced(t, servers.Command{
		Bin: wrapper, Dir: t.TempDir(),
		Args: []string{"run", "--set", fmt.Sprintf("listen=udp:127.0.0.1:%d", port), "--set", "rpc.http=", "--set", "rpc.state_file=" + filepath.Join(state, "rpc.json")},
		Env:  []string{"STATE_DIRECTORY=" + state + ":/elsewhere", "LOGS_DIRECTORY=" + logs, "RUNTIME_DIRECTORY=" + runtime},
	})
	d.feed(t, "udp", good("modes"))
	sqliteFile(t, filepath.Join(state, "siptraced.db")).await(t, d, "sip_trace", 1, time.Minute)
	for _, args := range [][]string{{"siptrace.status", "off"}, {"siptrace.trace.start", "id=x", "request.method == 'INVITE'"}} {
		r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: append([]string{"rpc", "-s", "unix:" + filepath.Join(runtime, "ctl")}, args...)})
		if r.Code != 0 {
			t.Errorf("%q: %s%s", args, r.Stdout, r.Stderr)
		}
	}
	want := []string{
		"state/rpc.json", "state/siptraced.db", "state/siptraced.rules.json", "state/siptraced.spool", "state/siptraced.spool/instance",
		"logs/siptraced.rejects.jsonl", "state/siptraced.db-wal", "state/siptraced.db-shm",
	}
	for _, name := range want {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%v", err)
		}
	}
	check := func() {
		for _, top := range []string{state, logs} {
			err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
				if err != nil || path == top {
					return err
				}
				info, err := e.Info()
				if err == nil && info.Mode().Perm()&0o027 != 0 {
					t.Errorf("%s has mode %04o", path, info.Mode().Perm())
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	check()
	d.stop(t)
	check()
	if list, err := os.ReadDir(d.Dir); err != nil || len(list) != 0 {
		t.Errorf("in the current directory: %v, %v; want nothing", list, err)
	}
}

// TestExposedFiles: files that are there keep their mode, and the operator is told of
// those that every user can read.
func TestExposedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"siptraced.db", "siptraced.rejects.jsonl"} {
		write(t, filepath.Join(dir, name), "")
	}
	d := start(t, options{dir: dir})
	for _, name := range []string{"siptraced.db", "siptraced.rejects.jsonl"} {
		if want := "chmod o-r " + name; !strings.Contains(d.Stderr(), want) {
			t.Errorf("%q is not in the log:\n%s", want, d.Tail(20))
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v; want the mode that it had", name, info.Mode(), err)
		}
	}
	d.stop(t)
}

// TestNoPermission: a user without a right to the default directory of the control
// socket is told what to do, and siptraced runs.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	dir := servers.ShortDir(t)
	runtime := filepath.Join(dir, "run") // stands for /run/siptraced
	if err := os.Mkdir(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	asNobody(t, dir)
	d := servers.StartSiptraced(t, servers.Command{
		Bin: "/usr/bin/setpriv", Dir: filepath.Join(dir, "home"), Env: []string{"RUNTIME_DIRECTORY=" + runtime},
		Args: []string{"--reuid", "65534", "--regid", "65534", "--clear-groups", filepath.Join(dir, "siptraced"), "run", "--set", "listen=udp:127.0.0.1:0", "--set", "rpc.http="},
	})
	if log := d.Stderr(); !strings.Contains(log, "permission denied") || !strings.Contains(log, "RuntimeDirectory=siptraced") || !strings.Contains(log, "rpc.ctl") {
		t.Errorf("no remedy in\n%s", log)
	}
	d.MustStop(t)
}

// asNobody copies the program and makes a home where another user can use them.
func asNobody(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "siptraced"), b, 0o755)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "home"), 0o755)
	}
	if err == nil {
		err = os.Chown(filepath.Join(dir, "home"), 65534, 65534)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Access(dir, 1); err != nil {
		t.Fatal(err)
	}
}
