package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/dbschema"
	"siptraced/tests/servers"
)

// named gives the timelines of an opening the names that those of another one have.
func named(opening uint64) func() uint64 { return rand.New(rand.NewPCG(opening, 0)).Uint64 }

// end stops a rig at once; what was not written stays in its spool.
func (r *rig) end(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.store.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.spool.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A machine is cloned while siptraced runs on it, so that both go on in the same
// timeline, each with messages of its own. Whoever finds that out goes on under
// another name, with which it also begins again: each message has its row once.
func TestClonedWhileRunning(t *testing.T) {
	c := newCluster(t, 1)
	dirs := []string{t.TempDir(), t.TempDir()}
	var want []string
	put := func(r *rig, of string, n int) {
		for i := range n {
			msg := fmt.Sprintf("%s %03d", of, i)
			want = append(want, msg)
			r.put(t, of, msg)
			time.Sleep(time.Millisecond)
		}
	}
	check := func(when string) {
		t.Helper()
		if rows := slices.Sorted(slices.Values(c.rows(t, 0))); !slices.Equal(rows, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: %d rows, want %d, each message once: %q", when, len(rows), len(want), rows)
		}
	}
	r := newRigNamed(t, c.url(), dirs[0], named(1), c.set)
	put(r, "before", 20)
	r.stop(t)
	if err := os.CopyFS(dirs[1], os.DirFS(dirs[0])); err != nil {
		t.Fatal(err)
	}

	// The other one's connections can be cut for themselves.
	alone := &cluster{files: c.files, away: make([]bool, 1)}
	rigs := []*rig{newRigNamed(t, c.url(), dirs[0], named(2), c.set), newRigNamed(t, c.url(), dirs[1], named(2), alone.set)}
	for i := range 5 {
		put(rigs[0], fmt.Sprint("first ", i), 10)
		put(rigs[1], fmt.Sprint("second ", i), 10)
	}
	servers.WaitFor(t, 30*time.Second, "the rows of both", func() bool { return len(c.rows(t, 0)) >= len(want) })
	check("side by side")
	alone.use() // what comes now waits
	put(rigs[1], "waiting", 20)
	rigs[1].end(t)
	rigs[0].stop(t)
	text := rigs[0].log.String() + rigs[1].log.String()
	if n := strings.Count(text, "a copy of this running siptraced"); n == 0 || n > 2 { // shards
		t.Errorf("the log says %d times that there is a copy:\n%s", n, text)
	}
	alone.use(0)
	for i, set := range []func(*Config){c.set, alone.set} {
		rigs[i] = newRig(t, c.url(), dirs[i], set)
		put(rigs[i], fmt.Sprint("again ", i), 10)
	}
	for i := range rigs {
		if n := rigs[i].stop(t)["store.position_back"]; n != 0 {
			t.Errorf("a position went back %d times, want none", n)
		}
	}
	check("after a restart")
}

// A copy of the directory as it is when the first row is in another database knows
// that the former one was left: that is on disk before.
func TestLeftBeforeTheFirstRow(t *testing.T) {
	first, second := newCluster(t, 1), newCluster(t, 1)
	dir := t.TempDir()
	r := newRig(t, first.url(), dir, first.set)
	r.put(t, "call", "one")
	servers.WaitFor(t, 10*time.Second, "the first row", func() bool { return r.count.Snapshot()["store.written"] == 1 })
	cfg := *r.store.wanted.Load()
	second.set(&cfg)
	cfg.URL.Database = "another"
	r.store.wanted.Store(&cfg)
	r.store.Consumer().Retry()
	r.put(t, "call", "two")
	servers.WaitFor(t, 10*time.Second, "the second row", func() bool { return r.count.Snapshot()["store.written"] == 2 })
	left := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	r.stop(t)
	r = newRig(t, first.url(), left, first.set)
	kept, err := r.spool.Meta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was := 0
	for key := range kept {
		if strings.HasPrefix(key, sinkName+".left.") && strings.HasSuffix(key, databaseID(first.url())) {
			was++
		}
	}
	r.stop(t)
	if was == 0 {
		t.Errorf("the spool does not know that the first database was left: %v", kept)
	}
}

// The rows of timelines that are long gone are removed, the latest ones stay.
func TestOldTimelinesForgotten(t *testing.T) {
	c := newCluster(t, 1)
	dir := t.TempDir()
	const runs = mostNoted + 6
	for i := range runs {
		r := newRig(t, c.url(), dir, c.set)
		r.put(t, "call", fmt.Sprintf("%03d", i))
		r.stop(t)
	}
	if rows := c.rows(t, 0); len(rows) != runs {
		t.Errorf("%d rows, want %d", len(rows), runs)
	}
	db := c.open(t, 0)
	defer db.Close()
	got := map[string]int{}
	for row := range (backend{db: db}).positions(t) {
		shard, _, _ := strings.Cut(row, "@")
		got[shard]++
	}
	// The call's shard; one more row counts how often the spool was opened.
	if n := max(got["SIPTRACED_0"], got["SIPTRACED_1"]); n != mostNoted+1 {
		t.Errorf("rows in %s: %v, want %d for the shard of the call", dbschema.PositionTable, got, mostNoted+1)
	}
}
