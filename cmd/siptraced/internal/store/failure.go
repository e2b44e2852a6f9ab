package store

import (
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// verdict says what an error of the database means for the rows in hand.
type verdict int

const (
	// wait: time or the operator can mend it; the same rows are tried again over
	// a new connection.
	wait verdict = iota
	// refused: something about the row itself; the same row would be refused
	// again.
	refused
	// unknown: it may be the row. When each row alone gets the same answer it is
	// not, and the error counts as wait.
	unknown
)

func judge(err error) verdict {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) {
		return wait
	}
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return refused
	}
	if my := (*mysql.MySQLError)(nil); errors.As(err, &my) {
		return judgeMySQL(my.Number)
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return judgePostgres(pg.Code)
	}
	if lite := (*sqlite.Error)(nil); errors.As(err, &lite) {
		return judgeSQLite(lite.Code())
	}
	return wait // the network, a timeout, the driver
}

// judgeMySQL: error numbers of the MariaDB and MySQL server error reference.
func judgeMySQL(n uint16) verdict {
	switch n {
	case 1048, // column can't be null
		1062,             // duplicate key
		1264,             // out of range
		1265,             // data truncated
		1292, 1366, 1411, // incorrect value for the type, the character set, a function
		1406, // data too long
		1452, // foreign key
		1153, // packet larger than max_allowed_packet
		4025, // check constraint of MariaDB
		3819: // check constraint of MySQL
		return refused
	case 1105, // no other name
		1118, // row size too large
		1364, // field without default
		1644: // signalled by a trigger
		return unknown
	}
	return wait
}

// judgePostgres: classes of SQLSTATE, PostgreSQL documentation, appendix A.
func judgePostgres(code string) verdict {
	if len(code) < 2 {
		return wait
	}
	switch code[:2] {
	case "22", "23", "44": // data exception, integrity constraint, check option
		return refused
	case "54", "P0", "0A": // program limit exceeded, raised by a trigger, feature not supported
		return unknown
	}
	return wait
}

// judgeSQLite: primary result codes, https://www.sqlite.org/rescode.html.
func judgeSQLite(code int) verdict {
	switch code & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
		return refused
	case sqlite3.SQLITE_ERROR:
		return unknown
	}
	return wait
}

// isMissing reports whether an error says that a table does not exist.
func isMissing(err error) bool {
	if my := (*mysql.MySQLError)(nil); errors.As(err, &my) {
		return my.Number == 1146
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return pg.Code == "42P01"
	}
	lite := (*sqlite.Error)(nil)
	return errors.As(err, &lite) && strings.Contains(lite.Error(), "no such table")
}

// isDenied reports whether the user lacks the right.
func isDenied(err error) bool {
	if my := (*mysql.MySQLError)(nil); errors.As(err, &my) {
		return my.Number == 1142 || my.Number == 1044 || my.Number == 1227
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return pg.Code == "42501"
	}
	return false
}
