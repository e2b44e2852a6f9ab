package durable

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// program is the siptraced that the tests drive, natsServer the NATS server,
// both built by TestMain.
var program, natsServer string

func TestMain(m *testing.M) {
	os.Exit(servers.Main(m, &program, servers.MainOptions{NoRace: true, Prepare: func(dir string) (err error) {
		natsServer, err = servers.BuildNATS(dir)
		return err
	}}))
}

// parallel lets short forms run side by side: they wait more than they work.
func parallel(t *testing.T) {
	t.Helper()
	if !servers.Long() {
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
