package segments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
)

// cursor reads a log (journal.Cursor). It has its own file open: segments that are
// removed or used again meanwhile do no harm, since each record says what it is.
type cursor struct {
	log      *Log
	seq      uint64   // of the last entry that was handed out, or that is not wanted
	total    uint64   // up to there, as far as is known
	segment  *segment // nil: to be found
	walker   walker
	failures int  // to read, in a row
	settling bool // it reads what is not safe, to write it again
}

// mostFailures is how often a place is read before it is taken for damaged.
const mostFailures = 5

// errUnsettled is the answer while an entry can't be read that is to be written again.
var errUnsettled = errors.New("what comes next is being written again")

// Read begins behind an entry.
func (l *Log) Read(_ context.Context, after uint64) (journal.Cursor, error) {
	return &cursor{log: l, seq: after}, nil
}

// Close ends reading. Entries that were handed out are valid until they are released.
func (c *cursor) Close() { c.leave() }

func (c *cursor) leave() {
	if c.segment == nil {
		return
	}
	c.walker.close()
	c.walker.file.Close()
	c.segment = nil
}

// seek has the next entry be one behind a number.
func (c *cursor) seek(after uint64) {
	if after > c.seq {
		c.seq = after
	}
}

// view is what a cursor sees of a segment at a moment.
type view struct {
	state
	next    uint64 // the first number of the segment behind it
	ended   bool   // nothing is added
	gone    bool
	trimmed uint64
	before  int64 // what was taken before that is too old: Unix nanoseconds
}

// look looks at the segment. The log's mutex is held.
func (l *Log) look(s *segment) view {
	v := view{state: s.published, next: s.next, ended: s.sealed, gone: s.retired, trimmed: l.trimmed.seq}
	if l.limits.Age > 0 {
		v.before = time.Now().Add(-l.limits.Age).UnixNano()
	}
	return v
}

// Next is the next entry; ErrEnd where there is none yet.
func (c *cursor) Next(ctx context.Context) (journal.Entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return journal.Entry{}, err
		}
		if c.segment == nil {
			if err := c.enter(); err != nil {
				return journal.Entry{}, err
			}
			continue
		}
		c.log.mu.Lock()
		v := c.log.look(c.segment)
		e, ok := c.unsafe()
		c.log.mu.Unlock()
		if ok {
			return e, nil
		}
		if v.gone {
			c.leave()
			continue
		}
		e, ok, err := c.step(v)
		if err != nil || ok {
			return e, err
		}
	}
}

// unsafe is the next entry while what is not safe waits to be written again: what is
// read of it after a sync that failed may be anything. The log's mutex is held.
func (c *cursor) unsafe() (e journal.Entry, ok bool) {
	l := c.log
	if l.failed == nil || c.settling || c.seq < l.synced.seq {
		return e, false
	}
	before := l.synced.seq
	for _, e := range l.held.entries {
		if e.Seq > c.seq {
			if before > c.seq {
				return e, false
			}
			if e.Memory != nil {
				e.Memory.Retain()
			}
			c.seq, c.total = e.Seq, e.Total
			return e, true
		}
		before = e.Seq
	}
	return e, false
}

// step reads one record; ok is false when there is nothing to hand out.
func (c *cursor) step(v view) (e journal.Entry, ok bool, err error) {
	w := &c.walker
	w.end, w.from.next = v.end, v.next
	if !c.settling {
		c.seq = max(c.seq, v.trimmed)
	}
	more := c.seq < v.last
	if more {
		if err := w.skip(c.seq); err != nil {
			return e, false, c.failed(err)
		}
		w.last, w.total = max(w.last, c.seq), max(w.total, c.total)
		if more = w.off < v.end; !more && w.total < v.total {
			// The segment is known to have had more.
			w.passed(v.total, -1, v.end)
			if ok, err := c.missing(); !ok {
				return e, false, err
			}
			w.total = v.total
		}
	}
	if !more {
		return e, false, c.end(v)
	}
	var h header
	data, err := w.next(&h, v.total)
	end := errors.Is(err, io.EOF)
	if err != nil && !end {
		return e, false, c.failed(err)
	}
	if w.lost > 0 || end {
		if ok, err := c.missing(); !ok {
			return e, false, err
		}
	}
	c.failures = 0
	if end {
		w.off, w.last = v.end, max(w.last, v.last)
		return e, false, nil
	}
	c.seq, c.total = h.seq, h.total
	if h.taken < v.before {
		return e, false, nil
	}
	w.block.Retain()
	return journal.Entry{
		Seq: h.seq, Records: int(h.records), Total: h.total, Timeline: c.segment.timelineID,
		Taken: fromNano(h.taken), Data: data, Memory: w.block,
	}, true, nil
}

