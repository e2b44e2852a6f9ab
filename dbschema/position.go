package dbschema

// PositionTable is siptraced's own table beside sip_trace: how far the rows of
// each timeline of the spool are in the database. It is written in the
// transaction that holds the rows, so that none is lost or doubled. Its column
// stream has the timeline's name: one run of the spool's numbers, which a copy of
// the spool does not go on with.
const PositionTable = "siptraced_position"

// PositionStatements are the statements on PositionTable. Select and Delete have
// the timeline's name as argument; Insert the name and position; Update the new
// position, the name and the old position.
type PositionStatements struct {
	Create, Select, Insert, Update, Delete string
}

// PositionSQL is the text for a dialect; empty for what is none.
func PositionSQL(d Dialect) PositionStatements {
	r, err := d.impl()
	if err != nil {
		return PositionStatements{}
	}
	return PositionStatements{
		Create: "CREATE TABLE IF NOT EXISTS " + PositionTable + " (stream VARCHAR(128) NOT NULL PRIMARY KEY, seq BIGINT NOT NULL)",
		Select: placeholders(r, "SELECT seq FROM "+PositionTable+" WHERE stream = ?"),
		Insert: placeholders(r, "INSERT INTO "+PositionTable+" (stream, seq) VALUES (?, ?)"),
		Update: placeholders(r, "UPDATE "+PositionTable+" SET seq = ? WHERE stream = ? AND seq = ?"),
		Delete: placeholders(r, "DELETE FROM "+PositionTable+" WHERE stream = ?"),
	}
}
