package daemon

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/control"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/rpc"
	"siptraced/rpc/serve"
)

// listenRPC binds remote control. When a default address cannot be bound, siptraced
// logs it and continues; one that the operator named is fatal.
func (d *daemon) listenRPC(ctx context.Context) error {
	registry, mi := rpc.NewRegistry(), rpc.NewRegistry()
	if d.cfg.Load().RPC.Forward != "" {
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
	for i, l := range d.cfg.Load().RPC.Serve.Listeners {
		cfg := d.cfg.Load().RPC.Serve
		cfg.Listeners = []serve.Listener{l}
		s, err := serve.Listen(ctx, cfg, h)
		switch {
		case err == nil:
			d.rpc = append(d.rpc, s)
		case d.cfg.Load().RPC.Optional[i]:
			attrs := []any{"err", err}
			if errors.Is(err, fs.ErrPermission) {
				attrs = append(attrs, "fix", "as a service of systemd: RuntimeDirectory=siptraced; else name another address (key rpc.ctl), or none (rpc.ctl=)")
			}
			d.log.Warn("rpc: the default address is not served", attrs...)
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
	if ch.What == control.TraceOn && d.proxy != nil && d.cfg.Load().RPC.ForwardStatus {
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

// Counters are all counters (control.Daemon).
func (d *daemon) Counters() map[string]uint64 { return d.counters.Snapshot() }

// Sinks are the prefixes of the sinks' counters (control.Daemon).
func (d *daemon) Sinks() []string {
	sinks := []string{"store"}
	if d.mirrors != nil {
		sinks = append(sinks, d.mirrors.Names()...)
	}
	return sinks
}

// IsGauge reports whether a counter is a value of the moment (control.Daemon).
func (d *daemon) IsGauge(name string) bool { return d.counters.IsGauge(name) }

// Sink is how a sink does, by the prefix of its counters (control.Daemon).
func (d *daemon) Sink(name string) control.Sink {
	d.mu.Lock()
	db := d.store
	d.mu.Unlock()
	var consumer *spool.Consumer
	var byRules bool
	switch {
	case name != "store":
		consumer, byRules = d.mirrors.Consumer(name)
	case db != nil:
		consumer = db.Consumer()
	}
	if consumer == nil {
		return control.Sink{}
	}
	st := consumer.State()
	return control.Sink{Connected: st.Connected, LastError: st.Err, Since: st.Since, WaitingBytes: consumer.WaitingBytes(), ByRules: byRules}
}

// Spool is how much waits for the sinks (control.Daemon).
func (d *daemon) Spool() control.Spool {
	u := d.spool.Usage()
	var elsewhere []control.Elsewhere
	for _, s := range d.spool.Elsewhere() {
		elsewhere = append(elsewhere, control.Elsewhere{Sink: s.Sink, Pending: s.Pending, WaitingBytes: s.Bytes, Moved: s.Moved})
	}
	return control.Spool{
		Place: u.Place, Bytes: u.Bytes, MaxBytes: u.MaxBytes, SharePercent: u.Share(), OldestSeconds: uint64(u.Oldest.Seconds()),
		UnsyncedRows: u.Unsynced, UnsyncedSeconds: uint64(u.UnsyncedFor.Seconds()), Uncertain: u.Uncertain,
		DiskFree: u.DiskFree, HasDisk: u.HasDisk, Full: u.Full, Elsewhere: elsewhere,
	}
}

// Sockets are the listening sockets (control.Daemon).
func (d *daemon) Sockets() []control.Socket {
	var out []control.Socket
	for _, s := range d.ingest.Sockets() {
		out = append(out, control.Socket(s))
	}
	return out
}

// Sources are the senders of mirrored packets (control.Daemon).
func (d *daemon) Sources() []control.Source {
	var out []control.Source
	for _, s := range d.pipeline.Sources.List() {
		out = append(out, control.Source{
			Addr: s.Addr.String(), Packets: s.Packets, Rejected: s.Rejected, Transport: s.Transport, Protocol: s.Protocol, FirstSeen: s.FirstSeen, LastSeen: s.LastSeen,
		})
	}
	return out
}
