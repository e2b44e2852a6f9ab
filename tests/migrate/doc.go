// Package migrate runs siptraced migrate on configurations of real proxies: the
// samples that Debian's kamailio package installs, with siptrace lines as an
// operator writes them, and those of the recordings. patch takes what it
// prints, kamailio -c and siptraced check take the two halves, and the pair has
// to write the table that Kamailio alone wrote.
//
//	go test ./tests/migrate
//
// Environment as in tests/e2e; SIPTEST_LONG runs every pair end to end.
//
// The package has tests only.
package migrate
