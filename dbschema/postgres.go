package dbschema

import (
	"context"
	"database/sql"
	"math"
	"strconv"
	"strings"
)

type postgresDialect struct{}

// quote takes a plain name as PostgreSQL takes it without quotes, which is how
// Kamailio and the scripts write names: in lower case.
func (postgresDialect) quote(name string) string {
	if plain(name) {
		name = strings.ToLower(name)
	}
	return quoteWith(`"`, name)
}

func (postgresDialect) quoteExact(name string) string { return quoteWith(`"`, name) }

// https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
func (postgresDialect) refuse(name string) string {
	if len(name) > 63 {
		return "is longer than 63 bytes"
	}
	return ""
}

func (postgresDialect) idType() string { return "SERIAL PRIMARY KEY NOT NULL" }

func (postgresDialect) columnType(c layoutColumn) string {
	switch c.kind {
	case kindTime:
		return "TIMESTAMP WITHOUT TIME ZONE"
	case kindCount:
		return "INTEGER"
	case kindLong:
		return "TEXT"
	}
	return "VARCHAR(" + strconv.Itoa(c.width) + ")"
}

func (postgresDialect) after(string) string                  { return "" }
func (postgresDialect) indexName(table, index string) string { return table + "_" + index }
func (postgresDialect) versionIndex() string                 { return "version_table_name_idx" }

func (r postgresDialect) retype(t *Table, c Column, typ string) []string {
	s := []string{"ALTER TABLE " + t.name.quoted + " ALTER COLUMN " + r.quoteExact(c.Name) + " TYPE " + typ}
	// The sequence of a SERIAL column has a type, and so a limit, of its own.
	if _, rest, ok := strings.Cut(c.Default.String, "nextval('"); ok {
		if seq, _, ok := strings.Cut(rest, "'::regclass"); ok {
			s = append(s, "ALTER SEQUENCE "+seq+" AS "+typ)
		}
	}
	return s
}

func (postgresDialect) inspect(ctx context.Context, q Queryer, t *Table) (bool, error) {
	found, charBytes := false, 0
	err := each(ctx, q, func(rows *sql.Rows) error {
		var kind string
		found = true
		err := rows.Scan(&kind, &t.Encoding, &charBytes, &t.secret, &t.Rules)
		t.View = kind == "v" || kind == "m"
		return err
	}, "SELECT c.relkind::text, pg_encoding_to_char(d.encoding), pg_encoding_max_length(d.encoding),"+
		" NOT has_table_privilege(c.oid, 'SELECT'), c.relhasrules FROM pg_class c, pg_database d WHERE c.oid = to_regclass($1) AND d.datname = current_database()", t.name.quoted)
	if err != nil || !found {
		return false, err
	}
	err = each(ctx, q, func(rows *sql.Rows) error {
		var c Column
		var mod int
		if err := rows.Scan(&c.Name, &c.Type, &c.Definition, &mod, &c.Nullable, &c.Default, &c.Generated); err != nil {
			return err
		}
		if (c.Type == "varchar" || c.Type == "bpchar") && mod > 4 {
			c.Width = mod - 4 // the length word is counted
		}
		t.Columns = append(t.Columns, c)
		return nil
	}, "SELECT a.attname::text, y.typname::text, format_type(a.atttypid, a.atttypmod), a.atttypmod, NOT a.attnotnull,"+
		" pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '' OR a.attgenerated <> ''"+
		" FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid"+
		" LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"+
		" WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum", t.name.quoted)
	if err != nil {
		return false, err
	}
	err = each(ctx, q, func(rows *sql.Rows) error {
		var name string
		var first sql.NullString
		err := rows.Scan(&name, &first)
		t.Indexes = append(t.Indexes, Index{Name: name, First: first.String})
		return err
	}, "SELECT c.relname::text, a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"+
		" LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"+
		" WHERE i.indrelid = to_regclass($1) AND i.indisvalid ORDER BY c.relname", t.name.quoted)
	if err != nil {
		return false, err
	}
	if t.Encoding != "UTF8" && t.Encoding != "SQL_ASCII" {
		t.charset = newCharset(charBytes)
		if charBytes == 1 {
			postgresUpper(ctx, q, t.Encoding, t.charset, 0, len(t.charset.upper))
		}
	}
	return true, nil
}

// postgresUpper asks for the characters of the bytes 0x80+lo to 0x80+hi-1. The
// server gives none at all when one of them has none, so that one is looked
// for by halves. It never gets there for what it is asked for most: ISO 8859.
func postgresUpper(ctx context.Context, q Queryer, encoding string, c *charset, lo, hi int) {
	in := make([]byte, 0, len(c.upper))
	for i := lo; i < hi; i++ {
		in = append(in, byte(0x80+i))
	}
	var text []byte
	_, err := queryRow(ctx, q, &text, "SELECT convert($1::bytea, $2::name, 'UTF8')", in, encoding)
	switch out := []rune(string(text)); {
	case err == nil && len(out) == len(in):
		copy(c.upper[lo:], out)
		for _, r := range out {
			c.add(r)
		}
	case hi-lo > 1 && ctx.Err() == nil:
		postgresUpper(ctx, q, encoding, c, lo, (lo+hi)/2)
		postgresUpper(ctx, q, encoding, c, (lo+hi)/2, hi)
	}
}

func (postgresDialect) hasVersionTable(ctx context.Context, q Queryer) (bool, error) {
	var found bool
	_, err := queryRow(ctx, q, &found, "SELECT has_table_privilege(oid, 'SELECT') FROM pg_class WHERE oid = to_regclass('version')")
	return found, err
}

func (postgresDialect) idLimit(c *Column) (int64, string) {
	switch c.Type {
	case "int2":
		return math.MaxInt16, "BIGINT"
	case "int4":
		return math.MaxInt32, "BIGINT"
	}
	return 0, ""
}

func (postgresDialect) problems(t *Table, add func(Problem)) {
	text := "widths count bytes"
	switch {
	case t.Encoding == "UTF8":
		return
	case t.charset != nil && t.charset.maxlen == 1:
		text = "text that it can't hold is stored byte by byte"
	case t.charset != nil:
		text = "what is not ASCII is stored as '?'"
	}
	add(Problem{Severity: Note, Place: t.Name, Text: "the database has the encoding " + t.Encoding + ", not UTF8: " + text})
}

func (postgresDialect) prepare(t *Table, c *Column, s *slot) {
	s.enc, s.chars, s.nul = encUnicode, c.Width, true
	switch {
	case c.Type == "bytea":
		s.enc, s.nul, s.blob = encBytes, false, true
	case t.charset != nil:
		s.enc, s.charset = encCharset, t.charset
	case t.Encoding == "SQL_ASCII": // no conversion, and a byte counts as a character
		s.chars, s.bytes = 0, c.Width
	}
}

func (postgresDialect) appendPlaceholder(dst []byte, n int) []byte {
	return strconv.AppendInt(append(dst, '$'), int64(n), 10)
}

// Bind counts its parameters in 16 bits.
func (postgresDialect) maxArgs() int { return math.MaxUint16 }

func (postgresDialect) logTable() []string {
	return []string{logTable("BIGSERIAL PRIMARY KEY", "TIMESTAMP WITHOUT TIME ZONE", "TEXT", ")"), logIndex}
}
