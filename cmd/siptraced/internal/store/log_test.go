package store

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
	"siptraced/hep"
)

// Log lines, of our own and as they came by HEP, stand in their table and not
// among the messages, and hold nothing up.
func testLogs(t *testing.T, b backend, name string) {
	b.create(t)
	r := newRig(t, b.url, t.TempDir())
	line := func(rec siptrace.Record) {
		rec.Type, rec.Time, rec.Source = siptrace.TypeLog, time.Unix(1700000000, 42000), netip.MustParseAddrPort("192.0.2.7:5060")
		if err := r.spool.Put(&rec); err != nil {
			t.Fatal(err)
		}
	}
	packet, err := (&hep.Packet{Version: 3, Type: siptrace.TypeLog, Payload: []byte("by HEP"), CorrelationID: []byte("call")}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, "call", "a message")
	stored := siptrace.Route{Sinks: siptrace.ToStore}
	line(siptrace.Record{CallID: []byte("call"), Msg: []byte("of our own \xff\x00"), Route: stored})
	line(siptrace.Record{CallID: []byte("call"), Packet: packet, Meta: siptrace.Meta{CaptureID: 2001}, Route: stored})
	line(siptrace.Record{CallID: []byte("call"), Msg: []byte("for mirrors"), Route: siptrace.Route{Sinks: siptrace.ToHEP}})
	got := r.stop(t)
	if got["store.log_lines"] != 2 || got["store.rows"] != 1 || got["store.skipped"] != 1 {
		t.Errorf("%v", got)
	}
	if rows := b.rows(t); !slices.Equal(rows, []string{"a message"}) {
		t.Errorf("rows %q", rows)
	}
	if lines := b.rowsOf(t, dbschema.LogTable); !slices.Equal(lines, []string{"of our own \uFFFD\u2400", "by HEP"}) {
		t.Errorf("log lines %q", lines)
	}
	var at any
	var us, id int64
	var call, source string
	err = b.db.QueryRow("SELECT time_stamp, time_us, callid, source, capture_id FROM "+dbschema.LogTable+" WHERE msg = 'by HEP'").Scan(&at, &us, &call, &source, &id)
	if err != nil {
		t.Fatal(err)
	}
	if us != 42 || call != "call" || source != "192.0.2.7:5060" || id != 2001 {
		t.Errorf("got %v %d %s %s %d", at, us, call, source, id)
	}
	text := fmt.Sprintf("%s", at)
	if t, ok := at.(time.Time); ok {
		text = t.Format(time.DateTime)
	}
	if text != "2023-11-14 22:13:20" {
		t.Errorf("%s: time_stamp %s", name, text)
	}
}
