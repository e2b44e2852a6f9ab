// Package vectors reads the recordings of the real siptrace module in data/,
// sends their packets to a collector, and tells where the collector's rows
// differ from the rows that the module itself wrote.
//
//	s, err := vectors.Load("hep3-core")
//	wants, err := s.Wants(vectors.UTF8)
//	err = vectors.Feed(ctx, "127.0.0.1:9060", s.Datagrams)
//	for _, p := range vectors.Compare(wants, rows, vectors.UTF8) {
//		t.Error(p)
//	}
//
// Each packet leads to one row or to none, and Wants says to which: to the row
// that the module wrote for the same message, changed and added to only by the
// table Differences. The HEP decoder and the few lines that look into SIP are
// the package's own, so that the code under test does not vouch for itself.
//
// What a collector sends on is told in the same way:
//
//	list, err := vectors.Mirrors()
//	sink, err := vectors.Collect("udp", "127.0.0.1:9061", nil)
//	err = vectors.Feed(ctx, m.Input, "127.0.0.1:9060", m.In)
//	for _, p := range vectors.CompareOut(m.Out, sink.Packets(), window) {
//		t.Error(p)
//	}
//
// Each Mirror is one way to use a recording: HEP in and the same HEP out, SIP
// duplicates with X-Siptrace headers in, HEP made from rows in. What must come
// out is written by the package itself, and has to be what the module sent in the
// same run, but for the table MirrorDifferences.
//
// It leaves out how the rows are read from a database.
package vectors
