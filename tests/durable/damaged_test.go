package durable

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestSpoolDamaged damages a spool with a backlog while nobody uses it, as a
// failing disk or a loss of power would. The daemon lives, writes every message
// of the batches that are whole, counts the others, and goes on.
func TestSpoolDamaged(t *testing.T) {
	parallel(t)
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m)
	r := random(t)
	const messages = 12000
	// Segments are smaller then: each shard has several.
	const bound = "spool.max_bytes=60MiB"
	source := newPlace(t, d.url, bound)
	// Some are written before, so that positions count.
	run := source.start(t)
	first := send(t, 3, 20000, source.addr)
	first.upTo(3000)
	<-first.done
	run.drained(t, 3*time.Minute)
	time.Sleep(1500 * time.Millisecond) // the spool gives them up about once a second
	run.stop(t)
	written := d.count()
	execute(t, d.db, "CREATE TABLE position_before AS SELECT * FROM siptraced_position")
	var last int64
	if err := d.db.QueryRow("SELECT MAX(id) FROM sip_trace").Scan(&last); err != nil || written != 3000 {
		t.Fatalf("%d rows before, want 3000; %v", written, err)
	}

	run = source.start(t, fmt.Sprintf("siptrace.db_url=mysql://nobody:nothing@127.0.0.1:%d/none", servers.FreePort(t)), "shutdown_timeout=100ms")
	s := send(t, 1, 50000, source.addr)
	s.upTo(messages)
	<-s.done
	c := run.stop(t)
	backlog := c[servers.Pending]
	if _, attempts := s.progress(); attempts != 1 || len(s.accepted) != messages || backlog != messages {
		t.Fatalf("backlog: %d messages in %d attempts, acknowledged %d: %v", backlog, attempts, len(s.accepted), c)
	}
	for _, tt := range []struct {
		name   string
		seeds  int
		damage func(tb testing.TB, r *rand.Rand, files []*segmentFile)
	}{
		{"nothing", 1, func(testing.TB, *rand.Rand, []*segmentFile) {}},
		{"one bit", servers.Pick(4, 40), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			f := oneOf(r, files)
			f.flip(r.IntN(len(f.data)), r.IntN(8))
		}},
		{"bits in many places", servers.Pick(2, 10), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			for range 10 {
				f := oneOf(r, files)
				f.flip(r.IntN(len(f.data)), r.IntN(8))
			}
		}},
		{"header of a batch", servers.Pick(2, 20), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			b := oneOf(r, oneOf(r, files).batches)
			for range 4 {
				b.file.flip(b.start+r.IntN(headerSize), r.IntN(8))
			}
		}},
		{"header of the last batch", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			b := files[len(files)-1].last()
			for range 4 {
				b.file.flip(b.start+r.IntN(headerSize), r.IntN(8))
			}
		}},
		{"first batch", 1, func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			b := files[0].batches[0]
			b.file.flip(b.end-20, r.IntN(8))
		}},
		{"last batch", 1, func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			b := files[len(files)-1].last()
			b.file.flip(b.end-20, r.IntN(8))
		}},
		{"page of zeros", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			f := oneOf(r, files)
			page := r.IntN(len(f.data)/4096) * 4096
			for i := range 4096 {
				f.set(page+i, 0)
			}
		}},
		{"last segment cut", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			f := oneOf(r, files)
			for _, o := range files {
				if o.shard == f.shard {
					f = o // in their order
				}
			}
			f.cut(r.IntN(len(f.data)))
		}},
		{"earlier segment cut", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			f := files[0] // the first of a shard
			f.cut(r.IntN(len(f.data)))
		}},
		{"segment gone", servers.Pick(1, 2), func(_ testing.TB, r *rand.Rand, files []*segmentFile) {
			f := oneOf(r, files)
			f.cut(0)
			f.gone = true
		}},
		{"index", servers.Pick(1, 10), func(tb testing.TB, r *rand.Rand, files []*segmentFile) {
			flipAny(tb, r, oneOf(r, indexes(tb, files)))
		}},
		{"no index", 1, func(tb testing.TB, _ *rand.Rand, files []*segmentFile) {
			for _, path := range indexes(tb, files) {
				remove(tb, path)
			}
		}},
		{"positions", servers.Pick(1, 20), func(tb testing.TB, r *rand.Rand, files []*segmentFile) {
			flipAny(tb, r, files[0].positions())
		}},
		// Neither of the two slots is right then.
		{"position of a sink", 1, func(tb testing.TB, _ *rand.Rand, files []*segmentFile) {
			b, err := os.ReadFile(files[0].positions())
			if err != nil {
				tb.Fatal(err)
			}
			found := regexp.MustCompile(`"store\.\d+": *"\d`).FindAllIndex(b, -1)
			if len(found) == 0 {
				tb.Fatalf("no position of the store in %q", b)
			}
			for _, at := range found {
				b[at[1]-1] ^= 1
			}
			if err := os.WriteFile(files[0].positions(), b, 0o600); err != nil {
				tb.Fatal(err)
			}
		}},
		{"no positions", 1, func(tb testing.TB, _ *rand.Rand, files []*segmentFile) { remove(tb, files[0].positions()) }},
	} {
		for i := range tt.seeds {
			t.Run(fmt.Sprintf("%s %d", tt.name, i+1), func(t *testing.T) {
				execute(t, d.db, fmt.Sprintf("DELETE FROM sip_trace WHERE id > %d", last))
				execute(t, d.db, "DELETE FROM siptraced_position")
				execute(t, d.db, "INSERT INTO siptraced_position SELECT * FROM position_before")
				p := newPlace(t, d.url, bound)
				if err := os.CopyFS(p.spool(), os.DirFS(source.spool())); err != nil {
					t.Fatal(err)
				}
				files := readSegments(t, p.spool())
				tt.damage(t, r, files)
				harmed := map[int]bool{} // by number
				for _, f := range files {
					f.write(t, harmed)
				}
				run := p.start(t)
				again := send(t, 2, 1000, p.addr)
				run.drained(t, 3*time.Minute)
				again.finish(t, 3*time.Minute)
				run.drained(t, 3*time.Minute)
				c := run.stop(t)

				v, err := judge(whole, []*sender{first, s, again}, d.each)
				if err != nil {
					t.Fatal(err)
				}
				said := c[missed]
				t.Logf("%d of %d messages are in damaged batches; lost %d, counted as lost %d; %v", len(harmed), messages, v.lost, said, v)
				if said != int64(v.lost) {
					t.Errorf("counted as lost: %d, lost: %d; %v", said, v.lost, c)
				}
				if log := run.Stderr(); v.lost > 0 && !strings.Contains(log, "messages_lost=") {
					t.Error("the log has no number of messages lost")
				}
				whole := 0
				for _, g := range v.gone {
					if g.sender != s.sender || !harmed[g.number] {
						whole++
					}
				}
				if whole > 0 {
					t.Errorf("lost: %d messages of batches that are whole\n%s", whole, run.Tail(20))
				}
				if v.doubled+v.disordered+v.broken > 0 {
					t.Errorf("%v\n%s", v, strings.Join(v.examples, "\n"))
				}
				if len(again.accepted) == 0 {
					t.Error("nothing was taken after the damage")
				}
			})
		}
	}
}

