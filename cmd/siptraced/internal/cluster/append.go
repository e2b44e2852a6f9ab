package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
)

// Codes of JetStream that nats.go does not name (nats-server, errors.json).
const (
	codeAccountFull   jetstream.ErrorCode = 10002 // JSAccountResourcesExceededErr
	codeServersFull   jetstream.ErrorCode = 10023 // JSInsufficientResourcesErr
	codeStorageFull   jetstream.ErrorCode = 10047 // JSStorageResourcesExceededErr
	codeTooLarge      jetstream.ErrorCode = 10054 // JSStreamMessageExceedsMaximumErr
	codeWrongLast     jetstream.ErrorCode = 10071 // JSStreamWrongLastSequenceErrF
	codeStoreFailed   jetstream.ErrorCode = 10077 // JSStreamStoreFailedF
	codeSubjectInUse  jetstream.ErrorCode = 10164 // JSStreamWrongLastSequenceConstantErr
	codeBatchInFlight jetstream.ErrorCode = 10158 // JSStreamDuplicateMessageConflict
)

// fence is a condition on the stream that holds once at most: of the attempts that go
// with it one is stored, and none once the stream went on.
type fence struct {
	own   uint64 // the last message on the intake's subject; 0: there is none
	end   uint64 // where own is 0: the stream's last message
	known bool
	told  bool // end is what the answer to an attempt said
}

func (f fence) set(h nats.Header) {
	h.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(f.own, 10))
	h.Del(jetstream.ExpectedLastSeqHeader)
	if f.own == 0 { // which alone would hold again once the next message is trimmed
		h.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(f.end, 10))
	}
}

// attempt is a batch on its way.
type attempt struct {
	entry  *journal.Entry
	number uint64 // in the log, of this intake's
	msg    *nats.Msg
	// doubt: an answer did not come; the batch may be stored, or may be later.
	doubt   bool
	refused int // how often the fence did not hold
}

// Append puts in one batch after the other. One that waits for its answer when ctx ends
// is settled by the next Append.
func (l *Log) Append(ctx context.Context, entries []*journal.Entry) (n int, err error) {
	if err := l.appending.take(ctx); err != nil {
		return 0, fmt.Errorf("stream %s: %w", l.name, err)
	}
	defer l.appending.give()
	for _, e := range entries {
		if l.pending == nil || l.pending.entry != e {
			l.pending = l.attempt(e)
		}
		err := ctx.Err() // before it is sent, it is not in doubt
		if err == nil {
			err = l.put(ctx, l.pending)
		}
		if err != nil {
			if !l.pending.doubt {
				l.pending = nil
			} else {
				err = fmt.Errorf("%w: %w", journal.ErrUncertain, err)
			}
			return n, err
		}
		l.pending = nil
		n++
	}
	return n, nil
}

func (l *Log) attempt(e *journal.Entry) *attempt {
	session := l.engine.session
	l.batches++
	return &attempt{entry: e, number: l.batches, msg: &nats.Msg{Subject: l.subject + "." + session, Data: e.Data, Header: nats.Header{
		headerRecords: {strconv.Itoa(e.Records)},
		headerTotal:   {strconv.FormatUint(e.Total, 10)},
		headerIntake:  {session},
		nats.MsgIdHdr: {fmt.Sprintf("%s.%d.%s", session, l.index, strconv.FormatUint(l.batches, 36))},
	}}}
}

// batchNumber is the number in the id of a batch; 0: there is none.
func batchNumber(h nats.Header) uint64 {
	id := h.Get(nats.MsgIdHdr)
	n, _ := strconv.ParseUint(id[strings.LastIndexByte(id, '.')+1:], 36, 64)
	return n
}

// put returns nil when the batch is stored.
func (l *Log) put(ctx context.Context, a *attempt) error {
	for {
		if !l.fence.known {
			if stored, err := l.newFence(ctx, a); stored || err != nil {
				return err
			}
		}
		seq, err := l.publish(ctx, a)
		var api *jetstream.APIError
		switch {
		case err == nil:
			l.kept(a, seq)
			return nil
		case !errors.As(err, &api):
			return l.unanswered(ctx, a, err)
		case api.ErrorCode == codeWrongLast:
			l.refused(a, api)
			if err := l.giveWay(ctx, a); err != nil {
				return err
			}
		case api.ErrorCode == codeSubjectInUse, api.ErrorCode == codeBatchInFlight:
			// An earlier attempt is on its way through the cluster.
			a.doubt = true
			if err := sleep(ctx, changePause); err != nil {
				return fmt.Errorf("stream %s: %w", l.name, err)
			}
		case isFull(api):
			return l.noRoom(ctx, a, fmt.Errorf("%w: %w", journal.ErrFull, err))
		case api.ErrorCode == codeTooLarge:
			return fmt.Errorf("%w: %w", journal.ErrTooLarge, err)
		default:
			return err
		}
	}
}

