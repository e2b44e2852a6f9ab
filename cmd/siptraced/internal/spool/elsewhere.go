package spool

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
)

// Elsewhere is a sink that other processes run, or that is gone for good, and what the
// spool keeps for it: nobody gives that up before the sink is done with it.
type Elsewhere struct {
	Sink    string
	Pending uint64    // messages
	Bytes   int64     // an estimate
	Moved   time.Time // when it last said how far it came
}

// elsewhereInterval is how often they are asked for.
const elsewhereInterval = 10 * time.Second

// Elsewhere are those sinks as of the last ten seconds, by their names; there are none
// where the spool is this process' own.
func (s *Spool) Elsewhere() []Elsewhere {
	if list := s.elsewhere.Load(); list != nil {
		return *list
	}
	return nil
}

// refreshElsewhere asks for them. The checkpointer calls it.
func (s *Spool) refreshElsewhere(ctx context.Context) error {
	e, ok := s.engine.(journal.Common)
	if !ok || time.Since(s.asked) < elsewhereInterval {
		return nil
	}
	all, err := e.Backlogs(ctx)
	if err != nil {
		return fmt.Errorf("spool: sinks of others: %w", err)
	}
	s.asked = time.Now()
	here := s.registered()
	sinks := map[string]Elsewhere{}
	for _, b := range all {
		if slices.ContainsFunc(here, func(r *reader) bool { return r.sink() == b.Sink }) {
			continue
		}
		o := sinks[b.Sink]
		o.Sink, o.Pending, o.Bytes = b.Sink, o.Pending+b.Records, o.Bytes+b.Bytes
		if b.Moved.After(o.Moved) {
			o.Moved = b.Moved
		}
		sinks[b.Sink] = o
	}
	var list []Elsewhere
	for _, o := range sinks {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Elsewhere) int { return strings.Compare(a.Sink, b.Sink) })
	s.elsewhere.Store(&list)
	return nil
}
