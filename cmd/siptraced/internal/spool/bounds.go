package spool

import (
	"context"
	"fmt"
	"time"
)

// SetBounds changes MaxBytes and MaxAge while the spool works. After an error the
// old ones hold.
func (s *Spool) SetBounds(ctx context.Context, maxBytes int64, maxAge time.Duration) error {
	old := *s.bounds.Load()
	next := bounds{maxBytes, maxAge}
	if next == old {
		return nil
	}
	c := s.cfg
	c.MaxBytes, c.MaxAge = maxBytes, maxAge
	if err := c.Validate(); err != nil {
		return err
	}
	s.bounds.Store(&next)
	for i, sh := range s.shards {
		err := sh.setBounds(ctx)
		if err == nil {
			continue
		}
		s.bounds.Store(&old)
		for _, sh := range s.shards[:i] {
			_ = sh.setBounds(ctx) // the first error is the one to know
		}
		return fmt.Errorf("spool: the bounds can't be changed: %w", err)
	}
	return nil
}

// setBounds has the stream keep the bounds that are the engine's to keep.
func (sh *shard) setBounds(ctx context.Context) error {
	cfg := sh.stream.CachedInfo().Config
	cfg.MaxAge = sh.spool.bounds.Load().age
	if sh.spool.Shared() {
		cfg.MaxBytes = -1
		if n := sh.spool.maxBytes(); n > 0 {
			cfg.MaxBytes = n
		}
	}
	if cfg.MaxAge == sh.stream.CachedInfo().Config.MaxAge && cfg.MaxBytes == sh.stream.CachedInfo().Config.MaxBytes {
		return nil
	}
	_, err := sh.spool.js.UpdateStream(ctx, cfg)
	if err == nil {
		_, err = sh.stream.Info(ctx) // for CachedInfo
	}
	return err
}
