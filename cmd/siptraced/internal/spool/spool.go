package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/compat/siptrace"
)

// ErrClosed is the answer to Put after Close or Abort.
var ErrClosed = fmt.Errorf("spool: %w", fs.ErrClosed)

// Stats counts records since the spool was opened.
type Stats struct {
	Spooled atomic.Uint64 // in the log
	Refused atomic.Uint64 // not taken: full
	Lost    atomic.Uint64 // not taken: closed before the log took them
	// Uncertain may be in the log: closed before a cluster's answer came.
	Uncertain atomic.Uint64
	// Discarded were kept for a sink that does not run, and there was no room.
	Discarded atomic.Uint64
	Clipped   atomic.Uint64 // taken, but a field or the chunks of others were over the bounds
}

// Spool takes records in and hands them to its readers.
type Spool struct {
	Stats Stats
	// Refused is told of each record that Put took and that the log has not after
	// all; nil: nobody is. It is set before the first Put.
	Refused func(rec *siptrace.Record)
	// Jitter gives a time from 0 up to d, for the pauses between the attempts of a
	// sink. It is set before the first Run; nil: at random.
	Jitter func(d time.Duration) time.Duration

	cfg       Config
	log       *slog.Logger
	engine    journal.Engine
	positions journal.Positions
	maxBatch  int // bytes
	spread    int // shards that new records go to
	full      atomic.Bool
	// fullLogged is when that was logged last.
	fullLogged atomic.Pointer[time.Time]
	bounds     atomic.Pointer[bounds]
	shards     []*shard

	elsewhere atomic.Pointer[[]Elsewhere]
	asked     time.Time // the checkpointer's: when that was

	mu      sync.Mutex // covers what follows; never held during I/O
	readers []*reader
	changes map[string]string // of the positions, to be written down; "": forgotten

	save   chan struct{} // asks the checkpointer to save now
	saving chan struct{} // has room while nobody saves the positions

	memories sync.Pool    // of batches
	sizeHint atomic.Int64 // bytes of one

	aborted   chan struct{} // closed by Abort
	abortOnce sync.Once
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// OpenOn opens a spool on an engine, which Close closes. After an error the engine
// is still its caller's.
func OpenOn(ctx context.Context, cfg Config, e journal.Engine, log *slog.Logger) (*Spool, error) {
	s := &Spool{
		cfg: cfg, log: log, engine: e, positions: e.Positions(), changes: map[string]string{},
		save: make(chan struct{}, 1), saving: make(chan struct{}, 1), aborted: make(chan struct{}),
	}
	s.bounds.Store(&bounds{cfg.MaxBytes, cfg.MaxAge})
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, sh := range s.shards {
		s.done.Go(func() { sh.publish(run) })
	}
	s.done.Go(func() { s.checkpointer(run) })
	return s, nil
}

func (s *Spool) open(ctx context.Context) error {
	if s.maxBatch = s.engine.MaxEntry(); s.maxBatch < s.cfg.BatchBytes {
		return fmt.Errorf("spool: the cluster takes messages of %d bytes: raise its max_payload over spool.batch_bytes (%d), to 8 MiB at best", s.maxBatch, s.cfg.BatchBytes)
	}
	before, err := s.engine.Logs(ctx)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	// Those of an earlier, larger configuration may still hold records.
	for i := range max(s.cfg.Shards, before) {
		l, err := s.engine.Open(ctx, i, s.limits())
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		s.shards = append(s.shards, newShard(s, i, l))
	}
	saved, err := s.savedPositions(ctx)
	if err != nil {
		return err
	}
	for _, sh := range s.shards {
		if err := sh.recover(ctx, saved); err != nil {
			return err
		}
	}
	if !s.Contended() {
		s.adopt(saved)
	}
	return s.agreeOnShards(ctx, saved)
}

// agreeOnShards decides over how many shards calls are spread. Another number
// would send the rest of a call to another shard while its beginning still
// waits, so the number changes when nothing waits; in a cluster the first one
// sets it.
func (s *Spool) agreeOnShards(ctx context.Context, saved []position) error {
	const key = "shards"
	s.spread = s.cfg.Shards
	text, err := s.positions.Claim(ctx, key, strconv.Itoa(s.spread))
	if err != nil {
		return fmt.Errorf("spool: positions: %w", err)
	}
	before, _ := strconv.Atoi(text)
	if before > 0 && before <= len(s.shards) && before != s.cfg.Shards && (s.Contended() || s.backlog(saved)) {
		s.spread = before
		s.log.Warn("spool: the number of shards stays as it was until nothing waits any more (key spool.shards)", "shards", before, "configured", s.cfg.Shards)
		return nil
	}
	if err := s.positions.Put(ctx, key, strconv.Itoa(s.spread)); err != nil {
		return fmt.Errorf("spool: positions: %w", err)
	}
	return nil
}

// backlog reports whether a sink was not done with all when the spool was opened.
func (s *Spool) backlog(saved []position) bool {
	for _, sh := range s.shards {
		done := sh.lastSeq.Load()
		known := done == 0
		for _, p := range saved {
			if p.shard == sh {
				known, done = true, min(done, p.at.seq)
			}
		}
		if !known || done < sh.lastSeq.Load() {
			return true
		}
	}
	return false
}

// Contended reports whether other processes may use the same logs.
func (s *Spool) Contended() bool { return len(s.shards) > 0 && !s.shards[0].log.Exclusive() }

// Shards is the number of shards to read; it can be more than configured.
func (s *Spool) Shards() int { return len(s.shards) }

// Full reports whether records are being refused because there is no room.
func (s *Spool) Full() bool { return s.full.Load() }

// Damaged is how many records were in the spool and can't be read any more, as far
// as is known.
func (s *Spool) Damaged() (n uint64) {
	for _, sh := range s.shards {
		n += sh.measured().DamagedRecords
	}
	return n
}

func (s *Spool) jitter(d time.Duration) time.Duration {
	if s.Jitter != nil {
		return s.Jitter(d)
	}
	return rand.N(d)
}

// Abort ends the waiting for an engine that takes nothing: Put and Sync come back
// with ErrClosed.
func (s *Spool) Abort() { s.abortOnce.Do(func() { close(s.aborted) }) }

// closePatience is how long the engine and the disk may take to come back once
// the context of Close ended.
const closePatience = 300 * time.Millisecond

// Close takes no more records and waits until those it has are in the log, or
// until ctx ends: then they are lost, and counted. It closes the engine.
// Consumers have to be stopped before.
func (s *Spool) Close(ctx context.Context) error {
	s.Flush(ctx)
	s.stop()
	ended := make(chan error, 1)
	go func() {
		s.done.Wait()
		ended <- s.finish(ctx)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(closePatience):
	}
	for _, sh := range s.shards {
		s.Stats.Lost.Add(sh.underway())
	}
	return errors.New("spool: the engine is stuck, going on without it")
}

// finish writes down how far all came, and closes the engine.
func (s *Spool) finish(ctx context.Context) error {
	save := ctx
	if !s.Contended() {
		save = context.WithoutCancel(ctx) // it is small, and it is a disk
	}
	s.resumeAll(ctx)
	err := s.saveAll(save)
	full := errors.Is(err, journal.ErrFull)
	if (err == nil || full) && ctx.Err() == nil {
		err = s.trim(ctx) // not without time for it
		if full {
			err = errors.Join(err, s.saveAll(save))
		}
	}
	return errors.Join(err, s.engine.Close(save))
}
