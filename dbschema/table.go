package dbschema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"siptraced/compat/siptrace"
)

// ErrNoTable means that there is no table, or view, of that name.
var ErrNoTable = errors.New("no such table")

// Form is which definition of sip_trace a table follows. It is told from the
// columns: the version row means different things in different projects.
type Form uint8

// The forms.
const (
	FormUnknown  Form = iota // lacks a column that every form has
	Form2006                 // OpenSER 1.1: column date, 64-bit id, no version row
	FormV1                   // OpenSER 1.3: column date
	FormV2                   // Kamailio and OpenSIPS 1.4, OpenSIPS to 1.11: time_stamp
	FormV3                   // Kamailio 3.2: time_us
	FormV4                   // Kamailio 4.3 and later: totag
	FormOpenSIPS             // OpenSIPS 2.1 and later: addresses in three columns each
)

func (f Form) String() string {
	switch f {
	case Form2006:
		return "OpenSER 2006"
	case FormV1:
		return "version 1 (OpenSER 1.3)"
	case FormV2:
		return "version 2 (Kamailio 1.4, OpenSIPS 1.4 to 1.11)"
	case FormV3:
		return "version 3 (Kamailio 3.2)"
	case FormV4:
		return "version 4 (Kamailio 4.3 and later)"
	case FormOpenSIPS:
		return "OpenSIPS 2.1 and later"
	}
	return "unknown"
}

// Column is a column as the database has it.
type Column struct {
	Name       string
	Type       string // without its arguments, lower case: varchar, datetime, int4
	Definition string // as the database writes it: varchar(255), int(10) unsigned
	Width      int    // characters; bytes in a binary column; 0: no limit, or none that is held to
	Octets     int    // bytes in the column's own character set; 0: no limit but Width
	Nullable   bool
	Default    sql.NullString // as the database writes it
	Generated  bool           // numbered or computed by the database
	Charset    string         // MySQL; "" in a column that is not text
	Collation  string         // MySQL

	charset *charset // MySQL character sets that are not Unicode
}

// Index is an index as the database has it.
type Index struct {
	Name  string
	First string // name of its first column; "" for an expression
}

// Table is an existing table, or a view on one. It is read by Inspect and not
// changed afterwards.
type Table struct {
	Dialect Dialect
	Name    string // as it was asked for
	View    bool
	Form    Form
	Columns []Column
	Indexes []Index

	Engine   string // MySQL: InnoDB, MyISAM, ...
	Rules    bool   // PostgreSQL: there are rewrite rules on the table
	Encoding string // PostgreSQL: that of the database
	// JulianDay means that the time column holds Julian day numbers (UTC, half a
	// second early), which is what Kamailio's db_sqlite writes. It is true when
	// the newest row has one; a new table gets text.
	JulianDay bool

	VersionTable bool // there is a table version
	// Version is the table's row in it, 0 when there is none: what Kamailio
	// compares with 4 when it starts.
	Version int
	MaxID   int64 // largest id, 0 in an empty table and where rows can't be read

	name    tableName
	want    siptrace.Columns
	fields  [numFields]int // index in Columns plus 1; 0: the table has no such column
	charset *charset       // PostgreSQL: that of Encoding where it is not Unicode
	secret  bool           // PostgreSQL: rows can't be read
}

// Column returns the column that holds a field, nil when there is none.
func (t *Table) Column(f Field) *Column {
	if f >= numFields || t.fields[f] == 0 {
		return nil
	}
	return &t.Columns[t.fields[f]-1]
}

