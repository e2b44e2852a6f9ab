package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
)

// Sink is one consumer of the spool: the database, a mirror, a log.
type Sink interface {
	// Name is unique and names the sink's offsets and log lines: "store",
	// "mirror.homer". Letters, digits, '-', '_' and '.'.
	Name() string
	// Open connects. It is called again, with backoff, after an error of its own
	// or of the Writer. The context ends with the attempt: a Writer does not keep
	// it.
	Open(ctx context.Context, shards []Shard) (Writer, error)
}

// Writer gets the batches of its shards, each shard's in order. One goroutine
// calls it. After an error it is closed, and the next one gets the batches that
// are in flight again, from the first record that is not settled on.
type Writer interface {
	// Write takes one more batch. It stays in flight until Done is called on it,
	// during this call or a later one of Write or Flush.
	Write(ctx context.Context, b *Batch) error
	// Flush makes what was written final, or asks what was acknowledged. It is
	// called when a bound of Options is reached, and every Options.Poll.
	Flush(ctx context.Context) error
	Close() error
}

// Shard is one of the runs of batches that a Writer gets.
type Shard struct {
	Index int
	// ID names the shard's stream for a sink that keeps its own offsets: it
	// changes when the spool is made anew, as sequence numbers start again then.
	ID string
	// Contended: other processes spool into the same shard, and consume it for the
	// same sink.
	Contended bool

	reader *reader
}

// Timelines are those of the batches that the shard holds, or held when the spool
// was opened, the oldest first; the last one is that of what is spooled from now on.
func (s Shard) Timelines() []journal.Timeline {
	return []journal.Timeline{{ID: s.ID, Last: s.reader.shard.lastSeq.Load()}}
}

// Offset is the batch up to which the sink was done with everything.
func (s Shard) Offset() uint64 { return s.reader.place.Load().seq }

// Reread gives the batches from first to last, which the sink was done with
// before, to f once more: those that the spool still holds, in order. It is for a
// sink whose own offset went back. The batches are not in flight.
func (s Shard) Reread(ctx context.Context, first, last uint64, f func(*Batch) error) error {
	stream := s.reader.shard.stream
	info, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	for seq := max(first, info.State.FirstSeq); seq <= last; seq++ {
		msg, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("spool: batch %d: %w", seq, err)
		}
		b := &Batch{Seq: seq, Timeline: s.ID, taken: msg.Time, data: msg.Data}
		b.Records, b.total = batchHeader(msg.Header)
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

// From is where a sink begins that has no offset yet.
type From int

// The beginnings.
const (
	Oldest From = iota // with all that the spool holds
	Newest             // with what comes from now on
)

// Options are a sink's wishes.
type Options struct {
	// Log gets the sink's failures; the spool's own logger when nil.
	Log *slog.Logger
	// OneWriter: one Writer gets all shards, the oldest batch first. Otherwise
	// there is one for each shard.
	OneWriter bool
	// Lazy: Open is called when there is something to write, not before.
	Lazy bool
	From From
	// Flush is called when the batches written since the last call have so many
	// records or bytes (0: no bound), or the first of them was written so long ago
	// (0: as soon as no other one waits).
	Rows, Bytes int
	Age         time.Duration
	// Poll: Flush is called so often while batches are in flight, and every
	// IdlePoll while none is. 0: never.
	Poll, IdlePoll time.Duration
	// MaxInFlight bounds the bytes in flight; 0: no bound.
	MaxInFlight int
	// Backoff bounds the pause between two attempts; 0: 10 s.
	Backoff time.Duration
	// MaxBytes and MaxAge bound the backlog; 0: no bound. What is beyond them is
	// not given to the Writer but to Expired, the oldest first.
	MaxBytes int64
	MaxAge   time.Duration
	// Expired accounts for the records of b that are not settled. The cause is
	// ErrExpired, or the error of Open that wraps ErrDiscard.
	Expired func(b *Batch, cause error)
	// Skip reports whether b has nothing for the sink, and accounts for its
	// records then. It is asked while no Writer is open, of a Lazy sink.
	Skip func(b *Batch) bool
	// DrainPatience is how long a sink that makes no progress is waited for when it
	// is stopped; 0: until the deadline.
	DrainPatience time.Duration
	// OwnsOffset: the sink keeps the offset itself, so that in a cluster it knows
	// what others wrote: it sets Batch.Missed to 0 then. Other sinks of a cluster
	// count no missed messages.
	OwnsOffset bool
	Count      Counters
}

// Counters are where a Consumer counts; nil ones are not counted. Backlog is
// what waited when the spool was opened, Before what came since then, before the
// sink began.
type Counters struct {
	Backlog, Before, Missed, Retries *atomic.Uint64
}

var (
	// ErrExpired is the cause of giving up what is beyond the bounds.
	ErrExpired = errors.New("spool: beyond the bounds of the sink")
	// ErrDiscard is wrapped by an error of Open after which nothing can be
	// delivered: what waits is given up.
	ErrDiscard = errors.New("nothing can be delivered")
	// ErrReopen ends a Writer that works, to open another one: an address changed,
	// or an idle connection was closed. It is not logged, and not counted.
	ErrReopen = errors.New("the sink opens again")
	// ErrStandby is wrapped by an error that says that another process writes for
	// the same sink. It is not logged.
	ErrStandby = errors.New("another process is ahead")
)

// State is how a sink does.
type State struct {
	Connected bool
	// Err is the last error, "" when the sink works. Since is when Connected
	// changed last.
	Err   string
	Since time.Time
}
