package spool

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// A bit flipped in the number of a batch costs nothing: the number is put right,
// and every record is there.
func TestRepairNumbers(t *testing.T) {
	for _, bit := range []int{1, 20, 61, 62, 63} {
		for _, which := range []string{"first", "middle", "last"} {
			cfg := testConfig(t)
			cfg.BatchBytes = 1 << 10
			s := open(t, cfg)
			put(t, s, 0, 300)
			if err := s.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(cfg.Dir, "jetstream", "*", "streams", "*", "msgs", "*.blk"))
			if err != nil || len(files) == 0 {
				t.Fatalf("block files: %v, %v", files, err)
			}
			damaged := 0
			for _, name := range files {
				damage(t, name, bit, which)
				damaged++
			}
			if damaged == 0 {
				t.Fatal("nothing damaged")
			}
			s = open(t, cfg)
			rs := readers(t, s)
			take(t, s, rs, 300, map[string][]string{})
			closeAll(t, s, rs)
		}
	}
}

func damage(t *testing.T, name string, bit int, which string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := blockRecords(f)
	if err != nil || len(records) < 3 {
		t.Fatalf("%s: %d records, %v", name, len(records), err)
	}
	r := records[map[string]int{"first": 0, "middle": len(records) / 2, "last": len(records) - 1}[which]]
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], r.number^1<<bit)
	if _, err := f.WriteAt(b[:], r.offset+4); err != nil {
		t.Fatal(err)
	}
}
