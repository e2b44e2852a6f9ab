package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/dbschema"
)

const (
	// mostFailures is how many transactions that begin with the same batch may fail
	// before its rows are suspected, whatever the error says.
	mostFailures = 3
	// mostLost is how often a row alone may cost the connection, directly after the
	// table took another one over it, before the row is at fault.
	mostLost = 3
)

// suspects finds the rows of a batch that make whole transactions fail, with
// errors that are not known to come from a row, or by the loss of the
// connection. It halves the batch across transactions that are rolled back. What
// it learned stays when the session ends. The zero value suspects nothing.
type suspects struct {
	first    uint64 // the batch that the failed transactions began with
	failures int    // of them, one after the other
	why      error  // of the last one

	batch  uint64        // under trial; 0: none
	open   []span        // of its records, the next one last: not known to be taken
	losses int           // of the connection by the next span, which is one record
	guilty map[int]error // records of batch that the table does not take, and why
	found  time.Time     // when the last one was found
}

// alert is how long the next failure starts a trial at once, after one that
// found a row.
const alert = time.Minute

// clear ends the suspicion.
func (u *suspects) clear() { *u = suspects{found: u.found} }

// failed takes note of a transaction that failed.
func (u *suspects) failed(first *spool.Batch, err error) {
	if judge(err) == ofServer {
		return // it is not the rows
	}
	if u.first != first.Seq || u.batch == first.Seq && len(u.open) == 0 {
		// Another batch, or a trial that is over and did not help.
		u.clear()
		u.first = first.Seq
	}
	u.failures++
	u.why = err
	if (u.failures >= mostFailures || time.Since(u.found) < alert) && u.batch != first.Seq {
		u.batch, u.open, u.guilty = first.Seq, []span{{0, first.Records}}, map[int]error{}
	}
}

// reason is why a record was found not to be taken.
func (u *suspects) reason(batch uint64, index int) (err error, found bool) {
	if u.batch == 0 || u.batch != batch {
		return nil, false
	}
	err, found = u.guilty[index]
	return err, found
}

// onTrial reports whether the batch has to be tried before it is written.
func (u *suspects) onTrial(b *spool.Batch) bool { return u.batch == b.Seq && u.batch != 0 }

// try goes on with the trial of a batch until it is over. After an error it goes
// on over the next connection.
func (w *writer) try(ctx context.Context, s *session, b *spool.Batch) error {
	u := &w.suspects
	for len(u.open) > 0 {
		last := len(u.open) - 1
		part := u.open[last]
		alone := part.hi-part.lo == 1
		probed, err := w.attempt(ctx, s, b, part, alone)
		if err == nil {
			u.open, u.losses = u.open[:last], 0
			continue
		}
		about := judge(err)
		switch {
		case ctx.Err() != nil, about == ofServer, alone && !probed:
			return err
		case !alone:
			half := (part.lo + part.hi) / 2
			u.open = append(u.open[:last], span{half, part.hi}, span{part.lo, half})
		case about == lost && u.losses+1 < mostLost:
			u.losses++
		default:
			u.guilty[part.lo], u.found = err, time.Now()
			u.open, u.losses = u.open[:last], 0
		}
		if about == lost {
			return fmt.Errorf("%w: %w", spool.ErrReopen, err) // something was learned: at once
		}
	}
	return nil
}

// attempt writes some records of a batch and takes them back. With probe, their
// tables have to take other rows first: probed says that they did.
func (w *writer) attempt(ctx context.Context, s *session, b *spool.Batch, part span, probe bool) (probed bool, err error) {
	w.startRows(s)
	if err := w.encodeSpan(ctx, s, b, part); err != nil {
		return false, err
	}
	end, err := w.begin(ctx, s)
	if err != nil {
		return false, err
	}
	defer end(false)
	for _, t := range w.tables {
		if !probe {
			break
		}
		if err := w.probe(ctx, s, t, nil, judge(w.suspects.why) == ofPartition, w.suspects.why); err != nil {
			return false, err
		}
	}
	if probe && len(w.logLines) > 0 {
		if err := w.probeLog(ctx, s, w.suspects.why); err != nil {
			return false, err
		}
	}
	for _, t := range w.tables {
		if _, _, err := s.insert(ctx, t, 0, len(t.rows)); err != nil {
			return probe, err
		}
	}
	for _, l := range w.logLines {
		if _, err := s.exec(ctx, dbschema.LogSQL(s.dialect).Insert, l.args...); err != nil {
			return probe, err
		}
	}
	if s.dialect == dbschema.PostgreSQL {
		// What is deferred to the COMMIT, which is not tried.
		if _, err := s.exec(ctx, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
			return probe, err
		}
	}
	return probe, nil
}

// undoes reports whether a rollback takes back the rows in hand.
func (w *writer) undoes() bool {
	return !slices.ContainsFunc(w.tables, func(t *table) bool { return !t.plan.Undoes() })
}
