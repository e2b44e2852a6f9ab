package durable

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"siptraced/tests/servers"

	"github.com/go-sql-driver/mysql"
)

// program is the siptraced that the tests drive, natsServer the NATS server,
// both built by TestMain.
var program, natsServer string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "siptraced-bin-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string) (err error) {
	// Tests stop servers; the driver would tell each connection that it lost.
	if err := mysql.SetLogger(&mysql.NopLogger{}); err != nil {
		return err
	}
	if natsServer, err = servers.BuildNATS(dir); err != nil {
		return err
	}
	if bin := os.Getenv("SIPTEST_BIN"); bin != "" {
		program, err = filepath.Abs(bin)
		return err
	}
	program, err = servers.Build(dir, false)
	return err
}

// long reports whether the long forms were asked for.
func long() bool { return os.Getenv("SIPTEST_LONG") != "" }

// pick is the value for the short or for the long form.
func pick[T any](short, longer T) T {
	if long() {
		return longer
	}
	return short
}

// parallel lets short forms run side by side: they wait more than they work.
func parallel(t *testing.T) {
	t.Helper()
	if !long() {
		t.Parallel()
	}
}

// random is a source of moments and places; its seed is logged.
func random(tb testing.TB) *rand.Rand {
	tb.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SIPTEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			tb.Fatal(errors.Join(errors.New("SIPTEST_SEED"), err))
		}
	}
	tb.Logf("SIPTEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// between is a random duration from lo to hi.
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)+1))
}
