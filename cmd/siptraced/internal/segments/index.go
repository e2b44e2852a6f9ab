package segments

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"siptraced/cmd/siptraced/internal/disk"
)

// The index of a sealed segment says what is in it, so that nothing of it has to be
// read at start: a checksum of what follows, the number of marks, and six numbers of
// 64 bits each; then the marks. It can be lost: all of it can be read from the
// segment.
const (
	indexMagic = 0x5354524944583031
	indexFixed = 8 + 4 + 4 + 6*8
	markSize   = 3 * 8
)

var errIndex = errors.New("the index is damaged")

func (s *segment) appendIndex(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, indexMagic)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(s.marks)))
	for _, n := range [...]uint64{
		s.published.last, s.published.total, uint64(s.published.end), uint64(s.size), uint64(s.oldest), uint64(s.newest),
	} {
		b = le.AppendUint64(b, n)
	}
	for _, m := range s.marks {
		b = le.AppendUint64(le.AppendUint64(le.AppendUint64(b, m.seq), m.before), uint64(m.off))
	}
	le.PutUint32(b[8:], checksum(b[12:]))
	return b
}

// parseIndex sets what the index says, and returns its marks.
func (s *segment) parseIndex(b []byte) ([]mark, error) {
	le := binary.LittleEndian
	if len(b) < indexFixed || le.Uint64(b) != indexMagic || le.Uint32(b[8:]) != checksum(b[12:]) {
		return nil, errIndex
	}
	n := int(le.Uint32(b[12:]))
	if len(b) != indexFixed+n*markSize {
		return nil, errIndex
	}
	num := func(i int) uint64 { return le.Uint64(b[16+8*i:]) }
	s.published = state{last: num(0), total: num(1), end: int64(num(2))}
	s.size, s.oldest, s.newest = int64(num(3)), int64(num(4)), int64(num(5))
	if s.published.end > s.size || s.published.total < s.before {
		return nil, errIndex
	}
	marks := make([]mark, n)
	for i := range marks {
		at := indexFixed + i*markSize
		marks[i] = mark{le.Uint64(b[at:]), le.Uint64(b[at+8:]), int64(le.Uint64(b[at+16:]))}
	}
	return marks, nil
}

func readFile(fs disk.FS, name string) ([]byte, error) {
	f, err := fs.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > 64<<20 {
		return nil, errors.New(name + " is too large to be what its name says")
	}
	b := make([]byte, size)
	return b, readFull(f, b, 0)
}

// loadIndex reads a segment's index.
func loadIndex(fs disk.FS, dir string, s *segment) ([]mark, error) {
	b, err := readFile(fs, filepath.Join(dir, s.index()))
	if err != nil {
		return nil, err
	}
	return s.parseIndex(b)
}

// saveIndex writes b as the index of a sealed segment.
func saveIndex(fs disk.FS, dir, name string, b []byte) error {
	f, err := fs.Open(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	if _, err := f.WritevAt([][]byte{b}, 0); err != nil {
		return err
	}
	return f.Sync()
}
