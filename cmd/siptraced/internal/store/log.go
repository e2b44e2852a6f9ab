package store

import (
	"context"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
	"siptraced/hep"
)

// findLog looks for the table of log lines, and makes it where that is allowed:
// without it log lines are counted, and nothing else waits.
func (w *writer) findLog(ctx context.Context, s *session) error {
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

// noLog tells an outage from a table that can't be had.
func (w *writer) noLog(err error) error {
	w.logs = false
	if judge(err) == wait && !isMissing(err) && !isDenied(err) {
		return err
	}
	if !w.logSaid {
		w.logSaid = true
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
	l := dbschema.Log{Time: rec.Time, CallID: rec.CallID, Text: rec.Msg, CaptureID: rec.CaptureID}
	if rec.Packet != nil {
		if err := w.packet.Decode(rec.Packet); err == nil {
			l.Text = w.packet.Payload
		}
	}
	if rec.Source.IsValid() {
		l.Source = rec.Source.String()
	}
	w.logLines = append(w.logLines, logLine{number, dbschema.AppendLogArgs(nil, s.dialect, l, w.cfg.Location)})
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
		if judge(err) == wait {
			return nil, err
		}
		if guard {
			if _, err := s.exec(ctx, "ROLLBACK TO SAVEPOINT log_line"); err != nil {
				return nil, err
			}
		}
		refusals = append(refusals, refusal{row{record: l.record}, dbschema.LogTable, err})
	}
	return refusals, nil
}

// logState is what a writer knows of log lines.
type logState struct {
	logs     bool // there is a table for them
	logSaid  bool
	logLines []logLine
	noLogs   int // log lines of the transaction in hand for which there is no table
	packet   hep.Packet
}
