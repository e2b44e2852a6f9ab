package dbschema

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"siptraced/compat/siptrace"
)

// Dialect is a kind of database server.
type Dialect uint8

// The dialects; there is no default.
const (
	MySQL Dialect = iota + 1 // MariaDB too
	PostgreSQL
	SQLite
)

// DialectOf is the dialect of a db_url's driver; text has none.
func DialectOf(driver string) (Dialect, bool) {
	switch driver {
	case siptrace.DriverMySQL:
		return MySQL, true
	case siptrace.DriverPostgres:
		return PostgreSQL, true
	case siptrace.DriverSQLite:
		return SQLite, true
	}
	return 0, false
}

func (d Dialect) String() string {
	switch d {
	case MySQL:
		return "MySQL"
	case PostgreSQL:
		return "PostgreSQL"
	case SQLite:
		return "SQLite"
	}
	return "Dialect(" + strconv.Itoa(int(d)) + ")"
}

// dialect is what differs between the dialects.
type dialect interface {
	// quote makes an identifier of a valid name as someone wrote it, and
	// quoteExact of one as the database has it.
	quote(name string) string
	quoteExact(name string) string
	// refuse says why a name that is valid elsewhere is not valid here, or "".
	refuse(name string) string

	// idType is the type of the column id, with all that belongs to it.
	idType() string
	// columnType is the type of a column of the current form.
	columnType(c layoutColumn) string
	// after places a new column after another, where that can be said.
	after(quoted string) string
	// indexName is the name of the index that MySQL calls index.
	indexName(table, index string) string
	// versionIndex names the unique constraint of the table version.
	versionIndex() string
	// retype gives a column another type and leaves the rest of it as it is.
	retype(t *Table, c Column, typ string) []string

	// inspect fills what t gets from the catalog; found is false when there is
	// no such table.
	inspect(ctx context.Context, q Queryer, t *Table) (found bool, err error)
	hasVersionTable(ctx context.Context, q Queryer) (bool, error)
	// idLimit is the largest number that fits the column, 0 for no such limit,
	// and the type to give it then.
	idLimit(c *Column) (limit int64, wider string)
	// problems calls add for what only this dialect knows.
	problems(t *Table, add func(Problem))

	// prepare decides how the values of a column are encoded.
	prepare(t *Table, c *Column, s *slot)
	appendPlaceholder(dst []byte, n int) []byte // n counts from 1
	// maxArgs is how many arguments one statement can have.
	maxArgs() int

	// logTable is the statements that make the table of log lines.
	logTable() []string
}

func (d Dialect) impl() (dialect, error) {
	switch d {
	case MySQL:
		return mysqlDialect{}, nil
	case PostgreSQL:
		return postgresDialect{}, nil
	case SQLite:
		return sqliteDialect{}, nil
	}
	return nil, fmt.Errorf("dbschema: %v is not a dialect", d)
}

// Queryer is what *sql.DB, *sql.Conn and *sql.Tx have in common for reading.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// NameError is a table or column name that can't be used.
type NameError struct {
	Kind   string // table, column or index
	Name   string
	Reason string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("dbschema: %s name %q: %s", e.Kind, e.Name, e.Reason)
}

// tableName is a table's name in its parts.
type tableName struct {
	schema, table string // schema may be empty
	quoted        string // for SQL
}

// splitTable takes a name apart, or reports with a *NameError that it can't name
// a table of the dialect. "schema.table" is two names, as in the SQL text that
// Kamailio makes of its table parameter; SQLite takes one only.
func splitTable(r dialect, name string) (tableName, error) {
	n := tableName{table: name}
	if i := strings.IndexByte(name, '.'); i >= 0 {
		n.schema, n.table = name[:i], name[i+1:]
		if _, lite := r.(sqliteDialect); lite {
			return n, &NameError{Kind: "table", Name: name, Reason: "has a dot"}
		}
		if err := checkName(r, "table", name, n.schema); err != nil {
			return n, err
		}
		n.quoted = r.quote(n.schema) + "."
	}
	if err := checkName(r, "table", name, n.table); err != nil {
		return n, err
	}
	n.quoted += r.quote(n.table)
	return n, nil
}

// checkName checks part, which is name or the half of it before or after the dot.
func checkName(r dialect, kind, name, part string) error {
	reason := ""
	switch {
	case part == "":
		reason = "is empty"
	case !utf8.ValidString(part):
		reason = "is not valid UTF-8"
	case strings.ContainsFunc(part, unicode.IsControl):
		reason = "has a control character"
	case strings.ContainsAny(part, `\.`):
		// The backslash means something in MySQL's string literals, and depends
		// on sql_mode there; a second dot would be a third name.
		reason = "has a dot or a backslash"
	default:
		reason = r.refuse(part)
	}
	if reason == "" {
		return nil
	}
	return &NameError{Kind: kind, Name: name, Reason: reason}
}

// plain reports whether a name needs no quotes for its characters.
func plain(name string) bool {
	for i, c := range []byte(name) {
		if !(c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z' || i > 0 && '0' <= c && c <= '9') {
			return false
		}
	}
	return name != ""
}

// placeholders numbers the arguments of a statement that is written with '?', for
// a dialect that wants numbers.
func placeholders(r dialect, text string) string {
	var b []byte
	n := 0
	for part := range strings.SplitSeq(text, "?") {
		if n > 0 {
			b = r.appendPlaceholder(b, n)
		}
		b = append(b, part...)
		n++
	}
	return string(b)
}

func quoteWith(q, name string) string {
	return q + strings.ReplaceAll(name, q, q+q) + q
}

// literal is a string in SQL text. It is for checked names and for defaults.
func literal(s string) string { return quoteWith("'", s) }
