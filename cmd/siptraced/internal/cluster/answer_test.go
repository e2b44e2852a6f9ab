package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/tests/servers"
)

// window is JetStream's for duplicates, of the short form: as short as it can be. The
// long form has the default and outlasts it.
const window = 100 * time.Millisecond

func away() time.Duration { return servers.Pick(10*window, 135*time.Second) }

// shorten has a stream forget the ids of messages after the window.
func shorten(t *testing.T, l *Log) {
	t.Helper()
	if servers.Long() {
		return
	}
	cfg := l.handle().CachedInfo().Config
	cfg.Duplicates = window
	if _, err := l.engine.js.UpdateStream(within1(t), cfg); err != nil {
		t.Fatal(err)
	}
}

// TestAnswerLost: the answer to a batch, or the batch itself, is lost with the
// connection, which comes back after more than JetStream's window for duplicates. The
// batch is in the stream once, whatever others did meanwhile.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, servers.NATSOptions{})
	for i, tt := range []struct {
		name string
		// before is what the intake put in before, trimmed before how much of it is gone.
		before  int
		trimmed uint64
		// lost: the servers never get the batch.
		lost bool
		// Others consume and trim meanwhile, and put in messages of their own.
		consumed bool
		others   int
	}{
		{name: "the first batch", before: 0},
		{name: "a later batch", before: 3},
		{name: "with an empty subject", before: 3, trimmed: 3},
		{name: "consumed and trimmed, the first", before: 0, consumed: true},
		{name: "consumed and trimmed", before: 3, consumed: true},
		{name: "consumed and trimmed, with an empty subject", before: 3, trimmed: 3, consumed: true},
		{name: "consumed and trimmed, and others went on", before: 3, consumed: true, others: 5},
		{name: "others went on", before: 3, trimmed: 3, others: 5},
		{name: "never sent, the first", lost: true},
		{name: "never sent", before: 3, lost: true},
		{name: "never sent, what was before is trimmed", before: 3, lost: true, consumed: true, others: 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := servers.NewWire(t, nodes[i%len(nodes)].Port)
			e, _ := connect(t, "nats://"+w.Addr)
			l := shard(t, e, i, journal.Limits{})
			shorten(t, l)
			eb, _ := connect(t, servers.NATSURL(nodes))
			other := shard(t, eb, i, journal.Limits{})
			reader, err := other.Read(within1(t), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			var got []string
			read := func(n int) (last uint64) {
				t.Helper()
				for range n {
					e, err := reader.Next(within1(t))
					if err != nil {
						t.Fatalf("after %q: %v", got, err)
					}
					got, last = append(got, string(e.Data)), e.Seq
				}
				return last
			}
			want := texts("before", tt.before)
			appendAll(t, l, entries(0, want...))
			last := read(tt.before)
			if tt.trimmed > 0 {
				trim(t, other, tt.trimmed)
			}

			list := entries(uint64(tt.before), "x", "y")
			at := headerTotal + ": "
			if tt.trimmed > 0 { // behind what is gone it is refused first
				at = jetstream.ExpectedLastSeqHeader + ": "
			}
			w.LoseAt(at, tt.lost, nil)
			short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if n, err := l.Append(short, list); n != 0 || !errors.Is(err, journal.ErrUncertain) {
				t.Fatalf("Append without an answer = %d, %v", n, err)
			}
			over, cancel := context.WithCancel(t.Context())
			cancel() // what is in doubt is told as such by whoever asks, however late
			if n, err := l.Append(over, list); n != 0 || !errors.Is(err, journal.ErrUncertain) {
				t.Errorf("Append without time = %d, %v, want %v", n, err, journal.ErrUncertain)
			}
			if !tt.lost {
				want = append(want, "x")
				last = read(1)
			}
			if tt.consumed {
				trim(t, other, last)
			}
			appendAll(t, other, entries(0, texts("other", tt.others)...))
			want = append(want, texts("other", tt.others)...)
			read(tt.others)
			w.Cut()
			time.Sleep(away())
			w.Mend()

			n := 0
			servers.WaitFor(t, soon, "the batches to be in", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				m, _ := l.Append(ctx, list[n:])
				n += m
				return n == len(list)
			})
			if tt.lost {
				want = append(want, "x")
				read(1)
			}
			want = append(want, "y")
			read(1)
			if b, err := l.Bounds(within1(t)); err != nil || b.Last != uint64(len(want)) || !slices.Equal(got, want) {
				t.Errorf("read %q, %d in all, %v, want %q", got, b.Last, err, want)
			}
			if list[0].Seq == 0 || list[1].Seq != uint64(len(want)) || list[0].Seq >= list[1].Seq {
				t.Errorf("numbers %d and %d", list[0].Seq, list[1].Seq)
			}
		})
	}
}

