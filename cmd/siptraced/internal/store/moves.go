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

// A store can be given another database, and later the former one again. What went
// into the other one meanwhile is not missing in the former one. So the spool keeps
// for each shard which database is in use, and at which position each one was left
// for another.

// moves is what it keeps.
type moves struct {
	spool *spool.Spool
	mu    sync.Mutex
	kept  map[string]string // as the spool has it; covered by mu
}

func openMoves(ctx context.Context, sp *spool.Spool) (*moves, error) {
	if sp.Shared() {
		return &moves{spool: sp, kept: map[string]string{}}, nil
	}
	kept, err := sp.Meta(ctx)
	return &moves{spool: sp, kept: kept}, err
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
func (m *moves) keep(key, value string) { m.kept[key] = value; m.spool.PutMeta(key, value) }

// enter notes that a shard goes into a database now; the one before it, if there
// was another, is left at end. It returns where this one was left, if it was.
func (m *moves) enter(shard int, id string, end uint64) (left uint64, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch before := m.kept[usedKey(shard)]; before {
	case id:
	case "":
		m.keep(usedKey(shard), id)
	default:
		m.keep(leftKey(shard, before), fmt.Sprint(end))
		m.keep(usedKey(shard), id)
	}
	left, err := strconv.ParseUint(m.kept[leftKey(shard, id)], 10, 64)
	return left, err == nil
}

// back notes that a database has the shard's present position again.
func (m *moves) back(shard int, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key := leftKey(shard, id); m.kept[key] != "" {
		m.keep(key, "")
	}
}
