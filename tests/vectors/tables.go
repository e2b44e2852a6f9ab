package vectors

import "path/filepath"

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
