package durable

import (
	"fmt"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestShardsChanged starts the daemon with more and fewer shards while messages
// wait in the spool, in the middle of calls: nothing is lost or doubled, and the
// rows of a call keep their order.
func TestShardsChanged(t *testing.T) {
	parallel(t)
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m)
	for _, tt := range []struct {
		name   string
		shards []int
		away   bool // the database, until the last start
	}{
		{"more, database away", []int{2, 5}, true},
		{"fewer, database away", []int{4, 1}, true},
		{"back and forth", []int{1, 3, 2}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			execute(t, d.db, "TRUNCATE sip_trace")
			p := newPlace(t, d.url)
			var away []string
			if tt.away {
				away = []string{fmt.Sprintf("siptrace.db_url=mysql://nobody:nothing@127.0.0.1:%d/none", servers.FreePort(t)), "shutdown_timeout=100ms"}
			}
			var run *daemon
			s := send(t, 1, 4000, p.addr)
			for i, n := range tt.shards {
				if i > 0 {
					run.stop(t)
				}
				set := []string{fmt.Sprintf("spool.shards=%d", n)}
				if i < len(tt.shards)-1 {
					set = append(set, away...)
				}
				run = p.start(t, set...)
				time.Sleep(time.Second)
			}
			s.finish(t, 3*time.Minute)
			run.drained(t, 3*time.Minute)
			t.Log(run.stop(t))
			d.verify(t, whole, s)
		})
	}
}
