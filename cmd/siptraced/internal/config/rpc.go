package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"siptraced/rpc/serve"
)

// RPC is remote control: where it is served, and what stands behind it.
type RPC struct {
	// Ctl are addresses for kamcmd (unix:, unixd:, tcp:, udp:), FIFO and MIFIFO
	// paths, Datagram addresses for kamcli, HTTP host:port, FlexisipCLI a path.
	Ctl, Datagram, TCP, HTTP []string
	FIFO, MIFIFO             string
	FlexisipCLI, PIDFile     string
	Mode                     fs.FileMode // of sockets and FIFOs; 0: Kamailio's
	User, Group              string
	ReplyDir, Token          string
	Compact, Strict          bool
	// Rate is requests per second and peer, Connections those open at once per
	// listener.
	Rate, Connections int
	// Forward is the ctl socket of a Kamailio that answers what siptraced does
	// not know; ForwardStatus passes siptrace.status on to it too.
	Forward       string
	ForwardStatus bool
	// StateFile keeps what was changed at run time over a restart; empty: nothing
	// is kept.
	StateFile string

	// Serve is all of that for package serve; the listeners of which Optional is
	// true stand at their default address, and may fail.
	Serve    serve.Config
	Optional []bool

	set map[string]bool // keys that the operator set
}

// rpcKeys are the settings of remote control.
var rpcKeys = []key{
	rpcList("ctl", "unix:/run/siptraced/ctl", "BINRPC for kamcmd: unix:, unixd:, tcp:, udp:", func(r *RPC) *[]string { return &r.Ctl }),
	rpcText("fifo", "", "JSON-RPC FIFO for kamctl, such as /run/siptraced/rpc.fifo", func(r *RPC) *string { return &r.FIFO }),
	rpcList("datagram", "", "JSON-RPC datagrams for kamcli: a path, unixd: or udp:", func(r *RPC) *[]string { return &r.Datagram }),
	rpcList("tcp", "", "JSON-RPC over TCP: host:port", func(r *RPC) *[]string { return &r.TCP }),
	rpcList("http", "127.0.0.1:8060", "JSON-RPC by POST /RPC: host:port", func(r *RPC) *[]string { return &r.HTTP }),
	rpcText("mi_fifo", "", "MI FIFO for openserctl, such as /tmp/openser_fifo", func(r *RPC) *string { return &r.MIFIFO }),
	rpcText("flexisip_cli", "", "socket for flexisip_cli.py", func(r *RPC) *string { return &r.FlexisipCLI }),
	rpcText("flexisip_pid", "", "file that tells flexisip_cli.py our process id", func(r *RPC) *string { return &r.PIDFile }),
	{"rpc.mode", false, "", "mode of sockets and FIFOs, octal; default 0600 for ctl, 0660 else", func(c *Config, v []string) error {
		if v[0] == "" {
			return nil
		}
		n, err := strconv.ParseUint(v[0], 8, 12)
		if err != nil {
			return fmt.Errorf("%q is not an octal mode such as 0660", v[0])
		}
		c.RPC.Mode = fs.FileMode(n)
		return nil
	}},
	rpcText("user", "", "their owner", func(r *RPC) *string { return &r.User }),
	rpcText("group", "", "their group", func(r *RPC) *string { return &r.Group }),
	rpcText("reply_dir", "/tmp", "where clients make their reply FIFOs", func(r *RPC) *string { return &r.ReplyDir }),
	rpcText("token", "", "bearer token that HTTP requests must bring", func(r *RPC) *string { return &r.Token }),
	{"rpc.rate", false, "2000", "requests per second and peer; 0: any", intInto(func(c *Config, n int64) { c.RPC.Rate = int(n) }, 0, 1<<30)},
	{"rpc.connections", false, "128", "connections open at once per listener", intInto(func(c *Config, n int64) { c.RPC.Connections = int(n) }, 1, 1<<20)},
	rpcFlag("compact", "JSON without blanks, as pretty_format 0", func(r *RPC) *bool { return &r.Compact }),
	rpcFlag("strict", "JSON-RPC as its specification has it, not as jsonrpcs", func(r *RPC) *bool { return &r.Strict }),
	rpcText("forward", "", "ctl socket of a Kamailio that answers what siptraced does not know", func(r *RPC) *string { return &r.Forward }),
	rpcFlag("forward_status", "pass siptrace.status on to it", func(r *RPC) *bool { return &r.ForwardStatus }),
	rpcText("state_file", "", "keeps what is changed at run time over a restart", func(r *RPC) *string { return &r.StateFile }),
}

