package simulate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// result is how a seed ended.
type result struct {
	seed    uint64
	hash    string
	finding string // "": none
}

// span is a run of seeds.
type span struct{ first, last uint64 }

const (
	// perProcess is how many seeds one process runs.
	perProcess = 50
	// silence is how long a seed may take, on a machine that has other things to do.
	silence = 3 * time.Minute
)

// simulation is the built program.
type simulation struct {
	binary string
	env    []string
}

// run runs seeds in as many processes as there are processors, and gives f each result;
// f returns false to have no more.
func (s *simulation) run(t *testing.T, all span, f func(result) bool) {
	t.Helper()
	work := make(chan span)
	results := make(chan result)
	stop := make(chan struct{})
	go func() {
		defer close(work)
		for at := all.first; at <= all.last; at += perProcess {
			select {
			case work <- span{at, min(at+perProcess-1, all.last)}:
			case <-stop:
				return
			}
		}
	}()
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for part := range work {
				s.part(part, func(r result) bool {
					select {
					case results <- r:
						return true
					case <-stop:
						return false
					}
				})
			}
		})
	}
	go func() {
		workers.Wait()
		close(results)
	}()
	wanted := true
	for r := range results {
		if wanted && !f(r) {
			wanted = false
			close(stop)
		}
	}
	if wanted {
		close(stop)
	}
}

// part runs some seeds, in another process behind each one that breaks.
func (s *simulation) part(part span, f func(result) bool) {
	for part.first <= part.last {
		next, broken, wanted := s.process(part, f)
		if !wanted {
			return
		}
		if broken != nil {
			if !f(result{seed: next, finding: broken.Error()}) {
				return
			}
			next++
		}
		part.first = next
	}
}

// process runs seeds in one process. next is the first one that did not end; broken
// says why it did not.
func (s *simulation) process(part span, f func(result) bool) (next uint64, broken error, wanted bool) {
	cmd := s.command(part)
	var complaint tail
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return part.first, err, true
	}
	next, wanted = part.first, true
	hung := false
	watch := time.AfterFunc(silence, func() {
		hung = true
		_ = cmd.Process.Kill()
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		r, over := parse(lines.Text())
		if !over {
			complaint.add(lines.Text())
			continue
		}
		watch.Reset(silence)
		next = r.seed + 1
		if wanted && !f(r) {
			wanted = false
			_ = cmd.Process.Kill()
		}
	}
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	watch.Stop()
	switch {
	case !wanted:
		return next, nil, false
	case hung:
		return next, fmt.Errorf("it hangs: no end within %s", silence), true
	case err != nil && next <= part.last:
		return next, fmt.Errorf("%w: %s", err, complaint.String()), true
	case next <= part.last:
		return next, errors.New("it ends before its time"), true
	}
	return next, nil, true
}

func (s *simulation) command(part span) *exec.Cmd {
	cmd := exec.Command(s.binary, "-test.run", "^TestSeeds$", "-test.timeout", "0")
	cmd.Env = append(append(os.Environ(), s.env...), fmt.Sprintf("SIPTEST_SEEDS=%d-%d", part.first, part.last))
	return cmd
}

// parse reads a line "end SEED HASH SECONDS FINDING".
func parse(line string) (r result, over bool) {
	f := strings.SplitN(line, " ", 5)
	if len(f) < 5 || f[0] != "end" {
		return r, false
	}
	seed, err := strconv.ParseUint(f[1], 10, 64)
	return result{seed: seed, hash: f[2], finding: f[4]}, err == nil
}

// tail keeps what tells why a process ended.
type tail struct {
	mu   sync.Mutex // covers text
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) < 4<<10 { // a panic says first what matters
		t.text = append(t.text, b...)
	}
	return len(b), nil
}

func (t *tail) add(line string) { _, _ = t.Write([]byte(line + "\n")) }

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(string(t.text), "\n", " / ")
}