// end leaves a segment that nothing is added to.
func (c *cursor) end(v view) error {
	if !v.ended {
		return journal.ErrEnd
	}
	c.seq, c.total = max(c.seq, v.last), max(c.total, v.total)
	c.leave()
	return nil
}

// missing accounts for what the walker passed over. It is false where that was no
// damage: the segment was given up, or what is missing is to be written again.
func (c *cursor) missing() (ok bool, err error) {
	l, w := c.log, &c.walker
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.segment.retired {
		return false, nil
	}
	if c.settling {
		return true, nil // who writes it again counts
	}
	if l.failed != nil && c.segment.published.last > l.synced.seq {
		c.leave() // what was passed over is read once more
		return false, errUnsettled
	}
	l.hurt(c.segment, w.known, w.lost, w.hole)
	return true, nil
}

// failed is the error of a file that can't be read. After some attempts no more than
// the damaged place is passed over.
func (c *cursor) failed(err error) error {
	c.failures++
	c.walker.salvage = c.walker.salvage || c.failures >= mostFailures
	return fmt.Errorf("spool: %s: %w", filepath.Join(c.log.dir, c.segment.name()), err)
}

// hurt notes that records are missing in a segment behind a total. The mutex is held.
func (l *Log) hurt(s *segment, before, records uint64, at int64) {
	more := l.damage.add(span{before, before + records})
	if more == 0 {
		return
	}
	l.damaged += more
	l.log.Error("spool: messages are damaged and passed over", "segment", filepath.Join(l.dir, s.name()), "offset", at, "messages", more)
}

// enter opens the segment that has the next entry.
func (c *cursor) enter() error {
	l := c.log
	l.mu.Lock()
	var s *segment
	for _, one := range l.segments {
		if one.published.last > max(c.seq, one.first-1) && (one.live() > 0 || c.settling) {
			s = one
			break
		}
	}
	if s == nil {
		l.mu.Unlock()
		return journal.ErrEnd
	}
	at, indexed := mark{seq: s.first, before: s.before}, s.indexed
	at = latest(s.marks, c.seq, at)
	l.mu.Unlock()
	f, err := l.engine.fs.Open(filepath.Join(l.dir, s.name()), os.O_RDONLY)
	if err != nil {
		return c.notOpened(s, err)
	}
	if indexed && c.seq >= s.first {
		other := &segment{first: s.first, before: s.before, ordinal: s.ordinal, timeline: s.timeline}
		if marks, err := loadIndex(l.engine.fs, l.dir, other); err == nil {
			at = latest(marks, c.seq, at)
		}
	}
	c.segment = s
	c.walker = walker{
		file: f, pool: &l.engine.blocks, from: origin{s.timeline, s.first, noNext},
		off: at.off, last: at.seq - 1, total: at.before, salvage: c.failures >= mostFailures,
	}
	return nil
}

// latest is the last mark that is not behind the entry after seq.
func latest(marks []mark, seq uint64, at mark) mark {
	for _, m := range marks {
		if m.seq > seq+1 {
			break
		}
		at = m
	}
	return at
}

// notOpened is the error of a segment that can't be opened. One that is not there any
// more, and was not given up, is lost as a whole.
func (c *cursor) notOpened(s *segment, err error) error {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.retired {
		return nil
	}
	if c.failures++; c.failures < mostFailures || !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	c.failures = 0
	l.hurt(s, s.before, s.published.total-s.before, 0)
	if s.sealed {
		c.seq = s.published.last
	}
	return nil
}
