package store

import "os"

// mysqlSocket is the server's socket where Debian and the upstream packages put
// it, or empty.
func mysqlSocket() string {
	for _, p := range []string{"/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"} {
		if st, err := os.Stat(p); err == nil && st.Mode()&os.ModeSocket != 0 {
			return p
		}
	}
	return ""
}
