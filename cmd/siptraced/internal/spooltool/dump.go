package spooltool

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/segments"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// Format is how a dump writes messages. All are read by siptraced replay.
type Format string

// The formats.
const (
	// HEP is HEP3 packets that follow each other, as over TCP.
	HEP Format = "hep"
	// PCAPNG is Ethernet frames, for Wireshark and sngrep.
	PCAPNG Format = "pcapng"
	// JSON is one object per message and line.
	JSON Format = "json"
)

// Formats are all of them.
func Formats() []Format { return []Format{HEP, PCAPNG, JSON} }

// DumpOptions say what of a spool to write, and how.
type DumpOptions struct {
	Format Format
	// CallIDs are the calls to write; none: all.
	CallIDs []string
	// Since and Until bound the moment of capture, both included; zero: no bound.
	Since, Until time.Time
	Out          io.Writer
	// Begin is told how many bytes the spool has, Progress how many were read since the
	// last time; nil: nobody is.
	Begin    func(bytes int64)
	Progress func(bytes int64)
}

// Dumped is what became of the messages that were asked for.
type Dumped struct {
	Messages uint64 // written
	// Late were written behind a younger one: they came so long after their time that
	// they can't be held back for it.
	Late uint64
	// TooLarge are beyond what HEP3 can say (64 KiB), and were left out.
	TooLarge uint64
	// Undecodable batches are whole, and yet no records.
	Undecodable []error
}

// message is a record with what is known of its place.
type message struct {
	rec    siptrace.Record // in memory of its own
	taken  time.Time       // when the spool took it
	shard  int
	seq    uint64 // of its batch
	number uint64 // in the order in which it was read
}

// encoder writes messages in one format.
type encoder interface {
	// write reports ErrTooLarge for what the format can't say; that is left out.
	write(m *message) error
	close() error
}

var errTooLarge = errors.New("the message is too large for the format")

// heldBytes bounds what waits to be put in order, in bytes.
const heldBytes = 64 << 20

// Dump writes the messages of a directory in the order of time. It reads no more than
// that: it may be that of a running daemon.
func Dump(ctx context.Context, dir string, opt DumpOptions) (Dumped, error) {
	v, err := segments.OpenView(nil, dir)
	if err != nil {
		return Dumped{}, err
	}
	if opt.Begin != nil {
		opt.Begin(v.Size())
	}
	var shards []journal.Cursor
	for _, i := range v.Logs() {
		c, err := v.Read(i, time.Time{})
		if err != nil {
			return Dumped{}, err
		}
		defer c.Close()
		shards = append(shards, c)
	}
	if len(shards) == 0 {
		return Dumped{}, noSpool(dir)
	}
	return dump(ctx, shards, opt)
}

func noSpool(dir string) error {
	return fmt.Errorf("%s has no spool: name the directory of spool.dir", dir)
}

// dump writes what the shards hold.
func dump(ctx context.Context, shards []journal.Cursor, opt DumpOptions) (Dumped, error) {
	enc, err := newEncoder(opt.Format, opt.Out)
	if err != nil {
		return Dumped{}, err
	}
	d := &dumper{opt: opt, encoder: enc}
	err = d.run(ctx, shards)
	return d.dumped, errors.Join(err, enc.close())
}

func newEncoder(f Format, out io.Writer) (encoder, error) {
	switch f {
	case HEP:
		return newHEPEncoder(out), nil
	case PCAPNG:
		return newPCAPEncoder(out)
	case JSON:
		return newJSONEncoder(out), nil
	}
	return nil, fmt.Errorf("format %q: there are %v", f, Formats())
}

// dumper merges the shards. What it holds is put in order by the moment of capture:
// shards, and senders with clocks of their own, are seldom far from that.
type dumper struct {
	opt     DumpOptions
	encoder encoder
	decoder spool.Decoder
	dumped  Dumped

	held   queue
	bytes  int // of held
	number uint64
	last   time.Time // of the message that was written last
}

func (d *dumper) run(ctx context.Context, shards []journal.Cursor) error {
	next := make([]*journal.Entry, len(shards))
	for i := range shards {
		if err := advance(ctx, shards[i], &next[i]); err != nil {
			return err
		}
	}
	for {
		i := oldest(next)
		if i < 0 {
			return d.release(0)
		}
		if err := d.take(i, next[i]); err != nil {
			return err
		}
		if next[i].Memory != nil {
			next[i].Memory.Release()
		}
		if err := advance(ctx, shards[i], &next[i]); err != nil {
			return err
		}
	}
}

// advance reads the next entry of a shard; nil at its end.
func advance(ctx context.Context, c journal.Cursor, next **journal.Entry) error {
	e, err := c.Next(ctx)
	switch {
	case errors.Is(err, journal.ErrEnd):
		*next = nil
		return nil
	case err != nil:
		return err
	}
	*next = &e
	return nil
}

// oldest is the shard whose next entry came first, -1 if there is none any more.
func oldest(next []*journal.Entry) int {
	at := -1
	for i, e := range next {
		if e != nil && (at < 0 || e.Taken.Before(next[at].Taken)) {
			at = i
		}
	}
	return at
}

// take holds what is asked for of an entry.
func (d *dumper) take(shard int, e *journal.Entry) error {
	if d.opt.Progress != nil {
		d.opt.Progress(int64(len(e.Data)))
	}
	err := d.decoder.Records(e.Data, func(rec *siptrace.Record, _ []byte) error {
		if d.wanted(rec) {
			d.number++
			heap.Push(&d.held, &message{rec: rec.Clone(), taken: e.Taken, shard: shard, seq: e.Seq, number: d.number})
			d.bytes += recordBytes + rec.Size()
		}
		return nil
	})
	if err != nil {
		d.dumped.Undecodable = append(d.dumped.Undecodable, fmt.Errorf("shard %d: batch %d: %w", shard, e.Seq, err))
	}
	return d.release(heldBytes)
}

// recordBytes is about what a message takes beside its texts.
const recordBytes = 1 << 10

func (d *dumper) wanted(rec *siptrace.Record) bool {
	switch {
	case !d.opt.Since.IsZero() && rec.Time.Before(d.opt.Since):
		return false
	case !d.opt.Until.IsZero() && rec.Time.After(d.opt.Until):
		return false
	}
	return len(d.opt.CallIDs) == 0 || slices.Contains(d.opt.CallIDs, string(rec.CallID))
}

// release writes the oldest messages until no more than so many bytes are held.
func (d *dumper) release(most int) error {
	for len(d.held) > 0 && d.bytes > most {
		m, _ := heap.Pop(&d.held).(*message)
		d.bytes -= recordBytes + m.rec.Size()
		err := d.encoder.write(m)
		switch {
		case errors.Is(err, errTooLarge):
			d.dumped.TooLarge++
			continue
		case err != nil:
			return err
		case m.rec.Time.Before(d.last):
			d.dumped.Late++
		default:
			d.last = m.rec.Time
		}
		d.dumped.Messages++
	}
	return nil
}

// queue has the oldest message first; of the same moment, the one that was read first
// (container/heap).
type queue []*message

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if c := q[i].rec.Time.Compare(q[j].rec.Time); c != 0 {
		return c < 0
	}
	return q[i].number < q[j].number
}

func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { m, _ := x.(*message); *q = append(*q, m) }

func (q *queue) Pop() any {
	last := len(*q) - 1
	m := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return m
}
