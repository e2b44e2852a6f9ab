package spooltool

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/journal"
)

// Forget removes the positions of a sink from a directory that no daemon works on, so
// that nothing is kept for it any more. The error says which sinks there are when it is
// none of them.
func Forget(ctx context.Context, dir, sink string) error {
	r, err := openRepairer(dir, asideName())
	if err != nil {
		return err
	}
	defer r.Close()
	positions, err := r.Positions(slog.New(slog.DiscardHandler))
	if err == nil {
		err = forget(ctx, positions, sink)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

func forget(ctx context.Context, positions journal.Positions, sink string) error {
	keys, err := positions.Keys(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, key := range keys {
		name, _, ok := journal.CutPositionKey(key)
		found = found || ok && name == sink
		// With what the spool keeps of a mirror that rules named.
		if ok && name == sink || key == journal.MetaPrefix+sink {
			if err := positions.Remove(ctx, key); err != nil {
				return err
			}
		}
	}
	if !found {
		return unknownSink(sink, keys)
	}
	return positions.Flush(ctx)
}

// ForgetCommon is Forget for a spool that others share.
func ForgetCommon(ctx context.Context, e journal.Common, sink string) error {
	found, err := e.Forget(ctx, sink)
	if err == nil && !found {
		var keys []string
		if keys, err = e.Positions().Keys(ctx); err == nil {
			err = unknownSink(sink, keys)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e.Place(), err)
	}
	return nil
}

func unknownSink(sink string, keys []string) error {
	var sinks []string
	for _, key := range keys {
		if name, _, ok := journal.CutPositionKey(key); ok {
			sinks = append(sinks, name)
		}
	}
	slices.Sort(sinks)
	if sinks = slices.Compact(sinks); len(sinks) == 0 {
		return fmt.Errorf("nothing is kept for a sink %q, nor for any other", sink)
	}
	return fmt.Errorf("nothing is kept for a sink %q; there are %s", sink, strings.Join(sinks, ", "))
}
