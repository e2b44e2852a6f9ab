package loop

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"math/bits"
	"math/rand/v2"
	"os"
	"sync/atomic"
)

const (
	// slots is how many texts are known at the most, 8 bytes each. Of texts that
	// share a bucket the one that was sent longest ago makes way.
	slots       = 1 << 19
	bucketSlots = 8 // a cache line
	buckets     = slots / bucketSlots
	// ageTexts is how many new texts make what is known one unit older. Ages wrap
	// around after twice as many texts as there are slots.
	ageTexts = 2 * slots / 256
)

// memory counts copies of the texts that were sent last: of the last quarter of
// slots it forgets one in a thousand. Safe for concurrent use.
type memory struct {
	seed  uint64
	slots *[slots]atomic.Uint64
	added atomic.Uint64 // texts
}

// A slot has 40 bits of a text's hash; then 8 bits each: the age of the text when
// it was sent last, copies sent without a path, and copies sent with one. One
// without copies is free.
const (
	hashBits  = uint64(1<<64 - 1<<24)
	ageUnit   = uint64(1 << 16)
	bareUnit  = uint64(1 << 8)
	pathUnit  = uint64(1)
	countMask = uint64(0xff)
	copies    = bareUnit*countMask | pathUnit*countMask
)

// bare are the copies without a path in a slot.
func bare(slot uint64) uint64 { return slot / bareUnit & countMask }

func newMemory() *memory { return &memory{seed: rand.Uint64(), slots: new([slots]atomic.Uint64)} }

// hash is that of a text. It is kept on disk, so maphash won't do.
func (m *memory) hash(text []byte) uint64 {
	const a, b, c, d = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93, 0xa0761d6478bd642f, 0xe7037ed1a0b428db
	h := m.seed ^ uint64(len(text))*b
	if len(text) >= 64 {
		// Four chains side by side keep the multiplier busy.
		h1, h2, h3 := h, h, h
		for ; len(text) >= 64; text = text[64:] {
			h = mix(word(text)^a, word(text[8:])^h)
			h1 = mix(word(text[16:])^b, word(text[24:])^h1)
			h2 = mix(word(text[32:])^c, word(text[40:])^h2)
			h3 = mix(word(text[48:])^d, word(text[56:])^h3)
		}
		h = mix(h^h1^c, h2^h3^d)
	}
	for ; len(text) >= 16; text = text[16:] {
		h = mix(word(text)^a, word(text[8:])^h)
	}
	var rest [16]byte
	copy(rest[:], text)
	h = mix(word(rest[:])^a, word(rest[8:])^h)
	return mix(h^b, a)
}

func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// mix multiplies to 128 bits and folds them.
func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// bucket is where a text's slot is, if it has one.
func (m *memory) bucket(hash uint64) *[bucketSlots]atomic.Uint64 {
	i := hash % buckets * bucketSlots
	return (*[bucketSlots]atomic.Uint64)(m.slots[i : i+bucketSlots])
}

// add counts n copies that are sent, of the kind of a unit.
func (m *memory) add(hash, unit, n uint64) {
	list := m.bucket(hash)
	for {
		now := m.added.Load() / ageTexts % 256
		oldest, most := 0, uint64(0) // the slot that makes way
		var old uint64
		known := false
		for i := range list {
			v := list[i].Load()
			if known = v&copies != 0 && v&hashBits == hash&hashBits; known {
				oldest, old = i, v
				break
			}
			age := (now-v/ageUnit)%256 + 1
			if v&copies == 0 {
				age = 1 << 9 // free
			}
			if age > most {
				oldest, most, old = i, age, v
			}
		}
		fresh := hash & hashBits
		if known {
			fresh = old &^ (countMask * ageUnit)
		}
		fresh += now*ageUnit + min(n, countMask-fresh/unit&countMask)*unit
		if list[oldest].CompareAndSwap(old, fresh) {
			if !known {
				m.added.Add(1)
			}
			return
		}
	}
}

// has reports whether a copy is out.
func (m *memory) has(hash uint64) bool {
	list := m.bucket(hash)
	for i := range list {
		if v := list[i].Load(); v&hashBits == hash&hashBits && v&copies != 0 {
			return true
		}
	}
	return false
}

// take takes one of the kind of a unit away, which has come back, and reports
// whether there was one.
func (m *memory) take(hash, unit uint64) bool {
	list := m.bucket(hash)
	for i := range list {
		for v := list[i].Load(); v&hashBits == hash&hashBits && v/unit&countMask > 0; v = list[i].Load() {
			if list[i].CompareAndSwap(v, v-unit) {
				return true
			}
		}
	}
	return false
}

// each calls do with every text of which a copy without path is out.
func (m *memory) each(do func(hash, bare uint64)) {
	for i := range m.slots {
		if v := m.slots[i].Load(); bare(v) > 0 {
			do(v&hashBits|uint64(i/bucketSlots), bare(v))
		}
	}
}

// The file of a memory: magic, seed, then hash and count (8 bits) of each text,
// CRC-32C of all that; numbers are big endian.
const (
	memoryMagic = "siptraced sent 2\n"
	memoryEntry = 8 + 1
)

var errFile = errors.New("the file is damaged or of another version")

// save writes down what may still come back over carriers without a path. With
// nothing to write there is no file.
func (m *memory) save(file string) error {
	out := binary.BigEndian.AppendUint64([]byte(memoryMagic), m.seed)
	empty := len(out)
	m.each(func(hash, n uint64) { out = append(binary.BigEndian.AppendUint64(out, hash), byte(n)) })
	if len(out) == empty {
		return remove(file)
	}
	return writeFile(file, out)
}

// load reads what save wrote, and removes the file: after a crash it would be
// out of date. It is called before anything is added.
func (m *memory) load(file string) error {
	b, err := readFile(file, memoryMagic)
	if err != nil || b == nil {
		return err
	}
	if len(b) < 8 || (len(b)-8)%memoryEntry != 0 {
		return errFile
	}
	m.seed = binary.BigEndian.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[memoryEntry:] {
		hash := binary.BigEndian.Uint64(b)
		m.add(hash, bareUnit, uint64(b[8]))
	}
	return remove(file)
}

func remove(file string) error {
	if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// castagnoli is the polynomial of the files' checksums.
const castagnoli = crc32.Castagnoli

// writeFile replaces a file as a whole; b gets a checksum.
func writeFile(file string, b []byte) error {
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(castagnoli)))
	temporary := file + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}

// readFile is what stands behind the magic in a file of writeFile; nil without a
// file.
func readFile(file, magic string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := len(b) - 4
	if n < len(magic) || string(b[:len(magic)]) != magic || crc32.Checksum(b[:n], crc32.MakeTable(castagnoli)) != binary.BigEndian.Uint32(b[n:]) {
		return nil, errFile
	}
	return b[len(magic):n], nil
}
