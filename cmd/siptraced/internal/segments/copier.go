package segments

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// copier writes entries that are not safe into segments of their own. These get their
// names when all is synced: until then what was written first counts.
type copier struct {
	log      *Log
	segments []*segment
	files    []disk.File
	at       place
	lost     []span // records that could not be read again
}

func (c *copier) temp(s *segment) string { return filepath.Join(c.log.dir, tempPrefix+s.name()) }
func (c *copier) path(s *segment) string { return filepath.Join(c.log.dir, s.name()) }

// copy copies the entries behind the place where the copier is, up to end.
func (c *copier) copy(end place) error {
	l := c.log
	file := &cursor{log: l, seq: c.at.seq, settling: true, failures: l.attempts}
	defer file.Close()
	held := l.heldEntries()
	defer func() {
		for i := range held {
			release(&held[i])
		}
	}()
	for c.at.seq < end.seq {
		e, err := c.entry(&held, file, end)
		if err != nil {
			return err
		}
		if e == nil {
			c.lose(end.total)
			break
		}
		c.lose(e.Total - uint64(e.Records))
		err = c.write(e)
		release(e)
		if err != nil {
			return err
		}
	}
	return c.commit()
}

// lose notes that what is missing up to a total can't be read again.
func (c *copier) lose(before uint64) {
	if before > c.at.total {
		c.lost = append(c.lost, span{c.at.total, before})
		c.log.log.Error("spool: messages that were not safe can't be read again", "messages", before-c.at.total)
	}
}

// heldEntries are the entries that are in memory, which needs to be released.
func (l *Log) heldEntries() []journal.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := append([]journal.Entry(nil), l.held.entries...)
	for _, e := range entries {
		if e.Memory != nil {
			e.Memory.Retain()
		}
	}
	return entries
}

// entry is the next one: from memory, else from the file. It is nil if there is none
// that can be read.
func (c *copier) entry(held *[]journal.Entry, file *cursor, end place) (*journal.Entry, error) {
	h := *held
	for len(h) > 0 && h[0].Seq <= c.at.seq {
		release(&h[0])
		h = h[1:]
	}
	*held = h
	if len(h) > 0 && h[0].Total-uint64(h[0].Records) == c.at.total {
		*held = h[1:]
		return &h[0], nil
	}
	file.seek(c.at.seq)
	e, err := file.Next(context.Background())
	switch {
	case len(h) > 0 && (errors.Is(err, journal.ErrEnd) || err == nil && e.Seq >= h[0].Seq):
		if err == nil {
			release(&e)
		}
		*held = h[1:]
		return &h[0], nil
	case errors.Is(err, journal.ErrEnd):
		return nil, nil
	case err == nil && e.Seq > end.seq:
		release(&e)
		return nil, nil
	}
	return &e, err
}

func release(e *journal.Entry) {
	if e.Memory != nil {
		e.Memory.Release()
	}
}

func (c *copier) write(e *journal.Entry) error {
	var s *segment
	if n := len(c.segments); n > 0 {
		s = c.segments[n-1]
	}
	if s == nil || s.written.end+recordSize(len(e.Data)) > max(c.log.engine.cfg.SegmentSize, recordSize(len(e.Data))) {
		var err error
		if s, err = c.begin(e); err != nil {
			return err
		}
	}
	h := headerOf(e, s.written.end, s.timeline)
	var b, pad [headerSize]byte
	h.put(b[:])
	if _, err := c.files[len(c.files)-1].WritevAt([][]byte{b[:], e.Data, pad[:h.size()-headerSize-int64(len(e.Data))]}, h.off); err != nil {
		return err
	}
	s.add(&h)
	s.published, s.synced = s.written, s.written
	c.at = place{e.Seq, e.Total}
	return nil
}

func (c *copier) begin(e *journal.Entry) (*segment, error) {
	l := c.log
	l.ordinal++
	s := &segment{
		first: c.at.seq + 1, ordinal: l.ordinal, timeline: l.timeline, timelineID: l.timelineID, before: c.at.total,
		sealed: true, named: true,
	}
	if e.Total-uint64(e.Records) > c.at.total { // what is missing is counted by who copies
		s.before = e.Total - uint64(e.Records)
	}
	s.written = state{last: c.at.seq, total: s.before}
	f, err := l.engine.fs.Open(c.temp(s), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	c.segments, c.files = append(c.segments, s), append(c.files, f)
	s.file = f
	return s, f.Truncate(0)
}

// commit syncs the copies, and has them count. The last one is the first to get its
// name: each makes what was written before it count no further than its first number.
func (c *copier) commit() error {
	for _, f := range c.files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	for i := len(c.segments) - 1; i >= 0; i-- {
		s := c.segments[i]
		if err := c.log.engine.fs.Rename(c.temp(s), c.path(s)); err != nil {
			return fmt.Errorf("a segment that was written again: %w", err)
		}
	}
	if len(c.segments) == 0 {
		return nil
	}
	return c.log.engine.fs.SyncDir(c.log.dir)
}

// discard removes the copies after a failure.
func (c *copier) discard() {
	for i, f := range c.files {
		f.Close()
		_ = c.log.engine.fs.Remove(c.temp(c.segments[i])) // it is removed at the next start
		_ = c.log.engine.fs.Remove(c.path(c.segments[i]))
	}
}
