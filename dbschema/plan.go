package dbschema

import (
	"math"
	"slices"
	"strings"
	"time"
)

// PlanError means that rows of the table can't be written.
type PlanError struct {
	Table    string
	Missing  []Field  // fields without a column
	Unfilled []string // columns that need a value and have no field
}

func (e *PlanError) Error() string {
	var b strings.Builder
	b.WriteString("dbschema: " + e.Table + " can't be filled:")
	for i, f := range e.Missing {
		b.WriteString([]string{" no column ", ", "}[min(i, 1)] + f.String())
	}
	if len(e.Missing) > 0 && len(e.Unfilled) > 0 {
		b.WriteByte(';')
	}
	for i, name := range e.Unfilled {
		b.WriteString([]string{" nothing known to put into ", ", "}[min(i, 1)] + name)
	}
	return b.String()
}

// encoding is how the text of a record becomes a column's value.
type encoding uint8

const (
	encNone    encoding = iota
	encUnicode          // every character
	encBMP              // characters to U+FFFF
	encCharset          // the characters of slot.charset
	encBytes            // any bytes; a character is a byte
)

// slot is one column of the INSERT.
type slot struct {
	field   Field
	name    string
	enc     encoding
	charset *charset // of encCharset
	nul     bool     // the column can't hold NUL
	blob    bool     // the driver must see []byte
	chars   int      // limit in characters, 0 for none
	bytes   int      // limit in bytes of UTF-8, 0 for none
	most    int64    // the column holds whole numbers, to this one; 0: it is no such column
	// earliest and latest are the bounds of a column of times, in Unix seconds;
	// latest is 0 where there are none to know of.
	earliest, latest int64
}

// Plan is how rows of one table are written. It can be used by several
// goroutines at once.
//
// What becomes of a value depends on its column:
//
//	MySQL utf8mb4, utf16, utf32   UTF-8 text goes as it is. A value that is not
//	PostgreSQL UTF8, SQL_ASCII    valid UTF-8 goes byte by byte: each from 0x80
//	SQLite                        on as the Latin-1 character of its value.
//	MySQL utf8mb3, ucs2           The same; a character above U+FFFF goes as the
//	                              Latin-1 characters of its four bytes.
//	MySQL latin1, cp1251, ...     UTF-8 text whose characters the set has goes as
//	PostgreSQL LATIN1, ...        it is, and the server converts it. Any other
//	(a byte is a character)       value arrives byte by byte, unchanged. A byte
//	                              that means nothing in the set becomes '?'.
//	MySQL gbk, sjis, ...          UTF-8 text whose characters the set has goes as
//	                              it is; else each byte from 0x80 on becomes '?'.
//	PostgreSQL EUC_JP, ...        Each byte from 0x80 on becomes '?'.
//	MySQL BLOB, BINARY            The bytes unchanged.
//	PostgreSQL bytea
//
// NUL, which no text of PostgreSQL can hold, becomes U+2400 (SYMBOL FOR NULL)
// there, or '?' where the encoding lacks that. Cutting never splits a
// character. In a column of whole numbers, text that is none, or that is larger
// than the column holds, becomes 0, and a port over 65535 too. A time outside of
// what the column holds becomes the first or last one that it does.
type Plan struct {
	dialect dialect
	table   string // quoted
	slots   []slot
	julian  bool
	wall    bool // the time column takes a time.Time: the wall clock, as if it were UTC
	copies  bool
	undoes  bool // the engine has transactions
	view    bool
	newest  string // copies the newest row; "" where that is not possible
}

// integers are the types of whole numbers of MySQL and PostgreSQL.
var integers = []string{"tinyint", "smallint", "mediumint", "int", "bigint", "int2", "int4", "int8"}

