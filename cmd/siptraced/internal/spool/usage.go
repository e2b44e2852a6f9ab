package spool

import "time"

// Usage is how much the spool holds.
type Usage struct {
	// Place is the directory, or the address of the cluster without what is secret.
	Place string
	// Bytes is what it holds; MaxBytes is its bound, 0: none. What all sinks are done
	// with goes in units of up to 64 MiB, so that a spool for which nothing waits may
	// hold some of it. In a cluster this is as of the last second.
	Bytes, MaxBytes int64
	// Oldest is the age of the oldest message that waits for a sink, whether that runs
	// or not; 0: none waits.
	Oldest time.Duration
	// Unsynced is how many messages the machine would lose now with its power;
	// UnsyncedFor is the age of the first of them. Uncertain are messages that could
	// not be synced: a loss of power may cost them or not.
	Unsynced, Uncertain uint64
	UnsyncedFor         time.Duration
	// Full: new messages are refused, or the oldest ones dropped.
	Full bool
	// DiskFree is what the file system of the directory has free, in bytes; HasDisk is
	// false in a cluster.
	DiskFree uint64
	HasDisk  bool
}

// Share is how much of the bound is used, in percent; 0 without a bound.
func (u Usage) Share() uint64 {
	if u.MaxBytes <= 0 {
		return 0
	}
	return uint64(float64(u.Bytes) / float64(u.MaxBytes) * 100)
}

// Usage is how much the spool holds at this moment. It waits for nothing.
func (s *Spool) Usage() Usage {
	u := Usage{Place: s.engine.Place(), MaxBytes: s.bounds.Load().bytes, Full: s.Full()}
	first := map[*shard]time.Time{}
	for _, sh := range s.shards {
		b := sh.measured()
		first[sh] = b.Oldest
		u.Bytes += b.Bytes
		u.Unsynced += b.UnsyncedRecords
		u.Uncertain += b.UncertainRecords
		if b.UnsyncedRecords > 0 {
			u.UnsyncedFor = max(u.UnsyncedFor, time.Since(b.UnsyncedSince))
		}
	}
	for _, r := range s.registered() {
		switch {
		case !r.dormant:
			u.Oldest = max(u.Oldest, r.Lag())
		case r.needs() > 0:
			// What it keeps is in the oldest batches.
			u.Oldest = max(u.Oldest, time.Since(first[r.shard]))
		}
	}
	_, u.DiskFree, u.HasDisk = s.engine.Space()
	return u
}
