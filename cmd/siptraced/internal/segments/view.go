package segments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// View is a directory that is only read: nothing in it is locked, made or changed. It
// may be that of a running daemon, or a copy of one.
type View struct {
	fs     disk.FS
	dir    string
	logs   []logView
	saved  PositionsReport
	blocks sync.Pool
}

// logView is one log as it was when the view was made.
type logView struct {
	report LogReport
	dir    string
	all    []*segment
	note   note
	// end is what the tail said before the files were listed: what is behind it may be
	// written just now.
	end place
}

// Report is what a directory has.
type Report struct {
	Logs      []LogReport
	Positions PositionsReport
}

// LogReport is what a log has. What was given up is not in it.
type LogReport struct {
	Index    int
	ID       string // "" where it is not noted
	Segments []SegmentReport
	Gaps     []Gap
	// Timelines are those of the entries, the oldest first.
	Timelines []journal.Timeline
	// First and Last are the numbers of the oldest entry and the newest one that are
	// whole; 0 without any.
	First, Last      uint64
	Entries, Records uint64
	// Total is how many records were in the log when its last entry had come, as far as
	// is known; those that are missing are in it.
	Total          uint64
	Bytes          int64 // of the records, with their headers
	Oldest, Newest time.Time
	// Damaged is how many records are missing, the sum of the Gaps.
	Damaged uint64
	// Trimmed is up to where entries were given up.
	Trimmed uint64
	// Superseded are segments that were written again elsewhere, Unfinished files that
	// were not complete when the process ended: both are removed at the next start.
	// Unknown are files that are not the spool's.
	Superseded, Unfinished, Unknown []string
}

// IndexState is how the index of a segment is.
type IndexState string

// The states. Where it is not Good, the segment is read at the next start.
const (
	IndexGood    IndexState = "good"
	IndexNone    IndexState = "none" // as long as entries are added
	IndexDamaged IndexState = "damaged"
	IndexStale   IndexState = "stale" // it is whole, and says something else than the segment
)

// SegmentReport is what a segment has.
type SegmentReport struct {
	Name        string // in the directory of its log
	Timeline    string
	Begins      uint64 // no entry has a lower number
	First, Last uint64 // of its whole entries; 0 without any
	Entries     uint64
	Records     uint64
	Bytes       int64 // of the whole entries, with their headers
	Size        int64 // of the file
	Oldest      time.Time
	Newest      time.Time
	Index       IndexState
	// Unreadable: the disk has errors for some of it.
	Unreadable bool
	// Missing: the file is gone since the view was made; given up, where a daemon runs.
	Missing bool
}

// Gap is where records are missing.
type Gap struct {
	Segment string // which has the place; where it has no bytes, the one before it
	Offset  int64
	After   uint64 // the entry before it; 0: none
	Records uint64
	// Tail: nothing whole comes behind it in the log. After a crash that is what was
	// being written; while a daemon runs, it may be.
	Tail bool
}

// OpenView looks at a directory. The error wraps fs.ErrNotExist where there is none,
// and ErrFormerEdition where it is one of the first edition. fsys may be nil: the
// operating system's.
func OpenView(fsys disk.FS, dir string) (*View, error) {
	if fsys == nil {
		fsys = disk.OS
	}
	v := &View{fs: fsys, dir: dir}
	if err := v.open(); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return v, nil
}

func (v *View) open() error {
	names, err := v.fs.List(v.dir)
	if err != nil {
		return err
	}
	if former(names) {
		return ErrFormerEdition
	}
	if err := v.readPositions(); err != nil {
		return err
	}
	n, err := countLogs(v.fs, v.dir)
	if err != nil {
		return err
	}
	for v.saved.Values[noteKey(n)] != "" {
		n++ // its directory is missing
	}
	for i := range n {
		l, err := v.openLog(i)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		v.logs = append(v.logs, l)
	}
	return nil
}