// NewPlan plans the writing of a table. The error is a *PlanError.
func NewPlan(t *Table) (*Plan, error) {
	r, err := t.Dialect.impl()
	if err != nil {
		return nil, err
	}
	if m, u := t.missing(), t.unfilled(); len(m) > 0 || len(u) > 0 {
		return nil, &PlanError{Table: t.Name, Missing: m, Unfilled: u}
	}
	p := &Plan{dialect: r, table: t.name.quoted, julian: t.JulianDay, undoes: t.Engine == "" || t.Engine == "InnoDB", view: t.View}
	if c := t.Column(fieldTime); t.Dialect == PostgreSQL && c != nil {
		p.wall = c.Type == "timestamp"
		p.copies = p.wall && !t.View && !t.Rules
	}
	for f := range numFields {
		c := t.Column(f)
		if c == nil {
			continue
		}
		s := slot{field: f, name: c.Name}
		r.prepare(t, c, &s)
		if t.Dialect != SQLite && slices.Contains(integers, c.Type) { // SQLite holds to no type
			if s.most, _ = r.idLimit(c); s.most == 0 {
				s.most = math.MaxInt64
			}
		}
		p.slots = append(p.slots, s)
	}
	if id := t.find("id"); id != 0 {
		columns := p.columns()
		p.newest = "INSERT INTO " + p.table + " (" + columns + ") SELECT " + columns + " FROM " + p.table + " ORDER BY " + r.quoteExact(t.Columns[id-1].Name) + " DESC LIMIT 1"
	}
	return p, nil
}

// Undoes reports whether a rollback takes rows back: not so with MyISAM and its
// like.
func (p *Plan) Undoes() bool { return p.undoes }

// InsertNewest is the statement that copies the newest row of the table, to learn
// whether the table still takes what it took before; "" where there is none.
func (p *Plan) InsertNewest() string { return p.newest }

// columns are the columns for SQL.
func (p *Plan) columns() string {
	var b strings.Builder
	for i, s := range p.slots {
		b.WriteString([]string{"", ", "}[min(i, 1)] + p.dialect.quoteExact(s.name))
	}
	return b.String()
}

// Columns are the columns that a row gives a value to, in the order of the
// arguments.
func (p *Plan) Columns() []string {
	names := make([]string, len(p.slots))
	for i, s := range p.slots {
		names[i] = s.name
	}
	return names
}

// MaxRows is the largest number of rows that one statement can have arguments
// for.
func (p *Plan) MaxRows() int { return p.dialect.maxArgs() / len(p.slots) }

// Equal reports whether rows are written in the same way by p and q, plans of
// the same table at different times.
func (p *Plan) Equal(q *Plan) bool {
	return p.dialect == q.dialect && p.table == q.table && p.julian == q.julian && p.wall == q.wall && p.copies == q.copies &&
		slices.EqualFunc(p.slots, q.slots, func(a, b slot) bool {
			same := a.charset == b.charset || a.charset != nil && b.charset != nil && *a.charset == *b.charset
			a.charset, b.charset = nil, nil
			return same && a == b
		})
}

// Insert is the statement for n rows, 1 to MaxRows. Its arguments are those of
// AppendArgs, row after row.
func (p *Plan) Insert(n int) string {
	b := make([]byte, 0, 64+n*len(p.slots)*6)
	b = append(b, "INSERT INTO "...)
	b = append(b, p.table...)
	b = append(b, " ("...)
	b = append(b, p.columns()...)
	b = append(b, ") VALUES"...)
	for row := range n {
		b = append(b, []string{" (", ", ("}[min(row, 1)]...)
		for i := range p.slots {
			if i > 0 {
				b = append(b, ',')
			}
			b = p.dialect.appendPlaceholder(b, row*len(p.slots)+i+1)
		}
		b = append(b, ')')
	}
	return string(b)
}

// NewEncoder returns an encoder of rows; times are written in loc, nil for the
// machine's own zone.
func (p *Plan) NewEncoder(loc *time.Location) *Encoder {
	if loc == nil {
		loc = time.Local
	}
	return &Encoder{plan: p, loc: loc}
}

// Copies reports whether the rows can be written with PostgreSQL's COPY, whose
// arguments are those of Insert: a table, without rules for INSERT.
func (p *Plan) Copies() bool { return p.copies }

// Identifier is the table's name as the catalog has it, for COPY: the schema, if
// it is named, and the table.
func (p *Plan) Identifier() []string {
	var parts []string
	for part := range strings.SplitSeq(p.table, ".") { // no name has a dot, see splitTable
		if name, ok := strings.CutPrefix(part, `"`); ok {
			parts = append(parts, strings.ReplaceAll(strings.TrimSuffix(name, `"`), `""`, `"`))
		} else {
			parts = append(parts, strings.ToLower(part))
		}
	}
	return parts
}
