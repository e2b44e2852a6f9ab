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
		if err := c.between(meta.Sequence.Stream, timeline); err != nil {
			return err
		}
		if err := c.deliver(meta.Sequence.Stream, meta.Timestamp, msg.Headers(), msg.Data(), timeline); err != nil {
			return err
		}
	}
}

func (c *cursor) deliver(seq uint64, taken time.Time, h nats.Header, data []byte, timeline string) error {
	e := journal.Entry{Seq: seq, Intake: h.Get(headerIntake), Timeline: timeline, Taken: taken, Data: data}
	e.Records, e.Total = batchHeader(h)
	c.log.passed(c.last+1, seq, h)
	select {
	case c.out <- e:
		c.last = seq
		return nil
	case <-c.run.Done():
		return c.run.Err()
	}
}

// between hands out what the consumer passed over before a message: the server that has
// it may not be able to read what the one that leads the stream has.
func (c *cursor) between(next uint64, timeline string) error {
	if next <= c.last+1 {
		return nil
	}
	l := c.log
	info, err := l.info(c.run)
	if err != nil {
		return err
	}
	for from := max(c.last+1, info.State.FirstSeq); from < next; {
		msg, err := l.message(c.run, func(ctx context.Context, s jetstream.Stream) (*jetstream.RawStreamMsg, error) {
			return s.GetMsg(ctx, from, jetstream.WithGetMsgSubject(l.subject+".>")) // or the one behind
		})
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && msg.Sequence >= next {
			return nil // trimmed meanwhile
		}
		if err != nil {
			return err
		}
		if err := c.deliver(msg.Sequence, msg.Time, msg.Header, msg.Data, timeline); err != nil {
			return err
		}
		from = msg.Sequence + 1
	}
	return nil
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
