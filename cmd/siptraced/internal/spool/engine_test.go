package spool

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"siptraced/cmd/siptraced/internal/journal"
)

// hooked is an engine on a real directory whose disk can stand still, lose entries,
// and tell what is read of it.
type hooked struct {
	journal.Engine
	still sync.RWMutex  // held by the test while the disk stands still
	read  atomic.Int64  // entries that cursors read
	ended chan struct{} // closed when the engine is

	mu     sync.Mutex             // covers what follows
	gone   map[uint64]bool        // entries that can't be read
	limits map[int]journal.Limits // of the logs
	fail   func() error           // asked by Append first; nil: nothing fails
}

// onDisk opens a spool on a hooked engine.
func onDisk(t *testing.T, cfg Config) (*Spool, *hooked) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	e, err := openEngine(context.Background(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	h := &hooked{Engine: e, ended: make(chan struct{}), gone: map[uint64]bool{}, limits: map[int]journal.Limits{}}
	s, err := OpenOn(context.Background(), cfg, h, log)
	if err != nil {
		t.Fatal(err)
	}
	return s, h
}

func (h *hooked) Open(ctx context.Context, i int, l journal.Limits) (journal.Log, error) {
	log, err := h.Engine.Open(ctx, i, l)
	if err != nil {
		return nil, err
	}
	return &hookedLog{log, h}, h.note(i, l)
}

func (h *hooked) SetLimits(ctx context.Context, i int, l journal.Limits) error {
	if err := h.Engine.SetLimits(ctx, i, l); err != nil {
		return err
	}
	return h.note(i, l)
}

func (h *hooked) note(i int, l journal.Limits) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limits[i] = l
	return nil
}

func (h *hooked) Positions() journal.Positions { return &hookedPositions{h.Engine.Positions(), h} }

func (h *hooked) Close(ctx context.Context) error {
	h.still.RLock()
	defer h.still.RUnlock()
	defer close(h.ended)
	return h.Engine.Close(ctx)
}

type hookedPositions struct {
	journal.Positions
	engine *hooked
}

func (p *hookedPositions) Flush(ctx context.Context) error {
	p.engine.still.RLock()
	defer p.engine.still.RUnlock()
	return p.Positions.Flush(ctx)
}

type hookedLog struct {
	journal.Log
	engine *hooked
}

func (l *hookedLog) Append(ctx context.Context, entries []*journal.Entry) (int, error) {
	l.engine.still.RLock()
	defer l.engine.still.RUnlock()
	l.engine.mu.Lock()
	fail := l.engine.fail
	l.engine.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return 0, err
		}
	}
	return l.Log.Append(ctx, entries)
}

func (l *hookedLog) Read(ctx context.Context, after uint64) (journal.Cursor, error) {
	l.engine.still.RLock()
	defer l.engine.still.RUnlock()
	c, err := l.Log.Read(ctx, after)
	return &hookedCursor{c, l.engine}, err
}

type hookedCursor struct {
	journal.Cursor
	engine *hooked
}

func (c *hookedCursor) Next(ctx context.Context) (journal.Entry, error) {
	c.engine.still.RLock()
	defer c.engine.still.RUnlock()
	for {
		e, err := c.Cursor.Next(ctx)
		if err != nil {
			return e, err
		}
		c.engine.mu.Lock()
		gone := c.engine.gone[e.Seq]
		c.engine.mu.Unlock()
		if !gone {
			c.engine.read.Add(1)
			return e, nil
		}
		release(e)
	}
}
