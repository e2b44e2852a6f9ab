package spool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/statefile"
)

// positions keeps small texts over a restart: how far each sink came, and how
// much each shard took.
type positions interface {
	get(ctx context.Context, key string) (value string, found bool, err error)
	put(ctx context.Context, key, value string) error
	remove(ctx context.Context, key string) error
	keys(ctx context.Context) ([]string, error)
	// flush makes what was put last.
	flush() error
}

// filePositions is a file beside the embedded engine. The engine's own storage
// is no place for it: a flipped bit there can stop the daemon.
type filePositions struct {
	path    string
	writing sync.Mutex // held while the file is written

	mu      sync.Mutex // covers what follows
	values  map[string]string
	changed bool
}

const positionsFile = "positions.json"

func openPositions(dir string, log *slog.Logger) (*filePositions, error) {
	p := &filePositions{path: filepath.Join(dir, positionsFile), values: map[string]string{}}
	text, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("spool: positions: %w", err)
	}
	err = json.Unmarshal(text, &p.values)
	sum := p.values[sumKey]
	delete(p.values, sumKey)
	if err != nil || sum != checksum(p.values) {
		// The database has its own position; nothing is doubled there.
		log.Warn("spool: the file of positions is damaged and begun anew", "file", p.path)
		p.values = map[string]string{}
	}
	return p, nil
}

// sumKey is where the file has the checksum of all else in it.
const sumKey = "sum"

func checksum(values map[string]string) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(h, "%q %q\n", k, values[k])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (p *filePositions) get(_ context.Context, key string) (string, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.values[key]
	return v, ok, nil
}

func (p *filePositions) put(_ context.Context, key, value string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.values[key], p.changed = value, true
	return nil
}

// flush replaces the file as a whole, so that a crash leaves the old or the new
// one. Nobody waits for the disk but who calls it.
func (p *filePositions) flush() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	values, changed := maps.Clone(p.values), p.changed
	p.changed = false
	p.mu.Unlock()
	if !changed {
		return nil
	}
	values[sumKey] = checksum(values)
	if err := statefile.Write(p.path, values); err != nil {
		p.mu.Lock()
		p.changed = true
		p.mu.Unlock()
		return fmt.Errorf("spool: positions: %w", err)
	}
	return nil
}

// clusterPositions is a key-value bucket of the cluster.
type clusterPositions struct{ kv jetstream.KeyValue }

func (p clusterPositions) get(ctx context.Context, key string) (string, bool, error) {
	e, err := p.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return string(e.Value()), true, nil
}

func (p clusterPositions) put(ctx context.Context, key, value string) error {
	_, err := p.kv.PutString(ctx, key, value)
	return err
}

func (p clusterPositions) flush() error { return nil }
