package durable

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"siptraced/hep"
	"siptraced/tests/servers"
)

// message is a SIP request of a method with a Call-ID, and headers of its own.
func message(method, callID, headers string) []byte {
	return fmt.Appendf(nil, "%s sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%s\r\nFrom: <sip:a@example.org>;tag=1\r\nTo: <sip:b@example.org>\r\nCall-ID: %s\r\nCSeq: 1 %s\r\n%sContent-Length: 0\r\n\r\n",
		method, callID, callID, method, headers)
}

// captured is a message as a HEP3 packet.
func captured(tb testing.TB, at time.Time, msg []byte) []byte {
	tb.Helper()
	p := hep.Packet{
		Version: 3, Proto: hep.UDP, Src: netip.MustParseAddrPort("192.0.2.1:5060"), Dst: netip.MustParseAddrPort("192.0.2.2:5060"),
		HasTime: true, Sec: uint32(at.Unix()), Type: hep.TypeSIP, Payload: msg,
	}
	b, err := p.Append(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestPoison sends what a table does not take, by one capture agent over one
// socket, and what it takes behind it: all of this arrives, and the rest is in
// the reject file.
func TestPoison(t *testing.T) {
	tomorrow := time.Now().UTC().AddDate(0, 0, 2).Format(time.DateOnly)
	for _, tt := range []struct {
		name      string
		open      func(t *testing.T) *database
		prepare   []string
		set       []string
		bad, good []byte
		seconds   int // of nothing but bad ones
		rejected  bool
	}{
		// The usual way to keep a table small: a day is dropped at once.
		{
			name: "a clock in the future, a table by days", open: func(t *testing.T) *database { return mariaDB(t, servers.StartMariaDB(t)) },
			prepare:  []string{"ALTER TABLE sip_trace DROP PRIMARY KEY, ADD KEY (id)", "ALTER TABLE sip_trace PARTITION BY RANGE (TO_DAYS(time_stamp)) (PARTITION p VALUES LESS THAN (TO_DAYS('" + tomorrow + "')))"},
			bad:      captured(t, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), message("OPTIONS", "bad", "")),
			rejected: true,
		},
		{
			name: "a trigger's own wishes", open: func(t *testing.T) *database { return mariaDB(t, servers.StartMariaDB(t)) },
			prepare:  []string{"CREATE TRIGGER no_options BEFORE INSERT ON sip_trace FOR EACH ROW IF NEW.method = 'OPTIONS' THEN SIGNAL SQLSTATE '45000'; END IF"},
			set:      []string{"store.batch_rows=100"}, // more bad ones than a transaction has
			bad:      captured(t, time.Now(), message("OPTIONS", "bad", "")),
			seconds:  1,
			rejected: true,
		},
		// A port is made fit instead.
		{
			name: "a port that is none, OpenSIPS' table", open: func(t *testing.T) *database { return postgres(t, servers.StartPostgres(t)) },
			prepare: []string{"DROP TABLE sip_trace", "CREATE TABLE sip_trace (id SERIAL PRIMARY KEY, time_stamp TIMESTAMP NOT NULL, callid VARCHAR(255) NOT NULL, trace_attrs VARCHAR(255)," +
				" msg TEXT NOT NULL, method VARCHAR(32) NOT NULL, status VARCHAR(255), from_proto VARCHAR(5) NOT NULL, from_ip VARCHAR(50) NOT NULL, from_port INTEGER NOT NULL," +
				" to_proto VARCHAR(5) NOT NULL, to_ip VARCHAR(50) NOT NULL, to_port INTEGER NOT NULL, fromtag VARCHAR(64) NOT NULL, direction VARCHAR(4) NOT NULL)"},
			set: []string{"siptrace.xheaders_read=1"},
			bad: message("OPTIONS", "bad", "X-Siptrace-Fromip: udp:1.2.3.4:99999999999\r\nX-Siptrace-Toip: udp:192.0.2.2:5060\r\nX-Siptrace-Time: 1700000000 1\r\nX-Siptrace-Method: OPTIONS\r\nX-Siptrace-Dir: in\r\n"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.open(t)
			for _, text := range tt.prepare {
				execute(t, d.db, text)
			}
			p := newPlace(t, d.url, tt.set...)
			run := p.start(t)
			c, err := net.Dial("udp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			bad := 0
			for end := time.Now().Add(time.Duration(tt.seconds) * time.Second); bad == 0 || time.Now().Before(end); bad++ {
				if _, err := c.Write(tt.bad); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			run.read(t, bad)
			const good = 300
			for i := range good {
				if _, err := c.Write(captured(t, time.Now(), message("INVITE", fmt.Sprintf("good-%d", i), ""))); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			run.read(t, bad+good)
			run.drained(t, time.Minute)
			got := run.stop(t)
			rows, rejected := good+bad, 0
			if tt.rejected {
				rows, rejected = good, bad
			}
			if d.count() != rows || got[servers.Aside] != int64(rejected) {
				t.Errorf("%d rows, %d rejected, want %d and %d: %v", d.count(), got[servers.Aside], rows, rejected, got)
			}
			text, err := os.ReadFile(filepath.Join(p.dir, "siptraced.rejects.jsonl"))
			if n := bytes.Count(text, []byte("\n")); n != rejected || rejected > 0 && err != nil {
				t.Errorf("%d lines in the reject file, want %d (%v)", n, rejected, err)
			}
		})
	}
}

// read waits until the daemon has read n messages.
func (d *daemon) read(tb testing.TB, n int) {
	tb.Helper()
	servers.WaitFor(tb, 30*time.Second, "the messages", func() bool { return d.CountersNow(tb)[servers.Received] >= int64(n) })
}
