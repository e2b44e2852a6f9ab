package livecheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"

	"siptraced/cmd/siptraced/internal/control"
	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/rpc"
	"siptraced/rpc/serve"
)

// ports binds every socket, as run does, and lets go of it again.
func (c *check) ports(ctx context.Context) {
	for _, a := range c.cfg.Ingest.Listen {
		c.port(ctx, a)
	}
	for i, l := range c.cfg.RPC.Serve.Listeners {
		c.listener(ctx, l, c.cfg.RPC.Optional[i])
	}
}

func (c *check) port(ctx context.Context, a ingest.Address) {
	cfg := c.cfg.Ingest
	cfg.Listen = []ingest.Address{a}
	s, err := ingest.Listen(cfg, nil, counters.New(), slog.New(slog.DiscardHandler))
	if err == nil {
		s.Close(ctx)
		c.say(ok, "listen", "%s is free", a)
		return
	}
	network := a.Net
	if network == "tls" {
		network = "tcp"
	}
	c.taken(ctx, "listen", a.String(), network, a.Port, err, "listen")
}

// taken says of an address that can't be bound who has it.
func (c *check) taken(ctx context.Context, what, address, network, port string, err error, key string) {
	if !errors.Is(err, syscall.EADDRINUSE) {
		c.verdict(what, "", err, key, "name an address of this host that this user may bind")
		return
	}
	pid, name := owner(ctx, network, port)
	switch {
	case c.running != nil && (pid == c.running.pid || pid == 0 && c.running.listens(network, port)):
		c.say(ok, what, "%s is in use by the running siptraced (pid %d)", address, c.running.pid)
	case pid > 0:
		c.verdict(what, "", fmt.Errorf("%s is in use by %s (pid %d)", address, name, pid), key, "stop that program, or name another address")
	default:
		c.verdict(what, "", fmt.Errorf("%s is in use by another program (root sees which: ss -lnp 'sport = %s')", address, port), key, "stop that program, or name another address")
	}
}

// listens reports whether one of its sockets has the port.
func (i *instance) listens(network, port string) bool {
	for _, l := range i.listen {
		n, rest, _ := strings.Cut(l, ":")
		if n == "tls" {
			n = "tcp"
		}
		if _, p, err := net.SplitHostPort(rest); err == nil && n == network && p == port {
			return true
		}
	}
	return false
}

// owner is the process that has a port of "udp" or "tcp"; 0 where the kernel does not
// tell this user.
func owner(ctx context.Context, network, port string) (pid int, name string) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, ""
	}
	sockets, _ := psnet.ConnectionsWithContext(ctx, network)
	for _, s := range sockets {
		if s.Laddr.Port != uint32(n) || network == "tcp" && s.Status != "LISTEN" {
			continue
		}
		if p, err := process.NewProcessWithContext(ctx, s.Pid); s.Pid > 0 && err == nil {
			name, _ = p.NameWithContext(ctx)
		}
		return int(s.Pid), name
	}
	return 0, ""
}

// listener binds one address of remote control. optional: run goes on without it.
func (c *check) listener(ctx context.Context, l serve.Listener, optional bool) {
	network, address, _ := strings.Cut(l.Address, ":")
	what := fmt.Sprintf("%s %s", l.Protocol, l.Address)
	defer removeNew(network, address)()
	cfg := c.cfg.RPC.Serve
	cfg.Listeners = []serve.Listener{l}
	s, err := serve.Listen(ctx, cfg, serve.Handlers{Registry: rpc.NewRegistry(), MI: rpc.NewRegistry(), Flexisip: control.New(nil, nil)})
	inUse := (*serve.InUseError)(nil)
	switch {
	case err == nil:
		c.verdict("rpc", what+" is free", s.Close(ctx), keyOf(l), "see the error")
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(address)
		c.taken(ctx, "rpc", what, network, port, err, keyOf(l))
	case errors.As(err, &inUse) && c.running != nil:
		c.say(ok, "rpc", "%s is in use by the running siptraced (pid %d)", what, c.running.pid)
	case optional:
		c.say(warning, "rpc", "%v; run goes on without it; as a service of systemd: RuntimeDirectory=siptraced, else name another address (key %s)", err, keyOf(l))
	default:
		c.verdict("rpc", "", err, keyOf(l), "name another address, or make its directory")
	}
}

// removeNew removes the directory of a socket or FIFO again, if it is not there yet.
func removeNew(network, path string) func() {
	dir := filepath.Dir(path)
	if network == "tcp" || network == "udp" {
		return func() {}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return func() {}
	}
	return func() { _ = os.Remove(dir) } // only when it is empty
}

// keyOf is the key that a listener stands in.
func keyOf(l serve.Listener) string {
	network, _, _ := strings.Cut(l.Address, ":")
	switch l.Protocol {
	case serve.HTTP:
		return "rpc.http"
	case serve.MI:
		return "rpc.mi_fifo"
	case serve.Flexisip:
		return "rpc.flexisip_cli"
	case serve.JSONRPC:
		if network == "fifo" || network == "tcp" {
			return "rpc." + network
		}
		return "rpc.datagram"
	}
	return "rpc.ctl"
}
