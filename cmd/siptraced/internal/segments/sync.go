package segments

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// keep syncs what is appended, until ctx ends.
func (l *Log) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		wait := time.NewTimer(l.engine.cfg.SyncInterval)
		select {
		case <-ctx.Done():
		case <-l.urgent:
		case <-wait.C:
		}
		wait.Stop()
		if ctx.Err() != nil {
			return
		}
		if l.state() == nil && l.syncAll() == nil {
			continue
		}
		l.recover(ctx)
	}
}

func (l *Log) state() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Sync waits until all that was appended before is safe, or ctx ends.
func (l *Log) Sync(ctx context.Context) error {
	target := l.position().seq
	for {
		l.mu.Lock()
		safe, changed, failed, closed := l.synced.seq >= target, l.changed, l.failed, l.closed
		l.mu.Unlock()
		switch {
		case safe:
			return nil
		case closed:
			return errClosed
		}
		wake(l.urgent)
		wake(l.wake)
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), failed)
		}
	}
}

// announce tells those that wait that synced or failed changed.
func (l *Log) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// slowSync is after how long a sync is said to be slow.
const slowSync = 5 * time.Second

// dirty is a segment to sync, and how far it was written then.
type dirty struct {
	segment *segment
	file    disk.File
	upTo    state
	named   bool
}

// syncAll syncs what was written before. Appends go on meanwhile. After an error
// nothing is appended until what was not synced is written again.
func (l *Log) syncAll() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	err := l.syncFiles()
	if err != nil {
		return l.fail(err, true)
	}
	l.finish()
	return nil
}

