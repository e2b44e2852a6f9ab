package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"siptraced/dbschema"
)

// A SQLite file can be bounded: the oldest rows go, a few at a time, between the
// transactions of who writes, so that nobody waits for more than one such chunk.
// Their pages are used again: a file that is at its bound stays as large as it is.
// What is more than the bound, because that was lowered, goes back to the disk.
//
// By size the rows go in the order in which they came, whatever their time_stamp
// says. By age they go by time_stamp, as who reads the table sees it; but a capture
// that is replayed, and a sender whose clock is behind, bring rows that are too old
// already: these stay as long as others do from their arrival on.

const (
	// pruneTime is how long one turn may remove rows, once as many are gone twice
	// over as came since the last one.
	pruneTime = 100 * time.Millisecond
	// A chunk has leastChunk to mostChunk rows.
	leastChunk, mostChunk = 256, 4000
	// pagesBack is how many pages go back to the disk at a time.
	pagesBack = 512
	// pruneReserve keeps the file under its bound while a transaction is written, in
	// parts of the bound.
	pruneReserve     = 8
	mostPruneReserve = 32 << 20
	// pruneAgain is the pause after a failure, and how often one is logged.
	pruneAgain = 10 * time.Second
	// pruneTold is how often the log says how many rows went.
	pruneTold = time.Hour
	// idleFlush is how often a writer without work looks at the bounds, and whether
	// its configuration changed.
	idleFlush = time.Second
)

// pruning is what the writers know together about removing rows; shared.sqlite covers it,
// but for what is atomic.
type pruning struct {
	aged   time.Time // when rows are looked at for their age
	after  time.Time // nothing is removed before: it failed
	failed time.Time // when that was logged
	told   time.Time // when the log said what went
	rows   uint64    // that went since

	size atomic.Uint64 // of the file in bytes, as of the last look
}

// pruneCounts are what it counts.
type pruneCounts struct {
	byAge, bySize *atomic.Uint64 // rows
}

// aging is how a table loses rows.
type aging struct {
	name string
	dbschema.PruneStatements
	time func(time.Time) any
}

// bounded reports whether a session's database has bounds that siptraced holds.
func (w *writer) bounded(s *session) bool {
	return s.dialect == dbschema.SQLite && (w.cfg.KeepBytes > 0 || w.cfg.Keep > 0)
}

// gatherBytes is when a transaction closes: a small file gets small ones.
func (c *Config) gatherBytes() int {
	if c.KeepBytes > 0 {
		return int(min(int64(c.BatchBytes), c.KeepBytes/16))
	}
	return c.BatchBytes
}

