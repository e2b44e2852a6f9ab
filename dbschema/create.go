package dbschema

import (
	"strings"
	"unicode/utf8"

	"siptraced/compat/siptrace"
)

// CurrentVersion is the version row of the form that Create makes.
const CurrentVersion = 4

// versionNameWidth is the width of version.table_name in characters.
const versionNameWidth = 32

// Create returns the statements, one per element, that make the table as
// Kamailio's siptrace-create.sql makes it, with the columns that cols names
// (see [siptrace.Columns]) and the version row that Kamailio looks for. The
// table version is made too where it is missing, as in standard-create.sql.
// The table itself must not exist.
//
// Indexes are named as in the script. On PostgreSQL and SQLite, where the name
// of an index belongs to the whole schema, they start with the table's name.
//
// The error is a *NameError.
func Create(d Dialect, table string, cols siptrace.Columns) ([]string, error) {
	r, err := d.impl()
	if err != nil {
		return nil, err
	}
	n, err := splitTable(r, table)
	if err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(table) > versionNameWidth {
		return nil, &NameError{Kind: "table", Name: table, Reason: "is longer than the 32 characters that the table version has room for"}
	}
	columns, names, err := createColumns(r, cols)
	if err != nil {
		return nil, err
	}
	stmts := append(createVersion(r), tableText("CREATE TABLE "+n.quoted, columns))
	for _, f := range indexOrder {
		index := r.indexName(n.table, layout[f].index)
		if err := checkName(r, "index", index, index); err != nil {
			return nil, err // PostgreSQL would cut all of them to the same name
		}
		stmts = append(stmts, createIndex(r, n, index, r.quote(names[f])))
	}
	return append(stmts, setVersion(table)...), nil
}

// Scratch returns the statements that make a table with the columns of Create's, and
// remove it: without indexes, and without a version row. It is for trying things out.
//
// The error is a *NameError.
func Scratch(d Dialect, table string, cols siptrace.Columns) (create, drop string, err error) {
	r, err := d.impl()
	if err != nil {
		return "", "", err
	}
	n, err := splitTable(r, table)
	if err != nil {
		return "", "", err
	}
	columns, _, err := createColumns(r, cols)
	if err != nil {
		return "", "", err
	}
	return tableText("CREATE TABLE "+n.quoted, columns), "DROP TABLE " + n.quoted, nil
}

// createColumns are the definitions of the columns, and the names of those that hold
// fields.
func createColumns(r dialect, cols siptrace.Columns) (columns, names []string, err error) {
	columns = []string{columnText(r, "id", r.idType())}
	names = make([]string, len(layout))
	for i, c := range layout {
		f := Field(i)
		if names[i] = configured(cols, f); names[i] == "" {
			names[i] = f.String()
		}
		if err := checkName(r, "column", names[i], names[i]); err != nil {
			return nil, nil, err
		}
		for _, other := range append([]string{"id"}, names[:i]...) {
			if strings.EqualFold(names[i], other) {
				return nil, nil, &NameError{Kind: "column", Name: names[i], Reason: "is the name of two columns"}
			}
		}
		columns = append(columns, columnText(r, names[i], columnDef(r, c)))
	}
	return columns, names, nil
}

func columnText(r dialect, name, typ string) string { return r.quote(name) + " " + typ }

// columnDef is the type of a column with its default; no column may be NULL.
func columnDef(r dialect, c layoutColumn) string {
	value := ""
	switch c.kind {
	case kindTime:
		value = " DEFAULT '2000-01-01 00:00:01'"
	case kindCount:
		value = " DEFAULT 0"
	case kindText:
		value = " DEFAULT ''"
	}
	return r.columnType(c) + value + " NOT NULL"
}

func createIndex(r dialect, n tableName, index, quoted string) string {
	return "CREATE INDEX " + r.quote(index) + " ON " + n.quoted + " (" + quoted + ")"
}

func tableText(head string, columns []string) string {
	return head + " (\n  " + strings.Join(columns, ",\n  ") + "\n)"
}

// createVersion makes the table version where it is missing, with the row
// that it has for itself.
func createVersion(r dialect) []string {
	return []string{
		tableText("CREATE TABLE IF NOT EXISTS version", []string{
			columnText(r, "id", r.idType()),
			columnText(r, "table_name", "VARCHAR(32) NOT NULL"),
			columnText(r, "table_version", columnDef(r, layoutColumn{kind: kindCount})),
			"CONSTRAINT " + r.versionIndex() + " UNIQUE (" + r.quote("table_name") + ")",
		}),
		// The derived table is there because MySQL before 8 knows no WHERE without FROM.
		"INSERT INTO version (table_name, table_version) SELECT 'version', 1 FROM (SELECT 1) AS one" +
			" WHERE NOT EXISTS (SELECT 1 FROM version WHERE table_name = 'version')",
	}
}

// setVersion writes the table's version row, in place of one that is there.
func setVersion(table string) []string {
	name := literal(table)
	return []string{
		"DELETE FROM version WHERE table_name = " + name,
		"INSERT INTO version (table_name, table_version) VALUES (" + name + ", 4)",
	}
}
