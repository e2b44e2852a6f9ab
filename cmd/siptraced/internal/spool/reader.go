package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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

	memory *memory // of data; nil: the garbage collector's

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
	from      From
	resumed   func()      // called when that is known, if it was not from the start
	ready     atomic.Bool // the place may be written down

	place     atomic.Pointer[offset]
	out       handedOut
	waiting   atomic.Uint64     // in a cluster: records that the sink is not done with, as of the last look
	saved     offset            // what the positions hold, without the time; the checkpointer's own
	unsaved   bool              // they hold nothing
	last      uint64            // last sequence handed out; the pump's own
	end       offset            // the end of the stream when the reader was made
	asked     uint64            // last sequence that was asked for because nothing came
	late      int               // how often that was in a row
	lastTotal map[string]uint64 // by intake; the embedded engine has one, ""
}

// offset is how far a sink came.
type offset struct {
	seq   uint64 // done up to here
	total uint64 // with so many records of the stream
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
		shard: sh, key: sink + "." + strconv.Itoa(sh.index), from: from, batches: make(chan *Batch, prefetch), stopped: make(chan struct{}),
		offered: make(chan struct{}, 1), lastTotal: map[string]uint64{},
	}
	var at offset
	r.end.seq, r.end.total = sh.tail()
	old := s.reserved(r.key)
	switch {
	case old != nil && old.ready.Load(): // it ran before, or waits for its sink
		at, r.known, r.unsaved, r.continues = *old.place.Load(), true, true, !old.dormant
	case !s.Shared(): // a cluster is asked later
		at.seq, at.total, r.known, _ = s.position(context.Background(), r)
		if s.unqueue(r.key) {
			at, r.known = offset{}, false
		}
		r.saved, r.unsaved = at, !r.known
	}
	if !r.known && from == Newest {
		at, r.known, r.unsaved = r.end, true, true
	}
	r.begin(at)
	return r
}

// begin sets where the reader begins.
func (r *reader) begin(at offset) {
	r.last = at.seq
	r.place.Store(&at)
	if r.known && !r.Shared() {
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
	s := r.shard.spool
	if r.ready.Load() {
		return nil
	}
	if !r.known || s.Shared() && !r.continues {
		if err := r.locate(ctx); err != nil {
			s.log.Warn("spool: a sink's offset is not known yet, trying again", "sink", r.key, "err", err)
			return err
		}
		if r.resumed != nil {
			r.resumed()
		}
	}
	r.ready.Store(true)
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
	if s.Shared() {
		forgotten := s.unqueue(r.key)
		seq, total, known, err := s.position(ctx, r)
		if err != nil {
			return err
		}
		if known && !forgotten {
			r.known, r.unsaved, r.saved = true, false, offset{seq: seq, total: total}
			r.begin(r.saved)
		}
	}
	if r.known {
		return nil
	}
	info, err := r.shard.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	var at offset
	switch {
	case info.State.FirstSeq <= 1:
		// A stream from its beginning on: what is missing there will be seen.
		r.known, r.unsaved = true, true
	case s.Shared():
	case info.State.Msgs == 0:
		// The sink is new, and others are done with all there was.
		at, r.known, r.unsaved = r.end, true, true
	default:
		// The position was lost, or the sink is new: from the oldest batch on.
		if msg, err := r.shard.stream.GetMsg(ctx, info.State.FirstSeq); err == nil {
			n, t := batchHeader(msg.Header)
			at, r.known, r.unsaved = offset{seq: info.State.FirstSeq - 1, total: t - uint64(n)}, true, true
		}
	}
	r.begin(at)
	return nil
}

// stored reads from the engine.
type stored struct {
	jetstream.MessagesContext
	consumer jetstream.Consumer
	stream   jetstream.Stream
}

// close ends reading, in the engine too.
func (i *stored) close(ctx context.Context) {
	i.Stop()
	if info := i.consumer.CachedInfo(); info != nil {
		// Should that fail, the engine forgets it after a while.
		_ = i.stream.DeleteConsumer(ctx, info.Name)
	}
}

func (sh *shard) open(ctx context.Context, from uint64) (*stored, error) {
	c, err := sh.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return nil, fmt.Errorf("spool: reader of shard %d: %w", sh.index, err)
	}
	iter, err := c.Messages(jetstream.PullMaxMessages(prefetch))
	if err != nil {
		return nil, fmt.Errorf("spool: reader of shard %d: %w", sh.index, err)
	}
	return &stored{iter, c, sh.stream}, nil
}

