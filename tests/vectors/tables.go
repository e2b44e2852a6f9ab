package vectors

import (
	"database/sql"
	"path/filepath"
)

// ReadRows reads what a query for id, time_stamp, time_us and Columns answers, in
// that order, and closes it.
func ReadRows(rs *sql.Rows) ([]Row, error) {
	defer rs.Close()
	var rows []Row
	for rs.Next() {
		var r Row
		dest := []any{&r.ID, &r.TimeStamp, &r.TimeUS}
		for _, c := range Columns {
			dest = append(dest, r.Column(c))
		}
		if err := rs.Scan(dest...); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, rs.Err()
}

// RowsOf are the rows of another table of the run.
func (s *Scenario) RowsOf(table string) ([]Row, error) {
	return readLines[Row](filepath.Join(filepath.Dir(s.Config), "rows."+table+".jsonl"))
}

// Payload is the message that a packet carries, nil when it is no HEP, and its
// correlation id.
func (d *Datagram) Payload() (payload, correlation []byte) {
	m, err := decodeHEP(d.Packet)
	if err != nil {
		return nil, nil
	}
	return m.payload, m.correlation
}

// Ends are the two addresses as the table has them, with a NUL between them.
func (d *Datagram) Ends() string {
	m, err := decodeHEP(d.Packet)
	if err != nil {
		return ""
	}
	return endpoint(m.proto, m.src) + "\x00" + endpoint(m.proto, m.dst)
}
