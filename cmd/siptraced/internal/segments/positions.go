package segments

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
)

// The file of positions has two slots of equal size, which are written in turn and in
// place: a full disk has room for them, and a crash while one is written leaves the
// other one. A slot is: magic, generation and length of the text, of 64 bits each, the
// checksum of what is around it in 32, and the text, a JSON object of texts.
const (
	positionsName  = "positions"
	positionsMagic = 0x5354525053303031
	slotHeader     = 8 + 8 + 8 + 4
	leastSlot      = 64 << 10
)

// ownPrefix begins the keys that are the engine's own. Those of others can't have it.
const ownPrefix = "@"

type positions struct {
	fs  disk.FS
	dir string
	// tails adds what the engine notes of its logs.
	tails func(values map[string]string)

	writing    sync.Mutex // held while the file is written; covers what follows
	file       disk.File
	slot       int64  // size of one
	generation uint64 // of the last good slot
	at         int64  // which one that is: 0 or 1
	saved      map[string]string

	mu     sync.Mutex // covers values
	values map[string]string
}

// openPositions reads the positions, and makes the file if there is none.
func openPositions(fsys disk.FS, dir string, log *slog.Logger) (*positions, error) {
	p := &positions{fs: fsys, dir: dir, values: map[string]string{}}
	name := filepath.Join(dir, positionsName)
	// A crash while a larger file was made.
	if err := fsys.Remove(filepath.Join(dir, tempPrefix+positionsName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("spool: a file that is of no use stays", "err", err)
	}
	f, err := fsys.Open(name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return p, p.replace(leastSlot, nil)
	}
	if err != nil {
		return nil, err
	}
	got, err := readPositions(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case got.Damaged && got.Values == nil:
		// The database has its own position; nothing is doubled there.
		log.Warn("spool: the file of positions is damaged and begun anew", "file", name)
	case got.Damaged:
		log.Warn("spool: a slot of the file of positions is damaged, the other one is used", "file", name)
	}
	p.file, p.slot, p.generation, p.at = f, got.slot, got.generation, got.at
	if got.Values != nil {
		p.values, p.saved = got.Values, maps.Clone(got.Values)
	}
	if p.slot < leastSlot { // it was cut
		f.Close()
		p.file = nil
		return p, p.replace(leastSlot, p.values)
	}
	return p, nil
}

// PositionsReport is what a file of positions has.
type PositionsReport struct {
	// Values are those of the newest good slot, with those that are the engine's own;
	// nil without any.
	Values map[string]string
	// Damaged: a slot that was written can't be read.
	Damaged bool

	slot       int64
	generation uint64
	at         int64
}

func readPositions(f disk.File) (PositionsReport, error) {
	r := PositionsReport{at: 1}
	size, err := f.Size()
	if err != nil {
		return r, err
	}
	r.slot = size / 2
	if r.slot > 64<<20 {
		return r, errors.New("it is too large to be what its name says")
	}
	b := make([]byte, r.slot)
	for i := range int64(2) {
		err := readFull(f, b, i*r.slot)
		for n := 1; err != nil && n < startAttempts; n++ {
			time.Sleep(startPause)
			err = readFull(f, b, i*r.slot)
		}
		if err != nil {
			r.Damaged = true
			continue
		}
		generation, text, err := parseSlot(b)
		var values map[string]string
		if err == nil && text != nil {
			err = json.Unmarshal(text, &values)
		}
		switch {
		case err != nil:
			r.Damaged = true
		case text != nil && generation > r.generation:
			r.Values, r.generation, r.at = values, generation, i
		}
	}
	return r, nil
}

var errSlot = errors.New("the slot is damaged")

// parseSlot reads a slot; text is nil where it was never written.
func parseSlot(b []byte) (generation uint64, text []byte, err error) {
	le := binary.LittleEndian
	if len(b) < slotHeader {
		return 0, nil, errSlot
	}
	if le.Uint64(b) != positionsMagic {
		if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			return 0, nil, errSlot
		}
		return 0, nil, nil
	}
	n := le.Uint64(b[16:])
	if n > uint64(len(b)-slotHeader) {
		return 0, nil, errSlot
	}
	text = b[slotHeader : slotHeader+int(n)]
	if le.Uint32(b[24:]) != checksum(b[:24])^checksum(text) {
		return 0, nil, errSlot
	}
	return le.Uint64(b[8:]), text, nil
}