func oneOf[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// flipAny flips bits anywhere in a file.
func flipAny(tb testing.TB, r *rand.Rand, path string) {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		for range 3 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func remove(tb testing.TB, path string) {
	tb.Helper()
	if err := os.Remove(path); err != nil {
		tb.Fatal(err)
	}
}

// indexes are the index files of the segments.
func indexes(tb testing.TB, files []*segmentFile) (paths []string) {
	tb.Helper()
	for _, f := range files {
		path := strings.TrimSuffix(f.path, ".log") + ".idx"
		if _, err := os.Stat(path); err == nil {
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		tb.Fatal("no segment has an index")
	}
	return paths
}

// segmentFile is a file with batches, one behind the other. A batch is a header of 56
// bytes, little endian, its content, and zeros up to a multiple of 8:
//
//	| magic 4 | length of the content 4 | ... |
type segmentFile struct {
	path    string
	shard   string
	data    []byte // as it is to be
	before  []byte // as it was
	batches []*fileBatch
	gone    bool
}

const (
	headerSize = 56
	magic      = 0x53545231
)

// fileBatch is one batch of a file, from start to end.
type fileBatch struct {
	file       *segmentFile
	start, end int
}

// readSegments reads all files with batches of a spool, each shard's in their order.
func readSegments(tb testing.TB, dir string) []*segmentFile {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "shard-*", "*.log")) // sorted
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no segments in %s: %v", dir, err)
	}
	var files []*segmentFile
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			tb.Fatal(err)
		}
		f := &segmentFile{path: p, shard: filepath.Base(filepath.Dir(p)), data: slices.Clone(b), before: b}
		for at := 0; at+headerSize <= len(b) && binary.LittleEndian.Uint32(b[at:]) == magic; {
			end := at + (headerSize+int(binary.LittleEndian.Uint32(b[at+4:]))+7)&^7
			if end > len(b) {
				tb.Fatalf("%s: a batch from %d to %d of %d", p, at, end, len(b))
			}
			f.batches = append(f.batches, &fileBatch{f, at, end})
			at = end
		}
		if len(f.batches) > 0 {
			files = append(files, f)
		}
	}
	return files
}

func (f *segmentFile) last() *fileBatch { return f.batches[len(f.batches)-1] }

// positions is where the spool keeps how far its sinks are.
func (f *segmentFile) positions() string {
	return filepath.Join(filepath.Dir(filepath.Dir(f.path)), "positions")
}

func (f *segmentFile) flip(at, bit int) {
	if at < len(f.data) {
		f.data[at] ^= 1 << bit
	}
}

func (f *segmentFile) set(at int, b byte) {
	if at < len(f.data) {
		f.data[at] = b
	}
}

func (f *segmentFile) cut(at int) { f.data = f.data[:min(at, len(f.data))] }

// write writes the file, and notes which messages are in batches that were changed.
func (f *segmentFile) write(tb testing.TB, harmed map[int]bool) {
	tb.Helper()
	for _, b := range f.batches {
		if b.end <= len(f.data) && bytes.Equal(f.data[b.start:b.end], f.before[b.start:b.end]) {
			continue
		}
		for rest := string(f.before[b.start:b.end]); ; {
			_, after, found := strings.Cut(rest, "User-Agent: number ")
			if !found {
				break
			}
			rest = after
			var n int
			if _, err := fmt.Sscanf(after[:10], "%d", &n); err != nil {
				tb.Fatal(err)
			}
			harmed[n] = true
		}
	}
	var err error
	if f.gone {
		err = os.Remove(f.path)
	} else {
		err = os.WriteFile(f.path, f.data, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}
