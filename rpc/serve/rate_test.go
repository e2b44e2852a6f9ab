package serve

import (
	"strconv"
	"testing"
	"time"
)

func TestRateLimiter(t *testing.T) {
	l := newRateLimiter(10)
	now := time.Now()
	for i := range 11 { // a second's worth, and the first
		if d := l.take("a", now, true); d != 0 {
			t.Errorf("request %d: wait %v", i, d)
		}
	}
	for _, tc := range []struct {
		after time.Duration
		drop  bool
		want  time.Duration
	}{
		{0, true, 100 * time.Millisecond},
		{0, true, 100 * time.Millisecond}, // the dropped one did not count
		{50 * time.Millisecond, true, 50 * time.Millisecond},
		{0, false, 100 * time.Millisecond},
		{0, false, 200 * time.Millisecond}, // this one waits behind the other
		{10 * time.Second, true, 0},
	} {
		if got := l.take("a", now.Add(tc.after), tc.drop); got != tc.want {
			t.Errorf("after %v: wait %v, want %v", tc.after, got, tc.want)
		}
	}
	if d := l.take("b", now, true); d != 0 {
		t.Errorf("another peer waits %v", d)
	}
	if d := newRateLimiter(-1).take("a", now, true); d != 0 {
		t.Errorf("without a limit: wait %v", d)
	}
}

func TestRateLimiterForgets(t *testing.T) {
	l := newRateLimiter(1)
	now := time.Now()
	for i := range 3 * maxPeers {
		l.take(strconv.Itoa(i), now, true)
	}
	if len(l.due) > maxPeers+1 {
		t.Errorf("remembers %d peers, want %d", len(l.due), maxPeers)
	}
	if d := l.take("one more", now, true); d == 0 {
		t.Error("those beyond share no rate")
	}
	l.take("later", now.Add(time.Hour), true)
	if len(l.due) > 2 {
		t.Errorf("remembers %d peers after an hour", len(l.due))
	}
}
