package loop

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// originSize is the size of an origin: the number of a stream, and of a packet in
// it, 8 bytes each, big endian.
const originSize = 16

// AppendOrigin appends the origin of a packet. Numbers grow within a stream, not
// always by one; a packet that is sent again has the number that it had.
func AppendOrigin(dst []byte, stream, number uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, stream), number)
}

// Stream is the number of the stream of what is sent to a sink of one timeline of a
// spool, whose name there is only once; never 0. A copy of the spool that sends the
// same entries again gives them the same numbers.
func Stream(sink, timeline string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s", sink, timeline)
	return max(h.Sum64(), 1)
}

const (
	// maxStreams bounds the streams that are known; maxSpans the runs of numbers
	// that are told apart in each. What lies before these counts as received.
	maxStreams = 256
	maxSpans   = 1 << 13
)

// Streams knows which packets of each stream were received. Safe for concurrent
// use.
type Streams struct {
	mu      sync.Mutex // covers what follows
	list    map[uint64]*received
	clock   uint64 // counts uses
	changed bool
}

// received are the numbers of one stream that were received: all up to floor, and
// spans, in order and apart from each other.
type received struct {
	floor uint64
	spans []span
	used  uint64
}

type span struct{ from, to uint64 } // both included

// NewStreams knows no streams.
func NewStreams() *Streams { return &Streams{list: map[uint64]*received{}} }

// Repeated notes that the packet with an origin is received, and reports whether
// it was before. What is no origin, or none at all, is never a repetition.
func (s *Streams) Repeated(origin []byte) bool {
	if len(origin) != originSize {
		return false
	}
	stream, n := binary.BigEndian.Uint64(origin), binary.BigEndian.Uint64(origin[8:])
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.list[stream]
	if r == nil {
		if len(s.list) >= maxStreams {
			s.forget()
		}
		r = &received{}
		s.list[stream] = r
	}
	s.clock++
	r.used = s.clock
	if !r.add(n) {
		return true
	}
	s.changed = true
	return false
}

// Refused takes back that the packet with an origin was received: the spool did
// not take it, and it may come again.
func (s *Streams) Refused(origin []byte) {
	if len(origin) != originSize {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.list[binary.BigEndian.Uint64(origin)]; r != nil {
		r.remove(binary.BigEndian.Uint64(origin[8:]))
		s.changed = true
	}
}

// forget drops the stream that was used longest ago.
func (s *Streams) forget() {
	var oldest uint64
	first := true
	for id, r := range s.list {
		if first || r.used < s.list[oldest].used {
			oldest, first = id, false
		}
	}
	delete(s.list, oldest)
}

// at is the first span that does not end before n.
func (r *received) at(n uint64) int {
	if last := len(r.spans) - 1; last >= 0 && r.spans[last].to < n {
		return last + 1 // the usual case
	}
	i, _ := slices.BinarySearchFunc(r.spans, n, func(s span, n uint64) int { return cmp.Compare(s.to, n) })
	return i
}

// add reports whether n is new.
func (r *received) add(n uint64) bool {
	i := r.at(n)
	if n <= r.floor || i < len(r.spans) && r.spans[i].from <= n {
		return false
	}
	joinsBefore := i > 0 && r.spans[i-1].to == n-1
	joinsAfter := i < len(r.spans) && r.spans[i].from == n+1
	switch {
	case joinsBefore && joinsAfter:
		r.spans[i-1].to = r.spans[i].to
		r.spans = slices.Delete(r.spans, i, i+1)
	case joinsBefore:
		r.spans[i-1].to = n
	case joinsAfter:
		r.spans[i].from = n
	default:
		r.spans = slices.Insert(r.spans, i, span{n, n})
	}
	if len(r.spans) > maxSpans {
		r.floor = r.spans[maxSpans/2-1].to
		r.spans = slices.Delete(r.spans, 0, maxSpans/2)
	}
	return true
}

func (r *received) remove(n uint64) {
	i := r.at(n)
	if i == len(r.spans) || r.spans[i].from > n {
		return
	}
	switch s := &r.spans[i]; {
	case s.from == s.to:
		r.spans = slices.Delete(r.spans, i, i+1)
	case s.from == n:
		s.from++
	case s.to == n:
		s.to--
	default:
		after := span{n + 1, s.to}
		s.to = n - 1
		r.spans = slices.Insert(r.spans, i+1, after)
	}
}

// The file of Streams: magic; of each stream its number, the floor, the number of
// spans and these; CRC-32C. Numbers have 8 bytes, big endian.
const streamsMagic = "siptraced received 1\n"

// snapshot is the content of the file, nil if nothing changed since the last one.
func (s *Streams) snapshot() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changed {
		return nil
	}
	s.changed = false
	out := []byte(streamsMagic)
	for id, r := range s.list {
		out = binary.BigEndian.AppendUint64(out, id)
		out = binary.BigEndian.AppendUint64(out, r.floor)
		out = binary.BigEndian.AppendUint64(out, uint64(len(r.spans)))
		for _, sp := range r.spans {
			out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(out, sp.from), sp.to)
		}
	}
	return out
}

// Load reads a file of Keep. A missing file is an empty one.
func (s *Streams) Load(file string) error {
	b, err := readFile(file, streamsMagic)
	if err != nil {
		return err
	}
	list := map[uint64]*received{}
	number := func() (n uint64) {
		if len(b) < 8 {
			b, err = nil, errFile
			return 0
		}
		n, b = binary.BigEndian.Uint64(b), b[8:]
		return n
	}
	for len(b) > 0 {
		id := number()
		r := &received{floor: number()}
		for n := min(number(), uint64(len(b)/16)); n > 0; n-- {
			r.spans = append(r.spans, span{number(), number()})
		}
		list[id] = r
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
	return nil
}

// Spool is what has to be safe before a packet is written down as received.
type Spool interface {
	Mark() uint64
	Sync(ctx context.Context, mark uint64) error
}

const keepInterval = time.Second

// Keep writes down every second what was received and is safe in the spool, until
// ctx ends.
func (s *Streams) Keep(ctx context.Context, sp Spool, file string, log *slog.Logger) {
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	said := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.Save(ctx, sp, file); err != nil && ctx.Err() == nil && !said {
			said = true
			log.Warn("loop: what was received is not written down: after a crash, what is sent again may be stored twice", "file", file, "err", err)
		}
	}
}

// Save does that once, if anything changed. What the spool is still at work on,
// or refused meanwhile, is left to the next time. An error is one of the file.
func (s *Streams) Save(ctx context.Context, sp Spool, file string) error {
	mark := sp.Mark()
	b := s.snapshot()
	if b == nil {
		return nil
	}
	var err error
	if sp.Sync(ctx, mark) == nil {
		if err = writeFile(file, b); err == nil {
			return nil
		}
	}
	s.mu.Lock()
	s.changed = true
	s.mu.Unlock()
	return err
}
