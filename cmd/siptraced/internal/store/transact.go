package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

// spooled is one record of the transaction in hand.
type spooled struct {
	timeline string
	batch    uint64
	index    int // in the batch
	raw      []byte
}

// refusal is one row that the database does not take.
type refusal struct {
	row
	table  string
	reason error
}

// span is a run of the records of a batch.
type span struct{ lo, hi int }

// encode makes rows of batches.
func (w *writer) encode(ctx context.Context, s *session, batches []*spool.Batch) error {
	w.startRows(s)
	for _, b := range batches {
		if err := w.encodeSpan(ctx, s, b, span{0, b.Records}); err != nil {
			return err
		}
	}
	return nil
}

// startRows begins a transaction's rows.
func (w *writer) startRows(s *session) {
	w.records, w.tables, w.logLines, w.guilty, w.skipped, w.noLogs = w.records[:0], w.tables[:0], w.logLines[:0], w.guilty[:0], 0, 0
	w.logArrivals = arrivals{}
	for _, t := range s.tables {
		t.reset()
	}
}

// encodeSpan adds the rows of some records of a batch.
func (w *writer) encodeSpan(ctx context.Context, s *session, b *spool.Batch, part span) error {
	index := -1
	return w.decoder.Each(b, func(rec *siptrace.Record, raw []byte) error {
		index++
		if index < part.lo || index >= part.hi {
			return nil
		}
		isLog := rec.Type == siptrace.TypeLog
		if isLog && !w.logs {
			w.noLogs++
		}
		if rec.Sinks&siptrace.ToStore == 0 || isLog && !w.logs {
			w.skipped++
			return nil
		}
		number := len(w.records)
		w.records = append(w.records, spooled{b.Timeline, b.Seq, index, raw})
		if reason, found := w.suspects.reason(b.Seq, index); found {
			w.guilty = append(w.guilty, refusal{row{record: number}, w.tableName(rec), reason})
			return nil
		}
		if isLog {
			w.addLog(s, rec, number)
			return nil
		}
		t, err := w.tableOf(ctx, s, rec)
		if err != nil {
			return err
		}
		if len(t.rows) == 0 {
			w.tables = append(w.tables, t)
		}
		t.add(rec, number)
		return nil
	})
}

// tableName is where a record belongs, for who reads the reject file.
func (w *writer) tableName(rec *siptrace.Record) string {
	switch {
	case rec.Type == siptrace.TypeLog:
		return dbschema.LogTable
	case rec.Table != "":
		return rec.Table
	}
	return w.cfg.Table
}

// transact writes all rows in hand, of batches up to seq, and moves positions. When the
// database refuses rows, they are found and written to the reject file before
// the rest is committed.
func (w *writer) transact(ctx context.Context, s *session, moves []move, seq uint64) (o outcome, err error) {
	o = outcome{seq: seq, moves: moves, records: len(w.records), skipped: w.skipped, noLogs: w.noLogs}
	end, err := w.begin(ctx, s)
	if err != nil {
		return o, err
	}
	defer func() { end(o.committing) }()
	refusals := w.guilty
	for _, t := range w.tables {
		rs, err := w.insertAll(ctx, s, t)
		if err == nil && len(rs) > 0 {
			err = w.confirm(ctx, s, t, rs)
		}
		if err != nil {
			if t.name != w.cfg.Table && isUnusable(err) {
				w.fallBack(t.name, err) // when the same rows are tried again
			}
			return o, err
		}
		refusals = append(refusals, rs...)
		o.rows += len(t.rows) - len(rs)
	}
	rs, err := w.insertLogs(ctx, s)
	if err != nil {
		return o, err
	}
	refusals = append(refusals, rs...)
	o.logs = len(w.logLines) - len(rs)
	if err := w.noteLate(ctx, s); err != nil {
		return o, err
	}
	if o.rejected, err = w.reject(refusals); err != nil {
		return o, err
	}
	for _, m := range moves {
		if !w.tracked {
			break
		}
		if err := s.advance(ctx, m); err != nil {
			return o, err
		}
	}
	o.committing = true
	if _, err = s.exec(ctx, "COMMIT"); err != nil {
		w.inDoubt(o)
	}
	return o, err
}