// TestLateMessage: a batch waits in a server that is frozen, comes in by another one,
// is consumed and trimmed, and then the first server goes on. Nothing of the intake's
// is in the stream at that moment, and its window for duplicates is over.
func TestLateMessage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before int
	}{
		{"the first batch", 0},
		{"a later batch", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := cluster(t, servers.NATSOptions{})
			eb, _ := connect(t, servers.NATSURL(nodes))
			other := shard(t, eb, 0, journal.Limits{})
			shorten(t, other)
			// One that does not lead the stream: it passes the batch on.
			info, err := other.info(within1(t))
			if err != nil {
				t.Fatal(err)
			}
			follower := 0
			for info.Cluster.Leader == fmt.Sprintf("node%d", follower) {
				follower++
			}
			w := servers.NewWire(t, nodes[follower].Port)
			e, _ := connect(t, "nats://"+w.Addr)
			l := shard(t, e, 0, journal.Limits{})
			appendAll(t, l, entries(0, texts("before", tt.before)...))
			trim(t, other, uint64(tt.before))
			// The batch is on the connection to the server, which does nothing.
			w.LoseAt(jetstream.ExpectedLastSeqHeader+": ", false, func() { nodes[follower].Freeze(t) })
			list := entries(uint64(tt.before), "x")
			short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if n, err := l.Append(short, list); n != 0 || !errors.Is(err, journal.ErrUncertain) {
				t.Fatalf("Append without an answer = %d, %v", n, err)
			}
			w.Leave(nodes[(follower+1)%len(nodes)].Port)
			n := 0
			servers.WaitFor(t, 2*soon, "the batch to be in by another server", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				n, _ = l.Append(ctx, list)
				return n == 1
			})
			trim(t, other, list[0].Seq)
			time.Sleep(away())
			nodes[follower].Thaw(t)
			// What comes by this server from now on comes behind the batch.
			direct, _ := connect(t, fmt.Sprintf("nats://127.0.0.1:%d", nodes[follower].Port))
			last := shard(t, direct, 0, journal.Limits{})
			after := entries(0, "last")
			servers.WaitFor(t, soon, "another message to be in", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				n, _ := last.Append(ctx, after)
				return n == 1
			})
			// Until a server that led the stream knows that it does no more.
			servers.WaitFor(t, soon, "all servers to be of one mind", func() bool {
				b, err := other.Bounds(within1(t))
				return err == nil && b.Last >= after[0].Seq
			})
			if got, want := data(all(t, other, 0)), []string{"last"}; !slices.Equal(got, want) || after[0].Seq != uint64(tt.before)+2 {
				t.Errorf("in the stream are %q, the last one with number %d, want %q, %d", got, after[0].Seq, want, tt.before+2)
			}
		})
	}
}

