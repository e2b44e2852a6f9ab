// Package simulate is a room for tests alone: it runs the spool on its segments, the
// store and a mirror in one process, on a disk, a database server and a network that
// are made up and fail, under a clock that is made up, too. Whatever happens is
// decided by the number of the run, its seed. Package tests/simulate builds it (build
// tag simulation) and runs it; nothing of it is in siptraced.
//
//	go test ./tests/simulate -run TestSeeds -v                  # 2,000 seeds
//	SIPTEST_SEEDS=17 go test ./tests/simulate -run TestSeeds -v # what happens in one
//
// # What goes wrong
//
// One run in four drives the logs of package segments alone, the others the whole of
// it, on one machine or two.
//
//   - The disk (package disk/faulty): EIO, ENOSPC and EDQUOT on any call, once, for a
//     while or for good; slow and stuck calls; failed syncs after which the kernel
//     forgets what was written; a full file system; rotten sectors; reads that are wrong
//     once; writes that go to another place.
//   - The process: a stop in order, with less time than it needs, or a kill at any call of
//     the disk, in the middle of a write, too.
//   - The machine: a loss of power, after which what was not synced is there, or not, or
//     torn, or in another order, names of files likewise; a clone of the machine that
//     works on the same database beside it; a clock that steps by seconds, hours and
//     days, to both sides.
//   - The database: connections that break before or after any statement; COMMIT done and
//     not answered, answered and not done, done when nobody waits for it any more; a
//     server that is down, slow, restarted, replaced by an older copy, that denies, that
//     deadlocks; a table that is missing, renamed, or has other columns for a while; rows
//     that a trigger refuses.
//   - The mirror's peer: down, frozen, cut off, crashed, closing; acknowledging by TCP or
//     by keep-alives.
//   - The configuration: another number of shards at each start, small bounds that refuse
//     or drop, batches of all sizes, all sync intervals.
//
// # What has to hold
//
// The disk's books (type books) know each entry that Append got. They are compared with
// what a reader finds: while the program runs, on copies of the disk as a loss of power
// would leave it at that moment, and each time a process ends.
//
//   - What Append said it keeps is there after a kill: all of it, but for what Bounds calls
//     uncertain.
//   - After a loss of power no more is missing than UnsyncedRecords and UncertainRecords
//     said at that moment, and nothing that was synced; with a sync interval of 0 nothing.
//   - What Append did not keep is not there, unless the process ended before it could try
//     again. No entry is there twice, or in another order, or with other bytes. No two
//     entries ever have one number on one timeline, on whatever copy of the directory.
//   - A rotten sector costs one entry at the most. A write that went to the wrong place may
//     cost what stood there.
//   - A saved position is there after a loss of power.
//   - Nothing is given up before the table and the peer have it, or a sink counted that it
//     does not get it.
//
// At the end everything is mended, and then, within five minutes of the made-up clock:
//
//   - nothing waits any more, and all that is in memory is synced;
//   - each message that was kept is in the table exactly once, and at the peer at least
//     once: but those that were lost in one of the ways above, dropped to make room, or
//     refused by the database, which are in the reject file; and those that the server
//     had committed and lost itself after the spool had given them up;
//   - nothing is in the table that was not kept, and no message is acknowledged that was
//     not; the messages of a call stand in their order, in the table and at the peer;
//   - the books of each process that ended in order balance: counters.Accounting.
//
// After a failed sync both are right: that what it should have written is there, and that
// it is not. The same goes for what a process left that was killed after that, and for
// what the next one could not sync when it began: there is nobody left who has it in
// memory. What of it is gone is counted.
//
// # Why a seed repeats itself
//
// All that waits does so in the bubble of testing/synctest, on timers and channels. One
// goroutine runs at a time (GOMAXPROCS is 1), the garbage collector works between the
// runs only, and the Go runtime is built with a few changes (tests/simulate,
// runtime_test.go): what it decides by chance (select, maps, timers of one moment,
// math/rand) it decides by the seed, and it interrupts no goroutine. So each run is a
// function of its seed and of the program; the hash over all that happened says so, and
// a test compares it.
package simulate
