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

// note is what the positions say of a log: its id, its last entry and the timeline of
// that, and what was given up.
type note struct {
	id, timeline uint64
	end, trimmed place
}

const noteFormat = "%016x %d %d %016x %d %d"

func (l *Log) key() string { return noteKey(l.index) }

func noteKey(log int) string { return ownPrefix + "log." + strconv.Itoa(log) }

// note is the text for the positions.
func (l *Log) note() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	timeline := l.timeline
	if n := len(l.old); l.end.seq == l.began && n > 0 {
		timeline = l.lastOld // there is nothing of this one yet
	}
	return fmt.Sprintf(noteFormat, l.idNumber, max(l.end.seq, l.skipped), l.end.total, timeline, l.trimmed.seq, l.trimmed.total)
}

func parseNote(text string) (n note, ok bool) {
	_, err := fmt.Sscanf(text, noteFormat, &n.id, &n.end.seq, &n.end.total, &n.timeline, &n.trimmed.seq, &n.trimmed.total)
	return n, err == nil
}

// open finds out what the log has. Only segments without a good index are read.
func (l *Log) open() error {
	fsys := l.engine.fs
	if err := makeDir(fsys, l.dir); err != nil {
		return err
	}
	// Names that were not synced when the process ended are what counts from now on.
	if err := fsys.SyncDir(l.dir); err != nil {
		return err
	}
	all, err := l.list()
	if err != nil {
		return err
	}
	n := l.readNote()
	l.trimmed = n.trimmed
	for i, s := range all {
		next := uint64(noNext)
		if i+1 < len(all) {
			next = all[i+1].first
		}
		if next-1 <= n.trimmed.seq {
			l.discard(s)
			// Each before the one behind it, which says what of it counts.
			if err := fsys.SyncDir(l.dir); err != nil {
				return err
			}
			continue
		}
		if len(l.segments) == 0 && s.first > l.trimmed.seq {
			// What was before it was given up after that was noted last.
			l.trimmed = place{s.first - 1, s.before}
		}
		if err := l.load(s, next); err != nil {
			return err
		}
		l.add(s)
	}
	l.findEnd(n)
	return fsys.SyncDir(l.dir)
}

func (s *segment) place() place { return place{s.published.last, s.published.total} }

// list is the segments that count. Others are removed.
func (l *Log) list() ([]*segment, error) {
	names, err := l.engine.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	all, gone := segmentsOf(names)
	for _, s := range all {
		l.ordinal = max(l.ordinal, s.ordinal)
	}
	for _, s := range gone {
		l.ordinal = max(l.ordinal, s.ordinal)
		l.discard(s)
	}
	for _, name := range names {
		// After a loss of power what was to be used again may be a second name of a
		// segment that it became.
		if name == spareName || strings.HasPrefix(name, tempPrefix) {
			l.discardFile(name)
		}
	}
	return all, nil
}

// segmentsOf is the segments among the names of files, and those that were written
// again.
func segmentsOf(names []string) (all, gone []*segment) {
	for _, name := range names {
		if s, ok := parseSegment(name); ok {
			all = append(all, s)
		}
	}
	return supersede(all)
}

func (l *Log) discard(s *segment) {
	l.discardFile(s.index())
	l.discardFile(s.name())
}

func (l *Log) discardFile(name string) {
	if err := l.engine.fs.Remove(filepath.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn("spool: a file that is of no use stays", "err", err)
	}
}

// readNote is what positions and tail say of the log. Without them the log gets
// another id.
func (l *Log) readNote() note {
	text, _, _ := l.engine.positions.Get(context.Background(), l.key()) // it has no error
	n, ok := parseNote(text)
	if !ok {
		n = note{}
	}
	var err error
	if l.tail, err = openTail(l.engine.fs, filepath.Join(l.dir, tailName)); err != nil {
		l.log.Warn("spool: where the log ends is not noted: what a crash costs may not be counted exactly", "err", err)
	} else if t, found := readTail(l.tail.file); found {
		if !ok {
			n.id = t.id
		}
		if t.id == n.id && t.at.seq > n.end.seq {
			n.end, n.timeline = t.at, t.timeline
		}
	}
	if n.id == 0 {
		n.id = l.engine.cfg.Random()
	}
	l.idNumber = n.id
	l.id = timelineName(l.index, n.id)
	if l.tail != nil {
		l.tail.id, l.tail.line = n.id, l.timeline
	}
	return n
}

