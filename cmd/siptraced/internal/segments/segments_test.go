package segments

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// rig is an engine with one log.
type rig struct {
	t      *testing.T
	cfg    Config
	engine *Engine
	log    *Log
	said   *speech
}

// speech is what was logged.
type speech struct {
	mu   sync.Mutex // covers text
	text bytes.Buffer
}

func (s *speech) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *speech) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func start(t *testing.T, fs disk.FS, dir string, every time.Duration, limits journal.Limits, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, said: &speech{}}
	r.cfg = Config{FS: fs, Dir: dir, SyncInterval: every, SegmentSize: 64 << 10, Log: slog.New(slog.NewTextHandler(r.said, nil))}
	for _, f := range change {
		f(&r.cfg)
	}
	r.open(limits)
	return r
}

func (r *rig) open(limits journal.Limits) {
	r.t.Helper()
	var err error
	if r.engine, err = Open(context.Background(), r.cfg); err != nil {
		r.t.Fatal(err)
	}
	e := r.engine
	r.t.Cleanup(func() { _ = e.Close(context.Background()) }) // of a test that failed
	l, err := r.engine.Open(context.Background(), 0, limits)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = l.(*Log)
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.engine.Close(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

// entry is one whose bytes say which one it is.
func entry(n, size int) *journal.Entry {
	data := make([]byte, max(size, 8))
	binary.LittleEndian.PutUint64(data, uint64(n))
	rng := rand.NewPCG(uint64(n), 1)
	for i := 8; i+8 <= len(data); i += 8 {
		binary.LittleEndian.PutUint64(data[i:], rng.Uint64())
	}
	return &journal.Entry{Records: n%5 + 1, Taken: time.Unix(int64(n), 0), Data: data}
}

// sizeOf makes entries of different sizes.
func sizeOf(n int) int { return 100 + n*977%3000 }

// append appends the entries from first to last, several at a time.
func (r *rig) append(first, last int) {
	r.t.Helper()
	for n := first; n <= last; {
		var entries []*journal.Entry
		for ; n <= last && len(entries) < 7; n++ {
			entries = append(entries, entry(n, sizeOf(n)))
		}
		k, err := r.log.Append(context.Background(), entries)
		if err != nil || k != len(entries) {
			r.t.Fatalf("append: %d of %d, %v", k, len(entries), err)
		}
	}
}

// read reads all entries behind one, checks each, and returns which they are.
func (r *rig) read(after uint64) (numbers []int) {
	r.t.Helper()
	c, _ := r.log.Read(context.Background(), after)
	defer c.Close()
	last := after
	for {
		e, err := c.Next(context.Background())
		if errors.Is(err, journal.ErrEnd) {
			return numbers
		}
		if err != nil {
			r.t.Fatal(err)
		}
		n := r.verify(&e)
		if e.Seq <= last {
			r.t.Fatalf("entry %d behind %d", e.Seq, last)
		}
		last = e.Seq
		numbers = append(numbers, n)
		release(&e)
	}
}

// verify checks that an entry is what was appended, and returns which one it is.
func (r *rig) verify(e *journal.Entry) int {
	r.t.Helper()
	n := int(binary.LittleEndian.Uint64(e.Data))
	want := entry(n, sizeOf(n))
	if !bytes.Equal(e.Data, want.Data) || e.Records != want.Records || !e.Taken.Equal(want.Taken) {
		r.t.Fatalf("entry %d is not what was appended: %+v", e.Seq, e)
	}
	return n
}

func (r *rig) bounds() journal.Bounds {
	b, _ := r.log.Bounds(context.Background())
	return b
}

// put puts a position.
func (r *rig) put(key, value string) {
	r.t.Helper()
	if err := r.engine.Positions().Put(context.Background(), key, value); err != nil {
		r.t.Fatal(err)
	}
}

// trim gives up entries.
func (r *rig) trim(upTo int) {
	r.t.Helper()
	if err := r.log.Trim(context.Background(), uint64(upTo)); err != nil {
		r.t.Fatal(err)
	}
}

// numbers is those from first to last.
func numbers(first, last int) (all []int) {
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

func same(t *testing.T, what string, got, want []int) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d entries, want %d (%v)", what, len(got), len(want), firstDifference(got, want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: entry %d is %d, want %d", what, i, got[i], want[i])
		}
	}
}

func firstDifference(a, b []int) [2]int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return [2]int{a[i], b[i]}
		}
	}
	return [2]int{}
}

func TestAppendReadTrim(t *testing.T) {
	for _, every := range []time.Duration{0, 10 * time.Millisecond} {
		r := start(t, disk.OS, t.TempDir(), every, journal.Limits{})
		r.append(1, 500)
		same(t, "all", r.read(0), numbers(1, 500))
		same(t, "behind 333", r.read(333), numbers(334, 500))
		if err := r.log.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		if b := r.bounds(); b.First != 1 || b.Last != 500 || b.UnsyncedRecords != 0 || b.Total != totalOf(500) {
			t.Errorf("bounds %+v", b)
		}
		r.put("store.0", "250")
		r.close()

		r.open(journal.Limits{})
		same(t, "again", r.read(0), numbers(1, 500))
		same(t, "again behind 333", r.read(333), numbers(334, 500))
		if v, ok, _ := r.engine.Positions().Get(context.Background(), "store.0"); v != "250" || !ok {
			t.Errorf("position %q, %v", v, ok)
		}
		r.append(501, 600)
		r.trim(400)
		b := r.bounds()
		if b.First < 300 || b.First > 401 || b.Last != 600 {
			t.Errorf("bounds after Trim(400): %+v", b)
		}
		same(t, "trimmed", r.read(0), numbers(int(b.First), 600))
		if tl := r.log.Timelines(); len(tl) != 2 || tl[0].Last != 500 || tl[1].Last != 600 {
			t.Errorf("timelines %+v", tl)
		}
		r.trim(600)
		if b := r.bounds(); b.First != 601 || b.Bytes != 0 {
			t.Errorf("bounds after Trim(600): %+v", b)
		}
		r.append(601, 610)
		same(t, "after all was trimmed", r.read(0), numbers(601, 610))
		r.close()
		r.open(journal.Limits{})
		same(t, "and again", r.read(0), numbers(601, 610))
		if b := r.bounds(); b.First != 601 || b.DamagedRecords != 0 || b.Total != totalOf(610) {
			t.Errorf("bounds after that: %+v", b)
		}
		r.close()
		if r.said.String() != "" {
			t.Errorf("said: %s", r.said)
		}
	}
}

func totalOf(n int) (total uint64) {
	for i := 1; i <= n; i++ {
		total += uint64(i%5 + 1)
	}
	return total
}
