package cluster

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
)

// Log is one stream (journal.Shared).
type Log struct {
	engine        *Engine
	index         int
	name, subject string

	appending turn // one Append at a time; covers what follows
	fence     fence
	pending   *attempt // its answer is not known
	batches   uint64   // that this process tried to put in

	trimming turn   // one Trim at a time; covers what follows
	trimmed  uint64 // what is gone up to here
	noted    map[string]uint64
	owing    bool // a note that comes late
	held     held

	mu        sync.Mutex // covers what follows; never held during I/O
	limits    journal.Limits
	stream    jetstream.Stream
	born      time.Time
	timelines []journal.Timeline
	last      uint64 // the last message, as far as is known here
	total     uint64 // of the last batch that this process put in
	missing   time.Time
	// seen is how far each intake came, by the messages that passed here: all up to
	// covered.
	seen    map[string]mark
	covered uint64
}

// turn lets one in at a time.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn; when nobody has it, not even ctx matters.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }

const (
	headerRecords = "Records"
	headerTotal   = "Total"
	headerIntake  = "Intake"
)

func batchHeader(h nats.Header) (records int, total uint64) {
	records, _ = strconv.Atoi(h.Get(headerRecords))
	total, _ = strconv.ParseUint(h.Get(headerTotal), 10, 64)
	return records, total
}

// want is the stream's configuration: what is there, and what is ours to say.
func (l *Log) want(cfg jetstream.StreamConfig) jetstream.StreamConfig {
	l.mu.Lock()
	limits := l.limits
	l.mu.Unlock()
	cfg.Name = l.name
	cfg.Subjects = []string{l.subject, l.subject + ".*"} // one for each intake; the first one is of former versions
	cfg.Storage = jetstream.FileStorage
	cfg.Retention = jetstream.LimitsPolicy
	cfg.Discard = jetstream.DiscardNew
	if limits.DropOldest {
		cfg.Discard = jetstream.DiscardOld
	}
	cfg.MaxBytes = -1
	if limits.Bytes > 0 {
		cfg.MaxBytes = limits.Bytes
	}
	cfg.MaxAge = limits.Age
	cfg.MaxMsgs, cfg.MaxMsgsPerSubject, cfg.MaxMsgSize = -1, -1, -1
	cfg.Replicas = l.engine.cfg.Replicas
	cfg.AllowDirect = false // only the leader knows what is there
	cfg.Compression = jetstream.NoCompression
	return cfg
}

// make opens the stream, and makes it where there is none. What else somebody set on
// it stays.
func (l *Log) make(ctx context.Context) (jetstream.Stream, error) {
	js := l.engine.js
	s, err := js.Stream(ctx, l.name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		cfg := l.want(jetstream.StreamConfig{})
		if cfg.FirstSeq, err = l.behind(ctx); err != nil {
			return nil, err
		}
		s, err = js.CreateStream(ctx, cfg)
	case err == nil:
		have := s.CachedInfo().Config
		if cfg := l.want(have); !reflect.DeepEqual(cfg, have) {
			s, err = js.UpdateStream(ctx, cfg)
		}
	}
	if err != nil {
		return nil, err
	}
	l.note(s.CachedInfo())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream = s
	return s, nil
}

// behind is the first number of a new stream: behind all that were given out, as far as
// is known. Who comes from a stream that was deleted must not take new messages for
// those that he had.
func (l *Log) behind(ctx context.Context) (uint64, error) {
	last := l.tail()
	all, err := l.engine.positions.all(ctx)
	if err != nil {
		return 0, err
	}
	for key, v := range all {
		if _, shard, ok := journal.CutPositionKey(key); ok && shard == l.index {
			if at, ok := journal.ParsePosition(v.value); ok && strings.HasPrefix(at.Log, l.name+"@") {
				last = max(last, at.Seq)
			}
		}
	}
	if last == 0 {
		return 0, nil
	}
	return last + 1, nil
}

// note takes up what the cluster says of the stream.
func (l *Log) note(info *jetstream.StreamInfo) {
	l.mu.Lock()
	l.missing = time.Time{}
	remade := !l.born.IsZero() && !l.born.Equal(info.Created)
	back := remade && info.State.LastSeq < l.last
	if l.born.IsZero() || remade {
		l.born = info.Created
		l.timelines = append(l.timelines, journal.Timeline{ID: fmt.Sprintf("%s@%x", l.name, info.Created.UnixNano())})
	}
	l.reached(info.State.LastSeq)
	l.mu.Unlock()
	switch {
	case back:
		l.engine.log.Error("spool: the stream was deleted, and made anew with numbers from the beginning: what waited in it is lost; restart siptraced, or new messages are not read", "stream", l.name)
	case remade:
		l.engine.log.Error("spool: the stream was deleted and made anew: what waited in it is lost", "stream", l.name)
	}
}

// reached takes up a number that is in use; l.mu is held.
func (l *Log) reached(seq uint64) {
	l.last = max(l.last, seq)
	l.timelines[len(l.timelines)-1].Last = l.last
}

// missingPatience is how long the cluster must say that the stream is not there before
// it is made anew: what a cluster says that has just lost servers may be wrong, and a
// stream that is made anew is empty.
const missingPatience = 10 * time.Second

