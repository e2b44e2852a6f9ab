package spooltool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/segments"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// spooled is a spool in a directory of its own.
type spooled struct {
	t      *testing.T
	dir    string
	engine *segments.Engine
	logs   []journal.Log
	totals []uint64
}

func newSpool(t *testing.T, shards int) *spooled {
	t.Helper()
	s := &spooled{t: t, dir: t.TempDir(), totals: make([]uint64, shards)}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *spooled) open() {
	s.t.Helper()
	var err error
	s.engine, err = segments.Open(s.t.Context(), segments.Config{Dir: s.dir, SyncInterval: 10 * time.Millisecond, SegmentSize: 32 << 10})
	if err != nil {
		s.t.Fatal(err)
	}
	s.logs = nil
	for i := range s.totals {
		l, err := s.engine.Open(s.t.Context(), i, journal.Limits{})
		if err != nil {
			s.t.Fatal(err)
		}
		s.logs = append(s.logs, l)
	}
}

func (s *spooled) close() {
	if s.engine != nil {
		if err := s.engine.Close(context.Background()); err != nil {
			s.t.Error(err)
		}
		s.engine = nil
	}
}

// add adds batches of two messages, i milliseconds after the start.
func (s *spooled) add(shard int, at ...int) {
	s.t.Helper()
	for _, i := range at {
		s.totals[shard] += 2
		e := &journal.Entry{Records: 2, Total: s.totals[shard], Taken: start.Add(time.Duration(i)*time.Millisecond + time.Second)}
		for j := range 2 {
			rec := record(fmt.Sprintf("call-%d-%d", shard, i), siptrace.UDP, "192.0.2.1:5060", "192.0.2.2:5060", i+j, 200)
			e.Data = appendRecord(s.t, e.Data, &rec)
		}
		if n, err := s.logs[shard].Append(s.t.Context(), []*journal.Entry{e}); n != 1 || err != nil {
			s.t.Fatalf("append: %d, %v", n, err)
		}
	}
}

// appendRecord appends a record as the spool writes it (package spool): the Call-ID is
// the chunk of type 1.
func appendRecord(t *testing.T, dst []byte, rec *siptrace.Record) []byte {
	t.Helper()
	var p hep.Packet
	hepmap.Fill(&p, rec)
	p.Vendor = []hep.Chunk{{Vendor: hepmap.Vendor, Type: 1, Data: rec.CallID}}
	dst, err := p.Append(dst)
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

// sink notes how far a sink came in a shard.
func (s *spooled) sink(name string, shard int, seq uint64) {
	s.t.Helper()
	p := s.engine.Positions()
	err := p.Put(s.t.Context(), journal.PositionKey(name, shard), journal.Position{Seq: seq, Total: 2 * seq, Log: s.logs[shard].ID()}.String())
	if err == nil {
		err = p.Flush(s.t.Context())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *spooled) check(opt CheckOptions) *Report {
	s.t.Helper()
	r, err := Check(s.t.Context(), s.dir, opt)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// files are the segments of a shard.
func (s *spooled) files(shard int) []string {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, fmt.Sprintf("shard-%d", shard), "*.log"))
	if err != nil || len(names) == 0 {
		s.t.Fatalf("segments: %v, %v", names, err)
	}
	return names
}

func flip(t *testing.T, file string, off int64) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[off] ^= 0x40
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

// contents is each file of a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			got[path] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestCheck: what a running spool has, one that was stopped, and a copy.
func TestCheck(t *testing.T) {
	s := newSpool(t, 2)
	s.add(0, upTo(200)...)
	s.add(1, 300)
	s.sink("store", 0, 150)
	s.sink("store", 1, 1)
	s.sink("mirror.homer", 0, 200)
	want := []Sink{
		{"mirror.homer", 0, 200, 0, time.Time{}},
		{"store", 0, 150, 100, start.Add(150*time.Millisecond + time.Second)},
		{"store", 1, 1, 0, time.Time{}},
	}
	expect := func(name string, r *Report) {
		t.Helper()
		if !r.Good() || r.Messages != 402 || r.Batches != 201 || r.Lost != 0 || !r.Oldest.Equal(start.Add(time.Second)) || !r.Newest.Equal(start.Add(1300*time.Millisecond)) {
			t.Errorf("%s: %+v", name, r)
		}
		if !slices.EqualFunc(r.Sinks, want, func(a, b Sink) bool {
			return a.Name == b.Name && a.Shard == b.Shard && a.Done == b.Done && a.Waiting == b.Waiting && a.Oldest.Equal(b.Oldest)
		}) {
			t.Errorf("%s: sinks %+v, want %+v", name, r.Sinks, want)
		}
	}
	running := s.check(CheckOptions{})
	expect("running", running)
	if running.PID != os.Getpid() {
		t.Errorf("process %d, want %d", running.PID, os.Getpid())
	}
	original := s.dir
	s.dir = filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(s.dir, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	expect("a copy", s.check(CheckOptions{}))
	s.dir = original
	s.close()
	before := contents(t, s.dir)
	stopped := s.check(CheckOptions{})
	expect("stopped", stopped)
	if !maps.Equal(before, contents(t, s.dir)) {
		t.Error("check changed something")
	}
	if stopped.PID != 0 {
		t.Errorf("process %d, want none", stopped.PID)
	}

	var text, object bytes.Buffer
	if err := errors.Join(running.Text(&text), running.JSON(&object)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"402 messages in 201 batches", fmt.Sprintf("process %d works on it", os.Getpid()), "shard 1: 2 messages", "nothing is wrong", "unsynced_rows"} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("the text lacks %q:\n%s", part, text.String())
		}
	}
	var got Report
	if err := json.Unmarshal(object.Bytes(), &got); err != nil || got.Messages != 402 || len(got.Shards[0].Segments) < 2 || got.Shards[0].Segments[0].File == "" {
		t.Errorf("JSON: %v\n%s", err, object.String())
	}
}

