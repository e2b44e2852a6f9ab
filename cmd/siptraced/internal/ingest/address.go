package ingest

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"siptraced/compat/siptrace"
)

// Address is one entry of the key listen: udp, tcp or tls, and host:port.
type Address struct {
	Net  string // "udp", "tcp" or "tls"
	Host string // empty: every address of this host
	Port string
}

// DefaultPort is the registered port of HEP collectors in the field.
const DefaultPort = "9060"

// ParseAddress reads proto:host[:port], such as udp:127.0.0.1:9060,
// tcp:[::1]:9060, tls:*:9061.
func ParseAddress(s string) (Address, error) {
	network, host, port := siptrace.SplitEndpoint(s)
	network = strings.ToLower(network)
	if network != "udp" && network != "tcp" && network != "tls" {
		return Address{}, fmt.Errorf("listen %q: want udp:host:port, tcp:host:port or tls:host:port", s)
	}
	host, ok := siptrace.Unbracket(host)
	if !ok {
		return Address{}, fmt.Errorf("listen %q: IPv6 addresses are written in brackets", s)
	}
	a := Address{Net: network, Host: host, Port: cmp.Or(port, DefaultPort)}
	if a.Host == "*" {
		a.Host = ""
	}
	if n, err := net.LookupPort("tcp", a.Port); err != nil || n > 65535 {
		return Address{}, fmt.Errorf("listen %q: %q is not a port", s, a.Port)
	}
	return a, nil
}

// network is the one for package net, udp or tcp. It takes 0.0.0.0 for every address
// of either family, but whoever writes IPv4 wants no other.
func (a Address) network() string {
	network := "tcp"
	if a.Net == "udp" {
		network = "udp"
	}
	if ip, err := netip.ParseAddr(a.Host); err == nil && ip.Is4() {
		network += "4"
	}
	return network
}

// HostPort is the address for package net.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, a.Port) }

// String is the entry as it is configured.
func (a Address) String() string { return a.Net + ":" + a.HostPort() }
