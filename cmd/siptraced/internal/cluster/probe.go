package cluster

import (
	"context"
	"fmt"
	"log/slog"
)

// Probe finds out whether a cluster answers and has JetStream, and leaves nothing
// behind.
func Probe(ctx context.Context, cfg Config) error {
	e := &Engine{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := e.dial(ctx); err != nil {
		return err
	}
	defer e.conn.Close()
	if _, err := e.js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("spool: cluster (key spool.nats): JetStream: %w", err)
	}
	return nil
}