func TestCheckRefuses(t *testing.T) {
	former, empty := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(former, "jetstream"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, want string }{
		{former, "first edition: start the former version"},
		{empty, "has no spool: name the directory of spool.dir"},
		{filepath.Join(empty, "none"), "no such file"},
	} {
		_, err := Check(t.Context(), tt.dir, CheckOptions{})
		_, dumpErr := Dump(t.Context(), tt.dir, DumpOptions{Format: JSON, Out: &bytes.Buffer{}})
		_, repairErr := Repair(t.Context(), tt.dir, CheckOptions{})
		for what, err := range map[string]error{"check": err, "dump": dumpErr, "repair": repairErr} {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s %s: %v, want %q", what, tt.dir, err, tt.want)
			}
		}
	}
}

// damage is what can be wrong, and what is said of it.
var damage = []struct {
	name   string
	do     func(t *testing.T, s *spooled)
	lost   uint64
	wrong  string
	asides int // files
	done   string
}{
	{"nothing", func(*testing.T, *spooled) {}, 0, "", 0, ""},
	{"a flipped bit in a message", func(t *testing.T, s *spooled) { flip(t, s.files(0)[1], 300) }, 2, ".log at byte 0, behind batch 28: 2 messages are lost", 1, "written anew"},
	{"a flipped bit in two files", func(t *testing.T, s *spooled) {
		flip(t, s.files(0)[0], 5000)
		flip(t, s.files(0)[2], 9000)
	}, 4, "behind batch", 2, "written anew"},
	{"a lost file", func(t *testing.T, s *spooled) {
		if err := os.Remove(s.files(0)[1]); err != nil {
			t.Fatal(err)
		}
	}, 56, "a file is missing beside shard-0/00000000000000000001-", 0, ""},
	{"a file of rubbish", func(t *testing.T, s *spooled) {
		if err := os.WriteFile(s.files(0)[1], bytes.Repeat([]byte("rubbish "), 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}, 0, "are lost", 2, "set aside"},
	{"a file that was cut", func(t *testing.T, s *spooled) {
		if err := os.Truncate(s.files(0)[1], 5000); err != nil {
			t.Fatal(err)
		}
	}, 0, "are lost", 1, "written anew"},
	{"a log that was cut", func(t *testing.T, s *spooled) {
		files := s.files(0)
		if err := os.Truncate(files[len(files)-1], 2000); err != nil {
			t.Fatal(err)
		}
	}, 0, "at its end, behind batch 197: 6 messages are lost", 1, "written anew"},
	{"a lost index", func(t *testing.T, s *spooled) {
		if err := os.Remove(strings.TrimSuffix(s.files(0)[0], ".log") + ".idx"); err != nil {
			t.Fatal(err)
		}
	}, 0, "", 0, "made again"},
	{"a damaged index", func(t *testing.T, s *spooled) { flip(t, strings.TrimSuffix(s.files(0)[0], ".log")+".idx", 20) }, 0, "index is damaged", 0, "made again"},
	{"damaged positions", func(t *testing.T, s *spooled) { flip(t, filepath.Join(s.dir, "positions"), 40) }, 0, "positions is damaged", 1, "positions"},
}

// TestRepair: damage is found and counted; it is mended once, nothing is deleted, and
// what was whole is read afterwards, by check and by the daemon.
func TestRepair(t *testing.T) {
	for _, tt := range damage {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpool(t, 1)
			s.add(0, upTo(200)...)
			s.sink("store", 0, 10)
			s.sink("store", 0, 20)
			if _, err := Repair(t.Context(), s.dir, CheckOptions{}); err == nil || !strings.Contains(err.Error(), "stop siptraced first") {
				t.Errorf("while it runs: %v", err)
			}
			s.close()
			tt.do(t, s)
			was := s.check(CheckOptions{})
			if was.Good() != (tt.wrong == "") || tt.wrong != "" && !strings.Contains(was.Wrong[0], tt.wrong) {
				t.Errorf("wrong: %q, want %q", was.Wrong, tt.wrong)
			}
			if was.Lost+was.Messages != 400 || tt.lost > 0 && was.Lost != tt.lost {
				t.Errorf("%d lost, %d there, want %d and 400 together", was.Lost, was.Messages, tt.lost)
			}
			if len(was.Sinks) == 1 && (was.Sinks[0].Waiting > was.Messages || was.Sinks[0].Waiting < 360-was.Lost) {
				t.Errorf("%d wait, of %d", was.Sinks[0].Waiting, was.Messages)
			}
			for i, opt := range []CheckOptions{{}, {}} {
				r, err := Repair(t.Context(), s.dir, opt)
				if err != nil {
					t.Fatal(err)
				}
				if !r.After.Good() || r.After.Messages != was.Messages || r.After.Lost != was.Lost || r.After.Known != was.Lost {
					t.Errorf("after repair %d: %+v\nwas %+v", i, r.After, was)
				}
				if i == 0 && (r.Lost != was.Lost || tt.done != "" && !strings.Contains(strings.Join(r.Done, "\n"), tt.done)) {
					t.Errorf("repaired: lost %d, done %q; want %d, %q", r.Lost, r.Done, was.Lost, tt.done)
				}
				if i == 1 && (len(r.Done) > 0 || r.Lost > 0 || r.Aside != "") {
					t.Errorf("the second time: %+v", r)
				}
			}
			asides, err := filepath.Glob(filepath.Join(s.dir, "damaged-*"))
			n := 0
			for _, dir := range asides {
				n += len(contents(t, dir))
			}
			if err != nil || n != tt.asides {
				t.Errorf("%d files are set aside, want %d", n, tt.asides)
			}
			s.open()
			if b, err := s.logs[0].Bounds(t.Context()); err != nil || b.Total != 400 {
				t.Errorf("opened: %+v, %v", b, err)
			}
			s.add(0, 500)
			s.close()
			if r := s.check(CheckOptions{}); !r.Good() || r.Messages != was.Messages+2 {
				t.Errorf("and then: %d messages, want %d; %q", r.Messages, was.Messages+2, r.Wrong)
			}
		})
	}
}

