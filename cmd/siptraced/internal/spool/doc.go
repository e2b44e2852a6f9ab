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
//	r, err := s.Reader(ctx, "store", 0)
//	err = s.Put(&rec)
//	batch := <-r.Batches()
//	r.Done(batch)
//
// What it leaves out: what a sink does with a record, and retries.
package spool
