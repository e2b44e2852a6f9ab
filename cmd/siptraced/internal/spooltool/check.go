package spooltool

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/segments"
)

// CheckOptions say how to check.
type CheckOptions struct {
	// Copy: the directory was copied while a daemon worked on it. What is missing at its
	// end came while it was copied.
	Copy bool
	// Begin is told how many bytes there are to read, Progress how many were read since
	// the last time; nil: nobody is.
	Begin    func(bytes int64)
	Progress func(bytes int64)

	locked bool // by us
}

// Report is what is in a spool. A message may be several rows.
type Report struct {
	Dir string `json:"dir"`
	// PID is the process that works on the directory, 0: none is known.
	PID    int     `json:"pid,omitempty"`
	Shards []Shard `json:"shards"`
	Sinks  []Sink  `json:"sinks"`
	// Wrong is what is not as it should be; Notes is what is, and may look odd.
	Wrong []string `json:"wrong"`
	Notes []string `json:"notes"`
	// Messages can be read. Lost are those that can't, Known those of them that were
	// known to be lost when the spool was repaired.
	Messages uint64 `json:"messages"`
	Batches  uint64 `json:"batches"`
	Bytes    int64  `json:"bytes"`
	Lost     uint64 `json:"lost"`
	Known    uint64 `json:"known_lost"`
	// Oldest and Newest are when messages were taken in; zero without any.
	Oldest time.Time `json:"oldest,omitzero"`
	Newest time.Time `json:"newest,omitzero"`

	opt              CheckOptions
	damagedPositions bool
}

// Shard is one run of batches.
type Shard struct {
	Index     int        `json:"shard"`
	ID        string     `json:"id"`
	First     uint64     `json:"first_batch"`
	Last      uint64     `json:"last_batch"`
	Batches   uint64     `json:"batches"`
	Messages  uint64     `json:"messages"`
	Bytes     int64      `json:"bytes"`
	Oldest    time.Time  `json:"oldest,omitzero"`
	Newest    time.Time  `json:"newest,omitzero"`
	Timelines []Timeline `json:"timelines"`
	Segments  []Segment  `json:"segments"`
	Gaps      []Gap      `json:"gaps"`

	total uint64 // of messages that were ever taken, up to the last batch
}

// Timeline is the run of a process that gave out the numbers of batches.
type Timeline struct {
	ID   string `json:"id"`
	Last uint64 `json:"last_batch"`
}

// Segment is a file of a shard.
type Segment struct {
	File     string    `json:"file"`
	First    uint64    `json:"first_batch"`
	Last     uint64    `json:"last_batch"`
	Batches  uint64    `json:"batches"`
	Messages uint64    `json:"messages"`
	Size     int64     `json:"size"`
	Oldest   time.Time `json:"oldest,omitzero"`
	Newest   time.Time `json:"newest,omitzero"`
	Index    string    `json:"index"` // good, none, damaged, stale
	// Unreadable: the disk has errors for some of it.
	Unreadable bool `json:"unreadable,omitempty"`

	begins uint64 // no batch has a lower number
}

// Gap is where messages are missing.
type Gap struct {
	File     string `json:"file"`
	Offset   int64  `json:"offset"`
	After    uint64 `json:"after_batch"`
	Messages uint64 `json:"messages"`
	// NoFile: the file that had them is missing; File is the one before it, or the first
	// one that is there.
	NoFile bool `json:"no_file"`
	AtEnd  bool `json:"at_end"` // nothing whole is behind it
	Known  bool `json:"known"`  // from a repair
}

// Sink is how far a sink came in a shard.
type Sink struct {
	Name    string    `json:"sink"`
	Shard   int       `json:"shard"`
	Done    uint64    `json:"done_batch"` // up to here
	Waiting uint64    `json:"waiting"`    // messages
	Oldest  time.Time `json:"oldest_waiting,omitzero"`
}

// Good reports whether nothing is wrong.
func (r *Report) Good() bool { return len(r.Wrong) == 0 }

