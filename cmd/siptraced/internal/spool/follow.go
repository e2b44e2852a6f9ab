package spool

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Batches stay in memory until all readers that are not far behind had them: those
// that the log took last, or, once there is no room for these, those that one reader
// read back for all. Who is further behind reads from the log alone, until it gets
// there. In a cluster, where others spool into the same logs, all do.

// maxRecent bounds them, in bytes of each shard.
const maxRecent = 8 << 20

// patience is how long a reader waits for a batch that the log has: for it to be
// offered, or to be read back by another reader, whose sink may be stuck.
const patience = 100 * time.Millisecond

// Release says that nobody needs b and what aliases it any more. It is not
// needed, but saves memory.
func (b *Batch) Release() {
	if m := b.memory; m != nil {
		b.memory, b.data = nil, nil
		m.Release()
	}
}

// retain says that somebody more needs b.
func (b *Batch) retain() {
	if b.memory != nil {
		b.memory.Retain()
	}
}

// recent are batches of a shard without a gap.
type recent struct {
	mu      sync.Mutex // covers what follows
	batches []*Batch
	bytes   int
	end     uint64 // the last batch that was here
	head    uint64 // the last one that the log took
	readers []*reader
	filler  *reader // who reads the next one back, for all; nil: nobody
}

// offer adds a batch that the log took, if it comes next and there is room.
func (c *recent) offer(b *Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = b.Seq
	if b.Seq == c.end+1 && c.bytes+len(b.data) <= maxRecent {
		c.add(b, len(c.readers) > 0)
	}
	c.tell()
}

// share adds a batch that a reader read back. The oldest ones make room; if there
// is a gap before it, all of them.
func (c *recent) share(b *Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.Seq <= c.end {
		return
	}
	n := 0
	for over := c.bytes + len(b.data) - maxRecent; n < len(c.batches) && (over > 0 || b.Seq > c.end+1); n++ {
		over -= len(c.batches[n].data)
	}
	c.drop(n)
	c.add(b, len(c.readers) > 1)
	c.tell()
}

// add makes a batch the last one, and keeps it; c.mu is held.
func (c *recent) add(b *Batch, keep bool) {
	c.end = b.Seq
	if !keep {
		c.drop(len(c.batches))
		return
	}
	kept := *b
	kept.retain()
	c.batches = append(c.batches, &kept)
	c.bytes += len(b.data)
}

// tell wakes who waits in follow; c.mu is held.
func (c *recent) tell() {
	for _, r := range c.readers {
		select {
		case r.offered <- struct{}{}:
		default:
		}
	}
}

// drop lets go of the first n batches; c.mu is held.
func (c *recent) drop(n int) {
	for _, b := range c.batches[:n] {
		c.bytes -= len(b.data)
		b.Release()
	}
	c.batches = slices.Delete(c.batches, 0, n)
}

// first is the number of the first batch, or of the next one if there is none;
// c.mu is held.
func (c *recent) first() uint64 { return c.end + 1 - uint64(len(c.batches)) }

// after is the batch behind the last one of a reader, nil if it is not here.
func (c *recent) after(r *reader) *Batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.last >= c.end || r.last+1 < c.first() {
		return nil
	}
	b := *c.batches[r.last+1-c.first()]
	b.retain()
	return &b
}

// reaches reports whether a reader needs nothing of the log now: what comes next
// is here, or is not there yet, or another reader reads it.
func (c *recent) reaches(r *reader) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.passed = r.last
	if !c.trim() { // nobody is near: the batches may be those that r needs
		c.end = r.last
	}
	switch {
	case r.last < c.end:
		return r.last+1 >= c.first()
	case c.head <= r.last:
		c.resign(r)
		return true
	case c.filler == nil:
		c.filler = r
	}
	return c.filler != r
}

// trim drops what all readers had that are not behind the first batch, and reports
// whether there are any; c.mu is held.
func (c *recent) trim() (near bool) {
	first, had := c.first(), c.end
	for _, r := range c.readers {
		if r.passed+1 >= first {
			near, had = true, min(had, r.passed)
		}
	}
	c.drop(int(had + 1 - first))
	return near
}

// join has batches kept for a reader from now on, and leave no longer.
func (c *recent) join(r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.passed = r.last
	c.readers = append(c.readers, r)
}

func (c *recent) leave(r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers = slices.DeleteFunc(c.readers, func(o *reader) bool { return o == r })
	c.resign(r)
	if len(c.readers) == 0 {
		c.drop(len(c.batches))
	}
}

// resign says that a reader reads nothing back for others; c.mu is held.
func (c *recent) resign(r *reader) {
	if c.filler == r {
		c.filler = nil
		c.tell()
	}
}

// takeOver has a reader read back what another one should, and does not.
func (c *recent) takeOver(r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.filler = r
}

// follow hands out what is in memory. It returns when the next batch has to come
// from the log, or when ctx ends.
func (r *reader) follow(ctx context.Context) {
	c := &r.shard.recent
	for ctx.Err() == nil {
		if b := c.after(r); b != nil {
			r.deliver(ctx, b, "")
			continue
		}
		if !c.reaches(r) {
			return
		}
		seq, total := r.shard.tail()
		behind := seq > r.last
		if !behind {
			r.reportGap(ctx, seq, total)
		}
		if !r.await(ctx, behind) {
			c.takeOver(r)
			return
		}
	}
}

// await returns when another batch is offered, or ctx ends. A reader that is behind
// has some patience; ok is false when it is at its end.
func (r *reader) await(ctx context.Context, behind bool) (ok bool) {
	var tooLong <-chan time.Time
	if behind {
		t := time.NewTimer(patience)
		defer t.Stop()
		tooLong = t.C
	}
	select {
	case <-r.offered:
	case <-tooLong:
		return false
	case <-ctx.Done():
	}
	return true
}
