package spool

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

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
	var rec siptrace.Record
	for data := b.data; len(data) > 0; {
		rest, err := d.c.next(data, &rec)
		if err != nil {
			return fmt.Errorf("batch %d at %d of %d: %w", b.Seq, len(b.data)-len(data), len(b.data), err)
		}
		if err := f(&rec, data[:len(data)-len(rest)]); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

// Reader is one sink's place in one shard.
type Reader struct {
	shard   *shard
	key     string
	batches chan *Batch
	stop    context.CancelFunc
	stopped chan struct{}

	done      atomic.Uint64     // the sink is done up to here
	doneTotal atomic.Uint64     // and with so many records of the stream
	doneTaken atomic.Int64      // which the spool took at that time, Unix nanoseconds
	saved     uint64            // what the positions hold; the janitor's own
	last      uint64            // last sequence handed out; the pump's own
	lastTotal map[string]uint64 // by intake; the embedded engine has one, ""
}

// prefetch is how many batches a reader holds in memory.
const prefetch = 4

// Reader opens the place of a sink in a shard: behind the last position that
// it was done with, or behind after where that is larger (a sink that keeps its
// own position). A sink is opened once.
func (s *Spool) Reader(ctx context.Context, sink string, shard int, after uint64) (*Reader, error) {
	sh := s.shards[shard]
	r := &Reader{shard: sh, key: sink + "." + strconv.Itoa(shard), batches: make(chan *Batch, prefetch), stopped: make(chan struct{})}
	saved, err := s.position(ctx, r)
	if err != nil {
		return nil, err
	}
	r.saved = saved
	after = max(after, saved)
	r.done.Store(after)
	r.last = after
	r.lastTotal = map[string]uint64{}
	if !s.shared() {
		total, err := sh.totalBefore(ctx, after+1)
		if err != nil {
			return nil, err
		}
		r.lastTotal[""] = total
		r.doneTotal.Store(total)
	}
	r.doneTaken.Store(time.Now().UnixNano())
	iter, err := sh.open(ctx, after+1)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	r.stop = stop
	go r.pump(run, iter)
	s.mu.Lock()
	s.readers = append(s.readers, r)
	s.mu.Unlock()
	return r, nil
}

// totalBefore is the count of records before the batch at seq, or before the
// oldest one that is left.
func (sh *shard) totalBefore(ctx context.Context, seq uint64) (uint64, error) {
	info, err := sh.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("spool: %w", err)
	}
	seq = max(seq, info.State.FirstSeq)
	if info.State.Msgs == 0 || seq > info.State.LastSeq {
		return sh.total.Load(), nil
	}
	msg, err := sh.stream.GetMsg(ctx, seq)
	if err != nil {
		return 0, fmt.Errorf("spool: stream %s at %d: %w", sh.id, seq, err)
	}
	n, total := batchHeader(msg.Header)
	return total - uint64(n), nil
}

func (sh *shard) open(ctx context.Context, from uint64) (jetstream.MessagesContext, error) {
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
	return iter, nil
}

// pump carries batches from the engine to Next, and opens the engine's side
// again when it fails.
func (r *Reader) pump(ctx context.Context, iter jetstream.MessagesContext) {
	defer close(r.stopped)
	defer func() {
		if iter != nil {
			iter.Stop()
		}
	}()
	var err error
	for ctx.Err() == nil {
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
		msg, err := iter.Next(jetstream.NextContext(ctx))
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, jetstream.ErrNoHeartbeat) {
				iter.Stop()
				iter = nil
			}
			continue
		}
		meta, err := msg.Metadata()
		if err != nil || meta.Sequence.Stream <= r.last {
			continue
		}
		b := &Batch{Seq: meta.Sequence.Stream, taken: meta.Timestamp, data: msg.Data()}
		b.Records, b.total = batchHeader(msg.Headers())
		intake := msg.Headers().Get(headerIntake)
		if last, known := r.lastTotal[intake]; known && b.total-uint64(b.Records) > last {
			b.Missed = b.total - uint64(b.Records) - last
		}
		select {
		case r.batches <- b:
			r.last, r.lastTotal[intake] = b.Seq, b.total
		case <-ctx.Done():
		}
	}
}

// ID names the shard's stream for a sink that keeps its own position: it
// changes when the spool is made anew, since positions start again then.
func (r *Reader) ID() string { return r.shard.id }

// Batches hands out the shard's batches in order.
func (r *Reader) Batches() <-chan *Batch { return r.batches }

// Done says that the sink is done with b and everything before it.
func (r *Reader) Done(b *Batch) {
	r.done.Store(b.Seq)
	r.doneTotal.Store(b.total)
	r.doneTaken.Store(b.taken.UnixNano())
}

// Lag is the age of what the sink was done with last, while something waits.
func (r *Reader) Lag() time.Duration {
	if r.Pending() == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - r.doneTaken.Load())
}

// Close ends the reader. Its position stays.
func (r *Reader) Close() {
	r.stop()
	<-r.stopped
}

// Shared reports whether other processes may read for the same sink, and spool
// into the same shard.
func (r *Reader) Shared() bool { return r.shard.spool.shared() }

// Pending is how many records wait for the sink; in a cluster how many batches,
// as of the last second.
func (r *Reader) Pending() uint64 {
	if r.Shared() {
		if last, done := r.shard.lastSeq.Load(), r.done.Load(); last > done {
			return last - done
		}
		return 0
	}
	if total, done := r.shard.total.Load(), r.doneTotal.Load(); total > done {
		return total - done
	}
	return 0
}

// position reads how far the sink came in this very stream: a stream that was
// made anew starts at 1 again.
func (s *Spool) position(ctx context.Context, r *Reader) (uint64, error) {
	e, err := s.positions.Get(ctx, r.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("spool: position of %s: %w", r.key, err)
	}
	seq, id, _ := strings.Cut(string(e.Value()), " ")
	if id != r.shard.id {
		return 0, nil
	}
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("spool: position of %s: %w", r.key, err)
	}
	return n, nil
}

// janitor saves the positions and purges what all sinks are done with, once a
// second.
func (s *Spool) janitor(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.savePositions(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("spool: positions not saved, trying again", "err", err)
			}
		}
	}
}

func (s *Spool) savePositions(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := map[*shard]uint64{}
	for _, r := range s.readers {
		done := r.done.Load()
		if o, ok := oldest[r.shard]; !ok || done < o {
			oldest[r.shard] = done
		}
		if done == r.saved {
			continue
		}
		if _, err := s.positions.PutString(ctx, r.key, strconv.FormatUint(done, 10)+" "+r.shard.id); err != nil {
			return fmt.Errorf("spool: position of %s: %w", r.key, err)
		}
		r.saved = done
	}
	for _, sh := range s.shards {
		if s.shared() {
			info, err := sh.stream.Info(ctx)
			if err != nil {
				return fmt.Errorf("spool: shard %d: %w", sh.index, err)
			}
			sh.lastSeq.Store(info.State.LastSeq)
		} else if err := sh.noteTotal(ctx); err != nil {
			return err
		}
	}
	for sh, seq := range oldest {
		if seq <= sh.purged || seq == 0 {
			continue
		}
		if err := sh.stream.Purge(ctx, jetstream.WithPurgeSequence(seq+1)); err != nil {
			return fmt.Errorf("spool: purge of shard %d: %w", sh.index, err)
		}
		sh.purged = seq
	}
	return nil
}
