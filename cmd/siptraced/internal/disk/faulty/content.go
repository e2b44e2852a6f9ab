package faulty

import "slices"

// inode is a file: what is seen of it, what is on the medium, and what was done
// since. A page is never changed once two of them share it: shared pages are
// replaced.
type inode struct {
	now, medium content
	ops         []change
	opened      int
	links       int
}

// change is one call that changed a file: bytes at an offset, or (data nil) a size.
type change struct {
	number    uint64 // in the order of all writes to the disk
	off, size int64
	data      []byte
	blocks    bool // size is allocated
}

// flip flips bits of a byte in what is seen, on the medium, and in what is on its way
// there.
func (n *inode) flip(off int64, bits byte) {
	n.now.flip(off, bits)
	n.medium.flip(off, bits)
	for i := range n.ops {
		if ch := &n.ops[i]; off >= ch.off && off < ch.off+int64(len(ch.data)) {
			ch.data = slices.Clone(ch.data) // others may have it, too
			ch.data[off-ch.off] ^= bits
		}
	}
}

// content is the bytes of a file. nil pages have no space and read as zeros.
type content struct {
	size  int64
	pages []*page
	owned []bool // the page is in no other content
}

func (c *content) clone() content {
	clear(c.owned)
	return content{size: c.size, pages: slices.Clone(c.pages), owned: make([]bool, len(c.pages))}
}

func (c *content) read(b []byte, off int64) {
	for len(b) > 0 {
		i, from := off/pageSize, off%pageSize
		n := min(len(b), int(pageSize-from))
		if i < int64(len(c.pages)) && c.pages[i] != nil {
			copy(b[:n], c.pages[i][from:])
		} else {
			clear(b[:n])
		}
		b, off = b[n:], off+int64(n)
	}
}

func (c *content) grow(pages int64) {
	for int64(len(c.pages)) < pages {
		c.pages, c.owned = append(c.pages, nil), append(c.owned, false)
	}
}

// own is a page that may be changed.
func (c *content) own(i int64) *page {
	if !c.owned[i] {
		p := new(page)
		if c.pages[i] != nil {
			*p = *c.pages[i]
		}
		c.pages[i], c.owned[i] = p, true
	}
	return c.pages[i]
}

// missing is how many bytes of space a write needs.
func (c *content) missing(off, n int64) (bytes int64) {
	if n == 0 {
		return 0
	}
	for i := off / pageSize; i <= (off+n-1)/pageSize; i++ {
		if i >= int64(len(c.pages)) || c.pages[i] == nil {
			bytes += pageSize
		}
	}
	return bytes
}

// write puts bytes into a file, and says how much space that took.
func (c *content) write(b []byte, off int64) (took int64) {
	took = c.missing(off, int64(len(b)))
	c.size = max(c.size, off+int64(len(b)))
	c.grow((off + int64(len(b)) + pageSize - 1) / pageSize)
	for len(b) > 0 {
		i, from := off/pageSize, off%pageSize
		n := copy(c.own(i)[from:], b)
		b, off = b[n:], off+int64(n)
	}
	return took
}

// allocate makes the file n bytes long, all of it with space.
func (c *content) allocate(n int64) (took int64) {
	c.size = max(c.size, n)
	c.grow((n + pageSize - 1) / pageSize)
	for i := range c.pages[:(n+pageSize-1)/pageSize] {
		if c.pages[i] == nil {
			c.pages[i] = zeros
			took += pageSize
		}
	}
	return took
}

// truncate makes the file n bytes long, and says how much space that gave back.
func (c *content) truncate(n int64) (gave int64) {
	c.size = n
	for i := (n + pageSize - 1) / pageSize; i < int64(len(c.pages)); i++ {
		if c.pages[i] != nil {
			c.pages[i], c.owned[i] = nil, false
			gave += pageSize
		}
	}
	c.pages, c.owned = c.pages[:min(int64(len(c.pages)), (n+pageSize-1)/pageSize)], c.owned[:min(int64(len(c.owned)), (n+pageSize-1)/pageSize)]
	if from := n % pageSize; from > 0 && n/pageSize < int64(len(c.pages)) && c.pages[n/pageSize] != nil {
		clear(c.own(n / pageSize)[from:])
	}
	return gave
}

func (c *content) flip(off int64, bits byte) {
	if i := off / pageSize; i < int64(len(c.pages)) && c.pages[i] != nil {
		c.own(i)[off%pageSize] ^= bits
	}
}

func (c *content) blocks() (n int64) {
	for _, p := range c.pages {
		if p != nil {
			n++
		}
	}
	return n
}

// apply does a change to a view of the file.
func (ch *change) apply(c *content) {
	switch {
	case ch.data != nil:
		c.write(ch.data, ch.off)
	case ch.blocks:
		c.allocate(ch.size)
	default:
		c.truncate(ch.size)
	}
}
