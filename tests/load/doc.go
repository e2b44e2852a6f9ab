// Package load makes SIP traffic as a proxy mirrors it: the messages of many
// interleaved calls, in HEP3 packets.
//
//	for _, m := range load.Calls(20000, time.Now()) {
//		conn.Write(m.Packet)
//	}
//
// The same arguments give the same bytes. It leaves out sending: tests send at
// the rate that they need.
package load
