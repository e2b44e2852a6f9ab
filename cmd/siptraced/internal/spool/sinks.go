package spool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Join is Reader for a sink that begins while messages come in: without a
// position it begins behind what the shard holds now.
func (s *Spool) Join(ctx context.Context, sink string, shard int) (*Reader, error) {
	sh := s.shards[shard]
	r := &Reader{shard: sh, key: sink + "." + strconv.Itoa(shard)}
	_, _, known, err := s.position(ctx, r)
	if err != nil {
		return nil, err
	}
	if !known {
		total, seq := sh.total.Load(), uint64(0)
		info, err := sh.stream.Info(ctx)
		if err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
		if seq = info.State.LastSeq; seq > 0 && info.State.Msgs > 0 {
			if msg, err := sh.stream.GetMsg(ctx, seq); err == nil {
				_, total = batchHeader(msg.Header)
			}
		}
		if err := s.savePosition(ctx, r, seq, total); err != nil {
			return nil, err
		}
	}
	return s.Reader(ctx, sink, shard)
}

// Leave closes readers of sinks that are no more, and forgets their positions:
// they keep nothing in the spool any longer.
func (s *Spool) Leave(ctx context.Context, readers ...*Reader) error {
	s.mu.Lock()
	s.readers = slices.DeleteFunc(s.readers, func(r *Reader) bool { return slices.Contains(readers, r) })
	for _, r := range readers {
		if p := r.shard.readers.Load(); p != nil {
			rest := slices.DeleteFunc(slices.Clone(*p), func(o *Reader) bool { return o == r })
			r.shard.readers.Store(&rest)
		}
	}
	s.mu.Unlock()
	var failed error
	for _, r := range readers {
		r.Close()
		failed = errors.Join(failed, s.positions.remove(ctx, r.key))
	}
	return failed
}

// Forget removes the positions of the sinks whose names begin so, but for those
// to keep: what is gone from the configuration must not be taken up again later
// as if it had waited all the time.
func (s *Spool) Forget(ctx context.Context, prefix string, keep func(sink string) bool) error {
	names, err := s.positions.keys(ctx)
	if err != nil {
		return fmt.Errorf("spool: positions: %w", err)
	}
	for _, key := range names {
		sink, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		if i := strings.LastIndexByte(sink, '.'); i >= 0 && !keep(sink[:i]) {
			if err := s.positions.remove(ctx, key); err != nil {
				return fmt.Errorf("spool: positions: %w", err)
			}
		}
	}
	return nil
}

// Keep writes a small text down beside the positions, at once; an empty one
// forgets it. Keys have letters, digits, '-', '_' and '.'.
func (s *Spool) Keep(ctx context.Context, key, value string) error {
	var err error
	if value == "" {
		err = s.positions.remove(ctx, keptPrefix+key)
	} else {
		err = s.positions.put(ctx, keptPrefix+key, value)
	}
	if err != nil {
		return fmt.Errorf("spool: positions: %w", err)
	}
	return s.positions.flush()
}

// Kept is every text that was kept, by key.
func (s *Spool) Kept(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	names, err := s.positions.keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("spool: positions: %w", err)
	}
	for _, name := range names {
		key, ok := strings.CutPrefix(name, keptPrefix)
		if !ok {
			continue
		}
		if out[key], _, err = s.positions.get(ctx, name); err != nil {
			return nil, fmt.Errorf("spool: positions: %w", err)
		}
	}
	return out, nil
}

const keptPrefix = "kept."

// Full reports whether records are being refused because there is no room.
func (s *Spool) Full() bool { return s.full.Load() }

// Waiting estimates the bytes of the shard that the sink is not done with.
func (r *Reader) Waiting(ctx context.Context) (int64, error) {
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

// Opened is what waits for the sink, and how many records the shard had taken
// since the spool was opened: asked for when the reader is, it is where the
// sink's books begin.
func (r *Reader) Opened() (waiting, before uint64) {
	if r.Shared() {
		return r.Pending(), 0
	}
	total := r.shard.total.Load()
	if done := r.place.Load().total; total > done {
		waiting = total - done
	}
	return waiting, total - min(total, r.shard.recovered)
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
