package store

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/dbschema"
)

// sinkName is the store's name in the spool and of its counters.
const sinkName = "store"

// stats are the store's counters, over all writers.
type stats struct {
	counters *counters.Set
	// written, rejected and skipped (for other sinks only) are messages, rows
	// are rows. elsewhere are messages that another process of a cluster committed.
	// fallback are those whose own table can't be filled.
	written, elsewhere, rejected, skipped, fallback, rows, transactions *atomic.Uint64
	// logs are log lines kept, noLogs those for which there was no table.
	logs, noLogs *atomic.Uint64
	// positionBack is how often the database had lost what it had committed,
	// rewritten how many messages were written again for that.
	positionBack, rewritten *atomic.Uint64
	pruned                  pruneCounts
}

// count adds what happened to values on their way into their columns, and sets
// it back.
func (s *stats) count(c *dbschema.Counts) {
	for name, n := range c.All() {
		s.counters.Counter(sinkName + "." + name).Add(n)
	}
	*c = dbschema.Counts{}
}

// Store is the database sink: one writer per shard of the spool.
type Store struct {
	shared
	spool    *spool.Spool
	counters *counters.Set
	log      *slog.Logger
	writers  []*writer // by shard
	consumer *spool.Consumer
	backoff  time.Duration // bounds the pause between two attempts; 0: the spool's own bound
}

// Open makes a store. The database may be down: the writers wait for it.
func Open(ctx context.Context, cfg Config, sp *spool.Spool, c *counters.Set, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{spool: sp, counters: c, log: log}
	s.creating, s.sqlite = newTurn(), newTurn()
	s.wanted.Store(&cfg)
	s.rejects = cfg.Rejects
	if s.rejects == nil {
		var err error
		if s.rejects, err = rejects.Open(cfg.RejectFile, cfg.RejectMaxBytes, c, log); err != nil {
			return nil, err
		}
	}
	s.notes = &notes{spool: sp}
	s.stats = &stats{
		counters: c,
		written:  c.Counter("store.written"), elsewhere: c.Counter("store.written_elsewhere"), rejected: c.Counter("store.set_aside"), skipped: c.Counter("store.skipped"),
		fallback: c.Counter("store.table_fallback"),
		logs:     c.Counter("store.log_lines"), noLogs: c.Counter("store.log_lines_no_table"),
		positionBack: c.Counter("store.position_back"), rewritten: c.Counter("store.rewritten"),
		pruned: pruneCounts{byAge: c.Counter("store.pruned.keep"), bySize: c.Counter("store.pruned.keep_bytes")},
		rows:   c.Counter("store.rows"), transactions: c.Counter("store.transactions"),
	}
	for i := range sp.Shards() {
		s.writers = append(s.writers, &writer{shared: &s.shared, log: log.With("sink", sinkName, "shard", i), rejected: map[rejectKey]struct{}{}})
	}
	return s, nil
}

// Start begins to write what the spool holds and what comes.
func (s *Store) Start() {
	c, cfg := s.counters, s.wanted.Load()
	s.consumer = s.spool.Run(s, spool.Options{
		Log: s.log, Rows: cfg.BatchRows, Bytes: cfg.gatherBytes(), Age: cfg.BatchAge, IdlePoll: idleFlush, OwnsOffset: true, Backoff: s.backoff,
		Count: spool.Counters{
			// What came while there was no store was not meant for it.
			Backlog: c.Counter("store.backlog"), Before: c.Counter("store.skipped"),
			Missed: c.Counter("store.missed"), Retries: c.Counter("store.retries"),
		},
	})
	c.Gauge("store.pending", s.Pending)
	c.Gauge("store.lag_seconds", s.consumer.LagSeconds)
}

// Reconfigure has the writers connect again with another configuration before they
// write the next batch. After an error nothing is changed. What is said of the
// reject file, and Connect, stay as they were.
func (s *Store) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	old := s.wanted.Load()
	cfg.RejectFile, cfg.RejectMaxBytes, cfg.Rejects, cfg.Connect = old.RejectFile, old.RejectMaxBytes, old.Rejects, old.Connect
	if old.equal(cfg) {
		return nil
	}
	s.wanted.Store(&cfg)
	s.consumer.SetGather(cfg.BatchRows, cfg.gatherBytes(), cfg.BatchAge)
	s.consumer.Retry()
	return nil
}

// Name is the store's name in the spool.
func (s *Store) Name() string { return sinkName }

// Open connects to the database.
func (s *Store) Open(ctx context.Context, shards []spool.Shard) (spool.Writer, error) {
	return s.writers[shards[0].Index].open(ctx, shards[0])
}

// Consumer is what carries the spool to it.
func (s *Store) Consumer() *spool.Consumer { return s.consumer }

// Pending is how many messages wait in the spool.
func (s *Store) Pending() uint64 { return s.consumer.Pending() }

// Stop lets the writers write what the spool holds, until ctx ends, and waits
// for them. It does not wait for a database that is down. What is left stays in
// the spool.
func (s *Store) Stop(ctx context.Context) error {
	s.consumer.Stop(ctx)
	if s.wanted.Load().Rejects != nil {
		return nil // somebody else's
	}
	return s.rejects.Close()
}
