// Package rules drives the daemon's rules from outside: the event route, traced
// users and tables, scopes, rules by RPC and file, and the parameters that decide
// what is traced, with recordings of the real module, real databases and
// Kamailio's own programs.
//
//	go test ./tests/rules
//
// Environment as in package e2e, but for SIPTEST_LONG: there are no long forms.
// The package has tests only.
package rules
