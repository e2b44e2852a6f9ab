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

// scope says what an error of the database is about, and so what is to be done
// with the rows in hand. It is a suspicion only: a row is not rejected before
// the table has taken another one (see confirm), and whatever has no name here is
// tried row by row after a while (see suspects).
type scope int

const (
	// unknown: an error without a name here.
	unknown scope = iota
	// lost: no answer, or none of the server's: the network, a timeout, the driver.
	lost
	// ofServer: the server takes nothing now, whatever it is. Wait.
	ofServer
	// ofTable: the table takes nothing as it is. Wait, and look at it again.
	ofTable
	// ofPartition: there is no place for a row of this time. It may be the row's
	// clock, or a partition that nobody made.
	ofPartition
	// ofRow: something about the row.
	ofRow
)

func judge(err error) scope {
	switch {
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, mysql.ErrInvalidConn):
		return lost
	case errors.Is(err, mysql.ErrPktTooLarge): // by the driver, before it is sent
		return ofRow
	}
	if my := (*mysql.MySQLError)(nil); errors.As(err, &my) {
		return judgeMySQL(my)
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return judgePostgres(pg)
	}
	if lite := (*sqlite.Error)(nil); errors.As(err, &lite) {
		return judgeSQLite(lite)
	}
	return lost
}

// scopeOfMySQL knows the numbers of MySQL 8.4 (Server Error Message Reference)
// and of MariaDB (MariaDB Error Code Reference); they differ from 1900 on.
func scopeOfMySQL(number uint16) scope {
	switch number {
	case 1048, // ER_BAD_NULL_ERROR
		1062, 1169, 1586, 1859, // ER_DUP_ENTRY, _DUP_UNIQUE, _DUP_ENTRY_WITH_KEY_NAME, _DUP_UNKNOWN_IN_INDEX
		1105,             // ER_UNKNOWN_ERROR: a parameter longer than max_allowed_packet
		1118, 1153, 1301, // ER_TOO_BIG_ROWSIZE, _NET_PACKET_TOO_LARGE, _WARN_ALLOWED_PACKET_OVERFLOWED
		1216, 1452, 1557, 1761, 1762, // ER_NO_REFERENCED_ROW, _2, ER_FOREIGN_DUPLICATE_KEY and its kin
		1264, 1265, 1406, // ER_WARN_DATA_OUT_OF_RANGE, WARN_DATA_TRUNCATED, ER_DATA_TOO_LONG
		1292, 1366, 1367, 1411, // ER_TRUNCATED_WRONG_VALUE, _FOR_FIELD, ER_ILLEGAL_VALUE_FOR_TYPE, _WRONG_VALUE_FOR_TYPE
		1300, 3140, // ER_INVALID_CHARACTER_STRING, _INVALID_JSON_TEXT
		1369,       // ER_VIEW_CHECK_FAILED
		1441, 1690, // ER_DATETIME_FUNCTION_OVERFLOW, _DATA_OUT_OF_RANGE
		1644,       // ER_SIGNAL_EXCEPTION: a trigger
		3819, 4025: // ER_CHECK_CONSTRAINT_VIOLATED, MariaDB ER_CONSTRAINT_FAILED
		return ofRow
	case 1526, 1591, // ER_NO_PARTITION_FOR_GIVEN_VALUE, _SILENT
		1748: // ER_ROW_DOES_NOT_MATCH_GIVEN_PARTITION_SET
		return ofPartition
	case 167, 1467, 4084, // HA_ERR_AUTOINC_ERANGE, ER_AUTOINC_READ_FAILED, MariaDB ER_SEQUENCE_RUN_OUT
		1036,                         // ER_OPEN_AS_READONLY
		1051, 1054, 1146, 1136, 1364, // ER_BAD_TABLE_ERROR, _BAD_FIELD_ERROR, _NO_SUCH_TABLE, _WRONG_VALUE_COUNT_ON_ROW, _NO_DEFAULT_FOR_FIELD
		1142, 1143, 1227, 1370, // ER_TABLEACCESS_DENIED_ERROR, _COLUMNACCESS_, _SPECIFIC_ACCESS_, _PROCACCESS_
		1194, 1195, // ER_CRASHED_ON_USAGE, _ON_REPAIR
		1305, 1449, // ER_SP_DOES_NOT_EXIST, _NO_SUCH_USER: of a trigger
		1347, 1356, 1393, 1394, 1471, // ER_WRONG_OBJECT and views that take no rows
		1412, 1615: // ER_TABLE_DEF_CHANGED, _NEED_REPREPARE
		return ofTable
	case 1021, 1037, 1041, 1114, // ER_DISK_FULL, _OUTOFMEMORY, _OUT_OF_RESOURCES, _RECORD_FILE_FULL
		1040, 1203, 1226, // ER_CON_COUNT_ERROR, _TOO_MANY_USER_CONNECTIONS, _USER_LIMIT_REACHED
		1044, 1045, 1049, 1698, // ER_DBACCESS_DENIED_ERROR, _ACCESS_DENIED_ERROR, _BAD_DB_ERROR, _ACCESS_DENIED_NO_PASSWORD
		1047,       // ER_UNKNOWN_COM_ERROR: a Galera node that is not ready
		1053, 1927, // ER_SERVER_SHUTDOWN, MariaDB ER_CONNECTION_KILLED
		1205, 1206, 1213, // ER_LOCK_WAIT_TIMEOUT, _LOCK_TABLE_FULL, _LOCK_DEADLOCK
		1290, 1792, 1836: // ER_OPTION_PREVENTS_STATEMENT, _CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, _READ_ONLY_MODE
		return ofServer
	}
	return unknown
}

