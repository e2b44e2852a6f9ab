package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

// shared is what the writers of a store have in common.
type shared struct {
	wanted   atomic.Pointer[Config] // sessions with another one end
	rejects  *rejects.File
	notes    *notes
	stats    *stats
	fallback fallback
	said     said
	refused  refused
	creating turn // covers the creation of tables
	sqlite   turn // covers a transaction of SQLite, and pruning
	pruning  pruning
}

// writer carries one shard of the spool into the database, over one connection
// at a time. One goroutine owns it.
type writer struct {
	*shared
	cfg     *Config // of this session
	log     *slog.Logger
	shard   spool.Shard
	decoder spool.Decoder
	host    int // of the db_url, the one used last

	batches []*spool.Batch // not yet committed
	place
	transaction
	logState
	wrote    int // rows since the last look at the bounds
	suspects suspects
	// rejected are the rows of the batches that are in the reject file already.
	rejected map[rejectKey]struct{}
}

// place is how far a shard is in the database.
type place struct {
	lines   []*line // its timelines, the oldest first
	tracked bool    // the database keeps their positions
	counted uint64  // up to here committed batches are counted
	history history
	loss    *loss // that is being mended
	// unanswered are transactions that a server of the database may have committed:
	// their COMMIT was sent, and the answer is not known.
	unanswered []outcome
	// seen are the positions that this process found, by the database and row.
	seen     map[[2]string]uint64
	toldCopy time.Time // when the log said that a copy of the spool is at work
}

// transaction is what is made of some batches, to be written together.
type transaction struct {
	records []spooled
	guilty  []refusal // records that were found not to be taken
	skipped int       // records for other sinks
	tables  []*table  // with rows
}

type rejectKey struct {
	batch       uint64
	index       int
	table, user string
}

// outcome is what a transaction means for the counters.
type outcome struct {
	seq                              uint64 // of its last batch; 0: it has none
	moves                            []move // of positions
	records, rows, rejected, skipped int
	logs, noLogs                     int
	committing                       bool // COMMIT was sent
}

// open connects to the first host that takes what it is given.
func (w *writer) open(ctx context.Context, shard spool.Shard) (spool.Writer, error) {
	w.shard = shard
	if cfg := w.wanted.Load(); cfg != w.cfg {
		if w.cfg != nil && databaseID(cfg.URL) != databaseID(w.cfg.URL) {
			w.history, w.loss = history{}, nil
		}
		w.cfg, w.host = cfg, 0
	}
	s, host, err := dial(ctx, w.cfg, w.host)
	if err != nil {
		return nil, err
	}
	w.host = host
	w.batches = w.batches[:0] // the batches come again
	err = w.prepare(ctx, s)
	if err == nil {
		err = w.locate(ctx, s)
	}
	if err != nil {
		s.close()
		w.host++ // it answers, and that is all: the next one, if there is one
		return nil, err
	}
	return &connection{writer: w, session: s}, nil
}

// connection is a writer's session with the database, a spool.Writer.
type connection struct {
	writer   *writer
	session  *session
	progress bool // a transaction was committed
}

// Write takes a batch into the next transaction, unless its rows are in the
// database already. A session that has another configuration than the store ends.
func (c *connection) Write(_ context.Context, b *spool.Batch) error {
	if c.writer.wanted.Load() != c.writer.cfg {
		return spool.ErrReopen
	}
	return c.writer.hold(b)
}

// Flush writes what was taken. Without any, it looks whether the session still has
// the configuration of the store.
func (c *connection) Flush(ctx context.Context) error {
	if len(c.writer.batches) == 0 && c.writer.wanted.Load() != c.writer.cfg {
		return spool.ErrReopen
	}
	if len(c.writer.batches) > 0 && c.session.gone() {
		c.writer.log.Warn("database: its file was moved away or removed, opening it anew", "file", c.session.file)
		return spool.ErrReopen
	}
	for w := c.writer; len(w.batches) > 0; c.progress = true {
		err := w.flush(ctx, c.session)
		switch {
		case err == nil:
		case errors.Is(err, errMoved) && w.shard.Contended:
			// Another writer of the same spool is ahead: it stays so until it ends.
			return errors.Join(spool.ErrStandby, err)
		case errors.Is(err, errMoved):
			return err // the next session finds out who did it
		default:
			if !c.progress {
				w.host++
			}
			return err
		}
	}
	c.writer.prune(ctx, c.session)
	return nil
}

func (c *connection) Close() error {
	c.session.close()
	return nil
}

// prepare looks at the tables. One writer at a time: the first one may have to
// make them.
func (w *writer) prepare(ctx context.Context, s *session) error {
	if err := w.creating.take(ctx); err != nil {
		return err
	}
	defer w.creating.giveBack()
	if err := w.preparePruning(ctx, s); err != nil {
		return err
	}
	if _, err := s.open(ctx, w.cfg, w.cfg.Table, w.tellProblem); err != nil {
		return err
	}
	return w.findLog(ctx, s)
}

