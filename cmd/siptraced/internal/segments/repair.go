package segments

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// Repairer mends a directory that no daemon works on: it has its lock.
type Repairer struct {
	fs     disk.FS
	dir    string
	aside  string
	lock   io.Closer
	blocks sync.Pool

	positions *positions
}

// OpenRepairer locks a directory. Files that are replaced or can't be used are moved
// into the directory aside, which is made in dir when it is needed. The error wraps a
// *disk.LockedError where another process has the directory.
func OpenRepairer(fsys disk.FS, dir, aside string) (*Repairer, error) {
	if fsys == nil {
		fsys = disk.OS
	}
	names, err := fsys.List(dir)
	if err == nil && former(names) {
		err = ErrFormerEdition
	}
	r := &Repairer{fs: fsys, dir: dir, aside: filepath.Join(dir, aside)}
	if err == nil {
		r.lock, err = fsys.Lock(filepath.Join(dir, lockName))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return r, nil
}

// Close gives up the lock.
func (r *Repairer) Close() error {
	if r.positions != nil {
		r.positions.close()
	}
	return r.lock.Close()
}

func (r *Repairer) logDir(log int) string {
	return filepath.Join(r.dir, logPrefix+strconv.Itoa(log))
}

// SetAside moves a file of the directory, by its name relative to it, and returns the
// new name.
func (r *Repairer) SetAside(name string) (to string, err error) {
	to = filepath.Join(r.aside, name)
	if err := r.fs.MkdirAll(filepath.Dir(to)); err != nil {
		return "", err
	}
	if err := r.fs.Rename(filepath.Join(r.dir, name), to); err != nil {
		return "", err
	}
	for _, dir := range []string{filepath.Dir(to), filepath.Dir(filepath.Join(r.dir, name)), r.dir} {
		if err := r.fs.SyncDir(dir); err != nil {
			return to, err
		}
	}
	return to, nil
}

// RebuildIndex reads a segment and writes its index, as the next start would do.
func (r *Repairer) RebuildIndex(log int, segment string) error {
	s, found, err := r.scan(log, segment)
	if err != nil {
		return err
	}
	dir := r.logDir(log)
	if err := r.fs.Remove(filepath.Join(dir, s.index())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := saveIndex(r.fs, dir, s.index(), found.segment.appendIndex(nil)); err != nil {
		return err
	}
	return r.fs.SyncDir(dir)
}

// scan reads a segment of a log.
func (r *Repairer) scan(log int, name string) (*segment, scanned, error) {
	dir := r.logDir(log)
	names, err := r.fs.List(dir)
	if err != nil {
		return nil, scanned{}, err
	}
	all, _ := segmentsOf(names)
	for i, s := range all {
		next := uint64(noNext)
		if i+1 < len(all) {
			next = all[i+1].first
		}
		if s.name() != name {
			continue
		}
		f, err := r.fs.Open(filepath.Join(dir, name), os.O_RDONLY)
		if err != nil {
			return s, scanned{}, err
		}
		defer f.Close()
		found, err := scan(f, &r.blocks, s, next, true)
		indexed := *s
		if _, err := loadIndex(r.fs, dir, &indexed); err == nil && indexed.published.last < next && indexed.published.total > found.segment.published.total {
			// Only the index knows of what was cut off.
			found.segment.published.last, found.segment.published.total = indexed.published.last, indexed.published.total
		}
		return s, found, err
	}
	return nil, scanned{}, fmt.Errorf("%s: %w", filepath.Join(dir, name), fs.ErrNotExist)
}

// Rewrite writes the whole entries of a segment anew, on blocks that are good, and
// leaves a copy of the damaged file aside. Entries keep their numbers, so that what is
// missing stays known.
func (r *Repairer) Rewrite(log int, name string) (kept uint64, err error) {
	s, found, err := r.scan(log, name)
	if err != nil {
		return 0, err
	}
	dir := r.logDir(log)
	from, err := r.fs.Open(filepath.Join(dir, name), os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	aside := filepath.Join(r.aside, logPrefix+strconv.Itoa(log))
	if err := r.fs.MkdirAll(aside); err != nil {
		return 0, err
	}
	if err := makeFile(r.fs, filepath.Join(aside, name), func(to disk.File) error { return copyRaw(from, to, found.segment.size) }); err != nil {
		return 0, err
	}
	fresh := &segment{first: s.first, ordinal: s.ordinal, timeline: s.timeline, before: s.before}
	fresh.written = state{last: s.first - 1, total: fresh.before}
	w := walker{
		file: from, pool: &r.blocks, from: origin{s.timeline, s.first, found.next}, end: found.segment.size,
		last: s.first - 1, total: fresh.before, salvage: true,
	}
	defer w.close()
	temp := filepath.Join(dir, tempPrefix+name)
	if err := makeFile(r.fs, temp, func(to disk.File) error { return copyWhole(&w, to, fresh) }); err != nil {
		return 0, errors.Join(err, r.fs.Remove(temp))
	}
	// What the damaged file is known to have had stays known.
	fresh.written.last = max(fresh.written.last, found.segment.published.last)
	fresh.written.total = max(fresh.written.total, found.segment.published.total)
	fresh.published, fresh.size = fresh.written, fresh.written.end
	if err := r.fs.Rename(temp, filepath.Join(dir, name)); err != nil {
		return 0, err
	}
	if err := saveIndex(r.fs, dir, s.index(), fresh.appendIndex(nil)); err != nil {
		return 0, err
	}
	return found.entries, r.fs.SyncDir(dir)
}

// makeFile makes a file, or makes it anew, and syncs it.
func makeFile(fsys disk.FS, name string, fill func(disk.File) error) error {
	f, err := fsys.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// copyRaw copies a file with all that can be read of it.
func copyRaw(from, to disk.File, size int64) error {
	b := make([]byte, pageSize)
	for off := int64(0); off < size; off += pageSize {
		b = b[:min(pageSize, size-off)]
		if readFull(from, b, off) != nil {
			clear(b)
		}
		if _, err := to.WritevAt([][]byte{b}, off); err != nil {
			return err
		}
	}
	return nil
}

// copyWhole copies the records that are whole, one behind the other.
func copyWhole(w *walker, to disk.File, fresh *segment) error {
	for {
		var h header
		data, err := w.next(&h, 0)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		h.off = fresh.written.end
		var head, pad [headerSize]byte
		h.put(head[:])
		if _, err := to.WritevAt([][]byte{head[:], data, pad[:h.size()-headerSize-int64(h.length)]}, h.off); err != nil {
			return err
		}
		fresh.add(&h)
	}
}

// Positions opens the positions for a change, until Close. Where they are damaged a
// copy is left aside, and they are begun anew with what can be read of them; log gets
// what is said of that.
func (r *Repairer) Positions(log *slog.Logger) (journal.Positions, error) {
	name := filepath.Join(r.dir, positionsName)
	f, err := r.fs.Open(name, os.O_RDONLY)
	var got PositionsReport
	if err == nil {
		defer f.Close()
		if got, err = readPositions(f); err == nil && got.Damaged {
			err = r.copyAside(f, positionsName)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if r.positions, err = openPositions(r.fs, r.dir, log); err == nil && got.Damaged {
		// Both slots are good then.
		err = r.positions.replace(r.positions.slot, r.positions.values)
	}
	return r.positions, err
}

func (r *Repairer) copyAside(f disk.File, name string) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if err := r.fs.MkdirAll(r.aside); err != nil {
		return err
	}
	return makeFile(r.fs, filepath.Join(r.aside, name), func(to disk.File) error { return copyRaw(f, to, size) })
}
