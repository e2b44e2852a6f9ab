package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// notes are what the store keeps in the spool beside its offset, for each shard that
// is not Contended: which database is in use, and at which batch each one was left
// for another; and under which names the timelines are in the table of positions.
//
// A store can be given another database, and later the former one again: what went
// into the other one meanwhile is not missing in the former one.
type notes struct {
	spool *spool.Spool
	mu    sync.Mutex        // covers what follows
	kept  map[string]string // as the spool has it; nil: not yet read
	// unsaved: some of it may not be on disk.
	unsaved bool
}

// databaseID tells databases apart, in letters that a key of the spool may have:
// servers by their hosts, whoever the user is.
func databaseID(u siptrace.DBURL) string {
	sum := sha256.Sum256([]byte(u.Driver + "\x00" + strings.Join(u.Hosts, "\x00") + "\x00" + u.Database))
	return hex.EncodeToString(sum[:8])
}

func usedKey(shard int) string { return sinkName + ".database." + strconv.Itoa(shard) }
func leftKey(shard int, id string) string {
	return sinkName + ".left." + strconv.Itoa(shard) + "." + id
}
func timelinesKey(shard int) string { return sinkName + ".timelines." + strconv.Itoa(shard) }
func openedKey(shard int) string    { return sinkName + ".opened." + strconv.Itoa(shard) }

// read gets what the spool has; n.mu is held.
func (n *notes) read(ctx context.Context) (err error) {
	if n.kept == nil {
		n.kept, err = n.spool.Meta(ctx)
	}
	return err
}

// keep changes a note; n.mu is held.
func (n *notes) keep(key, value string) {
	n.kept[key], n.unsaved = value, true
	n.spool.PutMeta(key, value)
}

// save has them on disk.
func (n *notes) save(ctx context.Context) error {
	n.mu.Lock()
	unsaved := n.unsaved
	n.unsaved = false
	n.mu.Unlock()
	if !unsaved {
		return nil
	}
	if err := n.spool.Save(ctx); err != nil {
		n.mu.Lock()
		n.unsaved = true
		n.mu.Unlock()
		return fmt.Errorf("keeping in the spool where rows go: %w", err)
	}
	return nil
}

// enter notes that a shard goes into a database now; the one before it, if there
// was another, is left at end. That is on disk when it returns: rows in the other
// database are never taken for rows that this one has lost. Up to until, what the
// sink was done with has to be in this one: 0, if it was never in use.
func (n *notes) enter(ctx context.Context, shard int, id string, end uint64) (until uint64, err error) {
	before, left, wasLeft, err := n.use(ctx, shard, id, end)
	if err != nil {
		return 0, err
	}
	if err := n.save(ctx); err != nil {
		return 0, err
	}
	switch {
	case wasLeft:
		return min(left, end), nil // what came later went into another database
	case before == id:
		return end, nil
	}
	return 0, nil
}

// use changes the notes for enter. It returns the database that was in use, and where
// this one was left, if it was.
func (n *notes) use(ctx context.Context, shard int, id string, end uint64) (before string, left uint64, wasLeft bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.read(ctx); err != nil {
		return "", 0, false, err
	}
	before = n.kept[usedKey(shard)]
	if before != id {
		if before != "" {
			n.keep(leftKey(shard, before), fmt.Sprint(end))
		}
		n.keep(usedKey(shard), id)
	}
	left, err = strconv.ParseUint(n.kept[leftKey(shard, id)], 10, 64)
	return before, left, err == nil, nil
}

// back notes that a database has the shard's present position again.
func (n *notes) back(shard int, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if key := leftKey(shard, id); n.kept[key] != "" {
		n.keep(key, "")
	}
}

// opened is how often the spool was opened for the store, as the spool knows and as
// the database does; less is what the spool knows. A copy of the spool that was opened
// meanwhile is known to the database alone.
func (n *notes) opened(ctx context.Context, shard int, database uint64) (opened uint64, less bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.read(ctx); err != nil {
		return 0, false, err
	}
	own, _ := strconv.ParseUint(n.kept[openedKey(shard)], 10, 64)
	opened = max(own, database) + 1
	n.keep(openedKey(shard), fmt.Sprint(opened))
	return opened, own < database, nil
}

// noted is a timeline of a shard as the spool keeps it for the store.
type noted struct {
	id   string
	row  string // its name in the table of positions
	made string // the database in which the row was made last, "" if in none
	told bool   // the log said that the spool is older than the database
}

// timelines are those that the shard had, the oldest first.
func (n *notes) timelines(ctx context.Context, shard int) (list []noted, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.read(ctx); err != nil {
		return nil, err
	}
	for _, text := range strings.Fields(n.kept[timelinesKey(shard)]) {
		text, told := strings.CutSuffix(text, "!")
		text, made, _ := strings.Cut(text, "+")
		id, row, other := strings.Cut(text, "=")
		if !other {
			row = id
		}
		list = append(list, noted{id, row, made, told})
	}
	return list, nil
}

// setTimelines changes them.
func (n *notes) setTimelines(shard int, list []noted) {
	var texts []string
	for _, t := range list {
		text := t.id
		if t.row != t.id {
			text += "=" + t.row
		}
		if t.made != "" {
			text += "+" + t.made
		}
		if t.told {
			text += "!"
		}
		texts = append(texts, text)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if text := strings.Join(texts, " "); text != n.kept[timelinesKey(shard)] {
		n.keep(timelinesKey(shard), text)
	}
}
