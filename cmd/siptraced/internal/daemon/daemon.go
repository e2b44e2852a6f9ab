package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mattn/go-isatty"

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
	loops    loops
	rpc      []*serve.Server
	proxy    *proxy // the Kamailio behind us; nil without rpc.forward

	signals <-chan os.Signal

	saving sync.Mutex // held while the state file is written

	// cfg is the configuration in force; who changes it holds mu.
	cfg atomic.Pointer[config.Config]

	mu                sync.Mutex // covers what follows: remote control and signals change it
	warned            []string   // the warnings of the configuration in force
	store             *store.Store
	kept              bool              // its database is the one that config.Config.Kept speaks of
	learned           []siptrace.Socket // those that the proxy named
	started, stopping bool
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
	d := newDaemon(opt, cfg)
	d.signals = signals
	for _, n := range cfg.Notes {
		d.log.Warn("configuration", "note", n)
	}
	for _, n := range cfg.Remarks {
		d.log.Info("configuration", "note", n)
	}
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

func newDaemon(opt Options, cfg *config.Config) *daemon {
	d := &daemon{opt: opt, level: new(slog.LevelVar), counters: counters.New()}
	d.cfg.Store(cfg)
	d.level.Set(cfg.LogLevel)
	d.log = slog.New(slog.NewTextHandler(opt.Stderr, &slog.HandlerOptions{Level: d.level}))
	return d
}

// start opens what stays the same for the whole run, and applies the rest.
func (d *daemon) start(ctx context.Context) error {
	debug.SetMemoryLimit(d.cfg.Load().MemoryLimit)
	cfg, err := d.overlayState(d.cfg.Load())
	if err != nil {
		return err
	}
	if d.spool, err = spool.Open(ctx, cfg.Spool, d.log); err != nil {
		return err
	}
	d.counters.Func("spooled", d.spool.Stats.Spooled.Load)
	d.counters.Func("spool.damaged", d.spool.Damaged)
	d.counters.Func("spool.clipped", d.spool.Stats.Clipped.Load)
	d.counters.Func("rejected.spool_full", d.spool.Stats.Refused.Load)
	late := d.counters.Counter("rejected.shutdown") // what the intake had in hand
	d.counters.Func("rejected.shutdown", func() uint64 { return late.Load() + d.spool.Stats.Lost.Load() })
	d.counters.Func("rejected.uncertain", d.spool.Stats.Uncertain.Load)
	d.counters.Func("spool.discarded", d.spool.Stats.Discarded.Load)
	d.gaugeSpool()
	if d.rejects, err = rejects.Open(cfg.Store.RejectFile, cfg.Store.RejectMaxBytes, d.counters, d.log); err != nil {
		return err
	}
	d.pipeline = pipeline.New(pipeline.Rules{Params: cfg.Params, Own: siptrace.NewSockets(nil, false)}, d.spool, d.counters)
	d.pipeline.Rejects = d.rejects
	if err := d.openLoops(cfg); err != nil {
		return err
	}
	if d.ingest, err = ingest.Listen(cfg.Ingest, d.pipeline, d.counters, d.log); err != nil {
		return err
	}
	if err := d.apply(ctx, cfg); err != nil {
		return err
	}
	if err := d.listenRPC(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	d.started = true
	d.pipeline.SetRules(d.rules()) // a rule may have ended, a socket may be known
	d.mu.Unlock()
	d.spool.LogDormant()
	d.ingest.Serve()
	for _, s := range d.rpc {
		s.Serve()
	}
	return nil
}

// gaugeSpool has the counters say how much the spool holds.
func (d *daemon) gaugeSpool() {
	usage := func(name string, of func(u spool.Usage) uint64) {
		d.counters.Gauge("spool."+name, func() uint64 { return of(d.spool.Usage()) })
	}
	usage("bytes", func(u spool.Usage) uint64 { return uint64(u.Bytes) })
	usage("share_percent", spool.Usage.Share)
	usage("oldest_seconds", func(u spool.Usage) uint64 { return uint64(u.Oldest.Seconds()) })
	usage("unsynced_rows", func(u spool.Usage) uint64 { return u.Unsynced })
	usage("unsynced_seconds", func(u spool.Usage) uint64 { return uint64(u.UnsyncedFor.Seconds()) })
	usage("uncertain", func(u spool.Usage) uint64 { return u.Uncertain })
	if d.spool.Usage().HasDisk {
		usage("disk_free_bytes", func(u spool.Usage) uint64 { return u.DiskFree })
	}
}

// greet says that messages are taken, and without a kamailio.cfg that has the module
// what to put into one.
func (d *daemon) greet() {
	c := d.cfg.Load()
	sockets := d.ingest.Sockets()
	var addrs []string
	for _, s := range sockets {
		addrs = append(addrs, s.String())
	}
	if !c.ProxyTraces() {
		fmt.Fprint(d.opt.Stderr, hint(sockets))
	}
	var control []string
	for _, s := range d.rpc {
		control = append(control, s.Addresses()...)
	}
	attrs := []any{"listen", strings.Join(addrs, ","), "rpc", strings.Join(control, ", ")}
	if c.Params.Stores() {
		attrs = append(attrs, "database", c.Store.URL, "table", c.Store.Table)
	}
	d.log.Info("ready", attrs...)
}

// printCounters prints the counters as one JSON object on a line of its own: all of
// them for a program, those that are not 0 for a person at a terminal.
func (d *daemon) printCounters() {
	all := d.counters.Snapshot()
	if isTerminal(d.opt.Stdout) {
		maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	}
	text, err := json.Marshal(map[string]any{"counters": all})
	if err == nil {
		_, err = d.opt.Stdout.Write(append(text, '\n'))
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		d.log.Error("counters can't be printed", "err", err)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
