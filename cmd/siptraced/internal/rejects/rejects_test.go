package rejects

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
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

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejects.jsonl")
	f := Open(path, counters.New())
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
	f := Open(path, c)
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

// Nothing to write: no file.
func TestNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejects.jsonl")
	if err := Open(path, counters.New()).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a file")
	}
}

// Who notes a line does not wait for the disk.
func TestNoteNeverWaits(t *testing.T) {
	f := Open(filepath.Join(t.TempDir(), "rejects.jsonl"), counters.New())
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
			f := Open(path, counters.New())
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
