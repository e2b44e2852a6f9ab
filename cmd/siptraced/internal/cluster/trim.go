package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
)

// heldPatience is how long a sink may keep messages that others are done with before
// that is logged.
const heldPatience = 5 * time.Minute

// held is what keeps messages that others are done with.
type held struct {
	sink  string
	seq   uint64
	since time.Time
	said  bool
}

// Trim gives up messages up to a number, but none that a sink of whatever process is
// not done with by its position.
func (l *Log) Trim(ctx context.Context, upTo uint64) error {
	if err := l.trimming.take(ctx); err != nil {
		return fmt.Errorf("stream %s: %w", l.name, err)
	}
	defer l.trimming.give()
	if l.owing {
		if err := l.settle(ctx); err != nil && !errors.Is(err, journal.ErrFull) {
			return err
		}
	}
	if upTo <= l.trimmed {
		return nil
	}
	info, err := l.info(ctx)
	if err != nil {
		l.lost(ctx, err)
		return err
	}
	upTo = min(upTo, info.State.LastSeq)
	if info.State.Msgs == 0 || info.State.FirstSeq > upTo {
		l.trimmed = max(l.trimmed, upTo) // by somebody else
		return nil
	}
	sink, done, err := l.slowest(ctx)
	if err != nil {
		return err
	}
	if sink != "" && done < upTo {
		l.holds(ctx, sink, done)
		upTo = done
	} else {
		l.held = held{}
	}
	if upTo < info.State.FirstSeq {
		return nil
	}
	if err := l.purge(ctx, upTo); err != nil {
		return err
	}
	l.trimmed = upTo
	return nil
}

// purge notes what goes, and gives it up. Where there is no room for the note it comes
// behind.
func (l *Log) purge(ctx context.Context, upTo uint64) error {
	noted := l.noteSeen(ctx, upTo)
	if noted != nil && !errors.Is(noted, journal.ErrFull) {
		return noted
	}
	_, err := call(ctx, l.engine, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, l.handle().Purge(ctx, jetstream.WithPurgeSequence(upTo+1))
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.name, err)
	}
	if l.owing = noted != nil; l.owing {
		return l.settle(ctx)
	}
	return nil
}

// settle makes up for a note that there was no room for.
func (l *Log) settle(ctx context.Context) error {
	if err := l.noteSeen(ctx, 0); err != nil {
		return err
	}
	l.owing = false
	return nil
}

// slowest is the sink that is done with the least, of all processes; "": none has a
// position.
func (l *Log) slowest(ctx context.Context) (sink string, done uint64, err error) {
	all, err := l.backlogs(ctx)
	if err != nil || len(all) == 0 {
		return "", 0, err
	}
	least := slices.MinFunc(all, func(a, b journal.Backlog) int { return cmp.Compare(a.Seq, b.Seq) })
	return least.Sink, least.Seq, nil
}

// backlogs are the positions in this stream, without what they keep.
func (l *Log) backlogs(ctx context.Context) ([]journal.Backlog, error) {
	all, err := l.engine.positions.all(ctx)
	if err != nil {
		return nil, err
	}
	var out []journal.Backlog
	timelines := l.Timelines()
	for key, v := range all {
		sink, shard, ok := journal.CutPositionKey(key)
		if !ok || shard != l.index {
			continue
		}
		at, ok := journal.ParsePosition(v.value)
		// A position of a stream before this one is of no meaning.
		if ok && slices.ContainsFunc(timelines, func(t journal.Timeline) bool { return t.ID == at.Log }) {
			out = append(out, journal.Backlog{Sink: sink, Shard: shard, Seq: at.Seq, Moved: v.at})
		}
	}
	return out, nil
}

// holds logs a sink that keeps messages for long without moving, once.
func (l *Log) holds(ctx context.Context, sink string, done uint64) {
	if l.held.sink != sink || l.held.seq != done {
		l.held = held{sink: sink, seq: done, since: time.Now()}
	}
	if l.held.said || time.Since(l.held.since) < heldPatience {
		return
	}
	waiting, err := l.Waiting(ctx, []uint64{done})
	if err != nil {
		return // the next Trim tries again
	}
	l.held.said = true
	l.engine.log.Warn("spool: a sink does not move, and keeps messages that others are done with; if it is gone for good: siptraced spool forget SINK", "sink", sink, "stream", l.name, "messages", waiting[0])
}

// DropOldest gives up a sixteenth of the stream, whoever waits for it.
func (l *Log) DropOldest(ctx context.Context) (any bool, err error) {
	if err := l.trimming.take(ctx); err != nil {
		return false, fmt.Errorf("stream %s: %w", l.name, err)
	}
	defer l.trimming.give()
	info, err := l.info(ctx)
	if err != nil || info.State.Msgs == 0 {
		return false, err
	}
	st := info.State
	upTo := min(st.LastSeq, st.FirstSeq+(st.LastSeq-st.FirstSeq)/16)
	if err := l.purge(ctx, upTo); err != nil {
		return false, err
	}
	return true, nil
}

// Backlogs are those of all sinks that have a position.
func (e *Engine) Backlogs(ctx context.Context) ([]journal.Backlog, error) {
	var out []journal.Backlog
	for _, l := range e.open() {
		all, err := l.backlogs(ctx)
		if err != nil {
			return nil, err
		}
		after := make([]uint64, len(all))
		for i, b := range all {
			after[i] = b.Seq
		}
		waiting, err := l.Waiting(ctx, after)
		if err != nil {
			return nil, err
		}
		info, err := l.info(ctx)
		if err != nil {
			return nil, err
		}
		for i, b := range all {
			b.Records = waiting[i]
			if st := info.State; st.Msgs > 0 && b.Seq < st.LastSeq {
				behind := st.LastSeq - max(b.Seq, st.FirstSeq-1)
				b.Bytes = int64(float64(st.Bytes) / float64(st.LastSeq-st.FirstSeq+1) * float64(behind))
			}
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b journal.Backlog) int {
		return cmp.Or(cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Shard, b.Shard))
	})
	return out, nil
}

// open are the streams that were opened, in their order.
func (e *Engine) open() []*Log {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*Log
	for _, l := range e.logs {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *Log) int { return cmp.Compare(a.index, b.index) })
	return out
}

// Forget removes the positions of a sink in all shards, and what is kept of it beside.
func (e *Engine) Forget(ctx context.Context, sink string) (found bool, err error) {
	keys, err := e.positions.Keys(ctx)
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		of, _, ok := journal.CutPositionKey(key)
		if mine := ok && of == sink; !mine && key != journal.MetaPrefix+sink {
			continue
		} else if err := e.positions.Remove(ctx, key); err != nil {
			return found, err
		} else {
			found = found || mine
		}
	}
	return found, nil
}
