// Package control drives remote control of the built siptraced binary from
// outside: with Debian's kamcmd and kamctl, unmodified, beside a real Kamailio
// that answers the same commands, and with recorded requests.
//
//	go test ./tests/control                       everything
//	go test ./tests/control -run TestPrograms     the programs, side by side
//	go test ./tests/control -run - -bench .       requests per second
//
// Programs that are not installed fail the tests. Environment:
//
//	SIPTEST_BIN    the binary to drive, in place of one built now
//	SIPTEST_RACE   not empty: build it with the race detector
//	SIPTEST_LOGS   where the directories of servers are made
//
// The package has tests only.
package control
