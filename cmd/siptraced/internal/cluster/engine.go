package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"siptraced/cmd/siptraced/internal/journal"
)

// Config says where the cluster is.
type Config struct {
	// URL names servers: "nats://a,b,c". A password in it is not logged.
	URL string
	// Credentials is a NATS credentials file, CA a certificate bundle; "": none.
	Credentials, CA string
	// Replicas of each stream, and of the positions.
	Replicas int
	// Monitor names the servers' monitoring pages for Probe, "http://a:8222,...";
	// "": port 8222 of each server.
	Monitor string
}

const (
	streamPrefix = "SIPTRACED_"
	subjectRoot  = "siptraced.trace."
	bucket       = "siptraced_positions"
	// headroom is what a message needs beside the data: headers and subject.
	headroom = 4 << 10
	// callTimeout bounds one request to the cluster.
	callTimeout = 5 * time.Second
	// patience is how long a cluster may take to be ready when it is opened: one that
	// starts with us elects its leaders first.
	patience = time.Minute
	// pingInterval: a server that leaves two pings without an answer is given up.
	pingInterval = 5 * time.Second
)

// Engine is a connection to the cluster.
type Engine struct {
	cfg       Config
	log       *slog.Logger
	conn      *nats.Conn
	js        jetstream.JetStream
	positions *positions
	session   string    // names this process as an intake
	ready     time.Time // until then the cluster may take its time
	// What the connection says of itself has to wait while a server takes no bytes.
	connected  atomic.Bool
	server     atomic.Pointer[string]
	maxPayload atomic.Int64

	mu   sync.Mutex // covers logs
	logs map[int]*Log
}

// Open connects, and waits up to a minute until the cluster has leaders.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Engine, error) {
	e := &Engine{cfg: cfg, log: log, session: nuid.Next(), ready: time.Now().Add(patience), logs: map[int]*Log{}}
	if err := e.dial(ctx); err != nil {
		return nil, err
	}
	kv, err := patiently(ctx, e, "positions", func(ctx context.Context) (jetstream.KeyValue, error) {
		return e.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucket, History: 1, Storage: jetstream.FileStorage, Replicas: cfg.Replicas,
		})
	})
	if err != nil {
		_ = e.Close(ctx)
		return nil, err
	}
	e.positions = &positions{conn: e.conn, kv: kv, unsaved: map[string]kept{}}
	return e, nil
}