// load finds out what a segment has: by its index, else by reading it.
func (l *Log) load(s *segment, next uint64) error {
	fsys := l.engine.fs
	s.sealed, s.named, s.timelineID = true, true, timelineName(l.index, s.timeline)
	f, err := fsys.Open(filepath.Join(l.dir, s.name()), os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	indexed := *s
	_, indexErr := loadIndex(fsys, l.dir, &indexed)
	if indexErr == nil && indexed.size == size && indexed.published.last < next {
		*s = indexed
		s.indexed = true
	} else if err := l.rebuild(s, f, next); err != nil {
		return err
	}
	if indexErr == nil && !s.indexed && indexed.published.last < next && indexed.published.last > s.published.last {
		// The segment was cut. Its index knows what it had.
		l.lose(s, place{indexed.published.last, indexed.published.total})
	}
	if !s.indexed {
		if err := l.secure(s, f, next); err != nil {
			return err
		}
		if err := saveIndex(fsys, l.dir, s.index(), s.appendIndex(nil)); err == nil {
			s.indexed, s.marks = true, nil
		}
	}
	s.written, s.synced = s.published, s.published
	if n := len(l.segments); n > 0 {
		l.lose(l.segments[n-1], place{s.first - 1, s.before})
	}
	return nil
}

// secure makes safe what a process left that did not end well. Where that fails, what
// can be read is written again.
func (l *Log) secure(s *segment, f disk.File, next uint64) error {
	failure := f.Sync()
	if failure == nil {
		return nil
	}
	l.log.Error("spool: what a former process wrote is not safe, and is written again", "segment", filepath.Join(l.dir, s.name()), "err", failure)
	fresh := &segment{first: s.first, ordinal: s.ordinal, timeline: s.timeline, before: s.before}
	fresh.written = state{last: s.first - 1, total: s.before}
	w := walker{
		file: f, pool: &l.engine.blocks, from: origin{s.timeline, s.first, next}, end: s.size,
		last: s.first - 1, total: s.before, salvage: true,
	}
	defer w.close()
	temp, name := filepath.Join(l.dir, tempPrefix+s.name()), filepath.Join(l.dir, s.name())
	err := makeFile(l.engine.fs, temp, func(to disk.File) error { return copyWhole(&w, to, fresh) })
	if err == nil {
		err = l.engine.fs.Rename(temp, name)
	}
	if err == nil {
		err = l.engine.fs.SyncDir(l.dir)
	}
	if err != nil {
		return errors.Join(failure, err)
	}
	// What was there before stays known, should some of it be gone now.
	s.published.end, s.size, s.marks = fresh.written.end, fresh.written.end, fresh.marks
	if s.published.total > fresh.written.total {
		l.hurt(s, fresh.written.total, s.published.total-fresh.written.total, s.published.end)
	}
	return nil
}

// lose notes that the end of a segment is gone.
func (l *Log) lose(s *segment, at place) {
	known := max(s.published.total, l.trimmed.total)
	if at.total > known {
		l.hurt(s, known, at.total-known, s.published.end)
	}
	s.published.last, s.published.total = max(s.published.last, at.seq), max(s.published.total, at.total)
	s.written, s.synced = s.published, s.published
}

// The attempts to read a segment at start.
const (
	startAttempts = 5
	startPause    = 50 * time.Millisecond
)

// rebuild reads a segment, and cuts what was kept ready in it.
func (l *Log) rebuild(s *segment, f disk.File, next uint64) error {
	var r scanned
	var err error
	for i := range startAttempts {
		if r, err = scan(f, &l.engine.blocks, s, next, i == startAttempts-1); err == nil {
			break
		}
		time.Sleep(startPause)
	}
	if err != nil {
		return err
	}
	*s = r.segment
	for _, g := range r.gaps {
		l.hurt(s, g.before, g.records, g.off)
	}
	// Behind the end may be what is damaged, where something is missing.
	if !r.unreadable && s.size > s.published.end && f.Truncate(s.published.end) == nil {
		s.size, err = f.Size()
	}
	return err
}

// gap is where records are missing.
type gap struct {
	before, records uint64 // the total before them, and how many they are
	off             int64
	after           uint64 // the entry before them
}

// scanned is what was found in a segment.
type scanned struct {
	segment segment
	next    uint64 // the first number of what is behind it
	gaps    []gap
	// Of the whole entries: their numbers, how many they are, their records and bytes.
	first, last, entries, records uint64
	bytes                         int64
	unreadable                    bool
}

// count counts a whole entry.
func (r *scanned) count(h *header) {
	if r.entries == 0 {
		r.first = h.seq
	}
	r.last = h.seq
	r.entries++
	r.records += uint64(h.records)
	r.bytes += h.size()
	r.segment.add(h)
}

// scan reads a segment. What can't be read is an error, or with salvage damaged.
func scan(f disk.File, pool *sync.Pool, s *segment, next uint64, salvage bool) (scanned, error) {
	r := scanned{segment: *s, next: next}
	size, err := f.Size()
	if err != nil {
		return r, err
	}
	r.segment.size = size
	r.segment.written = state{last: s.first - 1, total: s.before}
	w := walker{file: f, pool: pool, from: origin{s.timeline, s.first, next}, end: size, last: s.first - 1, total: s.before, salvage: salvage}
	defer w.close()
	for {
		var h header
		last := w.last
		_, err := w.next(&h, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return r, err
		}
		if err != nil {
			break
		}
		if w.lost > 0 {
			r.gaps = append(r.gaps, gap{w.known, w.lost, w.hole, last})
		}
		r.count(&h)
	}
	if w.seen.seq > r.segment.written.last {
		// The last ones are damaged, but it is known what they were.
		missing := w.seen.total - min(w.seen.total, r.segment.written.total)
		r.gaps = append(r.gaps, gap{w.seen.total - missing, missing, r.segment.written.end, r.segment.written.last})
		r.segment.written = state{w.seen.off, w.seen.seq, w.seen.total}
	}
	r.segment.published, r.segment.synced = r.segment.written, r.segment.written
	r.unreadable = w.unreadable
	return r, nil
}

// findEnd sets where the log ends: behind all that it has, and ever noted.
func (l *Log) findEnd(n note) {
	end := l.trimmed
	for _, s := range l.segments {
		l.old = addTimeline(l.old, s.timelineID, s.published.last)
		l.lastOld = s.timeline
		if at := s.place(); at.seq >= end.seq {
			end = at
		}
	}
	if n.end.seq > end.seq {
		id := timelineName(l.index, n.timeline)
		l.old, l.lastOld = addTimeline(l.old, id, n.end.seq), n.timeline
		if lost := n.end.total - min(n.end.total, end.total); lost > 0 {
			l.damaged += l.damage.add(span{end.total, n.end.total})
			l.log.Error("spool: the end of a shard is gone: a loss of power, or its files are damaged", "messages", lost)
		}
		end = place{n.end.seq, max(n.end.total, end.total)}
	} else if n.timeline != 0 && len(l.old) == 0 {
		l.old, l.lastOld = addTimeline(l.old, timelineName(l.index, n.timeline), n.end.seq), n.timeline
	}
	l.end, l.synced, l.began = end, end, end.seq
	if l.trimmed.seq >= end.seq {
		l.trimmed = end
	}
}

// addTimeline notes an entry of a timeline, which is the last one or a new one.
func addTimeline(all []journal.Timeline, id string, last uint64) []journal.Timeline {
	if n := len(all); n > 0 && all[n-1].ID == id {
		all[n-1].Last = max(all[n-1].Last, last)
		return all
	}
	return append(all, journal.Timeline{ID: id, Last: last})
}