// Check verifies a directory, and reads no more than that: it may be that of a running
// daemon. Damage is no error but in the report; the error wraps
// segments.ErrFormerEdition for a directory of the first edition.
func Check(ctx context.Context, dir string, opt CheckOptions) (*Report, error) {
	v, err := segments.OpenView(nil, dir)
	if err != nil {
		return nil, err
	}
	if len(v.Logs()) == 0 {
		return nil, noSpool(dir)
	}
	if opt.Begin != nil {
		opt.Begin(v.Size())
	}
	found, err := v.Check(ctx, opt.Progress)
	if err != nil {
		return nil, err
	}
	r := &Report{Dir: dir, opt: opt, Wrong: []string{}, Notes: []string{}, Sinks: []Sink{}, Shards: []Shard{}}
	if !opt.locked {
		r.PID = lockedBy(filepath.Join(dir, "lock"))
	}
	known := readKnown(found.Positions.Values[knownKey])
	for i := range found.Logs {
		r.addShard(&found.Logs[i], known)
	}
	if r.damagedPositions = found.Positions.Damaged; r.damagedPositions {
		r.wrong("the file of positions is damaged; what can be read of it is used, and the database has its own position")
	}
	return r, r.addSinks(ctx, v, found.Positions.Values)
}

func (r *Report) wrong(format string, args ...any) {
	r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *Report) addShard(l *segments.LogReport, known map[knownGap]bool) {
	s := Shard{
		Index: l.Index, ID: l.ID, First: l.First, Last: l.Last, Batches: l.Entries, Messages: l.Records, Bytes: l.Bytes,
		Oldest: l.Oldest, Newest: l.Newest, Timelines: []Timeline{}, Segments: []Segment{}, Gaps: []Gap{}, total: l.Total,
	}
	dir := "shard-" + strconv.Itoa(l.Index)
	for _, t := range l.Timelines {
		s.Timelines = append(s.Timelines, Timeline(t))
	}
	for i := range l.Segments {
		g := &l.Segments[i]
		file := filepath.Join(dir, g.Name)
		if g.Missing {
			r.note("%s went while this was read: all sinks were done with it", file)
			continue
		}
		s.Segments = append(s.Segments, Segment{file, g.First, g.Last, g.Entries, g.Records, g.Size, g.Oldest, g.Newest, string(g.Index), g.Unreadable, g.Begins})
	}
	for _, g := range l.Gaps {
		gap := Gap{filepath.Join(dir, g.Segment), g.Offset, g.After, g.Records, false, g.Tail, known[knownGap{l.Index, g.After, g.Records}]}
		gap.NoFile = gap.Offset == 0 && !slices.ContainsFunc(s.Segments, func(s Segment) bool {
			return s.File == gap.File && gap.After+1 >= s.begins && (s.Batches == 0 || gap.After < s.Last)
		})
		s.Gaps = append(s.Gaps, gap)
		r.addGap(gap)
	}
	for _, g := range s.Segments {
		r.checkSegment(g)
	}
	for _, name := range l.Unknown {
		r.note("%s is not of the spool", filepath.Join(dir, name))
	}
	if n := len(l.Superseded) + len(l.Unfinished); n > 0 {
		r.note("shard %d: %d files are of no use any more, and are removed at the next start", l.Index, n)
	}
	r.Messages, r.Batches, r.Bytes = r.Messages+s.Messages, r.Batches+s.Batches, r.Bytes+s.Bytes
	if !s.Oldest.IsZero() && (r.Oldest.IsZero() || s.Oldest.Before(r.Oldest)) {
		r.Oldest = s.Oldest
	}
	if s.Newest.After(r.Newest) {
		r.Newest = s.Newest
	}
	r.Shards = append(r.Shards, s)
}

// moves reports whether the directory changed, or may have, while it was read or
// copied.
func (r *Report) moves() bool { return r.PID != 0 || r.opt.Copy }

func (r *Report) checkSegment(g Segment) {
	if g.Unreadable {
		r.wrong("%s: the disk can't read some of it (the kernel's log has its errors)", g.File)
	}
	// A segment without an index is read at the next start, as the last ones are after
	// a crash.
	if i := segments.IndexState(g.Index); !r.moves() && (i == segments.IndexDamaged || i == segments.IndexStale) {
		r.wrong("%s: its index is %s; the file itself is read at the next start", g.File, g.Index)
	}
}

