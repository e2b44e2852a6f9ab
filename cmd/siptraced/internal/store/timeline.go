package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/spool"
)

// line is a timeline of a shard, and how far it is in the database.
type line struct {
	id    string
	row   string // its name in the table of positions
	first uint64 // the last number before it
	last  uint64 // its last number; math.MaxUint64 as long as it goes on
	at    uint64 // up to here its batches are in the database
	kept  bool   // the table has its row
	made  string // the database in which it was made last
	own   bool   // this process began it: nobody else has a reason to move its position
	told  bool   // the log said that the spool is older than the database
}

// clamp is the part of a position of the shard that lies in the timeline.
func (l *line) clamp(seq uint64) uint64 { return min(max(seq, l.first), l.last) }

// linesOf are the timelines of a shard, with what is noted of them.
func linesOf(timelines []journal.Timeline, kept []noted) (lines []*line) {
	first := uint64(0)
	for _, t := range timelines {
		l := &line{id: t.ID, row: t.ID, first: first, last: t.Last}
		if i := slices.IndexFunc(kept, func(n noted) bool { return n.id == t.ID }); i >= 0 {
			l.row, l.made, l.told = kept[i].row, kept[i].made, kept[i].told
		}
		lines, first = append(lines, l), t.Last
	}
	if n := len(lines); n > 0 {
		lines[n-1].last = math.MaxUint64
	}
	return lines
}

// line is the timeline of that name, nil if the shard did not have it when the
// session began.
func (w *writer) line(id string) *line {
	for _, l := range slices.Backward(w.lines) {
		if l.id == id {
			return l
		}
	}
	return nil
}

// move is a change of a timeline's position.
type move struct {
	line *line
	row  string
	from uint64
	to   uint64
}

// movesOf are the moves that go with the rows of batches.
func (w *writer) movesOf(batches []*spool.Batch) (moves []move) {
	for _, b := range batches {
		if n := len(moves); n > 0 && moves[n-1].line.id == b.Timeline {
			moves[n-1].to = b.Seq
			continue
		}
		if l := w.line(b.Timeline); l != nil {
			moves = append(moves, move{l, l.row, l.at, b.Seq})
		}
	}
	return moves
}

// answered finds out what became of the transactions whose COMMIT was not answered.
func (w *writer) answered() {
	for _, l := range w.lines {
		for _, o := range w.unanswered {
			last := o.moves[len(o.moves)-1]
			if !l.kept || last.row != l.row || last.to != l.at {
				continue
			}
			switch {
			case o.moves[0].from >= max(w.counted, w.shard.Offset()):
				w.book(o)
			case w.loss != nil: // it was counted before the database lost it
				w.loss.add(o.records-o.rejected, int(last.to-o.moves[0].from))
			}
			break
		}
	}
}

// findCopies looks for positions that are further than what this process knows to be
// done, and that nobody of the shard's own can have moved there. again: this process
// was in the database before.
func (w *writer) findCopies(done uint64) (renamed, again bool) {
	id := databaseID(w.cfg.URL)
	if w.seen == nil {
		w.seen = map[[2]string]uint64{}
	}
	_, again = w.seen[[2]string{id}]
	w.seen[[2]string{id}] = 0
	for _, l := range w.lines {
		row := [2]string{id, l.row}
		want := max(l.clamp(max(done, w.counted)), w.seen[row])
		if l.kept {
			w.seen[row] = max(w.seen[row], l.at)
		}
		switch {
		case !l.kept || l.at <= want || w.isUnanswered(l):
		case l.own:
			w.log.Error("database: a copy of this running siptraced is at work on the same table (a clone of the machine?): going on under another name. Nothing is lost; what waited when it was cloned may be there twice; see OPERATION.md, copies of a spool",
				"timeline", l.id, "position", l.at, "expected", want)
			l.row, l.at, l.kept, renamed = otherName(l.id), want, false, true
		case again:
			if time.Since(w.toldCopy) >= copyInterval {
				w.toldCopy = time.Now()
				w.log.Error("database: another siptraced with a copy of this spool directory is at work on the same table: what it wrote is not written again; see OPERATION.md, copies of a spool",
					"timeline", l.id, "position", l.at, "expected", want)
			}
		case l.at > l.last && !l.told:
			l.told = true
			w.log.Error("database: it has more than this spool ever took in: the spool directory is older than the database. It was restored from a backup or copied, or what was not yet synced is gone after a loss of power. Nothing is skipped; see OPERATION.md, copies of a spool",
				"timeline", l.id, "position", l.at, "last_in_spool", l.last)
		}
	}
	return renamed, again
}

// countOpening counts in the database how often the spool was opened, which tells of
// copies: what the spool knows of that is on disk before the database is told.
func (w *writer) countOpening(ctx context.Context, s *session) error {
	row := w.shard.ID + "/opened"
	had, found, err := s.position(ctx, row)
	if err != nil {
		return err
	}
	opened, less, err := w.notes.opened(ctx, w.shard.Index, had)
	if err == nil {
		err = w.notes.save(ctx)
	}
	if err != nil {
		return err
	}
	if less {
		w.log.Error("database: this spool directory is not what it was when it was used last: it was restored from an older copy, or a copy of it is in use too. Nothing is skipped, and nothing is written twice; see OPERATION.md, copies of a spool",
			"opened", opened, "database", had)
	}
	if !found {
		_, _, w.tracked, err = s.claim(ctx, row, opened)
		return err
	}
	if err = s.advance(ctx, move{row: row, from: had, to: opened}); errors.Is(err, errMoved) {
		return nil // a copy that starts at this moment: it is told
	}
	return err
}

// copyInterval is how often the log says that a copy of the spool is at work.
const copyInterval = time.Minute

func (w *writer) isUnanswered(l *line) bool {
	return slices.ContainsFunc(w.unanswered, func(o outcome) bool {
		last := o.moves[len(o.moves)-1]
		return last.row == l.row && last.to == l.at
	})
}

// otherName is a name for a timeline that nobody else has.
func otherName(id string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return id + "~" + hex.EncodeToString(b[:])
}

// mostNoted is how many timelines keep their rows once the spool holds nothing of
// them any more: a copy of the spool that turns up later finds them.
const mostNoted = 64

// remember notes the timelines of the shard, and removes the rows of those that are
// long gone.
func (w *writer) remember(ctx context.Context, s *session, kept []noted) error {
	held := map[string]bool{}
	for _, l := range w.lines {
		held[l.id] = true
		n := noted{l.id, l.row, l.made, l.told}
		if i := slices.IndexFunc(kept, func(n noted) bool { return n.id == l.id }); i >= 0 {
			kept[i] = n
		} else {
			kept = append(kept, n)
		}
	}
	for len(kept) > mostNoted && !held[kept[0].id] {
		if err := s.forget(ctx, kept[0].row); err != nil {
			return err
		}
		kept = kept[1:]
	}
	w.notes.setTimelines(w.shard.Index, kept)
	return nil
}
