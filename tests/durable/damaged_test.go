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
	// The engine takes smaller files then: each shard has two and more.
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
		damage func(tb testing.TB, r *rand.Rand, files []*blockFile)
	}{
		{"nothing", 1, func(testing.TB, *rand.Rand, []*blockFile) {}},
		{"one bit", servers.Pick(2, 10), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			f := oneOf(r, files)
			f.flip(r.IntN(len(f.data)), r.IntN(8))
		}},
		{"bits in many places", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			for range 10 {
				f := oneOf(r, files)
				f.flip(r.IntN(len(f.data)), r.IntN(8))
			}
		}},
		{"length of a batch", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			b := oneOf(r, oneOf(r, files).batches)
			b.file.flip(b.start+r.IntN(4), r.IntN(8))
		}},
		{"number of a batch", servers.Pick(1, 20), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			b := oneOf(r, oneOf(r, files).batches)
			b.file.flip(b.start+4+r.IntN(8), r.IntN(8))
		}},
		{"number of the last batch", servers.Pick(1, 20), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			l := files[len(files)-1].batches
			b := l[len(l)-1]
			b.file.flip(b.start+4+r.IntN(8), r.IntN(8))
		}},
		{"first batch", 1, func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			b := files[0].batches[0]
			b.file.flip(b.end-20, r.IntN(8))
		}},
		{"last batch", 1, func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			l := files[len(files)-1].batches
			b := l[len(l)-1]
			b.file.flip(b.end-20, r.IntN(8))
		}},
		{"page of zeros", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			f := oneOf(r, files)
			page := r.IntN(len(f.data)/4096) * 4096
			for i := range 4096 {
				f.set(page+i, 0)
			}
		}},
		{"last block cut", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			f := oneOf(r, files)
			for _, o := range files {
				if o.shard == f.shard && o.number > f.number {
					f = o
				}
			}
			f.cut(r.IntN(len(f.data)))
		}},
		{"earlier block cut", servers.Pick(1, 10), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			f := files[0] // the first of a shard
			f.cut(r.IntN(len(f.data)))
		}},
		{"block gone", servers.Pick(1, 2), func(_ testing.TB, r *rand.Rand, files []*blockFile) {
			f := oneOf(r, files)
			f.cut(0)
			f.gone = true
		}},
		{"index", servers.Pick(1, 2), func(tb testing.TB, r *rand.Rand, files []*blockFile) { other(tb, r, files, "index.db") }},
		{"positions", servers.Pick(1, 20), func(tb testing.TB, r *rand.Rand, files []*blockFile) {
			other(tb, r, files, positionsFile)
		}},
		// Still a file that can be read, but of another position.
		{"position of a sink", 1, func(tb testing.TB, _ *rand.Rand, files []*blockFile) {
			path := filepath.Join(filepath.Dir(files[0].path), positionsFile)
			b, err := os.ReadFile(path)
			if err != nil {
				tb.Fatal(err)
			}
			found := regexp.MustCompile(`"store\.\d+": *"\d`).FindAllIndex(b, -1)
			if len(found) == 0 {
				tb.Fatalf("no position of the store in %s", b)
			}
			for _, at := range found {
				b[at[1]-1] = '9'
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				tb.Fatal(err)
			}
		}},
		{"no positions", 1, func(tb testing.TB, _ *rand.Rand, files []*blockFile) {
			if err := os.Remove(filepath.Join(filepath.Dir(files[0].path), positionsFile)); err != nil {
				tb.Fatal(err)
			}
		}},
		{"description of a shard", servers.Pick(1, 2), func(tb testing.TB, r *rand.Rand, files []*blockFile) { other(tb, r, files, "../meta.inf") }},
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
				files := readBlocks(t, p.spool())
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

// positionsFile is where the spool keeps how far its sinks are, as seen from
// the blocks of a shard.
const positionsFile = "../../../../../positions.json"

// other flips bits in another file of the engine, named from the directory of
// the blocks of the first shard.
func other(tb testing.TB, r *rand.Rand, files []*blockFile, name string) {
	tb.Helper()
	path := filepath.Join(filepath.Dir(files[0].path), name)
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

func oneOf[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// blockFile is a file of the engine with batches, one behind the other:
//
//	| length 4, highest bit: with headers | sequence 8 | time 8 | length of subject 2 |
//	| subject | length of headers 4 | headers | batch | checksum 8 |    little endian
type blockFile struct {
	path    string
	shard   string
	number  int
	data    []byte // as it is to be
	before  []byte // as it was
	batches []*fileBatch
	gone    bool
}

// lengths is where the lengths of a batch end that tell where the next one is.
const lengths = 4 + 8 + 8 + 2

// fileBatch is one batch of a file, from start to end.
type fileBatch struct {
	file       *blockFile
	start, end int
}

// readBlocks reads all files with batches of a spool.
func readBlocks(tb testing.TB, dir string) []*blockFile {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "SIPTRACED_*", "msgs", "*.blk"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no message blocks in %s: %v", dir, err)
	}
	var files []*blockFile
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			tb.Fatal(err)
		}
		f := &blockFile{path: p, shard: filepath.Base(filepath.Dir(filepath.Dir(p))), data: slices.Clone(b), before: b}
		if _, err := fmt.Sscanf(filepath.Base(p), "%d.blk", &f.number); err != nil {
			tb.Fatalf("%s: %v", p, err)
		}
		for at := 0; at < len(b); {
			if len(b)-at < 30 {
				tb.Fatalf("%s: %d bytes behind the last batch", p, len(b)-at)
			}
			n := int(binary.LittleEndian.Uint32(b[at:]) &^ (1 << 31))
			if n < 30 || at+n > len(b) {
				tb.Fatalf("%s: a batch of %d bytes at %d of %d", p, n, at, len(b))
			}
			f.batches = append(f.batches, &fileBatch{f, at, at + n})
			at += n
		}
		if len(f.batches) > 0 {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b *blockFile) int {
		if a.shard != b.shard {
			return strings.Compare(a.shard, b.shard)
		}
		return a.number - b.number
	})
	return files
}

func (f *blockFile) flip(at, bit int) {
	if at < len(f.data) {
		f.data[at] ^= 1 << bit
	}
}

func (f *blockFile) set(at int, b byte) {
	if at < len(f.data) {
		f.data[at] = b
	}
}

func (f *blockFile) cut(at int) { f.data = f.data[:min(at, len(f.data))] }

// write writes the file, and notes which messages are in batches that were
// changed.
func (f *blockFile) write(tb testing.TB, harmed map[int]bool) {
	tb.Helper()
	same := func(start, end int) bool {
		return end <= len(f.data) && bytes.Equal(f.data[start:end], f.before[start:end])
	}
	followed := true
	for _, b := range f.batches {
		if followed && same(b.start, b.end) {
			continue
		}
		// Without its length nobody knows where the next batch of the block starts.
		followed = followed && same(b.start, b.start+lengths)
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
