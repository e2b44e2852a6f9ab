package spool

import (
	"errors"
	"fmt"
	"time"
)

// What to do with new records when the spool is full.
const (
	RefuseNew  = "refuse-new"  // keep what is there, count what is refused
	DropOldest = "drop-oldest" // make room, count what is dropped
)

// Config is the spool's part of the configuration (key spool).
type Config struct {
	// Dir holds the files.
	Dir string
	// NATS is the address of a cluster, "nats://a,b,c", instead of Dir.
	NATS string
	// Credentials is a NATS credentials file, CA a certificate bundle; for NATS.
	Credentials, CA string
	// Monitor names the monitoring pages of the cluster's servers, for Probe; "": port
	// 8222 of each.
	Monitor string
	// Replicas of each stream in a cluster.
	Replicas int
	// Shards is the number of logs, and so of parallel writers of a sink.
	Shards int
	// SyncInterval is how often the files are synced to disk; 0: before each
	// acknowledgement. A crash of the process alone never loses what is spooled.
	SyncInterval time.Duration
	// MaxBytes and MaxAge bound what waits for the sinks, over all shards; 0: no
	// bound. Full says what happens at MaxBytes.
	MaxBytes int64
	MaxAge   time.Duration
	Full     string
	// A batch closes at BatchBytes or BatchAge, whichever comes first.
	BatchBytes int
	BatchAge   time.Duration
}

// DefaultConfig is an embedded spool in ./siptraced.spool.
func DefaultConfig() Config {
	return Config{
		Dir:          "siptraced.spool",
		Replicas:     3,
		Shards:       2,
		SyncInterval: 100 * time.Millisecond,
		MaxBytes:     8 << 30,
		Full:         RefuseNew,
		// 256 KiB are about 250 messages: large enough that the cost per
		// batch does not count, small enough to be one transaction.
		BatchBytes: 256 << 10,
		BatchAge:   10 * time.Millisecond,
	}
}

// Validate reports the first value that can't work.
func (c Config) Validate() error {
	switch {
	case c.Dir == "" && c.NATS == "":
		return errors.New("spool.dir is empty: name a directory")
	case c.Shards < 1 || c.Shards > 64:
		return fmt.Errorf("spool.shards is %d: 1 to 64 are possible", c.Shards)
	case c.Replicas < 1 || c.Replicas > 5:
		return fmt.Errorf("spool.replicas is %d: 1 to 5 are possible", c.Replicas)
	case c.Full != RefuseNew && c.Full != DropOldest:
		return fmt.Errorf("spool.full is %q: use %s or %s", c.Full, RefuseNew, DropOldest)
	case c.BatchBytes < 1<<10 || c.BatchBytes > 4<<20:
		return fmt.Errorf("spool.batch_bytes is %d: 1 KiB to 4 MiB are possible", c.BatchBytes)
	case c.BatchAge <= 0 || c.BatchAge > time.Minute:
		return fmt.Errorf("spool.batch_age is %s: over 0 and up to 1m are possible", c.BatchAge)
	case c.MaxBytes < 0 || c.MaxBytes > 0 && c.MaxBytes < 16<<20:
		return fmt.Errorf("spool.max_bytes is %d: 0 (no bound) or at least 16 MiB", c.MaxBytes)
	case c.MaxAge < 0 || c.SyncInterval < 0:
		return errors.New("spool.max_age and spool.sync_interval can't be negative")
	}
	return nil
}
