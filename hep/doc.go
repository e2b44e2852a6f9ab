// Package hep reads and writes HEP, the Homer Encapsulation Protocol, versions
// 1, 2 and 3: the envelope in which Kamailio, OpenSIPS, FreeSWITCH and capture
// agents send a copy of a message to a collector.
//
//	var p hep.Packet                    // reused for every datagram
//	if err := p.Decode(datagram); err != nil {
//		count(hep.Cause(err))           // "hep_truncated", "hep_bad_chunk", ...
//	}
//	use(p.Src, p.Dst, p.Payload)        // aliases datagram
//	out, err := p.Append(out[:0])       // the bytes that Kamailio would write
//
// Sources: "HEP3 Network Protocol Specification", rev. 12 and later
// (github.com/sipcapture/HEP), for version 3; versions 1 and 2 have no document
// and are what the siptrace module of Kamailio sends.
//
// # What is read
//
//   - Chunks of HEP3 in any order. Of a repeated chunk the last one counts; so
//     it does where an IPv4 and an IPv6 address are given for the same end.
//     Vendor chunks, and generic ones not known here, are kept in order.
//   - The address family in HEP3 is taken from the address chunks, not from
//     chunk 1. In HEP1 and HEP2, AF_INET6 of the BSDs, Darwin and Solaris is
//     understood beside Linux's 10, as Kamailio sends what its host has.
//   - IPv4-mapped IPv6 addresses become IPv4 addresses.
//   - Compressed payload, zlib or gzip, is inflated up to [MaxInflated] bytes.
//   - A size that doesn't fit, anywhere, refuses the packet.
//
// # What is written
//
// The chunks in Kamailio's order, numbers as received. One packet has one
// address family: an IPv4 end beside an IPv6 end goes out IPv4-mapped. What
// version 1 or 2 has no place for (key, correlation id, upper half of the
// capture id, ...) is left out, as by Kamailio.
//
// # What it leaves out
//
// The payload's meaning, comparing keys, sockets, and compressing.
package hep
