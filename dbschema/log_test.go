package dbschema

import (
	"strings"
	"testing"
)

// The statements on siptraced's own tables have the dialect's placeholders.
func TestOwnTables(t *testing.T) {
	for d, want := range map[Dialect][2]string{
		MySQL:      {"VALUES (?, ?, ?, ?, ?, ?)", "SET seq = ? WHERE stream = ? AND seq = ?"},
		SQLite:     {"VALUES (?, ?, ?, ?, ?, ?)", "SET seq = ? WHERE stream = ? AND seq = ?"},
		PostgreSQL: {"VALUES ($1, $2, $3, $4, $5, $6)", "SET seq = $1 WHERE stream = $2 AND seq = $3"},
	} {
		if got := LogSQL(d).Insert; !strings.HasSuffix(got, want[0]) {
			t.Errorf("%v: %s", d, got)
		}
		if got := PositionSQL(d).Update; !strings.HasSuffix(got, want[1]) {
			t.Errorf("%v: %s", d, got)
		}
	}
	if got := LogSQL(Dialect(9)); got.Insert != "" || got.Create != nil {
		t.Errorf("no dialect: %+v", got)
	}
}
