package segments

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"
)

// Trim removes the segments whose entries are all done with.
func (l *Log) Trim(_ context.Context, upTo uint64) error {
	l.mu.Lock()
	if n := len(l.segments); n > 0 && upTo >= l.end.seq {
		// The last one stays; what is in it does not count any more.
		s := l.segments[n-1]
		s.dead, s.oldest = s.published.end, 0
		l.giveUp(l.end)
	}
	l.mu.Unlock()
	return l.drop(func(s *segment) bool { return s.published.last <= upTo })
}

// giveUp notes that all up to a place is gone.
func (l *Log) giveUp(at place) {
	if at.seq > l.trimmed.seq {
		l.trimmed = at
		l.damage.forget(at.total)
	}
	if at.seq > l.synced.seq {
		l.synced = at
		l.held.release(at.seq)
	}
}

// drop removes segments from the first one on, as long as done says so and nothing is
// added to them.
func (l *Log) drop(done func(*segment) bool) error {
	l.trimming.Lock()
	defer l.trimming.Unlock()
	var err error
	for {
		l.mu.Lock()
		if len(l.segments) == 0 || !l.segments[0].sealed || l.segments[0].written != l.segments[0].published || !done(l.segments[0]) {
			l.mu.Unlock()
			return err
		}
		s := l.segments[0]
		l.segments = append(l.segments[:0:0], l.segments[1:]...)
		l.retire(s)
		l.giveUp(place{s.published.last, s.published.total})
		keep := !l.spare && !s.cut && !l.closed
		l.mu.Unlock()
		err = errors.Join(err, l.remove(s, keep))
		wake(l.room)
	}
}

// retire has the file closed when it is not being synced.
func (l *Log) retire(s *segment) {
	s.retired = true
	if s.file != nil {
		l.closing = append(l.closing, s.file)
		s.file = nil
		wake(l.wake)
	}
}

// remove removes a segment's files, or keeps the large one to be used again.
func (l *Log) remove(s *segment, keep bool) error {
	fsys := l.engine.fs
	if err := fsys.Remove(filepath.Join(l.dir, s.index())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := filepath.Join(l.dir, s.name())
	if !keep {
		err := fsys.Remove(path)
		if err == nil && s.cut {
			// Before the segment behind it goes, which says what of this one counts: a loss
			// of power might bring back this one alone.
			err = fsys.SyncDir(l.dir)
		}
		return err
	}
	if err := fsys.Rename(path, filepath.Join(l.dir, spareName)); err != nil {
		return err
	}
	// Before anything else is written into it under another name: under the old one
	// that would be damage.
	if err := fsys.SyncDir(l.dir); err != nil {
		return err
	}
	l.setSpare(true)
	return nil
}

// DropOldest gives up the oldest segment.
func (l *Log) DropOldest(context.Context) (any bool, err error) {
	l.appending.Lock()
	defer l.appending.Unlock()
	l.mu.Lock()
	var s *segment
	for _, one := range l.segments {
		if one.live() > 0 {
			s = one
			break
		}
	}
	if s == nil {
		l.mu.Unlock()
		return false, nil
	}
	if s == l.active {
		l.active, s.sealed = nil, true
	}
	l.mu.Unlock()
	err = l.drop(func(old *segment) bool { return old.first <= s.first })
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.retired, err // not while something is added to it
}

// expire gives up the segments whose last entry is older than the bound.
func (l *Log) expire() error {
	l.mu.Lock()
	age := l.limits.Age
	n := len(l.segments)
	if age <= 0 || n == 0 {
		l.mu.Unlock()
		return nil
	}
	before := time.Now().Add(-age).UnixNano()
	if s := l.segments[n-1]; s.newest < before && !s.sealed {
		s.dead = s.published.end
		if n == 1 {
			l.giveUp(l.end)
		}
	}
	l.mu.Unlock()
	return l.drop(func(s *segment) bool { return s.newest < before })
}
