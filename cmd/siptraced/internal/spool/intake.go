package spool

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/compat/siptrace"
)

// batch is one that is being filled, or on its way to the log.
type batch struct {
	*memory
	records int
	opened  time.Time
}

// memory is the bytes of a batch, shared by the publisher, the log and the readers
// (journal.Memory).
type memory struct {
	data  []byte
	users atomic.Int32
	pool  *sync.Pool
}

// Retain says that somebody more needs it.
func (m *memory) Retain() { m.users.Add(1) }

// Release says that somebody does not need it any more.
func (m *memory) Release() {
	if m.users.Add(-1) == 0 {
		m.data = m.data[:0]
		m.pool.Put(m)
	}
}

// buffers is how many batches of a shard may be on their way to the log before
// Put waits.
const buffers = 8

// Put takes a copy of rec. It waits while the log is slower than the intake (its
// batches are all under way), and never for a sink. An error means that the record
// was not taken.
func (s *Spool) Put(rec *siptrace.Record) error {
	sh := s.shards[shardOf(rec.CallID, s.spread)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for {
		if err := sh.begin(); err != nil {
			return err
		}
		b := sh.cur
		whole := len(b.data)
		var err error
		if b.data, err = sh.codec.append(b.data, rec); err != nil {
			b.data = b.data[:whole]
			return err
		}
		if len(b.data) <= s.maxBatch || whole == 0 {
			break
		}
		// Too much for one entry of the log: the record begins the next batch.
		b.data = b.data[:whole]
		sh.closeBatch()
	}
	if sh.codec.clipped {
		s.Stats.Clipped.Add(1)
	}
	sh.cur.records++
	sh.taken++
	if len(sh.cur.data) >= s.cfg.BatchBytes {
		sh.closeBatch()
	}
	return nil
}

// begin has an open batch; sh.mu is held, but for the time it waits for one.
func (sh *shard) begin() error {
	s := sh.spool
	for {
		switch {
		case sh.closed:
			return ErrClosed
		case sh.cur != nil:
			return nil
		}
		select {
		case b := <-sh.free:
			sh.openBatch(b)
			return nil
		default:
		}
		sh.mu.Unlock()
		var b *batch
		select {
		case b = <-sh.free:
		case <-s.aborted:
		}
		sh.mu.Lock()
		switch {
		case b == nil:
			return ErrClosed
		case sh.cur != nil || sh.closed:
			sh.free <- b // somebody was faster
		default:
			sh.openBatch(b)
		}
	}
}

// openBatch makes a batch the one to fill; sh.mu is held.
func (sh *shard) openBatch(b *batch) {
	s := sh.spool
	b.opened = time.Now()
	if b.memory, _ = s.memories.Get().(*memory); b.memory == nil {
		b.memory = &memory{pool: &s.memories, data: make([]byte, 0, s.sizeHint.Load())}
	}
	b.users.Store(1)
	sh.cur = b
	select {
	case sh.began <- struct{}{}:
	default:
	}
}

// closeBatch hands the open batch to the publisher; sh.mu is held. There is room:
// there are no more batches than buffers.
func (sh *shard) closeBatch() {
	sh.full <- sh.cur
	sh.cur = nil
}

// expire closes the open batch if it has the age. left is how long it takes until
// it has; 0: there is none.
func (sh *shard) expire(age time.Duration) (left time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.cur == nil {
		return 0
	}
	if left = age - time.Since(sh.cur.opened); left > 0 {
		return left
	}
	sh.closeBatch()
	return 0
}

// Flush closes the intake and returns when all records taken in are in the log, or
// when ctx ends, which aborts. Consumers go on.
func (s *Spool) Flush(ctx context.Context) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		if !sh.closed {
			sh.closed = true
			if sh.cur != nil {
				sh.closeBatch()
			}
			close(sh.full)
		}
		sh.mu.Unlock()
	}
	for _, sh := range s.shards {
		if sh.awaitSettled(ctx, sh.put(), nil) != nil {
			s.Abort()
			return
		}
	}
}

// ErrNotTaken is the answer to Sync when records did not make it.
var ErrNotTaken = errors.New("spool: records were not taken")

// Mark is where a sender begins whose records Sync is to vouch for.
func (s *Spool) Mark() (mark uint64) {
	for _, sh := range s.shards {
		mark += sh.failed.Load()
	}
	return mark
}

// Sync returns when every record that was put before is in the spool: safe from
// a crash of this process, and after the next sync of the disk from one of the
// machine. It is the base of an acknowledgement to a sender. The error is
// ErrNotTaken when the spool refused or lost a record, of whatever sender, since
// mark, and may be ErrClosed after Abort.
func (s *Spool) Sync(ctx context.Context, mark uint64) error {
	puts := make([]uint64, len(s.shards))
	for i, sh := range s.shards {
		puts[i] = sh.put()
		select {
		case sh.flushNow <- struct{}{}:
		default: // it was asked already
		}
	}
	for i, sh := range s.shards {
		if err := sh.awaitSettled(ctx, puts[i], s.aborted); err != nil {
			return err
		}
	}
	if s.Mark() > mark {
		return ErrNotTaken
	}
	return nil
}

// underway is how many records were put and are not dealt with.
func (sh *shard) underway() uint64 {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.taken - sh.settled
}

// put is how many records were put.
func (sh *shard) put() uint64 {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.taken
}

// awaitSettled returns when the first n records that were put are dealt with.
func (sh *shard) awaitSettled(ctx context.Context, n uint64, aborted <-chan struct{}) error {
	for {
		sh.mu.Lock()
		if sh.settled >= n {
			sh.mu.Unlock()
			return nil
		}
		if sh.changed == nil {
			sh.changed = make(chan struct{})
		}
		changed := sh.changed
		sh.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-aborted:
			return ErrClosed
		}
	}
}

// settle makes a batch that is dealt with ready for Put.
func (sh *shard) settle(b *batch) {
	sh.spool.sizeHint.Store(int64(len(b.data) + len(b.data)/16))
	sh.mu.Lock()
	sh.settled += uint64(b.records)
	if sh.changed != nil {
		close(sh.changed)
		sh.changed = nil
	}
	sh.mu.Unlock()
	b.Release()
	*b = batch{}
	sh.free <- b
}