func (l *Log) syncFiles() error {
	l.mu.Lock()
	if l.badSync {
		defer l.mu.Unlock()
		return l.failed
	}
	var work []dirty
	for _, s := range l.segments {
		if s.file != nil && (s.written != s.synced || !s.named || s.cut) {
			work = append(work, dirty{s, s.file, s.written, s.named})
		}
	}
	l.later = time.Time{}
	l.mu.Unlock()
	slow := time.AfterFunc(slowSync, func() {
		l.log.Warn("spool: the disk takes long to sync; what was spooled meanwhile would be lost with power", "after", slowSync)
	})
	defer slow.Stop()
	for _, d := range work {
		if err := d.file.Sync(); err != nil {
			return err
		}
		if !d.named {
			if err := l.engine.fs.SyncDir(l.dir); err != nil {
				return err
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range work {
		d.segment.synced, d.segment.named = d.upTo, true
		// Where Append itself syncs, it says when entries count.
		if at := (place{d.upTo.last, d.upTo.total}); at.seq > l.synced.seq && l.engine.cfg.SyncInterval > 0 {
			l.synced = at
		}
	}
	l.held.release(l.synced.seq)
	l.since = l.later
	l.announce()
	return nil
}

// finish closes the files that nothing is added to any more: it cuts off what was kept
// ready in them, and writes their indexes.
func (l *Log) finish() {
	l.mu.Lock()
	closing := l.closing
	l.closing = nil
	var ended []*segment
	for _, s := range l.segments {
		if s.sealed && s.file != nil && s.synced == s.written && s.published == s.written {
			ended = append(ended, s)
		}
	}
	l.mu.Unlock()
	for _, f := range closing {
		f.Close()
	}
	for _, s := range ended {
		l.seal(s)
	}
}

// seal is finish for one segment.
func (l *Log) seal(s *segment) {
	l.mu.Lock()
	f, end := s.file, s.written.end
	l.mu.Unlock()
	if f == nil {
		return
	}
	// Without that the segment is larger than it need be.
	_ = f.Truncate(end)
	size, err := f.Size()
	if s.cut {
		// Should a loss of power bring the rest back, nothing may be left that says that
		// it does not count.
		err = errors.Join(err, f.Sync())
	}
	l.mu.Lock()
	if s.file == nil { // given up meanwhile
		l.mu.Unlock()
		return
	}
	if err == nil {
		s.size = size
	}
	for n := len(s.marks); n > 0 && s.marks[n-1].off >= end; n-- {
		s.marks = s.marks[:n-1]
	}
	index := s.appendIndex(nil)
	s.file = nil
	l.mu.Unlock()
	f.Close()
	if err == nil {
		err = saveIndex(l.engine.fs, l.dir, s.index(), index)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.indexed = err == nil; s.indexed {
		s.marks = nil
	} else {
		l.log.Warn("spool: the index of a segment is not written; it is made again at the next start", "segment", s.name(), "err", err)
	}
}

// fail has nothing appended until what is not synced was written again.
func (l *Log) fail(err error, sync bool) error {
	l.mu.Lock()
	first := l.failed == nil
	if first {
		l.failed = fmt.Errorf("what was written last is not safe: %w", writeError(err))
	}
	if l.badSync = l.badSync || sync; !sync && l.active != nil {
		l.active.cut = true // who writes is the one who sets active
	}
	l.tried = false
	failed, waits := l.failed, l.end.total-min(l.synced.total, l.end.total)
	l.announce()
	l.mu.Unlock()
	wake(l.wake)
	wake(l.urgent)
	if first {
		l.log.Error("spool: the disk fails; what is not safe is written again elsewhere, and nothing is taken until then (key spool.dir)", "messages", waits, "err", err)
	}
	return failed
}

// The pauses between two attempts to write what is not safe again.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 2 * time.Second
)

// recover writes what is not safe again, until that is done or ctx ends.
func (l *Log) recover(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		n, err := l.rewrite()
		if err == nil {
			l.log.Info("spool: the disk works again, all that was not safe is", "messages", n)
			return
		}
		l.log.Debug("spool: the disk fails still", "err", err)
		l.mu.Lock()
		l.tried = true
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-l.room:
		case <-time.After(pause):
		}
	}
}

// rewrite makes what is not safe safe: it is written into a new segment. After a sync
// that failed nothing that was written since the last good one is sure to be on the
// disk, whatever a later one says. n is how many records that were.
func (l *Log) rewrite() (n uint64, err error) {
	l.appending.Lock()
	defer l.appending.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.state() == nil {
		return 0, nil
	}
	l.mu.Lock()
	before, bad := l.synced, l.badSync
	l.mu.Unlock()
	if !bad {
		// A write failed: what was written before it may be synced as ever.
		l.cut()
		if err := l.syncFiles(); err != nil {
			l.mu.Lock()
			l.badSync = true
			l.mu.Unlock()
			return 0, err
		}
	}
	l.mu.Lock()
	from, end := l.synced, l.end
	l.mu.Unlock()
	c := copier{log: l, at: from}
	if end.seq > from.seq {
		err = c.copy(end)
	} else {
		err = l.probe()
	}
	if err != nil {
		c.discard()
		l.attempts++
		return 0, err
	}
	l.attempts = 0
	gone := l.install(&c, from, end)
	for _, s := range gone {
		if err := l.remove(s, false); err != nil {
			l.log.Warn("spool: a segment that was written again stays", "segment", s.name(), "err", err)
		}
	}
	l.finish()
	return end.total - before.total, nil
}

// cut cuts off what a write that failed may have left behind the last entry. It goes
// for good with the next sync.
func (l *Log) cut() {
	s := l.active
	if s == nil || !s.cut {
		return
	}
	_ = s.file.Truncate(s.written.end) // it is tried again when nothing is added any more
}

// probe finds out whether the disk takes anything.
func (l *Log) probe() error {
	name := filepath.Join(l.dir, tempPrefix+"probe")
	f, err := l.engine.fs.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	_, err = f.WritevAt([][]byte{zeroPage[:]}, 0)
	if err == nil {
		err = f.Sync()
	}
	f.Close()
	return errors.Join(err, l.engine.fs.Remove(name))
}

// install puts copied segments in the place of what was not safe behind from, and ends
// the segment that nothing more may be written to.
func (l *Log) install(c *copier, from, end place) (gone []*segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.segments[:0:0]
	for _, s := range l.segments {
		// Where Append syncs, entries may be synced that it did not get an answer for.
		counts := s.synced
		if s.published.end < counts.end {
			counts = s.published
		}
		if s.first > from.seq && s.first > counts.last {
			l.retire(s)
			s.cut = true
			gone = append(gone, s)
			continue
		}
		if s == l.active || s.written != counts {
			s.written, s.published, s.synced, s.sealed, s.cut = counts, counts, counts, true, true
			s.dead = min(s.dead, s.published.end)
		}
		kept = append(kept, s)
	}
	l.segments = kept
	for _, s := range c.segments {
		l.add(s)
	}
	for _, s := range c.lost {
		l.damaged += l.damage.add(s)
	}
	l.active = nil
	l.synced = end
	l.held.release(end.seq)
	l.failed, l.badSync, l.since = nil, false, time.Time{}
	l.announce()
	return gone
}

// close ends a log, when nobody appends or syncs any more.
func (l *Log) close() error {
	l.mu.Lock()
	l.closed = true
	l.announce()
	l.mu.Unlock()
	l.appending.Lock()   // who appends now ends first
	l.appending.Unlock() //nolint:staticcheck // nothing is done in between
	var err error
	if l.state() != nil {
		_, err = l.rewrite()
	} else if err = l.syncAll(); err != nil {
		_, err = l.rewrite()
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	if l.active != nil && err == nil {
		l.active.sealed = true
	}
	l.active = nil
	l.mu.Unlock()
	if err == nil {
		l.finish()
		l.tidy()
	}
	l.closeFiles()
	return err
}

// tidy removes what nobody needs while the log is closed.
func (l *Log) tidy() {
	l.mu.Lock()
	trimmed := l.trimmed.seq
	l.mu.Unlock()
	err := l.drop(func(s *segment) bool { return s.published.last <= trimmed })
	l.trimming.Lock()
	defer l.trimming.Unlock()
	l.mu.Lock()
	spare := l.spare
	l.mu.Unlock()
	if spare {
		l.setSpare(false)
		err = errors.Join(err, l.engine.fs.Remove(filepath.Join(l.dir, spareName)))
	}
	if err != nil {
		l.log.Warn("spool: files that nobody needs stay", "err", err)
	}
}

func (l *Log) closeFiles() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.file != nil {
			s.file.Close()
			s.file = nil
		}
	}
	for _, f := range l.closing {
		f.Close()
	}
	l.closing = nil
	l.held.release(noNext)
	l.tail.close()
}

var _ journal.Log = (*Log)(nil)