// TestCopyOfRunning: what is cut off at the end is not lost where it is said that the
// directory was copied.
func TestCopyOfRunning(t *testing.T) {
	s := newSpool(t, 1)
	s.add(0, upTo(30)...)
	s.close()
	files := s.files(0)
	if err := os.Truncate(files[len(files)-1], 2000); err != nil {
		t.Fatal(err)
	}
	if r := s.check(CheckOptions{}); r.Good() || r.Lost == 0 {
		t.Errorf("%+v", r)
	}
	if r := s.check(CheckOptions{Copy: true}); !r.Good() || r.Lost != 0 || len(r.Notes) == 0 {
		t.Errorf("as a copy: %+v", r)
	}
}

// TestDump: the messages of all shards in the order of time, of calls and times that
// were asked for, while the spool is open.
func TestDump(t *testing.T) {
	s := newSpool(t, 3)
	s.add(0, 0, 10, 20, 1000)
	s.add(1, 5, 15, 2, 3000)
	s.add(2, 7)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	all := "0 1 2 3 5 6 7 8 10 11 15 16 20 21 1000 1001 3000 3001"
	for _, tt := range []struct {
		name string
		opt  DumpOptions
		want string
	}{
		{"all", DumpOptions{}, all},
		{"one call", DumpOptions{CallIDs: []string{"call-1-2"}}, "2 3"},
		{"two calls", DumpOptions{CallIDs: []string{"call-2-7", "call-0-1000", "none"}}, "7 8 1000 1001"},
		{"since", DumpOptions{Since: at(20)}, "20 21 1000 1001 3000 3001"},
		{"until", DumpOptions{Until: at(5)}, "0 1 2 3 5"},
		{"between", DumpOptions{Since: at(6), Until: at(10)}, "6 7 8 10"},
		{"none", DumpOptions{CallIDs: []string{"none"}}, ""},
	} {
		for _, f := range Formats() {
			t.Run(tt.name+" "+string(f), func(t *testing.T) {
				var out bytes.Buffer
				var size, done int64
				tt.opt.Format, tt.opt.Out = f, &out
				tt.opt.Begin, tt.opt.Progress = func(n int64) { size = n }, func(n int64) { done += n }
				d, err := Dump(t.Context(), s.dir, tt.opt)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, line := range read(t, out.Bytes(), tt.want == "") {
					span, err := time.ParseDuration(strings.Fields(line)[3])
					if err != nil {
						t.Fatalf("%s: %v", line, err)
					}
					got = append(got, fmt.Sprint(span.Milliseconds()))
				}
				if text := strings.Join(got, " "); text != tt.want || int(d.Messages) != len(got) || d.Late+d.TooLarge != 0 {
					t.Errorf("got %s, %+v; want %s", text, d, tt.want)
				}
				if done == 0 || done > size {
					t.Errorf("progress: %d of %d bytes", done, size)
				}
			})
		}
	}
}

