package dbschema

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Severity is how much a problem matters.
type Severity uint8

// The severities.
const (
	Note    Severity = iota // works; good to know
	Warning                 // rows are cut, or a reader suffers
	Error                   // rows can't be written, or Kamailio refuses the table
)

func (s Severity) String() string {
	switch s {
	case Note:
		return "note"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return "Severity(" + strconv.Itoa(int(s)) + ")"
}

// Problem is something about a table that its owner should know.
type Problem struct {
	Severity Severity
	Place    string   // table, table.column, or version
	Text     string   // one sentence, no full stop
	Fix      []string // statements that fix it, in their order; nil where there are none
}

func (p Problem) String() string { return p.Severity.String() + ": " + p.Place + ": " + p.Text }

// Check compares a table with the current form and returns what differs to the
// harm of someone: of rows, of Kamailio, of the programs that read the table.
// Fixing in the order of the list is safe.
func (t *Table) Check() []Problem {
	r, err := t.Dialect.impl()
	if err != nil {
		return nil
	}
	var ps []Problem
	add := func(p Problem) { ps = append(ps, p) }
	t.checkColumns(r, add)
	if !t.View {
		t.checkWidths(r, add)
		t.checkID(r, add)
		t.checkIndexes(r, add)
		r.problems(t, add)
	}
	t.checkVersion(r, add)
	return ps
}

func (t *Table) checkColumns(r dialect, add func(Problem)) {
	if t.View {
		add(Problem{Severity: Note, Place: t.Name, Text: "is a view: rows can be written only as far as the database can trace them to one table"})
	}
	if t.Form != FormV4 && t.Form != FormUnknown {
		add(Problem{Severity: Note, Place: t.Name, Text: "has the form of " + t.Form.String() + " and is filled as it is"})
	}
	missing := t.missing()
	for f := fieldTime; f <= fieldDirection; f++ {
		if f.optional() && t.fields[f] == 0 {
			missing = append(missing, f)
		}
	}
	slices.Sort(missing)
	for _, f := range missing {
		name := configured(t.want, f)
		if name == "" {
			name = f.String()
		}
		p := Problem{Severity: Error, Place: t.Name + "." + name, Text: "the column is missing"}
		if f.optional() {
			p.Severity = Note
		}
		if f != fieldMsg && !t.View && t.Form != FormOpenSIPS {
			stmt := "ALTER TABLE " + t.name.quoted + " ADD COLUMN " + columnText(r, name, columnDef(r, layout[f]))
			if f > 0 && t.fields[f-1] != 0 {
				stmt += r.after(r.quoteExact(t.Column(f - 1).Name))
			}
			p.Fix = []string{stmt}
		}
		add(p)
	}
	for f := range numFields {
		c, want := t.Column(f), configured(t.want, f)
		if c != nil && want != "" && want != f.String() && !strings.EqualFold(c.Name, want) {
			add(Problem{Severity: Warning, Place: t.Name + "." + want, Text: "the configured column is missing; " + c.Name + " is used"})
		}
	}
	for _, name := range t.unfilled() {
		add(Problem{Severity: Error, Place: t.Name + "." + name, Text: "the column needs a value, has no default, and nothing is known to put there"})
	}
}

// unfilled are columns without which no row can be written and for which there
// is no value.
func (t *Table) unfilled() []string {
	var names []string
	for i, c := range t.Columns {
		if !c.Nullable && !c.Default.Valid && !c.Generated && !t.View && !slices.Contains(t.fields[:], i+1) {
			names = append(names, c.Name)
		}
	}
	return names
}

func (t *Table) checkWidths(r dialect, add func(Problem)) {
	// status and direction are left out: three digits and a short word fit anywhere.
	for _, f := range []Field{
		fieldCallID, fieldTracedUser, fieldMsg, fieldMethod,
		fieldFromIP, fieldToIP, fieldFromTag, fieldToTag,
	} {
		c := t.Column(f)
		if c == nil {
			continue
		}
		have, want, unit := c.Width, layout[f].width, "characters"
		if f == fieldMsg {
			have, want, unit = max(c.Width, c.Octets), 1<<24-1, "bytes" // of MEDIUMTEXT
		}
		if have == 0 || have >= want {
			continue
		}
		add(Problem{
			Severity: Warning, Place: t.Name + "." + c.Name,
			Text: fmt.Sprintf("has room for %d %s, not %d: longer values are cut", have, unit, want),
			Fix:  r.retype(t, *c, r.columnType(layout[f])),
		})
	}
}

func (t *Table) checkID(r dialect, add func(Problem)) {
	i := t.find("id")
	if i == 0 {
		add(Problem{Severity: Warning, Place: t.Name + ".id", Text: "the column is missing: readers order the messages of a call by it"})
		return
	}
	c := t.Columns[i-1]
	limit, wider := r.idLimit(&c)
	if limit == 0 || t.MaxID < limit/4*3 {
		return
	}
	p := Problem{
		Severity: Warning, Place: t.Name + "." + c.Name,
		Text: fmt.Sprintf("the largest id is %d, and %s ends at %d: no row can be written then", t.MaxID, c.Definition, limit),
		Fix:  r.retype(t, c, wider),
	}
	if t.MaxID >= limit/20*19 {
		p.Severity = Error
	}
	add(p)
}

func (t *Table) checkIndexes(r dialect, add func(Problem)) {
	for _, f := range indexOrder {
		c := t.Column(f)
		if c == nil || slices.ContainsFunc(t.Indexes, func(i Index) bool { return i.First == c.Name }) {
			continue
		}
		add(Problem{
			Severity: Warning, Place: t.Name + "." + c.Name, Text: "has no index: readers search by it",
			Fix: []string{createIndex(r, t.name, r.indexName(t.name.table, layout[f].index), r.quoteExact(c.Name))},
		})
	}
}

func (t *Table) checkVersion(r dialect, add func(Problem)) {
	if t.Version == CurrentVersion {
		return
	}
	p := Problem{Severity: Error, Place: "version"}
	var what string
	switch {
	case !t.VersionTable:
		what = "the table version is missing"
		p.Fix = append(createVersion(r), setVersion(t.Name)...)
	case t.Version == 0:
		what = "there is no row for " + t.Name
		p.Fix = setVersion(t.Name)
	default:
		what = fmt.Sprintf("%s has version %d", t.Name, t.Version)
		p.Fix = setVersion(t.Name)
	}
	p.Text = what + ", and Kamailio refuses a table that has not version 4"
	switch {
	case utf8.RuneCountInString(t.Name) > versionNameWidth:
		p.Fix = nil // no row can hold the name
	case t.Form != FormV4 && t.Form != FormUnknown:
		// The programs that made these forms either check nothing or another
		// number; only a table with all columns may say that it is version 4.
		p.Severity, p.Fix = Note, nil
	}
	add(p)
}
