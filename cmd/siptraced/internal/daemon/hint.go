package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/compat/siptrace"
)

// lines are what a proxy needs to mirror everything to us.
const lines = `To mirror all traffic of a Kamailio to siptraced, put this into its kamailio.cfg:

    loadmodule "siptrace.so"
    modparam("siptrace", "duplicate_uri", "%s")
    modparam("siptrace", "hep_mode_on", 1)
    modparam("siptrace", "hep_version", 3)
    modparam("siptrace", "trace_to_database", 0)
    modparam("siptrace", "trace_on", 1)
    modparam("siptrace", "trace_mode", 1)

`

// hint says what to put into a kamailio.cfg so that one of the sockets, over UDP
// if there is such a one, gets all traffic.
func hint(sockets []ingest.Socket) string {
	if len(sockets) == 0 {
		return ""
	}
	s := sockets[max(0, slices.IndexFunc(sockets, func(s ingest.Socket) bool { return s.Net == "udp" }))]
	proto := siptrace.Proto(s.Net)
	uri, every := siptrace.ListenerURI(proto, s.Addr)
	text := fmt.Sprintf(lines, uri)
	if s.Net != "udp" {
		text += fmt.Sprintf("Kamailio sends over %[1]s only if it listens there, with an address of the same family: it needs a listen=%[2]s:... line.\n\n", strings.ToUpper(s.Net), s.Net)
	}
	if !every {
		return text
	}
	there := siptrace.MirrorURI(proto, "ADDRESS", s.Addr.Port()) + " with an address of this host"
	if ip, ok := reachable(s.Addr.Addr()); ok {
		there = siptrace.MirrorURI(proto, ip.String(), s.Addr.Port())
	}
	return text + fmt.Sprintf("siptraced listens on every address of this host: %s is for a proxy on this host, elsewhere write %s.\n\n", uri, there)
}

// reachable is an address of this host that others may reach, where a socket is
// bound to every one.
func reachable(every netip.Addr) (ip netip.Addr, ok bool) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ip, false
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().IsGlobalUnicast() || every.Is4() && !p.Addr().Is4() {
			continue
		}
		if !ok || p.Addr().Is4() && !ip.Is4() {
			ip, ok = p.Addr(), true
		}
	}
	return ip, ok
}
