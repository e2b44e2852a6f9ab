package store

import (
	"context"

	"siptraced/cmd/siptraced/internal/spool"
)

// history is what this process committed last, to say how much of it a database
// has lost. The zero value is ready.
type history struct{ commits []committed }

type committed struct {
	seq     uint64 // of the last batch
	records int
}

// mostHistory bounds it, in transactions.
const mostHistory = 4096

func (h *history) add(seq uint64, records int) {
	if len(h.commits) == mostHistory {
		h.commits = append(h.commits[:0], h.commits[mostHistory/2:]...)
	}
	h.commits = append(h.commits, committed{seq, records})
}

// since is how many records were committed after seq; ok is false when it does
// not reach so far back.
func (h *history) since(seq uint64) (records int, ok bool) {
	for i := len(h.commits) - 1; i >= 0; i-- {
		if h.commits[i].seq <= seq {
			return records, true
		}
		records += h.commits[i].records
	}
	return records, false
}

// restore brings a database to the shard's position. What it had committed and has
// lost is written again: because a standby took over that lacked it, or because a
// backup was restored. The spool may have trimmed some of it.
func (w *writer) restore(ctx context.Context, s *session) error {
	if !w.tracked || w.shard.Contended {
		return nil
	}
	from, end, id := w.at, w.shard.Offset(), databaseID(w.cfg.URL)
	until := end
	if left, ok := w.moves.enter(w.shard.Index, id, end); ok {
		until = min(left, end) // what came later went into another database
	}
	var messages, batches int
	var err error
	if from < until {
		messages, batches, err = w.rewrite(ctx, s, from, until)
		w.stats.rewritten.Add(uint64(messages))
	}
	if err == nil && w.at < end {
		w.startRows(s)
		var o outcome
		if o, err = w.transact(ctx, s, end); err == nil {
			w.settle(o)
		}
	}
	if err != nil {
		return err
	}
	w.moves.back(w.shard.Index, id)
	if from >= until {
		return nil
	}
	w.stats.positionBack.Add(1)
	attrs := []any{"position", from, "expected", until, "messages_written_again", messages, "batches_not_in_the_spool", int(until-from) - batches}
	if lost, known := w.history.since(from); known {
		attrs = append(attrs, "messages_lost", max(0, lost-messages))
	}
	w.log.Error("database: its position went back, rows that were committed are gone: a standby without them took over, or a backup was restored", attrs...)
	return nil
}

// rewrite writes what the spool still has of the batches after from, up to until.
func (w *writer) rewrite(ctx context.Context, s *session, from, until uint64) (messages, batches int, err error) {
	var group []*spool.Batch
	size := 0
	flush := func() error {
		for len(group) > 0 {
			o, err := w.write(ctx, s, group)
			if err != nil {
				return err
			}
			w.settle(o)
			for len(group) > 0 && group[0].Seq <= o.seq {
				group, batches = group[1:], batches+1
			}
			messages += o.records - o.rejected
		}
		size = 0
		return nil
	}
	err = w.shard.Reread(ctx, from+1, until, func(b *spool.Batch) error {
		group, size = append(group, b), size+b.Size()
		if size >= w.cfg.BatchBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return messages, batches, err
}

// settle accounts for a transaction of messages that were counted before.
func (w *writer) settle(o outcome) {
	w.stats.rows.Add(uint64(o.rows))
	w.stats.transactions.Add(1)
	w.at, w.pendingCommit = o.seq, nil
	clear(w.rejected)
}
