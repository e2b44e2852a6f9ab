package daemon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/control"
	"siptraced/compat/siptrace"
	"siptraced/rpc"
	"siptraced/rpc/client"
	"siptraced/rpc/serve"
)

// listenRPC binds remote control. A default address that can't be had is said
// and done without; one that the operator named fails the start.
func (d *daemon) listenRPC(ctx context.Context) error {
	registry, mi := rpc.NewRegistry(), rpc.NewRegistry()
	if d.cfg.RPC.Forward != "" {
		if err := d.reachProxy(ctx, registry); err != nil {
			return err
		}
	}
	c := control.New(d, d.changed)
	if err := c.Register(registry); err != nil {
		return err
	}
	if err := c.RegisterMI(mi); err != nil {
		return err
	}
	for _, m := range d.engine.Methods(d.pipeline, d.ruleChanged) {
		if err := registry.Register(m); err != nil {
			return err
		}
	}
	registry.OnCall = func(_ context.Context, call *rpc.Call, err error, _ time.Duration) {
		d.counters.Counter("rpc.calls").Add(1)
		if err != nil {
			d.counters.Counter("rpc.faults").Add(1)
			d.log.Debug("rpc: call refused", "method", call.Method, "peer", call.Peer.String(), "err", err)
		}
	}
	h := serve.Handlers{
		Registry: registry, MI: mi, Flexisip: c, Log: d.log,
		Refused: func(cause string, _ rpc.Peer) { d.counters.Counter("rpc.refused." + cause).Add(1) },
	}
	for i, l := range d.cfg.RPC.Serve.Listeners {
		cfg := d.cfg.RPC.Serve
		cfg.Listeners = []serve.Listener{l}
		s, err := serve.Listen(ctx, cfg, h)
		switch {
		case err == nil:
			d.rpc = append(d.rpc, s)
		case d.cfg.RPC.Optional[i]:
			d.log.Warn("rpc: the default address is not served", "err", err)
		default:
			return err
		}
	}
	return nil
}

func (d *daemon) closeRPC(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range d.rpc {
		all.Go(func() {
			if err := s.Close(ctx); err != nil {
				d.log.Warn("rpc: closing", "err", err)
			}
		})
	}
	all.Wait()
}

// changed logs a change of a setting with who made it, passes siptrace.status on
// and keeps the state, where that is asked for.
func (d *daemon) changed(ctx context.Context, ch rpc.Change) {
	d.log.Info("setting changed", "setting", ch.What, "from", ch.Old, "to", ch.New, "method", ch.Method, "peer", ch.Peer.String())
	if ch.What == control.TraceOn && d.proxy != nil && d.cfg.RPC.ForwardStatus {
		word := "off"
		if ch.New == int64(1) {
			word = "on"
		}
		if _, err := d.proxy.client.Call(ctx, "siptrace.status", word); err != nil {
			d.log.Warn("rpc: the proxy did not take siptrace.status", "to", word, "err", err)
		}
	}
	d.saveState()
}

// The settings that RPC can change are those that SIGHUP puts into force.
var settings = []string{
	"log.level", "siptrace.data_mode", "siptrace.duplicate_uri", "siptrace.hep_mode_on", "siptrace.trace_dialog_ack", "siptrace.trace_dialog_spiral",
	"siptrace.trace_local_ip", control.TraceOn, "siptrace.trace_sl_acks", "siptrace.trace_to_database", "siptrace.xheaders_read", "siptrace.xheaders_write",
}

// Settings are the names of what can change at run time (control.Daemon).
func (d *daemon) Settings() []string { return settings }

// Setting is the present value of one (control.Daemon).
func (d *daemon) Setting(name string) (any, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.setting(name)
}

func (d *daemon) setting(name string) (any, bool) {
	if name == "log.level" {
		return strings.ToLower(d.level.Level().String()), true
	}
	param, ok := strings.CutPrefix(name, "siptrace.")
	s, err := siptrace.Lookup(param)
	if !ok || err != nil {
		return nil, false
	}
	return s.Value(&d.cfg.Params), true
}

// Set changes one (control.Daemon).
func (d *daemon) Set(name string, value any) (old any, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, _ = d.setting(name)
	return old, d.put(name, value)
}

func (d *daemon) put(name string, value any) error {
	text := ""
	switch v := value.(type) {
	case string:
		text = v
	case int64:
		text = strconv.FormatInt(v, 10)
	default:
		return fmt.Errorf("%s: a value of type %T does not fit", name, value)
	}
	if name == "log.level" {
		level := d.level.Level()
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%q is none of debug, info, warn, error", text)
		}
		d.level.Set(level)
		return nil
	}
	if d.stopping {
		return errors.New("siptraced is stopping")
	}
	p := d.cfg.Params
	if err := p.SetText(strings.TrimPrefix(name, "siptrace."), text); err != nil {
		return err
	}
	if p.Stores() && d.store == nil && d.spool != nil {
		if err := d.openStore(context.Background()); err != nil {
			return err
		}
	}
	if err := d.setMirrors(p); err != nil {
		return err
	}
	d.cfg.Params = p
	if d.pipeline != nil {
		d.pipeline.SetRules(d.rules())
	}
	return nil
}

// setMirrors takes over what parameters say of mirrors.
func (d *daemon) setMirrors(p siptrace.Params) error {
	if d.mirrors == nil {
		return nil
	}
	cfg, err := d.cfg.Mirror.WithDuplicateURI(p.DuplicateURI, p.XHeadersWrite)
	if err != nil {
		return err
	}
	return d.mirrors.Apply(context.Background(), cfg)
}

// Counters are the books (control.Daemon).
func (d *daemon) Counters() map[string]uint64 { return d.counters.Snapshot() }

// Sinks are the names of the sinks in the books (control.Daemon).
func (d *daemon) Sinks() []string {
	sinks := []string{"store"}
	if d.mirrors != nil {
		sinks = append(sinks, d.mirrors.Names()...)
	}
	return sinks
}

// Sockets are the listening sockets (control.Daemon).
func (d *daemon) Sockets() []string { return d.ingest.Addresses() }

// Sources are the senders of mirrored packets (control.Daemon).
func (d *daemon) Sources() []control.Source {
	var out []control.Source
	for _, s := range d.pipeline.Sources.List() {
		out = append(out, control.Source{Addr: s.Addr.String(), Packets: s.Packets, LastSeen: s.LastSeen})
	}
	return out
}

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
	addr, err := client.ParseAddress(d.cfg.RPC.Forward)
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
	if d.cfg.Learn(found) {
		d.log.Info("the proxy's sockets", "sockets", fmt.Sprint(found))
		if d.pipeline != nil {
			d.pipeline.SetRules(d.rules())
		}
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