func (v *View) readPositions() error {
	f, err := v.fs.Open(filepath.Join(v.dir, positionsName), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	v.saved, err = readPositions(f)
	return err
}

func (v *View) openLog(i int) (l logView, err error) {
	l.dir = filepath.Join(v.dir, logPrefix+strconv.Itoa(i))
	l.report.Index = i
	var ok bool
	if l.note, ok = parseNote(v.saved.Values[noteKey(i)]); ok {
		l.report.ID = timelineName(i, l.note.id)
	}
	l.end = l.note.end
	if f, err := v.fs.Open(filepath.Join(l.dir, tailName), os.O_RDONLY); err == nil {
		if t, ok := readTail(f); ok && t.at.seq > l.end.seq {
			l.end = t.at
		}
		f.Close()
	}
	names, err := v.fs.List(l.dir)
	if errors.Is(err, fs.ErrNotExist) && l.note.end.total > l.note.trimmed.total {
		err = nil // all that it had is missing
	}
	if err != nil {
		return l, err
	}
	all, gone := segmentsOf(names)
	for i, s := range all {
		if i+1 < len(all) && all[i+1].first-1 <= l.note.trimmed.seq {
			continue // it was given up
		}
		s.timelineID = timelineName(l.report.Index, s.timeline)
		l.all = append(l.all, s)
	}
	for _, s := range gone {
		l.report.Superseded = append(l.report.Superseded, s.name())
	}
	l.report.Trimmed = l.note.trimmed.seq
	l.others(names)
	return l, nil
}

// others notes the files that are none of the log's now.
func (l *logView) others(names []string) {
	for _, name := range names {
		_, isSegment := parseSegment(name)
		_, isIndex := parseSegment(strings.TrimSuffix(name, indexSuffix) + segmentSuffix)
		switch {
		case strings.HasPrefix(name, tempPrefix):
			l.report.Unfinished = append(l.report.Unfinished, name)
		case !isSegment && !isIndex && name != spareName && name != tailName:
			l.report.Unknown = append(l.report.Unknown, name)
		}
	}
}

// Logs are the logs that there are, by their index.
func (v *View) Logs() (indexes []int) {
	for i := range v.logs {
		indexes = append(indexes, v.logs[i].report.Index)
	}
	return indexes
}

// Positions are what the directory keeps for others, by key, and how well.
func (v *View) Positions() PositionsReport { return v.saved.public() }

// public leaves out what is the engine's own.
func (r PositionsReport) public() PositionsReport {
	values := map[string]string{}
	for k, text := range r.Values {
		if !strings.HasPrefix(k, ownPrefix) {
			values[k] = text
		}
	}
	r.Values = values
	return r
}

// Size is how many bytes Check reads, about.
func (v *View) Size() (n int64) {
	for _, l := range v.logs {
		for _, s := range l.all {
			if f, err := v.fs.Open(filepath.Join(l.dir, s.name()), os.O_RDONLY); err == nil {
				size, _ := f.Size() // a file that can't be asked is none to count
				n += size
				f.Close()
			}
		}
	}
	return n
}

// Check reads every record, and compares its checksums. progress is told how many
// bytes were read since the last time; nil: nobody is. Damage is no error but in the
// report.
func (v *View) Check(ctx context.Context, progress func(bytes int64)) (*Report, error) {
	r := &Report{Positions: v.Positions()}
	for i := range v.logs {
		log, err := v.checkLog(ctx, &v.logs[i], progress)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.logs[i].dir, err)
		}
		r.Logs = append(r.Logs, log)
	}
	return r, nil
}

func (v *View) checkLog(ctx context.Context, l *logView, progress func(int64)) (LogReport, error) {
	r := l.report
	before := l.note.trimmed
	if len(l.all) > 0 && l.all[0].first > before.seq {
		before = place{l.all[0].first - 1, l.all[0].before}
	}
	given := before.total
	for i, s := range l.all {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		next := uint64(noNext)
		if i+1 < len(l.all) {
			next = l.all[i+1].first
		}
		found, one, err := v.checkSegment(l, s, next)
		if err != nil {
			return r, err
		}
		if one.Missing && r.Entries == 0 && i+1 < len(l.all) { // given up meanwhile
			before = place{l.all[i+1].first - 1, l.all[i+1].before}
			given = before.total
		}
		if s.before > before.total {
			r.gap(Gap{Segment: r.last(one.Name), After: before.seq, Records: s.before - before.total})
		}
		r.add(&found, one, given)
		before = place{max(before.seq, found.segment.published.last), max(before.total, found.segment.published.total)}
		if progress != nil {
			progress(one.Size)
		}
	}
	r.Total = max(before.total, l.end.total)
	if l.end.total > before.total {
		r.gap(Gap{Segment: r.last(""), After: before.seq, Records: l.end.total - before.total, Tail: true})
	}
	if n := len(r.Gaps); n > 0 && r.Gaps[n-1].After >= r.Last {
		r.Gaps[n-1].Tail = true
	}
	return r, nil
}

func (v *View) checkSegment(l *logView, s *segment, next uint64) (scanned, SegmentReport, error) {
	one := SegmentReport{Name: s.name(), Timeline: s.timelineID, Begins: s.first}
	f, err := v.fs.Open(filepath.Join(l.dir, s.name()), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		one.Missing = true
		return scanned{segment: *s}, one, nil
	}
	if err != nil {
		return scanned{}, one, err
	}
	defer f.Close()
	found, err := scan(f, &v.blocks, s, next, true)
	if err != nil {
		return found, one, err
	}
	t := &found.segment
	one.Size, one.Entries, one.Records, one.Bytes = t.size, found.entries, found.records, found.bytes
	one.First, one.Last, one.Oldest, one.Newest = found.first, found.last, fromNano(t.oldest), fromNano(t.newest)
	one.Unreadable = found.unreadable
	one.Index = v.checkIndex(l, s, &found, next)
	return found, one, nil
}

