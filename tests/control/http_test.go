package control

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// httpCfg has the event route that Kamailio's documentation of jsonrpcs gives.
const httpCfg = `#!KAMAILIO
debug=1
log_stderror=yes
children=1
tcp_children=1
tcp_accept_no_cl=yes
auto_aliases=no
dns=no
rev_dns=no
listen=tcp:@HTTP@
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xhttp.so"
loadmodule "jsonrpcs.so"
loadmodule "siptrace.so"
modparam("jsonrpcs", "transport", 1)
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
request_route {
	drop;
}
event_route[xhttp:request] {
	if ($hu =~ "^/RPC") {
		jsonrpc_dispatch();
	} else {
		xhttp_reply("404", "Not Found", "text/plain", "Not Found");
	}
}
`

// TestHTTPPaths asks siptraced and a real Kamailio at several paths.
func TestHTTPPaths(t *testing.T) {
	theirs, ours := loopback(t), start(t, options{})
	k := servers.StartKamailio(t, strings.ReplaceAll(httpCfg, "@HTTP@", theirs), "tcp:"+theirs)
	t.Cleanup(func() { k.Stop(t) })
	const body = `{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`
	for _, tt := range []struct{ path, status string }{
		{"/RPC", "200 OK"},
		{"/RPC/", "200 OK"},
		{"/RPC/siptrace/status", "200 OK"},
		{"/RPC?x=1", "200 OK"},
		{"/", "404 Not Found"},
		{"/other", "404 Not Found"},
		{"/other/RPC", "404 Not Found"},
	} {
		var got [2]httpReply
		for i, address := range []string{theirs, ours.http} {
			c := dial(t, "tcp", address)
			write(t, c, fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", tt.path, len(body), body))
			if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			got[i] = readHTTP(t, bufio.NewReader(c))
		}
		if got[0].status != tt.status || got[0].status != got[1].status || got[0].body != got[1].body {
			t.Errorf("%s: siptraced: %+v, Kamailio: %+v, want %s", tt.path, got[1], got[0], tt.status)
		}
	}
}
