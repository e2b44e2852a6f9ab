// Package journal is what the spool asks of the place where its batches are kept.
// There are two: package segments keeps them in files of its own, package cluster
// in a NATS JetStream cluster. Who uses a Log does not ask which one it has; what
// differs is a property of it (Log.Exclusive).
//
// A log is a run of entries, each with a number that no other entry of it ever had.
// Entries that are damaged or given up are missing; Entry.Total tells how many
// records were in them.
package journal

import (
	"context"
	"errors"
	"time"
)

// Entry is one batch of records. Append takes Records, Total, Taken, Data and Memory,
// and sets the rest.
type Entry struct {
	// Seq is its number in the log, growing, from 1; gaps are possible.
	Seq uint64
	// Records is how many records it holds; Total how many its intake put into the log
	// with it: what lies between two totals can be counted without reading it.
	Records int
	Total   uint64
	// Intake names the process that appended it, where the log is not Exclusive: totals
	// are its own there. "" otherwise.
	Intake string
	// Timeline names the run of the process that gave out the number, and the log. A
	// copy of a log goes on under another one, so that (Timeline, Seq) names one entry
	// wherever it is kept. 128 bytes at most.
	Timeline string
	Taken    time.Time // when the spool took it
	Data     []byte
	// Memory counts who needs Data; nil: the garbage collector does.
	Memory Memory
}

// Memory is bytes that are used again when nobody needs them any more.
type Memory interface {
	Retain()
	Release()
}

// Log is one shard's batches. Append, Trim and DropOldest may be called while cursors
// read.
type Log interface {
	// ID names the log as long as its numbers go on; 128 bytes at most.
	ID() string
	// Exclusive: no other process appends to this log, or consumes it for the same
	// sinks.
	Exclusive() bool
	// Append keeps entries in their order, one call at a time. n of them are kept:
	// safe from a crash of the process, and of the machine once they are synced. The
	// others are not, and never will be, however late an answer comes: trying them
	// again, as the same *Entry, does not double them. The error wraps ErrFull when
	// there was no room for the first of these (and syscall.ENOSPC where the file
	// system has none), ErrTooLarge when it never will be, and ErrUncertain when it is
	// not known whether that one is kept.
	Append(ctx context.Context, entries []*Entry) (n int, err error)
	// Read begins to read behind an entry.
	Read(ctx context.Context, after uint64) (Cursor, error)
	// Trim gives up the entries up to a number, or some of them: it gives back space in
	// units of its own.
	Trim(ctx context.Context, upTo uint64) error
	// DropOldest gives up the oldest unit of space; any is false when there is none.
	DropOldest(ctx context.Context) (any bool, err error)
	// Bounds is what the log holds. That of an Exclusive log does not wait for the
	// disk, nor do its Timelines.
	Bounds(ctx context.Context) (Bounds, error)
	// Sync returns when all entries are safe from a crash of the machine.
	Sync(ctx context.Context) error
	// Timelines are those of the entries that the log holds, or held when it was
	// opened, the oldest first; the last one is that of new entries.
	Timelines() []Timeline
	// Skip has the next entry come behind a number, which something else has seen,
	// even if the log itself lost it; Bounds.Last is no less from then on.
	Skip(upTo uint64)
}

// Shared is a Log that is not Exclusive: other processes append to it, and consume it.
// Its Trim goes no further than any position that the Positions hold for it, whoever
// put it there.
type Shared interface {
	Log
	// Waiting is how many records are behind each of the numbers, whoever appended
	// them. What is trimmed does not wait.
	Waiting(ctx context.Context, after []uint64) ([]uint64, error)
}

// Timeline is a run of entries.
type Timeline struct {
	ID   string
	Last uint64 // its last entry, or the last number before it if it has none yet
}

// Cursor reads entries in their order. One goroutine uses it.
type Cursor interface {
	// Next is the next entry. It waits for one that comes later until ctx ends, where
	// the log is not Exclusive; otherwise the error is ErrEnd then. Damaged entries are
	// passed over. Data is valid until the Memory is released.
	Next(ctx context.Context) (Entry, error)
	Close()
}

