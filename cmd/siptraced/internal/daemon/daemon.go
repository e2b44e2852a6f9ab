// Package daemon puts the rooms together: sockets, pipeline, spool, sinks;
// signals; the staged shutdown.
//
//	err := daemon.Run(ctx, daemon.Options{Load: load, Stdout: os.Stdout, Stderr: os.Stderr})
//
// What it leaves out: the command line.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/cmd/siptraced/internal/pipeline"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
	"siptraced/rpc/serve"
)

// Options are what Run needs from the command line.
type Options struct {
	// Load reads the configuration, at start and on SIGHUP.
	Load func() (*config.Config, error)
	// Stdout gets the counters as one JSON object per line; Stderr the log.
	Stdout, Stderr io.Writer
}

// daemon is one running siptraced.
type daemon struct {
	opt      Options
	log      *slog.Logger
	level    *slog.LevelVar
	counters *counters.Set
	spool    *spool.Spool
	engine   *rules.Engine
	pipeline *pipeline.Pipeline
	ingest   *ingest.Server
	mirrors  *mirror.Mirrors
	rejects  *rejects.File
	rpc      []*serve.Server
	proxy    *proxy // the Kamailio behind us; nil without rpc.forward

	signals <-chan os.Signal

	saving sync.Mutex // held while the state file is written

	mu       sync.Mutex // covers what follows: RPC and signals change it
	cfg      *config.Config
	store    *store.Store
	stopping bool
}

// Run runs until SIGTERM or SIGINT, or until ctx ends; then it drains. The
// error is one of the start: the configuration, a socket, the spool.
func Run(ctx context.Context, opt Options) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Stop(signals)

	cfg, err := opt.Load()
	if err != nil {
		return err
	}
	d := &daemon{opt: opt, cfg: cfg, level: new(slog.LevelVar), counters: counters.New()}
	d.signals = signals
	d.level.Set(cfg.LogLevel)
	d.log = slog.New(slog.NewTextHandler(opt.Stderr, &slog.HandlerOptions{Level: d.level}))
	for _, n := range cfg.Notes {
		d.log.Warn("configuration", "note", n)
	}
	debug.SetMemoryLimit(cfg.MemoryLimit)
	if err := d.start(ctx); err != nil {
		d.stop()
		return err
	}
	d.greet()
	for {
		select {
		case <-ctx.Done():
			d.stop()
			return nil
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				d.reload()
			case syscall.SIGUSR1:
				d.printCounters()
			default:
				d.log.Info("draining", "signal", s.String())
				d.stop()
				return nil
			}
		}
	}
}

func (d *daemon) start(ctx context.Context) error {
	var err error
	if d.spool, err = spool.Open(ctx, d.cfg.Spool, d.log); err != nil {
		return err
	}
	d.counters.Func("spooled", d.spool.Stats.Spooled.Load)
	d.counters.Func("spool.damaged", d.spool.Stats.Damaged.Load)
	d.counters.Func("spool.clipped", d.spool.Stats.Clipped.Load)
	d.counters.Func("rejected.spool_full", d.spool.Stats.Refused.Load)
	late := d.counters.Counter("rejected.shutdown") // what the intake had in hand
	d.counters.Func("rejected.shutdown", func() uint64 { return late.Load() + d.spool.Stats.Lost.Load() })
	d.counters.Func("spool.discarded", d.spool.Stats.Discarded.Load)
	if err := d.restoreState(); err != nil {
		return err
	}
	d.rejects = rejects.Open(d.cfg.Store.RejectFile, d.counters)
	d.cfg.Store.Rejects = d.rejects
	if d.cfg.Params.Stores() {
		if err := d.openStore(ctx); err != nil {
			return err
		}
	}
	if err := d.openMirrors(ctx); err != nil {
		return err
	}
	if err := d.openRules(); err != nil {
		return err
	}
	d.pipeline = pipeline.New(d.rules(), d.spool, d.counters)
	d.pipeline.Rejects = d.rejects
	if d.ingest, err = ingest.Listen(d.cfg.Ingest, d.pipeline, d.counters, d.log); err != nil {
		return err
	}
	if err := d.listenRPC(ctx); err != nil {
		return err
	}
	d.spool.LogDormant()
	d.ingest.Serve()
	for _, s := range d.rpc {
		s.Serve()
	}
	return nil
}

// openStore starts the database sink.
func (d *daemon) openStore(ctx context.Context) error {
	s, err := store.Open(ctx, d.cfg.Store, d.spool, d.counters, d.log)
	if err != nil {
		return err
	}
	s.Start()
	d.store = s
	return nil
}

// openMirrors starts the mirrors.
func (d *daemon) openMirrors(ctx context.Context) error {
	// Remote control may have left another duplicate_uri.
	cfg, err := d.cfg.Mirror.WithDuplicateURI(d.cfg.Params.DuplicateURI, d.cfg.Params.XHeadersWrite)
	if err != nil {
		return err
	}
	m, err := mirror.Open(ctx, cfg, d.spool, d.counters, d.log)
	if err != nil {
		return err
	}
	d.mirrors = m
	return nil
}

// rules are what is in force for the messages that come in. The caller holds
// d.mu, once others can change them.
func (d *daemon) rules() pipeline.Rules {
	c := d.cfg
	r := pipeline.Rules{
		Params: c.Params, Own: siptrace.NewSockets(slices.Concat(c.Own, c.Learned), c.Params.AdvertisedData()), Routing: c.Routing(), Mirrors: d.mirrors,
	}
	d.engine.SetParams(c.Params)
	if decider := d.engine.Decider(); decider != nil {
		r.NewDecision = func() pipeline.Decision { return decider.NewDecision() }
	}
	return r
}

// greet says that messages are taken, and without a kamailio.cfg what to put
// into one.
func (d *daemon) greet() {
	addrs := d.ingest.Addresses()
	if d.cfg.KamailioCfg == "" && len(addrs) > 0 {
		_, to, _ := strings.Cut(addrs[0], ":")
		fmt.Fprintf(d.opt.Stderr, hint, to)
	}
	var control []string
	for _, s := range d.rpc {
		control = append(control, s.Addresses()...)
	}
	d.log.Info("ready", "listen", strings.Join(addrs, ","), "rpc", strings.Join(control, ", "), "database", d.cfg.Store.URL, "table", d.cfg.Store.Table)
}

// hint is what a proxy needs to mirror everything to us.
const hint = `To mirror all traffic of a Kamailio to siptraced, put this into its kamailio.cfg:

    loadmodule "siptrace.so"
    modparam("siptrace", "duplicate_uri", "sip:%s")
    modparam("siptrace", "hep_mode_on", 1)
    modparam("siptrace", "hep_version", 3)
    modparam("siptrace", "trace_to_database", 0)
    modparam("siptrace", "trace_on", 1)
    modparam("siptrace", "trace_mode", 1)

`

// printCounters prints the books as one JSON object on a line of its own.
func (d *daemon) printCounters() {
	text, err := json.Marshal(map[string]any{"counters": d.counters.Snapshot()})
	if err == nil {
		_, err = d.opt.Stdout.Write(append(text, '\n'))
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		d.log.Error("counters can't be printed", "err", err)
	}
}
