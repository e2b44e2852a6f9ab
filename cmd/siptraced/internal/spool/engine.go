package spool

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// engine is a connection to JetStream, and the server behind it when that is
// our own.
type engine struct {
	conn *nats.Conn
	opt  *server.Options // nil: a cluster
	log  *slog.Logger

	mu      sync.Mutex // covers what follows
	server  *server.Server
	started time.Time
}

// startTimeout bounds the recovery of the embedded engine's files.
const startTimeout = 2 * time.Minute

func openEngine(ctx context.Context, cfg Config, log *slog.Logger) (*engine, error) {
	if cfg.NATS != "" {
		return dialCluster(ctx, cfg, log)
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("spool: directory (key spool.dir): %w", err)
	}
	opt := &server.Options{
		ServerName: "siptraced",
		DontListen: true,
		JetStream:  true,
		StoreDir:   cfg.Dir,
		MaxPayload: maxRecord + 4<<20,
		MaxPending: 64 << 20,
		NoSigs:     true,
		// The bound on files is the streams' own; the engine's would look at the
		// free disk space of the moment it starts.
		JetStreamMaxMemory: 16 << 20,
		JetStreamMaxStore:  1 << 62,
		SyncInterval:       cfg.SyncInterval,
		SyncAlways:         cfg.SyncInterval == 0,
	}
	if opt.SyncAlways {
		opt.SyncInterval = time.Second // for the files that are not message blocks
	}
	e := &engine{opt: opt, log: log}
	err := repairNumbers(cfg.Dir, log)
	if err == nil {
		err = e.start()
	}
	if err == nil {
		e.conn, err = nats.Connect("", nats.InProcessServer(e), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("spool: engine in %s: %w", cfg.Dir, err)
	}
	return e, nil
}

// start starts the embedded server.
func (e *engine) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	opt := *e.opt
	s, err := server.NewServer(&opt)
	if err != nil {
		return err
	}
	s.SetLoggerV2(engineLog{e.log}, false, false, false)
	// Start recovers the files, and comes back when it is done with them.
	started := make(chan struct{})
	go func() {
		s.Start()
		close(started)
	}()
	e.server, e.started = s, time.Now()
	select {
	case <-started:
	case <-time.After(startTimeout):
	}
	if !s.ReadyForConnections(time.Second) || !s.JetStreamEnabled() {
		return fmt.Errorf("it does not start within %s; if its files are damaged, move the directory away", startTimeout)
	}
	return nil
}

// InProcessConn connects to the server of the moment (nats.InProcessConnProvider).
func (e *engine) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server.InProcessConn()
}

// restartPause is the least time between two restarts of the engine.
const restartPause = 5 * time.Second

// restart starts the embedded server anew: after an error in writing, a full
// disk say, its streams take nothing more. Connections find the new one.
func (e *engine) restart() {
	e.mu.Lock()
	old := e.server
	due := e.opt != nil && time.Since(e.started) > restartPause
	if due {
		e.started = time.Now()
	}
	e.mu.Unlock()
	if !due {
		return
	}
	e.log.Warn("spool: starting the engine anew")
	shutDown(old, e.log)
	if err := e.start(); err != nil {
		e.log.Error("spool: engine", "err", err)
	}
}

// What the spool leaves free of its file system, for the engine's own files and
// everybody else's: a twentieth, but no more than reserve, and no less than the
// engine needs to write one of its blocks anew, which it does when half of one is
// gone (nats-server/v2, server/filestore.go, maxBlockSize); of a very small one a
// quarter.
const (
	reserve      = 256 << 20
	leastReserve = 8 << 20
)

// disk is the size of the file system that the spool is on, and what is free there
// for everybody, in bytes; ok is false in a cluster.
func (e *engine) disk() (size, free uint64, ok bool) {
	var st syscall.Statfs_t
	if e.opt == nil || syscall.Statfs(e.opt.StoreDir, &st) != nil {
		return 0, 0, false
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), true
}

// diskFull reports whether the file system has no more than the reserve free.
func (e *engine) diskFull() bool {
	size, free, ok := e.disk()
	if !ok {
		return false // the engine will say what is wrong
	}
	return free < kept(size)
}

// kept is what the spool leaves free of a file system of that size.
func kept(size uint64) uint64 { return max(min(size/20, reserve), min(size/4, leastReserve)) }

func dialCluster(ctx context.Context, cfg Config, log *slog.Logger) (*engine, error) {
	opts := []nats.Option{
		nats.Name("siptraced"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.RetryOnFailedConnect(true),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("spool: connection lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("spool: connected again", "server", c.ConnectedUrlRedacted()) }),
	}
	if cfg.Credentials != "" {
		opts = append(opts, nats.UserCredentials(cfg.Credentials))
	}
	if cfg.CA != "" {
		opts = append(opts, nats.RootCAs(cfg.CA))
	}
	conn, err := nats.Connect(cfg.NATS, opts...)
	if err != nil {
		return nil, fmt.Errorf("spool: cluster (key spool.nats): %w", err)
	}
	for !conn.IsConnected() {
		select {
		case <-ctx.Done():
			conn.Close()
			return nil, fmt.Errorf("spool: no server of the cluster answers (key spool.nats): %w", conn.LastError())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return &engine{conn: conn, log: log}, nil
}

func (e *engine) close() {
	if e.conn != nil {
		e.conn.Close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		shutDown(e.server, e.log)
	}
}

// shutdownTimeout bounds how long the engine may take to end; its files are safe
// by then.
const shutdownTimeout = 10 * time.Second

func shutDown(s *server.Server, log *slog.Logger) {
	done := make(chan struct{})
	go func() {
		s.Shutdown()
		s.WaitForShutdown()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(shutdownTimeout):
		log.Error("spool: the engine does not end, going on without it")
	}
}

// engineLog passes on what the embedded engine says; its notices are detail.
type engineLog struct{ log *slog.Logger }

func (l engineLog) Noticef(f string, v ...any) {
	l.log.Debug("spool engine", "said", fmt.Sprintf(f, v...))
}
func (l engineLog) Debugf(f string, v ...any) {}
func (l engineLog) Tracef(f string, v ...any) {}
func (l engineLog) Warnf(f string, v ...any) {
	l.log.Warn("spool engine", "said", fmt.Sprintf(f, v...))
}

func (l engineLog) Errorf(f string, v ...any) {
	l.log.Error("spool engine", "said", fmt.Sprintf(f, v...))
}

func (l engineLog) Fatalf(f string, v ...any) {
	l.log.Error("spool engine", "said", fmt.Sprintf(f, v...))
}
