package dbschema

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mysqlDialect is MySQL and MariaDB.
type mysqlDialect struct{}

func (mysqlDialect) quote(name string) string      { return quoteWith("`", name) }
func (mysqlDialect) quoteExact(name string) string { return quoteWith("`", name) }

// https://mariadb.com/kb/en/identifier-names/
func (mysqlDialect) refuse(name string) string {
	switch {
	case utf8.RuneCountInString(name) > 64:
		return "is longer than 64 characters"
	case strings.HasSuffix(name, " "):
		return "ends in a space"
	case strings.ContainsFunc(name, func(r rune) bool { return r > 0xFFFF }):
		return "has a character above U+FFFF"
	}
	return ""
}

func (mysqlDialect) idType() string { return "INT(10) UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL" }

func (mysqlDialect) columnType(c layoutColumn) string {
	switch c.kind {
	case kindTime:
		return "DATETIME"
	case kindCount:
		return "INT UNSIGNED"
	case kindLong:
		return "MEDIUMTEXT"
	}
	return "VARCHAR(" + strconv.Itoa(c.width) + ")"
}

func (r mysqlDialect) after(quoted string) string     { return " AFTER " + quoted }
func (mysqlDialect) indexName(_, index string) string { return index }
func (mysqlDialect) versionIndex() string             { return "table_name_idx" }

// retype has to repeat whatever shall not change.
func (r mysqlDialect) retype(t *Table, c Column, typ string) []string {
	s := "ALTER TABLE " + t.name.quoted + " MODIFY " + r.quote(c.Name) + " " + typ
	if c.Charset != "" {
		s += " CHARACTER SET " + c.Charset
		if c.Collation != "" {
			s += " COLLATE " + c.Collation
		}
	}
	if !c.Nullable {
		s += " NOT NULL"
	}
	switch d := c.Default.String; {
	case c.Generated:
		s += " AUTO_INCREMENT"
	case !c.Default.Valid || d == "NULL":
	case strings.HasPrefix(d, "'"): // MariaDB writes the literal, MySQL its value
		s += " DEFAULT " + d
	default:
		s += " DEFAULT " + literal(d)
	}
	return []string{s}
}

func (mysqlDialect) inspect(ctx context.Context, q Queryer, t *Table) (bool, error) {
	const where = " WHERE TABLE_SCHEMA = IF(? = '', DATABASE(), ?) AND TABLE_NAME = ?"
	key := []any{t.name.schema, t.name.schema, t.name.table}
	found := false
	err := each(ctx, q, func(rows *sql.Rows) error {
		var kind string
		var engine sql.NullString
		found = true
		err := rows.Scan(&kind, &engine)
		t.View, t.Engine = strings.Contains(kind, "VIEW"), engine.String
		return err
	}, "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES"+where, key...)
	if err != nil || !found {
		return false, err
	}
	err = each(ctx, q, func(rows *sql.Rows) error {
		var c Column
		var nullable, extra string
		var width, octets sql.NullInt64
		var charset, collation sql.NullString
		if err := rows.Scan(&c.Name, &c.Type, &c.Definition, &width, &octets, &nullable, &c.Default, &charset, &collation, &extra); err != nil {
			return err
		}
		c.Type, extra = strings.ToLower(c.Type), strings.ToLower(extra)
		c.Nullable = nullable == "YES"
		c.Generated = strings.Contains(extra, "auto_increment") || strings.Contains(extra, " generated")
		c.Charset, c.Collation = charset.String, collation.String
		if strings.HasSuffix(c.Type, "text") { // limited in bytes only
			c.Octets = int(min(octets.Int64, math.MaxInt32))
		} else {
			c.Width = int(width.Int64)
		}
		t.Columns = append(t.Columns, c)
		return nil
	}, "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_MAXIMUM_LENGTH, CHARACTER_OCTET_LENGTH, IS_NULLABLE,"+
		" COLUMN_DEFAULT, CHARACTER_SET_NAME, COLLATION_NAME, EXTRA FROM information_schema.COLUMNS"+where+
		" ORDER BY ORDINAL_POSITION", key...)
	if err != nil {
		return false, err
	}
	err = each(ctx, q, func(rows *sql.Rows) error {
		var name string
		var first sql.NullString
		err := rows.Scan(&name, &first)
		t.Indexes = append(t.Indexes, Index{Name: name, First: first.String})
		return err
	}, "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS"+where+" AND SEQ_IN_INDEX = 1", key...)
	if err != nil {
		return false, err
	}
	known := map[string]*charset{}
	for i := range t.Columns {
		c := &t.Columns[i]
		if c.Charset == "" || unicodeCharset(c.Charset) != encNone {
			continue
		}
		if known[c.Charset] == nil {
			if known[c.Charset], err = mysqlCharset(ctx, q, c.Charset); err != nil {
				return false, fmt.Errorf("character set %s: %w", c.Charset, err)
			}
		}
		c.charset = known[c.Charset]
	}
	return true, nil
}

