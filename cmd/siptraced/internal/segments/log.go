package segments

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// Log is a directory of segments (journal.Log). Its mutexes are taken in this order:
// appending, syncing, trimming, mu.
type Log struct {
	engine *Engine
	index  int
	dir    string
	log    *slog.Logger
	id     string // made of idNumber

	timeline   uint64
	timelineID string

	// appending is held while entries are written, and while those that could not be
	// synced are written again; it covers what follows.
	appending sync.Mutex
	active    *segment // nil: the next entry begins one
	ordinal   uint32   // of the newest file
	headers   []byte   // what Append reuses
	bufs      [][]byte
	runs      []run
	tail      *tail // nil: there is none
	attempts  int   // to write again what could not be synced, in a row

	// syncing is held while files are synced. They are closed under it, too.
	syncing sync.Mutex

	trimming sync.Mutex // held while segments are removed

	mu       sync.Mutex // covers what follows; never held during I/O
	limits   journal.Limits
	segments []*segment // in their order; the active one is the last
	end      place      // of the last entry that readers may have
	skipped  uint64     // numbers up to here are not used any more
	synced   place      // all up to here is safe, or needs not be any more
	trimmed  place      // all up to here was given up
	held     held
	since    time.Time // when the first entry that is not synced was appended
	later    time.Time // and the first one since the last sync began
	failed   error     // nothing is appended until what is not synced was written again
	badSync  bool      // that was a sync
	tried    bool      // it was tried to, since Append said so last
	spare    bool      // there is a file to use again
	closing  []disk.File
	damage   damage
	damaged  uint64 // records, of all that were found
	closed   bool
	changed  chan struct{} // closed when synced or failed changes

	wake   chan struct{} // tells keep that there is something to sync
	urgent chan struct{} // and not to wait with it
	room   chan struct{} // tells that there may be more of it

	// Of what was there when it was opened: the timelines, the last of them, and the
	// last number.
	old      []journal.Timeline
	lastOld  uint64
	began    uint64
	idNumber uint64
}

// place is an entry, and the total with it.
type place struct{ seq, total uint64 }

func newLog(e *Engine, i int, limits journal.Limits) *Log {
	l := &Log{
		engine: e, index: i, dir: filepath.Join(e.cfg.Dir, logPrefix+strconv.Itoa(i)), log: e.log.With("shard", i),
		limits: limits, timeline: e.cfg.Random(), changed: make(chan struct{}),
		wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	l.timelineID = timelineName(i, l.timeline)
	return l
}

// ID is random, and stays as long as the positions do.
func (l *Log) ID() string { return l.id }

// Exclusive is true: nobody else appends.
func (l *Log) Exclusive() bool { return true }

// Timelines are those of the segments. Each opening began one.
func (l *Log) Timelines() []journal.Timeline {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(l.old[:len(l.old):len(l.old)], journal.Timeline{ID: l.timelineID, Last: max(l.end.seq, l.skipped)})
}

// Bounds are known without asking the disk.
func (l *Log) Bounds(context.Context) (journal.Bounds, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := max(l.end.seq, l.skipped)
	b := journal.Bounds{First: last + 1, Last: last, Total: l.end.total, DamagedRecords: l.damaged}
	for _, s := range l.segments {
		if s.live() > 0 {
			if b.Bytes == 0 {
				b.First, b.Oldest = max(s.first, l.trimmed.seq+1), fromNano(s.oldest)
			}
			b.Bytes += s.live()
		}
	}
	if l.end.seq > l.synced.seq {
		b.UnsyncedRecords, b.UnsyncedSince = l.end.total-l.synced.total, l.since
		if l.failed != nil {
			b.UncertainRecords = b.UnsyncedRecords
		}
	}
	return b, nil
}

// errClosed is the answer of a log whose engine is closed.
var errClosed = fmt.Errorf("the log: %w", fs.ErrClosed)

// run is what one write put into a segment.
type run struct {
	segment *segment
	entries []*journal.Entry
}

// Append writes entries behind the others.
func (l *Log) Append(_ context.Context, entries []*journal.Entry) (n int, err error) {
	if err := l.usable(); err != nil {
		return 0, err
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	if err := l.usable(); err != nil {
		return 0, err
	}
	l.runs = l.runs[:0]
	at := l.position()
	for n < len(entries) && err == nil {
		var k int
		k, at, err = l.write(entries[n:], at)
		n += k
	}
	if l.engine.cfg.SyncInterval > 0 || n == 0 {
		return n, err
	}
	if failure := l.syncAll(); failure != nil {
		return 0, failure
	}
	for _, r := range l.runs {
		l.publish(r)
	}
	clear(l.runs)
	return n, err
}

func (l *Log) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errClosed
	case l.failed != nil && l.limits.DropOldest && !l.tried:
		// Nothing more is to be dropped until it is known that it does not do yet.
		return errWaits
	}
	l.tried = false
	return l.failed
}

