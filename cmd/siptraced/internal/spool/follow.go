package spool

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The batches that the engine took last stay in memory until all readers had
// them. A reader that is not far behind reads nothing back from the engine, and
// one that was comes back to them. In a cluster, where others spool into the same
// streams, all is read from the engine.

// Bounds of them, in bytes of each shard: while a reader is fed from them, and
// while all are further behind, which need the memory themselves.
const (
	maxRecent = 8 << 20
	minRecent = 1 << 20
)

// offerPatience is how long a batch that the engine has may take to get here.
const offerPatience = 100 * time.Millisecond

// memory is the bytes of a batch, shared by the publisher and the readers.
type memory struct {
	data  []byte
	users atomic.Int32
	pool  *sync.Pool
}

func (m *memory) release() {
	if m.users.Add(-1) == 0 {
		m.data = m.data[:0]
		m.pool.Put(m)
	}
}

// Release says that nobody needs b and what aliases it any more. It is not
// needed, but saves memory.
func (b *Batch) Release() {
	if m := b.memory; m != nil {
		b.memory, b.data = nil, nil
		m.release()
	}
}

// recent are the last batches of a shard, without a gap.
type recent struct {
	mu      sync.Mutex // covers what follows
	batches []*Batch
	bytes   int
	end     uint64 // the last batch that was offered
	readers []*reader
	fed     int // of these, who are in follow
}

// offer adds a batch that the engine has.
func (c *recent) offer(b *Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.Seq != c.end+1 {
		c.drop(len(c.batches))
	}
	c.end = b.Seq
	if len(c.readers) == 0 {
		return
	}
	b.memory.users.Add(1)
	c.batches = append(c.batches, b)
	c.bytes += len(b.data)
	c.bound()
	for _, r := range c.readers {
		select {
		case r.offered <- struct{}{}:
		default:
		}
	}
}

// bound lets go of the oldest batches; c.mu is held.
func (c *recent) bound() {
	most := minRecent
	if c.fed > 0 {
		most = maxRecent
	}
	n := 0
	for over := c.bytes - most; over > 0; n++ {
		over -= len(c.batches[n].data)
	}
	c.drop(n)
}

// drop lets go of the first n batches; c.mu is held.
func (c *recent) drop(n int) {
	for _, b := range c.batches[:n] {
		c.bytes -= len(b.data)
		b.Release()
	}
	c.batches = slices.Delete(c.batches, 0, n)
}

// after is the batch behind number seq, nil if it is not here. The reader has all
// up to seq.
func (c *recent) after(r *reader, seq uint64) *Batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.passed = seq
	for _, o := range c.readers {
		seq = min(seq, o.passed)
	}
	n := 0
	for n < len(c.batches) && c.batches[n].Seq <= seq {
		n++
	}
	c.drop(n)
	if len(c.batches) == 0 || r.passed+1 < c.batches[0].Seq || r.passed >= c.end {
		return nil
	}
	b := *c.batches[r.passed+1-c.batches[0].Seq]
	b.memory.users.Add(1)
	return &b
}

// reaches reports whether no batch behind number seq has to come from the engine.
func (c *recent) reaches(seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return seq >= c.end || len(c.batches) > 0 && c.batches[0].Seq <= seq+1
}

// feed counts who is in follow.
func (c *recent) feed(change int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fed += change
	c.bound()
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
	if len(c.readers) == 0 {
		c.drop(len(c.batches))
	}
}

// follow hands out what is in memory. It returns when the next batch has to come
// from the engine, or when ctx ends.
func (r *reader) follow(ctx context.Context) {
	r.shard.recent.feed(1)
	defer r.shard.recent.feed(-1)
	for ctx.Err() == nil {
		if b := r.shard.recent.after(r, r.last); b != nil {
			r.deliver(ctx, b, "")
			continue
		}
		if !r.shard.recent.reaches(r.last) {
			return
		}
		var tooLong <-chan time.Time
		if r.shard.lastSeq.Load() > r.last {
			tooLong = time.After(offerPatience)
		}
		select {
		case <-r.offered:
		case <-tooLong:
			return
		case <-ctx.Done():
		}
	}
}
