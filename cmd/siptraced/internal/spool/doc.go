// Package spool keeps every record that was taken in until each sink has dealt
// with it: on disk, through crashes of the process and outages of a sink.
//
// Records travel in batches, closed by size or age. Each shard is a log of such
// batches (package journal), in files of our own or in a cluster; a call's shard is
// chosen by its Call-ID, so that its records keep their order whatever the number of
// writers. Each sink reads each shard by itself and says how far it came; what all
// sinks are done with is trimmed.
//
//	s, err := spool.Open(ctx, spool.DefaultConfig(), logger)
//	consumer := s.Run(sink, spool.Options{})
//	err = s.Put(&rec)
//	...
//	s.Flush(ctx)
//	consumer.Stop(ctx)
//	err = s.Close(ctx)
//
// A Sink opens connections and writes batches. Everything else exists once, in
// Consumer: gathering, what is in flight and its replay after a failure,
// backoff, log lines, backlog and lag, the bounds of the backlog, the end.
//
// Where a log is kept makes one difference: one that is not Exclusive is used by other
// processes as well (Batch.Contended). Nothing of its batches is kept in memory for
// other readers, its backlog is asked of the cluster, and what sinks that do not run
// here need is the cluster's to know.
//
// Not included: what a sink does with a record; how and where a log is kept.
//
// Mutexes: none is held while anything is waited for, with one exception. shard.mu is
// the intake's (Put), shard.end makes the end of a shard one value, Spool.mu covers
// registration, recent.mu what is in memory; nothing is locked under any of them.
// Spool.saving is a channel of one place: who has it saves the positions, which may
// wait for the disk, and takes Spool.mu for moments.
package spool
