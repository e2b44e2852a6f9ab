package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

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
func (s Shard) Timelines() []journal.Timeline { return s.reader.shard.log.Timelines() }

// Offset is the batch up to which the sink was done with everything.
func (s Shard) Offset() uint64 { return s.reader.place.Load().seq }

// Reread gives the batches from first to last, which the sink was done with
// before, to f once more: those that the spool still holds, in order. It is for a
// sink whose own offset went back. The batches are not in flight: f has them until it
// calls their Release.
func (s Shard) Reread(ctx context.Context, first, last uint64, f func(*Batch) error) error {
	sh := s.reader.shard
	have, err := sh.log.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	first, last = max(first, have.First, 1), min(last, have.Last)
	if first > last {
		return nil
	}
	c, err := sh.log.Read(ctx, first-1)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer c.Close()
	for at := first - 1; at < last; {
		e, err := c.Next(ctx)
		if errors.Is(err, journal.ErrEnd) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("spool: behind batch %d: %w", at, err)
		}
		if at = e.Seq; at > last {
			release(e)
			return nil
		}
		if err := f(sh.batch(&e)); err != nil {
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