// lost looks at an error of the stream: one that was deleted is made anew.
func (l *Log) lost(ctx context.Context, err error) {
	if !errors.Is(err, jetstream.ErrStreamNotFound) && !errors.Is(err, jetstream.ErrNoStreamResponse) && !errors.Is(err, nats.ErrNoResponders) {
		return
	}
	if _, err := l.info(ctx); !errors.Is(err, jetstream.ErrStreamNotFound) {
		return
	}
	l.mu.Lock()
	if l.missing.IsZero() {
		l.missing = time.Now()
		l.engine.log.Error("spool: the stream is gone: somebody deleted it, or the cluster lost it; it is made anew if it stays away", "stream", l.name)
	}
	due := time.Since(l.missing) > missingPatience
	l.mu.Unlock()
	if due {
		if _, err := call(ctx, l.engine, l.make); err != nil {
			l.engine.log.Error("spool: the stream can't be made anew", "stream", l.name, "err", err)
		}
	}
}

func (l *Log) handle() jetstream.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream
}

func (l *Log) tail() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// info asks for the stream's state.
func (l *Log) info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	info, err := call(ctx, l.engine, func(ctx context.Context) (*jetstream.StreamInfo, error) { return l.handle().Info(ctx, opts...) })
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", l.name, err)
	}
	l.note(info)
	return info, nil
}

// message is one message of the stream; the error wraps jetstream.ErrMsgNotFound where
// there is none.
func (l *Log) message(ctx context.Context, f func(ctx context.Context, s jetstream.Stream) (*jetstream.RawStreamMsg, error)) (*jetstream.RawStreamMsg, error) {
	msg, err := call(ctx, l.engine, func(ctx context.Context) (*jetstream.RawStreamMsg, error) { return f(ctx, l.handle()) })
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", l.name, err)
	}
	return msg, nil
}

// lastOf is the last message on a subject.
func (l *Log) lastOf(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	return l.message(ctx, func(ctx context.Context, s jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return s.GetLastMsgForSubject(ctx, subject)
	})
}

func (l *Log) setLimits(ctx context.Context, limits journal.Limits) error {
	l.mu.Lock()
	old := l.limits
	l.limits = limits
	l.mu.Unlock()
	if _, err := call(ctx, l.engine, l.make); err != nil {
		l.mu.Lock()
		l.limits = old
		l.mu.Unlock()
		return fmt.Errorf("stream %s: %w", l.name, err)
	}
	return nil
}

// ID is the stream's name and time of birth.
func (l *Log) ID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.timelines[len(l.timelines)-1].ID
}

// Exclusive is false: other processes use the stream.
func (l *Log) Exclusive() bool { return false }

// Timelines has one for the stream, and those before if it was made anew meanwhile.
func (l *Log) Timelines() []journal.Timeline {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]journal.Timeline(nil), l.timelines...)
}

// Skip has nothing to do: the numbers are the cluster's.
func (l *Log) Skip(uint64) {}

// Sync has nothing to do: an entry that is kept is on as many servers as make a
// majority. When these write it down is their setting (sync_interval).
func (l *Log) Sync(context.Context) error { return nil }

// Bounds is what the stream holds; Total is that of this process. What the servers
// have not synced is not known.
func (l *Log) Bounds(ctx context.Context) (journal.Bounds, error) {
	info, err := l.info(ctx)
	if err != nil {
		return journal.Bounds{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := journal.Bounds{First: info.State.FirstSeq, Last: info.State.LastSeq, Total: l.total, Bytes: int64(info.State.Bytes), Oldest: info.State.FirstTime}
	if info.State.Msgs == 0 {
		b.First, b.Oldest = b.Last+1, time.Time{}
	}
	return b, nil
}

// Waiting counts by the totals: an intake has a subject of its own, and each of its
// batches says how many records it put in with it. Its first batch that waits and its
// last one are enough.
func (l *Log) Waiting(ctx context.Context, after []uint64) ([]uint64, error) {
	info, err := l.info(ctx, jetstream.WithSubjectFilter(l.subject+".>"))
	if err != nil {
		return nil, err
	}
	counted := map[uint64]uint64{}
	totals := map[string]uint64{} // by subject
	out := make([]uint64, len(after))
	for i, seq := range after {
		next := max(seq+1, info.State.FirstSeq) // what is purged is done
		n, ok := counted[next]
		if !ok {
			if n, err = l.waiting(ctx, info.State, next, totals); err != nil {
				return nil, err
			}
			counted[next] = n
		}
		out[i] = n
	}
	return out, nil
}

func (l *Log) waiting(ctx context.Context, st jetstream.StreamState, next uint64, totals map[string]uint64) (n uint64, err error) {
	if next > st.LastSeq {
		return 0, nil
	}
	for subject := range st.Subjects {
		if _, known := totals[subject]; !known {
			msg, err := l.lastOf(ctx, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				return 0, err
			}
			_, totals[subject] = batchHeader(msg.Header)
		}
		msg, err := l.message(ctx, func(ctx context.Context, s jetstream.Stream) (*jetstream.RawStreamMsg, error) {
			return s.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		records, upTo := batchHeader(msg.Header)
		if before := upTo - uint64(records); totals[subject] > before {
			n += totals[subject] - before
		}
	}
	return n, nil
}

// passed takes up a message that came by; next is the first number that its reader can
// have missed.
func (l *Log) passed(next, seq uint64, h nats.Header) {
	intake := h.Get(headerIntake)
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := (mark{batchNumber(h), seq}); m.number > l.seen[intake].number {
		l.seen[intake] = m
	}
	l.reached(seq)
	if next <= l.covered+1 {
		l.covered = max(l.covered, seq)
	}
}