var errWaits = errors.New("what was written last is not safe, and is written again first")

// position is what the next entry comes behind.
func (l *Log) position() place {
	l.mu.Lock()
	defer l.mu.Unlock()
	return place{max(l.end.seq, l.skipped), l.end.total}
}

// Skip has the next entry come behind a number.
func (l *Log) Skip(upTo uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.skipped = max(l.skipped, upTo)
}

// write writes as many of the entries as one segment and the bounds have room for.
func (l *Log) write(entries []*journal.Entry, at place) (n int, after place, err error) {
	if len(entries[0].Data) > maxEntry {
		return 0, at, fmt.Errorf("%w: %d bytes", journal.ErrTooLarge, len(entries[0].Data))
	}
	first := recordSize(len(entries[0].Data))
	room, err := l.admit(first)
	if err != nil {
		return 0, at, err
	}
	s, err := l.makeRoom(first, at)
	if err != nil {
		return 0, at, err
	}
	room = min(room, s.size-s.written.end)
	for _, e := range entries {
		size := recordSize(len(e.Data))
		if len(e.Data) > maxEntry || size > room {
			break
		}
		room -= size
		n++
	}
	after = l.encode(s, entries[:n], at)
	_, err = s.file.WritevAt(l.bufs, s.written.end)
	clear(l.bufs)
	if err != nil {
		return 0, at, l.fail(err, false)
	}
	r := run{s, entries[:n]}
	l.wrote(r)
	if l.engine.cfg.SyncInterval > 0 {
		l.publish(r)
	} else {
		l.runs = append(l.runs, r)
	}
	return n, after, nil
}

// encode makes what is written for entries, in l.bufs: headers, with what fills up the
// record before them, and data in turn.
func (l *Log) encode(s *segment, entries []*journal.Entry, at place) place {
	l.headers = slices.Grow(l.headers[:0], (len(entries)+1)*(headerSize+align))
	l.bufs = l.bufs[:0]
	off, pad := s.written.end, 0
	for _, e := range entries {
		at.seq++
		at.total = max(at.total+uint64(e.Records), e.Total)
		e.Seq, e.Total, e.Timeline = at.seq, at.total, s.timelineID
		h := headerOf(e, off, l.timeline)
		b := l.zeros(pad + headerSize)
		h.put(b[pad:])
		l.bufs = append(l.bufs, b, e.Data)
		off += h.size()
		pad = int(h.size()) - headerSize - len(e.Data)
	}
	if pad > 0 {
		l.bufs = append(l.bufs, l.zeros(pad))
	}
	return at
}

// zeros is n more bytes of l.headers, which has room for them.
func (l *Log) zeros(n int) []byte {
	i := len(l.headers)
	l.headers = l.headers[:i+n]
	clear(l.headers[i:])
	return l.headers[i:]
}

func headerOf(e *journal.Entry, off int64, timeline uint64) header {
	return header{
		length: len(e.Data), seq: e.Seq, total: e.Total, taken: unixNano(e.Taken), records: uint32(e.Records),
		sum: checksum(e.Data), timeline: timeline, off: off,
	}
}

// writeError tells a full file system from others.
func writeError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", journal.ErrFull, err)
	}
	return err
}

// wrote notes what is in a file now.
func (l *Log) wrote(r run) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range r.entries {
		h := header{length: len(e.Data), seq: e.Seq, total: e.Total, taken: unixNano(e.Taken), records: uint32(e.Records), off: r.segment.written.end}
		r.segment.add(&h)
		if l.engine.cfg.SyncInterval > 0 {
			l.held.add(e)
		}
	}
	if l.end.seq <= l.synced.seq {
		l.since = now
	}
	if l.later.IsZero() {
		l.later = now
	}
}

