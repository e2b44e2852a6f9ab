package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"siptraced/cmd/siptraced/internal/ingest"
)

// The lines for the proxy fit the sockets.
func TestHint(t *testing.T) {
	socket := func(network, addr string) ingest.Socket {
		return ingest.Socket{Net: network, Addr: netip.MustParseAddrPort(addr)}
	}
	for _, tt := range []struct {
		name    string
		sockets []ingest.Socket
		want    string
		every   bool
	}{
		{"the default", []ingest.Socket{socket("udp", "127.0.0.1:9060"), socket("tcp", "127.0.0.1:9060")}, "sip:127.0.0.1:9060", false},
		{"UDP first", []ingest.Socket{socket("tls", "127.0.0.1:1"), socket("tcp", "127.0.0.1:2"), socket("udp", "127.0.0.1:3")}, "sip:127.0.0.1:3", false},
		{"TCP alone", []ingest.Socket{socket("tcp", "127.0.0.1:19555")}, "sip:127.0.0.1:19555;transport=tcp", false},
		{"TLS alone", []ingest.Socket{socket("tls", "192.0.2.1:19555")}, "sip:192.0.2.1:19555;transport=tls", false},
		{"IPv6", []ingest.Socket{socket("udp", "[::1]:9060")}, "sip:[::1]:9060", false},
		{"every address", []ingest.Socket{socket("udp", "0.0.0.0:19555")}, "sip:127.0.0.1:19555", true},
		{"of both families", []ingest.Socket{socket("tcp", "[::]:19555")}, "sip:127.0.0.1:19555;transport=tcp", true},
	} {
		got := hint(tt.sockets)
		if !strings.Contains(got, `"duplicate_uri", "`+tt.want+`")`) || strings.Contains(got, "every address of this host") != tt.every {
			t.Errorf("%s: got\n%s\nwant %s, every address: %v", tt.name, got, tt.want, tt.every)
		}
		if tcp := strings.Contains(tt.want, "transport=tcp"); strings.Contains(got, "it needs a listen=tcp:... line") != tcp {
			t.Errorf("%s: a listen line that the proxy needs: %v, in\n%s", tt.name, !tcp, got)
		}
		if strings.Contains(got, "0.0.0.0") || strings.Contains(got, "[::]") {
			t.Errorf("%s: nothing can be sent there:\n%s", tt.name, got)
		}
	}
	if got := hint(nil); got != "" {
		t.Errorf("without sockets: %q", got)
	}
}
