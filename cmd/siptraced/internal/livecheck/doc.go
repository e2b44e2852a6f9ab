// Package livecheck asks the world whether a configuration can work: the database,
// the ports, the spool's directory, the files; then one message goes all the way
// through sockets, spool and database, into a table that is made for it.
//
//	err := livecheck.Run(ctx, cfg, os.Stdout) // errors.Is(err, livecheck.ErrFailed)
//
// Nothing stays behind: what is written is rolled back, and what is made is removed
// again, also after a failure and when ctx ends. A siptraced that runs with this
// configuration is found by its remote control; what is in use by it is as it should
// be.
//
// What it leaves out: mirrors, whose peers it asks nothing.
package livecheck
