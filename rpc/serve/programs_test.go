package serve_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/rpc/serve"
)

// Where Debian's packages install the programs.
const (
	kamcmd = "/usr/sbin/kamcmd"
	kamctl = "/usr/sbin/kamctl"
)

// run runs a shell command with a deadline of its own: the programs have none.
func run(t testing.TB, command, stdin string, env ...string) (stdout, stderr string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// A group of its own, as kamctl has children that wait as well.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%s: no answer in 10 s; printed %q, %q", command, out.String(), errOut.String())
	}
	if e, failed := errors.AsType[*exec.ExitError](err); failed {
		return out.String(), errOut.String(), e.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), 0
}

func TestKamcmdPrintsAsWithKamailio(t *testing.T) {
	for _, r := range recordings(t, 55, "kamcmd_") {
		t.Run(r.Name, func(t *testing.T) {
			s := start(t, serve.Config{}, serve.Handlers{Registry: playback(t, r)})
			args, _ := strings.CutPrefix(r.Command, "kamcmd")
			if !strings.Contains(args, " -s ") {
				args = " -s unixs:" + s.ctl + args
			}
			args = strings.NewReplacer(
				"/run/kamailio/kamailio_ctl_dgram", s.ctlGram,
				"/run/kamailio/kamailio_ctl", s.ctl,
				"/run/kamailio/my_reply_sock", s.dir+"/my_reply_sock",
				"tcp:127.0.0.1:16049", "tcp:"+s.tcp,
				"127.0.0.1:16049", s.udp,
			).Replace(args)
			stdout, stderr, exit := run(t, kamcmd+args, r.Stdin)
			if stdout != r.Stdout || stderr != r.Stderr || float64(exit) != r.Exit {
				t.Errorf("%s\n got %q, %q, %d\nwant %q, %q, %v", args, stdout, stderr, exit, r.Stdout, r.Stderr, r.Exit)
			}
		})
	}
}

// anID is the id in a reply, the process id of kamctl.
var anID = regexp.MustCompile(`"id":\s*\d+`)

func TestKamctlPrintsAsWithKamailio(t *testing.T) {
	for _, r := range recordings(t, 25, "kamctl_") {
		t.Run(r.Name, func(t *testing.T) {
			s := start(t, serve.Config{Compact: strings.Contains(r.Name, "compact")}, serve.Handlers{Registry: playback(t, r)})
			stdout, stderr, exit := run(t, strings.Replace(r.Command, "kamctl", kamctl, 1), "", "RPCFIFOPATH="+s.fifo)
			got, want := anID.ReplaceAllString(stdout, "ID"), anID.ReplaceAllString(r.Stdout, "ID")
			if got != want || stderr != r.Stderr || float64(exit) != r.Exit {
				t.Errorf("got %q, %q, %d\nwant %q, %q, %v", got, stderr, exit, want, r.Stderr, r.Exit)
			}
		})
	}
}

// works tells whether the unmodified programs are served.
func works(t testing.TB, s *server) {
	t.Helper()
	if stdout, stderr, exit := run(t, kamcmd+" -s unixs:"+s.ctl+" siptrace.status check", ""); stdout != "Enabled\n" || exit != 0 {
		t.Errorf("kamcmd: got %q, %q, %d", stdout, stderr, exit)
	}
	stdout, stderr, exit := run(t, kamctl+" rpc siptrace.status check", "", "RPCFIFOPATH="+s.fifo)
	if !strings.Contains(stdout, `"result": "Enabled"`) || exit != 0 {
		t.Errorf("kamctl: got %q, %q, %d", stdout, stderr, exit)
	}
}
