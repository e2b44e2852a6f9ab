package dbschema

import (
	"errors"
	"strings"
	"testing"

	"siptraced/compat/siptrace"
)

func TestTableNames(t *testing.T) {
	tests := []struct {
		name                  string
		mysql, postgres, lite string // quoted; "" for an error
	}{
		{"sip_trace", "`sip_trace`", `"sip_trace"`, "sip_trace"},
		{"SIP_Trace", "`SIP_Trace`", `"sip_trace"`, `"SIP_Trace"`},
		{"order", "`order`", `"order"`, `"order"`},
		{"2026-11", "`2026-11`", `"2026-11"`, `"2026-11"`},
		{"a`b", "`a``b`", "\"a`b\"", "\"a`b\""},
		{`a"b`, "`a\"b`", `"a""b"`, `"a""b"`},
		{"x; DROP TABLE version", "`x; DROP TABLE version`", `"x; DROP TABLE version"`, `"x; DROP TABLE version"`},
		{"spür", "`spür`", `"spür"`, `"spür"`},
		{"homer.sip_trace", "`homer`.`sip_trace`", `"homer"."sip_trace"`, ""},
		{"", "", "", ""},
		{"a.b.c", "", "", ""},
		{".a", "", "", ""},
		{"a.", "", "", ""},
		{"a\x00b", "", "", ""},
		{"a\nb", "", "", ""},
		{`a\b`, "", "", ""},
		{"a\xffb", "", "", ""},
		{strings.Repeat("x", 64), "`" + strings.Repeat("x", 64) + "`", "", `"` + strings.Repeat("x", 64) + `"`},
		{strings.Repeat("x", 65), "", "", `"` + strings.Repeat("x", 65) + `"`},
		{"end ", "", `"end "`, `"end "`},
		{"a😀", "", `"a😀"`, `"a😀"`},
		{"sqlite_x", "`sqlite_x`", `"sqlite_x"`, ""},
	}
	for _, tt := range tests {
		for d, want := range map[Dialect]string{MySQL: tt.mysql, PostgreSQL: tt.postgres, SQLite: tt.lite} {
			r, err := d.impl()
			if err != nil {
				t.Fatal(err)
			}
			n, err := splitTable(r, tt.name)
			var nameErr *NameError
			switch {
			case want == "" && !errors.As(err, &nameErr):
				t.Errorf("%v, %q: got %s, %v, want a NameError", d, tt.name, n.quoted, err)
			case want != "" && (err != nil || n.quoted != want):
				t.Errorf("%v, %q: got %s, %v, want %s", d, tt.name, n.quoted, err, want)
			}
		}
	}
	if _, err := Create(Dialect(9), "x", siptrace.DefaultColumns()); err == nil {
		t.Error("an unknown dialect is not refused")
	}
}

func TestCreateRefusesNames(t *testing.T) {
	named := func(set func(*siptrace.Columns)) siptrace.Columns {
		c := siptrace.DefaultColumns()
		set(&c)
		return c
	}
	tests := []struct {
		name  string
		table string
		cols  siptrace.Columns
		want  string
	}{
		{"table", "a\x00", siptrace.DefaultColumns(), `dbschema: table name "a\x00": has a control character`},
		{
			"no room in version", strings.Repeat("x", 33), siptrace.DefaultColumns(),
			`dbschema: table name "` + strings.Repeat("x", 33) + `": is longer than the 32 characters that the table version has room for`,
		},
		{"column", "t", named(func(c *siptrace.Columns) { c.Msg = "a.b" }), `dbschema: column name "a.b": has a dot or a backslash`},
		{"column twice", "t", named(func(c *siptrace.Columns) { c.Msg = "CallID" }), `dbschema: column name "CallID": is the name of two columns`},
		{"column id", "t", named(func(c *siptrace.Columns) { c.Date = "ID" }), `dbschema: column name "ID": is the name of two columns`},
	}
	for _, tt := range tests {
		for _, d := range []Dialect{MySQL, PostgreSQL, SQLite} {
			stmts, err := Create(d, tt.table, tt.cols)
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s, %v: got %q, %v, want error %s", tt.name, d, stmts, err, tt.want)
			}
		}
	}
}

func TestCreateRefusesIndexNames(t *testing.T) {
	table := strings.Repeat("中", 20) // 60 bytes
	want := `dbschema: index name "` + table + `_traced_user_idx": is longer than 63 bytes`
	if stmts, err := Create(PostgreSQL, table, siptrace.DefaultColumns()); err == nil || err.Error() != want {
		t.Errorf("got %q, %v, want error %s", stmts, err, want)
	}
	if _, err := Create(MySQL, table, siptrace.DefaultColumns()); err != nil {
		t.Errorf("MySQL: %v", err)
	}
}

func TestDialectOf(t *testing.T) {
	for driver, want := range map[string]Dialect{"mysql": MySQL, "postgres": PostgreSQL, "sqlite": SQLite, "text": 0, "": 0} {
		if got, ok := DialectOf(driver); got != want || ok != (want != 0) {
			t.Errorf("DialectOf(%q): got %v, %v, want %v", driver, got, ok, want)
		}
	}
}