// unicodeCharset is how text is encoded for a character set that is a form of
// Unicode, encNone for any other.
func unicodeCharset(name string) encoding {
	switch name {
	case "utf8mb4", "utf16", "utf16le", "utf32":
		return encUnicode
	case "utf8mb3", "utf8", "ucs2":
		return encBMP
	}
	return encNone
}

// mysqlCharset asks the server which characters a character set has: there are
// many, and MySQL's latin1 is a mixture of its own (cp1252, with the control
// characters of ISO 8859-1 in its five holes).
func mysqlCharset(ctx context.Context, q Queryer, name string) (*charset, error) {
	switch {
	case name == "ascii": // some servers make an error of bytes that it lacks
		return newCharset(1), nil
	case !plain(name):
		return nil, fmt.Errorf("%q is not a name", name)
	}
	maxlen := 1
	if _, err := queryRow(ctx, q, &maxlen, "SELECT MAXLEN FROM information_schema.CHARACTER_SETS WHERE CHARACTER_SET_NAME = ?", name); err != nil {
		return nil, err
	}
	c := newCharset(maxlen)
	// In a SELECT the server puts '?' for what it can't convert. Hexadecimal
	// keeps the connection's own character set out of it.
	convert := func(b []byte, via string) ([]rune, error) {
		var out sql.NullString
		_, err := queryRow(ctx, q, &out, "SELECT HEX(CONVERT(CONVERT("+fmt.Sprintf(via, b)+" USING "+name+") USING utf8mb4))")
		if err != nil {
			return nil, err
		}
		text, err := hex.DecodeString(out.String)
		return []rune(string(text)), err
	}
	if maxlen == 1 {
		in := make([]byte, 128)
		for i := range in {
			in[i] = byte(0x80 + i)
		}
		out, err := convert(in, "X'%X'")
		if err != nil || len(out) != len(in) { // a server may give NULL where no byte has a character
			return c, err
		}
		copy(c.upper[:], out)
		for _, r := range out {
			c.add(r)
		}
		return c, nil
	}
	// No byte from 0x80 on is a character by itself in all of these, so there is
	// no lossless way for what isn't text; but text they have is kept.
	in := make([]rune, 0, 1<<16)
	for r := rune(0x80); r <= 0xFFFF; r++ {
		if utf8.ValidRune(r) {
			in = append(in, r)
		}
	}
	out, err := convert([]byte(string(in)), "CONVERT(X'%X' USING utf8mb4)")
	if err != nil || len(out) != len(in) {
		return c, err
	}
	for i, r := range out {
		if r == in[i] {
			c.add(r)
		}
	}
	return c, nil
}