// pump carries batches from the engine to Next, and opens the engine's side
// again when it fails.
func (r *reader) pump(ctx context.Context) {
	var iter *stored
	var err error
	defer func() {
		if iter != nil {
			iter.Stop()
		}
	}()
	if r.last >= r.end.seq {
		r.reportTail(ctx)
	}
	if !r.Shared() {
		r.shard.recent.join(r)
		defer r.shard.recent.leave(r)
	}
	for ctx.Err() == nil {
		if !r.Shared() && r.shard.recent.reaches(r) {
			if iter != nil {
				iter.close(ctx)
				iter = nil
			}
			if r.follow(ctx); ctx.Err() != nil {
				return
			}
		}
		if iter == nil {
			if iter, err = r.shard.open(ctx, r.last+1); err != nil {
				r.shard.spool.log.Warn("spool: reader waits for the engine", "sink", r.key, "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(maxBackoff):
				}
				continue
			}
		}
		wait, cancel := context.WithTimeout(ctx, expiryInterval)
		msg, err := iter.Next(jetstream.NextContext(wait))
		late := wait.Err() != nil
		cancel()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return
		case late:
			r.askLate(ctx)
			r.expired(ctx)
			continue
		case errors.Is(err, jetstream.ErrNoHeartbeat):
			continue
		default:
			iter.Stop()
			iter = nil
			continue
		}
		meta, err := msg.Metadata()
		if err != nil || meta.Sequence.Stream <= r.last {
			continue
		}
		next := meta.Sequence.Stream
		r.late = 0
		if r.recoverSkipped(ctx, next) != nil {
			iter.Stop()
			iter = nil // again from the first one that was not handed out
			continue
		}
		if !r.deliverStored(ctx, next, meta.Timestamp, msg.Headers(), msg.Data()) {
			return
		}
	}
}

// deliverStored hands out a batch that the engine gave.
func (r *reader) deliverStored(ctx context.Context, seq uint64, taken time.Time, h nats.Header, data []byte) (ok bool) {
	b := &Batch{Seq: seq, taken: taken, data: data}
	b.Records, b.total = batchHeader(h)
	if !r.Shared() {
		r.shard.recent.share(b)
	}
	return r.deliver(ctx, b, h.Get(headerIntake))
}

// deliver hands out a batch; ok is false when the reader ends.
func (r *reader) deliver(ctx context.Context, b *Batch, intake string) (ok bool) {
	before := b.total - uint64(b.Records)
	last, known := r.lastTotal[intake]
	if b.Records == 0 && known && before == last { // see goAhead
		r.last = b.Seq
		return true
	}
	switch {
	case known && before > last:
		b.Missed = before - last
	case !known && intake == "":
		r.place.Store(&offset{r.last, before})
	}
	seq, total := b.Seq, b.total // whoever gets it may let go of it at once
	r.out.add(b)
	select {
	case r.batches <- b:
		r.last, r.lastTotal[intake] = seq, total
		r.notify()
	case <-ctx.Done():
		return false
	}
	if seq == r.end.seq {
		r.reportTail(ctx)
	}
	return true
}

// askLate asks for what comes next when nothing came: an engine that saw damage
// may pass over all that follows. One that is only slow would be slower yet when
// it is asked for each batch, so it is asked for one at first, and then for twice
// as many each time.
func (r *reader) askLate(ctx context.Context) {
	last, from := r.shard.lastSeq.Load(), max(r.last, r.asked)
	if last <= from {
		return
	}
	upTo := min(last, from+1<<min(r.late, 20))
	if r.recoverSkipped(ctx, upTo+1) == nil {
		r.asked = upTo
		r.late++
	}
}

