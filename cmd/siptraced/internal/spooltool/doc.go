// Package spooltool looks into the directory of a spool from outside: what is in it
// and what is wrong with it (Check), the messages themselves (Dump), what can be
// mended (Repair), and sinks that never come back (Forget).
//
//	report, err := spooltool.Check(ctx, "siptraced.spool", spooltool.CheckOptions{})
//	err = report.Text(os.Stdout)
//	dumped, err := spooltool.Dump(ctx, "siptraced.spool", spooltool.DumpOptions{Format: spooltool.PCAPNG, Out: file})
//
// Check and Dump only read, and may be used on the directory of a running daemon, or
// on a copy of one. Repair and Forget take the directory's lock.
//
// Not included: the files themselves (package segments), clusters.
package spooltool
