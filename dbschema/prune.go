package dbschema

import "time"

// LateTable is siptraced's own table in a SQLite file that it bounds: the rows that
// were older when they came than they may become there. They stay as long as others
// do, from their arrival on.
const LateTable = "siptraced_late"

// PruneStatements have the oldest rows leave a table of SQLite. None of them touches
// the newest row: the number of the next one would be given out a second time.
// Times are seconds since 1970, but Aged's, which is in the column's own form.
type PruneStatements struct {
	// First asks for the time of the n-th row in the order in which they came; its
	// argument is n, from 0 on.
	First string
	// Oldest removes the rows that came first; its arguments are how many, and a
	// time: what is newer stays.
	Oldest string
	// Aged removes rows that are older than a time, but for those in LateTable; its
	// arguments are that time, the table's name in LateTable, the present time, and
	// how many.
	Aged string
	// Last asks for the number of the newest row.
	Last string
}

// LateStatements are the statements on LateTable. A run of rows stays until a time.
type LateStatements struct {
	Create string
	// Extend has the last run reach further; its arguments are the last row, the
	// time, the table's name, and the time that the run has to have already.
	Extend string
	// Insert has the table's name, the first and the last row, and the time.
	Insert string
	// Expire forgets the runs whose time is over; its argument is the present time.
	Expire string
}

// Late are the statements on LateTable, for SQLite.
func Late() LateStatements {
	return LateStatements{
		Create: "CREATE TABLE IF NOT EXISTS " + LateTable + " (table_name TEXT NOT NULL, first_row INTEGER NOT NULL, last_row INTEGER NOT NULL, until INTEGER NOT NULL)",
		Extend: "UPDATE " + LateTable + " SET last_row = ?, until = ? WHERE table_name = ? AND until >= ?",
		Insert: "INSERT INTO " + LateTable + " (table_name, first_row, last_row, until) VALUES (?, ?, ?, ?)",
		Expire: "DELETE FROM " + LateTable + " WHERE until <= ?",
	}
}

// Prune are the statements that have rows leave the table; the zero value where
// that is not possible: for a view, without a column of times, and for servers.
func (p *Plan) Prune() PruneStatements {
	if _, lite := p.dialect.(sqliteDialect); !lite || p.view {
		return PruneStatements{}
	}
	for _, s := range p.slots {
		if s.field == fieldTime {
			return pruneSQL(p.table, p.dialect.quoteExact(s.name))
		}
	}
	return PruneStatements{}
}

// LogPrune is Prune for LogTable.
func LogPrune() PruneStatements { return pruneSQL(LogTable, "time_stamp") }

func pruneSQL(table, column string) PruneStatements {
	seconds := "COALESCE(unixepoch(" + column + "), 0)"
	last := "(SELECT MAX(rowid) FROM " + table + ")"
	return PruneStatements{
		First:  "SELECT " + seconds + " FROM " + table + " ORDER BY rowid LIMIT 1 OFFSET ?",
		Oldest: "DELETE FROM " + table + " WHERE rowid IN (SELECT rowid FROM " + table + " ORDER BY rowid LIMIT ?) AND rowid < " + last + " AND " + seconds + " <= ?",
		Aged: "DELETE FROM " + table + " WHERE rowid IN (SELECT t.rowid FROM " + table + " AS t WHERE t." + column + " < ? AND t.rowid < " + last +
			" AND NOT EXISTS (SELECT 1 FROM " + LateTable + " AS l WHERE l.table_name = ? AND t.rowid BETWEEN l.first_row AND l.last_row AND l.until > ?)" +
			" ORDER BY t." + column + " LIMIT ?)",
		Last: "SELECT COALESCE(MAX(rowid), 0) FROM " + table,
	}
}

// Time is a time as the column of times has it; nil if there is none.
func (e *Encoder) Time(at time.Time) any {
	for i := range e.plan.slots {
		if s := &e.plan.slots[i]; s.field == fieldTime {
			return e.time(s, at)
		}
	}
	return nil
}
