package siptrace

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Proto is a transport as the table and Kamailio's socket notation spell it.
type Proto string

// The transports of a proto:address:port value.
const (
	UDP  Proto = "udp"
	TCP  Proto = "tcp"
	TLS  Proto = "tls"
	SCTP Proto = "sctp"
	WS   Proto = "ws"
	WSS  Proto = "wss"
	Any  Proto = "any" // unknown
)

// ParseProto reads a transport name in any letter case.
func ParseProto(s string) (Proto, bool) {
	switch p := Proto(strings.ToLower(s)); p {
	case UDP, TCP, TLS, SCTP, WS, WSS, Any:
		return p, true
	}
	return "", false
}

// kind folds the transports that can share one listening socket: a HEP packet
// says TLS for what arrived on a WSS connection, and TCP for WS.
func (p Proto) kind() byte {
	switch p {
	case UDP:
		return 'u'
	case SCTP:
		return 's'
	default:
		return 't'
	}
}

// unknownEndpoint is what the module writes for an address that it lacks.
const unknownEndpoint = "any:255.255.255.255:5060"

// Endpoint is one end of a message, the fromip or toip column:
// proto:address:port, IPv6 in brackets.
type Endpoint struct {
	Proto Proto
	Addr  netip.AddrPort
	// Text, when set, is the whole column: an address that came as text
	// (X-Siptrace-Fromip, trace_local_ip) and stays as it was written.
	Text string
}

// Append appends the column's text to dst.
func (e Endpoint) Append(dst []byte) []byte {
	if e.Text != "" {
		return append(dst, e.Text...)
	}
	if !e.Addr.Addr().IsValid() {
		return append(dst, unknownEndpoint...)
	}
	proto := e.Proto
	if proto == "" {
		proto = Any
	}
	dst = append(dst, proto...)
	dst = append(dst, ':')
	if ip := e.Addr.Addr().Unmap(); ip.Is6() {
		dst = append(dst, '[')
		dst = ip.WithZone("").AppendTo(dst)
		dst = append(dst, ']')
	} else {
		dst = ip.AppendTo(dst)
	}
	dst = append(dst, ':')
	return strconv.AppendUint(dst, uint64(e.Addr.Port()), 10)
}

// String is the column's text.
func (e Endpoint) String() string { return string(e.Append(nil)) }

// ParseEndpoint reads proto:address[:port] as Kamailio writes sockets: the
// port defaults to 5060, to 5061 for tls and wss; IPv6 is in brackets.
func ParseEndpoint(s string) (Endpoint, error) {
	name, rest, ok := strings.Cut(s, ":")
	proto, known := ParseProto(name)
	if !ok || !known {
		return Endpoint{}, fmt.Errorf("%q: want proto:address:port with proto udp, tcp, tls, sctp, ws or wss", s)
	}
	port := uint16(5060)
	if proto == TLS || proto == WSS {
		port = 5061
	}
	host := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.HasSuffix(rest, "]") {
		n, err := strconv.ParseUint(rest[i+1:], 10, 16)
		if err != nil {
			return Endpoint{}, fmt.Errorf("%q: port %q is not a number from 0 to 65535", s, rest[i+1:])
		}
		host, port = rest[:i], uint16(n)
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return Endpoint{}, fmt.Errorf("%q: %q is not an IP address", s, host)
	}
	return Endpoint{Proto: proto, Addr: netip.AddrPortFrom(ip, port)}, nil
}