func (e *Engine) dial(ctx context.Context) error {
	opts := []nats.Option{
		nats.Name("siptraced"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.RetryOnFailedConnect(true),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		// A message that can't be sent now is not sent later, behind our back.
		nats.ReconnectBufSize(-1),
		nats.FlusherTimeout(callTimeout),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			e.connected.Store(false)
			if err != nil {
				e.log.Warn("spool: connection to the cluster lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			e.meet(c)
			e.log.Info("spool: connected to the cluster again", "server", e.Place())
		}),
		// What JetStream says of a consumer that is gone comes to its reader as well.
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			e.log.Debug("spool: cluster", "err", err)
		}),
	}
	if e.cfg.Credentials != "" {
		opts = append(opts, nats.UserCredentials(e.cfg.Credentials))
	}
	if e.cfg.CA != "" {
		opts = append(opts, nats.RootCAs(e.cfg.CA))
	}
	conn, err := nats.Connect(e.cfg.URL, opts...)
	if err != nil {
		return fmt.Errorf("spool: cluster (key spool.nats): %w", err)
	}
	for !conn.IsConnected() {
		select {
		case <-ctx.Done():
			defer conn.Close()
			return fmt.Errorf("spool: no server of the cluster answers (key spool.nats): %w", errors.Join(conn.LastError(), ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
	e.conn = conn
	e.meet(conn)
	if e.js, err = jetstream.New(conn); err != nil {
		conn.Close()
		return fmt.Errorf("spool: cluster (key spool.nats): %w", err)
	}
	return nil
}

// meet takes up which server we are connected to.
func (e *Engine) meet(c *nats.Conn) {
	at := c.ConnectedUrlRedacted()
	e.server.Store(&at)
	e.maxPayload.Store(c.MaxPayload())
	e.connected.Store(true)
}

// within is f, and ends with ctx: a client whose server takes no bytes holds its lock,
// and does not look at the context.
func within[T any](ctx context.Context, f func(ctx context.Context) (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	got := make(chan answer, 1)
	go func() {
		v, err := f(ctx)
		got <- answer{v, err}
	}()
	select {
	case a := <-got:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// call is one request to the cluster.
func call[T any](ctx context.Context, e *Engine, f func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := within(ctx, f)
	if err != nil && !e.connected.Load() {
		err = fmt.Errorf("no connection to the cluster (key spool.nats): %w", err)
	}
	return v, err
}

// patiently tries until the cluster, which may have just been started, is ready.
func patiently[T any](ctx context.Context, e *Engine, what string, f func(ctx context.Context) (T, error)) (T, error) {
	const pause = time.Second
	for said := false; ; said = true {
		v, err := call(ctx, e, f)
		switch {
		case err == nil:
			return v, nil
		case ctx.Err() != nil || time.Now().After(e.ready):
			return v, fmt.Errorf("spool: %s in the cluster: %w", what, err)
		case !said:
			e.log.Warn("spool: the cluster is not ready, trying again", "what", what, "err", err)
		}
		if err := sleep(ctx, pause); err != nil {
			return v, fmt.Errorf("spool: %s in the cluster: %w", what, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Logs is how many streams there are.
func (e *Engine) Logs(ctx context.Context) (int, error) {
	return patiently(ctx, e, "streams", func(ctx context.Context) (int, error) {
		n := 0
		names := e.js.StreamNames(ctx, jetstream.WithStreamListSubject(subjectRoot+"*"))
		for name := range names.Name() {
			number, ours := strings.CutPrefix(name, streamPrefix)
			if i, err := strconv.Atoi(number); ours && err == nil && i >= n {
				n = i + 1
			}
		}
		return n, names.Err()
	})
}

// Open opens the i-th stream.
func (e *Engine) Open(ctx context.Context, i int, l journal.Limits) (journal.Log, error) {
	log := &Log{
		engine: e, index: i, name: streamPrefix + strconv.Itoa(i), subject: subjectRoot + strconv.Itoa(i), limits: l,
		appending: newTurn(), trimming: newTurn(), seen: map[string]mark{}, noted: map[string]uint64{},
	}
	if _, err := patiently(ctx, e, "stream "+log.name, func(ctx context.Context) (jetstream.Stream, error) {
		return log.make(ctx)
	}); err != nil {
		if api := (*jetstream.APIError)(nil); errors.As(err, &api) && isFull(api) {
			err = fmt.Errorf("%w: it is to take %d bytes (keys spool.max_bytes and spool.shards), more than the account or the servers have left", err, l.Bytes)
		}
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs[i] = log
	return log, nil
}

// SetLimits changes the bounds of an open stream.
func (e *Engine) SetLimits(ctx context.Context, i int, l journal.Limits) error {
	e.mu.Lock()
	log := e.logs[i]
	e.mu.Unlock()
	if log == nil {
		return fmt.Errorf("spool: stream %d is not open", i)
	}
	return log.setLimits(ctx, l)
}

// Positions are the key-value bucket.
func (e *Engine) Positions() journal.Positions { return e.positions }

// MaxEntry is what the server takes that we are connected to, without the headers.
func (e *Engine) MaxEntry() int { return int(e.maxPayload.Load()) - headroom }

// Place is the server that we are connected to, or were.
func (e *Engine) Place() string { return *e.server.Load() }

// Space is not known: the cluster's disks are its own.
func (e *Engine) Space() (size, free uint64, ok bool) { return 0, 0, false }

// Close closes the connection. If ctx ends first, it goes on behind our back.
func (e *Engine) Close(ctx context.Context) error {
	_, err := within(ctx, func(context.Context) (struct{}, error) {
		e.conn.Close()
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("spool: the connection to the cluster does not end: %w", err)
	}
	return nil
}
