//go:build simulation

package simulate

import (
	"context"
	"fmt"
	"hash"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/disk/faulty"
)

// world is what one run happens in. One goroutine runs at a time, and is not
// interrupted before it waits (see doc.go): nothing here has locks.
type world struct {
	t    *testing.T
	seed uint64
	rand *rand.Rand
	disk *faulty.Disk

	began    time.Time
	hash     hash.Hash64
	loud     bool // it is printed at once
	findings []string
	calls    uint64
	ports    uint16
	step     time.Duration // of the clock
	ended    time.Duration
	names    map[string]*sent // timeline and number of each entry
	mended   bool             // nothing goes wrong any more
	doomed   int              // calls of the disk until doom
	doom     func()           // is called then
	over     chan struct{}    // closed when the run is over
}

// mostFindings bounds what a run tells: the first one counts.
const mostFindings = 10

func newWorld(t *testing.T, seed uint64, loud bool) *world {
	w := &world{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), disk: faulty.New(seed), began: time.Now(), hash: fnv.New64a(), loud: loud, ports: 20000, over: make(chan struct{}), names: map[string]*sent{}}
	return w
}

// slow has the calls of a disk take some time.
func (w *world) slow(d *faulty.Disk) {
	d.SetLatency(func(op faulty.Op) time.Duration {
		if op&(faulty.Sync|faulty.SyncDir) != 0 {
			return w.latency(time.Millisecond)
		}
		return w.latency(20 * time.Microsecond)
	})
}

// watch looks at the calls of a disk.
func (w *world) watch(d *faulty.Disk, name string) {
	d.Watch(func(c faulty.Call) {
		if w.loud {
			fmt.Fprintf(os.Stderr, "%12s     %s%s %s %d+%d\n", w.now(), name, c.Op, c.Path, c.Off, c.Len)
		}
		if d == w.disk && w.doomed > 0 {
			if w.doomed--; w.doomed == 0 {
				w.doom()
			}
		}
	})
}

// now is how long the run has gone on, whatever the clock says.
func (w *world) now() time.Duration { return time.Since(w.began) }

// latency is about d, and another one for each call.
func (w *world) latency(d time.Duration) time.Duration {
	w.calls++
	return d/2 + rand.N(d) + time.Duration(w.calls%1000)
}

// note adds a line to the story of the run.
func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf("%12s %s", w.now(), fmt.Sprintf(format, args...))
	fmt.Fprintln(w.hash, line)
	if w.loud {
		fmt.Fprintln(os.Stderr, line)
	}
}

// find notes that something is wrong.
func (w *world) find(format string, args ...any) {
	if len(w.findings) < mostFindings {
		w.findings = append(w.findings, fmt.Sprintf(format, args...))
	}
	w.note("FINDING "+format, args...)
}

// chance is true once in n times.
func (w *world) chance(n int) bool { return w.rand.IntN(n) == 0 }

// between is a duration, at random.
func (w *world) between(lo, hi time.Duration) time.Duration { return lo + rand.N(hi-lo) }

// after does something later.
func (w *world) after(d time.Duration, f func()) {
	go func() {
		select {
		case <-time.After(d):
			f()
		case <-w.over:
		}
	}()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stepClock moves the clock of the machine, as NTP or an operator does.
func (w *world) stepClock(d time.Duration) {
	w.step += d
	setClockStep(int64(w.step))
	w.note("clock steps by %s", d)
}

// logger has the log lines of the program in the story.
func (w *world) logger(who string) *slog.Logger {
	return slog.New(&lines{w: w, who: who})
}

// lines is a slog.Handler.
type lines struct {
	w     *world
	who   string
	attrs string
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	l.w.note("%s %s %s%s%s", l.who, r.Level, r.Message, l.attrs, b.String())
	return nil
}

func (l *lines) WithAttrs(as []slog.Attr) slog.Handler {
	c := *l
	for _, a := range as {
		c.attrs += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return &c
}

func (l *lines) WithGroup(string) slog.Handler { return l }

func (w *world) run() {
	if w.seed%4 == 0 {
		w.runLog()
	} else {
		w.runWhole()
	}
	w.ended = w.now()
	// What is still on its way comes to its end.
	close(w.over)
	w.disk.Heal()
	time.Sleep(10 * time.Minute)
}

// identify is the number of the message that a text is, and whether the database's
// trigger refuses it; 0: it is none of ours.
func identify(text string) (id int, poison bool) {
	_, rest, found := strings.Cut(text, numberHeader)
	if !found {
		return 0, false
	}
	number, rest, _ := strings.Cut(rest, "\r\n")
	id, err := strconv.Atoi(number)
	if err != nil {
		return 0, false
	}
	return id, strings.HasPrefix(rest, "X-Poison")
}
