package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/tests/servers"
)

var natsServer string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "siptraced-bin-")
	if err == nil {
		defer os.RemoveAll(dir)
		natsServer, err = servers.BuildNATS(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// cluster is three servers; a client is told of no other than it has the address of.
func cluster(t *testing.T, more servers.NATSOptions) []*servers.NATS {
	t.Helper()
	more.Cluster = "no_advertise: true"
	return servers.StartNATSCluster(t, natsServer, 3, more)
}

// soon bounds what takes no time but that of slow machines.
const soon = time.Minute

func within1(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	t.Cleanup(cancel)
	return ctx
}

// said is what an engine logs.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

func (s *said) log() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// connect opens an engine, as a process of its own has.
func connect(t *testing.T, url string) (*Engine, *said) {
	t.Helper()
	out := &said{}
	e, err := Open(within1(t), Config{URL: url, Replicas: 3}, out.log())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = e.Close(ctx)
		if t.Failed() {
			t.Log(out.text.String())
		}
	})
	return e, out
}

func shard(t *testing.T, e *Engine, i int, limits journal.Limits) *Log {
	t.Helper()
	l, err := e.Open(within1(t), i, limits)
	if err != nil {
		t.Fatal(err)
	}
	return l.(*Log)
}

// entries are batches of one record each, the texts.
func entries(total uint64, texts ...string) (out []*journal.Entry) {
	for i, text := range texts {
		out = append(out, &journal.Entry{Records: 1, Total: total + uint64(i) + 1, Taken: time.Now(), Data: []byte(text)})
	}
	return out
}

func texts(prefix string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("%s%d", prefix, i))
	}
	return out
}

// appendAll puts entries in, as the spool does: it tries again while the cluster elects
// a leader.
func appendAll(t *testing.T, l *Log, list []*journal.Entry) {
	t.Helper()
	n, err := 0, error(nil)
	for deadline := time.Now().Add(soon); n < len(list); time.Sleep(100 * time.Millisecond) {
		m := 0
		m, err = l.Append(within1(t), list[n:])
		if n += m; n == len(list) {
			return
		}
		if time.Now().After(deadline) || errors.Is(err, journal.ErrFull) || errors.Is(err, journal.ErrTooLarge) {
			t.Fatalf("Append: %d of %d, %v", n, len(list), err)
		}
	}
}

// all reads what is in the stream behind a number.
func all(t *testing.T, l *Log, after uint64) (out []journal.Entry) {
	t.Helper()
	b, err := l.Bounds(within1(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Read(within1(t), after)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for last := after; b.First <= b.Last && last < b.Last; {
		e, err := c.Next(within1(t))
		if err != nil {
			t.Fatalf("behind %d of %d: %v", last, b.Last, err)
		}
		out, last = append(out, e), e.Seq
	}
	return out
}

// trim gives up all up to a number.
func trim(t *testing.T, l *Log, upTo uint64) {
	t.Helper()
	servers.WaitFor(t, soon, "a trim", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := l.Trim(ctx, upTo)
		b, err2 := l.Bounds(ctx)
		return err == nil && err2 == nil && b.First > upTo
	})
}

func data(list []journal.Entry) (out []string) {
	for _, e := range list {
		out = append(out, string(e.Data))
	}
	return out
}

// shortly bounds what can't succeed.
func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}
