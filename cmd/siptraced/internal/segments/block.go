package segments

import (
	"sync"
	"sync/atomic"
)

// block is a piece of a file in memory. It is used again when neither the cursor
// that read it nor anybody who got an entry from it needs it.
type block struct {
	data  []byte
	users atomic.Int32
	pool  *sync.Pool
}

func (b *block) Retain() { b.users.Add(1) }

func (b *block) Release() {
	if b.users.Add(-1) == 0 {
		b.pool.Put(b)
	}
}

// newBlock is a block of n bytes, with one user.
func newBlock(pool *sync.Pool, n int) *block {
	b, _ := pool.Get().(*block)
	if b == nil || cap(b.data) < n {
		b = &block{data: make([]byte, n+n/8), pool: pool}
	}
	b.data = b.data[:n]
	b.users.Store(1)
	return b
}
