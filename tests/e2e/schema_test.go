package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// siptraced runs the binary to its end and wants that exit code.
func siptraced(tb testing.TB, code int, args ...string) servers.Result {
	tb.Helper()
	r := servers.RunSiptraced(tb, servers.Command{Bin: program, Args: args})
	if r.Code != code {
		tb.Fatalf("siptraced %q: exit code %d, want %d\nstderr:\n%s\nstdout:\n%s", args, r.Code, code, r.Stderr, r.Stdout)
	}
	return r
}

// structure asks a database for everything that it knows about the two tables;
// siptraced keeps a table of its own beside them.
var structure = map[string][]string{
	"mariadb": {
		`SELECT TABLE_NAME, ORDINAL_POSITION, COLUMN_NAME, COLUMN_DEFAULT, IS_NULLABLE, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH,
			NUMERIC_PRECISION, DATETIME_PRECISION, CHARACTER_SET_NAME, COLLATION_NAME, COLUMN_TYPE, COLUMN_KEY, EXTRA, COLUMN_COMMENT, GENERATION_EXPRESSION
			FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('sip_trace', 'version') ORDER BY 1, 2`,
		`SELECT TABLE_NAME, NON_UNIQUE, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, COLLATION, SUB_PART, NULLABLE, INDEX_TYPE
			FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('sip_trace', 'version') ORDER BY 1, 3, 4`,
		`SELECT TABLE_NAME, CONSTRAINT_NAME, CONSTRAINT_TYPE
			FROM information_schema.TABLE_CONSTRAINTS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('sip_trace', 'version') ORDER BY 1, 2`,
		`SELECT TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_COLLATION, CREATE_OPTIONS, TABLE_COMMENT
			FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('sip_trace', 'version') ORDER BY 1`,
	},
	"postgres": {
		`SELECT table_name, ordinal_position, column_name, column_default, is_nullable, data_type, character_maximum_length,
			numeric_precision, datetime_precision, udt_name, is_identity, is_generated
			FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN ('sip_trace', 'version') ORDER BY 1, 2`,
		`SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename IN ('sip_trace', 'version') ORDER BY 1, 2`,
		`SELECT table_name, constraint_name, constraint_type FROM information_schema.table_constraints
			WHERE table_schema = 'public' AND table_name IN ('sip_trace', 'version') AND constraint_name NOT LIKE '%not_null' ORDER BY 1, 2`,
		`SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle FROM pg_sequences
			WHERE schemaname = 'public' AND sequencename ~ '^(sip_trace|version)_' ORDER BY 1`,
	},
	"sqlite": {
		`SELECT m.name AS table_name, c.cid, c.name, c.type, c."notnull", c.dflt_value, c.pk, c.hidden
			FROM sqlite_master m, pragma_table_xinfo(m.name) c WHERE m.type = 'table' AND m.name IN ('sip_trace', 'version') ORDER BY 1, 2`,
		`SELECT m.name AS table_name, l.name AS index_name, l."unique", l.origin, l.partial, i.seqno, i.name
			FROM sqlite_master m, pragma_index_list(m.name) l, pragma_index_info(l.name) i WHERE m.type = 'table' AND m.name IN ('sip_trace', 'version') ORDER BY 1, 2, 6`,
	},
}

const versionRows = `SELECT table_name, table_version FROM version WHERE table_name = 'sip_trace'`