// refused takes up that the fence does not hold. Where others were only faster, the
// answer says what to come behind, and saves asking for it; not twice, for it can be
// the intake's own last message as well.
func (l *Log) refused(a *attempt, api *jetstream.APIError) {
	_, number, _ := strings.Cut(api.Description, ": ")
	end, err := strconv.ParseUint(number, 10, 64)
	if a.doubt || l.fence.own > 0 || l.fence.told || err != nil {
		l.fence = fence{}
		return
	}
	l.fence = fence{end: end, known: true, told: true}
}

// giveWay waits before a batch is tried for the third time and later: others are faster,
// or a server that led the stream does not know yet that it does no more.
func (l *Log) giveWay(ctx context.Context, a *attempt) error {
	const step, most = 2 * time.Millisecond, 100 * time.Millisecond
	if a.refused++; a.refused < 3 {
		return nil
	}
	if err := sleep(ctx, rand.N(min(time.Duration(a.refused)*step, most))); err != nil {
		return fmt.Errorf("stream %s: %w", l.name, err)
	}
	return nil
}

// noRoom is the answer to a batch for which there is no room. An earlier attempt may
// have been stored; one that is still on its way then comes late, and is not counted.
func (l *Log) noRoom(ctx context.Context, a *attempt, full error) error {
	if a.doubt {
		if stored, err := l.newFence(ctx, a); stored || err != nil {
			return err
		}
		a.doubt = false
	}
	return full
}

func isFull(api *jetstream.APIError) bool {
	switch api.ErrorCode {
	case codeAccountFull, codeServersFull, codeStorageFull:
		return true
	case codeStoreFailed:
		// What comes here but the stream's bounds is an error of the store.
		return strings.Contains(api.Description, "maximum")
	}
	return false
}

// unanswered says what an attempt without an answer leaves behind.
func (l *Log) unanswered(ctx context.Context, a *attempt, err error) error {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %d bytes, the servers take %d (max_payload): %w", journal.ErrTooLarge, len(a.msg.Data), l.engine.maxPayload.Load(), err)
	case errors.Is(err, nats.ErrReconnectBufExceeded):
		return err // it was not sent
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		l.lost(ctx, err) // nobody took it
		return err
	}
	a.doubt = true
	return err
}

// publish sends the batch once. The memory of the batch is held until it is sent or
// given up, which may be after ctx ended.
func (l *Log) publish(ctx context.Context, a *attempt) (seq uint64, err error) {
	l.fence.set(a.msg.Header)
	msg := *a.msg
	msg.Header = nats.Header{}
	for k, v := range a.msg.Header { // a late sender has its own
		msg.Header[k] = v
	}
	memory := a.entry.Memory
	if memory != nil {
		memory.Retain()
	}
	ack, err := call(ctx, l.engine, func(ctx context.Context) (*jetstream.PubAck, error) {
		if memory != nil {
			defer memory.Release()
		}
		return l.engine.js.PublishMsg(ctx, &msg)
	})
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", l.name, err)
	}
	return ack.Sequence, nil
}

// kept takes up that a batch is stored.
func (l *Log) kept(a *attempt, seq uint64) {
	l.fence = fence{own: seq, known: true}
	a.entry.Seq, a.entry.Intake, a.entry.Timeline = seq, l.engine.session, l.ID()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total = a.entry.Total
	l.reached(seq)
}

// newFence finds out what the next attempt has to come behind, and whether an earlier
// one was stored: not behind the end that it asks for first. What a server says that led
// the stream until a moment ago may be old: then the fence does not hold, so that doubt
// stays until it does.
func (l *Log) newFence(ctx context.Context, a *attempt) (stored bool, err error) {
	info, err := l.info(ctx)
	if err != nil {
		l.lost(ctx, err)
		return false, err
	}
	msg, err := l.lastOf(ctx, a.msg.Subject)
	switch {
	case err == nil && msg.Header.Get(nats.MsgIdHdr) == a.msg.Header.Get(nats.MsgIdHdr):
		l.kept(a, msg.Sequence)
		return true, nil
	case err == nil:
		l.fence = fence{own: msg.Sequence, known: true}
		return false, nil
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return false, err
	}
	if a.doubt {
		gone, err := l.readGone(ctx)
		if err != nil {
			return false, err
		}
		if at := gone[l.engine.session]; at.number >= a.number {
			l.kept(a, at.seq)
			return true, nil
		}
	}
	l.fence = fence{end: info.State.LastSeq, known: true}
	return false, nil
}
