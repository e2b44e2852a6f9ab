package durable

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// sender mirrors messages over TCP at a steady rate and knows which of them
// siptraced accepted: behind every few messages it writes a HEP3 keep-alive,
// which comes back once everything before it on the connection is in the spool.
// When the connection ends it opens another one and sends everything behind the
// last acknowledged mark again, as a new attempt.
type sender struct {
	*traffic
	targets []string      // addresses, one tried after the other
	every   int           // messages from one mark to the next
	pause   time.Duration // before a connection is tried again

	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex    // covers what follows
	rate     int           // messages per second
	patience time.Duration // how long a mark may go without its answer
	limit    int           // numbers from here on are not sent
	attempt  int           // of the present connection
	sent     int           // numbers below were sent at least once
	accepted []uint16      // attempts that were acknowledged, by number
	trips    []trip
	skipped  int // marks whose answer never came although a later one's did
	// impatient are the attempts that the sender ended itself: siptraced may read
	// what it has of them beside the next one.
	impatient map[int]bool
	writes    int // messages written, over all attempts
}

// trip is how long the answer to a mark took.
type trip struct {
	at   time.Time
	took time.Duration
}

// mark is a keep-alive that waits for its answer.
type mark struct {
	id   uint32
	upto int // it stands behind the messages below this number
	at   time.Time
}

// keepAlive makes a HEP3 packet without payload: chunk 13 is the keep-alive
// timer, chunk 12 (the capture id) tells marks from each other.
func keepAlive(id uint32) []byte {
	p := []byte("HEP3\x00\x00" +
		"\x00\x00\x00\x01\x00\x07\x02" +
		"\x00\x00\x00\x02\x00\x07\x06" +
		"\x00\x00\x00\x0b\x00\x07\x01" +
		"\x00\x00\x00\x0c\x00\x0a\x00\x00\x00\x00" +
		"\x00\x00\x00\x0d\x00\x08\x00\x0a")
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	binary.BigEndian.PutUint32(p[6+3*7+6:], id)
	return p
}

// keepAliveID is the inverse; ok is false for anything else.
func keepAliveID(p []byte) (id uint32, ok bool) {
	if len(p) < 6+3*7+10 {
		return 0, false
	}
	id = binary.BigEndian.Uint32(p[6+3*7+6:])
	return id, bytes.Equal(p, keepAlive(id))
}

// send starts a sender; it ends with the test.
func send(tb testing.TB, number, rate int, targets ...string) *sender {
	tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s := &sender{
		traffic: newTraffic(tb, number), targets: targets, rate: rate, every: max(1, rate/50),
		patience: 30 * time.Second, pause: 20 * time.Millisecond, impatient: map[int]bool{},
		limit: 1 << 40, stop: stop, done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		s.run(ctx)
	}()
	tb.Cleanup(func() {
		stop()
		<-s.done
	})
	return s
}

func (s *sender) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil && !s.complete(); i++ {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", s.targets[i%len(s.targets)])
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(s.pause):
			}
			continue
		}
		s.session(ctx, c)
	}
}

// complete reports whether everything up to the limit is acknowledged.
func (s *sender) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted) >= s.limit
}

// session sends over one connection until it ends.
func (s *sender) session(ctx context.Context, c net.Conn) {
	s.mu.Lock()
	s.attempt++
	next := len(s.accepted)
	s.mu.Unlock()
	marks := make(chan mark, 1<<16)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.receive(c, marks)
	}()
	s.transmit(ctx, c, next, marks, ended)
	_ = c.Close()
	<-ended
}

// transmit writes messages and marks until the connection ends.
func (s *sender) transmit(ctx context.Context, c net.Conn, next int, marks chan<- mark, ended <-chan struct{}) {
	const beat = 4 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	var buf []byte
	id, unmarked, last, credit := uint32(0), 0, time.Now(), 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		rate, limit, attempt, patience := s.rate, s.limit, s.attempt, s.patience
		s.mu.Unlock()
		now := time.Now()
		// What a slow reader held up is not made up for all at once.
		credit = min(credit+now.Sub(last).Seconds()*float64(rate), float64(rate)/4+1)
		last = now
		buf = buf[:0]
		first := next
		var due []mark
		for ; credit >= 1 && next < limit; credit-- {
			buf = s.append(buf, next, attempt, now)
			next++
			if unmarked++; unmarked >= s.every {
				id, unmarked = id+1, 0
				due = append(due, mark{id, next, now})
				buf = append(buf, keepAlive(id)...)
			}
		}
		if next == limit && s.complete() {
			return
		}
		if next == limit && (unmarked > 0 || id == 0) {
			id, unmarked = id+1, 0
			due = append(due, mark{id, next, now})
			buf = append(buf, keepAlive(id)...)
		}
		if len(buf) == 0 {
			continue
		}
		for _, m := range due {
			marks <- m
		}
		_ = c.SetWriteDeadline(now.Add(patience))
		// What was written in part counts as sent: it may have come whole.
		s.mu.Lock()
		s.sent, s.writes = max(s.sent, next), s.writes+next-first
		s.mu.Unlock()
		if _, err := c.Write(buf); err != nil {
			s.ended(err)
			return
		}
	}
}

// ended notes whether it was the sender's patience that ended the attempt.
func (s *sender) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.impatient[s.attempt] = true
	}
}

// receive reads answers until there is none for too long.
func (s *sender) receive(c net.Conn, marks <-chan mark) {
	p := keepAlive(0)
	for {
		s.mu.Lock()
		patience := s.patience
		s.mu.Unlock()
		// There are marks all the time; only at the end there is none.
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, p); err != nil {
			s.ended(err)
			return
		}
		id, ok := keepAliveID(p)
		if !ok {
			return
		}
		if !s.answered(id, marks) {
			return
		}
	}
}

// answered takes an answer; it is false for one that nobody asked for.
func (s *sender) answered(id uint32, marks <-chan mark) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		select {
		case m := <-marks:
			if m.id != id {
				s.skipped++
				continue
			}
			for len(s.accepted) < m.upto {
				s.accepted = append(s.accepted, uint16(s.attempt))
			}
			s.trips = append(s.trips, trip{m.at, time.Since(m.at)})
			return true
		default:
			return false
		}
	}
}

// setRate changes the messages per second.
func (s *sender) setRate(rate int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate = rate
}

// upTo has the sender end with that many messages.
func (s *sender) upTo(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = n
}

// progress is how many messages are acknowledged, and how many attempts it took.
func (s *sender) progress() (accepted, attempts int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted), s.attempt
}

// finish sends nothing new, and waits until everything sent is acknowledged.
func (s *sender) finish(tb testing.TB, timeout time.Duration) {
	tb.Helper()
	s.mu.Lock()
	s.limit = s.sent
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(timeout):
		s.stop()
		<-s.done
		tb.Errorf("sender %d: %d of %d messages acknowledged, the rest not within %v", s.sender, len(s.accepted), s.limit, timeout)
	}
}

// median is the middle of the times that marks took between two moments, and p99
// what one in a hundred exceeded; n is how many there were.
func (s *sender) median(from, to time.Time) (median, p99 time.Duration, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []time.Duration
	for _, t := range s.trips {
		if !t.at.Before(from) && t.at.Before(to) {
			list = append(list, t.took)
		}
	}
	if len(list) == 0 {
		return 0, 0, 0
	}
	slices.Sort(list)
	return list[len(list)/2], list[len(list)*99/100], len(list)
}