func (mysqlDialect) hasVersionTable(ctx context.Context, q Queryer) (bool, error) {
	var n int
	_, err := queryRow(ctx, q, &n, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'version'")
	return n > 0, err
}

func (mysqlDialect) idLimit(c *Column) (int64, string) {
	bits := map[string]int{"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32}[c.Type]
	switch {
	case bits == 0:
		return 0, ""
	case strings.Contains(c.Definition, "unsigned"):
		return 1<<bits - 1, "BIGINT UNSIGNED"
	}
	return 1<<(bits-1) - 1, "BIGINT"
}

func (r mysqlDialect) problems(t *Table, add func(Problem)) {
	if t.Engine != "" && t.Engine != "InnoDB" {
		add(Problem{
			Severity: Warning, Place: t.Name,
			Text: "engine " + t.Engine + " has no transactions: a crash in the middle of a batch can lose or double rows",
			Fix:  []string{"ALTER TABLE " + t.name.quoted + " ENGINE = InnoDB"},
		})
	}
	if c := t.Column(fieldCallID); c != nil && (c.Charset == "" || !strings.HasSuffix(c.Collation, "_ci")) {
		p := Problem{
			Severity: Warning, Place: t.Name + "." + c.Name,
			Text: "comparison depends on letter case (" + c.Collation + "): readers that search in capitals find nothing",
		}
		if c.Charset == "" {
			p.Text = "type " + c.Type + " compares bytes: readers that search in capitals find nothing"
		} else {
			ci := *c
			ci.Collation = "" // the default of the set, which never depends on case
			p.Fix = r.retype(t, ci, c.Definition)
		}
		add(p)
	}
	if c := t.Column(fieldMsg); c != nil && c.Charset != "" && unicodeCharset(c.Charset) != encUnicode {
		add(Problem{
			Severity: Note, Place: t.Name + "." + c.Name,
			Text: "character set " + c.Charset + " lacks part of Unicode: text that it can't hold is stored byte by byte",
		})
	}
}

// The bounds of MySQL's types of time. The server's time zone, which is not known
// here, moves those of TIMESTAMP, and ours those of DATETIME: a day is left free.
// (MySQL 8.4 Reference Manual, section 13.2.2)
const (
	day               = 24 * 60 * 60
	firstOfTimestamp  = 1 + day             // 1970-01-01 00:00:01 UTC
	latestOfTimestamp = math.MaxInt32 - day // 2038-01-19 03:14:07 UTC
	firstOfDatetime   = -30610224000 + day  // 1000-01-01 00:00:00
	latestOfDatetime  = 253402300799 - day  // 9999-12-31 23:59:59
)

func (mysqlDialect) prepare(_ *Table, c *Column, s *slot) {
	switch c.Type {
	case "timestamp":
		s.earliest, s.latest = firstOfTimestamp, latestOfTimestamp
	case "datetime":
		s.earliest, s.latest = firstOfDatetime, latestOfDatetime
	}
	s.chars = c.Width
	if c.Charset == "" { // binary strings, and types that are not strings
		s.enc = encBytes
		s.chars = max(c.Width, c.Octets)
		return
	}
	s.enc, s.charset = unicodeCharset(c.Charset), c.charset
	switch {
	case s.charset != nil:
		s.enc = encCharset
		if c.Octets > 0 {
			s.chars = c.Octets / s.charset.maxlen
		}
	case strings.HasPrefix(c.Charset, "utf8"):
		s.bytes = c.Octets
	case c.Octets > 0: // UTF-16, UTF-32
		s.chars = c.Octets / 4
	}
}

func (mysqlDialect) appendPlaceholder(dst []byte, _ int) []byte { return append(dst, '?') }

// A prepared statement counts its parameters in 16 bits.
func (mysqlDialect) maxArgs() int { return math.MaxUint16 }

func (mysqlDialect) logTable() []string {
	return []string{logTable("BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY", "DATETIME", "MEDIUMTEXT", ", KEY callid_idx (callid)) DEFAULT CHARACTER SET utf8mb4")}
}
