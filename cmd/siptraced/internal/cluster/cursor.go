package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
)

const (
	// prefetch is how many messages a cursor has in memory.
	prefetch = 4
	// A consumer that is silent for two heartbeats is gone: with the server that had
	// it, for it is in memory.
	heartbeat  = 2 * time.Second
	pullExpiry = 10 * time.Second
	// idleConsumer is when the cluster forgets a consumer that nobody reads.
	idleConsumer = time.Minute
	firstReopen  = 50 * time.Millisecond
	maxReopen    = 2 * time.Second
)

// cursor reads with a consumer of its own, which it makes anew behind the last message
// whenever that fails.
type cursor struct {
	log  *Log
	out  chan journal.Entry
	run  context.Context
	stop context.CancelFunc
	last uint64 // the reading goroutine's
}

// Read begins to read. It does not wait for the cluster.
func (l *Log) Read(ctx context.Context, after uint64) (journal.Cursor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &cursor{log: l, out: make(chan journal.Entry), last: after}
	c.run, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	go c.read()
	return c, nil
}

// Next waits for the next message.
func (c *cursor) Next(ctx context.Context) (journal.Entry, error) {
	select {
	case e := <-c.out:
		return e, nil
	case <-ctx.Done():
		return journal.Entry{}, ctx.Err()
	case <-c.run.Done():
		return journal.Entry{}, fmt.Errorf("stream %s: %w", c.log.name, fs.ErrClosed)
	}
}

// Close ends reading.
func (c *cursor) Close() { c.stop() }

// read goes on until Close, whatever becomes of the cluster.
func (c *cursor) read() {
	failing := false
	for pause := firstReopen; ; {
		before := c.last
		err := c.consume(func() {
			if failing {
				c.log.engine.log.Info("spool: reading again", "stream", c.log.name)
			}
			failing = false
		})
		if c.run.Err() != nil {
			return
		}
		if c.last > before {
			pause = firstReopen
		}
		if !failing && !errors.Is(err, jetstream.ErrNoHeartbeat) {
			c.log.engine.log.Warn("spool: reading is interrupted, trying again", "stream", c.log.name, "err", err)
			failing = true
		}
		c.log.lost(c.run, err)
		if sleep(c.run, pause) != nil {
			return
		}
		pause = min(2*pause, maxReopen)
	}
}

// consume hands out messages until the consumer fails; open is told when it works.
func (c *cursor) consume(open func()) error {
	l := c.log
	if _, err := l.info(c.run); err != nil { // whose timeline it is
		return err
	}
	timeline := l.ID()
	consumer, err := call(c.run, l.engine, func(ctx context.Context) (jetstream.Consumer, error) {
		return l.engine.js.CreateConsumer(ctx, l.name, jetstream.ConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: c.last + 1,
			AckPolicy: jetstream.AckNonePolicy, MaxDeliver: 1,
			MemoryStorage: true, Replicas: 1, InactiveThreshold: idleConsumer,
		})
	})
	if err != nil {
		return fmt.Errorf("consumer of stream %s: %w", l.name, err)
	}
	defer l.forget(consumer)
	messages, err := consumer.Messages(jetstream.PullMaxMessages(prefetch), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("consumer of stream %s: %w", l.name, err)
	}
	defer messages.Stop()
	open()
	for delivered := uint64(1); ; delivered++ {
		msg, err := messages.Next(jetstream.NextContext(c.run))
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != delivered {
			return fmt.Errorf("consumer of stream %s: message %d came in place of %d", l.name, meta.Sequence.Consumer, delivered)
		}
		e := journal.Entry{Seq: meta.Sequence.Stream, Intake: msg.Headers().Get(headerIntake), Timeline: timeline, Taken: meta.Timestamp, Data: msg.Data()}
		e.Records, e.Total = batchHeader(msg.Headers())
		l.passed(c.last+1, e.Seq, msg.Headers())
		select {
		case c.out <- e:
			c.last = e.Seq
		case <-c.run.Done():
			return c.run.Err()
		}
	}
}

// forget has the cluster forget a consumer; should that fail, it does so by itself.
func (l *Log) forget(consumer jetstream.Consumer) {
	name := consumer.CachedInfo().Name
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		if err := l.engine.js.DeleteConsumer(ctx, l.name, name); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			l.engine.log.Debug("spool: a consumer stays in the cluster for a minute", "stream", l.name, "err", err)
		}
	}()
}
