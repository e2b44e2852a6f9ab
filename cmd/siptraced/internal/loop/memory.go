package loop

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"math/bits"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
)

const (
	// generationSlots has room for twice generationTexts, so that few texts have to
	// make way in a full bucket.
	generationTexts = 1 << 18
	generationSlots = 2 * generationTexts
	bucketSlots     = 8 // a cache line
	buckets         = generationSlots / bucketSlots
)

// memory counts copies of the texts that were sent last: at least the last
// generationTexts different ones, at most twice as many, in 8 MiB. Safe for
// concurrent use. The zero value needs a seed.
type memory struct {
	seed uint64

	rotating sync.Mutex // held while now and before change
	now      atomic.Pointer[generation]
	before   atomic.Pointer[generation]
}

// generation is a hash table. A slot has the upper 48 bits of a text's hash, the
// lower 16 are its bucket; then 8 bits each: copies sent without a path, and
// copies sent with one. 0 is free.
type generation struct {
	slots [generationSlots]atomic.Uint64 // first: a bucket is one cache line then
	used  atomic.Int64
}

const (
	hashBits  = uint64(1<<64 - 1<<16)
	bareUnit  = uint64(1 << 8)
	pathUnit  = uint64(1)
	countMask = uint64(0xff)
)

// bare and marked are the copies without and with a path in a slot.
func bare(slot uint64) uint64   { return slot / bareUnit & countMask }
func marked(slot uint64) uint64 { return slot & countMask }

func newMemory() *memory { return &memory{seed: rand.Uint64()} }

// hash is that of a text. It is kept on disk, so maphash won't do.
func (m *memory) hash(text []byte) uint64 {
	const a, b = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	h := m.seed ^ uint64(len(text))*b
	for len(text) >= 16 {
		h = mix(binary.LittleEndian.Uint64(text)^a, binary.LittleEndian.Uint64(text[8:])^h)
		text = text[16:]
	}
	var rest [16]byte
	copy(rest[:], text)
	h = mix(binary.LittleEndian.Uint64(rest[:])^a, binary.LittleEndian.Uint64(rest[8:])^h)
	return mix(h^b, a)
}

// mix multiplies to 128 bits and folds them.
func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// slotOf is the hash as it stands in a slot.
func slotOf(hash uint64) uint64 { return max(hash&hashBits, 1<<16) }

func (g *generation) bucket(hash uint64) []atomic.Uint64 {
	i := hash % buckets * bucketSlots
	return g.slots[i : i+bucketSlots]
}

// add counts n copies that are sent, of the kind of a unit.
func (m *memory) add(hash, unit, n uint64) {
	g := m.now.Load()
	if g == nil || g.used.Load() >= generationTexts {
		g = m.rotate(g)
	}
	g.add(hash, unit, min(n, countMask))
}

func (g *generation) add(hash, unit, n uint64) {
	list := g.bucket(hash)
	for i := 0; i < len(list); {
		old := list[i].Load()
		switch {
		case old == 0:
			if list[i].CompareAndSwap(0, slotOf(hash)|n*unit) {
				g.used.Add(1)
				return
			}
		case old&hashBits != slotOf(hash):
			i++
		case list[i].CompareAndSwap(old, old+min(n, countMask-old/unit&countMask)*unit):
			return
		}
	}
	// Full: another text makes way.
	list[hash>>60%bucketSlots].Store(slotOf(hash) | n*unit)
}

// rotate begins a generation, unless somebody else did.
func (m *memory) rotate(seen *generation) *generation {
	m.rotating.Lock()
	defer m.rotating.Unlock()
	if g := m.now.Load(); g != seen {
		return g
	}
	g := new(generation)
	m.before.Store(seen)
	m.now.Store(g)
	return g
}

// find calls use with each slot of a text, until it returns true.
func (m *memory) find(hash uint64, use func(s *atomic.Uint64) bool) bool {
	for _, g := range [...]*generation{m.now.Load(), m.before.Load()} {
		if g == nil {
			continue
		}
		list := g.bucket(hash)
		for i := range list {
			v := list[i].Load()
			if v == 0 {
				break // slots are used in order, and never free again
			}
			if v&hashBits == slotOf(hash) && use(&list[i]) {
				return true
			}
		}
	}
	return false
}

// has reports whether a copy is out; bareOnly: one without a path.
func (m *memory) has(hash uint64, bareOnly bool) bool {
	return m.find(hash, func(s *atomic.Uint64) bool {
		v := s.Load()
		return bare(v) > 0 || !bareOnly && marked(v) > 0
	})
}

// take takes one away that has come back, and reports whether there was one.
func (m *memory) take(hash uint64, bareOnly bool) bool {
	for _, unit := range [...]uint64{bareUnit, pathUnit} {
		if bareOnly && unit == pathUnit {
			break
		}
		if m.find(hash, func(s *atomic.Uint64) bool {
			for v := s.Load(); v&hashBits == slotOf(hash) && v/unit&countMask > 0; v = s.Load() {
				if s.CompareAndSwap(v, v-unit) {
					return true
				}
			}
			return false
		}) {
			return true
		}
	}
	return false
}

// each calls do with every text of which a copy without path is out.
func (m *memory) each(do func(hash, bare uint64)) {
	for _, g := range [...]*generation{m.before.Load(), m.now.Load()} {
		if g == nil {
			continue
		}
		for i := range g.slots {
			if v := g.slots[i].Load(); bare(v) > 0 {
				do(v&hashBits|uint64(i/bucketSlots), bare(v))
			}
		}
	}
}

// The file of a memory: magic, seed, then hash and count (8 bits) of each text,
// CRC-32C of all that; numbers are big endian.
const (
	memoryMagic = "siptraced sent 1\n"
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
