// Package e2e drives the built siptraced binary from outside, with real
// databases, a real Kamailio and sipp.
//
//	go test ./tests/e2e                       everything
//	go test ./tests/e2e -run TestVectors      the recordings
//	go test ./tests/e2e -run - -bench .       rows per second
//
// Programs that are not installed fail the tests. Environment:
//
//	SIPTEST_BIN    the binary to drive, in place of one built now
//	SIPTEST_RACE   not empty: build it with the race detector
//	SIPTEST_LONG   not empty: the long forms
//	SIPTEST_LOGS   where the directories of servers are made
//
// The package has tests only.
package e2e
