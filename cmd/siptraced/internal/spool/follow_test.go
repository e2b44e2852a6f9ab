package spool

import (
	"bytes"
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"siptraced/compat/siptrace"
)

// A reader that falls behind reads from the engine until the rest is in memory: all
// comes, once, in order, and is its own.
func TestFollow(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.BatchBytes = 1, 1<<20
	s := open(t, cfg)
	rs := readers(t, s)
	filler := bytes.Repeat([]byte("x"), 100<<10)
	sent, got := 0, 0
	send := func(n int) {
		for range n {
			r := record(sent, "call")
			r.Msg = append(strconv.AppendInt(nil, int64(sent), 10), filler...)
			if err := s.Put(&r); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	var d Decoder
	receive := func() {
		for got < sent {
			select {
			case b := <-rs[0].Batches():
				err := d.Each(b, func(rec *siptrace.Record, _ []byte) error {
					if want := append(strconv.AppendInt(nil, int64(got), 10), filler...); !bytes.Equal(rec.Msg, want) {
						t.Fatalf("record %d: got %.20q...", got, rec.Msg)
					}
					got++
					return nil
				})
				if err != nil || b.Missed != 0 {
					t.Fatalf("missed %d, %v", b.Missed, err)
				}
				rs[0].Done(b)
				b.Release()
			case <-time.After(30 * time.Second):
				t.Fatalf("got %d of %d, and nothing more comes", got, sent)
			}
		}
	}
	for _, n := range []int{5, 30, 2 * maxRecent / len(filler), 5, 3 * maxRecent / len(filler), 50} {
		send(n)
		receive()
	}
	if c := &s.shards[0].recent; !c.reaches(rs[0]) || c.end != s.shards[0].lastSeq.Load() {
		t.Error("the reader does not follow")
	}
	closeAll(t, s, rs)
}

// countedStream counts the batches that are read back.
type countedStream struct {
	jetstream.Stream
	read atomic.Int64
}

func (s *countedStream) OrderedConsumer(ctx context.Context, cfg jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	c, err := s.Stream.OrderedConsumer(ctx, cfg)
	return countedConsumer{c, s}, err
}

type countedConsumer struct {
	jetstream.Consumer
	stream *countedStream
}

func (c countedConsumer) Messages(opts ...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	m, err := c.Consumer.Messages(opts...)
	return countedMessages{m, c.stream}, err
}

type countedMessages struct {
	jetstream.MessagesContext
	stream *countedStream
}

func (m countedMessages) Next(opts ...jetstream.NextOpt) (jetstream.Msg, error) {
	msg, err := m.MessagesContext.Next(opts...)
	if err == nil {
		m.stream.read.Add(1)
	}
	return msg, err
}

// Sinks that are behind together have each batch read back once, not once each. One
// that is stuck keeps nobody waiting, and gets everything later.
func TestReadBackOnce(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.BatchBytes = 1, 10<<10
	s := open(t, cfg)
	const records = 6000
	put(t, s, 0, records)
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	counted := &countedStream{Stream: s.shards[0].stream}
	s.shards[0].stream = counted
	free := make(chan struct{})
	stuck := &fakeSink{name: "stuck", open: func(ctx context.Context) error {
		select {
		case <-free:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}
	sinks := []*fakeSink{stuck, {name: "a"}, {name: "b"}, {name: "c"}}
	var consumers []*Consumer
	for _, k := range sinks {
		consumers = append(consumers, s.Run(k, Options{}))
	}
	put(t, s, records, 2*records)
	for _, k := range sinks[1:] {
		waitFor(t, k.name+" to have all", func() bool { return k.count() >= 2*records })
	}
	if read, batches := counted.read.Load(), int64(s.shards[0].lastSeq.Load()); read > batches*3/2 {
		t.Errorf("%d batches are read back, of %d", read, batches)
	}
	close(free)
	waitFor(t, "the one that was stuck", func() bool { return stuck.count() >= 2*records })
	for i, c := range consumers {
		c.Stop(soon(t))
		sinks[i].check(t, 0, 2*records)
	}
	closeAll(t, s, nil)
}

// lateStream is a stream whose first message comes late; it counts those that are
// asked for one by one.
type lateStream struct {
	jetstream.Stream
	late  atomic.Bool
	asked atomic.Int64
}

func (s *lateStream) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	s.asked.Add(1)
	return s.Stream.GetMsg(ctx, seq, opts...)
}

func (s *lateStream) OrderedConsumer(ctx context.Context, cfg jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	c, err := s.Stream.OrderedConsumer(ctx, cfg)
	return lateConsumer{c, s}, err
}

type lateConsumer struct {
	jetstream.Consumer
	stream *lateStream
}

func (c lateConsumer) Messages(opts ...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	m, err := c.Consumer.Messages(opts...)
	return lateMessages{m, c.stream}, err
}

type lateMessages struct {
	jetstream.MessagesContext
	stream *lateStream
}

func (m lateMessages) Next(opts ...jetstream.NextOpt) (jetstream.Msg, error) {
	if !m.stream.late.Swap(true) {
		time.Sleep(expiryInterval + 100*time.Millisecond)
		return nil, context.DeadlineExceeded
	}
	return m.MessagesContext.Next(opts...)
}

// An engine that is slow is asked for one batch, not for each that waits.
func TestLate(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.BatchBytes = 1, 1<<10
	s := open(t, cfg)
	put(t, s, 0, 1000)
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	late := &lateStream{Stream: s.shards[0].stream}
	s.shards[0].stream = late
	k := &fakeSink{name: "k"}
	c := s.Run(k, Options{})
	waitFor(t, "1000 records", func() bool { return k.count() >= 1000 })
	c.Stop(soon(t))
	k.check(t, 0, 1000)
	// The machine may make it late once more.
	if n, batches := late.asked.Load(), s.shards[0].lastSeq.Load(); n == 0 || n > int64(batches)/4 {
		t.Errorf("%d of %d batches were asked for", n, batches)
	}
	closeAll(t, s, nil)
}
