package spool

import (
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// trim gives up the batches up to seq. The embedded engine writes a block anew
// to give up a part of it: it needs room for that on a full disk, and ends with
// a panic when the block is damaged. So it gives up whole blocks, and the last
// one when all of it is done.
func (sh *shard) trim(ctx context.Context, seq uint64) error {
	if !sh.spool.Shared() && seq > sh.purged {
		all := false
		if seq >= sh.lastSeq.Load() && sh.publishing.TryLock() {
			defer sh.publishing.Unlock() // what comes in between would make it a part
			all = seq >= sh.lastSeq.Load()
		}
		if !all {
			seq = max(sh.blockStart(seq+1), 1) - 1
		}
	}
	if seq <= sh.purged {
		return nil
	}
	if err := sh.stream.Purge(ctx, jetstream.WithPurgeSequence(seq+1)); err != nil {
		return err
	}
	sh.purged = seq
	return nil
}

// dropOldest gives up the oldest block, or all of the shard when it has no other.
// done is false when there was nothing to give up. The publisher calls it.
func (sh *shard) dropOldest(ctx context.Context) (done bool, err error) {
	info, err := sh.stream.Info(ctx)
	if err != nil || info.State.Msgs == 0 {
		return false, err
	}
	next := info.State.LastSeq + 1
	files, err := sh.blocks()
	if err != nil {
		return false, err
	}
	for _, f := range files {
		if n := firstNumber(f); n > info.State.FirstSeq && n < next {
			next = n
		}
	}
	if err := sh.stream.Purge(ctx, jetstream.WithPurgeSequence(next)); err != nil {
		return true, err
	}
	return true, sh.measure(ctx)
}

// blockStart is the number of the first batch in the last block that begins no
// later than limit; 0: there is none.
func (sh *shard) blockStart(limit uint64) (start uint64) {
	files, err := sh.blocks()
	if err != nil {
		return 0
	}
	for _, f := range files {
		n := firstNumber(f)
		if n > limit {
			break
		}
		start = max(start, n)
	}
	return start
}

func (sh *shard) blocks() ([]string, error) {
	return blockFiles(filepath.Join(sh.spool.cfg.Dir, "jetstream", "*", "streams", streamPrefix+strconv.Itoa(sh.index)))
}

// blockFiles lists the block files of streams, of each stream in its order.
func blockFiles(streams string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(streams, "msgs", "*.blk"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b string) int {
		return cmp.Or(strings.Compare(filepath.Dir(a), filepath.Dir(b)), cmp.Compare(blockIndex(a), blockIndex(b)))
	})
	return files, nil
}

func blockIndex(path string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), ".blk"), 10, 64)
	return n
}

// firstNumber is the number of the first batch in a block file; 0: there is none,
// or the engine has just removed the file.
func firstNumber(path string) uint64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	var h [recordHeader]byte
	for {
		if _, err := io.ReadFull(f, h[:]); err != nil {
			return 0
		}
		length := int64(binary.LittleEndian.Uint32(h[:]) &^ headersFlag)
		if length < recordLeast {
			return 0
		}
		if number := binary.LittleEndian.Uint64(h[4:]); length > recordLeast && number&numberFlags == 0 {
			return number
		}
		if _, err := f.Seek(length-recordHeader, io.SeekCurrent); err != nil {
			return 0
		}
	}
}
