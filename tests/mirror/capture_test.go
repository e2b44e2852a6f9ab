package mirror

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// captureColumns are those that the module sipcapture writes, all as text or
// numbers as they come.
const captureColumns = "date, micro_ts, method, correlation_id, reply_reason, ruri, ruri_user, ruri_domain, from_user, from_domain, from_tag, " +
	"to_user, to_domain, to_tag, pid_user, contact_user, auth_user, callid, callid_aleg, via_1, via_1_branch, cseq, diversion, reason, " +
	"content_type, auth, user_agent, source_ip, source_port, destination_ip, destination_port, contact_ip, contact_port, originator_ip, " +
	"originator_port, proto, family, rtp_stat, type, node, msg, custom_field1, custom_field2, custom_field3"

// capture is a real Kamailio with the module sipcapture and its table.
type capture struct {
	*servers.Kamailio
	port int
	db   *sql.DB
}

func startCapture(t *testing.T) *capture {
	t.Helper()
	file := filepath.Join(t.TempDir(), "capture.db")
	c := &capture{port: servers.FreePort(t), db: sqliteFile(t, file).db}
	for _, q := range []string{
		"PRAGMA journal_mode=WAL", // so that counting rows does not keep Kamailio from writing
		"CREATE TABLE version (table_name TEXT, table_version INT)",
		"CREATE TABLE sip_capture (id INTEGER PRIMARY KEY, " + captureColumns + ")",
	} {
		if _, err := c.db.ExecContext(context.Background(), q); err != nil {
			t.Fatal(err)
		}
	}
	port := strconv.Itoa(c.port)
	c.Kamailio = servers.StartKamailio(t, fill(t, "capture.cfg", map[string]string{"PORT": port, "FILE": file}), "udp:127.0.0.1:"+port)
	return c
}

// captured is what the table says of one message.
type captured struct {
	us                  int64 // since the epoch
	src, dst, node, msg string
	proto, family       int
}

func (c *capture) rows(t *testing.T) []captured {
	t.Helper()
	rs, err := c.db.QueryContext(context.Background(),
		"SELECT micro_ts, source_ip, source_port, destination_ip, destination_port, proto, family, node, msg FROM sip_capture ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	var list []captured
	for rs.Next() {
		var r captured
		var srcIP, dstIP, srcPort, dstPort string
		if err := rs.Scan(&r.us, &srcIP, &srcPort, &dstIP, &dstPort, &r.proto, &r.family, &r.node, &r.msg); err != nil {
			t.Fatal(err)
		}
		r.src, r.dst = srcIP+":"+srcPort, dstIP+":"+dstPort
		list = append(list, r)
	}
	if err := rs.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestCaptureDocumented finds in MIRRORS.md all that the test sets for sipcapture, but
// for its database.
func TestCaptureDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "cmd", "siptraced", "MIRRORS.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`modparam\("sipcapture", "\w+", \d+\)`).FindAllString(fill(t, "capture.cfg", nil), -1)
	if len(lines) == 0 {
		t.Error("capture.cfg sets nothing")
	}
	for _, line := range lines {
		if !strings.Contains(string(doc), "`"+line+"`") {
			t.Errorf("MIRRORS.md does not say %s", line)
		}
	}
}

// TestCapture mirrors to three real Kamailios with the module sipcapture, each
// in another version of HEP. Addresses, ports, time and message have to be in
// their tables as they came in.
func TestCapture(t *testing.T) {
	t.Parallel()
	const ourID = 2001
	nodes := map[int]*capture{}
	text := "destinations:\n"
	for version := 1; version <= 3; version++ {
		c := startCapture(t)
		nodes[version] = c
		text += fmt.Sprintf("  - {uri: \"sip:127.0.0.1:%d\", name: v%d, protocol: hep%d, capture_id: %d}\n", c.port, version, version, ourID)
	}
	d := start(t, options{yaml: text})
	begin := time.Now().Add(-time.Hour)
	list := load.Calls(400, begin)
	from := time.Now()
	const part = 50 // Kamailio's socket is small
	for n := part; n <= len(list); n += part {
		d.feed(t, packets(list[n-part:n])...)
		for version, c := range nodes {
			rows := &table{db: c.db}
			servers.WaitFor(t, patience, fmt.Sprintf("%d rows of sipcapture with HEP%d", n, version), func() bool {
				return rows.number("SELECT COUNT(*) FROM sip_capture") >= n
			})
		}
	}
	d.stop(t)
	for version, c := range nodes {
		rows := c.rows(t)
		t.Logf("HEP%d: %d rows of %d messages, node %q", version, len(rows), len(list), rows[0].node)
		at := make(map[string]int)
		var got [][]byte
		for i, r := range rows {
			at[r.msg] = i
			got = append(got, []byte(r.msg))
		}
		var problems []string
		for _, m := range list {
			i, ok := at[m.Payload]
			if !ok {
				continue // inOrder tells
			}
			want, err := vectors.Decode(m.Packet)
			if err != nil {
				t.Fatal(err)
			}
			r := rows[i]
			src, dst := want.Src.String(), want.Dst.String()
			if r.src != src || r.dst != dst || r.family != 2 || r.proto != 1 {
				problems = append(problems, fmt.Sprintf("%s > %s, family %d, proto %d, want %s > %s, 2, 1", r.src, r.dst, r.family, r.proto, src, dst))
			}
			when := time.UnixMicro(r.us)
			if version > 1 && !when.Equal(want.Time) {
				problems = append(problems, fmt.Sprintf("time %v, want %v", when, want.Time))
			}
			if version == 1 && (when.Before(from.Add(-time.Second)) || when.After(time.Now())) { // it has none of its own
				problems = append(problems, fmt.Sprintf("time %v, want that of arrival", when))
			}
			if node := fmt.Sprintf("homer01:%d", ourID); version > 1 && r.node != node {
				problems = append(problems, fmt.Sprintf("node %q, want %q", r.node, node))
			}
		}
		report(t, fmt.Sprintf("HEP%d", version), append(problems, inOrder(list, got)...))
	}
}
