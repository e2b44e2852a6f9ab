package segments

import (
	"encoding/binary"
	"os"

	"siptraced/cmd/siptraced/internal/disk"
)

// tail is a file that says where a log ends. It is written with each append, and not
// synced: after a crash of the process it says exactly what is missing of a damaged
// segment, after one of the machine perhaps. It has two slots which are written in
// turn: magic, id of the log, timeline, number and total of the last entry, of 64 bits
// each, and a checksum of 32.
type tail struct {
	file disk.File // nil: there is none
	turn int64
	id   uint64
	line uint64
	buf  [tailSize]byte
	bufs [1][]byte
}

const (
	tailMagic = 0x5354525461696c31
	tailSize  = 5*8 + 4
	tailSlot  = 512
)

// openTail opens the file, and makes it if there is none. A log works without.
func openTail(fs disk.FS, name string) (*tail, error) {
	f, err := fs.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := f.Allocate(2 * tailSlot); err != nil {
		f.Close()
		return nil, err
	}
	return &tail{file: f}, nil
}

// tailNote is what a tail says.
type tailNote struct {
	id, timeline uint64
	at           place
}

// readTail is the newer one of the slots that can be read.
func readTail(f disk.File) (note tailNote, ok bool) {
	le := binary.LittleEndian
	for i := range int64(2) {
		var b [tailSize]byte
		if readFull(f, b[:], i*tailSlot) != nil || le.Uint64(b[:]) != tailMagic || le.Uint32(b[40:]) != checksum(b[:40]) {
			continue
		}
		if seq := le.Uint64(b[24:]); !ok || seq > note.at.seq {
			note, ok = tailNote{le.Uint64(b[8:]), le.Uint64(b[16:]), place{seq, le.Uint64(b[32:])}}, true
		}
	}
	return note, ok
}

func (t *tail) write(at place) {
	if t == nil || t.file == nil {
		return
	}
	le, b := binary.LittleEndian, t.buf[:]
	le.PutUint64(b, tailMagic)
	le.PutUint64(b[8:], t.id)
	le.PutUint64(b[16:], t.line)
	le.PutUint64(b[24:], at.seq)
	le.PutUint64(b[32:], at.total)
	le.PutUint32(b[40:], checksum(b[:40]))
	t.bufs[0] = b
	_, _ = t.file.WritevAt(t.bufs[:], t.turn*tailSlot) // it only makes a count exact
	t.turn = 1 - t.turn
}

func (t *tail) close() {
	if t != nil && t.file != nil {
		t.file.Close()
		t.file = nil
	}
}
