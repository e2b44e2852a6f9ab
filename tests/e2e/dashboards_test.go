package e2e

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// withoutRows are statements of queries.sql that give no rows here, by a part of
// their text, and why.
var withoutRows = map[string]string{
	"traced_user LIKE '%alice%'": "no users are traced: traced_user is always empty",
}

// TestDashboards runs what the known readers of the table ask of it, on a table
// that siptraced filled.
func TestDashboards(t *testing.T) {
	t.Parallel()
	m := servers.StartMariaDB(t, servers.WithServerTimezone("UTC"))
	d := mariaDB(t, m, "trace", "utf8mb4")
	siptraced(t, 0, "schema", "create", "--db-url", d.url)

	// Calls of the last minutes, with what the statements look for.
	now := time.Now()
	var packets [][]byte
	for i, s := range []load.Spec{
		{CallID: "made-up-1@198.51.100.10", FromTag: "fa1", UserAgent: "made-up phone"},
		{CallID: "made-up-user@198.51.100.10", FromTag: "fa1", UserAgent: "made-up phone"},
		{CallID: "made-up-tls@198.51.100.30", FromTag: "fa1", TLS: true},
	} {
		for _, msg := range load.Call(s, now.Add(time.Duration(i-5)*time.Minute)) {
			packets = append(packets, msg.Packet)
		}
	}
	run := start(t, options{dbURL: d.url, set: []string{"timezone=UTC", "local=udp:" + load.Proxy.String() + ",tls:" + load.Proxy.String()}})
	run.feed(t, "udp", packets...)
	d.await(t, run, "sip_trace", len(packets), 2*time.Minute)
	run.stop(t)

	values := map[string]string{
		"@callid": "'made-up-1@198.51.100.10'",
		"@user":   "''",
		"@row_id": "(SELECT MIN(id) FROM sip_trace)",
		"@since":  "NOW() - INTERVAL 30 MINUTE",
		"@until":  "NOW() + INTERVAL 1 MINUTE",
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := d.db.Conn(ctx) // variables belong to a connection
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ran := 0
	for _, q := range statements(readFile(t, "../queries.sql")) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(q, "SET "), " "); ok && strings.HasPrefix(q, "SET ") {
			v, known := values[name]
			if !known {
				t.Fatalf("no value for %s", name)
			}
			if _, err := conn.ExecContext(ctx, "SET "+name+" = "+v); err != nil {
				t.Fatalf("SET %s: %v", name, err)
			}
			continue
		}
		ran++
		n, err := countRows(ctx, conn, q)
		if err != nil {
			t.Errorf("%v in\n%s", err, q)
			continue
		}
		if why := empty(q); (n == 0) != (why != "") {
			t.Errorf("%d rows (%s) of\n%s", n, why, q)
		}
	}
	if ran < 40 {
		t.Errorf("only %d statements in queries.sql", ran)
	}
}

func empty(query string) string {
	for part, why := range withoutRows {
		if strings.Contains(query, part) {
			return why
		}
	}
	return ""
}

func countRows(ctx context.Context, conn *sql.Conn, query string) (int, error) {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}
