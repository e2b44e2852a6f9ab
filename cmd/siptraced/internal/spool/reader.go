package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/compat/siptrace"
)

// Batch is a run of records of one shard, as they were spooled.
type Batch struct {
	Seq     uint64 // position in the shard, growing; gaps are possible
	Records int
	// Missed is how many records before this batch the spool gave up, for its
	// bounds in bytes or age.
	Missed uint64

	total uint64
	taken time.Time // when the spool took it
	data  []byte

	memory journal.Memory // of data; nil: the garbage collector's

	// Shard is where it comes from. Timeline names the run of numbers that Seq is of:
	// in a copy of the spool the same Seq of another Timeline is another batch.
	Shard    int
	Timeline string
	// Contended: other processes consume the shard for the same sink.
	Contended bool

	// The consumer's: how many records are settled, and of these, those it has
	// seen; whether the present Writer has the batch.
	part          *part
	early         *atomic.Int64
	settled, seen int
	done, given   bool
}

// Settle says that the sink is done with the first n records: they are not
// written again. Write and Flush call it.
func (b *Batch) Settle(n int) {
	if n <= b.settled {
		return
	}
	if b.early != nil {
		b.early.Add(int64(n - b.settled))
	}
	b.settled = n
}

// Settled is how many records, from the first one on, the sink is done with.
func (b *Batch) Settled() int { return b.settled }

// Done says that the sink is done with the whole batch. Write and Flush call
// it. The batch and what aliases it are not valid any more once they return.
func (b *Batch) Done() {
	b.Settle(b.Records)
	b.done = true
}

// Age is how long ago the spool took b.
func (b *Batch) Age() time.Duration { return time.Since(b.taken) }

// Size is the batch's size in bytes.
func (b *Batch) Size() int { return len(b.data) }

// Single makes a batch of one record as Each handed it out.
func Single(raw []byte) *Batch { return &Batch{Records: 1, data: raw} }

// Decoder decodes batches; it holds the memory that records alias. Not safe for
// concurrent use.
type Decoder struct{ c codec }

// Each calls f for each record of b, in order, with the record's own bytes in
// the spool. The record is valid during the call. An error of the decoder is a
// damaged batch: what follows the damage is lost.
func (d *Decoder) Each(b *Batch, f func(rec *siptrace.Record, raw []byte) error) error {
	if err := d.Records(b.data, f); err != nil {
		return fmt.Errorf("batch %d: %w", b.Seq, err)
	}
	return nil
}

// Records is Each for the data of a batch (journal.Entry.Data).
func (d *Decoder) Records(batch []byte, f func(rec *siptrace.Record, raw []byte) error) error {
	var rec siptrace.Record
	for data := batch; len(data) > 0; {
		rest, err := d.c.next(data, &rec)
		if err != nil {
			return fmt.Errorf("at %d of %d: %w", len(batch)-len(data), len(batch), err)
		}
		if err := f(&rec, data[:len(data)-len(rest)]); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

// reader reads one shard for one sink.
type reader struct {
	shard   *shard
	key     string
	batches chan *Batch
	stop    context.CancelFunc
	stopped chan struct{}

	offered chan struct{} // shard.recent has another batch
	passed  uint64        // the last batch that needs not be kept there; covered by its mutex

	wake      chan struct{} // told that there is a batch; nil: nobody waits there
	known     bool          // where to begin
	continues bool          // where another reader of this process stopped
	dormant   bool          // it keeps the place of a sink that does not run
	resumed   func()        // called when that is known, if it was not from the start
	ready     atomic.Bool   // the place may be written down

	place     atomic.Pointer[offset]
	out       handedOut
	waiting   atomic.Uint64     // in a cluster: records that the sink is not done with, as of the last look
	saved     offset            // what the positions hold; the checkpointer's own once it is ready
	unsaved   bool              // they hold nothing
	wanted    uint64            // up to here it is done, which there was no room to write down; 0: there was
	last      uint64            // last entry handed out; the pump's own
	lastTotal map[string]uint64 // by intake; one that has the log alone is ""
}

// handedOut is when the spool took the batches that a sink got and is not done with.
// The oldest one that waits for the sink is among them, since they are read ahead.
type handedOut struct {
	mu      sync.Mutex // covers batches
	batches []handed   // in their order
}

type handed struct {
	seq uint64
	at  time.Time
}

func (h *handedOut) add(b *Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batches = append(h.batches, handed{b.Seq, b.taken})
}

// done lets go of the batches up to one.
func (h *handedOut) done(seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for n < len(h.batches) && h.batches[n].seq <= seq {
		n++
	}
	h.batches = slices.Delete(h.batches, 0, n)
}

// age is that of the oldest one; 0: there is none.
func (h *handedOut) age() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.batches) == 0 {
		return 0
	}
	return max(0, time.Since(h.batches[0].at))
}

// prefetch is how many batches a reader holds in memory.
const prefetch = 4

