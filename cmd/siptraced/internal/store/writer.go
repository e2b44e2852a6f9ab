package store

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

// writer carries one shard of the spool into the database, over one connection
// at a time. One goroutine owns it.
type writer struct {
	cfg     *Config
	log     *slog.Logger
	shard   spool.Shard
	decoder spool.Decoder
	rejects *rejects.File
	stats   *stats
	bad     *unusable // shared by the writers

	held    []*spool.Batch // written, and not yet committed
	host    int            // of the db_url, the one used last
	at      uint64         // position in the database
	tracked bool
	counted uint64 // up to here committed batches are counted

	making *sync.Mutex // shared by the writers
	turn   *sync.Mutex // shared too: held during a transaction of SQLite
	warned bool        // that the position can't be kept

	records []spooled // of the transaction in hand
	logState
	skipped int      // in its batches: records for other sinks
	tables  []*table // with rows in hand
	flight  *outcome // of the transaction whose COMMIT is not answered yet
	// rejected are the rows of the held batches that are in the reject file
	// already.
	rejected map[rejectKey]struct{}
}

// spooled is one record of the transaction in hand.
type spooled struct {
	batch uint64
	index int // in the batch
	raw   []byte
}

type rejectKey struct {
	batch       uint64
	index       int
	table, user string
}

// outcome is what a transaction means for the books.
type outcome struct {
	seq                           uint64 // of its last batch
	records, rows, aside, skipped int
	logs, noLogs                  int
}

