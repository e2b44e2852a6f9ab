// Package mirror drives the built siptraced binary from outside as what stands
// between a proxy and other collectors: HEP 1, 2 and 3 and SIP with X-Siptrace
// headers, over UDP, TCP and TLS, to one or many.
//
//	go test ./tests/mirror                    everything, short forms
//	go test ./tests/mirror -run TestVectors   the recordings
//	SIPTEST_LONG=1 go test ./tests/mirror -timeout 30m
//
// The other ends are sinks of the tests themselves, which compare bytes, and
// real programs: Kamailio with its modules siptrace and sipcapture, sngrep,
// sipgrep, rtpengine, hep-js (which npm installs for the test), tshark, kamcmd.
// Programs that are not installed fail the tests. Environment as in package e2e:
//
//	SIPTEST_BIN    the binary to drive, in place of one built now
//	SIPTEST_RACE   not empty: build it with the race detector (rings run without)
//	SIPTEST_LONG   not empty: the long forms
//	SIPTEST_LOGS   where the directories of servers are made
//
// After each test the daemon's books have to balance, those of each mirror as
// well. The package has tests only.
package mirror
