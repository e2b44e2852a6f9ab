package spool

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// A reader that has everything follows the intake: it gets each batch from
// memory as soon as the engine has it, and reads nothing back. One that falls
// behind reads from the engine until it has everything again. In a cluster,
// where others spool into the same streams, all is read from the engine.

// mostFollowed is how many bytes the readers of a shard may be behind, taken
// together, and still follow: one that is stuck keeps its part in memory.
const mostFollowed = 8 << 20

// memory is the bytes of a batch, shared by the publisher and the readers that
// follow.
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

// offer hands a batch that the engine has to the readers that follow.
func (sh *shard) offer(b *Batch) {
	readers := sh.following()
	for _, r := range readers {
		if !r.follows.Load() {
			continue
		}
		part := max(1, cap(r.fresh)/len(readers))
		c := *b
		c.memory.users.Add(1)
		offered := r.fresh
		if len(r.fresh) >= part {
			offered = nil
		}
		select {
		case offered <- &c:
		default:
			c.Release()
			r.follows.Store(false)
			select {
			case r.behind <- struct{}{}:
			default:
			}
		}
	}
}

// following are the readers that batches are offered to.
func (sh *shard) following() []*reader {
	if p := sh.readers.Load(); p != nil {
		return *p
	}
	return nil
}

// unfollow offers nothing more to a reader that ended.
func (sh *shard) unfollow(r *reader) {
	sh.spool.mu.Lock()
	defer sh.spool.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(sh.following()), func(o *reader) bool { return o == r })
	sh.readers.Store(&rest)
	r.forget()
}

// hasAll reports whether the reader has handed out everything there is; from
// then on it follows.
func (r *reader) hasAll() bool {
	if r.Shared() || r.shard.lastSeq.Load() > r.last {
		return false
	}
	r.forget()
	r.follows.Store(true)
	// What comes later than this look is offered.
	if r.shard.lastSeq.Load() <= r.last {
		return true
	}
	r.follows.Store(false)
	return false
}

// forget empties what was offered.
func (r *reader) forget() {
	for {
		select {
		case b := <-r.fresh:
			b.Release()
		case <-r.behind:
		default:
			return
		}
	}
}

// follow hands out what is offered, until it falls behind or ctx ends.
func (r *reader) follow(ctx context.Context) {
	defer r.follows.Store(false)
	for {
		select {
		case b := <-r.fresh:
			if !r.accept(ctx, b) {
				return
			}
		case <-r.behind:
			// What was offered before comes first.
			for len(r.fresh) > 0 {
				if !r.accept(ctx, <-r.fresh) {
					return
				}
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// accept hands out the batch that comes next; ok is false when it is another one.
func (r *reader) accept(ctx context.Context, b *Batch) (ok bool) {
	switch {
	case b.Seq <= r.last:
		b.Release()
		return true
	case b.Seq > r.last+1:
		b.Release()
		return false
	}
	return r.deliver(ctx, b, "")
}