func judgeMySQL(err *mysql.MySQLError) scope {
	if s := scopeOfMySQL(err.Number); s != unknown {
		return s
	}
	// A number that is newer than this table, or that a trigger chose
	// (SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = ...).
	switch string(err.SQLState[:2]) {
	case "22", "23", "44", "45":
		return ofRow
	case "42":
		return ofTable
	case "08", "28", "40":
		return ofServer
	}
	return unknown
}

// judgePostgres goes by SQLSTATE: PostgreSQL documentation, appendix A.
func judgePostgres(err *pgconn.PgError) scope {
	switch {
	case err.Code == "2200H": // sequence_generator_limit_exceeded
		return ofTable
	case err.Code == "23514" && err.ConstraintName == "":
		// check_violation of no constraint: no partition found for the row.
		return ofPartition
	case err.Code == "57014": // query_canceled: also what the driver makes of a value that COPY can't hold
		return unknown
	case len(err.Code) < 2:
		return unknown
	}
	switch err.Code[:2] {
	case "21", "22", "23", "44": // cardinality violation, data exception, integrity constraint, check option
		return ofRow
	case "54", "P0", "38", "39", "2F": // program limit exceeded, PL/pgSQL, external routines, SQL routine
		return ofRow
	case "26", "3D", "3F", "42", "55": // statement name, catalog, schema, access rule, object state
		return ofTable
	case "08", "25", "28", "40", "53", "57", "58": // connection, transaction, authorization, rollback, resources, operator, system
		return ofServer
	}
	return unknown
}

// judgeSQLite goes by primary result codes: https://www.sqlite.org/rescode.html.
func judgeSQLite(err *sqlite.Error) scope {
	switch err.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
		return ofRow
	case sqlite3.SQLITE_SCHEMA:
		return ofTable
	case sqlite3.SQLITE_ERROR:
		// There is no code for these.
		for _, text := range []string{"no such table", "no such column", "has no column named", "no such function", "no such view"} {
			if strings.Contains(err.Error(), text) {
				return ofTable
			}
		}
		return unknown
	case sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISUSE:
		return unknown
	}
	return ofServer // busy, full, read-only, input and output, damaged
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
