package siptrace

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"siptraced/compat/sipmsg"
)

// SIPURI is a URI that names a socket, as duplicate_uri, send_sock_addr and the
// address of sip_trace() do.
type SIPURI struct {
	sipmsg.URI
	Transport Proto
	Port      uint16 // the default where the URI has none
}

var transports = [...]Proto{UDP, TCP, TLS, SCTP, WS, WSS}

// ParseSIPURI reads sip:host[:port][;transport=udp|tcp|tls|sctp|ws|wss]. The
// transport is udp, or tls for sips:, the port 5060, or 5061 for tls and wss (RFC
// 3261 §19.1.2). It allocates only for an error. The result aliases b.
func ParseSIPURI(b []byte) (SIPURI, error) {
	u, ok := sipmsg.ParseURI(b)
	sips := bytes.EqualFold(u.Scheme, []byte("sips"))
	if !ok || !sips && !bytes.EqualFold(u.Scheme, []byte("sip")) || bytes.ContainsFunc(b, unfit) {
		return SIPURI{}, fmt.Errorf("%q is not a SIP URI: want sip:host:port;transport=udp", b)
	}
	out := SIPURI{URI: u, Transport: UDP, Port: 5060}
	if sips {
		out.Transport = TLS
	}
	for rest := u.Params; len(rest) > 0; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte{';'})
		name, value, _ := bytes.Cut(p, []byte{'='})
		if bytes.EqualFold(bytes.TrimSpace(name), []byte("transport")) {
			value = bytes.TrimSpace(value)
			i := slices.IndexFunc(transports[:], func(p Proto) bool { return bytes.EqualFold(value, []byte(p)) })
			if i < 0 {
				return SIPURI{}, fmt.Errorf("%q: there is no transport %q", b, value)
			}
			out.Transport = transports[i]
		}
	}
	if out.Transport == TLS || out.Transport == WSS {
		out.Port = 5061
	}
	if len(u.Port) > 0 {
		n, err := strconv.ParseUint(string(u.Port), 10, 16)
		if err != nil || n == 0 {
			return SIPURI{}, fmt.Errorf("%q: port %q is not a number from 1 to 65535", b, u.Port)
		}
		out.Port = uint16(n)
	}
	return out, nil
}

// unfit are characters that no URI has, and that would end it in a header.
func unfit(r rune) bool { return r <= ' ' || r == '"' || r == '<' || r == '>' }

// HostName is the host in lower case, without brackets.
func (u SIPURI) HostName() string { return strings.ToLower(strings.Trim(string(u.Host), "[]")) }

// ParseMirrorURI is ParseSIPURI for what mirrors can reach: over udp, tcp or tls.
func ParseMirrorURI(b []byte) (SIPURI, error) {
	u, err := ParseSIPURI(b)
	if err == nil && u.Transport != UDP && u.Transport != TCP && u.Transport != TLS {
		return SIPURI{}, fmt.Errorf("%q: mirrors go over udp, tcp or tls, not %q", b, u.Transport)
	}
	return u, err
}

// MirrorURI is the URI of a socket as duplicate_uri has it: sip:host:port, IPv6 in
// brackets, with the transport if it isn't udp. host is an address or a name.
func MirrorURI(proto Proto, host string, port uint16) string {
	uri := "sip:" + net.JoinHostPort(host, strconv.Itoa(int(port)))
	if proto != UDP && proto != "" {
		uri += ";transport=" + string(proto)
	}
	return uri
}

// ListenerURI is the URI that a proxy sends to so that a listening socket gets it.
// Nothing can be sent to a socket that is bound to every address (0.0.0.0, ::, which
// takes IPv4 as well): every is true then, and the URI has 127.0.0.1, where a proxy on
// the same host finds it.
func ListenerURI(proto Proto, bound netip.AddrPort) (uri string, every bool) {
	host := bound.Addr().Unmap()
	if every = host.IsUnspecified(); every {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return MirrorURI(proto, host.String(), bound.Port()), every
}

// CheckSIPURI refuses what [ParseSIPURI] does.
func CheckSIPURI(s string) error {
	_, err := ParseSIPURI([]byte(s))
	return err
}