func rpcList(name, def, doc string, field func(*RPC) *[]string) key {
	return key{"rpc." + name, true, def, doc, func(c *Config, v []string) error { *field(&c.RPC) = v; return nil }}
}

func rpcText(name, def, doc string, field func(*RPC) *string) key {
	return key{"rpc." + name, false, def, doc, textInto(func(c *Config) *string { return field(&c.RPC) })}
}

func rpcFlag(name, doc string, field func(*RPC) *bool) key {
	return key{"rpc." + name, false, "0", doc, func(c *Config, v []string) error {
		b, err := strconv.ParseBool(v[0])
		if err != nil {
			return fmt.Errorf("%q is neither 1 nor 0", v[0])
		}
		*field(&c.RPC) = b
		return nil
	}}
}

// finish makes listeners of the keys. Beyond loopback TCP is served over TLS, if
// there is one that asks for client certificates.
func (r *RPC) finish(mutual *tls.Config) error {
	add := func(key string, p serve.Protocol, address string) {
		l := serve.Listener{
			Protocol: p, Address: address, Mode: r.Mode, User: r.User, Group: r.Group, ReplyDir: r.ReplyDir, Token: r.Token, PIDFile: r.PIDFile,
		}
		if strings.HasPrefix(address, "tcp:") && l.Remote() {
			l.TLS = mutual
		}
		r.Serve.Listeners = append(r.Serve.Listeners, l)
		r.Optional = append(r.Optional, !r.set[key])
	}
	prefixed := func(s, prefix string, known ...string) string {
		for _, k := range known {
			if strings.HasPrefix(s, k) {
				return s
			}
		}
		return prefix + s
	}
	for _, a := range r.Ctl {
		add("rpc.ctl", serve.Ctl, prefixed(a, "unix:", "unix:", "unixd:", "tcp:", "udp:"))
	}
	if r.FIFO != "" {
		add("rpc.fifo", serve.JSONRPC, prefixed(r.FIFO, "fifo:", "fifo:"))
	}
	for _, a := range r.Datagram {
		add("rpc.datagram", serve.JSONRPC, prefixed(a, "unixd:", "unixd:", "udp:"))
	}
	for _, a := range r.TCP {
		add("rpc.tcp", serve.JSONRPC, prefixed(a, "tcp:", "tcp:"))
	}
	for _, a := range r.HTTP {
		add("rpc.http", serve.HTTP, prefixed(a, "tcp:", "tcp:"))
	}
	if r.MIFIFO != "" {
		add("rpc.mi_fifo", serve.MI, prefixed(r.MIFIFO, "fifo:", "fifo:"))
	}
	if r.FlexisipCLI != "" {
		add("rpc.flexisip_cli", serve.Flexisip, prefixed(r.FlexisipCLI, "unix:", "unix:"))
	}
	for _, l := range r.Serve.Listeners {
		if err := l.Validate(); err != nil {
			return err
		}
	}
	r.Serve.Compact, r.Serve.Strict = r.Compact, r.Strict
	r.Serve.Limits.Connections, r.Serve.Limits.Rate = r.Connections, r.Rate
	if r.Rate == 0 {
		r.Serve.Limits.Rate = -1
	}
	if r.ForwardStatus && r.Forward == "" {
		return errors.New("rpc.forward_status is set, and rpc.forward is not: nobody to pass siptrace.status on to")
	}
	return nil
}
