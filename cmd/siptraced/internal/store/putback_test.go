package store

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
	"siptraced/hep"
)

// spooledAs is a record as the spool has it: with the Call-ID in a chunk of ours.
func spooledAs(t *testing.T, typ uint8, callID, text string) []byte {
	t.Helper()
	const chunkCallID = 1 // package spool
	end := netip.MustParseAddrPort("192.0.2.1:5060")
	p := hep.Packet{
		Version: 3, Type: typ, Proto: hep.UDP, Src: end, Dst: end, HasTime: true, Sec: 1800000000,
		Vendor: []hep.Chunk{{Vendor: hepmap.Vendor, Type: chunkCallID, Data: []byte(callID)}}, Payload: []byte(text),
	}
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each line goes into its own table once; what can't go in is told apart, and keeps
// nothing else back.
func TestPutBack(t *testing.T) {
	cfg := DefaultConfig()
	cfg.URL = siptrace.DBURL{Driver: siptrace.DriverSQLite, Database: filepath.Join(t.TempDir(), "db")}
	exam, err := Examine(t.Context(), cfg) // makes the file
	if err != nil {
		t.Fatal(err)
	}
	defer exam.Close()
	if _, err := exam.session.open(t.Context(), &cfg, cfg.Table, nil); err != nil {
		t.Fatal(err)
	}
	for _, text := range dbschema.LogSQL(dbschema.SQLite).Create {
		if _, err := exam.session.exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	lines := []*rejects.Line{
		{ID: "s/1/0", Table: "sip_trace", Packet: spooledAs(t, hep.TypeSIP, "one", "first")},
		{ID: "s/1/0", Table: "sip_trace", User: "alice", Packet: spooledAs(t, hep.TypeSIP, "one", "first")},
		{ID: "s/1/1", Table: "sip_trace_none", Packet: spooledAs(t, hep.TypeSIP, "two", "second")},
		{ID: "s/1/2", Table: "sip_trace", Packet: []byte("no record")},
		{ID: "s/1/3", Table: dbschema.LogTable, Packet: spooledAs(t, siptrace.TypeLog, "three", "a log line")},
		{ID: "s/1/0", Table: "sip_trace", Packet: spooledAs(t, hep.TypeSIP, "one", "first")}, // once more
	}
	for round, want := range [][]string{
		{"", "", "no such table", "no record of the spool", "", "put back before"},
		{"put back before", "put back before", "no such table", "no record of the spool", "put back before", "put back before"},
	} {
		p, err := NewPutBack(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		result, err := p.Put(t.Context(), lines)
		p.Close()
		if err != nil || len(result) != len(lines) {
			t.Fatalf("round %d: %v, %v", round, result, err)
		}
		for i, got := range result {
			if (got == nil) != (want[i] == "") || got != nil && !strings.Contains(got.Error(), want[i]) {
				t.Errorf("round %d, line %d: got %v, want %q", round, i, got, want[i])
			}
		}
	}
	for query, want := range map[string]string{
		"SELECT group_concat(traced_user || '/' || msg) FROM (SELECT * FROM sip_trace ORDER BY traced_user)": "/first,alice/first",
		"SELECT group_concat(callid || '/' || msg) FROM siptraced_log":                                       "three/a log line",
		"SELECT COUNT(*) FROM siptraced_position":                                                            "3",
	} {
		var got string
		if err := exam.session.conn.QueryRowContext(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", query, got, err, want)
		}
	}
	cfg.URL.Database = filepath.Join(t.TempDir(), "none", "db")
	if _, err := NewPutBack(t.Context(), cfg); err == nil || errors.Is(err, ErrThere) || !strings.Contains(err.Error(), "none/db") {
		t.Errorf("no such directory: %v", err)
	}
}

// Who puts the same file back twice at the same time has each row once.
func testPutBackTwice(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		t.Run(name, func(t *testing.T) {
			b := make(t)
			d, _ := dbschema.DialectOf(b.url.Driver)
			b.create(t, dbschema.PositionSQL(d).Create)
			cfg := DefaultConfig()
			cfg.URL = b.url
			var lines []*rejects.Line
			var want []string
			for i := range 100 {
				text := fmt.Sprintf("%03d", i)
				want = append(want, text)
				lines = append(lines, &rejects.Line{ID: "s/1/" + text, Table: "sip_trace", Packet: spooledAs(t, hep.TypeSIP, text, text)})
			}
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					for at := 0; at < len(lines); at += 10 {
						// As replay does: another session, once.
						for range 2 {
							p, err := NewPutBack(t.Context(), cfg)
							if err != nil {
								t.Error(err)
								return
							}
							_, err = p.Put(t.Context(), lines[at:at+10])
							p.Close()
							if err == nil {
								break
							}
						}
					}
				})
			}
			both.Wait()
			if rows := slices.Sorted(slices.Values(b.rows(t))); !slices.Equal(rows, want) {
				t.Errorf("%d rows, want %d: %q", len(rows), len(want), rows)
			}
		})
	}
}
