// Package daemon puts the rooms together: sockets, pipeline, spool, sinks;
// signals; the staged shutdown.
//
//	err := daemon.Run(ctx, daemon.Options{Load: load, Stdout: os.Stdout, Stderr: os.Stderr})
//
// Settings: a configuration is a value that is never changed. SIGHUP reads another
// one, and plan says what of it can be in force at once; remote control makes one
// with another value in it (config.Config.With); the state file does the same at
// start. All three end in apply, the only place that opens, changes or swaps. A
// setting that can change at run time says so once: Restart of config.Key or of
// siptrace.Spec is empty.
//
// # Order of locks
//
// A lock may be taken while one above it in the same list is held, never the other
// way round. What is not named here is a leaf: under it nothing is locked and
// nothing waits.
//
// Changes of settings:
//
//	daemon.mu                      one change of settings at a time
//	  rules.Engine.mu              the rules in force
//	    scope's shards, one each   the scopes of a rule that ends
//	  mirror.Mirrors.mu            the destinations
//	    spool.Spool.mu             the readers; never held during I/O
//	  config's cache.mu            the files that a configuration was made of
//
// State files, one each; written outside of the locks above:
//
//	daemon.saving                  reads the configuration in force, which needs no lock
//	rules.Engine.saving
//	  rules.Engine.mu              only to copy the rules
//
// The way of a message:
//
//	mirror.Mirrors.mu (read)       a destination that a rule names
//	spool's shard.mu               the batch that is being filled
//	spool.Spool.saving             the offsets are saved
//	  spool.Spool.mu
//	store's shared.createMu        one writer looks at the tables, or creates them
//	store's shared.sqliteMu        one transaction at a time in SQLite
//
// Who calls outwards holds nothing: the engine tells the daemon of rules that
// ended (rulesChanged takes daemon.mu) after it has let go of its own lock, and
// counters.Set calls its functions, which may take any of these, without its own.
//
// What it leaves out: the command line.
package daemon
