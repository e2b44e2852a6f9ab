// Package loop keeps a message from going round between siptraceds that mirror
// to each other, and from being stored twice when its delivery is repeated.
//
//	id, err := loop.OpenID("/var/lib/siptraced/spool/instance")
//	d := loop.New(id, counters, log)
//	path = id.AppendTo(path, rec.Path)        // a mirror, over HEP3
//	d.Sent(rec.Msg, false)                    // a mirror, before it writes without a path
//	switch v, t := d.Check(packet, text, rec.Path); v {  // the intake
//	case loop.Returned:                       // counted as dropped.loop
//	case loop.Parked:                         // the packet comes again, by d.Run
//	default:
//		d.Sending(t, n)                   // to n mirrors over HEP3
//	}
//
// # By path
//
// Over HEP3 every mirrored packet has a chunk with the ids of the instances that
// it passed. A packet with the receiver's own id in it is dropped. This needs no
// memory and can't be wrong.
//
// # By memory
//
// HEP1, HEP2 and SIP have no place for a path. What is sent is remembered by a
// hash of its text, once per copy. A copy that comes back takes one of these
// away and is dropped, if its sender is known to be a mirror. A sender is asked
// when it first sends a text that is remembered: the question is 16 bytes of
// line ends, which every SIP and HEP receiver ignores, and which a mirror of
// siptraced answers with a HEP3 packet of its own. Packets from this sender are
// parked until the answer is there, for two seconds at the most. Agents do not
// answer, so nothing they repeat is dropped.
//
// What comes back from others than siptraced over and over is still stored, and
// no longer mirrored.
//
// # Repeated deliveries
//
// Over TCP and TLS each packet has a number within its stream ([Streams]). A
// sender that lost an acknowledgement sends again, and the receiver knows the
// number.
//
// It leaves out: sockets, decoding, and the counters of the intake.
package loop
