package store

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	// standbyBackoff is how often a writer looks whether the one ahead of it is
	// still there.
	standbyBackoff = time.Second
)

// writer carries one shard of the spool into the database. One goroutine owns
// it.
type writer struct {
	cfg     *Config
	log     *slog.Logger
	reader  *spool.Reader
	decoder spool.Decoder
	rejects *rejects.File
	stats   *stats
	bad     *unusable // shared by the writers

	held    []*spool.Batch // read and not yet committed
	host    int            // of the db_url, the one used last
	at      uint64         // position in the database
	tracked bool
	said    string // the failure that was logged last

	making *sync.Mutex     // shared by the writers
	turn   *sync.Mutex     // shared too: held during a transaction of SQLite
	drain  <-chan struct{} // closed when the store drains
	warned bool            // that the position can't be kept

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

// run writes until ctx ends, or until there is nothing left to write once the
// store drains.
func (w *writer) run(ctx context.Context) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		progress, err := w.connected(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			return
		}
		if progress {
			backoff = firstBackoff
		}
		if errors.Is(err, errMoved) {
			// Another writer of the same spool is ahead: it stays so until it ends.
			backoff = min(backoff, standbyBackoff)
		} else if text := err.Error(); text != w.said {
			w.log.Error("database: rows wait in the spool, trying again", "err", err)
			w.said = text
		}
		w.stats.retries.Add(1)
		// Jitter keeps the writers from knocking at the same moment.
		pause := backoff/2 + rand.N(backoff)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// connected opens a session and writes until it fails. A nil error means that
// all is written and the store drains.
func (w *writer) connected(ctx context.Context) (progress bool, err error) {
	s, host, err := dial(ctx, w.cfg.URL, w.host)
	if err != nil {
		return false, err
	}
	defer s.close()
	defer func() {
		w.host = host
		if err != nil && !progress {
			w.host++ // it answers, and does not take anything: the next one, if there is one
		}
	}()
	if err := w.prepare(ctx, s); err != nil {
		return false, err
	}
	if w.said != "" {
		w.log.Info("database: connected again", "pending", w.reader.Pending())
		w.said = ""
	}
	for {
		ok, err := w.fill(ctx)
		if err != nil || !ok {
			return progress, err
		}
		if err := w.flush(ctx, s); err != nil {
			return progress, err
		}
		progress = true
	}
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

// locate finds out which of the held batches are in the database already.
func (w *writer) locate(ctx context.Context, s *session) error {
	at, tracked, err := s.position(ctx, w.reader.ID())
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
	}
	w.flight = nil
	n := 0
	for tracked && n < len(w.held) && w.held[n].Seq <= at {
		w.written(w.held[n])
		n++
	}
	w.held = slices.Delete(w.held, 0, n)
	return nil
}

// written books a batch that another process, or this one before a crash, has
// committed.
func (w *writer) written(b *spool.Batch) {
	if w.reader.Shared() {
		w.stats.elsewhere.Add(uint64(b.Records))
	} else {
		w.stats.written.Add(uint64(b.Records))
	}
	w.miss(b)
	w.reader.Done(b)
	b.Release()
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
		w.miss(w.held[n])
		w.at = w.held[n].Seq
		w.reader.Done(w.held[n])
		w.held[n].Release()
		n++
	}
	w.held = slices.Delete(w.held, 0, n)
	clear(w.rejected)
	w.flight = nil
}

// miss books what the spool gave up before a batch.
func (w *writer) miss(b *spool.Batch) {
	// In a cluster, what lies before the position of the database was written by
	// somebody else, and purged.
	if b.Missed > 0 && (!w.reader.Shared() || b.Seq > w.at+1) {
		w.stats.missed.Add(b.Missed)
		w.log.Error("spool: messages are gone before they were written: the spool reached its bounds, or its files are damaged", "messages_lost", b.Missed)
	}
}

// fill reads batches until they make a transaction. ok is false when there is
// nothing left and the store drains.
func (w *writer) fill(ctx context.Context) (ok bool, err error) {
	for len(w.held) == 0 {
		b, err := w.next(ctx)
		if b == nil {
			return false, err
		}
		w.hold(b)
	}
	age := time.NewTimer(w.cfg.BatchAge)
	defer age.Stop()
	for !w.full() {
		select {
		case b := <-w.reader.Batches():
			w.hold(b)
			continue
		default:
		}
		select {
		case b := <-w.reader.Batches():
			w.hold(b)
		case <-age.C:
			return true, nil
		case <-w.drain:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return true, nil
}

// full reports whether the held batches make a transaction.
func (w *writer) full() bool {
	records, bytes := 0, 0
	for _, b := range w.held {
		records, bytes = records+b.Records, bytes+b.Size()
	}
	return records >= w.cfg.BatchRows || bytes >= w.cfg.BatchBytes
}

// drainPoll is how often a draining writer looks whether it is done.
const drainPoll = 20 * time.Millisecond

// next waits for a batch; nil means that there is none and the store drains.
func (w *writer) next(ctx context.Context) (*spool.Batch, error) {
	select {
	case b := <-w.reader.Batches():
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-w.drain:
	}
	for w.reader.Pending() > 0 && !w.reader.Shared() { // the others go on with the rest
		select {
		case b := <-w.reader.Batches():
			return b, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(drainPoll):
		}
	}
	return nil, nil
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
		if err := s.advance(ctx, w.reader.ID(), w.at, seq); err != nil {
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