// publish gives readers what was written.
func (l *Log) publish(r run) {
	last := r.entries[len(r.entries)-1]
	l.tail.write(place{last.Seq, last.Total})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = place{last.Seq, last.Total}
	size := int64(0)
	for _, e := range r.entries {
		size += recordSize(len(e.Data))
	}
	s := r.segment
	s.published = state{s.published.end + size, last.Seq, last.Total}
	if l.engine.cfg.SyncInterval == 0 {
		l.synced = l.end
	} else {
		wake(l.wake)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// admit is how many bytes the bounds have room for, which is no less than size. An empty
// log takes what is larger than its bound: nothing else could ever be done with it.
func (l *Log) admit(size int64) (room int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits.Bytes <= 0 {
		return maxRoom, nil
	}
	room = l.limits.Bytes
	for _, s := range l.segments {
		room -= s.live()
	}
	if room == l.limits.Bytes {
		room = max(room, size)
	}
	if room < size {
		return 0, errBound
	}
	return room, nil
}

// makeRoom is a segment that has room for size bytes more.
func (l *Log) makeRoom(size int64, at place) (*segment, error) {
	if s := l.active; s != nil && s.written.end+size <= s.size && !l.ripe(s) {
		return s, nil
	}
	return l.begin(size, at)
}

// ripe reports whether a segment is to end because entries are given up by age: that
// is done by whole segments.
func (l *Log) ripe(s *segment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	age := l.limits.Age
	return age > 0 && s.oldest > 0 && time.Since(time.Unix(0, s.oldest)) > age/segmentsPerBound
}

// begin makes a new active segment, behind a place. Its name is synced with its first
// entry.
func (l *Log) begin(size int64, at place) (*segment, error) {
	l.ordinal++
	s := &segment{
		first: at.seq + 1, ordinal: l.ordinal, timeline: l.timeline, timelineID: l.timelineID, before: at.total,
	}
	s.written = state{last: at.seq, total: at.total}
	s.published, s.synced = s.written, s.written
	from, err := l.allot(s, size)
	if err != nil {
		return nil, err
	}
	err = l.engine.fs.Rename(from, filepath.Join(l.dir, s.name()))
	l.mu.Lock()
	if l.active != nil {
		// Even after an error: should the name be there after all, nothing behind it
		// counts that is in an earlier segment.
		l.active.sealed = true
	}
	if err == nil {
		l.add(s)
	}
	l.mu.Unlock()
	l.active = nil
	wake(l.wake)
	if err != nil {
		s.file.Close()
		return nil, writeError(err)
	}
	l.active = s
	return s, nil
}

// add adds a segment behind the others. The mutex is held.
func (l *Log) add(s *segment) {
	if n := len(l.segments); n > 0 {
		l.segments[n-1].next = s.first
	}
	s.next = noNext
	l.segments = append(l.segments, s)
}

// allot gives a segment its file, which has another name still: one that is used again,
// or a new one.
func (l *Log) allot(s *segment, size int64) (name string, err error) {
	n, err := l.segmentSize(size)
	full := errors.Is(err, errReserve)
	if err != nil && !full {
		return "", err
	}
	name = filepath.Join(l.dir, tempPrefix+s.name())
	if taken := l.takeSpare(name, full); full && !taken {
		l.giveUpActive()
		if !l.takeSpare(name, full) {
			return "", err
		}
	}
	if s.file, err = l.engine.fs.Open(name, os.O_RDWR|os.O_CREATE); err != nil {
		return "", writeError(err)
	}
	err = s.file.Allocate(max(n, size))
	if err != nil {
		err = s.file.Allocate(size) // of the file that is used again, that may be there
	}
	if err == nil {
		s.size, err = s.file.Size()
	}
	if err != nil {
		s.file.Close()
		return "", errors.Join(writeError(err), l.engine.fs.Remove(name))
	}
	return name, nil
}

// takeSpare gives the file to be used again a name, if there is one. It does not wait
// while segments are removed, unless it is told to.
func (l *Log) takeSpare(name string, wait bool) bool {
	if wait {
		l.trimming.Lock()
	} else if !l.trimming.TryLock() {
		return false
	}
	defer l.trimming.Unlock()
	l.mu.Lock()
	has := l.spare
	l.mu.Unlock()
	l.setSpare(false)
	return has && l.engine.fs.Rename(filepath.Join(l.dir, spareName), name) == nil
}

func (l *Log) setSpare(is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = is
}

// giveUpActive makes the active segment one to be used again, if nobody needs what is
// in it: where not a byte is free, that is all the room there is.
func (l *Log) giveUpActive() {
	s := l.active
	l.mu.Lock()
	done := s != nil && s.written.end == s.dead && len(l.segments) > 0
	l.mu.Unlock()
	if done {
		l.active = nil
		l.mu.Lock()
		s.sealed = true
		l.mu.Unlock()
		if err := l.drop(func(old *segment) bool { return old == s }); err != nil {
			l.log.Warn("spool: a segment that is done with stays", "err", err)
		}
	}
}
