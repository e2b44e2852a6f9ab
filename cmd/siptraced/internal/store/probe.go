package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

// errChanged says that a table is no longer what its rows were made for: the
// next session makes them again.
var errChanged = errors.New("the table was changed")

// noRowError says that a table takes no row at all, so that what it refuses is
// not the rows' fault.
type noRowError struct {
	table  string
	reason error
}

func (e *noRowError) Error() string {
	return fmt.Sprintf("table %s takes no row at all: %v", e.table, e.reason)
}

func (e *noRowError) Unwrap() error { return e.reason }

// confirm finds out, inside the transaction, whether refused rows are at fault
// themselves: the table has to be what it was, and to take another row after it
// refused these. A nil error says that they are.
func (w *writer) confirm(ctx context.Context, s *session, t *table, refusals []refusal) error {
	found, err := dbschema.Inspect(ctx, s.conn, s.dialect, t.name, w.cfg.Columns)
	if err != nil {
		return err
	}
	plan, err := dbschema.NewPlan(found)
	if err != nil {
		return err
	}
	if !plan.Equal(t.plan) {
		return fmt.Errorf("table %s: %w: %w", t.name, errChanged, refusals[0].reason)
	}
	if !t.plan.Undoes() {
		// A probe would stay in the table: another row in hand has to do.
		if len(refusals) < len(t.rows) {
			return nil
		}
		return &noRowError{t.name, refusals[0].reason}
	}
	partition := slices.ContainsFunc(refusals, func(r refusal) bool { return judge(r.reason) == ofPartition })
	var taken []any
	if !partition {
		taken = t.lastTaken(refusals)
	}
	return w.probe(ctx, s, t, taken, partition, refusals[0].reason)
}

// lastTaken are the arguments of the last row that is not among the refusals,
// which are in the order of the rows.
func (t *table) lastTaken(refusals []refusal) []any {
	i, r := len(t.rows)-1, len(refusals)-1
	for ; i >= 0 && r >= 0 && t.rows[i].record == refusals[r].record && string(t.rows[i].user) == string(refusals[r].user); i-- {
		r--
	}
	if i < 0 {
		return nil
	}
	return t.args[i*t.width : (i+1)*t.width]
}

// partitionAhead is how far ahead of the clock a table has to have a place for
// rows, so that a row's own clock is to blame and not that nobody made the next
// partition.
const partitionAhead = 10 * time.Minute

// probe has the table take a row that nothing is wrong with, and takes it back.
// Triggers and constraints may have wishes of their own, so there are several:
// rows made up for it, one that it took before in this transaction, and a copy of
// its newest one. When it is about partitions, only the time counts. The error is
// a *noRowError, or the database's own when that has nothing to do with rows.
func (w *writer) probe(ctx context.Context, s *session, t *table, taken []any, partition bool, reason error) error {
	at := time.Now()
	if partition {
		at = at.Add(partitionAhead)
	}
	encoder := t.plan.NewEncoder(w.cfg.Location)
	for _, rec := range probes(at) {
		ok, err := s.takes(ctx, t.plan.Insert(1), encoder.AppendArgs(nil, rec, nil)...)
		if ok || err != nil {
			return err
		}
	}
	if partition {
		return &noRowError{t.name, reason}
	}
	if taken != nil {
		if ok, err := s.takes(ctx, t.plan.Insert(1), taken...); ok || err != nil {
			return err
		}
	}
	if text := t.plan.InsertNewest(); text != "" {
		if ok, err := s.takes(ctx, text); ok || err != nil {
			return err
		}
	}
	return &noRowError{t.name, reason}
}

// takes reports whether the database takes a row, which is taken back at once.
// The error is one that has nothing to do with the row.
func (s *session) takes(ctx context.Context, text string, args ...any) (bool, error) {
	if _, err := s.exec(ctx, "SAVEPOINT probe"); err != nil {
		return false, err
	}
	res, err := s.exec(ctx, text, args...)
	if about := judge(err); err != nil && (about == lost || about == ofServer) {
		return false, err
	}
	var rows int64
	if err == nil {
		if rows, err = res.RowsAffected(); err != nil {
			return false, err
		}
	}
	_, err = s.exec(ctx, "ROLLBACK TO SAVEPOINT probe")
	return rows > 0 && err == nil, err
}

// probes are ordinary messages with a Call-ID that there is only once.
func probes(at time.Time) []*siptrace.Record {
	call := []byte(fmt.Sprintf("siptraced-probe-%016x@localhost", rand.Uint64()))
	end := siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("127.0.0.1:5060")}
	var recs []*siptrace.Record
	for _, m := range [][3]string{
		{"INVITE", "", "INVITE sip:probe@localhost SIP/2.0\r\n\r\n"},
		{"INVITE", "200", "SIP/2.0 200 OK\r\n\r\n"},
		{"REGISTER", "", "REGISTER sip:localhost SIP/2.0\r\n\r\n"},
	} {
		recs = append(recs, &siptrace.Record{
			Time: at, CallID: call, Method: []byte(m[0]), Status: []byte(m[1]), Msg: []byte(m[2]),
			From: end, To: end, FromTag: []byte("probe"), Direction: siptrace.In,
		})
	}
	return recs
}