// open connects to the first host that takes what it is given.
func (w *writer) open(ctx context.Context, shard spool.Shard) (spool.Writer, error) {
	w.shard = shard
	s, host, err := dial(ctx, w.cfg.URL, w.host)
	if err != nil {
		return nil, err
	}
	w.host = host
	w.held = w.held[:0] // the batches come again
	if err := w.prepare(ctx, s); err != nil {
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
// database already.
func (c *connection) Write(_ context.Context, b *spool.Batch) error {
	c.writer.hold(b)
	return nil
}

// Flush writes what was taken.
func (c *connection) Flush(ctx context.Context) error {
	for w := c.writer; len(w.held) > 0; c.progress = true {
		err := w.flush(ctx, c.session)
		if err != nil && !c.progress {
			w.host++
		}
		if errors.Is(err, errMoved) {
			// Another writer of the same spool is ahead: it stays so until it ends.
			return errors.Join(spool.ErrStandby, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *connection) Close() error {
	c.session.close()
	return nil
}

// prepare looks at the tables. One writer at a time: the first one may have to
// make them.
func (w *writer) prepare(ctx context.Context, s *session) error {
	w.making.Lock()
	defer w.making.Unlock()
	if _, err := s.open(ctx, w.cfg, w.cfg.Table, w.log); err != nil {
		return err
	}
	if err := w.findLog(ctx, s); err != nil {
		return err
	}
	return w.locate(ctx, s)
}

// locate finds out up to which batch the rows are in the database already.
func (w *writer) locate(ctx context.Context, s *session) error {
	at, tracked, err := s.position(ctx, w.shard.ID)
	if err != nil {
		return err
	}
	if !tracked && !w.warned {
		w.warned = true
		w.log.Warn("database: the position can't be kept, after a crash rows may be written twice; make the table with: siptraced schema create", "table", dbschema.PositionTable)
	}
	w.at, w.tracked = at, tracked
	if w.flight != nil && tracked && at == w.flight.seq {
		// The commit took place, its answer was lost.
		w.book(*w.flight)
		w.counted = at
	}
	w.flight = nil
	return nil
}

// written counts a batch that another process, or this one before a crash, has
// committed.
func (w *writer) written(b *spool.Batch) {
	switch {
	case b.Seq <= w.counted:
	case b.Shared:
		w.stats.elsewhere.Add(uint64(b.Records))
	default:
		w.stats.written.Add(uint64(b.Records))
	}
	w.done(b)
}

// done lets go of a batch that is committed.
func (w *writer) done(b *spool.Batch) {
	if b.Shared && b.Seq <= w.at+1 {
		// What lies before the position of the database was written by somebody
		// else, and purged.
		b.Missed = 0
	}
	w.at = max(w.at, b.Seq)
	b.Done()
}

// book puts a transaction that is committed into the books, and lets go of its
// batches.
func (w *writer) book(o outcome) {
	w.stats.rows.Add(uint64(o.rows))
	w.stats.transactions.Add(1)
	w.stats.aside.Add(uint64(o.aside))
	w.stats.skipped.Add(uint64(o.skipped))
	w.stats.logs.Add(uint64(o.logs))
	w.stats.noLogs.Add(uint64(o.noLogs))
	w.stats.written.Add(uint64(o.records - o.aside))
	n := 0
	for n < len(w.held) && w.held[n].Seq <= o.seq {
		w.done(w.held[n])
		n++
	}
	w.held = slices.Delete(w.held, 0, n)
	clear(w.rejected)
	w.flight = nil
}

// hold takes a batch, unless its rows are in the database already.
func (w *writer) hold(b *spool.Batch) {
	if w.tracked && b.Seq <= w.at {
		w.written(b)
		return
	}
	w.held = append(w.held, b)
}

// flush writes the held batches and their position in one transaction.
func (w *writer) flush(ctx context.Context, s *session) error {
	if len(w.held) == 0 {
		return nil
	}
	if err := w.encode(ctx, s); err != nil {
		return err
	}
	o, err := w.transact(ctx, s, w.held[len(w.held)-1].Seq)
	if err != nil {
		return err
	}
	w.book(o)
	for _, t := range w.tables {
		w.stats.count(&t.encoder.Counts)
	}
	return nil
}

// encode makes rows of the held batches.
func (w *writer) encode(ctx context.Context, s *session) error {
	w.records, w.tables, w.logLines, w.skipped, w.noLogs = w.records[:0], w.tables[:0], w.logLines[:0], 0, 0
	for _, t := range s.tables {
		t.reset()
	}
	for _, b := range w.held {
		index := 0
		err := w.decoder.Each(b, func(rec *siptrace.Record, raw []byte) error {
			isLog := rec.Type == siptrace.TypeLog
			if isLog && !w.logs {
				w.noLogs++
			}
			if rec.Sinks&siptrace.ToStore == 0 || isLog && !w.logs {
				w.skipped++
				index++
				return nil
			}
			if isLog {
				w.addLog(s, rec, len(w.records))
				w.records = append(w.records, spooled{b.Seq, index, raw})
				index++
				return nil
			}
			t, err := w.tableOf(ctx, s, rec)
			if err != nil {
				return err
			}
			if len(t.rows) == 0 {
				w.tables = append(w.tables, t)
			}
			t.add(rec, len(w.records))
			w.records = append(w.records, spooled{b.Seq, index, raw})
			index++
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tableOf is where the rows of rec go: the table that rules named where it can
// be filled, else the configured one.
func (w *writer) tableOf(ctx context.Context, s *session, rec *siptrace.Record) (*table, error) {
	if rec.Table == "" || rec.Table == w.cfg.Table {
		return s.open(ctx, w.cfg, w.cfg.Table, w.log)
	}
	if !w.bad.has(rec.Table) {
		t, err := s.open(ctx, w.cfg, rec.Table, w.log)
		if !isUnusable(err) {
			return t, err
		}
		w.fallBack(rec.Table, err)
	}
	w.stats.fallback.Add(1)
	return s.open(ctx, w.cfg, w.cfg.Table, w.log)
}

// fallBack has the rows for a table go into the configured one for a while.
func (w *writer) fallBack(name string, err error) {
	if w.bad.add(name) {
		w.log.Warn("database: a table that a rule named can't be filled, its rows go into the configured one", "table", name, "err", err)
	}
}

// refusal is one row that the database does not take.
type refusal struct {
	row
	table  string
	reason error
}

// transact writes all rows in hand and moves the position to seq. When the
// database refuses rows, they are found and written to the reject file before
// the rest is committed.
func (w *writer) transact(ctx context.Context, s *session, seq uint64) (o outcome, err error) {
	if s.dialect == dbschema.SQLite {
		// One writer at a time there; taking turns costs less than SQLite's polling
		// for its lock.
		w.turn.Lock()
		defer w.turn.Unlock()
	}
	if err := s.begin(ctx); err != nil {
		return o, err
	}
	o = outcome{seq: seq, records: len(w.records), skipped: w.skipped, noLogs: w.noLogs}
	var refusals []refusal
	committed := false
	defer func() {
		if !committed {
			// The session ends anyway; this frees the server's locks at once.
			_, _ = s.exec(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	doubtful := 0
	for _, t := range w.tables {
		rs, unsure, err := w.insertAll(ctx, s, t)
		if err != nil {
			if t.name != w.cfg.Table && isUnusable(err) {
				w.fallBack(t.name, err) // when the same rows are tried again
			}
			return o, err
		}
		refusals, doubtful = append(refusals, rs...), doubtful+unsure
		o.rows += len(t.rows) - len(rs)
	}
	rs, err := w.insertLogs(ctx, s)
	if err != nil {
		return o, err
	}
	refusals = append(refusals, rs...)
	o.logs = len(w.logLines) - len(rs)
	if doubtful > 0 && o.rows == 0 {
		// Nothing at all goes in: it is not the rows.
		return o, refusals[0].reason
	}
	aside := map[int]struct{}{}
	for _, r := range refusals {
		if err := w.setAside(r); err != nil {
			return o, err
		}
		aside[r.record] = struct{}{}
	}
	o.aside = len(aside)
	if w.tracked {
		if err := s.advance(ctx, w.shard.ID, w.at, seq); err != nil {
			return o, err
		}
	}
	committed, w.flight = true, &o
	_, err = s.exec(ctx, "COMMIT")
	return o, err
}

// insertAll writes the rows of one table; those that the database refuses are
// found by halving the statements that hold them.
func (w *writer) insertAll(ctx context.Context, s *session, t *table) (refusals []refusal, doubtful int, err error) {
	guard := s.dialect == dbschema.PostgreSQL
	var try func(lo, hi int) error
	try = func(lo, hi int) error {
		for lo < hi {
			if guard {
				// In PostgreSQL a failed statement ends the transaction.
				if _, err := s.exec(ctx, "SAVEPOINT rows_in_hand"); err != nil {
					return err
				}
			}
			done, size, err := s.insert(ctx, t, lo, hi)
			if err == nil {
				return nil
			}
			v := judge(err)
			if v == wait || t.name != w.cfg.Table && isUnusable(err) {
				return err
			}
			if guard {
				if _, err := s.exec(ctx, "ROLLBACK TO SAVEPOINT rows_in_hand"); err != nil {
					return err
				}
				// The statements before it are undone too: again, up to there.
				if done > lo {
					if _, _, err := s.insert(ctx, t, lo, done); err != nil {
						return err
					}
				}
			}
			if size == 1 {
				refusals = append(refusals, refusal{t.rows[done], t.name, err})
				if v == unknown {
					doubtful++
				}
				lo = done + 1
				continue
			}
			half := done + size/2
			if err := try(done, half); err != nil {
				return err
			}
			if err := try(half, done+size); err != nil {
				return err
			}
			lo = done + size
		}
		return nil
	}
	return refusals, doubtful, try(0, len(t.rows))
}

// setAside writes one refused row to the reject file.
func (w *writer) setAside(r refusal) error {
	rec := w.records[r.record]
	key := rejectKey{rec.batch, rec.index, r.table, string(r.user)}
	if _, done := w.rejected[key]; done {
		return nil
	}
	line := rejects.Line{Time: time.Now(), Reason: r.reason.Error(), Table: r.table, User: string(r.user), Packet: rec.raw}
	one := spool.Single(line.Packet)
	err := w.decoder.Each(one, func(rec *siptrace.Record, _ []byte) error {
		line.CallID, line.Method = string(rec.CallID), string(rec.Method)
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.rejects.Add(line); err != nil {
		return err
	}
	w.rejected[key] = struct{}{}
	w.log.Error("database: row refused and set aside", "table", r.table, "callid", line.CallID, "reason", line.Reason, "file", w.rejects.Path())
	return nil
}