// reserve makes the reader of a sink in a shard, without I/O.
func (s *Spool) reserve(sink string, sh *shard, from From) *reader {
	r := &reader{
		shard: sh, key: journal.PositionKey(sink, sh.index), batches: make(chan *Batch, prefetch), stopped: make(chan struct{}),
		offered: make(chan struct{}, 1), lastTotal: map[string]uint64{},
	}
	var at offset
	old := s.reserved(r.key)
	switch {
	case old != nil && old.ready.Load(): // it ran before, or waits for its sink
		at, r.known, r.unsaved, r.continues = *old.place.Load(), true, true, !old.dormant
	case r.contended(): // the cluster is asked later
	case s.unqueue(r.key): // it was removed before
	default:
		at, r.known, _ = s.position(context.Background(), sh, r.key)
		r.saved = at
	}
	if !r.known {
		at, r.known = s.beginning(sh, from)
		r.unsaved = true
	}
	r.begin(at)
	r.ready.Store(r.known && (!r.contended() || r.continues))
	return r
}

// beginning is where a sink begins that has no offset; known is false when that
// takes I/O. What the others are done with is not meant for it, even if it is not
// trimmed.
func (s *Spool) beginning(sh *shard, from From) (at offset, known bool) {
	var end offset
	end.seq, end.total = sh.tail()
	switch {
	case from == Newest:
		return end, true
	case !sh.log.Exclusive():
		return at, false
	}
	if at, known = oldest(s.registered(), sh, func(o *reader) bool { return o.ready.Load() }); known {
		return at, true
	}
	switch b := sh.measured(); {
	case b.First > b.Last:
		return end, true
	case b.First <= 1:
		return at, true // what is missing there will be seen
	}
	return at, false
}

// begin sets where the reader begins.
func (r *reader) begin(at offset) {
	r.last = at.seq
	r.place.Store(&at)
	if r.known && !r.contended() {
		r.lastTotal[""] = at.total
	}
}

// reserved is the reader that was registered under a key.
func (s *Spool) reserved(key string) *reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.readers, func(r *reader) bool { return r.key == key }); i >= 0 {
		return s.readers[i]
	}
	return nil
}

// register makes readers known, in the place of those of the same keys: the
// spool keeps what they need.
func (s *Spool) register(readers []*reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = slices.DeleteFunc(s.readers, func(old *reader) bool {
		return slices.ContainsFunc(readers, func(r *reader) bool { return r.key == old.key })
	})
	s.readers = append(s.readers, readers...)
}

// start starts reading; run ends it.
func (r *reader) start(run context.Context) {
	run, r.stop = context.WithCancel(run)
	go func() {
		defer close(r.stopped)
		for r.resume(run) != nil {
			select {
			case <-run.Done():
				return
			case <-time.After(maxBackoff):
			}
		}
		r.pump(run)
	}()
}

// resume finds out where to begin, where that takes I/O.
func (r *reader) resume(ctx context.Context) (err error) {
	if r.ready.Load() {
		return nil
	}
	s := r.shard.spool
	if err := r.locate(ctx); err != nil {
		s.log.Warn("spool: a sink's offset is not known yet, trying again", "sink", r.key, "err", err)
		return err
	}
	if r.resumed != nil {
		r.resumed()
	}
	r.ready.Store(true)
	s.saveSoon() // the others of a cluster are to keep what it needs
	return nil
}

// resumeAll finds out where the sinks begin that were stopped before they knew.
// Without an offset the next run would keep nothing for them.
func (s *Spool) resumeAll(ctx context.Context) {
	for _, r := range s.registered() {
		if r.ready.Load() {
			continue
		}
		select {
		case <-r.stopped:
		default:
			continue // it still runs
		}
		if r.resume(ctx) != nil {
			return
		}
	}
}

func (r *reader) locate(ctx context.Context) error {
	s := r.shard.spool
	if r.contended() {
		forgotten := s.unqueue(r.key)
		at, known, err := s.position(ctx, r.shard, r.key)
		if err != nil {
			return err
		}
		if known && !forgotten {
			r.known, r.unsaved, r.saved = true, false, at
			r.begin(at)
		}
		return nil
	}
	// The positions were lost: from the oldest entry on.
	c, err := r.shard.log.Read(ctx, 0)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer c.Close()
	var at offset
	e, err := c.Next(ctx)
	switch {
	case errors.Is(err, journal.ErrEnd):
		at.seq, at.total = r.shard.tail()
	case err != nil:
		return fmt.Errorf("spool: %w", err)
	default:
		at = offset{e.Seq - 1, e.Total - uint64(e.Records)}
		release(e)
	}
	r.known = true
	r.begin(at)
	return nil
}

// batch is an entry of the shard's log as readers get it.
func (sh *shard) batch(e *journal.Entry) *Batch {
	return &Batch{
		Seq: e.Seq, Records: e.Records, Shard: sh.index, Timeline: e.Timeline, Contended: !sh.log.Exclusive(),
		total: e.Total, taken: e.Taken, data: e.Data, memory: e.Memory,
	}
}

// release lets go of an entry that is not handed out.
func release(e journal.Entry) {
	if e.Memory != nil {
		e.Memory.Release()
	}
}

