package loop_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"siptraced/cmd/siptraced/internal/loop"
)

func origin(stream, n uint64) []byte { return loop.AppendOrigin(nil, stream, n) }

// Packets of two connections of one stream may come in any order: each number is
// new once, as a map would have it.
func TestStreams(t *testing.T) {
	s, seen := loop.NewStreams(), map[uint64]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	base := uint64(0)
	for i := range 200_000 {
		if i%10 == 0 {
			base += 1 + r.Uint64N(3)
		}
		n := base + r.Uint64N(100)
		if r.IntN(20) == 0 {
			s.Refused(origin(7, n))
			delete(seen, n)
			continue
		}
		if got := s.Repeated(origin(7, n)); got != seen[n] {
			t.Fatalf("step %d: number %d repeated %v, want %v", i, n, got, seen[n])
		}
		seen[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(seen)) {
		if s.Repeated(origin(8, n)) {
			t.Fatalf("number %d of another stream", n)
		}
	}
}

// Long ago counts as received, and memory is bounded.
func TestStreamsAreBounded(t *testing.T) {
	s := loop.NewStreams()
	for n := uint64(1); n <= 100_000; n++ {
		if s.Repeated(origin(1, 2*n)) {
			t.Fatalf("number %d", n)
		}
	}
	if !s.Repeated(origin(1, 3)) || s.Repeated(origin(1, 199_999)) {
		t.Error("want what is old to count as received, and a recent gap as open")
	}
	for stream := range uint64(10_000) {
		s.Repeated(origin(stream, 1))
	}
	if s.Repeated(origin(1, 2)) {
		t.Error("a stream that was not in use for long is still known")
	}
}

// What is no origin is never a repetition.
func TestNoOrigin(t *testing.T) {
	s := loop.NewStreams()
	for n := range 40 {
		b := make([]byte, n)
		s.Repeated(b)
		if s.Repeated(b) != (n == 16) {
			t.Errorf("%d bytes", n)
		}
		s.Refused(b)
	}
}

// spool refuses while err is set.
type spool struct{ err error }

func (s *spool) Mark() uint64                       { return 0 }
func (s *spool) Sync(context.Context, uint64) error { return s.err }

// What is safe in the spool is known after a restart, and nothing else.
func TestStreamsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "received")
	s, sp := loop.NewStreams(), &spool{}
	reload := func() *loop.Streams {
		t.Helper()
		again := loop.NewStreams()
		if err := again.Load(file); err != nil {
			t.Fatal(err)
		}
		return again
	}
	save := func() {
		t.Helper()
		if err := s.Save(t.Context(), sp, file); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(10) {
		s.Repeated(origin(1, n+1))
	}
	s.Refused(origin(1, 5))
	save()
	s.Repeated(origin(1, 11))
	sp.err = errors.New("not all was taken")
	save()
	again := reload()
	for n := range uint64(11) {
		if got, want := again.Repeated(origin(1, n+1)), n+1 != 5 && n+1 != 11; got != want {
			t.Errorf("number %d: repeated %v, want %v", n+1, got, want)
		}
	}
	sp.err = nil
	save()
	if !reload().Repeated(origin(1, 11)) {
		t.Error("number 11 is not known though it is safe")
	}
}
