package spooltool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/segments"
)

// Repaired is what Repair did.
type Repaired struct {
	// Before and After are what Check said.
	Before, After *Report
	// Done has a line for each thing that was done.
	Done []string
	// Aside is the directory with what was damaged; "" if nothing was moved there.
	Aside string
	// Lost is how many messages are lost that were not known to be.
	Lost uint64
}

// Repair mends a directory that no daemon works on: whole messages of damaged segments
// are written anew, indexes and positions are made again, and what was damaged is kept
// aside. What can't be read stays lost, and is known to be from then on. The error says
// who has the directory where somebody has it.
func Repair(ctx context.Context, dir string, opt CheckOptions) (*Repaired, error) {
	aside := asideName()
	r, err := openRepairer(dir, aside)
	if err != nil {
		return nil, err
	}
	m := &mending{repairer: r, dir: dir, aside: aside}
	err = m.run(ctx, opt)
	if err = errors.Join(err, r.Close()); err != nil {
		return &m.Repaired, fmt.Errorf("%s: %w", dir, err)
	}
	m.After, err = Check(ctx, dir, CheckOptions{})
	return &m.Repaired, err
}

// asideName is a directory in that of the spool.
func asideName() string { return "damaged-" + time.Now().UTC().Format("20060102T150405.000") }

func openRepairer(dir, aside string) (*segments.Repairer, error) {
	r, err := segments.OpenRepairer(nil, dir, aside)
	var locked *disk.LockedError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("%w; stop siptraced first", err)
	}
	return r, err
}

// mending is one repair.
type mending struct {
	Repaired
	repairer   *segments.Repairer
	dir, aside string
}

func (m *mending) run(ctx context.Context, opt CheckOptions) (err error) {
	opt.locked = true
	if m.Before, err = Check(ctx, m.dir, opt); err != nil {
		return err
	}
	for i := range m.Before.Shards {
		for j := range m.Before.Shards[i].Segments {
			if err := m.segment(&m.Before.Shards[i], j); err != nil {
				return err
			}
		}
	}
	if m.Before.Good() {
		return nil
	}
	positions, err := m.repairer.Positions(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if m.Before.damagedPositions {
		m.did("the file of positions: written anew with what could be read of it", true)
	}
	if err := m.noteGaps(ctx, positions); err != nil {
		return err
	}
	m.Lost = m.Before.Lost - m.Before.Known
	return nil
}

func (m *mending) did(what string, moved bool) {
	m.Done = append(m.Done, what)
	if moved {
		m.Aside = filepath.Join(m.dir, m.aside)
	}
}

// segment mends one file.
func (m *mending) segment(s *Shard, i int) error {
	g := &s.Segments[i]
	name := filepath.Base(g.File)
	damaged := g.Unreadable
	for _, gap := range s.Gaps {
		damaged = damaged || gap.File == g.File && !gap.Known && !gap.NoFile
	}
	switch {
	case damaged && g.Batches == 0:
		for _, file := range []string{g.File, strings.TrimSuffix(g.File, ".log") + ".idx"} {
			if _, err := m.repairer.SetAside(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		m.did(g.File+": nothing of it can be read, it is set aside", true)
	case damaged:
		n, err := m.repairer.Rewrite(s.Index, name)
		if err != nil {
			return err
		}
		m.did(fmt.Sprintf("%s: its %d whole batches are written anew, the damaged file is set aside", g.File, n), true)
	case g.Index != string(segments.IndexGood):
		if err := m.repairer.RebuildIndex(s.Index, name); err != nil {
			return err
		}
		m.did(g.File+": its index is made again", false)
	}
	return nil
}

// noteGaps notes what is lost, so that it is known from now on.
func (m *mending) noteGaps(ctx context.Context, positions journal.Positions) error {
	r, err := Check(ctx, m.dir, CheckOptions{locked: true})
	if err != nil {
		return err
	}
	known := []knownGap{}
	for _, s := range r.Shards {
		for _, g := range s.Gaps {
			known = append(known, knownGap{s.Index, g.After, g.Messages})
		}
	}
	text, err := json.Marshal(known)
	if err != nil {
		return err
	}
	if err := positions.Put(ctx, knownKey, string(text)); err != nil {
		return err
	}
	return positions.Flush(ctx)
}
