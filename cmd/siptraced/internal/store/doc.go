// Package store writes records from the spool into the sip_trace table: in
// batches, each shard over a connection of its own, the batch and its position
// in one transaction, so that neither a crash nor a lost answer loses or doubles
// a row. A database that is away is waited for; a row that it refuses is set
// aside in a file with the reason, and its batch goes on.
//
//	s, err := store.Open(ctx, cfg, spool, counters, logger)
//	s.Start()
//	...
//	s.Stop(ctx) // writes what the spool holds, until ctx ends
//
// What it leaves out: SQL text and the encoding of values (package dbschema).
package store
