package cluster

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
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

func appendAll(t *testing.T, l *Log, list []*journal.Entry) {
	t.Helper()
	if n, err := l.Append(within1(t), list); n != len(list) || err != nil {
		t.Fatalf("Append = %d, %v, want %d", n, err, len(list))
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

func data(list []journal.Entry) (out []string) {
	for _, e := range list {
		out = append(out, string(e.Data))
	}
	return out
}

// wire is a connection to a server that can be cut, held up or made deaf.
type wire struct {
	addr string

	mu    sync.Mutex
	cond  *sync.Cond
	conns []net.Conn
	// Of each direction: hold keeps the bytes, lose throws them away.
	holdUp, loseDown bool
	closed           bool // takes no connections
}

func newWire(t *testing.T, port int) *wire {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String()}
	w.cond = sync.NewCond(&w.mu)
	t.Cleanup(func() {
		_ = l.Close()
		w.set(func() { w.holdUp = false })
		w.cut()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			closed := w.closed
			w.mu.Unlock()
			s, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil || closed {
				_ = c.Close()
				if err == nil {
					_ = s.Close()
				}
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, c, s)
			w.mu.Unlock()
			go w.pass(s, c, func() bool { return false }, &w.holdUp)
			go w.pass(c, s, func() bool { return w.loseDown }, nil)
		}
	}()
	return w
}

// pass carries bytes from one side to the other.
func (w *wire) pass(to, from net.Conn, lose func() bool, hold *bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			_ = to.Close()
			return
		}
		w.mu.Lock()
		for hold != nil && *hold {
			w.cond.Wait()
		}
		drop := lose()
		w.mu.Unlock()
		if drop {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			_ = from.Close()
			return
		}
	}
}

func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.cond.Broadcast()
}

// cut ends the connections of this moment.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}
