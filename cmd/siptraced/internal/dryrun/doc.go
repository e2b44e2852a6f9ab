// Package dryrun says what the rules of a configuration would do with the
// messages of a capture: nothing is stored or sent.
//
//	err := dryrun.Run(cfg, "call.pcap", os.Stdout)
//
// The files are those of package capture.
package dryrun
