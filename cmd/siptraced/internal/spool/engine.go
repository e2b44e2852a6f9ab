package spool

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// engine is a connection to JetStream, and the server behind it when that is
// our own.
type engine struct {
	server *server.Server // nil: a cluster
	conn   *nats.Conn
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
	s, err := server.NewServer(opt)
	if err != nil {
		return nil, fmt.Errorf("spool: engine in %s: %w", cfg.Dir, err)
	}
	s.SetLoggerV2(engineLog{log}, false, false, false)
	s.Start()
	e := &engine{server: s}
	if !s.ReadyForConnections(startTimeout) {
		e.close()
		return nil, fmt.Errorf("spool: the engine did not start on %s: is another siptraced using it?", cfg.Dir)
	}
	if e.conn, err = nats.Connect("", nats.InProcessServer(s), nats.MaxReconnects(-1)); err != nil {
		e.close()
		return nil, fmt.Errorf("spool: engine in %s: %w", cfg.Dir, err)
	}
	return e, nil
}

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
	return &engine{conn: conn}, nil
}

func (e *engine) close() {
	if e.conn != nil {
		e.conn.Close()
	}
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
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