// recoverSkipped hands out the batches before next that the engine has and did not
// deliver: while it fixes its view of a damaged file it passes over whole ones
// beside those that are gone. An error means that there may be more of them.
func (r *reader) recoverSkipped(ctx context.Context, next uint64) error {
	if next <= r.last+1 {
		return nil
	}
	info, err := r.shard.stream.Info(ctx)
	if err != nil {
		return err
	}
	for seq := max(r.last+1, info.State.FirstSeq); seq < next; seq++ {
		msg, err := r.shard.stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if !r.deliverStored(ctx, seq, msg.Time, msg.Header, msg.Data) {
			return ctx.Err()
		}
	}
	return nil
}

// reportTail comes behind the last batch that was in the stream when the reader
// was opened. Where the end of the stream is gone, it hands out an empty batch
// that says how much was there.
func (r *reader) reportTail(ctx context.Context) {
	noted := r.shard.recovered
	last, known := r.lastTotal[""]
	if !known || noted <= last {
		return
	}
	select {
	case r.batches <- &Batch{Seq: r.last, Missed: noted - last, total: noted, taken: time.Now()}:
		r.lastTotal[""] = noted
		r.notify()
	case <-ctx.Done():
	}
}

// expiryInterval is how often an idle reader looks whether all that it waits for
// is gone.
const expiryInterval = time.Second

// expired hands out an empty batch that says how much is gone when the stream is
// empty and the sink has not seen all of it: nothing will come any more that
// could say so.
func (r *reader) expired(ctx context.Context) {
	last, known := r.lastTotal[""]
	total := r.shard.total.Load()
	if !known || total <= last {
		return
	}
	info, err := r.shard.stream.Info(ctx)
	if err != nil || info.State.Msgs > 0 || info.State.LastSeq <= r.last {
		return
	}
	select {
	case r.batches <- &Batch{Seq: info.State.LastSeq, Missed: total - last, total: total, taken: time.Now()}:
		r.last, r.lastTotal[""] = info.State.LastSeq, total
		r.notify()
	case <-ctx.Done():
	}
}

// notify wakes who waits for batches.
func (r *reader) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// ID names the shard's stream for a sink that keeps its own position: it
// changes when the spool is made anew, since positions start again then.
func (r *reader) ID() string { return r.shard.id }

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

// Shared reports whether other processes may read for the same sink, and spool
// into the same shard.
func (r *reader) Shared() bool { return r.shard.spool.Shared() }

// Pending is how many records wait for the sink; in a cluster as of the last
// second, whoever spooled them and whoever will take them.
func (r *reader) Pending() uint64 {
	if r.Shared() {
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

// position reads how far the sink came in this very stream, and with how many
// records: a stream that was made anew starts at 1 again.
func (s *Spool) position(ctx context.Context, r *reader) (seq, total uint64, known bool, err error) {
	text, _, err := s.positions.get(ctx, r.key)
	if err != nil {
		return 0, 0, false, fmt.Errorf("spool: position of %s: %w", r.key, err)
	}
	var id string
	if n, _ := fmt.Sscan(text, &seq, &total, &id); n != 3 || id != r.shard.id {
		return 0, 0, false, nil
	}
	return seq, total, true, nil
}

func (s *Spool) savePosition(ctx context.Context, r *reader, seq, total uint64) error {
	if err := s.positions.put(ctx, r.key, fmt.Sprintf("%d %d %s", seq, total, r.shard.id)); err != nil {
		return fmt.Errorf("spool: position of %s: %w", r.key, err)
	}
	r.saved, r.unsaved = offset{seq: seq, total: total}, false
	return nil
}

// checkpointer saves the positions and purges what all sinks are done with, once a
// second.
func (s *Spool) checkpointer(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.save:
		}
		if ctx.Err() == nil {
			if err := s.savePositions(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("spool: positions not saved, trying again", "err", err)
			}
		}
	}
}

