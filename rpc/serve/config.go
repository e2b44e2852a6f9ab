package serve

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/flexicli"
)

// Protocol is what is spoken on a listener.
type Protocol string

// The protocols and the kinds of address they are served on.
const (
	Ctl      Protocol = "ctl"          // unix, unixd, tcp, udp
	JSONRPC  Protocol = "jsonrpc"      // fifo, unixd, tcp, udp
	HTTP     Protocol = "http"         // tcp
	MI       Protocol = "mi"           // fifo
	Flexisip Protocol = "flexisip_cli" // unix
)

// Listener is one address to serve.
type Listener struct {
	Protocol Protocol
	// Address is "unix:PATH" (stream), "unixd:PATH" (datagram), "fifo:PATH",
	// "tcp:HOST:PORT" or "udp:HOST:PORT". Port 0 takes any.
	Address string

	// Mode, User and Group are set on the socket or FIFO. User and Group are
	// names or numbers; empty = as the process. Mode 0 = 0600 for ctl and
	// flexisip_cli, 0660 for the others, as Kamailio has it: who can write
	// there has full control.
	Mode        fs.FileMode
	User, Group string

	// ReplyDir is where the clients of a FIFO make theirs. Default /tmp.
	ReplyDir string
	// PIDFile is written for flexisip_cli.py; empty = none.
	PIDFile string

	// Token has to come as "Authorization: Bearer TOKEN" with each request
	// to /RPC over HTTP. Empty = none.
	Token string
	// TLS serves tcp addresses over TLS. With ClientAuth
	// tls.RequireAndVerifyClientCert it proves who calls.
	TLS *tls.Config
}

// LogValue keeps the token out of logs.
func (l Listener) LogValue() slog.Value {
	auth := "file mode"
	switch network, _, _ := strings.Cut(l.Address, ":"); {
	case network != "tcp" && network != "udp":
	case l.mutual():
		auth = "client certificate"
	case l.Token != "":
		auth = "token"
	default:
		auth = "loopback only"
	}
	return slog.GroupValue(slog.String("protocol", string(l.Protocol)), slog.String("address", l.Address),
		slog.Bool("tls", l.TLS != nil), slog.String("access", auth))
}

// Remote reports whether others than this host can reach a tcp or udp address.
func (l Listener) Remote() bool {
	_, address, _ := strings.Cut(l.Address, ":")
	host, _, err := net.SplitHostPort(address)
	ip, err2 := netip.ParseAddr(host)
	return err == nil && host != "localhost" && (err2 != nil || !ip.Unmap().IsLoopback())
}

func (l Listener) mutual() bool {
	return l.TLS != nil && l.TLS.ClientAuth == tls.RequireAndVerifyClientCert
}

// Limits bound what clients can take. A zero field means its default.
type Limits struct {
	Connections int           // open at once per listener, 128
	Idle        time.Duration // between two requests of a connection, 120 s
	Read        time.Duration // from the first byte of a request to its last, 10 s
	Write       time.Duration // for a reply to be taken, 5 s
	Call        time.Duration // for a method to answer, 30 s
	InFlight    int           // datagrams, or reply FIFOs, being served at once per listener, 256
	Rate        int           // requests per second and peer (address, or user on unix sockets), 2000; negative = any
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&l.Idle, 120 * time.Second}, {&l.Read, 10 * time.Second}, {&l.Write, 5 * time.Second}, {&l.Call, 30 * time.Second}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if l.Connections <= 0 {
		l.Connections = 128
	}
	if l.InFlight <= 0 {
		l.InFlight = 256
	}
	if l.Rate == 0 {
		l.Rate = 2000
	}
	return l
}

// Config is what to serve.
type Config struct {
	Listeners []Listener
	Limits    Limits
	// Compact leaves out blanks and line breaks in JSON, as pretty_format 0.
	Compact bool
	// Strict answers JSON-RPC as its specification asks, not as jsonrpcs does.
	Strict bool
}

// Handlers are who answers.
type Handlers struct {
	Registry *rpc.Registry  // for ctl, jsonrpc and http
	MI       *rpc.Registry  // for mi: its commands have other names and rules
	Flexisip flexicli.Store // for flexisip_cli
	// Refused is told of everything that was refused or dropped, by cause:
	// PROTOCOL.CAUSE, see the Cause constants. nil = nobody.
	Refused func(cause string, peer rpc.Peer)
	Log     *slog.Logger // nil = none
}

// Causes, as they come to Handlers.Refused behind the protocol's name and a dot.
const (
	CauseTooLong     = "too_long"      // a request, over the limit
	CauseBad         = "bad"           // not a request of this protocol
	CauseUnfinished  = "unfinished"    // half a request, and then nothing for too long
	CauseConnections = "connections"   // one closed, all were taken
	CauseIdle        = "idle"          // a connection closed after its idle time
	CauseRate        = "rate"          // over the peer's rate: made to wait, or dropped
	CauseBusy        = "busy"          // too much under way: dropped
	CauseReplyName   = "reply_name"    // of a reply FIFO: missing, or forbidden
	CauseReplyFIFO   = "reply_fifo"    // not a FIFO, linked, not there
	CauseNoReader    = "no_reader"     // of a reply FIFO
	CauseReply       = "reply_dropped" // the reply found no taker in time
	CauseAuth        = "auth"          // token, certificate
	CauseOrigin      = "origin"        // HTTP: asked for by a page of another origin
)

// ConfigError says which listener can't be, and why.
type ConfigError struct {
	Listener Listener
	Err      error
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("rpc: listener %s %q: %v", e.Listener.Protocol, e.Listener.Address, e.Err)
}

func (e *ConfigError) Unwrap() error { return e.Err }

// maxUnixPath is the length of sun_path without its closing zero, in bytes:
// unix(7).
const maxUnixPath = 107

var networks = map[Protocol][]string{
	Ctl:      {"unix", "unixd", "tcp", "udp"},
	JSONRPC:  {"fifo", "unixd", "tcp", "udp"},
	HTTP:     {"tcp"},
	MI:       {"fifo"},
	Flexisip: {"unix"},
}

// Validate tells what is wrong with l, as far as can be seen without binding
// it. The error is a [*ConfigError].
func (l Listener) Validate() error {
	if err := l.validate(); err != nil {
		return &ConfigError{l, err}
	}
	return nil
}

func (l Listener) validate() error {
	allowed := networks[l.Protocol]
	if allowed == nil {
		return errors.New("unknown protocol; ctl, jsonrpc, http, mi and flexisip_cli are known")
	}
	network, address, _ := strings.Cut(l.Address, ":")
	if !slices.Contains(allowed, network) || address == "" {
		return fmt.Errorf("address must begin with %s: and go on", strings.Join(allowed, ":, "))
	}
	if network == "unix" || network == "unixd" {
		if len(address) > maxUnixPath {
			return fmt.Errorf("path of %d bytes, a unix socket has %d at most", len(address), maxUnixPath)
		}
		return nil
	}
	if network == "fifo" {
		return nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("HOST:PORT expected: %w", err)
	}
	switch {
	case !l.Remote() || l.mutual() && network == "tcp":
		return nil
	case network == "udp":
		return errors.New("anyone could send datagrams here, and UDP has no place for a password; use 127.0.0.1, or tcp with client certificates")
	case l.Protocol != HTTP:
		return errors.New("reachable from outside, and there is no place for a token here: set TLS that demands client certificates, or use 127.0.0.1")
	case l.Token == "":
		return errors.New("reachable from outside: set a token, or TLS that demands client certificates, or use 127.0.0.1")
	}
	return nil
}
