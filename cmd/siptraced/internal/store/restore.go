package store

import (
	"context"
	"slices"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/dbschema"
)

// history is what this process committed last, to say how much of it a database
// has lost. The zero value is ready.
type history struct{ commits []committed }

type committed struct {
	seq     uint64 // of the last batch
	records int
}

// mostHistory bounds it, in transactions.
const mostHistory = 4096

func (h *history) add(seq uint64, records int) {
	if len(h.commits) == mostHistory {
		h.commits = append(h.commits[:0], h.commits[mostHistory/2:]...)
	}
	h.commits = append(h.commits, committed{seq, records})
}

// since is how many records were committed after seq; ok is false when it does
// not reach so far back.
func (h *history) since(seq uint64) (records int, ok bool) {
	for i := len(h.commits) - 1; i >= 0; i-- {
		if h.commits[i].seq <= seq {
			return records, true
		}
		records += h.commits[i].records
	}
	return records, false
}

// locate finds out up to which batch the rows of each timeline are in the database
// already, and has the database begin from there: see doc.go.
func (w *writer) locate(ctx context.Context, s *session) (err error) {
	w.tracked = false
	var kept []noted
	if !w.shard.Contended && !w.cfg.RowsOnly {
		if kept, err = w.notes.timelines(ctx, w.shard.Index); err != nil {
			return err
		}
	}
	w.lines = linesOf(w.shard.Timelines(), kept)
	if n := len(w.lines); n > 0 {
		w.lines[n-1].own = !w.shard.Contended // each opening of the spool begins one
	}
	if w.cfg.RowsOnly {
		return nil
	}
	if w.tracked, err = w.findPositions(ctx, s); err != nil {
		return err
	}
	for _, l := range w.lines {
		if !w.tracked {
			break
		}
		if l.at, l.kept, err = s.position(ctx, l.row); err != nil {
			return err
		}
	}
	w.answered()
	if w.shard.Contended {
		err = w.claim(ctx, s, w.lines)
	} else {
		err = w.restore(ctx, s, kept)
	}
	if err == nil && !w.tracked && w.said.first(w.cfg, dbschema.PositionTable) {
		w.log.Warn("database: the position can't be kept, after a crash rows may be written twice; make the table with: siptraced schema create", "table", dbschema.PositionTable)
	}
	return err
}

// findPositions looks for the table of positions. One writer at a time: the first one
// may have to make it.
func (w *writer) findPositions(ctx context.Context, s *session) (tracked bool, err error) {
	if err := w.creating.take(ctx); err != nil {
		return false, err
	}
	defer w.creating.giveBack()
	return s.findPositions(ctx)
}

// claim makes the rows of those timelines that have none.
func (w *writer) claim(ctx context.Context, s *session, lines []*line) error {
	for _, l := range lines {
		if l.kept || !w.tracked {
			continue
		}
		at, made, tracked, err := s.claim(ctx, l.row, l.at)
		if err != nil {
			return err
		}
		if !made && tracked && at != l.at && !w.shard.Contended {
			return errMoved // somebody else did: to be looked at again
		}
		if w.tracked, l.at, l.kept = tracked, at, tracked; tracked {
			l.made = databaseID(w.cfg.URL)
		}
	}
	return nil
}

// restore brings a database to the shard's position. What it had committed and has
// lost is written again: because a standby took over that lacked it, or because a
// backup was restored. The spool may have trimmed some of it.
func (w *writer) restore(ctx context.Context, s *session, kept []noted) error {
	id, end := databaseID(w.cfg.URL), max(w.shard.Offset(), w.counted)
	if !w.tracked {
		// What goes into it meanwhile is not missing once it keeps positions.
		_, err := w.notes.enter(ctx, w.shard.Index, id+".untracked", end)
		return err
	}
	renamed, again := w.findCopies(end)
	if !again {
		if err := w.countOpening(ctx, s); err != nil || !w.tracked {
			return err
		}
	}
	until, err := w.notes.enter(ctx, w.shard.Index, id, end)
	if err != nil {
		return err
	}
	isNew, err := w.isNew(ctx, s, kept)
	if err != nil {
		return err
	}
	if isNew {
		until = 0
	}
	if renamed {
		err = w.remember(ctx, s, kept)
		if err == nil {
			err = w.notes.save(ctx)
		}
		if err != nil {
			return err
		}
	}
	err = w.rewrite(ctx, s, w.lost(until, end), until)
	if err == nil {
		err = w.moveTo(ctx, s, end)
	}
	if err != nil {
		return err
	}
	w.tellLoss()
	if err := w.claim(ctx, s, slices.DeleteFunc(slices.Clone(w.lines), func(l *line) bool { return l.last <= end })); err != nil {
		return err
	}
	w.notes.back(w.shard.Index, id)
	return w.remember(ctx, s, kept)
}

