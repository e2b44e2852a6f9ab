package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"siptraced/dbschema"
)

// errMoved says that somebody else wrote this shard's position: another
// siptraced on the same spool, or an earlier commit whose answer was lost.
var errMoved = errors.New("the position in the database is not the one expected")

// position reads how far this shard's rows are in the database, and makes the
// row that is updated from then on. tracked is false where the user may
// not use or make the table: rows are then written at least once. A database that
// knows nothing of the shard begins at start.
func (s *session) position(ctx context.Context, id string, start uint64) (seq uint64, tracked bool, err error) {
	text := dbschema.PositionSQL(s.dialect)
	read := func() error {
		ctx, cancel := context.WithTimeout(ctx, ioTimeout)
		defer cancel()
		var n int64
		err := s.conn.QueryRowContext(ctx, text.Select, id).Scan(&n)
		seq = uint64(n)
		return err
	}
	err = read()
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		if isDenied(err) { // by MariaDB also of a table that there is not
			return 0, false, nil
		}
		if !isMissing(err) {
			return 0, false, err
		}
		if _, err := s.exec(ctx, text.Create); err != nil {
			if isDenied(err) {
				return 0, false, nil
			}
			return 0, false, fmt.Errorf("table %s: %w", dbschema.PositionTable, err)
		}
		err = read()
	}
	if errors.Is(err, sql.ErrNoRows) {
		if _, err = s.exec(ctx, text.Insert, id, int64(start)); err != nil {
			if isDenied(err) {
				return 0, false, nil
			}
			return 0, false, fmt.Errorf("table %s: %w", dbschema.PositionTable, err)
		}
		seq = start
	}
	return seq, true, err
}

// advance moves the position inside the transaction that holds its rows.
func (s *session) advance(ctx context.Context, id string, from, to uint64) error {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	if s.move == nil {
		var err error
		if s.move, err = s.conn.PrepareContext(ctx, dbschema.PositionSQL(s.dialect).Update); err != nil {
			return err
		}
	}
	res, err := s.move.ExecContext(ctx, int64(to), id, int64(from))
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