// preparePruning makes what a bounded database needs. A new file can give pages back
// to the disk; that can't be had later without writing all of it anew.
func (w *writer) preparePruning(ctx context.Context, s *session) error {
	if !w.bounded(s) {
		return nil
	}
	if w.cfg.KeepBytes > 0 {
		w.stats.counters.Gauge("store.file_bytes", w.pruning.size.Load)
	}
	var tables int
	if err := s.conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master").Scan(&tables); err != nil {
		return err
	}
	texts := []string{"PRAGMA journal_size_limit = 16777216", dbschema.Late().Create}
	if tables == 0 {
		texts = append([]string{"PRAGMA auto_vacuum = INCREMENTAL", "VACUUM"}, texts...)
	}
	for _, text := range texts {
		if _, err := s.exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// prune removes what is beyond the bounds, for a while. That it can't is no reason
// not to write.
func (w *writer) prune(ctx context.Context, s *session) {
	if !w.bounded(s) || ctx.Err() != nil {
		return
	}
	now := time.Now()
	if w.sqlite.take(ctx) != nil {
		return
	}
	wait, aged := now.Before(w.pruning.after), now.After(w.pruning.aged)
	w.sqlite.giveBack()
	if wait {
		return
	}
	turn := pruneTurn{writer: w, session: s, until: now.Add(pruneTime), least: 2 * w.wrote, tables: w.agings(s)}
	w.wrote = 0
	var err error
	if t := s.tables[w.cfg.Table]; t != nil && t.plan.Prune().Oldest == "" {
		err = errNotPruned
	}
	if err == nil && w.cfg.KeepBytes > 0 {
		err = turn.bySize(ctx)
	}
	if err == nil && w.cfg.Keep > 0 && aged {
		err = turn.byAge(ctx, now)
	}
	if ctx.Err() == nil {
		w.tellPruned(ctx, err)
	}
}

// errNotPruned says that the bounds are in vain.
var errNotPruned = errors.New("the table is a view, or has no column of times: take the keys out, and remove rows by other means")

// tellPruned logs how many rows went, and what keeps them.
func (w *writer) tellPruned(ctx context.Context, err error) {
	if w.sqlite.take(ctx) != nil {
		return
	}
	defer w.sqlite.giveBack()
	p, now := &w.pruning, time.Now()
	if err != nil {
		p.after = now.Add(pruneAgain)
		if now.Sub(p.failed) >= time.Minute {
			p.failed = now
			w.log.Warn("database: rows beyond its bounds can't be removed, trying again (keys store.keep_bytes, store.keep)", "err", err)
		}
	}
	if p.rows > 0 && now.Sub(p.told) >= pruneTold {
		w.log.Info("database: the oldest rows were removed (keys store.keep_bytes, store.keep)", "rows", p.rows)
		p.told, p.rows = now, 0
	}
}

// pruneTurn is one time that a writer removes rows.
type pruneTurn struct {
	*writer
	session *session
	tables  []aging
	until   time.Time
	least   int // rows to remove, however long that takes
	removed int
}

// over reports whether others have their turn.
func (t *pruneTurn) over() bool { return t.removed >= t.least && time.Now().After(t.until) }

// chunk is how many rows go in one transaction.
func (t *pruneTurn) chunk() int { return min(max(leastChunk, t.least-t.removed), mostChunk) }

// alone runs f in a transaction.
func (t *pruneTurn) alone(ctx context.Context, f func() error) error {
	end, err := t.begin(ctx, t.session)
	if err != nil {
		return err
	}
	if err = f(); err == nil {
		_, err = t.session.exec(ctx, "COMMIT")
	}
	end(err == nil)
	return err
}

// remove runs a statement that removes rows, and counts them.
func (t *pruneTurn) remove(ctx context.Context, count *atomic.Uint64, text string, args ...any) (rows int, err error) {
	err = t.alone(ctx, func() error {
		res, err := t.session.exec(ctx, text, args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		rows = int(n)
		t.pruning.rows += uint64(n)
		return err
	})
	if err != nil {
		return 0, err
	}
	t.removed += rows
	count.Add(uint64(rows))
	return rows, nil
}

// fileSize is the size of the file, and how much of it is in use, in bytes.
func (s *session) fileSize(ctx context.Context) (size, used int64, err error) {
	var pages, free, page int64
	err = s.conn.QueryRowContext(ctx, "SELECT p.page_count, f.freelist_count, s.page_size FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s").Scan(&pages, &free, &page)
	return pages * page, (pages - free) * page, err
}

// bySize removes the rows that came first until the file has room for more.
func (t *pruneTurn) bySize(ctx context.Context) error {
	bound := t.cfg.KeepBytes
	target := bound - min(bound/pruneReserve, mostPruneReserve)
	for {
		size, used, err := t.session.fileSize(ctx)
		if err != nil {
			return err
		}
		t.pruning.size.Store(uint64(size))
		if used <= target || t.over() {
			return t.giveBack(ctx, size, used)
		}
		n, err := t.removeOldest(ctx, t.tables)
		if err != nil || n == 0 {
			return err
		}
	}
}

// removeOldest removes the rows that came first: those of the table whose first row
// is the oldest, and of the others what is older than these.
func (t *pruneTurn) removeOldest(ctx context.Context, tables []aging) (rows int, err error) {
	oldest, head := -1, int64(math.MaxInt64)
	for i, a := range tables {
		at, ok, err := t.firstTime(ctx, a, 0)
		if err != nil {
			return 0, err
		}
		if ok && at < head {
			oldest, head = i, at
		}
	}
	if oldest < 0 {
		return 0, nil
	}
	chunk := t.chunk()
	before, more, err := t.firstTime(ctx, tables[oldest], chunk)
	if err != nil {
		return 0, err
	}
	for i, a := range tables {
		limit := before - 1
		if i == oldest {
			limit = math.MaxInt64
		} else if !more {
			continue
		}
		n, err := t.remove(ctx, t.stats.pruned.bySize, a.Oldest, chunk, limit)
		if err != nil {
			return rows, err
		}
		rows += n
	}
	if rows == 0 {
		// Nothing but its newest row is left.
		return t.removeOldest(ctx, slices.Delete(slices.Clone(tables), oldest, oldest+1))
	}
	return rows, nil
}

// firstTime is the time of a table's n-th row in the order in which they came, from
// 0 on; ok is false if there is none.
func (t *pruneTurn) firstTime(ctx context.Context, a aging, n int) (at int64, ok bool, err error) {
	err = t.session.conn.QueryRowContext(ctx, a.First, n).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return at, err == nil, err
}

// giveBack gives what is over the bound back to the disk.
func (t *pruneTurn) giveBack(ctx context.Context, size, used int64) error {
	var back int64
	for size > t.cfg.KeepBytes && used < size && !time.Now().After(t.until) {
		was := size
		err := t.alone(ctx, func() error { return t.session.pragma(ctx, fmt.Sprintf("incremental_vacuum(%d)", pagesBack)) })
		if err != nil {
			return err
		}
		if size, used, err = t.session.fileSize(ctx); err != nil {
			return err
		}
		t.pruning.size.Store(uint64(size))
		if size >= was {
			break // an older file, which can't
		}
		back += was - size
	}
	if back == 0 {
		return nil
	}
	// Up to here it is the write-ahead log that says so.
	if err := t.sqlite.take(ctx); err != nil {
		return err
	}
	defer t.sqlite.giveBack()
	return t.session.pragma(ctx, "wal_checkpoint(TRUNCATE)")
}

// pragma runs one that answers with rows, and takes a step for each of them.
func (s *session) pragma(ctx context.Context, text string) error {
	rows, err := s.conn.QueryContext(ctx, "PRAGMA "+text)
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	return errors.Join(rows.Err(), rows.Close())
}

// byAge removes the rows that are too old.
func (t *pruneTurn) byAge(ctx context.Context, now time.Time) error {
	keep := t.cfg.Keep
	for _, a := range t.tables {
		for !t.over() {
			chunk := t.chunk()
			n, err := t.remove(ctx, t.stats.pruned.byAge, a.Aged, a.time(now.Add(-keep)), a.name, now.Unix(), chunk)
			if err != nil {
				return err
			}
			if n < chunk {
				break
			}
		}
	}
	if t.over() {
		return nil // the rest has the next turn
	}
	return t.alone(ctx, func() error {
		t.pruning.aged = now.Add(min(max(keep/32, time.Second), time.Minute))
		_, err := t.session.exec(ctx, dbschema.Late().Expire, now.Unix())
		return err
	})
}

// agings are the tables that rows go out of: those that this session knows, and
// that of log lines.
func (w *writer) agings(s *session) (out []aging) {
	for _, name := range slices.Sorted(maps.Keys(s.tables)) {
		t := s.tables[name]
		if p := t.plan.Prune(); p.Oldest != "" {
			out = append(out, aging{name, p, t.encoder.Time})
		}
	}
	if w.logs {
		out = append(out, aging{dbschema.LogTable, dbschema.LogPrune(), func(at time.Time) any { return at.In(w.cfg.Location).Format(time.DateTime) }})
	}
	return out
}

// arrivals are the rows of a table in the transaction in hand.
type arrivals struct {
	came   int
	oldest time.Time // zero: there is none
}

// add takes n more rows of a time.
func (a *arrivals) add(at time.Time, n int) {
	a.came += n
	if a.oldest.IsZero() || at.Before(a.oldest) {
		a.oldest = at
	}
}

// noteLate has the rows of the transaction in hand that are old already stay as long
// as others do.
func (w *writer) noteLate(ctx context.Context, s *session) error {
	if !w.bounded(s) || w.cfg.Keep == 0 {
		return nil
	}
	for _, t := range w.tables {
		if p := t.plan.Prune(); p.Last != "" {
			if err := w.noteLateIn(ctx, s, t.name, p.Last, t.arrivals); err != nil {
				return err
			}
		}
	}
	return w.noteLateIn(ctx, s, dbschema.LogTable, dbschema.LogPrune().Last, w.logArrivals)
}

func (w *writer) noteLateIn(ctx context.Context, s *session, table, lastText string, a arrivals) error {
	now, slack := time.Now(), w.cfg.Keep/16
	if a.came == 0 || now.Sub(a.oldest) <= slack {
		return nil
	}
	var last int64
	if err := s.conn.QueryRowContext(ctx, lastText).Scan(&last); err != nil {
		return err
	}
	until := now.Add(w.cfg.Keep)
	// Runs that end at nearly the same time are one, so that there are few.
	res, err := s.exec(ctx, dbschema.Late().Extend, last, until.Unix(), table, until.Add(-slack).Unix())
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	_, err = s.exec(ctx, dbschema.Late().Insert, table, max(1, last-int64(a.came)+1), last, until.Unix())
	return err
}
