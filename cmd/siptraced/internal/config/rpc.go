package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"slices"
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
}

// rpcAtStart is why most of remote control needs a restart.
const rpcAtStart = "its sockets and FIFOs are opened at start"

func defaultRPC() RPC {
	return RPC{Ctl: []string{"unix:/run/siptraced/ctl"}, HTTP: []string{"127.0.0.1:8060"}, ReplyDir: "/tmp", Rate: 2000, Connections: 128}
}

func rpcKeys() []Key {
	str := func(name, doc string, field func(*RPC) *string) Key {
		return Key{Name: "rpc." + name, Doc: doc, Restart: rpcAtStart, access: text(func(c *Config) *string { return field(&c.RPC) })}
	}
	strs := func(name, doc string, field func(*RPC) *[]string) Key {
		return Key{Name: "rpc." + name, List: true, Doc: doc, Restart: rpcAtStart, access: list(func(c *Config) *[]string { return field(&c.RPC) })}
	}
	bounds := func(c *Config) error { return c.RPC.validate() }
	return []Key{
		strs("ctl", "BINRPC for `kamcmd`: `unix:`, `unixd:`, `tcp:`, `udp:`", func(r *RPC) *[]string { return &r.Ctl }),
		str("fifo", "JSON-RPC FIFO for `kamctl` (`RPCFIFOPATH=...`), such as /run/siptraced/rpc.fifo", func(r *RPC) *string { return &r.FIFO }),
		strs("datagram", "JSON-RPC datagrams for `kamcli`: a path, `unixd:` or `udp:`", func(r *RPC) *[]string { return &r.Datagram }),
		strs("tcp", "JSON-RPC over TCP for `kamcli`: host:port", func(r *RPC) *[]string { return &r.TCP }),
		strs("http", "JSON-RPC by POST to `/RPC`, or below it: host:port", func(r *RPC) *[]string { return &r.HTTP }),
		str("mi_fifo", "MI FIFO for `openserctl` (`OSER_FIFO=...`), such as /tmp/openser_fifo", func(r *RPC) *string { return &r.MIFIFO }),
		str("flexisip_cli", "socket for `flexisip_cli.py` (log level)", func(r *RPC) *string { return &r.FlexisipCLI }),
		str("flexisip_pid", "file that tells `flexisip_cli.py` our process id", func(r *RPC) *string { return &r.PIDFile }),
		{Name: "rpc.mode", Restart: rpcAtStart, Doc: "mode of sockets and FIFOs, octal; who may write there has full control; default 0600 for ctl, 0660 else", access: scalar(func(c *Config) *fs.FileMode { return &c.RPC.Mode }, parseMode)},
		str("user", "their owner", func(r *RPC) *string { return &r.User }),
		str("group", "their group", func(r *RPC) *string { return &r.Group }),
		str("reply_dir", "where clients make their reply FIFOs", func(r *RPC) *string { return &r.ReplyDir }),
		{Name: "rpc.token", Secret: true, Doc: "bearer token that HTTP requests must bring; needed beyond loopback", access: text(func(c *Config) *string { return &c.RPC.Token })},
		{Name: "rpc.rate", Restart: rpcAtStart, Doc: "requests per second and peer (address, or user on unix sockets); 0: any", access: number(func(c *Config) *int { return &c.RPC.Rate }), check: bounds},
		{Name: "rpc.connections", Restart: rpcAtStart, Doc: "connections open at once per listener", access: number(func(c *Config) *int { return &c.RPC.Connections }), check: bounds},
		{Name: "rpc.compact", Restart: rpcAtStart, Doc: "JSON without blanks, as pretty_format 0", access: boolean(func(c *Config) *bool { return &c.RPC.Compact })},
		{Name: "rpc.strict", Restart: rpcAtStart, Doc: "JSON-RPC 2.0 to the letter, not as jsonrpcs answers", access: boolean(func(c *Config) *bool { return &c.RPC.Strict })},
		{Name: "rpc.forward", Restart: "the connection to the proxy is set up at start", Doc: "ctl socket of the real Kamailio: what siptraced does not know is answered there, unchanged; its sockets are learned", access: text(func(c *Config) *string { return &c.RPC.Forward })},
		{Name: "rpc.forward_status", Doc: "pass `siptrace.status` on to it", access: boolean(func(c *Config) *bool { return &c.RPC.ForwardStatus })},
		{Name: "rpc.state_file", Doc: "keeps what remote control changed over a restart", access: text(func(c *Config) *string { return &c.RPC.StateFile })},
	}
}

func parseMode(s string) (fs.FileMode, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%q is not an octal mode such as 0660", s)
	}
	return fs.FileMode(n), nil
}

// validate reports the first number out of its bounds.
func (r *RPC) validate() error {
	switch {
	case r.Rate < 0 || r.Rate > 1<<30:
		return fmt.Errorf("rpc.rate is %d: 0 to 1073741824 are possible", r.Rate)
	case r.Connections < 1 || r.Connections > 1<<20:
		return fmt.Errorf("rpc.connections is %d: 1 to 1048576 are possible", r.Connections)
	}
	return nil
}

// finishRPC makes listeners of the keys. Beyond loopback TCP is served over TLS, if
// there is one that asks for client certificates.
func (c *Config) finishRPC() (problems []error) {
	r := &c.RPC
	var mutual *tls.Config
	if c.tls.ca != "" {
		mutual = c.Ingest.TLS
	}
	add := func(key string, p serve.Protocol, prefix string, addresses []string, known ...string) {
		_, set := c.setting(key)
		for _, a := range addresses {
			if a == "" {
				continue
			}
			if !slices.ContainsFunc(append(known, prefix), func(k string) bool { return strings.HasPrefix(a, k) }) {
				a = prefix + a
			}
			l := serve.Listener{
				Protocol: p, Address: a, Mode: r.Mode, User: r.User, Group: r.Group, ReplyDir: r.ReplyDir, Token: r.Token, PIDFile: r.PIDFile,
			}
			if strings.HasPrefix(a, "tcp:") && l.Remote() {
				l.TLS = mutual
			}
			if err := l.Validate(); err != nil {
				problems = append(problems, c.problem(key, fmt.Errorf("%s: %w", key, err)))
			}
			r.Serve.Listeners = append(r.Serve.Listeners, l)
			r.Optional = append(r.Optional, !set)
		}
	}
	add("rpc.ctl", serve.Ctl, "unix:", r.Ctl, "unixd:", "tcp:", "udp:")
	add("rpc.fifo", serve.JSONRPC, "fifo:", []string{r.FIFO})
	add("rpc.datagram", serve.JSONRPC, "unixd:", r.Datagram, "udp:")
	add("rpc.tcp", serve.JSONRPC, "tcp:", r.TCP)
	add("rpc.http", serve.HTTP, "tcp:", r.HTTP)
	add("rpc.mi_fifo", serve.MI, "fifo:", []string{r.MIFIFO})
	add("rpc.flexisip_cli", serve.Flexisip, "unix:", []string{r.FlexisipCLI})
	r.Serve.Compact, r.Serve.Strict = r.Compact, r.Strict
	r.Serve.Limits.Connections, r.Serve.Limits.Rate = r.Connections, r.Rate
	if r.Rate == 0 {
		r.Serve.Limits.Rate = -1
	}
	if r.ForwardStatus && r.Forward == "" {
		const key = "rpc.forward_status"
		problems = append(problems, c.problem(key, errors.New(key+" is set, and rpc.forward is not: nobody to pass siptrace.status on to")))
	}
	return problems
}