// TestMissingShard: what a shard had is known to be lost, and others are read without it.
func TestMissingShard(t *testing.T) {
	s := newSpool(t, 2)
	s.add(0, 0)
	s.add(1, 10, 20)
	s.close()
	if err := os.RemoveAll(filepath.Join(s.dir, "shard-0")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if d, err := Dump(t.Context(), s.dir, DumpOptions{Format: HEP, Out: &out}); err != nil || d.Messages != 4 {
		t.Errorf("dump: %+v, %v", d, err)
	}
	if r := s.check(CheckOptions{}); r.Messages != 4 || len(r.Shards) != 2 || r.Good() || r.Lost != 2 {
		t.Errorf("check: %+v", r)
	}
	if r, err := Repair(t.Context(), s.dir, CheckOptions{}); err != nil || !r.After.Good() || r.Lost != 2 || r.After.Messages != 4 {
		t.Errorf("repair: %+v, %v", r, err)
	}
}

// TestDumpLate: a message that comes too long after its time is counted.
func TestDumpLate(t *testing.T) {
	d := &dumper{encoder: newHEPEncoder(&bytes.Buffer{})}
	for _, i := range []int{5, 6, 1, 7} {
		d.held = append(d.held, &message{rec: record("c", siptrace.UDP, "192.0.2.1:5060", "192.0.2.2:5060", i, 0)})
		d.bytes = 1
		if err := d.release(0); err != nil {
			t.Fatal(err)
		}
	}
	if d.dumped.Messages != 4 || d.dumped.Late != 1 {
		t.Errorf("%+v, want 4 messages, 1 of them late", d.dumped)
	}
}

// TestForget: nothing is kept for a sink any more, and others are as they were.
func TestForget(t *testing.T) {
	s := newSpool(t, 2)
	s.add(0, 1, 2)
	s.sink("store", 0, 1)
	s.sink("mirror.gone", 0, 1)
	s.sink("mirror.gone", 1, 0)
	if err := s.engine.Positions().Put(t.Context(), journal.MetaPrefix+"mirror.gone", "sip:gone"); err != nil {
		t.Fatal(err)
	}
	if err := Forget(t.Context(), s.dir, "mirror.gone"); err == nil || !strings.Contains(err.Error(), "stop siptraced first") {
		t.Errorf("while it runs: %v", err)
	}
	s.close()
	if err := Forget(t.Context(), s.dir, "mirror.none"); err == nil || !strings.Contains(err.Error(), "there are mirror.gone, store") {
		t.Errorf("a sink that is not there: %v", err)
	}
	if err := Forget(t.Context(), s.dir, "mirror.gone"); err != nil {
		t.Fatal(err)
	}
	if r := s.check(CheckOptions{}); len(r.Sinks) != 1 || r.Sinks[0].Name != "store" || r.Sinks[0].Waiting != 2 || !r.Good() {
		t.Errorf("%+v", r)
	}
	s.open()
	if keys, err := s.engine.Positions().Keys(t.Context()); err != nil || !slices.Equal(keys, []string{"store.0"}) {
		t.Errorf("keys %q, %v", keys, err)
	}
}
