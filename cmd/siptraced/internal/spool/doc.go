// Package spool keeps every record that was taken in until each sink has dealt
// with it: on disk, through crashes of the process and outages of a sink.
//
// The engine is NATS JetStream, embedded with file storage and no listening
// port, or a cluster. Records travel in batches, closed by size or age; the
// shards are streams of their own, chosen by Call-ID, so that the records of
// one call keep their order whatever the number of writers. Each sink reads
// each shard by itself and says how far it came; what all sinks are done with
// is purged.
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
// Not included: what a sink does with a record.
//
// Mutexes: shard.mu (Put) and Spool.mu (registration) are never held during I/O,
// and nothing is locked under Spool.mu. Spool.saving is held while the offsets
// are saved; under it Spool.mu, filePositions.writing and shard.publishing are
// taken, each alone. shard.publishing is held while the engine takes a batch or
// trims; under it shard.end. recent.mu is held for moments, and nothing is locked
// under it.
package spool
