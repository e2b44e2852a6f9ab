// Package capture reads messages from files: pcap and pcapng, streams of HEP3 as they
// went over TCP, lines of JSON, and the reject file.
//
//	err := capture.Read(in, func(i capture.Item) error { ... })
//
// A pcap file may have HEP and SIP over UDP and TCP, in IP fragments and in segments
// of any order; a stream that lacks segments is followed again from the next message
// on. A line of JSON has hex (the packet), t (epoch seconds), transport, src and dst
// (address:port), or is one of the reject file (package rejects).
//
// What it leaves out: TLS, SCTP and fragments of IPv6.
package capture
