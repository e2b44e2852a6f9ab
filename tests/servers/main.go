package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// MainOptions are what the packages of tests differ in.
type MainOptions struct {
	NoRace bool // rates, times and memory count: never with the race detector
	// Plain gets the path of one without the race detector, for those tests that need
	// it at full speed; nil: none does.
	Plain *string
	// Prepare makes what else the tests need, in a directory that lasts as long as
	// they do.
	Prepare func(dir string) error
}

// Main is what TestMain does: it builds siptraced, or takes the one that
// SIPTEST_BIN names, puts its path into program, runs the tests and returns the
// exit code. With SIPTEST_RACE in the environment the program has the race
// detector; SIPTEST_RACE_BIN names one that has it.
func Main(m *testing.M, program *string, o MainOptions) int {
	dir, err := os.MkdirTemp("", "siptraced-bin-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = o.prepare(dir, program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func (o MainOptions) prepare(dir string, program *string) (err error) {
	// Tests stop servers; the driver would tell each connection that it lost.
	err = mysql.SetLogger(&mysql.NopLogger{})
	if o.Prepare != nil {
		err = errors.Join(err, o.Prepare(dir))
	}
	if err != nil {
		return err
	}
	race := !o.NoRace && os.Getenv("SIPTEST_RACE") != ""
	if *program, err = built(dir, race); err != nil || o.Plain == nil {
		return err
	}
	if *o.Plain = *program; race {
		*o.Plain, err = built(dir, false)
	}
	return err
}

// built is the siptraced that the environment names, or one that is built now.
func built(dir string, race bool) (string, error) {
	bin := os.Getenv("SIPTEST_BIN")
	if raced := os.Getenv("SIPTEST_RACE_BIN"); race && raced != "" {
		bin = raced
	}
	if bin != "" {
		return filepath.Abs(bin)
	}
	return Build(dir, race)
}

// Long reports whether the long forms of the tests were asked for: SIPTEST_LONG
// is in the environment.
func Long() bool { return os.Getenv("SIPTEST_LONG") != "" }

// Pick is the value for the short or for the long form.
func Pick[T any](short, long T) T {
	if Long() {
		return long
	}
	return short
}
