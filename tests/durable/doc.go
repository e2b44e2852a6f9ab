// Package durable shows that nothing which siptraced took in is lost or
// written twice, whatever is killed, cut off, filled up or damaged meanwhile.
//
//	go test ./tests/durable                    everything, short forms
//	go test ./tests/durable -run KillDaemon
//	SIPTEST_LONG=1 go test ./tests/durable -timeout 60m
//
// The tests drive the built binary from outside, with real servers (MariaDB, a
// Galera cluster of it, PostgreSQL, SQLite, a NATS cluster) on loopback. A
// sender numbers each message and asks by HEP keep-alives which ones were
// accepted; in the end the table is read row by row and compared with what the
// sender knows. Every test logs its figures. The binary is built without the
// race detector, since rates, times and memory count here. Environment as in
// package e2e:
//
//	SIPTEST_BIN    the binary to drive, in place of one built now
//	SIPTEST_LONG   not empty: the long forms
//	SIPTEST_LOGS   where the directories of servers are made
//
// Beside them, SIPTEST_SEED repeats the random moments and places of an earlier
// run, which logged its seed. A file system of limited size is a tmpfs: that
// test needs to be root, or sudo without a password.
//
// The package has tests only. What it leaves out: contents of rows beyond the
// message (package e2e) and speed.
package durable