// TestSchema compares what `siptraced schema create` makes with what Kamailio's
// own scripts make, lets Kamailio write to the one and siptraced to the other.
func TestSchema(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name string
		open func(t *testing.T) func(name string) *database
	}{
		{"mariadb", func(t *testing.T) func(string) *database {
			m := servers.StartMariaDB(t)
			return func(name string) *database { return mariaDB(t, m, name, "utf8mb4") }
		}},
		{"mariadb-latin1", func(t *testing.T) func(string) *database {
			m := servers.StartMariaDB(t, servers.WithServerCharset("latin1"))
			return func(name string) *database { return mariaDB(t, m, name, "latin1") }
		}},
		{"postgres", func(t *testing.T) func(string) *database {
			p := servers.StartPostgres(t)
			return func(name string) *database { return postgres(t, p, name) }
		}},
		{"sqlite", func(t *testing.T) func(string) *database {
			dir := t.TempDir()
			return func(name string) *database { return sqliteFile(t, filepath.Join(dir, name+".db")) }
		}},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			open := k.open(t)
			theirs, ours := open("theirs"), open("ours")
			theirs.createTable(t, nil)
			siptraced(t, 0, "schema", "create", "--db-url", ours.url)
			t.Run("equal", func(t *testing.T) { sameSchema(t, ours, theirs) })
			t.Run("print", func(t *testing.T) {
				// What is printed makes the same tables, and nothing of it depends on a server.
				d := open("printed")
				d.exec(t, siptraced(t, 0, "schema", "print", "--db-url", d.url).Stdout)
				sameSchema(t, d, theirs)
			})
			t.Run("create twice", func(t *testing.T) {
				siptraced(t, 0, "schema", "create", "--db-url", ours.url)
				sameSchema(t, ours, theirs)
			})
			t.Run("check", func(t *testing.T) {
				for _, d := range []*database{ours, theirs} {
					siptraced(t, 0, "schema", "check", "--db-url", d.url)
				}
				old := open("old")
				old.createTable(t, nil)
				old.exec(t, `UPDATE version SET table_version = 3 WHERE table_name = 'sip_trace'`)
				r := siptraced(t, 1, "schema", "check", "--db-url", old.url)
				if text := r.Stdout + r.Stderr; !strings.Contains(text, "3") || !strings.Contains(text, "4") || !strings.Contains(text, "version") {
					t.Errorf("version 3 in place of 4: not said in\n%s", text)
				}
				r = siptraced(t, 1, "schema", "check", "--db-url", open("empty").url)
				if text := r.Stdout + r.Stderr; !strings.Contains(text, "sip_trace") || !strings.Contains(text, "schema create") {
					t.Errorf("no table: neither the table nor the remedy is named in\n%s", text)
				}
			})
			t.Run("kamailio writes to ours", func(t *testing.T) { kamailioWrites(t, ours) })
			t.Run("siptraced writes to theirs", func(t *testing.T) { siptracedWrites(t, theirs) })
			t.Run("both in turn", func(t *testing.T) {
				siptracedWrites(t, ours)
				kamailioWrites(t, theirs)
			})
		})
	}
}

func sameSchema(t *testing.T, ours, theirs *database) {
	t.Helper()
	for _, q := range append(slices.Clone(structure[ours.kind]), versionRows) {
		a, b := ours.dump(t, q), theirs.dump(t, q)
		if len(b) == 0 {
			t.Errorf("nothing to compare: %s", q)
		}
		report(t, diffLines(a, b))
	}
}

// diffLines tells which lines only one of two lists has.
func diffLines(ours, theirs []string) []string {
	var problems []string
	for _, l := range ours {
		if !slices.Contains(theirs, l) {
			problems = append(problems, "only in siptraced's: "+l)
		}
	}
	for _, l := range theirs {
		if !slices.Contains(ours, l) {
			problems = append(problems, "only in Kamailio's:  "+l)
		}
	}
	return problems
}

