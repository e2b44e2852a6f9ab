package dbschema

import (
	"context"
	"database/sql"
	"strings"
)

type sqliteDialect struct{}

// quote leaves the names of Kamailio's script as they are there: SQLite keeps
// the text of each definition, and so it reads the same.
func (sqliteDialect) quote(name string) string {
	if plain(name) && name == strings.ToLower(name) {
		// No keyword of SQLite has an underscore but CURRENT_DATE and its like.
		if strings.Contains(name, "_") && !strings.HasPrefix(name, "current_") {
			return name
		}
		for f := range layout {
			if name == Field(f).String() || name == "id" {
				return name
			}
		}
	}
	return quoteWith(`"`, name)
}

func (sqliteDialect) quoteExact(name string) string { return quoteWith(`"`, name) }

func (sqliteDialect) refuse(name string) string {
	if strings.HasPrefix(strings.ToLower(name), "sqlite_") {
		return "starts with sqlite_"
	}
	return ""
}

func (sqliteDialect) idType() string { return "INTEGER PRIMARY KEY NOT NULL" }

func (sqliteDialect) columnType(c layoutColumn) string { return postgresDialect{}.columnType(c) }
func (sqliteDialect) after(string) string              { return "" }

func (sqliteDialect) indexName(table, index string) string { return table + "_" + index }
func (sqliteDialect) versionIndex() string                 { return "version_table_name_idx" }

// SQLite can't change a column, and holds to none of the limits that one could
// wish to change.
func (sqliteDialect) retype(*Table, Column, string) []string { return nil }

func (r sqliteDialect) inspect(ctx context.Context, q Queryer, t *Table) (bool, error) {
	name := ""
	err := each(ctx, q, func(rows *sql.Rows) error {
		var kind string
		err := rows.Scan(&name, &kind)
		t.View = kind == "view"
		return err
	}, "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE", t.name.table)
	if err != nil || name == "" {
		return false, err
	}
	err = each(ctx, q, func(rows *sql.Rows) error {
		var c Column
		var notNull bool
		var pk, hidden int
		if err := rows.Scan(&c.Name, &c.Definition, &notNull, &c.Default, &pk, &hidden); err != nil {
			return err
		}
		c.Type = strings.ToLower(strings.TrimSpace(c.Definition))
		c.Type, _, _ = strings.Cut(c.Type, "(")
		c.Nullable = !notNull
		// INTEGER PRIMARY KEY is the row id; hidden 2 and 3 are computed columns.
		c.Generated = pk == 1 && c.Type == "integer" || hidden > 1
		t.Columns = append(t.Columns, c)
		return nil
	}, `SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid`, name)
	if err != nil {
		return false, err
	}
	err = each(ctx, q, func(rows *sql.Rows) error {
		var index string
		var first sql.NullString
		err := rows.Scan(&index, &first)
		t.Indexes = append(t.Indexes, Index{Name: index, First: first.String})
		return err
	}, "SELECT l.name, i.name FROM pragma_index_list(?) l, pragma_index_info(l.name) i WHERE i.seqno = 0 ORDER BY l.name", name)
	if err != nil {
		return false, err
	}
	t.assign() // for the name of the time column
	id, c := t.find("id"), t.Column(fieldTime)
	if id == 0 || c == nil {
		return true, nil
	}
	var typ string
	_, err = queryRow(ctx, q, &typ, "SELECT typeof("+r.quoteExact(c.Name)+") FROM "+t.name.quoted+
		" ORDER BY "+r.quoteExact(t.Columns[id-1].Name)+" DESC LIMIT 1")
	t.JulianDay = typ == "real"
	return err == nil, err
}

func (sqliteDialect) hasVersionTable(ctx context.Context, q Queryer) (bool, error) {
	var n int
	_, err := queryRow(ctx, q, &n, "SELECT COUNT(*) FROM sqlite_master WHERE type IN ('table', 'view') AND name = 'version' COLLATE NOCASE")
	return n > 0, err
}

// A row id has 63 bits.
func (sqliteDialect) idLimit(*Column) (int64, string) { return 0, "" }

func (sqliteDialect) problems(*Table, func(Problem)) {}

// Text goes as text, NUL included. The widths of the definition mean nothing
// to SQLite, and Kamailio stores whole what is longer: so nothing is cut.
func (sqliteDialect) prepare(_ *Table, _ *Column, s *slot) { s.enc = encUnicode }

func (sqliteDialect) appendPlaceholder(dst []byte, _ int) []byte { return append(dst, '?') }

// SQLITE_MAX_VARIABLE_NUMBER as it is compiled in since 3.32.
func (sqliteDialect) maxArgs() int { return 32766 }

func (sqliteDialect) logTable() []string {
	return []string{logTable("INTEGER PRIMARY KEY", "DATETIME", "TEXT", ")"), logIndex}
}
