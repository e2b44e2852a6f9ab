package segments

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"siptraced/cmd/siptraced/internal/disk"
)

// walker reads the records of a segment in their order, and passes over those that
// are damaged. Not safe for concurrent use.
type walker struct {
	file disk.File
	pool *sync.Pool // of blocks
	from origin
	off  int64 // of what comes next
	end  int64 // nothing is read from here on
	// last and total are those of the last whole record; what comes is behind it.
	last, total uint64
	// lost is how many records were passed over before the one that next returned, or
	// before the end; known is the total before them, and hole the place in the file.
	lost, known uint64
	hole        int64
	// seen is the last header, of a whole record or not; its off is behind the record.
	seen header
	// salvage: pages that can't be read are taken as zeros, as long as others can be.
	salvage    bool
	unreadable bool // some were

	block *block
	base  int64 // where it begins in the file
}

// blockSize is how much is read at once of small records.
const blockSize = 64 << 10

func (w *walker) close() {
	if w.block != nil {
		w.block.Release()
		w.block = nil
	}
}

// next is the next whole record; data is valid until the next call, and longer for
// who retains w.block before. The error is io.EOF at the end, where lost says what is
// missing before total records; other errors are those of reading the file, and the
// next call tries again.
func (w *walker) next(h *header, total uint64) (data []byte, err error) {
	off, last, hole := w.off, w.last, int64(-1)
	for {
		at := w.off
		if err = w.header(h); err != nil {
			break
		}
		if h.off != at && hole < 0 {
			hole = at
		}
		if data, err = w.data(h); err != nil {
			break
		}
		w.off = h.off + h.size()
		w.seen = *h
		w.seen.off = w.off
		if checksum(data) == h.sum {
			w.passed(h.before(), hole, h.off)
			w.last, w.total = h.seq, h.total
			return data, nil
		}
		w.last = h.seq
		if hole < 0 {
			hole = h.off
		}
	}
	if errors.Is(err, io.EOF) {
		w.passed(total, hole, w.off)
		w.total = max(total, w.total)
	} else {
		w.off, w.last = off, last
	}
	return nil, err
}

// passed notes what is missing before a total.
func (w *walker) passed(before uint64, hole, at int64) {
	w.lost, w.known, w.hole = 0, w.total, hole
	if before > w.total {
		w.lost = before - w.total
	}
	if hole < 0 {
		w.hole = at
	}
}

// skip goes behind the records up to a number, and checks no more than their headers.
func (w *walker) skip(upTo uint64) error {
	var h header
	for w.last < upTo {
		at := w.off
		err := w.header(&h)
		if errors.Is(err, io.EOF) {
			w.off = at
			return nil
		}
		if err != nil {
			return err
		}
		if h.seq > upTo {
			w.off = at
			return nil
		}
		w.off, w.last, w.total = h.off+h.size(), h.seq, h.total
	}
	return nil
}

// header finds the next header at or behind w.off, and leaves off where it was.
func (w *walker) header(h *header) error {
	if w.off+headerSize > w.end {
		return io.EOF
	}
	b, err := w.view(w.off, headerSize)
	if err != nil {
		return err
	}
	if w.from.find(h, b, w.off) && w.follows(h) {
		return nil
	}
	return w.search(h)
}

// search looks for a header behind w.off.
func (w *walker) search(h *header) error {
	for off := w.off + align; off+headerSize <= w.end; {
		b, err := w.view(off, int(min(blockSize, w.end-off)))
		if err != nil {
			return err
		}
		i := 0
		for ; i+headerSize <= len(b); i += align {
			if binary.LittleEndian.Uint32(b[i:]) == magic && h.read(b[i:i+headerSize]) == nil && w.from.has(h, off+int64(i)) && w.follows(h) {
				return nil
			}
		}
		off += int64(i)
	}
	return io.EOF
}

// follows reports whether a record can stand behind those that were read.
func (w *walker) follows(h *header) bool {
	return h.seq > w.last && h.before() >= w.total && h.off+h.size() <= w.end
}

// data reads an entry's bytes, and the header behind it where there is room.
func (w *walker) data(h *header) ([]byte, error) {
	off := h.off + headerSize
	b, err := w.view(off, int(min(h.size(), w.end-off)))
	if err != nil {
		return nil, err
	}
	return b[:h.length], nil
}

// view is n bytes of the file at off, before w.end.
func (w *walker) view(off int64, n int) ([]byte, error) {
	if w.block == nil || off < w.base || off+int64(n) > w.base+int64(len(w.block.data)) {
		if err := w.fill(off, max(n, int(min(blockSize, w.end-off)))); err != nil {
			return nil, err
		}
	}
	i := int(off - w.base)
	return w.block.data[i : i+n : i+n], nil
}

// fill reads n bytes at off. What is behind the end of the file reads as zeros.
func (w *walker) fill(off int64, n int) error {
	if w.block == nil || w.block.users.Load() > 1 || cap(w.block.data) < n {
		w.close()
		w.block = newBlock(w.pool, n)
	}
	w.block.data = w.block.data[:n]
	w.base = off
	err := readFull(w.file, w.block.data, off)
	if err != nil && w.salvage {
		err = w.readPages(off, err)
	}
	if err != nil {
		w.close()
	}
	return err
}

func readFull(f disk.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	clear(b[n:])
	return err
}

// pageSize is the unit in which disks lose what they had.
const pageSize = 4 << 10

var zeroPage [pageSize]byte // it is never written

// readPages reads each page by itself: those that can't be read are zeros, so that
// no more than their records are damaged. Where none can be read it is not the pages.
func (w *walker) readPages(off int64, cause error) error {
	b, any := w.block.data, false
	for i := 0; i < len(b); {
		n := min(len(b)-i, pageSize-int(off+int64(i))%pageSize)
		if readFull(w.file, b[i:i+n], off+int64(i)) == nil {
			any = true
		} else {
			clear(b[i : i+n])
		}
		i += n
	}
	var probe [1]byte
	for _, at := range [...]int64{0, w.end - 1} {
		any = any || readFull(w.file, probe[:], at) == nil
	}
	if !any {
		return cause
	}
	w.unreadable = true
	return nil
}
