package dbschema

// PositionTable is siptraced's own table beside sip_trace: how far the rows of
// each stream of the spool are in the database. It is written in the
// transaction that holds the rows, so that none is lost or doubled.
const PositionTable = "siptraced_position"

// PositionStatements are the statements on PositionTable. Select has the
// stream's name as argument; Insert the name and position; Update the new
// position, the name and the old position.
type PositionStatements struct {
	Create, Select, Insert, Update string
}

// PositionSQL is the text for a dialect.
func PositionSQL(d Dialect) PositionStatements {
	p := PositionStatements{
		Create: "CREATE TABLE IF NOT EXISTS " + PositionTable + " (stream VARCHAR(128) NOT NULL PRIMARY KEY, seq BIGINT NOT NULL)",
		Select: "SELECT seq FROM " + PositionTable + " WHERE stream = ?",
		Insert: "INSERT INTO " + PositionTable + " (stream, seq) VALUES (?, ?)",
		Update: "UPDATE " + PositionTable + " SET seq = ? WHERE stream = ? AND seq = ?",
	}
	if d == PostgreSQL {
		p.Select = "SELECT seq FROM " + PositionTable + " WHERE stream = $1"
		p.Insert = "INSERT INTO " + PositionTable + " (stream, seq) VALUES ($1, $2)"
		p.Update = "UPDATE " + PositionTable + " SET seq = $1 WHERE stream = $2 AND seq = $3"
	}
	return p
}
