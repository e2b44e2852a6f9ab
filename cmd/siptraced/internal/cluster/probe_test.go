package cluster

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/tests/servers"
)

// TestProbe: what of a cluster's configuration can lose messages is said, and what can't
// be seen.
func TestProbe(t *testing.T) {
	t.Parallel()
	page := func(nodes []*servers.NATS, which ...int) string {
		var out []string
		for _, i := range which {
			out = append(out, nodes[i].MonitorURL()+"/")
		}
		return strings.Join(out, ", ")
	}
	probe := func(t *testing.T, nodes []*servers.NATS, monitor string, want ...string) {
		t.Helper()
		got, err := Probe(within1(t), Config{URL: servers.NATSURL(nodes), Monitor: monitor})
		if err != nil {
			t.Fatal(err)
		}
		ok := len(got) == len(want)
		for i := 0; ok && i < len(want); i++ {
			ok = strings.Contains(got[i], want[i])
		}
		if !ok {
			t.Errorf("warnings %q, want %q", got, want)
		}
	}

	lazy := cluster(t, servers.NATSOptions{})
	probe(t, lazy, page(lazy, 0, 1, 2), "server node0 syncs its files every 2m0s", "server node1 ", "server node2 ")
	probe(t, lazy, page(lazy, 0, 0), "server node0 ", "of 2 of 3 servers")
	probe(t, lazy, "", "of any server")

	safe := cluster(t, servers.NATSOptions{JetStream: "sync_interval: always"})
	probe(t, safe, page(safe, 0, 1, 2))
	none := httptest.NewServer(http.NotFoundHandler())
	defer none.Close()
	probe(t, safe, page(safe, 0, 1)+","+none.URL, "of 1 of 3 servers whether it syncs before it acknowledges: see that all have sync_interval: always, and name their monitoring pages (key spool.monitor): "+none.URL+" (404 Not Found)")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	defer other.Close()
	probe(t, safe, other.URL, "(this is not the page of a NATS server)")

	e, _ := connect(t, servers.NATSURL(safe))
	l := shard(t, e, 0, journal.Limits{})
	probe(t, safe, page(safe, 0, 1, 2))
	cfg := l.handle().CachedInfo().Config
	cfg.Compression = jetstream.S2Compression
	if _, err := e.js.UpdateStream(within1(t), cfg); err != nil {
		t.Fatal(err)
	}
	probe(t, safe, page(safe, 0, 1, 2), "stream SIPTRACED_0 is compressed")

	plain := servers.FreePort(t)
	if _, err := Probe(shortly(t), Config{URL: fmt.Sprintf("nats://127.0.0.1:%d", plain)}); err == nil || !strings.Contains(err.Error(), "spool.nats") {
		t.Errorf("no server: %v", err)
	}
}
