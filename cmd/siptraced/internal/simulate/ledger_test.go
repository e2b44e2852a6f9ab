//go:build simulation

package simulate

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"time"

	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/segments"
)

// books are what is known of the logs on one disk.
type books struct {
	*world
	damage
	disk    *faulty.Disk
	name    string
	sync    time.Duration
	segment int64
	logs    []*ledger
	names   map[string]*sent // timeline and number of each entry, on whatever disk
	// lost is told of an entry that is gone for good, and adopted of one that is kept
	// although Append did not say so.
	lost, adopted func(*sent)
}

// ledger is what is known of one log.
type ledger struct {
	*books
	index   int
	entries []*sent // in the order in which they were offered
	places  map[uint64]int
	trimmed uint64 // by the present process: given up, up to here
}

// sent is one entry.
type sent struct {
	sum, seq uint64
	size     int
	records  int
	ids      []int // of messages
	timeline string
	kept     bool // Append said so
	synced   bool
	trimmed  bool // given up
	gone     bool // it was found to be lost, or never was
	// doubtful: a sync of it failed, and the process ended before it was written again.
	// The kernel may have it in memory and think that the disk has it, too.
	doubtful bool
}

func (b *books) ledger(i int) *ledger {
	for len(b.logs) <= i {
		b.logs = append(b.logs, &ledger{books: b, index: len(b.logs), places: map[uint64]int{}})
	}
	return b.logs[i]
}

// open opens the directory as a process.
func (b *books) open(p *faulty.Process) (*segments.Engine, error) {
	return segments.Open(context.Background(), segments.Config{
		Dir: spoolDir, FS: p, SyncInterval: b.sync, SegmentSize: b.segment, Log: b.logger(b.name), Random: b.rand.Uint64,
	})
}

var sumSeed = maphash.MakeSeed()

func sumOf(data []byte) uint64 { return maphash.Bytes(sumSeed, data) }

// offer notes an entry that Append gets.
func (l *ledger) offer(e *journal.Entry, ids []int) *sent {
	s := &sent{sum: sumOf(e.Data), size: len(e.Data), records: e.Records, ids: ids}
	l.places[s.sum] = len(l.entries)
	l.entries = append(l.entries, s)
	return s
}

// keep notes that an entry is kept.
func (l *ledger) keep(s *sent, e *journal.Entry) {
	s.kept, s.seq, s.timeline = true, e.Seq, e.Timeline
	s.synced = l.sync == 0
	s.trimmed = s.seq <= l.trimmed
	l.call(s, e)
}

// trim notes that entries are given up, and tells f of each. Numbers grow as long as a
// process lives; after a loss of power they may begin again, on another timeline.
func (l *ledger) trim(upTo uint64, f func(*sent)) {
	if upTo <= l.trimmed {
		return
	}
	l.trimmed = upTo
	for _, s := range l.entries {
		if s.kept && !s.gone && !s.trimmed && s.seq <= upTo {
			s.trimmed = true
			f(s)
		}
	}
}

// call checks that no other entry has this number on this timeline, wherever it is.
func (l *ledger) call(s *sent, e *journal.Entry) {
	key := fmt.Sprintf("%s/%d", e.Timeline, e.Seq)
	if was := l.names[key]; was != nil && was.sum != s.sum {
		l.find("%s log %d: two entries are %s", l.name, l.index, key)
	}
	l.names[key] = s
}

// known finds an entry that was read among those that were offered, from the next-th
// on.
func (l *ledger) known(next int, e *journal.Entry) int {
	i, ok := l.places[sumOf(e.Data)]
	if !ok {
		l.find("%s log %d: entry %d is not what was written", l.name, l.index, e.Seq)
		return -1
	}
	s := l.entries[i]
	switch {
	case i < next:
		l.find("%s log %d: entry %d was read out of order, or twice", l.name, l.index, e.Seq)
		return -1
	case s.gone && !l.flaky:
		l.find("%s log %d: entry %d was lost, and is there again", l.name, l.index, e.Seq)
	case s.kept && (s.seq != e.Seq || s.timeline != e.Timeline):
		l.find("%s log %d: an entry was %s/%d, and is %s/%d", l.name, l.index, s.timeline, s.seq, e.Timeline, e.Seq)
	case s.records != e.Records:
		l.find("%s log %d: entry %d has %d records, not %d", l.name, l.index, e.Seq, e.Records, s.records)
	}
	l.call(s, e)
	return i
}

// missed notes that an entry is not there and should be. With settle, it is gone.
func (l *ledger) missed(s *sent, after string, settle bool) {
	if settle {
		l.lose(s)
	}
	switch {
	case s.doubtful:
		l.note("%s log %d: entry %d is gone: its sync had failed", l.name, l.index, s.seq)
	case l.unbounded:
		l.note("%s log %d: entry %d is gone: a write went to the wrong place", l.name, l.index, s.seq)
	case l.rots > 0:
		l.note("%s log %d: entry %d is gone: its sector rotted", l.name, l.index, s.seq)
		if settle {
			l.rots--
		}
	default:
		l.find("%s log %d: after %s entry %d is gone, synced %t", l.name, l.index, after, s.seq, s.synced)
	}
}

func (l *ledger) lose(s *sent) {
	if !s.gone {
		s.gone = true
		if l.lost != nil {
			l.lost(s)
		}
	}
}