// isNew reports whether the database has no row of any timeline that the shard had:
// the spool never wrote there, or somebody emptied the table of positions.
func (w *writer) isNew(ctx context.Context, s *session, kept []noted) (bool, error) {
	for _, l := range w.lines {
		if l.kept {
			return false, nil
		}
	}
	for _, n := range kept {
		if w.line(n.id) != nil {
			continue
		}
		if _, found, err := s.position(ctx, n.row); found || err != nil {
			return false, err
		}
	}
	return true, nil
}

// lost are the timelines of which the database has less than it has to, when all
// batches up to until have to be there. It also settles from where on timelines go
// that the database has no row of. A database that goes back loses what came last: so
// nothing is lost of what is older than a timeline that it has some of; and a row that
// was never made there is not lost either.
func (w *writer) lost(until, end uint64) (lines []*line) {
	id, newest := databaseID(w.cfg.URL), 0
	for i, l := range w.lines {
		if l.kept && l.at > l.first {
			newest = i
		}
	}
	for i, l := range w.lines {
		renamed := l.row != l.id // what it has lost is not known
		if !l.kept {
			if l.at = l.clamp(end); i >= newest && !renamed && l.made == id && l.clamp(until) > l.first {
				l.at = l.first
			}
		}
		if i >= newest && l.at < l.clamp(until) {
			lines = append(lines, l)
		}
	}
	return lines
}

// loss is what a database turned out to have lost, until it has it again. That may
// take more than one session.
type loss struct {
	from, until       uint64
	messages, batches int // written again
}

// add counts what was written again.
func (l *loss) add(messages, batches int) {
	l.messages, l.batches = l.messages+messages, l.batches+batches
}

// rewrite writes what the spool still has of lost batches, up to until.
func (w *writer) rewrite(ctx context.Context, s *session, lost []*line, until uint64) error {
	if len(lost) == 0 {
		return nil
	}
	if err := w.claim(ctx, s, lost); err != nil || !w.tracked {
		return err
	}
	if w.loss == nil {
		w.loss = &loss{from: lost[0].at}
	}
	w.loss.until = max(w.loss.until, until)
	for _, l := range lost {
		if err := w.rewriteLine(ctx, s, l, until); err != nil {
			return err
		}
	}
	return nil
}

// tellLoss says what the database had lost, now that it has what there is of it.
func (w *writer) tellLoss() {
	l := w.loss
	if l == nil {
		return
	}
	w.loss = nil
	w.stats.rewritten.Add(uint64(l.messages))
	w.stats.positionBack.Add(1)
	attrs := []any{"position", l.from, "expected", l.until, "messages_written_again", l.messages, "batches_not_in_the_spool", max(0, int(l.until-l.from)-l.batches)}
	if lost, known := w.history.since(l.from); known {
		attrs = append(attrs, "messages_lost", max(0, lost-l.messages))
	}
	w.log.Error("database: its position went back, rows that were committed are gone: a standby without them took over, or a backup was restored", attrs...)
}

// rewriteLine does so for one timeline.
func (w *writer) rewriteLine(ctx context.Context, s *session, l *line, until uint64) error {
	var group []*spool.Batch
	size := 0
	defer func() {
		for _, b := range group {
			b.Release()
		}
	}()
	flush := func() error {
		for len(group) > 0 {
			o, err := w.write(ctx, s, group)
			if err != nil {
				return err
			}
			w.settle(o)
			n := 0
			for n < len(group) && group[n].Seq <= o.seq {
				group[n].Release()
				n++
			}
			group = group[n:]
			w.loss.add(o.records-o.rejected, n)
		}
		size = 0
		return nil
	}
	err := w.shard.Reread(ctx, l.at+1, l.clamp(until), func(b *spool.Batch) error {
		group, size = append(group, b), size+b.Size()
		if size >= w.cfg.BatchBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return err
}

// moveTo moves the positions that are behind end there.
func (w *writer) moveTo(ctx context.Context, s *session, end uint64) error {
	var moves []move
	for _, l := range w.lines {
		if to := l.clamp(end); l.kept && l.at < to {
			moves = append(moves, move{l, l.row, l.at, to})
		}
	}
	if len(moves) == 0 {
		return nil
	}
	w.startRows(s)
	o, err := w.transact(ctx, s, moves, 0)
	if err == nil {
		w.settle(o)
	}
	return err
}

// settle accounts for a transaction of messages that were counted before.
func (w *writer) settle(o outcome) {
	w.stats.rows.Add(uint64(o.rows))
	w.stats.transactions.Add(1)
	w.moved(o)
}