// kamailioWrites starts Kamailio with its trace to this database, and sends it
// a message.
func kamailioWrites(t *testing.T, d *database) {
	t.Helper()
	before := len(d.rows(t, "sip_trace", nil))
	port := strconv.Itoa(servers.FreePort(t))
	module := map[string]string{"mariadb": "db_mysql", "postgres": "db_postgres", "sqlite": "db_sqlite"}[d.kind]
	cfg := fill(readFile(t, "testdata/tracer.cfg"), map[string]string{"PORT": port, "DBURL": d.url, "MODULE": module})
	k := servers.StartKamailio(t, cfg, "udp:127.0.0.1:"+port)
	sent := time.Now()
	servers.RunSipp(t, 2*time.Minute, servers.Sipp{
		Name: "options", Scenario: readFile(t, "testdata/sipp/options-tagged.xml"), Remote: "127.0.0.1:" + port, Calls: 1,
	})
	servers.WaitFor(t, time.Minute, "Kamailio to write both rows", func() bool { return d.count("sip_trace") >= before+2 })
	k.Stop(t)
	rows := d.rows(t, "sip_trace", nil)[before:]
	if len(rows) != 2 {
		t.Fatalf("Kamailio wrote %d rows, want 2: a request and a reply\n%s", len(rows), k.Tail(30))
	}
	for i, want := range []struct{ method, status, direction string }{{"OPTIONS", "", "in"}, {"OPTIONS", "200", "out"}} {
		r := rows[i]
		if r.Method != want.method || r.Status != want.status || r.Direction != want.direction {
			t.Errorf("row %d: got %s %q %s, want %s %q %s", i, r.Method, r.Status, r.Direction, want.method, want.status, want.direction)
		}
		at, err := r.Moment(time.Local)
		if err != nil || at.Before(sent.Add(-2*time.Second)) || at.After(time.Now().Add(2*time.Second)) {
			t.Errorf("row %d: time %q %d, %v, want one since %v", i, r.TimeStamp, r.TimeUS, err, sent)
		}
	}
}

// siptracedWrites runs siptraced on this database, with the messages of one
// call.
func siptracedWrites(t *testing.T, d *database) {
	t.Helper()
	before := len(d.rows(t, "sip_trace", nil))
	list := load.Call(load.Spec{}, time.Now())
	run := start(t, options{dbURL: d.url, set: []string{"local=udp:" + load.Proxy.String()}})
	for _, m := range list {
		run.feed(t, "udp", m.Packet)
	}
	d.await(t, run, "sip_trace", before+len(list), 2*time.Minute)
	run.stop(t)
	report(t, diffLoad(list, d.rows(t, "sip_trace", nil)[before:], time.Local))
}

// diffLoad compares rows with the generated messages that led to them: each
// message one row, those of a call in order, with the columns that follow.
func diffLoad(list []load.Message, rows []vectors.Row, loc *time.Location) []string {
	var problems []string
	place := make(map[string]int, len(list))
	for i, m := range list {
		place[m.Payload] = i
	}
	seen := make([]bool, len(list))
	next := make(map[string]int)
	first := make(map[string]int) // the list may begin in the middle of calls
	for _, m := range list {
		if _, ok := first[m.CallID]; !ok {
			first[m.CallID] = m.Index
		}
	}
	for _, r := range rows {
		i, ok := place[r.Msg]
		switch {
		case !ok:
			problems = append(problems, fmt.Sprintf("row %d is of no message: %.60q", r.ID, r.Msg))
			continue
		case seen[i]:
			problems = append(problems, fmt.Sprintf("row %d is the second of message %d", r.ID, i))
			continue
		}
		seen[i] = true
		m := list[i]
		if want := first[m.CallID] + next[m.CallID]; m.Index != want {
			problems = append(problems, fmt.Sprintf("row %d: message %d of call %s, want message %d", r.ID, m.Index, m.CallID, want))
		}
		next[m.CallID]++
		direction := "in"
		if m.Out {
			direction = "out"
		}
		if r.CallID != m.CallID || r.Direction != direction || r.TracedUser != "" {
			problems = append(problems, fmt.Sprintf("row %d: got callid %q, %s, user %q, want %q, %s", r.ID, r.CallID, r.Direction, r.TracedUser, m.CallID, direction))
		}
		if _, err := r.Moment(loc); err != nil {
			problems = append(problems, fmt.Sprintf("row %d: %v", r.ID, err))
		}
	}
	missing := 0
	for i := range seen {
		if !seen[i] {
			missing++
		}
	}
	if missing > 0 {
		problems = append(problems, fmt.Sprintf("%d of %d messages have no row", missing, len(list)))
	}
	return problems
}
