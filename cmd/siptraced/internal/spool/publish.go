package spool

import (
	"context"
	"errors"
	"syscall"
	"time"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/compat/siptrace"
)

const (
	appendTimeout = 5 * time.Second
	firstRetry    = 10 * time.Millisecond
	maxBackoff    = 2 * time.Second
)

// publish carries the shard's batches to the log: all that wait at once, and in
// their order through every retry.
func (sh *shard) publish(ctx context.Context) {
	age := sh.spool.cfg.BatchAge
	timer := time.NewTimer(age)
	defer timer.Stop()
	for {
		var left time.Duration
		select {
		case b, ok := <-sh.full:
			if !ok {
				return
			}
			sh.send(ctx, sh.gather(b))
		case <-sh.began:
			left = sh.expire(age)
		case <-timer.C:
			left = sh.expire(age)
		case <-sh.flushNow:
			sh.expire(0)
		}
		if left > 0 {
			timer.Reset(left)
		}
	}
}

// gather is a closed batch, and those that are closed behind it.
func (sh *shard) gather(first *batch) []*batch {
	all := append(make([]*batch, 0, buffers), first)
	for {
		select {
		case b, ok := <-sh.full:
			if !ok {
				return all
			}
			all = append(all, b)
		default:
			return all
		}
	}
}

// send puts batches into the log, however long that takes, and counts what became
// of their records.
func (sh *shard) send(ctx context.Context, batches []*batch) {
	s := sh.spool
	entries := make([]*journal.Entry, len(batches))
	for i, b := range batches {
		entries[i] = &journal.Entry{Records: b.records, Taken: time.Now(), Data: b.data, Memory: b.memory}
	}
	failing, madeRoom := false, false
	for backoff := firstRetry; ; {
		n, err := sh.append(ctx, entries)
		for i, b := range batches[:n] {
			sh.spooled(b, entries[i])
		}
		if batches, entries = batches[n:], entries[n:]; len(batches) == 0 {
			break
		}
		if n > 0 {
			backoff, madeRoom = firstRetry, false
		}
		switch {
		case ctx.Err() != nil:
			sh.lose(batches, err)
			return
		case errors.Is(err, journal.ErrFull) && sh.makeRoom(ctx, err):
			// What does not help is not repeated until nothing is left.
			if madeRoom {
				break
			}
			madeRoom = true
			continue
		case errors.Is(err, journal.ErrFull) && s.cfg.Full == RefuseNew, errors.Is(err, journal.ErrTooLarge):
			sh.refused(batches[0], err)
			batches, entries = batches[1:], entries[1:]
			if len(batches) == 0 {
				return
			}
			continue
		case !failing:
			s.log.Error("spool: messages can't be written, trying again", "shard", sh.index, "err", err)
			failing = true
		}
		sleep(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	if failing {
		s.log.Info("spool: messages can be written again", "shard", sh.index)
	}
}

// append tries once.
func (sh *shard) append(ctx context.Context, entries []*journal.Entry) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	total := sh.total.Load()
	for _, e := range entries {
		total += uint64(e.Records)
		e.Total = total
	}
	return sh.log.Append(ctx, entries)
}

// makeRoom reports whether a full log may have room now. What is kept for a sink
// that does not run goes first; then the oldest messages, where Config.Full says so.
func (sh *shard) makeRoom(ctx context.Context, full error) bool {
	s := sh.spool
	if sh.discardDormant() {
		if err := s.savePositions(ctx); err != nil {
			s.log.Warn("spool: positions not saved, trying again", "err", err)
		}
		return true
	}
	if s.cfg.Full != DropOldest {
		return false
	}
	if errors.Is(full, syscall.ENOSPC) && s.fillsUp() {
		s.log.Error("spool: the disk is full, the oldest messages are dropped (keys spool.dir, spool.full)", "shard", sh.index)
	}
	// Counted by the sinks that miss it.
	dropped, err := sh.log.DropOldest(ctx)
	return dropped && err == nil
}

// spooled counts a batch that the log has, and offers it to the readers.
func (sh *shard) spooled(b *batch, e *journal.Entry) {
	s := sh.spool
	sh.advance(e.Seq, e.Total)
	if sh.log.Exclusive() {
		sh.recent.offer(sh.batch(e))
	}
	s.Stats.Spooled.Add(uint64(b.records))
	s.full.Store(false)
	sh.settle(b)
}

// refused counts a batch that is not tried again.
func (sh *shard) refused(b *batch, err error) {
	s := sh.spool
	s.Stats.Refused.Add(uint64(b.records))
	if s.fillsUp() {
		s.log.Error("spool: full, new messages are refused; see what keeps the sinks (keys spool.max_bytes, spool.dir)", "shard", sh.index, "err", err)
	}
	sh.fail(b)
}

// lose counts batches that nobody will try again.
func (sh *shard) lose(batches []*batch, err error) {
	for i, b := range batches {
		where := &sh.spool.Stats.Lost
		if i == 0 && errors.Is(err, journal.ErrUncertain) {
			where = &sh.spool.Stats.Uncertain
		}
		where.Add(uint64(b.records))
		sh.fail(b)
	}
}

// fillsUp notes that there is no room, and reports whether that is to be logged: once
// a minute, as there may be room for moments.
func (s *Spool) fillsUp() bool {
	now, last := time.Now(), s.fullLogged.Load()
	return !s.full.Swap(true) && (last == nil || now.Sub(*last) >= logInterval) && s.fullLogged.CompareAndSwap(last, &now)
}

// fail counts a batch that is not in the log and won't be, and says so of each of
// its records.
func (sh *shard) fail(b *batch) {
	sh.failed.Add(uint64(b.records))
	if sh.spool.Refused != nil {
		var d Decoder
		_ = d.Each(&Batch{data: b.data}, func(rec *siptrace.Record, _ []byte) error {
			sh.spool.Refused(rec)
			return nil
		})
	}
	sh.settle(b)
}

// sleep waits, until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
