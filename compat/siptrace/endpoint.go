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

// Endpoint is one end of a message, the fromip or toip column:
// proto:address:port, IPv6 in brackets.
type Endpoint struct {
	Proto Proto
	Addr  netip.AddrPort
	// Text, when set, is the whole column: an address that came as text
	// (X-Siptrace-Fromip, trace_local_ip) and stays as it was written. Proto and
	// Addr are what it names; zero, if that can't be read.
	Text string
}

// Unknown is what the module writes for an address that it lacks: any:255.255.255.255:5060.
func Unknown() Endpoint {
	return Endpoint{Proto: Any, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 5060)}
}

// OrUnknown is e, or [Unknown] if e has no address.
func (e Endpoint) OrUnknown() Endpoint {
	if !e.Addr.Addr().IsValid() {
		return Unknown()
	}
	if e.Proto == "" {
		e.Proto = Any
	}
	return e
}

// TextEndpoint is the end that a text names.
func TextEndpoint(text string) Endpoint {
	e, err := ParseEndpoint(text)
	if err != nil {
		e = Endpoint{}
	}
	e.Text = text
	return e
}

// maxEndpoints bounds an EndpointCache: relaying nodes, and who talks to them,
// are few.
const maxEndpoints = 1024

// EndpointCache remembers ends that came as text, in bounded memory, so that each
// is read once. The zero value is ready. Not safe for concurrent use.
type EndpointCache struct{ seen map[string]Endpoint }

// Get is the end that a text names; none for an empty text.
func (c *EndpointCache) Get(text []byte) Endpoint {
	e, ok := c.seen[string(text)]
	if ok || len(text) == 0 {
		return e
	}
	if e = TextEndpoint(string(text)); len(text) > maxEndpointText {
		return e
	}
	if c.seen == nil || len(c.seen) >= maxEndpoints {
		c.seen = map[string]Endpoint{}
	}
	c.seen[e.Text] = e
	return e
}

// maxEndpointText is over the longest text that names an end.
const maxEndpointText = 64

// Append appends the column's text to dst.
func (e Endpoint) Append(dst []byte) []byte {
	if e.Text != "" {
		return append(dst, e.Text...)
	}
	e = e.OrUnknown()
	dst = append(dst, e.Proto...)
	dst = e.AppendHost(append(dst, ':'))
	return strconv.AppendUint(append(dst, ':'), uint64(e.Addr.Port()), 10)
}

// AppendHost appends the address of Addr to dst, IPv6 in brackets.
func (e Endpoint) AppendHost(dst []byte) []byte {
	ip := e.Addr.Addr().Unmap()
	if !ip.Is6() {
		return ip.AppendTo(dst)
	}
	return append(ip.WithZone("").AppendTo(append(dst, '[')), ']')
}

// String is the column's text.
func (e Endpoint) String() string { return string(e.Append(nil)) }

// SplitEndpoint cuts proto:host:port, or any part of it, at its colons: those within brackets aside, the port is what
// follows the last one. Nothing is checked; without a colon all of s is the host.
func SplitEndpoint(s string) (proto, host, port string) {
	proto, host, ok := strings.Cut(s, ":")
	if !ok {
		return "", s, ""
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	return proto, host, port
}

// Unbracket takes the brackets of IPv6 off the host of a socket. It reports false
// for a host that is IPv6 without them: its port is not to be told from it.
func Unbracket(host string) (string, bool) {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return host[1 : len(host)-1], true
	}
	return host, !strings.ContainsAny(host, ":[]")
}

// ParseEndpoint reads proto:address[:port] as Kamailio writes sockets: the
// port defaults to 5060, to 5061 for tls and wss; IPv6 is in brackets.
func ParseEndpoint(s string) (Endpoint, error) {
	name, host, digits := SplitEndpoint(s)
	proto, known := ParseProto(name)
	if !known {
		return Endpoint{}, fmt.Errorf("%q: want proto:address:port with proto udp, tcp, tls, sctp, ws or wss", s)
	}
	port := uint16(5060)
	if proto == TLS || proto == WSS {
		port = 5061
	}
	if len(name)+1+len(host) < len(s) {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return Endpoint{}, fmt.Errorf("%q: port %q is not a number from 0 to 65535", s, digits)
		}
		port = uint16(n)
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return Endpoint{}, fmt.Errorf("%q: %q is not an IP address", s, host)
	}
	return Endpoint{Proto: proto, Addr: netip.AddrPortFrom(ip, port)}, nil
}
