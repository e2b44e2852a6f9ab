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
// # Positions
//
// Numbers of batches grow within a shard. Each opening of the spool begins a
// timeline, and (timeline, number) names one batch wherever a copy of the spool is.
// The database has a row per timeline (table siptraced_position): all batches up to
// its number are written. Who moves it names the number that it has to have. These
// know how far a timeline is:
//
//	at       the database; it may have gone back, or somebody else moved it
//	done     this process: the spool's offset, or counted, which is ahead of it after
//	         a COMMIT whose answer was lost
//	until    what has to be in this database of it: done, or less if another one was
//	         in use since (notes.go)
//	doubt    the ends of transactions whose COMMIT was sent and not answered
//
// Each session begins with them (restore.go, timeline.go):
//
//	at = done            go on behind it
//	no row               at = done, and make the row; or at = the timeline's beginning,
//	                     if the database has an older timeline and should have this
//	                     one: it went back
//	at < until           the database went back: write what the spool still has of
//	                     (at, until] again, and say so
//	until <= at < done   another database was in use: move to done without rows
//	at > done, in doubt  that COMMIT was carried out: count it; done = at
//	at > done, the first session of this process, an older timeline
//	                     this spool's process before a crash, or a copy: both had the
//	                     same batches, so they are written
//	at > done, a later session, an older timeline
//	                     a copy is at work: say so, and go on behind it
//	at > done, the timeline that this process began
//	                     a copy of the process is at work (a cloned machine): say so,
//	                     note another name for the timeline in the spool, and go on
//	                     behind done under it: what waited when it was cloned may be
//	                     there twice, nothing is lost
//	at > the last number that the spool ever had of an older timeline
//	                     the spool is older than the database: say so
//
// A transaction whose UPDATE finds another number than at fails (errMoved), and the
// next session decides as above. A doubt ends when a later transaction is known to be
// committed: until then another server of the same database may come back with it.
//
// Beside that the database counts how often the spool was opened. A spool that finds
// there more openings than it knows of was restored or copied: it says so.
//
// In a cluster (Shard.Contended) others write the same timeline: whoever moved the
// position writes, and the others stand by.
//
// Not included: SQL text and the encoding of values (package dbschema); batching,
// backoff and the end (package spool).
package store
