package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/dbschema"
)

// sinkName is the store's name in the spool and in the books.
const sinkName = "store"

// stats are the store's books, over all writers.
type stats struct {
	counters *counters.Set
	// written, aside, missed and skipped (for other sinks only) are messages, rows
	// are rows. elsewhere are messages that another process of a cluster committed.
	// fallback are those whose own table can't be filled.
	written, elsewhere, aside, missed, skipped, fallback, rows, transactions, retries *atomic.Uint64
	// logs are log lines kept, noLogs those for which there was no table.
	logs, noLogs *atomic.Uint64
}

// count books what happened to values on their way into their columns, and
// sets it back.
func (s *stats) count(c *dbschema.Counts) {
	for f := range dbschema.NumFields {
		for _, n := range []struct {
			what  string
			count uint64
		}{{"cut", c.Cut[f]}, {"bytewise", c.Bytewise[f]}, {"nul", c.NUL[f]}} {
			if n.count > 0 {
				s.counters.Counter(sinkName + "." + n.what + "." + f.String()).Add(n.count)
			}
		}
	}
	*c = dbschema.Counts{}
}

// Store is the database sink: one writer per shard of the spool.
type Store struct {
	cfg     Config
	rejects *rejects.File
	writers []*writer
	making  sync.Mutex // covers the making of tables
	turn    sync.Mutex // covers a transaction of SQLite
	drain   chan struct{}
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// Open finds the store's place in the spool. The database may be down: the
// writers wait for it.
func Open(ctx context.Context, cfg Config, sp *spool.Spool, c *counters.Set, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, rejects: cfg.Rejects, drain: make(chan struct{})}
	if s.rejects == nil {
		s.rejects = rejects.Open(cfg.RejectFile, c)
	}
	st := &stats{
		counters: c,
		written:  c.Counter("store.written"), elsewhere: c.Counter("store.written_elsewhere"), aside: c.Counter("store.set_aside"), missed: c.Counter("store.missed"), skipped: c.Counter("store.skipped"),
		fallback: c.Counter("store.table_fallback"),
		logs:     c.Counter("store.log_lines"), noLogs: c.Counter("store.log_lines_no_table"),
		rows: c.Counter("store.rows"), transactions: c.Counter("store.transactions"), retries: c.Counter("store.retries"),
	}
	bad := new(unusable)
	backlog := c.Counter("store.backlog")
	for i := range sp.Shards() {
		r, err := sp.Reader(ctx, sinkName, i)
		if err != nil {
			s.closeReaders()
			return nil, fmt.Errorf("store: %w", err)
		}
		if !r.Shared() { // what waits in a cluster is in the books of who spooled it
			backlog.Add(r.Pending())
		}
		s.writers = append(s.writers, &writer{
			cfg: &s.cfg, log: log.With("sink", sinkName, "shard", i), reader: r, rejects: s.rejects, stats: st, bad: bad, making: &s.making, turn: &s.turn, drain: s.drain,
			rejected: map[rejectKey]struct{}{},
		})
	}
	c.Func("store.pending", s.Pending)
	c.Func("store.lag_seconds", s.lagSeconds)
	return s, nil
}

// Pending is how many messages wait in the spool.
func (s *Store) Pending() (n uint64) {
	for _, w := range s.writers {
		n += w.reader.Pending()
	}
	return n
}

// lagSeconds is how far the slowest writer is behind the intake.
func (s *Store) lagSeconds() (n uint64) {
	for _, w := range s.writers {
		n = max(n, uint64(max(0, w.reader.Lag()).Seconds()))
	}
	return n
}

// Start starts the writers and returns.
func (s *Store) Start() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, w := range s.writers {
		s.done.Go(func() { w.run(ctx) })
	}
}

// Stop lets the writers write what the spool holds, until ctx ends, and waits
// for them. What is left stays in the spool.
func (s *Store) Stop(ctx context.Context) error {
	close(s.drain)
	ended := make(chan struct{})
	go func() {
		s.done.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	s.stop()
	<-ended
	s.closeReaders()
	if s.cfg.Rejects != nil {
		return nil // somebody else's
	}
	return s.rejects.Close()
}

func (s *Store) closeReaders() {
	for _, w := range s.writers {
		w.reader.Close()
	}
}
