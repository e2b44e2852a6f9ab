package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"siptraced/cmd/siptraced/internal/cluster"
	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/segments"
)

// ErrFormerEdition is wrapped by the answer to a directory that siptraced's first
// edition filled. It says what to do.
var ErrFormerEdition = segments.ErrFormerEdition

// Open opens the spool, and creates what is missing of it. The error is an
// *InUseError where another process has it.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e, err := openEngine(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	s, err := OpenOn(ctx, cfg, e, log)
	if err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	return s, nil
}

// openEngine opens what keeps the logs: files of our own, or a cluster.
func openEngine(ctx context.Context, cfg Config, log *slog.Logger) (journal.Engine, error) {
	if cfg.NATS != "" {
		return cluster.Open(ctx, clusterConfig(cfg), log)
	}
	e, err := segments.Open(ctx, segments.Config{Dir: cfg.Dir, SyncInterval: cfg.SyncInterval, Log: log})
	if locked := (*disk.LockedError)(nil); errors.As(err, &locked) {
		return nil, &InUseError{cfg.Dir, locked.PID}
	}
	if err != nil {
		return nil, fmt.Errorf("%w (key spool.dir)", err)
	}
	return e, nil
}

func clusterConfig(cfg Config) cluster.Config {
	return cluster.Config{URL: cfg.NATS, Credentials: cfg.Credentials, CA: cfg.CA, Replicas: cfg.Replicas, Monitor: cfg.Monitor}
}