// TestClusterAway: with the servers frozen, or killed, whatever is asked of the engine
// ends with its context.
func TestClusterAway(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		away func(n *servers.NATS)
	}{
		{"frozen", func(n *servers.NATS) { n.Freeze(t) }},
		{"killed", func(n *servers.NATS) { n.Kill() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := cluster(t, servers.NATSOptions{})
			e, _ := connect(t, servers.NATSURL(nodes))
			l := shard(t, e, 0, journal.Limits{})
			appendAll(t, l, entries(0, "m"))
			for _, n := range nodes {
				tt.away(n)
			}
			const patience = 300 * time.Millisecond
			large := entries(1, texts("x", 20)...)
			var memory counted
			for _, e := range large {
				e.Data, e.Memory = make([]byte, 512<<10), &memory
			}
			for _, c := range []struct {
				name string
				call func(ctx context.Context) error
			}{
				// More than connections take that nobody reads from.
				{"Append", func(ctx context.Context) error { _, err := l.Append(ctx, large); return err }},
				{"Append again", func(ctx context.Context) error { _, err := l.Append(ctx, large); return err }},
				{"Append again", func(ctx context.Context) error { _, err := l.Append(ctx, large); return err }},
				{"Append of many", func(ctx context.Context) error {
					var err error
					for range 40 {
						short, cancel := context.WithTimeout(ctx, patience/20)
						_, err = l.Append(short, large)
						cancel()
					}
					return err
				}},
				{"Trim", func(ctx context.Context) error { return l.Trim(ctx, 1) }},
				{"DropOldest", func(ctx context.Context) error { _, err := l.DropOldest(ctx); return err }},
				{"Bounds", func(ctx context.Context) error { _, err := l.Bounds(ctx); return err }},
				{"Waiting", func(ctx context.Context) error { _, err := l.Waiting(ctx, []uint64{0}); return err }},
				{"Put", func(ctx context.Context) error { return e.Positions().Put(ctx, "a.0", "x") }},
				{"Get", func(ctx context.Context) error { _, _, err := e.Positions().Get(ctx, "a.0"); return err }},
				{"Keys", func(ctx context.Context) error { _, err := e.Positions().Keys(ctx); return err }},
				{"Claim", func(ctx context.Context) error { _, err := e.Positions().Claim(ctx, "b", "x"); return err }},
				{"Remove", func(ctx context.Context) error { return e.Positions().Remove(ctx, "a.0") }},
				{"Open", func(ctx context.Context) error { _, err := e.Open(ctx, 1, journal.Limits{}); return err }},
				{"SetLimits", func(ctx context.Context) error { return e.SetLimits(ctx, 0, journal.Limits{Bytes: 1 << 20}) }},
				{"Logs", func(ctx context.Context) error { _, err := e.Logs(ctx); return err }},
				{"Backlogs", func(ctx context.Context) error { _, err := e.Backlogs(ctx); return err }},
				{"Next", func(ctx context.Context) error {
					c, err := l.Read(ctx, 1)
					if err != nil {
						return err
					}
					defer c.Close()
					_, err = c.Next(ctx)
					return err
				}},
			} {
				ends(t, c.name, patience, c.call)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = e.Close(ctx) // an error where the client waits for its server
			}()
			select {
			case <-done:
			case <-time.After(clientPatience):
				t.Error("Close does not end")
			}
			servers.WaitFor(t, soon, "all memory to be given back", func() bool { return memory.users.Load() == 0 })
			if memory.retained.Load() == 0 {
				t.Error("no memory was held while it was sent")
			}
		})
	}
}

// counted is memory that counts who needs it.
type counted struct {
	users, retained atomic.Int64
}

func (c *counted) Retain()  { c.users.Add(1); c.retained.Add(1) }
func (c *counted) Release() { c.users.Add(-1) }

// ends calls f, which is to fail with its context.
func ends(t *testing.T, name string, patience time.Duration, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	case <-time.After(clientPatience):
		t.Errorf("%s does not end", name)
	}
}

// clientPatience is less than what the NATS client waits by itself, for a server that
// takes no bytes.
const clientPatience = callTimeout - time.Second

// TestMinority: with one server of three nothing is kept, and with two all goes on.
func TestMinority(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, servers.NATSOptions{})
	e, _ := connect(t, servers.NATSURL(nodes))
	l := shard(t, e, 0, journal.Limits{})
	shorten(t, l)
	list := entries(0, texts("m", 6)...)
	over, cancelled := context.WithCancel(t.Context())
	cancelled()
	if n, err := l.Append(over, list); n != 0 || err == nil || errors.Is(err, journal.ErrUncertain) {
		t.Errorf("Append without time = %d, %v, want an error and no doubt", n, err)
	}
	appendAll(t, l, list[:2])
	c, err := l.Read(within1(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nodes[0].Kill()
	nodes[1].Kill()
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if n, err := l.Append(short, list[2:]); n != 0 || err == nil {
		t.Errorf("Append with one server = %d, %v", n, err)
	}
	nodes[0].Start(t)
	n := 2
	servers.WaitFor(t, 2*soon, "the rest to be in", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		m, _ := l.Append(ctx, list[n:])
		n += m
		return n == len(list)
	})
	var got []string
	for range list {
		e, err := c.Next(within1(t))
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, string(e.Data))
	}
	if want := texts("m", 6); !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	var api *jetstream.APIError
	if b, err := l.Bounds(within1(t)); errors.As(err, &api) || b.Last != 6 {
		t.Errorf("bounds %+v, %v", b, err)
	}
}