// unsynced is how many records of each log a loss of power costs now, as they say.
func (b *books) unsynced(logs []journal.Log) (n []uint64) {
	for _, l := range logs {
		m, _ := l.Bounds(context.Background())
		n = append(n, m.UnsyncedRecords+m.UncertainRecords)
	}
	return n
}

// uncertain is how many records of each log a kill may cost: where a sync failed, the
// kernel may have dropped what was written. nil: none.
func (b *books) uncertain(logs []journal.Log) (n []uint64) {
	failed := false
	for i, l := range logs {
		m, _ := l.Bounds(context.Background())
		n = append(n, m.UncertainRecords)
		if m.UncertainRecords > 0 {
			failed = true
			b.logs[i].doubt()
		}
	}
	if !failed {
		return nil
	}
	return n
}

// doubt notes that a sync of what is not synced failed.
func (l *ledger) doubt() {
	for _, s := range l.entries {
		s.doubtful = s.doubtful || !s.synced && !s.gone
	}
}

// doubtAll notes that what a former process left could not be synced. What of it can
// still be read is written again; the kernel may have forgotten the rest.
func (b *books) doubtAll() {
	for _, l := range b.logs {
		l.doubt()
	}
}

// expected is what has to be in a log at some moment.
type expected struct {
	entries []*sent // kept
	synced  map[*sent]bool
}

func (l *ledger) expected() expected {
	x := expected{synced: map[*sent]bool{}}
	for _, s := range l.entries {
		if s.kept && !s.gone && !s.trimmed {
			x.entries = append(x.entries, s)
			x.synced[s] = s.synced
		}
	}
	return x
}

// inspect reads a disk that nobody uses, or a copy of one. allowed is how many records
// of each log may be missing, of those that were not synced; nil: none. With settle,
// what is missing there is gone.
func (b *books) inspect(d *faulty.Disk, after string, allowed []uint64, settle bool) {
	var want []expected
	for _, l := range b.logs {
		want = append(want, l.expected())
	}
	b.watch(d, "copy: ")
	p := d.Start()
	engine, err := b.open(p)
	if err != nil {
		b.find("after %s the directory does not open: %v", after, err)
		return
	}
	for i, l := range b.logs {
		log, err := engine.Open(context.Background(), l.index, journal.Limits{})
		if err != nil {
			b.find("after %s log %d does not open: %v", after, l.index, err)
			continue
		}
		there, ok := l.readAll(log, after, settle)
		switch {
		case !ok:
		case allowed == nil:
			l.compare(want[i], there, after, settle)
		case i < len(allowed):
			l.compareLoss(want[i], there, after, allowed[i], settle)
		default:
			l.compareLoss(want[i], there, after, 0, settle)
		}
	}
	p.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = engine.Close(ctx)
}

// readAll reads a log from its beginning to its end.
func (l *ledger) readAll(log journal.Log, after string, settle bool) (there map[*sent]bool, ok bool) {
	c, err := log.Read(context.Background(), 0)
	if err != nil {
		l.find("after %s %s log %d can't be read: %v", after, l.name, l.index, err)
		return nil, false
	}
	defer c.Close()
	there = map[*sent]bool{}
	next, at := 0, uint64(0)
	for {
		e, err := c.Next(context.Background())
		if errors.Is(err, journal.ErrEnd) {
			break
		}
		if err != nil {
			l.find("after %s %s log %d can't be read: %v", after, l.name, l.index, err)
			return nil, false
		}
		if e.Seq <= at {
			l.find("after %s %s log %d: entry %d was read behind %d", after, l.name, l.index, e.Seq, at)
		}
		at = e.Seq
		if l.loud {
			fmt.Fprintf(os.Stderr, "%s log %d has %s/%d total %d\n", l.name, l.index, e.Timeline, e.Seq, e.Total)
		}
		if i := l.known(next, &e); i >= 0 {
			s := l.entries[i]
			there[s] = true
			if settle && !s.kept {
				s.kept, s.seq, s.timeline = true, e.Seq, e.Timeline
				s.doubtful = true // nobody was told that it is kept
				if l.adopted != nil {
					l.adopted(s)
				}
			}
			next = i + 1
		}
		if e.Memory != nil {
			e.Memory.Release()
		}
	}
	if settle {
		for _, s := range l.entries {
			s.gone = s.gone || !s.kept // never was
		}
	}
	return there, true
}

// compare is for a log that must have lost nothing.
func (l *ledger) compare(want expected, there map[*sent]bool, after string, settle bool) {
	for _, s := range want.entries {
		if !there[s] && !s.gone {
			l.missed(s, after, settle)
		}
	}
}

// compareLoss is for a log that may have lost what was not synced: so many records.
func (l *ledger) compareLoss(want expected, there map[*sent]bool, after string, may uint64, settle bool) {
	lost := uint64(0)
	for _, s := range want.entries {
		switch {
		case there[s]:
			s.synced = s.synced || settle
		case want.synced[s] || s.doubtful:
			l.missed(s, after, settle)
		default:
			lost += uint64(s.records)
			if settle {
				l.lose(s)
			}
		}
	}
	if lost > 0 {
		l.note("%s log %d: after %s %d records are gone, %d were allowed", l.name, l.index, after, lost, may)
	}
	if lost > may && l.rots == 0 && !l.unbounded {
		l.find("%s log %d: after %s %d records are gone, and it had said that it would be %d at the most", l.name, l.index, after, lost, may)
	}
}

// mend ends all trouble of the disk.
func (b *books) mend() {
	b.disk.Heal()
	b.disk.SetSize(diskSize, 0)
}
