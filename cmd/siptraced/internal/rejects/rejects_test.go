package rejects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
)

func lines(t *testing.T, path string) (out []Line) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for l := range bytes.Lines(text) {
		var line Line
		if err := json.Unmarshal(l, &line); err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
	}
	return out
}

// open opens a file with a bound that is not reached.
func open(t *testing.T, path string, c *counters.Set) *File {
	t.Helper()
	f, err := Open(path, 1<<30, c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejects.jsonl")
	f := open(t, path, counters.New())
	packet := []byte("first")
	f.Note(Line{Time: time.Unix(1, 0), Reason: "bad", Cause: "rejected.x", Packet: packet})
	copy(packet, "later") // the intake uses its memory again
	if err := f.Add(Line{Reason: "refused", Table: "sip_trace"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	got := lines(t, path)
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	for _, l := range got {
		if l.Reason == "bad" && string(l.Packet) != "first" {
			t.Errorf("packet %q", l.Packet)
		}
	}
}

// A flood writes so much per second, and the rest is counted.
func TestFlood(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "rejects.jsonl"), counters.New()
	f := open(t, path, c)
	const n = 5000
	for range n {
		f.Note(Line{Time: time.Unix(100, 0)})
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.Note(Line{}) // too late, but counted
	written, lost := len(lines(t, path)), int(c.Snapshot()["rejects.not_noted"])
	if written > perSecond || written == 0 || written+lost != n+1 {
		t.Errorf("written %d, counted %d", written, lost)
	}
}

// A file that can't be made or written is refused at start, with the key.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none", "rejects"), dir} {
		f, err := Open(path, 0, counters.New(), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "store.reject_file") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", path, f, err)
		}
	}
}

// The file is there from the start, and goes on under its name after it was moved
// away. Whatever is written meanwhile is in one of the two.
func TestReopen(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "rejects"), counters.New()
	f := open(t, path, c)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("at start: %v, %v", info, err)
	}
	const writers, each = 4, 200
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			for i := range each {
				if err := f.Add(Line{ID: fmt.Sprint(w, "/", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var files []string
	for i := range 5 {
		time.Sleep(2 * time.Millisecond)
		moved := fmt.Sprint(path, ".", i)
		if err := os.Rename(path, moved); err != nil {
			t.Fatal(err)
		}
		files = append(files, moved)
		if err := f.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	// The directory is gone: it goes on in the file that it has.
	gone := filepath.Join(filepath.Dir(path), "dir")
	f.path = filepath.Join(gone, "rejects")
	if err := f.Reopen(); err == nil || !strings.Contains(err.Error(), gone) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if err := errors.Join(f.Add(Line{ID: "last"}), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := f.Add(Line{ID: "closed"}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	seen := map[string]int{}
	for _, file := range append(files, path) {
		for _, l := range lines(t, file) {
			seen[l.ID]++
		}
	}
	if len(seen) != writers*each+1 {
		t.Errorf("%d lines, want %d", len(seen), writers*each+1)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
}

// At the bound noted lines are counted, and rows are refused, so that they wait; with
// room again both go on. The log says so with the numbers, once a minute.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 64 << 10
		path, c := filepath.Join(t.TempDir(), "rejects"), counters.New()
		var log bytes.Buffer
		f, err := Open(path, bound, c, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 3000) // 4 kB of base64
		for i := range 20 {
			f.Note(Line{Time: time.Now(), ID: fmt.Sprint(i), Packet: packet})
		}
		time.Sleep(sayInterval)
		synctest.Wait()
		noted, lost := len(lines(t, path)), int(c.Snapshot()["rejects.not_noted"])
		if noted == 0 || lost == 0 || noted+lost != 20 {
			t.Errorf("noted %d, counted %d; want 20 together", noted, lost)
		}
		said := strings.Count(log.String(), "\n")
		if said != 2 || !strings.Contains(log.String(), fmt.Sprintf("noted=%d not_noted=%d", noted-1, lost)) || !strings.Contains(log.String(), "store.reject_max_bytes") {
			t.Errorf("%d lines in the log, want 2, with the numbers:\n%s", said, &log)
		}
		rows := 0
		for err = f.Add(Line{ID: "row", Packet: packet}); err == nil; rows++ {
			err = f.Add(Line{ID: fmt.Sprint("row", rows), Packet: packet})
		}
		if !errors.Is(err, ErrFull) || rows < 5 || !strings.Contains(err.Error(), "siptraced replay") {
			t.Errorf("after %d rows: %v", rows, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > bound {
			t.Errorf("%d bytes, %v; the bound is %d", info.Size(), err, bound)
		}
		if err := errors.Join(os.Rename(path, path+".1"), f.Reopen(), f.Add(Line{ID: "again"}), f.Close()); err != nil {
			t.Error(err)
		}
		if got := lines(t, path); len(got) != 1 || got[0].ID != "again" {
			t.Errorf("after the file was moved away: %v", got)
		}
	})
}

// Who notes a line does not wait for the disk.
func TestNoteNeverWaits(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "rejects.jsonl"), counters.New())
	f.mu.Lock() // as while a line is brought to disk
	f.Note(Line{Reason: "x", Time: time.Now()})
	f.mu.Unlock()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// What a crash left is no trap: a torn last line is cut off, a line that is there
// is not written again.
func TestAfterCrash(t *testing.T) {
	line := func(id string) Line { return Line{ID: id, Time: time.Unix(1, 0), Reason: "r", Packet: []byte(id)} }
	for _, tt := range []struct {
		name, left string
		want       []string
	}{
		{"nothing", "", []string{"s/1/0", "s/1/1"}},
		{"one line", `{"id":"s/1/0"}` + "\n", []string{"s/1/0", "s/1/1"}},
		{"torn", `{"id":"s/0/0"}` + "\n" + `{"id":"s/1/0","pack`, []string{"s/0/0", "s/1/0", "s/1/1"}},
		{"only torn", `{"id":"s/1/0","pack`, []string{"s/1/0", "s/1/1"}},
		{"no end of line", `{"id":"s/1/0"}`, []string{"s/1/0", "s/1/1"}},
		{"another user", `{"id":"s/1/0","traced_user":"x"}` + "\n", []string{"s/1/0", "s/1/0", "s/1/1"}},
		{"without ids", `{"reason":"x"}` + "\n", []string{"", "s/1/0", "s/1/1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "rejects.jsonl")
			if tt.left != "" {
				if err := os.WriteFile(path, []byte(tt.left), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			f := open(t, path, counters.New())
			if err := f.Add(line("s/1/0"), line("s/1/1")); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range lines(t, path) {
				got = append(got, l.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
