package spool

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A sink that is switched off for a run keeps its offset and its backlog: what
// was spooled for it before. A dormant reader stands for it and keeps that from
// being trimmed, until the sink runs again, or until there is no room for
// anything else. What comes while the sink is off is not meant for it.

// findDormant makes a dormant reader for each offset that was saved.
func (s *Spool) findDormant(ctx context.Context) error {
	keys, err := s.positions.keys(ctx)
	if err != nil {
		return fmt.Errorf("spool: positions: %w", err)
	}
	var found []*reader
	for _, key := range keys {
		sink, index, ok := cutLast(key)
		i, err := strconv.Atoi(index)
		if !ok || err != nil || i >= len(s.shards) || sink == totalPrefix || strings.HasPrefix(key, metaPrefix) {
			continue
		}
		r := &reader{shard: s.shards[i], key: key, dormant: true}
		seq, total, known, err := s.position(ctx, r)
		if err != nil {
			return err
		}
		if !known {
			continue
		}
		r.saved = offset{seq: seq, total: total}
		r.place.Store(&offset{seq: seq, total: total})
		r.ready.Store(true)
		found = append(found, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = append(s.readers, found...)
	return nil
}

func cutLast(key string) (sink, index string, ok bool) {
	i := strings.LastIndexByte(key, '.')
	if i < 0 {
		return "", "", false
	}
	return key[:i], key[i+1:], true
}

// needs is how many records a dormant reader keeps: those of before this run.
func (r *reader) needs() uint64 {
	if r.Shared() {
		return 0 // who runs the sink in a cluster knows
	}
	done := r.place.Load().total
	return r.shard.recovered - min(r.shard.recovered, done)
}

// followTrim moves the dormant readers that keep nothing along with those that
// run, so that what is trimmed does not count as missed once their sinks run
// again. In a cluster another process may move them.
func (s *Spool) followTrim(ctx context.Context, readers []*reader) error {
	oldest := map[*shard]offset{}
	for _, r := range readers {
		if r.dormant {
			continue
		}
		at := *r.place.Load()
		if o, ok := oldest[r.shard]; !ok || at.seq < o.seq {
			oldest[r.shard] = at
		}
	}
	for _, r := range readers {
		switch {
		case !r.dormant:
		case r.Shared():
			seq, total, known, err := s.position(ctx, r)
			if err != nil {
				return err
			}
			if !known {
				s.drop(r)
			}
			r.saved = offset{seq: seq, total: total}
			r.place.Store(&offset{seq: seq, total: total})
		case r.needs() == 0:
			if at, ok := oldest[r.shard]; ok && at.seq > r.place.Load().seq {
				r.place.Store(&at)
			}
		}
	}
	return nil
}

// drop forgets a dormant reader.
func (s *Spool) drop(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = slices.DeleteFunc(s.readers, func(o *reader) bool { return o == r })
}

// discardDormant gives up what dormant readers of the shard keep; any is false
// when that is nothing.
func (sh *shard) discardDormant() (any bool) {
	s := sh.spool
	for _, r := range s.registered() {
		if r.shard != sh || !r.dormant {
			continue
		}
		n := r.needs()
		if n == 0 {
			continue
		}
		seq, total := sh.tail()
		r.place.Store(&offset{seq: seq, total: total})
		s.Stats.Discarded.Add(n)
		s.log.Error("spool: there is no room, the messages of a sink that does not run are discarded (keys spool.max_bytes, spool.dir)", "sink", r.sink(), "shard", sh.index, "messages", n)
		any = true
	}
	return any
}

// LogDormant logs what is kept for sinks that do not run. It is called once all
// that are to run do.
func (s *Spool) LogDormant() {
	waiting := map[string]uint64{}
	for _, r := range s.registered() {
		if r.dormant && r.needs() > 0 {
			waiting[r.sink()] += r.needs()
		}
	}
	for sink, n := range waiting {
		s.log.Warn("spool: messages wait for a sink that does not run; they are kept until it runs again or spool.max_bytes is reached. To discard them, stop siptraced once nothing else waits, and remove spool.dir", "sink", sink, "messages", n, "spool.dir", s.cfg.Dir)
	}
}

// sink is the name of the reader's sink.
func (r *reader) sink() string {
	sink, _, _ := cutLast(r.key)
	return sink
}
