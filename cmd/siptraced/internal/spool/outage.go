package spool

import (
	"strings"
	"sync"
	"time"
)

const (
	// logInterval is how often one failure is logged.
	logInterval = time.Minute
	// mostCauses is how many different failures of one outage are told apart.
	mostCauses = 10
)

// outage is what the log says of a sink that fails, for all its workers together.
// The zero value is ready.
type outage struct {
	mu      sync.Mutex // covers what follows
	failing map[*worker]struct{}
	since   time.Time
	retries int
	logged  map[string]time.Time // when each failure was logged
}

// failed notes a failure of a worker. due says that it is to be logged; retries is
// how many there were since the sink failed first.
func (o *outage) failed(w *worker, text string, now time.Time) (retries int, since time.Time, due bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.failing) == 0 {
		o.failing, o.since, o.retries, o.logged = map[*worker]struct{}{}, now, 0, map[string]time.Time{}
	}
	o.failing[w] = struct{}{}
	o.retries++
	cause := withoutNumbers(text)
	at, known := o.logged[cause]
	if known && now.Sub(at) < logInterval || !known && len(o.logged) >= mostCauses {
		return o.retries, o.since, false
	}
	o.logged[cause] = now
	return o.retries, o.since, true
}

// over notes that a worker works. told says that none fails any more, and that the
// log has had a line of the outage.
func (o *outage) over(w *worker) (retries int, told bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.failing[w]; !ok {
		return 0, false
	}
	delete(o.failing, w)
	if len(o.failing) > 0 || len(o.logged) == 0 {
		return 0, false
	}
	clear(o.logged)
	return o.retries, true
}

// withoutNumbers makes the texts of one failure equal: ports and addresses change
// from one attempt to the next.
func withoutNumbers(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
}
