package spool

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
)

// shard is one log and the batch that is being filled for it.
type shard struct {
	spool   *Spool
	index   int
	log     journal.Log
	trimmed uint64 // the checkpointer's: given up, up to here
	recent  recent
	// bounds are those of a log that is not Exclusive, as of the last second.
	bounds atomic.Pointer[journal.Bounds]

	mu      sync.Mutex // covers what follows; never held while something is waited for
	codec   codec
	cur     *batch
	closed  bool
	taken   uint64        // records put
	settled uint64        // of them, those in the log or counted as not taken
	changed chan struct{} // closed when settled changes; nil: nobody waits for that

	failed   atomic.Uint64 // of those settled, those not taken
	began    chan struct{} // a batch was opened
	flushNow chan struct{} // asks the publisher not to wait for more records
	full     chan *batch   // closed batches, in order
	free     chan *batch

	end     sync.Mutex    // makes the next two one
	total   atomic.Uint64 // records that were ever put into the log; in a cluster, by this process
	lastSeq atomic.Uint64 // the last entry in it, as far as is known here
	// recovered is the total when the spool was opened.
	recovered uint64
}

func newShard(s *Spool, i int, l journal.Log) *shard {
	sh := &shard{
		spool: s, index: i, log: l, began: make(chan struct{}, 1), flushNow: make(chan struct{}, 1),
		full: make(chan *batch, buffers), free: make(chan *batch, buffers),
	}
	for range buffers {
		sh.free <- &batch{}
	}
	return sh
}

// recover finds out where the log ends. Numbers that a sink is done with are not used
// again, whatever the log has lost.
func (sh *shard) recover(ctx context.Context, saved []position) error {
	if !sh.log.Exclusive() {
		return sh.measure(ctx)
	}
	for _, p := range saved {
		if p.shard == sh {
			sh.log.Skip(p.at.seq)
		}
	}
	b := sh.measured()
	sh.recovered = b.Total
	sh.advance(b.Last, b.Total)
	sh.recent.end, sh.recent.head = b.Last, b.Last
	return nil
}

// advance notes that the log ends with an entry.
func (sh *shard) advance(seq, total uint64) {
	sh.end.Lock()
	defer sh.end.Unlock()
	sh.lastSeq.Store(seq)
	sh.total.Store(total)
}

// tail is the log's last entry and the records up to it.
func (sh *shard) tail() (seq, total uint64) {
	sh.end.Lock()
	defer sh.end.Unlock()
	return sh.lastSeq.Load(), sh.total.Load()
}

// measure asks the cluster for the bounds.
func (sh *shard) measure(ctx context.Context) error {
	b, err := sh.log.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("spool: shard %d: %w", sh.index, err)
	}
	sh.bounds.Store(&b)
	sh.lastSeq.Store(b.Last)
	return nil
}

// refreshLag finds out how much of a cluster's shard waits for each sink. Elsewhere
// that is known at any moment.
func (sh *shard) refreshLag(ctx context.Context) error {
	l, ok := sh.log.(journal.Shared)
	if !ok {
		return nil
	}
	if err := sh.measure(ctx); err != nil {
		return err
	}
	var readers []*reader
	var after []uint64
	for _, r := range sh.spool.registered() {
		if r.shard == sh && !r.dormant {
			readers, after = append(readers, r), append(after, r.place.Load().seq)
		}
	}
	if len(readers) == 0 {
		return nil
	}
	waiting, err := l.Waiting(ctx, after)
	if err != nil {
		return fmt.Errorf("spool: shard %d: %w", sh.index, err)
	}
	for i, r := range readers {
		r.waiting.Store(waiting[i])
	}
	return nil
}

// measured is what the log holds, without waiting for a disk or a cluster.
func (sh *shard) measured() (b journal.Bounds) {
	if sh.log.Exclusive() {
		b, _ = sh.log.Bounds(context.Background()) // there is nothing that could fail
		return b
	}
	if m := sh.bounds.Load(); m != nil {
		b = *m
	}
	return b
}

// timeline is that of an entry that is not there any more.
func (sh *shard) timeline(seq uint64) (id string) {
	for _, t := range sh.log.Timelines() {
		if id = t.ID; t.Last >= seq {
			break
		}
	}
	return id
}

// limits are the bounds of one shard.
func (s *Spool) limits() journal.Limits {
	b := s.bounds.Load()
	return journal.Limits{Bytes: b.bytes / int64(s.cfg.Shards), Age: b.age, DropOldest: s.cfg.Full == DropOldest}
}

// SetBounds changes MaxBytes and MaxAge while the spool works. After an error the
// old ones hold.
func (s *Spool) SetBounds(ctx context.Context, maxBytes int64, maxAge time.Duration) error {
	old := *s.bounds.Load()
	next := bounds{maxBytes, maxAge}
	if next == old {
		return nil
	}
	c := s.cfg
	c.MaxBytes, c.MaxAge = maxBytes, maxAge
	if err := c.Validate(); err != nil {
		return err
	}
	s.bounds.Store(&next)
	for i := range s.shards {
		err := s.engine.SetLimits(ctx, i, s.limits())
		if err == nil {
			continue
		}
		s.bounds.Store(&old)
		for i := range s.shards[:i] {
			_ = s.engine.SetLimits(ctx, i, s.limits()) // the first error is the one to know
		}
		return fmt.Errorf("spool: the bounds can't be changed: %w", err)
	}
	return nil
}
