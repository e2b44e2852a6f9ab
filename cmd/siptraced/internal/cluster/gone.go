package cluster

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

	"siptraced/cmd/siptraced/internal/journal"
)

// mark is a batch of an intake: which of its batches in this stream it is (from 1), and
// its number in the stream.
type mark struct {
	number, seq uint64
}

// goneAge is how long a note is kept: an intake whose connection is away for longer
// than that, in one and the same process, may double its last batch.
const goneAge = 30 * 24 * time.Hour

func (l *Log) goneKey() string { return journal.GonePrefix + strconv.Itoa(l.index) }

// noteSeen notes how far each intake was seen, of the messages up to a number at least,
// before these are given up.
func (l *Log) noteSeen(ctx context.Context, upTo uint64) error {
	l.mu.Lock()
	covered := l.covered >= upTo
	l.mu.Unlock()
	if !covered {
		if err := l.look(ctx); err != nil {
			return err
		}
	}
	news := map[string]mark{}
	l.mu.Lock()
	for intake, m := range l.seen {
		if m.number > l.noted[intake] {
			news[intake] = m
		}
	}
	l.mu.Unlock()
	if len(news) == 0 {
		return nil
	}
	err := l.engine.positions.change(ctx, l.goneKey(), func(text string) string {
		return mergeGone(text, news, time.Now())
	})
	if err != nil {
		return fmt.Errorf("stream %s: how far its intakes came is not noted: %w", l.name, err)
	}
	for intake, m := range news {
		l.noted[intake] = m.number
	}
	return nil
}

// look finds out how far each intake came, by its last message.
func (l *Log) look(ctx context.Context) error {
	info, err := l.info(ctx, jetstream.WithSubjectFilter(l.subject+".>"))
	if err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		msg, err := l.lastOf(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // others gave it up, and noted it
		}
		if err != nil {
			return err
		}
		l.passed(0, msg.Sequence, msg.Header)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.covered = max(l.covered, info.State.LastSeq)
	return nil
}

// readGone is what was noted of each intake, as of this moment.
func (l *Log) readGone(ctx context.Context) (map[string]mark, error) {
	var now string
	err := l.engine.positions.change(ctx, l.goneKey(), func(text string) string {
		now = text
		return text
	})
	if err != nil {
		return nil, err
	}
	out := map[string]mark{}
	for intake, n := range parseGone(now) {
		out[intake] = n.mark
	}
	return out, nil
}

// note is a mark, and when it was put down.
type note struct {
	mark
	at int64 // Unix seconds
}

// parseGone reads "INTAKE NUMBER SEQ TIME" from each line, and passes over others.
func parseGone(text string) map[string]note {
	out := map[string]note{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		number, err1 := strconv.ParseUint(f[1], 10, 64)
		seq, err2 := strconv.ParseUint(f[2], 10, 64)
		at, err3 := strconv.ParseInt(f[3], 10, 64)
		if err := errors.Join(err1, err2, err3); err == nil {
			out[f[0]] = note{mark{number, seq}, at}
		}
	}
	return out
}

// mergeGone adds news to a text. No mark goes back, whoever comes late; old ones go.
func mergeGone(text string, news map[string]mark, now time.Time) string {
	all := parseGone(text)
	for intake, m := range news {
		if m.number > all[intake].number {
			all[intake] = note{m, now.Unix()}
		}
	}
	var b strings.Builder
	for _, intake := range slices.Sorted(maps.Keys(all)) {
		if n := all[intake]; now.Unix()-n.at < int64(goneAge/time.Second) {
			fmt.Fprintf(&b, "%s %d %d %d\n", intake, n.number, n.seq, n.at)
		}
	}
	return b.String()
}
