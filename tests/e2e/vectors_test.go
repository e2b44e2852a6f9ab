package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// renamedColumns are those of the recording table-and-columns, whose rows are
// recorded under the usual names.
var renamedColumns = map[string]map[string]string{
	"table-and-columns": {"callid": "x_callid", "msg": "x_msg", "fromip": "x_from"},
}

// TestVectors feeds every recording whose rows come from HEP to the daemon, with
// the configuration of that recording, and compares the rows with those that
// the real module wrote in the same run.
func TestVectors(t *testing.T) {
	t.Parallel()
	scenarios, err := vectors.FromHEP()
	if err != nil {
		t.Fatal(err)
	}
	backends := []struct {
		name string
		open func(t *testing.T) func(t *testing.T, s *vectors.Scenario) *database
	}{
		{"mariadb", func(t *testing.T) func(*testing.T, *vectors.Scenario) *database {
			strict := servers.StartMariaDB(t)
			lax := servers.StartMariaDB(t, servers.WithSQLMode(""))
			return func(t *testing.T, s *vectors.Scenario) *database {
				m, charset := strict, "utf8mb4"
				if s.NonStrict {
					m = lax
				}
				if s.Latin1 {
					charset = "latin1"
				}
				return mariaDB(t, m, databaseName(s.Name), charset)
			}
		}},
		{"postgres", func(t *testing.T) func(*testing.T, *vectors.Scenario) *database {
			p := servers.StartPostgres(t)
			return func(t *testing.T, s *vectors.Scenario) *database { return postgres(t, p, databaseName(s.Name)) }
		}},
		{"sqlite", func(t *testing.T) func(*testing.T, *vectors.Scenario) *database {
			return func(t *testing.T, _ *vectors.Scenario) *database {
				return sqliteFile(t, filepath.Join(t.TempDir(), "trace.db"))
			}
		}},
	}
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			open := b.open(t)
			for _, s := range scenarios {
				t.Run(s.Name, func(t *testing.T) {
					t.Parallel()
					replay(t, s, open(t, s))
				})
			}
		})
	}
}

// replay feeds one recording and compares the rows.
func replay(t *testing.T, s *vectors.Scenario, d *database) {
	t.Helper()
	wants, err := s.Wants(d.storage)
	if err != nil {
		t.Fatal(err)
	}
	renamed := renamedColumns[s.Name]
	d.createTable(t, renamed)
	network := s.Datagrams[0].Transport
	run := start(t, options{
		network: network, config: s.Config, dbURL: d.url,
		set: []string{"timezone=" + s.Location.String(), "spool.dir=" + t.TempDir()},
	})
	from := time.Now()
	run.feed(t, network, s.Packets()...)
	d.await(t, run, "sip_trace", len(wants), 2*time.Minute)
	c := run.stop(t)
	if got, want := c[servers.Received], int64(len(s.Datagrams)); got != want {
		t.Errorf("received: got %d, want %d", got, want)
	}
	// Log lines that the event route wrote are in a table of their own.
	if got, want := c[servers.Written]-c["store.log_lines"], int64(len(wants)); got != want {
		t.Errorf("written: got %d, want %d (%v)", got, want, c)
	}
	report(t, vectors.Compare(wants, d.rows(t, "sip_trace", renamed), vectors.Window{From: from, To: time.Now()}))
	if t.Failed() {
		t.Logf("siptraced:\n%s", run.Tail(30))
	}
}
