package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"

	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
	"siptraced/hep"
)

// PutBack writes rows of the reject file into the database, each of them once,
// however often that is tried: its name goes into the table of positions in the
// transaction that holds the row.
type PutBack struct {
	session *session
	cfg     Config
	decoder spool.Decoder
	packet  hep.Packet
}

// ErrThere says that a row was put back before.
var ErrThere = errors.New("the row was put back before")

// NewPutBack connects.
func NewPutBack(ctx context.Context, cfg Config) (*PutBack, error) {
	s, _, err := dial(ctx, &cfg, 0)
	if err != nil {
		return nil, err
	}
	p := &PutBack{session: s, cfg: cfg}
	if err := p.findPositions(ctx); err != nil {
		s.close()
		return nil, fmt.Errorf("table %s can't be used, and without it rows could be put back twice: %w; make it with: siptraced schema create, as a user that may make tables", dbschema.PositionTable, err)
	}
	return p, nil
}

// findPositions looks for the table of positions, and makes it where it is missing.
func (p *PutBack) findPositions(ctx context.Context) error {
	text := dbschema.PositionSQL(p.session.dialect)
	look := func() error {
		var n int64
		err := p.session.conn.QueryRowContext(ctx, text.Select, putBackName).Scan(&n)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	}
	err := look()
	if !isMissing(err) {
		return err
	}
	if _, err := p.session.exec(ctx, text.Create); err != nil {
		return err
	}
	return look()
}

// Close ends the session.
func (p *PutBack) Close() { p.session.close() }

// putBackName begins the names of rows in the table of positions.
const putBackName = "replayed/"

// nameOf is the name of a row: of the record in the spool that it was made of, its
// table and its user.
func nameOf(line *rejects.Line) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %x", line.ID, line.Table, line.User, line.Packet))
	return putBackName + hex.EncodeToString(sum[:])
}

// Put writes lines in one transaction. The result has for each line nil, ErrThere, or
// why the database or the line refuses. An error means that nothing of them is known
// to be written; they may be put again.
func (p *PutBack) Put(ctx context.Context, lines []*rejects.Line) (result []error, err error) {
	if err := p.session.begin(ctx); err != nil {
		return nil, err
	}
	for _, line := range lines {
		refused, err := p.put(ctx, line)
		if err != nil {
			_, _ = p.session.exec(context.WithoutCancel(ctx), "ROLLBACK") // the session ends anyway
			return nil, err
		}
		result = append(result, refused)
	}
	if _, err := p.session.exec(ctx, "COMMIT"); err != nil {
		return nil, err
	}
	return result, nil
}

// put writes one line. refused is about the line, err about the session.
func (p *PutBack) put(ctx context.Context, line *rejects.Line) (refused, err error) {
	if _, err := p.session.exec(ctx, "SAVEPOINT one_row"); err != nil {
		return nil, err
	}
	text := dbschema.PositionSQL(p.session.dialect)
	name := nameOf(line)
	var n int64
	switch err := p.session.conn.QueryRowContext(ctx, text.Select, name).Scan(&n); {
	case err == nil:
		return ErrThere, nil
	case !errors.Is(err, sql.ErrNoRows):
		return nil, err
	}
	if refused, err = p.insert(ctx, line); err != nil {
		return nil, err
	}
	end := "ROLLBACK TO SAVEPOINT one_row"
	if refused == nil {
		if _, err := p.session.exec(ctx, text.Insert, name, int64(0)); err != nil {
			return nil, err
		}
		end = "RELEASE SAVEPOINT one_row"
	}
	_, err = p.session.exec(ctx, end)
	return refused, err
}

var errNoRecord = errors.New("the line's packet is no record of the spool")

// insert writes the row of a line.
func (p *PutBack) insert(ctx context.Context, line *rejects.Line) (refused, err error) {
	found := false
	damaged := p.decoder.Each(spool.Single(line.Packet), func(rec *siptrace.Record, _ []byte) error {
		found = true
		refused, err = p.insertRecord(ctx, rec, line)
		return nil
	})
	if damaged != nil {
		return fmt.Errorf("%w: %w", errNoRecord, damaged), err
	}
	if !found {
		return errNoRecord, err
	}
	return refused, err
}

func (p *PutBack) insertRecord(ctx context.Context, rec *siptrace.Record, line *rejects.Line) (refused, err error) {
	text, args := dbschema.LogSQL(p.session.dialect).Insert, []any(nil)
	if line.Table == dbschema.LogTable {
		args = p.session.logArgs(rec, &p.packet, p.cfg.Location)
	} else {
		t, err := p.session.open(ctx, &p.cfg, line.Table, func(string, dbschema.Problem) {})
		if isUnusable(err) {
			return err, nil
		}
		if err != nil {
			return nil, err
		}
		t.encoder.Reset()
		text, args = t.plan.Insert(1), t.encoder.AppendArgs(nil, rec, []byte(line.User))
	}
	_, err = p.session.exec(ctx, text, args...)
	if about := judge(err); err != nil && about != lost && about != ofServer {
		return err, nil
	}
	return nil, err
}
