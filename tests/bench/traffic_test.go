package main

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"
)

func newTestTraffic(t *testing.T, n int) *traffic {
	t.Helper()
	tr, err := newTraffic(n)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTraffic(t *testing.T) {
	const n = 260
	tr := newTestTraffic(t, n)
	at := time.Unix(1795240062, 123_456_000)
	calls := map[string]int{}
	seen := map[string]bool{}
	for i := range 3 * n {
		p := tr.at(i, at)
		if got := int(binary.BigEndian.Uint16(p.packet[4:])); got != len(p.packet) {
			t.Fatalf("message %d: length %d, want %d", i, got, len(p.packet))
		}
		if got := binary.BigEndian.Uint32(p.sec); int64(got) != at.Unix() {
			t.Fatalf("message %d: second %d, want %d", i, got, at.Unix())
		}
		if got := binary.BigEndian.Uint32(p.usec); got != 123456 {
			t.Fatalf("message %d: microsecond %d, want 123456", i, got)
		}
		if !bytes.HasSuffix(p.packet, p.payload) || header(string(p.payload), "Call-ID") != string(p.callID) {
			t.Fatalf("message %d: Call-ID %q is not in the packet", i, p.callID)
		}
		if seen[string(p.payload)] {
			t.Fatalf("message %d is not the only one of its text", i)
		}
		seen[string(p.payload)] = true
		calls[string(p.callID)]++
		if i%7 == 0 { // what a probe changes is not seen the next time
			p.probe(i, time.Second)
		}
	}
	for call, n := range calls {
		if n > 13 {
			t.Errorf("call %s has %d messages", call, n)
		}
	}
}

// TestTemplate compares the columns of the plain client with what the messages
// say.
func TestTemplate(t *testing.T) {
	tr := newTestTraffic(t, 260)
	var got []string
	for _, p := range tr.templates {
		if !strings.HasPrefix(string(p.callID), "load-000000@") {
			continue
		}
		got = append(got, strings.Join([]string{p.method, p.status, p.fromIP, p.toIP, p.fromTag, p.toTag, p.direction}, " "))
	}
	for i, want := range []string{
		"INVITE  udp:198.51.100.10:5062 udp:192.0.2.1:5060 c0  in",
		"INVITE 100 udp:192.0.2.1:5060 udp:198.51.100.10:5062 c0  out",
		"INVITE  udp:192.0.2.1:5060 udp:203.0.113.20:5060 c0  out",
		"INVITE 180 udp:203.0.113.20:5060 udp:192.0.2.1:5060 c0 e0 in",
	} {
		if i >= len(got) || got[i] != want {
			t.Errorf("message %d: got %q, want %q", i, got[min(i, len(got)-1)], want)
		}
	}
}

func TestProbe(t *testing.T) {
	p := newTestTraffic(t, 13).at(0, time.Now())
	var ids []string
	for i, since := range []time.Duration{0, 1234567 * time.Microsecond, time.Hour} {
		p.probe(i, since)
		ids = append(ids, string(p.callID))
		n, got, err := parseProbe(string(p.callID))
		if err != nil || n != i || got != since {
			t.Errorf("%s: got %d, %v, %v, want %d, %v", p.callID, n, got, err, i, since)
		}
	}
	if !slices.IsSorted(ids) || ids[0] < "9999-999999@" {
		t.Errorf("probes do not sort behind the other Call-IDs, in their order: %q", ids)
	}
	for _, bad := range []string{"", "p", "p00000001", "0000-000001@198.51.100.10"} {
		if n, _, err := parseProbe(bad); err == nil {
			t.Errorf("%q: got probe %d, want an error", bad, n)
		}
	}
}

func TestRowMaker(t *testing.T) {
	for kind, wantTime := range map[string]bool{postgres: true, mariaDB: false} {
		m, err := newRowMaker(kind)
		if err != nil {
			t.Fatal(err)
		}
		const n = 700
		args := m.rows(5, n)
		if len(args) != n*len(columns) {
			t.Fatalf("%s: got %d arguments, want %d", kind, len(args), n*len(columns))
		}
		if _, ok := args[0].(time.Time); ok != wantTime {
			t.Errorf("%s: time_stamp is %T", kind, args[0])
		}
		seen := map[string]bool{}
		for i := range n {
			row := args[i*len(columns) : (i+1)*len(columns)]
			msg := row[slices.Index(columns, "msg")].(string)
			if got := header(msg, "Call-ID"); got != row[slices.Index(columns, "callid")] {
				t.Fatalf("%s: row %d: callid %q, message of %q", kind, i, row[2], got)
			}
			if got := tag(header(msg, "From")); got != row[slices.Index(columns, "fromtag")] {
				t.Fatalf("%s: row %d: fromtag %q, message of %q", kind, i, row[9], got)
			}
			seen[msg] = true
		}
		if len(seen) != n {
			t.Errorf("%s: %d different messages in %d rows", kind, len(seen), n)
		}
	}
}

func TestInsertText(t *testing.T) {
	got := insertText(2, dollar)
	want := "INSERT INTO sip_trace (time_stamp,time_us,callid,traced_user,msg,method,status,fromip,toip,fromtag,totag,direction) VALUES " +
		"($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12),($13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23,$24)"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
