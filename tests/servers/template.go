package servers

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TemplateDir is the environment variable that names a directory where the empty
// data directories of database servers are kept, to be copied for each server.
// The packages that are tested share it. Unset means that each server makes its
// data directory anew, which takes seconds in place of a tenth of one.
const TemplateDir = "SIPTEST_TEMPLATES"

// newData makes data, the empty data directory of a server: initialise does the
// work in a directory that is to be, and the same name stands for the same work.
// The owner stays that of the template.
func newData(tb testing.TB, name, data string, initialise func(dir string)) {
	tb.Helper()
	shared := os.Getenv(TemplateDir)
	if shared == "" {
		initialise(data)
		return
	}
	template := filepath.Join(shared, name)
	unlock := lockFile(tb, template+".lock")
	if _, err := os.Stat(template); errors.Is(err, os.ErrNotExist) {
		defer unlock() // initialise may end the test
		fresh, err := os.MkdirTemp(shared, name+"-")
		if err != nil {
			tb.Fatalf("servers: %v", err)
		}
		if err := os.Chmod(fresh, 0o777); err != nil { // PostgreSQL makes it as another user
			tb.Fatalf("servers: %v", err)
		}
		initialise(filepath.Join(fresh, "data"))
		if err := errors.Join(os.Rename(filepath.Join(fresh, "data"), template), os.Remove(fresh)); err != nil {
			tb.Fatalf("servers: %v", err)
		}
	} else {
		unlock()
	}
	if out, err := exec.Command("cp", "-a", "--sparse=always", template, data).CombinedOutput(); err != nil {
		tb.Fatalf("servers: copy %s: %v\n%s", template, err, out)
	}
}

// lockFile locks a file, made if need be, against other processes and other
// tests of this one.
func lockFile(tb testing.TB, path string) (unlock func()) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		tb.Fatalf("servers: %v", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		tb.Fatalf("servers: lock %s: %v", path, err)
	}
	return func() { _ = f.Close() }
}
