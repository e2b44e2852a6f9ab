package simulate

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// mutation is a mistake that the simulation has to find. A program that has all of them
// makes the one that the environment names.
type mutation struct {
	name string
	change
	seed uint64 // found it
}

// on is what stands in for old when the mistake is made.
const on = "mutated()"

// mutations are the mistakes, with a seed that found each. The file is in
// cmd/siptraced/internal.
var mutations = []mutation{
	{"a new name is not synced", change{
		"segments/sync.go",
		"\t\tif !d.named {\n\t\t\tif err := l.engine.fs.SyncDir(l.dir); err != nil {",
		"\t\tif !d.named && !mutated() {\n\t\t\tif err := l.engine.fs.SyncDir(l.dir); err != nil {",
	}, 51},
	{"an error of a sync is nothing", change{
		"segments/sync.go",
		"\t\tif err := d.file.Sync(); err != nil {",
		"\t\tif err := d.file.Sync(); err != nil && !mutated() {",
	}, 65},
	{"what was not synced is not written again", change{
		"segments/sync.go",
		"\tif end.seq > from.seq {\n\t\terr = c.copy(end)",
		"\tif end.seq > from.seq && !mutated() {\n\t\terr = c.copy(end)",
	}, 22},
	{"the checksum of an entry is not compared", change{
		"segments/walker.go",
		"\t\tif checksum(data) == h.sum {",
		"\t\tif checksum(data) == h.sum || mutated() {",
	}, 4},
	{"an index is trusted without its checksum", change{
		"segments/index.go",
		"le.Uint64(b) != indexMagic || le.Uint32(b[8:]) != checksum(b[12:]) {",
		"le.Uint64(b) != indexMagic || le.Uint32(b[8:]) != checksum(b[12:]) && !mutated() {",
	}, 1028},
	{"the generation of the positions is not compared", change{
		"segments/positions.go",
		"\t\tcase text != nil && generation > r.generation:",
		"\t\tcase text != nil && (generation > r.generation || mutated()):",
	}, 52},
	{"the last good slot of the positions is written over", change{
		"segments/positions.go",
		"\tat := 1 - p.at\n",
		"\tat := 1 - p.at\n\tif mutated() {\n\t\tat = p.at\n\t}\n",
	}, 56},
	{"a timeline is used again", change{
		"segments/log.go",
		"timeline: e.cfg.Random(), changed",
		"timeline: map[bool]uint64{false: e.cfg.Random(), true: 7}[mutated()], changed",
	}, 52},
	{"what is not published yet is given up", change{
		"segments/trim.go",
		"l.segments[0].written != l.segments[0].published ||",
		"l.segments[0].written != l.segments[0].published && !mutated() ||",
	}, 72},
	{"what a killed process left counts as synced", change{
		"segments/open.go",
		"\tfailure := f.Sync()\n",
		"\tif mutated() {\n\t\treturn nil\n\t}\n\tfailure := f.Sync()\n",
	}, 5},
	{"one entry too many is given up", change{
		"spool/positions.go",
		"\t\tif err := sh.log.Trim(ctx, seq); err != nil {",
		"\t\tif mutated() {\n\t\t\tseq++\n\t\t}\n\t\tif err := sh.log.Trim(ctx, seq); err != nil {",
	}, 51},
	{"an entry is given up for the first sink that is done with it", change{
		"spool/positions.go",
		"if o, any := done[r.shard]; !any || seq < o {",
		"if o, any := done[r.shard]; !any || seq < o != mutated() {",
	}, 1},
	{"messages are acknowledged before they are written", change{
		"spool/intake.go",
		"\t\tif sh.settled >= n {",
		"\t\tif sh.settled >= n || mutated() {",
	}, 1},
	{"what the table has already is written again", change{
		"store/writer.go",
		"\tcase w.tracked && b.Seq <= l.at:",
		"\tcase w.tracked && b.Seq <= l.at && !mutated():",
	}, 1},
	{"a COMMIT that was not answered counts as done", change{
		"store/transact.go",
		"\tif _, err = s.exec(ctx, \"COMMIT\"); err != nil {\n",
		"\tif _, err = s.exec(ctx, \"COMMIT\"); err != nil && mutated() {\n\t\terr = nil\n\t}\n\tif err != nil {\n",
	}, 1},
	{"the position moves before the rows are there", change{
		"store/transact.go",
		"\to.committing = true\n\tif _, err",
		"\tif mutated() {\n\t\tw.book(o)\n\t}\n\to.committing = true\n\tif _, err",
	}, 1},
	{"a position that somebody else moved is nothing", change{
		"store/position.go",
		"\tif n != 1 {\n\t\treturn errMoved",
		"\tif n != 1 && !mutated() {\n\t\treturn errMoved",
	}, 2},
	{"rows that a database lost are not written again", change{
		"store/restore.go",
		"\tif len(lost) == 0 {\n",
		"\tif len(lost) == 0 || mutated() {\n",
	}, 54},
	{"a message that was sent counts as delivered", change{
		"mirror/stream.go",
		"\tacked := w.acked()\n",
		"\tacked := w.acked()\n\tif mutated() {\n\t\tacked = w.offset\n\t}\n",
	}, 1},
}

// mutate makes all mutations, each of them where SIPTEST_MUTATION is its name.
func (o *overlay) mutate() error {
	internal, err := filepath.Abs("../../cmd/siptraced/internal")
	if err != nil {
		return err
	}
	rooms := map[string]bool{}
	for _, m := range mutations {
		text := strings.ReplaceAll(m.new, on, fmt.Sprintf("mutated(%q)", m.name))
		if err := o.change(filepath.Join(internal, m.file), m.old, text); err != nil {
			return fmt.Errorf("mutation %q: %w", m.name, err)
		}
		rooms[path.Dir(m.file)] = true
	}
	for name := range rooms {
		text := fmt.Sprintf("package %s\n\nimport \"os\"\n\nfunc mutated(name string) bool { return os.Getenv(\"SIPTEST_MUTATION\") == name }\n", name)
		if err := o.write(filepath.Join(internal, name, "mutated.go"), text); err != nil {
			return err
		}
	}
	return nil
}

// nearby is how many seeds behind the known one may have to find a mistake: what a seed
// does changes with the program.
const nearby = 400

// TestMutations makes deliberate mistakes. Each has to be found by its seed or one
// behind it, and in the long form by the first one of the short form's.
func TestMutations(t *testing.T) {
	o := newOverlay(t)
	err := o.runtime()
	if err == nil {
		err = o.mutate()
	}
	binary := ""
	if err == nil {
		binary, err = o.build()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			s := &simulation{binary: binary, env: []string{"SIPTEST_MUTATION=" + m.name}}
			search := span{m.seed, m.seed + nearby}
			if os.Getenv("SIPTEST_LONG") != "" {
				search = span{1, shortSeeds}
			}
			found := false
			s.run(t, search, func(r result) bool {
				if r.finding == "" {
					return true
				}
				t.Logf("seed %d: %.300s", r.seed, r.finding)
				found = true
				return false
			})
			if !found {
				t.Errorf("no seed of %d to %d finds it", search.first, search.last)
			}
		})
	}
}
