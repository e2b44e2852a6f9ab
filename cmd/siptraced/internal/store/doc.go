// Package store is the sink that writes records from the spool into the sip_trace
// table: in batches, each shard over a connection of its own, the batch and its
// position in one transaction, so that neither a crash nor a lost answer loses or
// doubles a row.
//
// A database that is away, or that takes nothing, is waited for. A row that the
// database does not take while it takes another one is rejected: it goes into the
// reject file with the reason, and its batch goes on. See failure.go for what the
// errors of each database mean.
//
// Not included: SQL text and the encoding of values (package dbschema); batching,
// backoff and the end (package spool).
package store