// written counts a batch that another process, or this one before a crash, has
// committed.
func (w *writer) written(b *spool.Batch) {
	switch {
	case b.Seq <= w.counted:
	case b.Contended:
		w.stats.elsewhere.Add(uint64(b.Records))
	default:
		w.stats.written.Add(uint64(b.Records))
	}
	w.done(b)
}

// done lets go of a batch that is committed.
func (w *writer) done(b *spool.Batch) {
	if l := w.line(b.Timeline); l != nil {
		if b.Contended && b.Seq <= l.at+1 {
			// What lies before the position of the database was written by somebody
			// else, and purged.
			b.Missed = 0
		}
		l.at = max(l.at, b.Seq)
	}
	w.counted = max(w.counted, b.Seq)
	b.Done()
}

// book counts a transaction that is committed, and lets go of its batches.
func (w *writer) book(o outcome) {
	w.history.add(o.seq, o.records)
	w.wrote += o.rows + o.logs
	w.stats.rows.Add(uint64(o.rows))
	w.stats.transactions.Add(1)
	w.stats.rejected.Add(uint64(o.rejected))
	w.stats.skipped.Add(uint64(o.skipped))
	w.stats.logs.Add(uint64(o.logs))
	w.stats.noLogs.Add(uint64(o.noLogs))
	w.stats.written.Add(uint64(o.records - o.rejected))
	n := 0
	for n < len(w.batches) && w.batches[n].Seq <= o.seq {
		w.done(w.batches[n])
		n++
	}
	w.batches = slices.Delete(w.batches, 0, n)
	w.counted = max(w.counted, o.seq)
	w.moved(o)
}

// moved notes the positions of a transaction that is committed.
func (w *writer) moved(o outcome) {
	for _, m := range o.moves {
		m.line.at = m.to
	}
	clear(w.rejected)
	w.unanswered = slices.DeleteFunc(w.unanswered, func(u outcome) bool { return u.seq <= w.counted })
}

// errNoTimeline says that a batch is of a timeline that the shard did not have when
// the session began: the next one looks again.
var errNoTimeline = errors.New("a timeline of the spool that is not known yet")

// hold takes a batch, unless its rows are in the database already.
func (w *writer) hold(b *spool.Batch) error {
	l := w.line(b.Timeline)
	switch {
	case l == nil && !w.cfg.RowsOnly:
		return fmt.Errorf("batch %d of %s: %w", b.Seq, b.Timeline, errNoTimeline)
	case w.tracked && b.Seq <= l.at:
		w.written(b)
	default:
		w.batches = append(w.batches, b)
	}
	return nil
}

// flush writes the batches and their position in one transaction.
func (w *writer) flush(ctx context.Context, s *session) error {
	if len(w.batches) == 0 {
		return nil
	}
	o, err := w.write(ctx, s, w.batches)
	if err != nil {
		return err
	}
	w.book(o)
	return nil
}

// write writes the first of some batches, as many as can go together, and their
// position in one transaction.
func (w *writer) write(ctx context.Context, s *session, batches []*spool.Batch) (o outcome, err error) {
	if w.suspects.onTrial(batches[0]) {
		if err := w.try(ctx, s, batches[0]); err != nil {
			return o, err
		}
		batches = batches[:1]
	}
	if err := w.encode(ctx, s, batches); err != nil {
		return o, err
	}
	if o, err = w.transact(ctx, s, w.movesOf(batches), batches[len(batches)-1].Seq); err != nil {
		if w.undoes() && !errors.Is(err, errMoved) {
			w.suspects.failed(batches[0], err)
		}
		return o, err
	}
	w.suspects.clear()
	for _, t := range w.tables {
		w.stats.count(&t.encoder.Counts)
	}
	return o, nil
}

// tableOf is where the rows of rec go: the table that rules named where it can
// be filled, else the configured one.
func (w *writer) tableOf(ctx context.Context, s *session, rec *siptrace.Record) (*table, error) {
	if rec.Table == "" || rec.Table == w.cfg.Table {
		return s.open(ctx, w.cfg, w.cfg.Table, w.tellProblem)
	}
	if !w.fallback.has(rec.Table) {
		t, err := s.open(ctx, w.cfg, rec.Table, w.tellProblem)
		if !isUnusable(err) {
			return t, err
		}
		w.fallBack(rec.Table, err)
	}
	w.stats.fallback.Add(1)
	return s.open(ctx, w.cfg, w.cfg.Table, w.tellProblem)
}

// tellProblem logs what is wrong with a table, once.
func (w *writer) tellProblem(table string, p dbschema.Problem) {
	if p.Severity != dbschema.Note && w.said.first(w.cfg, table, p.Place, p.Text) {
		w.log.Warn("database: table", "place", p.Place, "problem", p.Text, "fix", strings.Join(p.Fix, "; "))
	}
}

// fallBack has the rows for a table go into the configured one for a while.
func (w *writer) fallBack(name string, err error) {
	if w.fallback.add(name) {
		w.log.Warn("database: a table that a rule named can't be filled, its rows go into the configured one", "table", name, "err", err)
	}
}
