package spool

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
)

// memoryEngine is an engine in memory. What is in it stays when it is closed, as that
// of a disk does. Several spools may be opened on a shared one, as on a cluster.
type memoryEngine struct {
	shared bool
	unit   int // entries that DropOldest gives up at a time

	mu     sync.Mutex // covers what follows
	logs   []*memoryLog
	values map[string]string
	opened int
}

func (e *memoryEngine) Logs(context.Context) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.logs), nil
}

func (e *memoryEngine) Open(_ context.Context, i int, l journal.Limits) (journal.Log, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.logs) <= i {
		e.logs = append(e.logs, &memoryLog{engine: e, index: len(e.logs), more: make(chan struct{})})
	}
	e.opened++
	log := e.logs[i]
	log.limits, log.opening = l, e.opened
	log.timelines = append(log.timelines, journal.Timeline{ID: log.timeline(), Last: log.last})
	if e.shared {
		return &sharedMemoryLog{log}, nil
	}
	return log, nil
}

func (e *memoryEngine) SetLimits(_ context.Context, i int, l journal.Limits) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs[i].limits = l
	return nil
}

func (e *memoryEngine) Positions() journal.Positions        { return e }
func (e *memoryEngine) MaxEntry() int                       { return 8 << 20 }
func (e *memoryEngine) Place() string                       { return "memory" }
func (e *memoryEngine) Space() (size, free uint64, ok bool) { return 0, 0, false }
func (e *memoryEngine) Close(context.Context) error         { return nil }
func (e *memoryEngine) Flush(context.Context) error         { return nil }
func (e *memoryEngine) Keys(context.Context) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.values)), nil
}

func (e *memoryEngine) Get(_ context.Context, key string) (value string, found bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	value, found = e.values[key]
	return value, found, nil
}

func (e *memoryEngine) Put(_ context.Context, key, value string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.values == nil {
		e.values = map[string]string{}
	}
	e.values[key] = value
	return nil
}

func (e *memoryEngine) Remove(_ context.Context, key string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.values, key)
	return nil
}

func (e *memoryEngine) Claim(ctx context.Context, key, value string) (held string, err error) {
	if held, found, _ := e.Get(ctx, key); found {
		return held, nil
	}
	return value, e.Put(ctx, key, value)
}

// memoryLog is one of its logs; its engine's mutex covers it.
type memoryLog struct {
	engine    *memoryEngine
	index     int
	opening   int // which one is the present
	limits    journal.Limits
	entries   []journal.Entry
	bytes     int64
	last      uint64
	total     uint64
	timelines []journal.Timeline
	more      chan struct{} // closed when an entry is appended
}

func (l *memoryLog) ID() string       { return fmt.Sprintf("memory-%d", l.index) }
func (l *memoryLog) Exclusive() bool  { return !l.engine.shared }
func (l *memoryLog) timeline() string { return fmt.Sprintf("%s@%d", l.ID(), l.opening) }

func (l *memoryLog) Append(_ context.Context, entries []*journal.Entry) (n int, err error) {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	for _, e := range entries {
		if l.limits.Bytes > 0 && l.bytes+int64(len(e.Data)) > l.limits.Bytes {
			return n, journal.ErrFull
		}
		l.last++
		l.total += uint64(e.Records)
		e.Seq, e.Timeline = l.last, l.timeline()
		kept := *e
		kept.Data, kept.Memory, kept.Total = slices.Clone(e.Data), nil, l.total
		l.entries, l.bytes, n = append(l.entries, kept), l.bytes+int64(len(e.Data)), n+1
		l.timelines[len(l.timelines)-1].Last = l.last
	}
	close(l.more)
	l.more = make(chan struct{})
	return n, nil
}

func (l *memoryLog) Read(_ context.Context, after uint64) (journal.Cursor, error) {
	return &memoryCursor{l, after}, nil
}

func (l *memoryLog) Trim(_ context.Context, upTo uint64) error {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	l.drop(func(e journal.Entry) bool { return e.Seq <= upTo })
	return nil
}

// drop gives up the first entries, as long as that is wanted.
func (l *memoryLog) drop(unwanted func(journal.Entry) bool) {
	for len(l.entries) > 0 && unwanted(l.entries[0]) {
		l.bytes -= int64(len(l.entries[0].Data))
		l.entries = l.entries[1:]
	}
}

func (l *memoryLog) DropOldest(context.Context) (any bool, err error) {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	n := 0
	l.drop(func(journal.Entry) bool { n++; return n <= max(1, l.engine.unit) })
	return n > 0, nil
}

func (l *memoryLog) Bounds(context.Context) (b journal.Bounds, err error) {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	l.drop(func(e journal.Entry) bool { return l.limits.Age > 0 && time.Since(e.Taken) > l.limits.Age })
	b = journal.Bounds{First: l.last + 1, Last: l.last, Total: l.total, Bytes: l.bytes}
	if len(l.entries) > 0 {
		b.First, b.Oldest = l.entries[0].Seq, l.entries[0].Taken
	}
	return b, nil
}

func (l *memoryLog) Sync(context.Context) error { return nil }

func (l *memoryLog) Timelines() []journal.Timeline {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	return slices.Clone(l.timelines)
}

func (l *memoryLog) Skip(upTo uint64) {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	l.last = max(l.last, upTo)
}

type memoryCursor struct {
	log *memoryLog
	at  uint64
}

func (c *memoryCursor) Close() {}

func (c *memoryCursor) Next(ctx context.Context) (journal.Entry, error) {
	e := c.log.engine
	for {
		e.mu.Lock()
		for _, entry := range c.log.entries {
			if entry.Seq > c.at {
				c.at = entry.Seq
				e.mu.Unlock()
				return entry, nil
			}
		}
		more := c.log.more
		e.mu.Unlock()
		if !e.shared {
			return journal.Entry{}, journal.ErrEnd
		}
		select {
		case <-more:
		case <-ctx.Done():
			return journal.Entry{}, ctx.Err()
		}
	}
}

// sharedMemoryLog keeps, as a cluster does, what any sink needs.
type sharedMemoryLog struct{ *memoryLog }

func (l *sharedMemoryLog) Waiting(_ context.Context, after []uint64) (out []uint64, err error) {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	for _, seq := range after {
		var n uint64
		for _, e := range l.entries {
			if e.Seq > seq {
				n += uint64(e.Records)
			}
		}
		out = append(out, n)
	}
	return out, nil
}

func (l *sharedMemoryLog) Trim(ctx context.Context, upTo uint64) error {
	keys, _ := l.engine.Keys(ctx)
	for _, key := range keys {
		text, _, _ := l.engine.Get(ctx, key)
		if p, ok := journal.ParsePosition(text); ok && p.Log == l.ID() {
			upTo = min(upTo, p.Seq)
		}
	}
	return l.memoryLog.Trim(ctx, upTo)
}
