//go:build simulation

package simulate

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	_ "unsafe" // for go:linkname
)

// These are in the runtime as tests/simulate builds it.
//
//go:linkname beginSimulation runtime.beginSimulation
func beginSimulation(seed uint64)

//go:linkname setClockStep runtime.setClockStep
func setClockStep(nanoseconds int64)

// TestSeeds runs the seeds that the environment names, SIPTEST_SEEDS=FROM-TO, and
// prints a line for each when it begins and when it is over:
//
//	begin SEED
//	end SEED HASH FAKE_SECONDS FINDINGS, separated by " | "
//
// With SIPTEST_TRACE=1 it tells on stderr what happens.
func TestSeeds(t *testing.T) {
	first, last, err := seeds(os.Getenv("SIPTEST_SEEDS"))
	if err != nil {
		t.Fatal(err)
	}
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1) // it would run in the middle of things
	runtime.MemProfileRate = 0
	// The reject file is a real one.
	dir, err := os.MkdirTemp(memory(), "simulate")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t.Chdir(dir)
	loud := os.Getenv("SIPTEST_TRACE") != ""
	for seed := first; seed <= last; seed++ {
		fmt.Println("begin", seed)
		w := runSeed(t, seed, loud)
		fmt.Printf("end %d %016x %.1f %s\n", seed, w.hash.Sum64(), w.ended.Seconds(), strings.ReplaceAll(strings.Join(w.findings, " | "), "\n", " "))
		if seed%4 == 3 || seed == last {
			runtime.GC()
		}
	}
}

// memory is a file system in memory, "" if there is none.
func memory() string {
	const shm = "/dev/shm"
	if _, err := os.Stat(shm); err != nil {
		return ""
	}
	return shm
}

func seeds(text string) (first, last uint64, err error) {
	from, to, found := strings.Cut(text, "-")
	if !found {
		to = from
	}
	if first, err = strconv.ParseUint(from, 10, 64); err == nil {
		last, err = strconv.ParseUint(to, 10, 64)
	}
	if err != nil || first < 1 || last < first {
		return 0, 0, fmt.Errorf("SIPTEST_SEEDS=%q: use FROM-TO, from 1", text)
	}
	return first, last, nil
}

// runSeed runs one seed.
func runSeed(t *testing.T, seed uint64, loud bool) (w *world) {
	synctest.Test(t, func(t *testing.T) {
		beginSimulation(seed)
		setClockStep(0)
		cryptotest.SetGlobalRandom(t, seed)
		w = newWorld(t, seed, loud)
		w.run()
	})
	return w
}
