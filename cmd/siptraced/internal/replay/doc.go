// Package replay puts back what is in a file: rows that the database refused into
// their tables, and messages, of the reject file or of a capture (package capture),
// to a running siptraced.
//
//	err := replay.Run(ctx, replay.Options{Config: cfg, File: "siptraced.rejects.jsonl", Out: os.Stdout})
//
// Each is put back once, however often that is tried, and wherever it was interrupted:
// a row is in the transaction that notes its name; a message has the place in its file
// as its origin, by which siptraced knows what it has. siptraced acknowledges messages
// when they are in its spool; what is not acknowledged goes again.
package replay