// mostUnanswered bounds the transactions that nobody knows the end of.
const mostUnanswered = 64

// inDoubt notes a transaction whose COMMIT was not answered.
func (w *writer) inDoubt(o outcome) {
	if !w.tracked || o.seq == 0 {
		return
	}
	if len(w.unanswered) == mostUnanswered {
		w.unanswered = w.unanswered[1:]
	}
	w.unanswered = append(w.unanswered, o)
}

// begin opens a transaction; end, which is called once, closes it.
func (w *writer) begin(ctx context.Context, s *session) (end func(committing bool), err error) {
	if s.dialect == dbschema.SQLite {
		// One writer at a time there; taking turns costs less than SQLite's polling
		// for its lock.
		if err := w.sqlite.take(ctx); err != nil {
			return nil, err
		}
	}
	end = func(committing bool) {
		if !committing {
			_, _ = s.exec(context.WithoutCancel(ctx), "ROLLBACK") // when that fails the session ends anyway
		}
		if s.dialect == dbschema.SQLite {
			w.sqlite.giveBack()
		}
	}
	if err := s.begin(ctx); err != nil {
		end(true)
		return nil, err
	}
	return end, nil
}

// insertAll writes the rows of one table; those that the database refuses are
// found by halving the statements that hold them.
func (w *writer) insertAll(ctx context.Context, s *session, t *table) (refusals []refusal, err error) {
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
			if about := judge(err); about != ofRow && about != ofPartition {
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
	err = try(0, len(t.rows))
	return refusals, err
}

// reject writes refused rows to the reject file and returns how many records they
// are of.
func (w *writer) reject(refusals []refusal) (records int, err error) {
	var lines []rejects.Line
	var keys []rejectKey
	of := map[int]struct{}{}
	for _, r := range refusals {
		of[r.record] = struct{}{}
		rec := w.records[r.record]
		key := rejectKey{rec.batch, rec.index, r.table, string(r.user)}
		if _, done := w.rejected[key]; done {
			continue
		}
		line := rejects.Line{
			ID:   fmt.Sprintf("%s/%d/%d", rec.timeline, rec.batch, rec.index),
			Time: time.Now(), Reason: r.reason.Error(), Table: r.table, User: string(r.user), Packet: rec.raw,
		}
		err := w.decoder.Each(spool.Single(rec.raw), func(rec *siptrace.Record, _ []byte) error {
			line.CallID, line.Method = string(rec.CallID), string(rec.Method)
			return nil
		})
		if err != nil {
			return 0, err
		}
		lines, keys = append(lines, line), append(keys, key)
	}
	if len(lines) == 0 {
		return len(of), nil
	}
	if err := w.rejects.Add(lines...); err != nil {
		return 0, err
	}
	for _, key := range keys {
		w.rejected[key] = struct{}{}
	}
	if rows, due := w.refused.add(len(lines), time.Now()); due {
		first := lines[0]
		w.log.Error("database: rows rejected, they are in the reject file", "rows", rows, "table", first.Table, "callid", first.CallID, "reason", first.Reason, "file", w.rejects.Path())
	}
	return len(of), nil
}

// refused counts the rows that were rejected since the log said so last, over all
// writers.
type refused struct {
	mu   sync.Mutex // covers what follows
	said time.Time
	rows int
}

// refusedInterval is how often the log says that rows were rejected.
const refusedInterval = time.Minute

// add counts rows, and reports whether to say so now, and of how many.
func (r *refused) add(rows int, now time.Time) (total int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows += rows
	if now.Sub(r.said) < refusedInterval {
		return 0, false
	}
	total, r.rows, r.said = r.rows, 0, now
	return total, true
}
