package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestJudge(t *testing.T) {
	sqlState := func(n uint16, state string) error {
		e := &mysql.MySQLError{Number: n}
		copy(e.SQLState[:], state)
		return e
	}
	tests := []struct {
		err  error
		want scope
	}{
		{driver.ErrBadConn, lost},
		{mysql.ErrInvalidConn, lost},
		{io.ErrUnexpectedEOF, lost},
		{context.DeadlineExceeded, lost},
		{mysql.ErrPktTooLarge, ofRow},
		{&mysql.MySQLError{Number: 1366}, ofRow},       // incorrect string value
		{&mysql.MySQLError{Number: 1406}, ofRow},       // data too long
		{&mysql.MySQLError{Number: 4025}, ofRow},       // check constraint
		{&mysql.MySQLError{Number: 1369}, ofRow},       // check option of a view
		{&mysql.MySQLError{Number: 1644}, ofRow},       // trigger
		{&mysql.MySQLError{Number: 1105}, ofRow},       // parameter longer than max_allowed_packet
		{&mysql.MySQLError{Number: 1526}, ofPartition}, // no partition for the value
		{&mysql.MySQLError{Number: 1146}, ofTable},     // no such table: may be made
		{&mysql.MySQLError{Number: 1142}, ofTable},     // no right to insert
		{sqlState(167, "22003"), ofTable},              // AUTO_INCREMENT at its end
		{&mysql.MySQLError{Number: 1290}, ofServer},    // read-only
		{&mysql.MySQLError{Number: 1213}, ofServer},    // deadlock
		{&mysql.MySQLError{Number: 1205}, ofServer},    // lock wait timeout
		{&mysql.MySQLError{Number: 1040}, ofServer},    // too many connections
		{&mysql.MySQLError{Number: 1045}, ofServer},    // access denied
		{&mysql.MySQLError{Number: 1114}, ofServer},    // table is full
		{sqlState(30001, "45000"), ofRow},              // a trigger's own number
		{sqlState(30001, "HY000"), unknown},
		{&pgconn.PgError{Code: "22021"}, ofRow}, // character not in repertoire
		{&pgconn.PgError{Code: "23514", ConstraintName: "c"}, ofRow},
		{&pgconn.PgError{Code: "23514"}, ofPartition}, // no partition of relation found for row
		{&pgconn.PgError{Code: "2200H"}, ofTable},     // sequence at its end
		{&pgconn.PgError{Code: "42P01"}, ofTable},     // undefined table
		{&pgconn.PgError{Code: "42501"}, ofTable},     // no right to insert
		{&pgconn.PgError{Code: "57014"}, unknown},     // cancelled, also by COPY's own encoder
		{&pgconn.PgError{Code: "57P01"}, ofServer},    // admin shutdown
		{&pgconn.PgError{Code: "53100"}, ofServer},    // disk full
		{&pgconn.PgError{Code: "40001"}, ofServer},    // serialization failure
		{&pgconn.PgError{Code: "25006"}, ofServer},    // read-only transaction
		{&pgconn.PgError{Code: "P0001"}, ofRow},       // raised by a trigger
		{&pgconn.PgError{}, unknown},
		{&noRowError{"t", &mysql.MySQLError{Number: 1644}}, ofRow},
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