// pump carries batches to the sink, and reads the log again when that fails.
func (r *reader) pump(ctx context.Context) {
	if !r.contended() {
		r.shard.recent.join(r)
		defer r.shard.recent.leave(r)
	}
	for ctx.Err() == nil {
		if r.follows() {
			r.follow(ctx)
			continue
		}
		if err := r.read(ctx); err != nil && ctx.Err() == nil {
			r.shard.spool.log.Warn("spool: a sink waits for the spool's log", "sink", r.key, "err", err)
			sleep(ctx, maxBackoff)
		}
	}
}

// follows reports whether the reader needs nothing of the log now.
func (r *reader) follows() bool { return !r.contended() && r.shard.recent.reaches(r) }

// read hands out what the log has, until the rest is in memory or ctx ends.
func (r *reader) read(ctx context.Context) error {
	c, err := r.shard.log.Read(ctx, r.last)
	if err != nil {
		return err
	}
	defer c.Close()
	for ctx.Err() == nil {
		seq, total := r.shard.tail()
		e, err := c.Next(ctx)
		if errors.Is(err, journal.ErrEnd) {
			r.reportGap(ctx, seq, total)
			return nil
		}
		if err != nil {
			return err
		}
		if e.Seq <= r.last {
			release(e)
			continue
		}
		b := r.shard.batch(&e)
		if !r.contended() {
			r.shard.recent.share(b)
		}
		if !r.deliver(ctx, b, e.Intake) || r.follows() {
			return nil
		}
	}
	return nil
}

// deliver hands out a batch; ok is false when the reader ends.
func (r *reader) deliver(ctx context.Context, b *Batch, intake string) (ok bool) {
	before := b.total - uint64(b.Records)
	last, known := r.lastTotal[intake]
	switch {
	case known && before > last:
		b.Missed = before - last
	case !known && intake == "":
		r.place.Store(&offset{r.last, before})
	}
	return r.hand(ctx, b, intake)
}

func (r *reader) hand(ctx context.Context, b *Batch, intake string) (ok bool) {
	seq, total := b.Seq, b.total // whoever gets it may let go of it at once
	r.out.add(b)
	select {
	case r.batches <- b:
	case <-ctx.Done():
		b.Release()
		return false
	}
	r.last, r.lastTotal[intake] = seq, total
	r.notify()
	return true
}

// reportGap comes behind the last entry that the log has, where another one was the
// last: it hands out an empty batch that says how much is gone. Nothing may come any
// more that could say so.
func (r *reader) reportGap(ctx context.Context, seq, total uint64) {
	last, known := r.lastTotal[""]
	if !known || total <= last {
		if seq > r.last {
			r.last = seq
		}
		return
	}
	seq = max(seq, r.last)
	r.hand(ctx, &Batch{
		Seq: seq, Missed: total - last, Shard: r.shard.index, Timeline: r.shard.timeline(seq), Contended: r.contended(),
		total: total, taken: time.Now(),
	}, "")
}

// notify wakes who waits for batches.
func (r *reader) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Batches hands out the shard's batches in order.
func (r *reader) Batches() <-chan *Batch { return r.batches }

// Done says that the sink is done with b and everything before it.
func (r *reader) Done(b *Batch) {
	r.place.Store(&offset{b.Seq, b.total})
	r.out.done(b.Seq)
}

// Lag is the age of the oldest batch that waits for the sink; 0: none does.
func (r *reader) Lag() time.Duration {
	if r.Pending() == 0 {
		return 0
	}
	return r.out.age()
}

// Close ends the reader. Its position stays.
func (r *reader) Close() {
	r.stop()
	<-r.stopped
}

// contended reports whether other processes may read for the same sink, and spool
// into the same shard.
func (r *reader) contended() bool { return !r.shard.log.Exclusive() }

// Pending is how many records wait for the sink; in a cluster as of the last
// second, whoever spooled them and whoever will take them.
func (r *reader) Pending() uint64 {
	if r.contended() {
		if r.shard.lastSeq.Load() <= r.place.Load().seq {
			return 0
		}
		return r.waiting.Load()
	}
	if total, done := r.shard.total.Load(), r.place.Load().total; total > done {
		return total - done
	}
	return 0
}

// Waiting estimates the bytes of the shard that the sink is not done with.
func (r *reader) Waiting() int64 {
	b := r.shard.measured()
	done := max(r.place.Load().seq, b.First-min(1, b.First))
	if b.First > b.Last || b.Last <= done {
		return 0
	}
	return int64(float64(b.Bytes) / float64(b.Last-b.First+1) * float64(b.Last-done))
}

// began is where the sink's accounting begins: what waited for it when the spool
// was opened, and how many records of the shard came since then before the sink
// began. It is asked for when the reader is opened.
func (r *reader) began() (waiting, before uint64) {
	if r.contended() || r.continues {
		return 0, 0
	}
	done, recovered := r.place.Load().total, r.shard.recovered
	return recovered - min(recovered, done), done - min(recovered, done)
}
