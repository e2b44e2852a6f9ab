package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestJudge(t *testing.T) {
	tests := []struct {
		err  error
		want verdict
	}{
		{driver.ErrBadConn, wait},
		{mysql.ErrInvalidConn, wait},
		{io.ErrUnexpectedEOF, wait},
		{mysql.ErrPktTooLarge, refused},
		{&mysql.MySQLError{Number: 1366}, refused}, // incorrect string value
		{&mysql.MySQLError{Number: 1406}, refused}, // data too long
		{&mysql.MySQLError{Number: 4025}, refused}, // check constraint
		{&mysql.MySQLError{Number: 1146}, wait},    // no such table: may be made
		{&mysql.MySQLError{Number: 1290}, wait},    // read-only
		{&mysql.MySQLError{Number: 1213}, wait},    // deadlock
		{&mysql.MySQLError{Number: 1205}, wait},    // lock wait timeout
		{&mysql.MySQLError{Number: 1040}, wait},    // too many connections
		{&mysql.MySQLError{Number: 1045}, wait},    // access denied
		{&mysql.MySQLError{Number: 1114}, wait},    // table is full
		{&mysql.MySQLError{Number: 1644}, unknown}, // trigger
		{&pgconn.PgError{Code: "22021"}, refused},  // character not in repertoire
		{&pgconn.PgError{Code: "23514"}, refused},  // check violation
		{&pgconn.PgError{Code: "42P01"}, wait},     // undefined table
		{&pgconn.PgError{Code: "57P01"}, wait},     // admin shutdown
		{&pgconn.PgError{Code: "53100"}, wait},     // disk full
		{&pgconn.PgError{Code: "40001"}, wait},     // serialization failure
		{&pgconn.PgError{Code: "25006"}, wait},     // read-only transaction
		{&pgconn.PgError{Code: "P0001"}, unknown},  // raised by a trigger
		{&pgconn.PgError{}, wait},
	}
	for _, tt := range tests {
		if got := judge(fmt.Errorf("insert: %w", tt.err)); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.err, got, tt.want)
		}
	}
	if !isMissing(errors.Join(&mysql.MySQLError{Number: 1146})) || isMissing(&mysql.MySQLError{Number: 1045}) {
		t.Error("isMissing")
	}
}
