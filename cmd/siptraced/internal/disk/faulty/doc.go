// Package faulty is a disk in memory that lies, for tests of what is kept on one.
//
// It keeps apart what a process wrote and what is on the medium: contents of files
// per sector, names per directory. A Process sees all that was written. A kill of
// the process leaves that; a loss of power (PowerLoss, CrashClone) leaves what was
// synced, and of the rest whatever chance says: nothing, all, a beginning, sectors
// in any order, torn ones. Everything chance says comes from the seed.
//
//	d := faulty.New(1)
//	p := d.Start()                       // a disk.FS
//	f, err := p.Open("dir/file", os.O_RDWR|os.O_CREATE)
//	...
//	d.Inject(faulty.Fault{Ops: faulty.Sync, Err: syscall.EIO, Times: 1})
//	after := d.CrashClone(7)             // what a machine would find after a loss of power now
//	p.Kill()                             // the process is gone: its files stay as they are
//	p = d.Start()
//
// After a failed Sync the pages that it should have written count as clean, as with
// Linux' file systems: some of them are on the medium and some are not, the next
// Sync does not write them and succeeds, and what is read may be either.
//
// Times are those of package time, so that in a bubble of testing/synctest nothing
// waits in earnest.
//
// Not included: permissions, links.
package faulty
