package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/compat/siptrace"
)

// Three timelines: 1 to 100, 101 to 200, and 201 to what comes.
func threeTimelines() []journal.Timeline {
	return []journal.Timeline{{ID: "one", Last: 100}, {ID: "two", Last: 200}, {ID: "three", Last: 250}}
}

// The position of a timeline that the database has no row of: it had one, or not.
const (
	none  = -1
	never = -2
)

func linesAt(at ...int) []*line {
	lines := linesOf(threeTimelines(), nil)
	for i, at := range at {
		if lines[i].kept = at >= 0; lines[i].kept {
			lines[i].at = uint64(at)
		}
		if at != never {
			lines[i].made = databaseID(siptrace.DBURL{})
		}
	}
	return lines
}

// What a database has lost is what came last, of what has to be there.
func TestLost(t *testing.T) {
	for _, tt := range []struct {
		name       string
		at         []int
		until, end uint64
		want       []string // timelines that lost something
		then       []uint64 // from where on all three go
	}{
		{"nothing", []int{100, 200, 220}, 220, 220, nil, []uint64{100, 200, 220}},
		{"further than the spool knows", []int{100, 200, 240}, 220, 220, nil, []uint64{100, 200, 240}},
		{"a new database", []int{none, none, none}, 0, 220, nil, []uint64{100, 200, 220}},
		{"a new database, with a backlog", []int{none, none, none}, 0, 150, nil, []uint64{100, 150, 200}},
		{"in one timeline", []int{100, 200, 210}, 220, 220, []string{"three"}, []uint64{100, 200, 210}},
		{"from the middle of the second on", []int{100, 150, none}, 220, 220, []string{"two", "three"}, []uint64{100, 150, 200}},
		{"the same, after a crash before that was mended", []int{100, 150, 200}, 220, 220, []string{"two", "three"}, []uint64{100, 150, 200}},
		{"the same, after a crash in the middle of it", []int{100, 200, 200}, 220, 220, []string{"three"}, []uint64{100, 200, 200}},
		{"to before all of them", []int{none, none, none}, 220, 220, []string{"one", "two", "three"}, []uint64{0, 100, 200}},
		{"nothing, nobody was there since", []int{100, never, never}, 100, 100, nil, []uint64{100, 100, 200}},
		{"nothing, of what the spool has nobody was there", []int{never, never, never}, 50, 50, nil, []uint64{50, 100, 200}},
		{"nothing, the row of an old one is gone", []int{none, 200, 220}, 220, 220, nil, []uint64{100, 200, 220}},
		{"nothing, the end of an old one was damaged", []int{90, 200, 220}, 220, 220, nil, []uint64{90, 200, 220}},
		{"nothing, another database was in use since", []int{60, none, none}, 60, 220, nil, []uint64{60, 200, 220}},
		{"before another database was in use", []int{40, none, none}, 60, 220, []string{"one"}, []uint64{40, 200, 220}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &writer{cfg: &Config{}, place: place{lines: linesAt(tt.at...)}}
			var got []string
			for _, l := range w.lost(tt.until, tt.end) {
				got = append(got, l.id)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("lost %v, want %v", got, tt.want)
			}
			for i, l := range w.lines {
				if l.at != tt.then[i] {
					t.Errorf("%s goes on behind %d, want %d", l.id, l.at, tt.then[i])
				}
			}
		})
	}
}

// A position that this process can't explain is somebody else's.
func TestCopies(t *testing.T) {
	ours := outcome{seq: 230, moves: []move{{row: "three", from: 220, to: 230}}}
	for _, tt := range []struct {
		name       string
		at         []int
		own, again bool // the third timeline; not the first session
		unanswered []outcome
		says       string
		renamed    bool
	}{
		{name: "as expected", at: []int{100, 200, 220}, own: true, again: true},
		{name: "less", at: []int{100, 200, 210}, own: true, again: true},
		{name: "further, from before a crash", at: []int{100, 200, 230}},
		{name: "further, an answer was lost", at: []int{100, 200, 230}, own: true, again: true, unanswered: []outcome{ours}},
		{name: "further, another answer was lost", at: []int{100, 200, 229}, own: true, again: true, unanswered: []outcome{ours}, says: "copy", renamed: true},
		{name: "further, in its own timeline", at: []int{100, 200, 230}, own: true, says: "a copy of this running siptraced", renamed: true},
		{name: "further, while it runs", at: []int{100, 200, 230}, again: true, says: "a copy of this spool directory"},
		{name: "further than the spool ever came", at: []int{150, 200, 220}, own: true, says: "older"},
		{name: "the same, while it runs", at: []int{150, 200, 220}, again: true, says: "a copy of this spool directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := new(bytes.Buffer)
			w := &writer{shared: &shared{}, cfg: &Config{}, log: slog.New(slog.NewTextHandler(log, nil)), place: place{lines: linesAt(tt.at...), unanswered: tt.unanswered}}
			w.lines[2].own = tt.own
			if tt.again {
				w.seen = map[[2]string]uint64{{databaseID(w.cfg.URL)}: 0}
			}
			if got, _ := w.findCopies(220); got != tt.renamed {
				t.Errorf("renamed %v, want %v", got, tt.renamed)
			}
			if said := log.String(); (said != "") != (tt.says != "") || !strings.Contains(said, tt.says) || said != "" && !strings.Contains(said, "level=ERROR") {
				t.Errorf("said %q, want %q", said, tt.says)
			}
			l := w.lines[2]
			if got := l.row != l.id && strings.HasPrefix(l.row, "three~") && !l.kept && l.at == 220; got != tt.renamed {
				t.Errorf("goes on behind %d as %s", l.at, l.row)
			}
			said := log.Len()
			if tt.renamed || tt.says == "" {
				return
			}
			if w.findCopies(220); log.Len() != said {
				t.Errorf("said again: %s", log.String()[said:])
			}
		})
	}
}

// What is noted of timelines comes back.
func TestNoted(t *testing.T) {
	c := newCluster(t, 1)
	r := newRig(t, c.url(), t.TempDir(), c.set)
	want := []noted{{"one", "one", "", false}, {"two", "two~5", "db", false}, {"three", "three", "", true}, {"four", "four~7", "", true}, {"five", "five", "db", true}}
	if _, err := r.store.notes.timelines(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	r.store.notes.setTimelines(7, want)
	if err := r.store.notes.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := (&notes{spool: r.spool}).timelines(t.Context(), 7)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	r.stop(t)
}