// Bounds are what a log holds.
type Bounds struct {
	// First and Last are the numbers of the oldest entry and the newest one; without
	// any First is Last+1. Total is that of the last entry.
	First, Last, Total uint64
	Bytes              int64     // of the entries, without what is kept ready for more
	Oldest             time.Time // when the oldest entry was taken
	// UnsyncedRecords would be lost if the machine lost power now; the first of them
	// was appended at UnsyncedSince.
	UnsyncedRecords uint64
	UnsyncedSince   time.Time
	// UncertainRecords were appended, could not be synced, and could not be written
	// again: they may be there after a loss of power, or not.
	UncertainRecords uint64
	// DamagedRecords were in the log and can't be read any more, as far as is known.
	DamagedRecords uint64
}

var (
	// ErrEnd is the answer of a Cursor behind the last entry.
	ErrEnd = errors.New("the end of the log")
	// ErrFull says that there is no room for more.
	ErrFull = errors.New("the log is full")
	// ErrUncertain says that an entry may be kept, or may be later: the answer is not
	// there. Who appends the same *Entry again, as the first of the next call, gets
	// the answer then, and has it once; who gives it up counts it as uncertain.
	ErrUncertain = errors.New("not known whether the batch is kept")
	// ErrTooLarge says that one entry is larger than the log takes.
	ErrTooLarge = errors.New("the batch is too large")
)

// Positions keep small texts over a restart: how far each sink came, and what goes
// with that. Keys have letters, digits, '-', '_' and '.'. Where the logs are
// Exclusive only Flush waits for the disk. Elsewhere the error of Put wraps ErrFull where
// there is no room; Trim goes by what was to be put, then, and makes room.
type Positions interface {
	Get(ctx context.Context, key string) (value string, found bool, err error)
	Put(ctx context.Context, key, value string) error
	Remove(ctx context.Context, key string) error
	Keys(ctx context.Context) ([]string, error)
	// Claim puts a value where there is none; held is the one that is there then. Of
	// several processes that claim a key at once, one succeeds.
	Claim(ctx context.Context, key, value string) (held string, err error)
	// Flush makes what was put last.
	Flush(ctx context.Context) error
}

// Limits bound a log; 0: no bound.
type Limits struct {
	Bytes int64
	Age   time.Duration
	// DropOldest: old entries make room for new ones. Append may see to that, or
	// answer ErrFull: then its caller does, by Log.DropOldest.
	DropOldest bool
}

// Engine keeps logs.
type Engine interface {
	// Logs is how many there are already.
	Logs(ctx context.Context) (int, error)
	// Open opens the i-th log, and makes it if there is none.
	Open(ctx context.Context, i int, l Limits) (Log, error)
	// SetLimits changes the bounds of an open log.
	SetLimits(ctx context.Context, i int, l Limits) error
	Positions() Positions
	// MaxEntry bounds the Data of an entry, in bytes.
	MaxEntry() int
	// Place is where it is, without what is secret. Space is the size of its file
	// system and what is free there, in bytes; ok is false where that is not its own.
	Place() string
	Space() (size, free uint64, ok bool)
	Close(ctx context.Context) error
}

// Common is an Engine whose logs are Shared.
type Common interface {
	Engine
	// Backlogs are those of all sinks that have a position, of all processes, by sink
	// and shard.
	Backlogs(ctx context.Context) ([]Backlog, error)
	// Forget removes the positions of a sink, so that nothing is kept for it any more.
	// A sink that still runs puts its position down again when it moves. found is
	// false when there was none.
	Forget(ctx context.Context, sink string) (found bool, err error)
}

// Backlog is what a log keeps for a sink.
type Backlog struct {
	Sink    string
	Shard   int
	Seq     uint64 // the sink is done up to here
	Records uint64
	Bytes   int64     // an estimate
	Moved   time.Time // when the position was put down
}
