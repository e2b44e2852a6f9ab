package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// program is the siptraced that the tests drive, built by TestMain.
var program string

func TestMain(m *testing.M) { os.Exit(servers.Main(m, &program, servers.MainOptions{})) }

// outcome is how a program ended.
type outcome struct {
	code   int
	stdout string
	stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\n%s\n%s", o.code, o.stdout, o.stderr)
}

// command runs a program to its end.
func command(tb testing.TB, dir, stdin, name string, args ...string) outcome {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if path, err := exec.LookPath(name); err == nil {
		name = path
	} else {
		name = filepath.Join("/usr/sbin", name)
	}
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		tb.Fatalf("%s %q: %v\n%s", name, args, err, stderr.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must is command for programs that have no reason to fail.
func must(tb testing.TB, dir, stdin, name string, args ...string) string {
	tb.Helper()
	o := command(tb, dir, stdin, name, args...)
	if o.code != 0 {
		tb.Fatalf("%s %q: %v", name, args, o)
	}
	return o.stdout
}

func readFile(tb testing.TB, file string) string {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func write(tb testing.TB, file, text string) string {
	tb.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644))
	if err != nil {
		tb.Fatal(err)
	}
	return file
}
