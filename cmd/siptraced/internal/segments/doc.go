// Package segments keeps the spool's batches in files of our own (journal.Engine).
//
//	e, err := segments.Open(ctx, segments.Config{Dir: "/var/spool/siptraced", SyncInterval: 100 * time.Millisecond, Log: log})
//	l, err := e.Open(ctx, 0, journal.Limits{Bytes: 4 << 30})
//	n, err := l.Append(ctx, []*journal.Entry{{Records: 2, Taken: now, Data: data}})
//	c, err := l.Read(ctx, 0)
//	entry, err := c.Next(ctx) // journal.ErrEnd: no more for now
//	err = l.Trim(ctx, entry.Seq)
//	err = e.Close(ctx)
//
// The directory:
//
//	lock                                        held while it is open for writing
//	positions                                   two slots, written in turn and in place
//	shard-0/00…01-00…00-000001-9f3c….log        a segment: records one behind the other
//	shard-0/00…01-00…00-000001-9f3c….idx        what is in it, once nothing is added to it
//	shard-0/tail                                where the log ends
//	shard-0/spare                               a segment to be used again
//	shard-0/new-…                               not complete yet
//
// OpenView reads such a directory, or a copy of it, without a lock: Check verifies every
// record, Read gives entries. OpenRepairer mends one.
//
// Not included: what the bytes of an entry mean.
package segments
