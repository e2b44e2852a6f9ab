package spool

import "time"

// Usage is how much the spool holds.
type Usage struct {
	// Place is the directory, or the address of the cluster without what is secret.
	Place string
	// Bytes is what it holds, as of the last second; MaxBytes is its bound, 0: none.
	// What all sinks are done with goes in blocks of some MiB, so that a spool for
	// which nothing waits may hold some of it.
	Bytes, MaxBytes int64
	// Oldest is the age of the oldest message that waits for a sink, whether that runs
	// or not; 0: none waits.
	Oldest time.Duration
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

// Usage is how much the spool holds at this moment.
func (s *Spool) Usage() Usage {
	u := Usage{Place: s.cfg.Dir, MaxBytes: s.bounds.Load().bytes, Full: s.Full()}
	if s.Shared() {
		u.Place = s.engine.conn.ConnectedUrlRedacted()
	}
	for _, sh := range s.shards {
		u.Bytes += sh.bytes.Load()
	}
	for _, r := range s.registered() {
		switch {
		case !r.dormant:
			u.Oldest = max(u.Oldest, r.Lag())
		case r.needs() > 0:
			// What it keeps is in the oldest batches.
			u.Oldest = max(u.Oldest, time.Since(time.Unix(0, r.shard.first.Load())))
		}
	}
	_, u.DiskFree, u.HasDisk = s.engine.disk()
	return u
}
