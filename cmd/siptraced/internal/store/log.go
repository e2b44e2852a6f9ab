package store

import (
	"context"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
	"siptraced/hep"
)

// findLog looks for the table of log lines, and makes it where that is allowed:
// without it log lines are counted, and nothing else waits.
func (w *writer) findLog(ctx context.Context, s *session) error {
	if w.logs = false; w.cfg.RowsOnly {
		return nil
	}
	text := dbschema.LogSQL(s.dialect)
	_, err := s.exec(ctx, text.Probe)
	for _, create := range text.Create {
		if err == nil {
			break
		}
		if !isMissing(err) {
			return w.noLog(err)
		}
		if _, err := s.exec(ctx, create); err != nil {
			return w.noLog(err)
		}
	}
	if err != nil {
		if _, err = s.exec(ctx, text.Probe); err != nil {
			return w.noLog(err)
		}
	}
	w.logs = true
	return nil
}

// noLog tells an outage from a table that can't be used.
func (w *writer) noLog(err error) error {
	w.logs = false
	if about := judge(err); about == lost || about == ofServer && !isDenied(err) {
		return err
	}
	if w.said.first(w.cfg, dbschema.LogTable) {
		w.log.Warn("database: log lines (hlog) are not kept; make the table with: siptraced schema create", "table", dbschema.LogTable, "err", err)
	}
	return nil
}

// logLine is a log line of the transaction in hand.
type logLine struct {
	record int
	args   []any
}

// addLog takes a log line: one that was made here, or one that came by HEP.
func (w *writer) addLog(s *session, rec *siptrace.Record, number int) {
	w.logLines = append(w.logLines, logLine{number, s.logArgs(rec, &w.packet, w.cfg.Location)})
}

// logArgs are the arguments of a log line's row; packet is memory.
func (s *session) logArgs(rec *siptrace.Record, packet *hep.Packet, loc *time.Location) []any {
	l := dbschema.Log{Time: rec.Time, CallID: rec.CallID, Text: rec.Msg, CaptureID: rec.CaptureID}
	if rec.Packet != nil {
		if err := packet.Decode(rec.Packet); err == nil {
			l.Text = packet.Payload
		}
	}
	if rec.Source.IsValid() {
		l.Source = rec.Source.String()
	}
	return dbschema.AppendLogArgs(nil, s.dialect, l, loc)
}

// insertLogs writes the log lines in hand, one by one: there are few.
func (w *writer) insertLogs(ctx context.Context, s *session) (refusals []refusal, err error) {
	insert := dbschema.LogSQL(s.dialect).Insert
	for _, l := range w.logLines {
		guard := s.dialect == dbschema.PostgreSQL
		if guard {
			// In PostgreSQL a failed statement ends the transaction.
			if _, err := s.exec(ctx, "SAVEPOINT log_line"); err != nil {
				return nil, err
			}
		}
		_, err := s.exec(ctx, insert, l.args...)
		if err == nil {
			continue
		}
		if judge(err) != ofRow {
			return nil, err
		}
		if guard {
			if _, err := s.exec(ctx, "ROLLBACK TO SAVEPOINT log_line"); err != nil {
				return nil, err
			}
		}
		refusals = append(refusals, refusal{row{record: l.record}, dbschema.LogTable, err})
	}
	if len(refusals) > 0 {
		return refusals, w.probeLog(ctx, s, refusals[0].reason)
	}
	return nil, nil
}

// probeLog has the table take a log line that nothing is wrong with, and takes it
// back.
func (w *writer) probeLog(ctx context.Context, s *session, reason error) error {
	line := dbschema.Log{Time: time.Now(), Text: []byte("probe"), Source: "127.0.0.1:5060"}
	ok, err := s.takes(ctx, dbschema.LogSQL(s.dialect).Insert, dbschema.AppendLogArgs(nil, s.dialect, line, w.cfg.Location)...)
	if ok || err != nil {
		return err
	}
	return &noRowError{dbschema.LogTable, reason}
}

// logState is what a writer knows of log lines.
type logState struct {
	logs     bool // there is a table for them
	logLines []logLine
	// logArrivals are what logLines are for pruning.
	logArrivals arrivals
	noLogs      int // log lines of the transaction in hand for which there is no table
	packet      hep.Packet
}
