package spool

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
)

// The engine finds damaged batches by their hash, with one exception: before it
// looks at the hash it takes note of every number that is missing in front of a
// batch. One flipped bit in a batch's number keeps it busy, and growing, for
// ever. So numbers are looked at before the engine starts.
//
// A block file is a run of records, little endian (nats-server/v2,
// server/filestore.go, not encrypted, not compressed):
//
//	| length 32, top bit: has headers | number 64 | time 64 | subject length 16 | ... | hash 64 |
const (
	recordHeader = 22
	recordLeast  = recordHeader + 8
	headersFlag  = 1 << 31
	// The two top bits of a number mark erased records and tombstones. Batches are
	// never erased one by one: one that is marked so is damaged.
	numberFlags = 3 << 62
)

// blockRecord is one batch in a block file.
type blockRecord struct {
	offset int64
	number uint64
}

// repairNumbers puts right the numbers of batches that can't be, in every shard
// below dir. Files that can't be read are left to the engine.
func repairNumbers(dir string, log *slog.Logger) error {
	files, err := blockFiles(filepath.Join(dir, "jetstream", "*", "streams", streamPrefix+"*"))
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	for _, f := range files {
		n, err := repairFile(f)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		if n > 0 {
			log.Warn("spool: damaged numbers of batches put right", "file", f, "batches", n)
		}
	}
	return nil
}

func repairFile(path string) (repaired int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	records, err := blockRecords(f)
	if err != nil || len(records) == 0 {
		return 0, err
	}
	// In a file numbers go up one by one, as batches leave a shard at its beginning
	// only: what most of them say of the first one is true. A lone record has nothing but the file to be compared with.
	first := majority(records)
	if len(records) == 1 {
		first = min(first, maxPlausible(path))
	}
	for i, r := range records {
		want := first + uint64(i)
		if r.number == want {
			continue
		}
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], want)
		if _, err := f.WriteAt(b[:], r.offset+4); err != nil {
			return repaired, err
		}
		repaired++
	}
	return repaired, nil
}

// blockRecords lists the batches of a block file, as far as the lengths lead.
func blockRecords(f *os.File) ([]blockRecord, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var out []blockRecord
	var h [recordHeader]byte
	for at := int64(0); at+recordLeast <= st.Size(); {
		if _, err := f.ReadAt(h[:], at); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return nil, err
		}
		length := int64(binary.LittleEndian.Uint32(h[:]) &^ headersFlag)
		if length < recordLeast || at+length > st.Size() {
			break
		}
		// Marks of what is gone have numbers of their own order, and nothing else.
		if length > recordLeast {
			out = append(out, blockRecord{at, binary.LittleEndian.Uint64(h[4:])})
		}
		at += length
	}
	return out, nil
}

// majority is the number of the first record that most records agree on.
func majority(records []blockRecord) uint64 {
	votes := map[uint64]int{}
	for i, r := range records {
		votes[r.number-uint64(i)]++
	}
	best := records[0].number
	for n, v := range votes {
		if c := cmp.Compare(v, votes[best]); c > 0 || c == 0 && n < best {
			best = n
		}
	}
	return best
}

// maxPlausible bounds the number of a file's only record: the engine makes at
// most one file for each batch.
func maxPlausible(path string) uint64 { return max(blockIndex(path), 1) << 24 }
