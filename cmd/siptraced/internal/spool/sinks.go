package spool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

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
// I/O.
func (s *Spool) PutMeta(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes[metaPrefix+key] = value
	s.saveSoon()
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
	for key, value := range changes {
		var err error
		if value == "" {
			err = s.positions.remove(ctx, key)
		} else {
			err = s.positions.put(ctx, key, value)
		}
		if err != nil {
			s.mu.Lock()
			for k, v := range changes {
				if _, newer := s.changes[k]; !newer {
					s.changes[k] = v
				}
			}
			s.mu.Unlock()
			return fmt.Errorf("spool: positions: %w", err)
		}
	}
	return nil
}

// Forget discards what is kept for the sinks that do not run and whose names
// begin so, but for those to keep: what is gone from the configuration must not
// be taken up again later as if it had waited all the time.
func (s *Spool) Forget(_ context.Context, prefix string, keep func(sink string) bool) error {
	var gone []*reader
	for _, r := range s.registered() {
		if name, ok := strings.CutPrefix(r.sink(), prefix); ok && r.dormant && !keep(name) {
			gone = append(gone, r)
		}
	}
	s.remove(gone)
	return nil
}

// Meta is every text that PutMeta left, by key.
func (s *Spool) Meta(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	names, err := s.positions.keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("spool: positions: %w", err)
	}
	for _, name := range names {
		key, ok := strings.CutPrefix(name, metaPrefix)
		if !ok {
			continue
		}
		if out[key], _, err = s.positions.get(ctx, name); err != nil {
			return nil, fmt.Errorf("spool: positions: %w", err)
		}
	}
	return out, nil
}

const metaPrefix = "kept."

// Full reports whether records are being refused because there is no room.
func (s *Spool) Full() bool { return s.full.Load() }

// Waiting estimates the bytes of the shard that the sink is not done with.
func (r *reader) Waiting(ctx context.Context) (int64, error) {
	info, err := r.shard.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("spool: %w", err)
	}
	st := info.State
	done := max(r.place.Load().seq, st.FirstSeq-min(1, st.FirstSeq))
	if st.Msgs == 0 || st.LastSeq <= done {
		return 0, nil
	}
	return int64(float64(st.Bytes) / float64(st.Msgs) * float64(st.LastSeq-done)), nil
}

// began is where the sink's accounting begins: what waited for it when the spool
// was opened, and how many records of the shard came since then before the sink
// began. It is asked for when the reader is opened.
func (r *reader) began() (waiting, before uint64) {
	if r.Shared() || r.continues {
		return 0, 0
	}
	done, recovered := r.place.Load().total, r.shard.recovered
	return recovered - min(recovered, done), done - min(recovered, done)
}

// Age is how long ago the spool took b.
func (b *Batch) Age() time.Duration { return time.Since(b.taken) }

func (p *filePositions) remove(_ context.Context, key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.values[key]; ok {
		delete(p.values, key)
		p.changed = true
	}
	return nil
}

func (p *filePositions) keys(context.Context) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.values)), nil
}

func (p clusterPositions) remove(ctx context.Context, key string) error {
	if err := p.kv.Delete(ctx, key); err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	return nil
}

func (p clusterPositions) keys(ctx context.Context) ([]string, error) {
	l, err := p.kv.ListKeys(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for k := range l.Keys() {
		out = append(out, k)
	}
	return out, nil
}

// Save returns when what PutMeta left is on disk.
func (s *Spool) Save(ctx context.Context) error {
	if err := s.saveChanges(ctx); err != nil {
		return err
	}
	return s.positions.flush()
}

// Contended reports whether other processes spool into the same shards.
func (s *Spool) Contended() bool { return s.Shared() }
