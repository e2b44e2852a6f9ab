package simulate

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	shortSeeds = 2000
	longSeeds  = 100000
	// exactSeeds are run twice.
	exactSeeds = 60
)

// TestSeeds runs the simulation. SIPTEST_SEEDS=FROM-TO names other seeds; a single one
// tells what happens.
func TestSeeds(t *testing.T) {
	s := base(t)
	all := span{1, shortSeeds}
	if os.Getenv("SIPTEST_LONG") != "" {
		all.last = longSeeds
	}
	if text := os.Getenv("SIPTEST_SEEDS"); text != "" {
		from, to, found := strings.Cut(text, "-")
		if !found {
			tell(t, s, from)
			return
		}
		var err [2]error
		all.first, err[0] = strconv.ParseUint(from, 10, 64)
		all.last, err[1] = strconv.ParseUint(to, 10, 64)
		if err[0] != nil || err[1] != nil {
			t.Fatalf("SIPTEST_SEEDS=%q: use FROM-TO", text)
		}
	}
	began, n := time.Now(), 0
	s.run(t, all, func(r result) bool {
		if n++; n%5000 == 0 {
			fmt.Printf("%d seeds, %.1f/s\n", n, float64(n)/time.Since(began).Seconds())
		}
		report(t, r)
		return true
	})
	t.Logf("%d seeds, %.1f/s", n, float64(n)/time.Since(began).Seconds())
	if want := int(all.last - all.first + 1); n != want {
		t.Errorf("%d seeds ended, not %d", n, want)
	}
}

func report(t *testing.T, r result) {
	t.Helper()
	if r.finding != "" {
		t.Errorf("seed %d: %s\n\tSIPTEST_SEEDS=%d go test ./tests/simulate -run TestSeeds -v", r.seed, r.finding, r.seed)
	}
}

// tell runs one seed and prints its story.
func tell(t *testing.T, s *simulation, seed string) {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		t.Fatalf("SIPTEST_SEEDS=%q: use a number, or FROM-TO", seed)
	}
	cmd := s.command(span{n, n})
	cmd.Env = append(cmd.Env, "SIPTEST_TRACE=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	s.part(span{n, n}, func(r result) bool {
		report(t, r)
		return true
	})
}

// TestExact runs seeds twice, once in one order and once each in a process of its own,
// and compares all that happened.
func TestExact(t *testing.T) {
	s := base(t)
	hashes := map[uint64]string{}
	s.run(t, span{1, exactSeeds}, func(r result) bool {
		hashes[r.seed] = r.hash
		return true
	})
	for seed := uint64(exactSeeds); seed > 0; seed -= 2 {
		s.part(span{seed, seed}, func(r result) bool {
			if r.hash != hashes[seed] {
				t.Errorf("seed %d: two runs differ: %s and %s", seed, hashes[seed], r.hash)
			}
			return true
		})
	}
}

// base builds the simulation as it is. SIPTEST_SIMULATION names a file that has it, or
// gets it.
func base(t *testing.T) *simulation {
	t.Helper()
	kept := os.Getenv("SIPTEST_SIMULATION")
	if _, err := os.Stat(kept); err == nil {
		return &simulation{binary: kept}
	}
	o := newOverlay(t)
	if err := o.runtime(); err != nil {
		t.Fatal(err)
	}
	binary, err := o.build()
	if err == nil && kept != "" {
		err = os.Rename(binary, kept)
		binary = kept
	}
	if err != nil {
		t.Fatal(err)
	}
	return &simulation{binary: binary}
}
