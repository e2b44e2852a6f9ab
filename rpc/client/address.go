package client

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// DefaultPort is that of ctl over TCP and UDP.
const DefaultPort = "2049"

// DefaultHTTPPath is where JSON-RPC is served over HTTP.
const DefaultHTTPPath = "/RPC"

// Address is a server's address.
type Address struct {
	// Protocol is "ctl" (BINRPC), "jsonrpc", "http", "mi" or "flexisip_cli".
	Protocol string
	// Network is "unix" (stream), "unixd" (datagram), "tcp", "udp" or
	// "fifo"; empty for http.
	Network string
	// Host is a path, HOST:PORT, or a URL for http.
	Host string
}

// AddressError says what is wrong with an address.
type AddressError struct{ Address, Reason string }

func (e *AddressError) Error() string { return fmt.Sprintf("address %q: %s", e.Address, e.Reason) }

// ParseAddress reads an address in one of the forms of kamcmd's -s,
//
//	unix:PATH unixs:PATH PATH   stream; a path without a slash is one too
//	unixd:PATH                  datagram
//	tcp:HOST[:PORT]             port 2049 if none is given
//	udp:HOST[:PORT] HOST:PORT
//
// which all mean ctl, or one of
//
//	fifo:PATH                   JSON-RPC over a FIFO, as kamctl
//	json:unixd:PATH             JSON-RPC over datagrams, as kamcli;
//	json:udp:HOST:PORT          also json:tcp:HOST:PORT and json:fifo:PATH
//	http:HOST:PORT              JSON-RPC by POST /RPC, or any http:// or https:// URL
//	mi:PATH                     MI FIFO of OpenSER
//	flexisip:PATH               socket of flexisip_cli.py
//
// They are kamcmd's own forms, of paths before all: not the proto:address:port of SIP sockets.
func ParseAddress(s string) (Address, error) {
	scheme, rest, has := strings.Cut(s, ":")
	var a Address
	switch {
	case s == "":
		return Address{}, &AddressError{s, "is empty"}
	case strings.Contains(scheme, "/"):
		return Address{"ctl", "unix", s}, nil
	case !has:
		return Address{"ctl", "unix", s}, nil
	}
	switch scheme {
	case "unix", "unixs":
		a = Address{"ctl", "unix", rest}
	case "unixd", "tcp", "udp":
		a = Address{"ctl", scheme, rest}
	case "fifo":
		a = Address{"jsonrpc", "fifo", rest}
	case "mi":
		a = Address{"mi", "fifo", rest}
	case "flexisip":
		a = Address{"flexisip_cli", "unix", rest}
	case "json":
		scheme, rest, _ = strings.Cut(rest, ":")
		switch scheme {
		case "unixd", "udp", "tcp", "fifo":
			a = Address{"jsonrpc", scheme, rest}
		default:
			return Address{}, &AddressError{s, "json: goes with unixd:, udp:, tcp: or fifo:"}
		}
	case "http", "https":
		return parseURL(s)
	default:
		a = Address{"ctl", "udp", s}
	}
	if a.Host == "" {
		return Address{}, &AddressError{s, "nothing behind the colon"}
	}
	if a.Network == "tcp" || a.Network == "udp" {
		if _, _, err := net.SplitHostPort(a.Host); err != nil && a.Protocol == "ctl" {
			a.Host = net.JoinHostPort(strings.Trim(a.Host, "[]"), DefaultPort)
		}
		if _, port, err := net.SplitHostPort(a.Host); err != nil || port == "" {
			return Address{}, &AddressError{s, "HOST:PORT expected"}
		}
	}
	return a, nil
}

func parseURL(s string) (Address, error) {
	text := s
	if scheme, rest, _ := strings.Cut(s, ":"); !strings.HasPrefix(rest, "//") {
		text = scheme + "://" + rest
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return Address{}, &AddressError{s, "not a URL"}
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = DefaultHTTPPath
	}
	return Address{Protocol: "http", Host: u.String()}, nil
}

// String is a form that ParseAddress reads.
func (a Address) String() string {
	switch {
	case a.Protocol == "http":
		return a.Host
	case a.Protocol == "mi":
		return "mi:" + a.Host
	case a.Protocol == "flexisip_cli":
		return "flexisip:" + a.Host
	case a.Protocol == "jsonrpc" && a.Network != "fifo":
		return "json:" + a.Network + ":" + a.Host
	}
	return a.Network + ":" + a.Host
}
