// Package rules drives the daemon's rules from outside: the event route, traced
// users and tables, scopes, rules by RPC and file, and the parameters that decide
// what is traced, with recordings of the real module, real databases and
// Kamailio's own programs.
//
//	go test ./tests/rules
//	SIPTEST_LONG=1 go test ./tests/rules    # more dialogs
package rules
