package serve

import (
	"maps"
	"sync"
	"time"
)

// maxPeers bounds what a rate limiter remembers.
const maxPeers = 4096

// rateLimiter lets each peer make so many requests a second, and as many at
// once as come in one second. It is the generic cell rate algorithm: per peer one
// point in time, by which all that it was allowed would be over at an even pace.
type rateLimiter struct {
	every time.Duration // between requests; 0 = no limit
	mu    sync.Mutex    // covers what follows
	due   map[string]time.Time
	swept time.Time
}

func newRateLimiter(perSecond int) *rateLimiter {
	l := &rateLimiter{due: make(map[string]time.Time)}
	if perSecond > 0 {
		l.every = time.Second / time.Duration(perSecond)
	}
	return l
}

// take counts a request and returns for how long the peer is ahead of its rate,
// 0 if it is not. A caller that drops the request says so, and it isn't counted.
func (l *rateLimiter) take(peer string, now time.Time, drop bool) time.Duration {
	if l.every == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.due[peer]; !known && len(l.due) >= maxPeers {
		if now.Sub(l.swept) > time.Second {
			l.swept = now
			maps.DeleteFunc(l.due, func(_ string, due time.Time) bool { return due.Before(now) })
		}
		if len(l.due) >= maxPeers {
			peer = "" // all that are too many are one
		}
	}
	due := l.due[peer]
	if due.Before(now) {
		due = now
	}
	wait := due.Sub(now) - time.Second
	if wait > 0 && drop {
		return wait
	}
	l.due[peer] = due.Add(l.every)
	return max(wait, 0)
}
