package spool

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// A loss of power, or damage, takes the last batches of a stream, whose numbers
// the engine would give out again, while a sink with a position of its own is
// done with them: what is new would count as done. So numbers are noted before
// they are used, many at a time, and after such a loss the shard goes on behind
// them.

const (
	// numbersAhead is how many numbers are noted at a time.
	numbersAhead = 1 << 14
	// numbersLeft is how many are left when the next ones are noted: a batch whose
	// acknowledgement was lost has a number too.
	numbersLeft = 1 << 10
)

func (sh *shard) aheadKey() string { return "ahead." + strconv.Itoa(sh.index) }

// noteAhead writes down that numbers up to seq may be in use.
func (sh *shard) noteAhead(ctx context.Context, seq uint64) error {
	p := sh.spool.positions
	if err := p.put(ctx, sh.aheadKey(), fmt.Sprintf("%d %s %s", seq, bootID(), sh.id)); err != nil {
		return err
	}
	if err := p.flush(); err != nil {
		return err
	}
	sh.ahead = seq
	return nil
}

// goAhead has the next batch come behind all numbers that were ever in use, by
// empty batches where it would not. While the machine runs the engine loses
// nothing.
func (sh *shard) goAhead(ctx context.Context) error {
	s := sh.spool
	text, _, err := s.positions.get(ctx, sh.aheadKey())
	if err != nil {
		return fmt.Errorf("spool: position of shard %d: %w", sh.index, err)
	}
	var used uint64
	var boot, id string
	if n, _ := fmt.Sscan(text, &used, &boot, &id); n != 3 || id != sh.id {
		used = 0
	}
	_, noted, err := sh.notedTotal(ctx)
	if err != nil {
		return err
	}
	last := sh.lastSeq.Load()
	if boot == bootID() && noted <= last {
		sh.ahead = used
		return nil
	}
	for ; last < max(used, noted); last++ {
		ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: sh.subject, Header: nats.Header{
			headerRecords: {"0"}, headerTotal: {strconv.FormatUint(sh.total.Load(), 10)},
		}})
		if err != nil {
			return fmt.Errorf("spool: shard %d: %w", sh.index, err)
		}
		sh.lastSeq.Store(ack.Sequence)
	}
	return nil
}

// bootID changes when the machine starts; "-" where that can't be known.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return id
	}
	return "-"
}
