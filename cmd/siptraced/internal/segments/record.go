package segments

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
)

// A record is a header, the entry's bytes, and zeros up to the next multiple of
// align. All numbers are little endian:
//
//	 0  4  magic
//	 4  4  length of the entry's bytes
//	 8  8  number
//	16  8  total
//	24  8  when it was taken: Unix nanoseconds
//	32  4  records
//	36  4  checksum of the entry's bytes
//	40  8  timeline
//	48  4  place in the file, in units of align
//	52  4  checksum of the header up to here
//
// The header has a checksum of its own, so that damage to an entry costs that entry:
// its length is known. Timeline and place tell a record from one that stood in the
// file before, was written to the wrong place, or is part of a message.
const (
	magic      = 0x53545231
	headerSize = 56
	align      = 8
)

// maxEntry bounds an entry's bytes.
const maxEntry = 16 << 20

// castagnoli is a table of package crc32: processors have an instruction for it.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// header is that of a record.
type header struct {
	length   int
	seq      uint64
	total    uint64
	taken    int64
	records  uint32
	sum      uint32
	timeline uint64
	off      int64
}

// before is the total before the record.
func (h *header) before() uint64 { return h.total - uint64(h.records) }

// size is how many bytes the record has in its file.
func (h *header) size() int64 { return recordSize(h.length) }

func recordSize(length int) int64 {
	return (headerSize + int64(length) + align - 1) &^ (align - 1)
}

var errHeader = errors.New("no header of a record")

func (h *header) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, magic)
	le.PutUint32(b[4:], uint32(h.length))
	le.PutUint64(b[8:], h.seq)
	le.PutUint64(b[16:], h.total)
	le.PutUint64(b[24:], uint64(h.taken))
	le.PutUint32(b[32:], h.records)
	le.PutUint32(b[36:], h.sum)
	le.PutUint64(b[40:], h.timeline)
	le.PutUint32(b[48:], uint32(h.off/align))
	le.PutUint32(b[52:], checksum(b[:52]))
}

// read takes the header from the beginning of b, which has headerSize bytes.
func (h *header) read(b []byte) error {
	le := binary.LittleEndian
	if le.Uint32(b) != magic || le.Uint32(b[52:]) != checksum(b[:52]) {
		return errHeader
	}
	h.parse(b)
	if h.length > maxEntry || uint64(h.records) > h.total || h.seq == 0 {
		return errHeader
	}
	return nil
}

func (h *header) parse(b []byte) {
	le := binary.LittleEndian
	h.length = int(le.Uint32(b[4:]))
	h.seq = le.Uint64(b[8:])
	h.total = le.Uint64(b[16:])
	h.taken = int64(le.Uint64(b[24:]))
	h.records = le.Uint32(b[32:])
	h.sum = le.Uint32(b[36:])
	h.timeline = le.Uint64(b[40:])
	h.off = int64(le.Uint32(b[48:])) * align
}

// origin is what the header of a record must say to be of a segment.
type origin struct {
	timeline uint64
	first    uint64 // the number of the segment's first entry
	next     uint64 // that of the segment behind it
}

func (o *origin) has(h *header, off int64) bool {
	return h.timeline == o.timeline && h.off == off && h.seq >= o.first && h.seq < o.next
}

const noNext = math.MaxUint64

// find reads the header at off, which b begins with. Where one bit of it is wrong,
// the header is taken as it was: with timeline and place known beside the checksum, no
// other header is that near.
func (o *origin) find(h *header, b []byte, off int64) bool {
	if h.read(b) == nil {
		return o.has(h, off)
	}
	if !near(b) {
		return false
	}
	var try [headerSize]byte
	copy(try[:], b)
	for bit := range headerSize * 8 {
		try[bit/8] ^= 1 << (bit % 8)
		if h.read(try[:]) == nil && o.has(h, off) {
			return true
		}
		try[bit/8] ^= 1 << (bit % 8)
	}
	return false
}

// near reports whether b may be a header with one wrong bit.
func near(b []byte) bool {
	wrong := binary.LittleEndian.Uint32(b) ^ magic
	return wrong&(wrong-1) == 0
}
