// Package dryrun says what the rules of a configuration would do with the
// messages of a capture: nothing is stored or sent.
//
//	err := dryrun.Run(cfg, "call.pcap", os.Stdout)
//
// Captures are pcap and pcapng files with SIP or HEP over UDP, and files with one
// JSON object per line: hex (the packet), t (epoch seconds), transport, src and
// dst (address:port).
//
// What it leaves out: SIP over TCP, which a capture shows in segments.
package dryrun