// checkIndex compares a segment's index with what was found. What only the index knows
// is missing.
func (v *View) checkIndex(l *logView, s *segment, found *scanned, next uint64) IndexState {
	indexed := *s
	_, err := loadIndex(v.fs, l.dir, &indexed)
	t := &found.segment
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return IndexNone
	case err != nil:
		return IndexDamaged
	case indexed.published.last >= next:
		return IndexStale
	}
	if indexed.published.total > t.published.total {
		found.gaps = append(found.gaps, gap{t.published.total, indexed.published.total - t.published.total, t.published.end, t.published.last})
		t.published.last, t.published.total = indexed.published.last, indexed.published.total
	}
	if indexed.size != t.size || indexed.published.last != t.published.last {
		return IndexStale
	}
	return IndexGood
}

// last is the last segment, or a name where there is none.
func (r *LogReport) last(otherwise string) string {
	if n := len(r.Segments); n > 0 {
		return r.Segments[n-1].Name
	}
	return otherwise
}

// add adds what was found in a segment. What is missing up to a total was given up.
func (r *LogReport) add(found *scanned, one SegmentReport, given uint64) {
	r.Segments = append(r.Segments, one)
	for _, g := range found.gaps {
		if g.before+g.records <= given {
			continue
		}
		r.gap(Gap{Segment: one.Name, Offset: g.off, After: g.after, Records: g.records})
	}
	if one.Entries == 0 {
		return
	}
	if r.Entries == 0 {
		r.First, r.Oldest = one.First, one.Oldest
	}
	r.Last, r.Newest = one.Last, one.Newest
	r.Entries, r.Records, r.Bytes = r.Entries+one.Entries, r.Records+one.Records, r.Bytes+one.Bytes
	r.Timelines = addTimeline(r.Timelines, one.Timeline, one.Last)
}

func (r *LogReport) gap(g Gap) {
	r.Gaps = append(r.Gaps, g)
	r.Damaged += g.Records
}

// Read reads the entries of a log that were taken at since or later, in their order.
// Damaged ones are passed over; the error is journal.ErrEnd behind the last one.
func (v *View) Read(log int, since time.Time) (journal.Cursor, error) {
	for i := range v.logs {
		if v.logs[i].report.Index == log {
			return &viewCursor{view: v, log: &v.logs[i], since: unixNano(since)}, nil
		}
	}
	return nil, fmt.Errorf("%s: there is no log %d", v.dir, log)
}

type viewCursor struct {
	view   *View
	log    *logView
	since  int64
	next   int // index of the next segment
	walker walker
	line   string // the timeline of the open segment; "": none is open
}

func (c *viewCursor) Close() {
	if c.line != "" {
		c.walker.close()
		c.walker.file.Close()
		c.line = ""
	}
}

func (c *viewCursor) Next(ctx context.Context) (journal.Entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return journal.Entry{}, err
		}
		if c.line == "" {
			if err := c.open(); err != nil {
				return journal.Entry{}, err
			}
			continue
		}
		var h header
		data, err := c.walker.next(&h, 0)
		if errors.Is(err, io.EOF) {
			c.Close()
			continue
		}
		if err != nil {
			return journal.Entry{}, fmt.Errorf("%s: %w", c.log.dir, err)
		}
		if h.taken < c.since || h.seq <= c.log.note.trimmed.seq {
			continue
		}
		c.walker.block.Retain()
		return journal.Entry{
			Seq: h.seq, Records: int(h.records), Total: h.total, Timeline: c.line,
			Taken: fromNano(h.taken), Data: data, Memory: c.walker.block,
		}, nil
	}
}

// open opens the next segment that may have something.
func (c *viewCursor) open() error {
	if c.next >= len(c.log.all) {
		return journal.ErrEnd
	}
	s := c.log.all[c.next]
	c.next++
	from := origin{s.timeline, s.first, noNext}
	if c.next < len(c.log.all) {
		from.next = c.log.all[c.next].first
	}
	indexed := *s
	if _, err := loadIndex(c.view.fs, c.log.dir, &indexed); err == nil && indexed.newest < c.since {
		return nil
	}
	f, err := c.view.fs.Open(filepath.Join(c.log.dir, s.name()), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // given up meanwhile
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		f.Close()
		return err
	}
	c.walker = walker{file: f, pool: &c.view.blocks, from: from, end: size, last: s.first - 1, salvage: true}
	c.line = s.timelineID
	return nil
}
