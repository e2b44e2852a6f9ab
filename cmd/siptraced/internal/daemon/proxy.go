package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/rpc"
	"siptraced/rpc/client"
)

// proxy is the Kamailio behind us.
type proxy struct {
	client *client.Client
	stop   context.CancelFunc
	again  chan struct{} // asks for its sockets
	done   chan struct{}
}

func (p *proxy) close() {
	p.stop()
	<-p.done
}

const (
	// proxyTimeout bounds a question to the proxy.
	proxyTimeout = 2 * time.Second
	// proxyInterval is how often its sockets are asked for: it may have been
	// restarted with others.
	proxyInterval = 30 * time.Second
)

// reachProxy sets up forwarding to the proxy, and learns its sockets.
func (d *daemon) reachProxy(ctx context.Context, registry *rpc.Registry) error {
	addr, err := client.ParseAddress(d.cfg.Load().RPC.Forward)
	if err != nil {
		return fmt.Errorf("rpc.forward: %w", err)
	}
	p := &proxy{client: client.New(addr, client.Config{Timeout: proxyTimeout}), again: make(chan struct{}, 1), done: make(chan struct{})}
	f, err := client.NewForwarder(p.client)
	if err != nil {
		return fmt.Errorf("rpc.forward: %w", err)
	}
	registry.Unknown, registry.UnknownNames = f.Unknown, f.Names
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop, d.proxy = stop, p
	d.learnSockets(ctx)
	go func() {
		defer close(p.done)
		tick := time.NewTicker(proxyInterval)
		defer tick.Stop()
		for {
			select {
			case <-run.Done():
				return
			case <-tick.C:
				d.learnSockets(run)
			case <-p.again:
				d.learnSockets(run)
			}
		}
	}()
	return nil
}

// learnSockets asks the proxy which sockets it listens on (corex.list_sockets,
// or core.sockets_list where corex is not loaded).
func (d *daemon) learnSockets(ctx context.Context) {
	var found []siptrace.Socket
	for _, method := range []string{"corex.list_sockets", "core.sockets_list"} {
		v, err := d.proxy.client.Call(ctx, method)
		if err != nil {
			d.log.Debug("rpc: the proxy's sockets are not known", "method", method, "err", err)
			continue
		}
		if found = proxySockets(v); len(found) > 0 {
			break
		}
	}
	if len(found) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Equal(d.learned, found) {
		return
	}
	d.learned = found
	d.log.Info("the proxy's sockets", "sockets", fmt.Sprint(found))
	if d.started && !d.stopping {
		d.pipeline.SetRules(d.rules())
	}
}

// proxySockets reads the answer of either method: structs with the members
// proto, address and port, or PROTO, ADDRLIST, PORT and ADVERTISE, at whatever
// depth.
func proxySockets(v any) []siptrace.Socket {
	var out []siptrace.Socket
	switch v := v.(type) {
	case rpc.List:
		for _, e := range v {
			out = append(out, proxySockets(e)...)
		}
	case rpc.Struct:
		member := func(names ...string) string {
			for _, n := range names {
				if m, ok := v.Get(n); ok {
					if s, ok := m.(rpc.Struct); ok && len(s) > 0 {
						m = s[0].Value
					}
					return fmt.Sprint(m)
				}
			}
			return ""
		}
		proto, addr, port := member("PROTO", "proto"), member("ADDRLIST", "ipaddress", "address"), member("PORT", "port")
		if proto == "" {
			for _, m := range v {
				out = append(out, proxySockets(m.Value)...)
			}
			return out
		}
		if strings.Contains(addr, ":") && !strings.HasPrefix(addr, "[") {
			addr = "[" + addr + "]"
		}
		e, err := siptrace.ParseEndpoint(proto + ":" + addr + ":" + port)
		if err != nil {
			return nil
		}
		s := siptrace.Socket{Proto: e.Proto, Addr: e.Addr}
		if adv, err := siptrace.ParseEndpoint(proto + ":" + member("ADVERTISE")); err == nil {
			s.Advertised = adv.Addr
		}
		out = append(out, s)
	}
	return out
}