func (r *Report) addGap(g Gap) {
	if g.AtEnd && r.moves() {
		r.note("%s: %d messages at the end are not whole: they came while this was read or copied", g.File, g.Messages)
		return
	}
	r.Lost += g.Messages
	place := fmt.Sprintf("%s at byte %d, behind batch %d: %d messages", g.File, g.Offset, g.After, g.Messages)
	switch {
	case g.AtEnd:
		place = fmt.Sprintf("%s at its end, behind batch %d: %d messages", g.File, g.After, g.Messages)
	case g.NoFile:
		place = fmt.Sprintf("a file is missing beside %s, behind batch %d: %d messages", g.File, g.After, g.Messages)
	}
	switch {
	case g.Known:
		r.Known += g.Messages
		r.note("%s are lost, as was known when the spool was repaired", place)
	case g.AtEnd:
		r.wrong("%s are lost. They were cut off, or being written when the power went; if this is a copy of what a running siptraced has, they came while it was copied (--copy)", place)
	default:
		r.wrong("%s are lost", place)
	}
}

// addSinks adds how far each sink came.
func (r *Report) addSinks(ctx context.Context, v *segments.View, values map[string]string) error {
	for key, text := range values {
		name, shard, ok := journal.CutPositionKey(key)
		if !ok {
			continue
		}
		p, ok := journal.ParsePosition(text)
		i := slices.IndexFunc(r.Shards, func(s Shard) bool { return s.Index == shard })
		switch {
		case !ok:
			r.wrong("the position of sink %s in shard %d can't be read: %q", name, shard, text)
			continue
		case i < 0 || r.Shards[i].ID != "" && p.Log != r.Shards[i].ID:
			r.note("sink %s has a position in shard %d of another spool: it begins anew", name, shard)
			continue
		}
		sink := Sink{Name: name, Shard: shard, Done: p.Seq, Waiting: r.Shards[i].behind(p)}
		if p.Seq > r.Shards[i].Last && r.PID == 0 && len(r.Shards[i].Gaps) == 0 && r.Shards[i].Last > 0 {
			r.note("sink %s is done with batch %d of shard %d, which is not there any more", name, p.Seq, shard)
		}
		if sink.Waiting > 0 {
			var err error
			if sink.Oldest, err = r.Shards[i].oldestBehind(ctx, v, p.Seq); err != nil {
				return err
			}
		}
		r.Sinks = append(r.Sinks, sink)
	}
	slices.SortFunc(r.Sinks, func(a, b Sink) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.Shard - b.Shard
	})
	slices.Sort(r.Notes)
	return nil
}

// behind is how many messages are behind a position and can be read.
func (s *Shard) behind(p journal.Position) uint64 {
	n := s.total - min(p.Total, s.total)
	for _, g := range s.Gaps {
		if g.After >= p.Seq {
			n -= min(n, g.Messages)
		}
	}
	return min(n, s.Messages)
}

// oldestBehind is when the first batch behind a position was taken.
func (s *Shard) oldestBehind(ctx context.Context, v *segments.View, seq uint64) (time.Time, error) {
	i := slices.IndexFunc(s.Segments, func(g Segment) bool { return g.Last > seq })
	if i < 0 {
		return time.Time{}, nil
	}
	c, err := v.Read(s.Index, s.Segments[i].Oldest)
	if err != nil {
		return time.Time{}, err
	}
	defer c.Close()
	for {
		e, err := c.Next(ctx)
		if errors.Is(err, journal.ErrEnd) {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		e.Memory.Release()
		if e.Seq > seq {
			return e.Taken, nil
		}
	}
}

// knownKey is where the positions keep the gaps that a repair left.
const knownKey = "repaired"

// knownGap tells a gap from others, wherever its file is.
type knownGap struct {
	Shard    int    `json:"shard"`
	After    uint64 `json:"after"`
	Messages uint64 `json:"messages"`
}

// readKnown reads what a repair noted. What can't be read is not known.
func readKnown(text string) map[knownGap]bool {
	var list []knownGap
	_ = json.Unmarshal([]byte(text), &list)
	known := map[knownGap]bool{}
	for _, g := range list {
		known[g] = true
	}
	return known
}

// lockedBy is the process that has a lock on a file (proc_locks(5)), 0 if none has.
// Nothing is locked to find out: a daemon may start in this moment.
func lockedBy(file string) int {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
		if col := strings.Fields(sc.Text()); len(col) >= 6 && col[5] == want {
			pid, _ := strconv.Atoi(col[4])
			return pid
		}
	}
	return 0
}