func slotOf(generation uint64, text []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, slotHeader, slotHeader+len(text))
	le.PutUint64(b, positionsMagic)
	le.PutUint64(b[8:], generation)
	le.PutUint64(b[16:], uint64(len(text)))
	le.PutUint32(b[24:], checksum(b[:24])^checksum(text))
	return append(b, text...)
}

// replace makes the file anew with larger slots, and values in the first one.
func (p *positions) replace(slot int64, values map[string]string) error {
	temp, name := filepath.Join(p.dir, tempPrefix+positionsName), filepath.Join(p.dir, positionsName)
	f, err := p.fs.Open(temp, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	generation := p.generation
	err = f.Truncate(0)
	if err == nil {
		err = f.Allocate(2 * slot)
	}
	if err == nil {
		// Blocks that were written once can be written again on a full disk, whatever
		// the file system is.
		_, err = f.WritevAt([][]byte{make([]byte, 2*slot)}, 0)
	}
	if err == nil && values != nil {
		generation++
		var text []byte
		if text, err = json.Marshal(values); err == nil {
			_, err = f.WritevAt([][]byte{slotOf(generation, text)}, 0)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = p.fs.Rename(temp, name)
	}
	if err == nil {
		err = p.fs.SyncDir(p.dir)
	}
	if err != nil {
		f.Close()
		return err
	}
	if p.file != nil {
		p.file.Close()
	}
	p.file, p.slot, p.generation, p.at, p.saved = f, slot, generation, 0, values
	return nil
}

func (p *positions) Get(_ context.Context, key string) (string, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.values[key]
	return v, ok, nil
}

func (p *positions) Put(_ context.Context, key, value string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.values[key] = value
	return nil
}

func (p *positions) Claim(_ context.Context, key, value string) (held string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if held, ok := p.values[key]; ok {
		return held, nil
	}
	p.values[key] = value
	return value, nil
}

func (p *positions) Remove(_ context.Context, key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.values, key)
	return nil
}

func (p *positions) Keys(context.Context) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := slices.Sorted(maps.Keys(p.values))
	return slices.DeleteFunc(keys, func(k string) bool { return strings.HasPrefix(k, ownPrefix) }), nil
}

// Flush writes the slot that is not the last good one. Nobody waits for the disk but
// who calls it.
func (p *positions) Flush(context.Context) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.file == nil {
		return fmt.Errorf("positions: %w", fs.ErrClosed)
	}
	p.mu.Lock()
	values := maps.Clone(p.values)
	p.mu.Unlock()
	if p.tails != nil {
		// After the others: no position is beyond the end that is noted with it.
		p.tails(values)
	}
	if maps.Equal(values, p.saved) {
		return nil
	}
	text, err := json.Marshal(values)
	if err == nil {
		err = p.write(values, text)
	}
	if err != nil {
		return fmt.Errorf("positions: %w", err)
	}
	return nil
}

func (p *positions) write(values map[string]string, text []byte) error {
	if need := int64(slotHeader + len(text)); need > p.slot {
		return p.replace(max(2*p.slot, (2*need+pageSize-1)&^(pageSize-1)), values)
	}
	at := 1 - p.at
	if _, err := p.file.WritevAt([][]byte{slotOf(p.generation+1, text)}, at*p.slot); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	p.generation++
	p.at, p.saved = at, values
	return nil
}

func (p *positions) close() {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
}
