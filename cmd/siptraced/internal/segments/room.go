package segments

import (
	"fmt"
	"syscall"

	"siptraced/cmd/siptraced/internal/journal"
)

// What the spool leaves free of its file system for everybody else: a twentieth, but
// no more than mostReserve; of a very small one a quarter, up to leastReserve.
const (
	mostReserve  = 256 << 20
	leastReserve = 8 << 20
)

// Reserve is what is left free of a file system of that size.
func Reserve(size uint64) uint64 {
	return max(min(size/20, mostReserve), min(size/4, leastReserve))
}

const (
	mostSegment  = 64 << 20
	leastSegment = 1 << 20
	// A log whose bytes are bounded has about so many segments, and a file system has
	// room for so many.
	segmentsPerBound  = 16
	segmentsPerSystem = 64
)

var (
	errReserve = fmt.Errorf("%w: the file system has no more free than is left to others: %w", journal.ErrFull, syscall.ENOSPC)
	errBound   = fmt.Errorf("%w: it holds as much as it may", journal.ErrFull)
)

// segmentSize is the size of a new segment that has to take need bytes at least.
func (l *Log) segmentSize(need int64) (int64, error) {
	size, free, err := l.engine.fs.Space(l.dir)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	bound := l.limits.Bytes
	l.mu.Unlock()
	n := min(l.engine.cfg.SegmentSize, max(int64(size/segmentsPerSystem), leastSegment))
	if bound > 0 {
		n = min(n, max(bound/segmentsPerBound, leastSegment))
	}
	n = max(n, need)
	room := int64(free) - int64(Reserve(size))
	if room < need {
		return 0, errReserve
	}
	return roundUp(min(n, max(room, need))), nil
}

func roundUp(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }
