package spool

import (
	"maps"
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/journal"
)

// A sink that is switched off for a run keeps its offset and its backlog: what
// was spooled for it before. A dormant reader stands for it and keeps that from
// being trimmed, until the sink runs again, or until there is no room for
// anything else. What comes while the sink is off is not meant for it.
//
// A cluster keeps for every sink what that is not done with, whoever runs it: there
// are no dormant readers.

// adopt has a dormant reader stand for each saved position.
func (s *Spool) adopt(saved []position) {
	for _, p := range saved {
		r := &reader{shard: p.shard, key: p.key, dormant: true, saved: p.at}
		r.place.Store(&p.at)
		r.ready.Store(true)
		s.readers = append(s.readers, r)
	}
}

// needs is how many records a dormant reader keeps: those of before this run.
func (r *reader) needs() uint64 {
	done := r.place.Load().total
	return r.shard.recovered - min(r.shard.recovered, done)
}

// followTrim moves the dormant readers that keep nothing along with those that
// run, so that what is trimmed does not count as missed once their sinks run
// again.
func (s *Spool) followTrim() {
	readers := s.registered()
	for _, r := range readers {
		if !r.dormant || r.needs() > 0 {
			continue
		}
		at, any := oldest(readers, r.shard, func(o *reader) bool { return !o.dormant })
		if any && at.seq > r.place.Load().seq {
			r.place.Store(&at)
		}
	}
}

// oldest is the place of the reader of a shard that is furthest behind, of those
// that are asked for.
func oldest(readers []*reader, sh *shard, of func(*reader) bool) (at offset, any bool) {
	for _, r := range readers {
		if r.shard != sh || !of(r) {
			continue
		}
		if p := *r.place.Load(); !any || p.seq < at.seq {
			at, any = p, true
		}
	}
	return at, any
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
	for _, sink := range slices.Sorted(maps.Keys(waiting)) {
		s.log.Warn("spool: messages wait for a sink that does not run; they are kept until it runs again or spool.max_bytes is reached. To discard them, stop siptraced and call siptraced spool forget", "sink", sink, "messages", waiting[sink])
	}
}

// Forget discards what is kept for the sinks that do not run and whose names
// begin so, but for those to keep: what is gone from the configuration must not
// be taken up again later as if it had waited all the time. In a cluster another
// process may run them, so that they stay.
func (s *Spool) Forget(prefix string, keep func(sink string) bool) {
	var gone []*reader
	for _, r := range s.registered() {
		if name, ok := strings.CutPrefix(r.sink(), prefix); ok && r.dormant && !keep(name) {
			gone = append(gone, r)
		}
	}
	s.remove(gone)
}

// sink is the name of the reader's sink.
func (r *reader) sink() string {
	sink, _, _ := journal.CutPositionKey(r.key)
	return sink
}
