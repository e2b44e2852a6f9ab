package ingest

import (
	"testing"
	"time"
)

func TestRhythm(t *testing.T) {
	const buffer = 16 << 20
	for _, tt := range []struct {
		name   string
		count  int // datagrams
		size   int // of each
		since  time.Duration
		buffer int
		want   time.Duration
	}{
		{"none", 0, 0, time.Second, buffer, 0},
		{"one now and then", 1, 1000, 10 * time.Millisecond, buffer, 0},
		{"fewer than it is worth", 3, 1000, time.Millisecond, buffer, 0},
		{"thick", 10, 1000, 500 * time.Microsecond, buffer, longestPause},
		{"thick, after a pause", 40, 1000, longestPause, buffer, longestPause},
		{"thicker than the buffer", 40, 1000, time.Millisecond, 416 << 10, 481 * time.Microsecond},
		{"a buffer that holds next to none", 40, 1000, time.Millisecond, 32 << 10, 0},
		{"large ones", 10, 60_000, 500 * time.Microsecond, 1 << 20, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			r := rhythm{emptied: now.Add(-tt.since)}
			for range tt.count {
				r.add(tt.size)
			}
			if got := r.pause(now, tt.buffer).Round(time.Microsecond); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if again := r.pause(now.Add(time.Second), tt.buffer); again != 0 {
				t.Errorf("and without datagrams: %v", again)
			}
		})
	}
}