// savePositions writes down how far the sinks came, and gives up what all are
// done with. Only what is written down as done may go.
func (s *Spool) savePositions(ctx context.Context) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	oldest, err := s.saveAll(ctx)
	if err != nil {
		return err
	}
	return s.trim(ctx, oldest)
}

// saveAll writes down how far the sinks and the shards came; oldest is the last
// batch of each shard that all sinks are done with.
func (s *Spool) saveAll(ctx context.Context) (oldest map[*shard]uint64, err error) {
	readers := s.registered()
	if err := s.saveChanges(ctx); err != nil {
		return nil, err
	}
	if err := s.followTrim(ctx, readers); err != nil {
		return nil, err
	}
	if oldest, err = s.saveOffsets(ctx, readers); err != nil {
		return nil, err
	}
	for _, sh := range s.shards {
		if s.Shared() {
			if err := s.refreshLag(ctx, sh, readers); err != nil {
				return nil, fmt.Errorf("spool: shard %d: %w", sh.index, err)
			}
		} else if err := sh.noteTotal(ctx); err != nil {
			return nil, err
		}
	}
	return oldest, s.positions.flush()
}

// registered are the readers of this moment.
func (s *Spool) registered() []*reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.readers)
}

// saveOffsets puts down the offsets that changed; oldest is the last batch of
// each shard that all sinks are done with.
func (s *Spool) saveOffsets(ctx context.Context, readers []*reader) (oldest map[*shard]uint64, err error) {
	oldest = map[*shard]uint64{}
	for _, r := range readers {
		ready := r.ready.Load()
		at := r.place.Load()
		if o, ok := oldest[r.shard]; !ok || at.seq < o {
			oldest[r.shard] = at.seq
		}
		if !ready || !r.unsaved && r.saved == (offset{seq: at.seq, total: at.total}) {
			continue
		}
		if err := s.savePosition(ctx, r, at.seq, at.total); err != nil {
			return nil, err
		}
	}
	return oldest, nil
}

// trim gives up the batches that all sinks are done with.
func (s *Spool) trim(ctx context.Context, oldest map[*shard]uint64) error {
	var failed error
	for sh, seq := range oldest {
		if err := sh.trim(ctx, seq); err != nil {
			failed = errors.Join(failed, fmt.Errorf("spool: trim of shard %d: %w", sh.index, err))
		}
	}
	for _, sh := range s.shards {
		if s.Shared() || sh.bytes.Load() == 0 {
			continue
		}
		if err := sh.measure(ctx); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	var api *jetstream.APIError
	if errors.As(failed, &api) && api.ErrorCode == errStream {
		// A stream that could not write once takes and gives up nothing more.
		s.engine.restart()
	}
	return failed
}

// refreshLag finds out how much of a cluster's shard waits for each sink. An intake has
// a subject of its own, and each of its batches says how many records it has
// spooled with it: its first batch that waits and its last one are enough.
func (s *Spool) refreshLag(ctx context.Context, sh *shard, readers []*reader) error {
	info, err := sh.stream.Info(ctx, jetstream.WithSubjectFilter(sh.subject+".*"))
	if err != nil {
		return err
	}
	st := info.State
	sh.lastSeq.Store(st.LastSeq)
	sh.bytes.Store(int64(st.Bytes))
	totals := map[string]uint64{} // by subject
	for _, r := range readers {
		if r.shard != sh {
			continue
		}
		// What is purged is done: by another process, if not here.
		next := max(r.place.Load().seq+1, st.FirstSeq)
		var waiting uint64
		for subject := range st.Subjects {
			if next > st.LastSeq {
				break
			}
			if _, known := totals[subject]; !known {
				msg, err := sh.stream.GetLastMsgForSubject(ctx, subject)
				if errors.Is(err, jetstream.ErrMsgNotFound) {
					continue
				}
				if err != nil {
					return err
				}
				_, totals[subject] = batchHeader(msg.Header)
			}
			msg, err := sh.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			n, upTo := batchHeader(msg.Header)
			if before := upTo - uint64(n); totals[subject] > before {
				waiting += totals[subject] - before
			}
		}
		r.waiting.Store(waiting)
	}
	return nil
}
