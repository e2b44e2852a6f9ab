// Package servers starts the real programs that the tests need: MariaDB,
// PostgreSQL, Kamailio, sipp, agents of HEP and the built siptraced binary.
//
//	db := servers.StartMariaDB(t)
//	db.CreateDatabase(t, "trace", "utf8mb4")
//	d := servers.StartSiptraced(t, servers.Args("run", "--set", "siptrace.db_url="+db.URL("trace")))
//	...
//	code := d.Stop(t)
//
// Main is the TestMain of packages that drive siptraced.
//
// Everything listens on loopback only, on ports that were free a moment
// before, in a directory of its own, and ends with the test; so tests can run
// side by side and beside servers that the machine runs for itself. A program
// that is not installed fails the test.
//
// It leaves out whatever a test asks of a server once it runs: tables, SQL,
// SIP messages.
package servers