// Inspect reads what the database says of a table. cols are the names of the
// *_column parameters: a field is looked for under the name given there, then
// under the names that the known forms use. A column's letter case does not
// matter.
//
// A name without quotes means to PostgreSQL its lower-case form, and Kamailio
// never quotes: so a plain name is looked for, and used, in lower case there.
//
// The error is ErrNoTable, wrapped with the name, when there is no such table,
// a *NameError for a name that can't be one, or the database's own.
func Inspect(ctx context.Context, q Queryer, d Dialect, table string, cols siptrace.Columns) (*Table, error) {
	r, err := d.impl()
	if err != nil {
		return nil, err
	}
	t := &Table{Dialect: d, Name: table, want: cols}
	if t.name, err = splitTable(r, table); err != nil {
		return nil, err
	}
	found, err := r.inspect(ctx, q, t)
	if err != nil {
		return nil, fmt.Errorf("dbschema: read the definition of %s: %w", table, err)
	}
	if !found {
		return nil, fmt.Errorf("dbschema: %s: %w", table, ErrNoTable)
	}
	t.assign()
	t.Form = t.form()
	if err := t.readVersion(ctx, q, r); err != nil {
		return nil, fmt.Errorf("dbschema: read the version of %s: %w", table, err)
	}
	if id := t.find("id"); id != 0 && !t.secret {
		var largest sql.NullInt64
		// The type of the result must not depend on the column's: PostgreSQL would
		// refuse the prepared statement after the column has been widened.
		query := "SELECT CAST(MAX(" + r.quoteExact(t.Columns[id-1].Name) + ") AS DECIMAL(20)) FROM " + t.name.quoted
		// A user that may only add rows is enough for everything else.
		if _, err := queryRow(ctx, q, &largest, query); err == nil {
			t.MaxID = largest.Int64
		}
	}
	return t, nil
}

// readVersion does what Kamailio does before it uses a table.
func (t *Table) readVersion(ctx context.Context, q Queryer, r dialect) (err error) {
	if t.VersionTable, err = r.hasVersionTable(ctx, q); err != nil || !t.VersionTable {
		return err
	}
	_, err = queryRow(ctx, q, &t.Version, "SELECT table_version FROM version WHERE table_name = "+literal(t.Name))
	return err
}

// find returns the place of the column in t.Columns plus 1, or 0.
func (t *Table) find(name string) int {
	for i := range t.Columns {
		if name != "" && strings.EqualFold(t.Columns[i].Name, name) {
			return i + 1
		}
	}
	return 0
}

// assign finds the column of each field: first all configured names, so that
// none is taken for something else, then the known ones.
func (t *Table) assign() {
	take := func(f Field, name string) {
		i := t.find(name)
		if i != 0 && t.fields[f] == 0 && !slices.Contains(t.fields[:], i) {
			t.fields[f] = i
		}
	}
	for f := range numFields {
		take(f, configured(t.want, f))
	}
	for f := range numFields {
		for _, name := range fieldNames[f] {
			take(f, name)
		}
	}
}

// missing are the fields that every form has and t lacks.
func (t *Table) missing() []Field {
	var m []Field
	for f := fieldTime; f <= fieldDirection; f++ {
		if t.fields[f] != 0 || f.optional() {
			continue
		}
		split := f == fieldFromIP && t.has(fieldFromProto, fieldFromHost, fieldFromPort) ||
			f == fieldToIP && t.has(fieldToProto, fieldToHost, fieldToPort)
		if !split {
			m = append(m, f)
		}
	}
	return m
}

// SelectMessages is the statement that reads the messages of a call, whose Call-ID is
// its argument; "" where the columns for that are missing.
func (t *Table) SelectMessages() string {
	r, err := t.Dialect.impl()
	if err != nil || !t.has(fieldMsg, fieldCallID) {
		return ""
	}
	msg, call := r.quoteExact(t.Column(fieldMsg).Name), r.quoteExact(t.Column(fieldCallID).Name)
	return placeholders(r, "SELECT "+msg+" FROM "+t.name.quoted+" WHERE "+call+" = ?")
}

func (t *Table) has(fields ...Field) bool {
	for _, f := range fields {
		if t.fields[f] == 0 {
			return false
		}
	}
	return true
}

func (t *Table) form() Form {
	switch {
	case len(t.missing()) > 0:
		return FormUnknown
	case !t.has(fieldFromIP) || !t.has(fieldToIP):
		return FormOpenSIPS
	case t.has(fieldToTag):
		return FormV4
	case t.has(fieldTimeUS):
		return FormV3
	case !strings.EqualFold(t.Column(fieldTime).Name, "date"):
		return FormV2
	}
	if id := t.find("id"); id != 0 && strings.HasPrefix(t.Columns[id-1].Type, "bigint") {
		return Form2006
	}
	return FormV1
}

// queryRow scans the first row of a query with one column into dest; ok is
// false when there is no row.
func queryRow(ctx context.Context, q Queryer, dest any, query string, args ...any) (ok bool, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	if rows.Next() {
		if err := rows.Scan(dest); err != nil {
			return false, err
		}
		ok = true
	}
	return ok, rows.Err()
}

// each runs scan for every row of a query.
func each(ctx context.Context, q Queryer, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
