package dbschema

import (
	"bufio"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// scripts is where Kamailio's packages put their SQL files.
const scripts = "/usr/share/kamailio/"

func record() *siptrace.Record {
	return &siptrace.Record{
		Time:      time.Date(2026, 11, 21, 10, 47, 11, 447093000, time.UTC),
		CallID:    []byte("a84b4c76e66710@pc33.example.org"),
		Msg:       []byte("INVITE sip:bob@example.org SIP/2.0\r\n\r\n"),
		Method:    []byte("INVITE"),
		Status:    []byte{},
		From:      siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.7:5070")},
		To:        siptrace.Endpoint{Proto: siptrace.TLS, Addr: netip.MustParseAddrPort("[2001:db8::1]:5061")},
		FromTag:   []byte("1928301774"),
		Direction: siptrace.In,
	}
}

func mustExec(t *testing.T, db *sql.DB, stmts ...string) {
	t.Helper()
	for _, s := range stmts {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func mustCreate(t *testing.T, db *sql.DB, d Dialect, table string, cols siptrace.Columns) {
	t.Helper()
	stmts, err := Create(d, table, cols)
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, stmts...)
}

func mustInspect(t *testing.T, db *sql.DB, d Dialect, table string) *Table {
	t.Helper()
	tab, err := Inspect(t.Context(), db, d, table, siptrace.DefaultColumns())
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func mustPlan(t *testing.T, tab *Table) *Plan {
	t.Helper()
	p, err := NewPlan(tab)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// insert writes the records in one statement and returns what was counted.
func insert(t *testing.T, db *sql.DB, p *Plan, recs ...*siptrace.Record) Counts {
	t.Helper()
	enc := p.NewEncoder(time.UTC)
	var args []any
	for _, r := range recs {
		args = enc.AppendArgs(args, r, nil)
	}
	if _, err := db.Exec(p.Insert(len(recs)), args...); err != nil {
		t.Fatalf("%s: %v", p.Insert(len(recs)), err)
	}
	return enc.Counts
}

// dump is the result of a query, one line per row.
func dump(t *testing.T, db *sql.DB, query string, args ...any) string {
	t.Helper()
	rows, err := db.Query(query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for rows.Next() {
		vals := make([]sql.NullString, len(names))
		ptrs := make([]any, len(names))
		for i := range vals {
			ptrs[i] = &vals[i]
		}
		if err := rows.Scan(ptrs...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		for i, v := range vals {
			s := v.String
			if !v.Valid {
				s = "NULL"
			}
			fmt.Fprintf(&b, "%s=%s ", strings.ToLower(names[i]), s)
		}
		b.WriteByte('\n')
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return b.String()
}

// lines are the problems as "severity: place: text".
func lines(ps []Problem) string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString(p.String() + "\n")
	}
	return b.String()
}

// fix executes what Check offers.
func fix(t *testing.T, db *sql.DB, tab *Table) {
	t.Helper()
	for _, p := range tab.Check() {
		mustExec(t, db, p.Fix...)
	}
}

// wire is a message with bytes beyond ASCII: what was on the wire and, where
// Kamailio stored it in a latin1 table, what the row has.
type wire struct {
	CallID, FromTag, Msg          []byte
	RowCallID, RowFromTag, RowMsg []byte
}

func wires(t *testing.T) []wire {
	t.Helper()
	f, err := os.Open("testdata/latin1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ws []wire
	for s := bufio.NewScanner(f); s.Scan(); {
		var m map[string]string
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		b := func(key string) []byte {
			v, err := hex.DecodeString(m[key])
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		ws = append(ws, wire{b("callid"), b("fromtag"), b("msg"), b("row_callid"), b("row_fromtag"), b("row_msg")})
	}
	if len(ws) != 14 {
		t.Fatalf("testdata/latin1.jsonl: got %d messages, want 14", len(ws))
	}
	return ws
}
