// Package disk is the file system as the spool uses it: few calls, each with what
// it promises after a crash of the machine, so that a test can put the spool on a
// disk that lies.
//
//	f, err := disk.OS.Open("0000000001.seg", os.O_RDWR|os.O_CREATE)
//	err = f.Allocate(64 << 20)
//	_, err = f.WritevAt([][]byte{header, body}, 0)
//	err = f.Sync()
//	err = disk.OS.SyncDir(".") // the name is safe now, too
//
// Not included: reading of whole trees, permissions, links.
package disk
