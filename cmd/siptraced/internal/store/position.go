package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"siptraced/dbschema"
)

// errMoved says that somebody else moved the position: another siptraced of a
// cluster, or one with a copy of the spool; or an earlier COMMIT did whose answer was
// lost.
var errMoved = errors.New("the position in the database is not the one expected")

// findPositions looks for the table of positions, and makes it where it is missing.
// tracked is false where the user may not do so: rows are then written at least once.
func (s *session) findPositions(ctx context.Context) (tracked bool, err error) {
	_, _, err = s.position(ctx, "")
	if isMissing(err) {
		if _, err = s.exec(ctx, dbschema.PositionSQL(s.dialect).Create); err != nil && !isDenied(err) {
			err = fmt.Errorf("table %s: %w", dbschema.PositionTable, err)
		}
	}
	if isDenied(err) { // by MariaDB also of a table that there is not
		return false, nil
	}
	return err == nil, err
}

// position reads one; found is false if the table has no such row.
func (s *session) position(ctx context.Context, row string) (seq uint64, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	var n int64
	err = s.conn.QueryRowContext(ctx, dbschema.PositionSQL(s.dialect).Select, row).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return uint64(n), err == nil, err
}

// claim makes the row of a position. Where somebody else was faster, that one's
// counts: made is false then. tracked is false where the user may not make rows.
func (s *session) claim(ctx context.Context, row string, start uint64) (at uint64, made, tracked bool, err error) {
	_, err = s.exec(ctx, dbschema.PositionSQL(s.dialect).Insert, row, int64(start))
	if err == nil {
		return start, true, true, nil
	}
	if isDenied(err) {
		return 0, false, false, nil
	}
	if at, found, readErr := s.position(ctx, row); readErr == nil && found {
		return at, false, true, nil
	}
	return 0, false, false, fmt.Errorf("table %s: %w", dbschema.PositionTable, err)
}

// forget removes the row of a position, where the user may do so.
func (s *session) forget(ctx context.Context, row string) error {
	_, err := s.exec(ctx, dbschema.PositionSQL(s.dialect).Delete, row)
	if err != nil && !isDenied(err) {
		return fmt.Errorf("table %s: %w", dbschema.PositionTable, err)
	}
	return nil
}

// advance moves a position inside the transaction that holds its rows.
func (s *session) advance(ctx context.Context, m move) error {
	ctx, end := s.bounded(ctx)
	defer end()
	if s.move == nil {
		var err error
		if s.move, err = s.conn.PrepareContext(ctx, dbschema.PositionSQL(s.dialect).Update); err != nil {
			return err
		}
	}
	res, err := s.move.ExecContext(ctx, int64(m.to), m.row, int64(m.from))
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return errMoved
	}
	return nil
}
