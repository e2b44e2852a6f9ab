package spool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
)

// offset is how far a sink came.
type offset struct {
	seq   uint64 // done up to here
	total uint64 // with so many records of the log
}

// position is an offset as it is written down.
type position struct {
	key   string
	shard *shard
	at    offset
}

// savedPositions are those of sinks that belong to the present logs.
func (s *Spool) savedPositions(ctx context.Context) ([]position, error) {
	keys, err := s.positions.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("spool: positions: %w", err)
	}
	slices.Sort(keys)
	var all []position
	for _, key := range keys {
		_, i, ok := journal.CutPositionKey(key)
		if !ok || i >= len(s.shards) {
			continue
		}
		at, known, err := s.position(ctx, s.shards[i], key)
		if err != nil {
			return nil, err
		}
		if known {
			all = append(all, position{key, s.shards[i], at})
		}
	}
	return all, nil
}

// position reads what is written down of this very log: in one that was made anew
// numbers start again.
func (s *Spool) position(ctx context.Context, sh *shard, key string) (at offset, known bool, err error) {
	text, _, err := s.positions.Get(ctx, key)
	if err != nil {
		return at, false, fmt.Errorf("spool: position %s: %w", key, err)
	}
	p, ok := journal.ParsePosition(text)
	if !ok || p.Log != sh.log.ID() {
		return at, false, nil
	}
	return offset{p.Seq, p.Total}, true, nil
}

func (s *Spool) putPosition(ctx context.Context, sh *shard, key string, at offset) error {
	if err := s.positions.Put(ctx, key, journal.Position{Seq: at.seq, Total: at.total, Log: sh.log.ID()}.String()); err != nil {
		return fmt.Errorf("spool: position %s: %w", key, err)
	}
	return nil
}

// checkpointInterval is how often the positions are saved.
const checkpointInterval = time.Second

// checkpointer saves the positions and trims what all sinks are done with, once a
// second.
func (s *Spool) checkpointer(ctx context.Context) {
	tick := time.NewTicker(checkpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.save:
		}
		if ctx.Err() == nil {
			if err := s.savePositions(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("spool: positions not saved, trying again", "err", err)
			}
		}
	}
}

// savePositions writes down how far the sinks came, and gives up what all are
// done with. Only what is written down as done may go, unless there is no room to write
// it down: then it goes to make room.
func (s *Spool) savePositions(ctx context.Context) error {
	return s.exclusively(ctx, func() error {
		err := s.saveAll(ctx)
		if errors.Is(err, journal.ErrFull) {
			err = errors.Join(s.trim(ctx), s.saveAll(ctx))
		}
		if err != nil {
			return err
		}
		return errors.Join(s.trim(ctx), s.refreshElsewhere(ctx))
	})
}

// exclusively calls f while nobody else saves.
func (s *Spool) exclusively(ctx context.Context, f func() error) error {
	select {
	case s.saving <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.saving }()
	return f()
}

// saveAll writes down how far the sinks came. Where there is no room for one, it tries
// the others all the same: they say what may go.
func (s *Spool) saveAll(ctx context.Context) error {
	full := s.saveChanges(ctx)
	if full != nil && !errors.Is(full, journal.ErrFull) {
		return full
	}
	s.followTrim()
	for _, r := range s.registered() {
		err := r.save(ctx)
		if errors.Is(err, journal.ErrFull) {
			full = err
		} else if err != nil {
			return err
		}
	}
	if full != nil {
		return full
	}
	for _, sh := range s.shards {
		if err := sh.refreshLag(ctx); err != nil {
			return err
		}
	}
	return s.positions.Flush(ctx)
}

// save puts down an offset that changed.
func (r *reader) save(ctx context.Context) error {
	if !r.ready.Load() {
		return nil
	}
	at := *r.place.Load()
	if !r.unsaved && r.saved == at {
		return nil
	}
	err := r.shard.spool.putPosition(ctx, r.shard, r.key, at)
	if err == nil {
		r.saved, r.unsaved = at, false
	}
	r.wanted = 0
	if errors.Is(err, journal.ErrFull) {
		r.wanted = at.seq
	}
	return err
}

// trim gives up the entries that all sinks are done with, by what is written down. A
// cluster's log looks at the positions of others itself, which may have moved.
func (s *Spool) trim(ctx context.Context) error {
	done := map[*shard]uint64{}
	for _, r := range s.registered() {
		var seq uint64 // it may need all
		if r.ready.Load() {
			seq = max(r.saved.seq, r.wanted)
		}
		if o, any := done[r.shard]; !any || seq < o {
			done[r.shard] = seq
		}
	}
	var failed error
	for _, sh := range s.shards {
		seq := done[sh]
		if seq == 0 || seq <= sh.trimmed && sh.log.Exclusive() {
			continue
		}
		if err := sh.log.Trim(ctx, seq); err != nil {
			failed = errors.Join(failed, fmt.Errorf("spool: trim of shard %d: %w", sh.index, err))
			continue
		}
		sh.trimmed = seq
	}
	return failed
}

// registered are the readers of this moment.
func (s *Spool) registered() []*reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.readers)
}

// remove forgets readers and their offsets, without I/O.
func (s *Spool) remove(readers []*reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = slices.DeleteFunc(s.readers, func(r *reader) bool { return slices.Contains(readers, r) })
	for _, r := range readers {
		s.changes[r.key] = ""
	}
	s.saveSoon()
}

// PutMeta has a small text written down beside the offsets, in a moment; an
// empty one is forgotten. Keys have letters, digits, '-', '_' and '.'. It does no
// I/O; Save does.
func (s *Spool) PutMeta(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes[journal.MetaPrefix+key] = value
	s.saveSoon()
}

// Save returns when what PutMeta left is safe from a crash of the machine.
func (s *Spool) Save(ctx context.Context) error {
	return s.exclusively(ctx, func() error {
		if err := s.saveChanges(ctx); err != nil {
			return err
		}
		if err := s.positions.Flush(ctx); err != nil {
			return fmt.Errorf("spool: positions: %w", err)
		}
		return nil
	})
}

// Meta is every text that PutMeta left, by key.
func (s *Spool) Meta(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	names, err := s.positions.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("spool: positions: %w", err)
	}
	for _, name := range names {
		key, ok := strings.CutPrefix(name, journal.MetaPrefix)
		if !ok {
			continue
		}
		if out[key], _, err = s.positions.Get(ctx, name); err != nil {
			return nil, fmt.Errorf("spool: positions: %w", err)
		}
	}
	return out, nil
}

func (s *Spool) saveSoon() {
	select {
	case s.save <- struct{}{}:
	default:
	}
}

// unqueue takes back that an offset is to be forgotten, and reports whether it
// was.
func (s *Spool) unqueue(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, was := s.changes[key]
	delete(s.changes, key)
	return was
}

// saveChanges puts down what PutMeta and remove left.
func (s *Spool) saveChanges(ctx context.Context) error {
	s.mu.Lock()
	changes := s.changes
	s.changes = map[string]string{}
	s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		var err error
		if value := changes[key]; value == "" {
			err = s.positions.Remove(ctx, key)
		} else {
			err = s.positions.Put(ctx, key, value)
		}
		if err != nil {
			s.mu.Lock()
			maps.Copy(changes, s.changes) // what is newer holds
			s.changes = changes
			s.mu.Unlock()
			return fmt.Errorf("spool: positions: %w", err)
		}
	}
	return nil
}
