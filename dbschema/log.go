package dbschema

import (
	"strings"
	"time"
	"unicode/utf8"
)

// LogTable is siptraced's own table for log lines that proxies sent by hlog():
// they belong to a call by its Call-ID, and to no row of sip_trace.
const LogTable = "siptraced_log"

// LogStatements are the statements on LogTable. Probe fails where the table is
// missing. Insert has the arguments of AppendLogArgs.
type LogStatements struct {
	Create        []string
	Probe, Insert string
}

// LogSQL is the text for a dialect; empty for what is none.
func LogSQL(d Dialect) LogStatements {
	r, err := d.impl()
	if err != nil {
		return LogStatements{}
	}
	return LogStatements{
		Create: r.logTable(),
		Probe:  "SELECT id FROM " + LogTable + " WHERE 1 = 0",
		Insert: placeholders(r, "INSERT INTO "+LogTable+" (time_stamp, time_us, callid, msg, source, capture_id) VALUES (?, ?, ?, ?, ?, ?)"),
	}
}

const logIndex = "CREATE INDEX IF NOT EXISTS " + LogTable + "_callid_idx ON " + LogTable + " (callid)"

// logTable is the statement that makes LogTable of the dialect's types; end is
// what follows the columns.
func logTable(id, time, text, end string) string {
	return "CREATE TABLE IF NOT EXISTS " + LogTable + " (id " + id + ", time_stamp " + time + " NOT NULL, time_us INTEGER NOT NULL DEFAULT 0," +
		" callid VARCHAR(255) NOT NULL DEFAULT '', msg " + text + " NOT NULL, source VARCHAR(64) NOT NULL DEFAULT '', capture_id BIGINT NOT NULL DEFAULT 0" + end
}

// Log is one log line.
type Log struct {
	Time         time.Time
	CallID, Text []byte
	Source       string // who sent it
	CaptureID    uint32
}

// AppendLogArgs appends the arguments of one row of LogTable; loc is the zone
// of time_stamp. Bytes that are no text become U+FFFD, and a NUL U+2400.
func AppendLogArgs(dst []any, d Dialect, l Log, loc *time.Location) []any {
	w := l.Time.In(loc)
	var at any = w.Format(time.DateTime)
	if d == PostgreSQL {
		at = time.Date(w.Year(), w.Month(), w.Day(), w.Hour(), w.Minute(), w.Second(), 0, time.UTC)
	}
	return append(dst, at, int64(l.Time.Nanosecond()/1000), logText(l.CallID, 255), logText(l.Text, maxLogText), logText([]byte(l.Source), 64), int64(l.CaptureID))
}

// maxLogText bounds a line, in characters: a HEP packet has no more.
const maxLogText = 1 << 16

func logText(b []byte, chars int) string {
	s := strings.ReplaceAll(strings.ToValidUTF8(string(b), "\uFFFD"), "\x00", "\u2400")
	if utf8.RuneCountInString(s) > chars {
		s = string([]rune(s)[:chars])
	}
	return s
}
