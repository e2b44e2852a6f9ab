package faulty

import (
	"maps"
	"path"
	"slices"
)

// A loss of power deals with what was not synced in one of these ways.
const (
	loseAll    = iota // nothing of it is on the medium
	loseNone          // all
	loseBehind        // the first writes, and the beginning of one more
	loseSome          // any sectors of any writes
	loseKinds
)

// PowerLoss takes the power from the machine: all processes are gone, and the disk
// has what was on the medium.
func (d *Disk) PowerLoss() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.alive {
		p.Kill()
	}
	d.alive = nil
	d.crash()
}

// CrashClone is the disk as it would be found after a loss of power at this moment.
// The same seed gives the same one. The disk itself goes on.
func (d *Disk) CrashClone(seed uint64) *Disk {
	c := d.Clone(seed)
	c.crash()
	return c
}

// Clone is a copy of the disk at this moment, with chance of its own and without
// faults.
func (d *Disk) Clone(seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New(seed)
	c.size, c.others, c.used, c.writes = d.size, d.others, d.used, d.writes
	nodes := map[*inode]*inode{nil: nil}
	copied := func(n *inode) *inode {
		if _, ok := nodes[n]; !ok {
			// Nobody holds the copies open: what has no name keeps no space, then.
			nodes[n] = &inode{now: n.now.clone(), medium: n.medium.clone(), ops: slices.Clone(n.ops), links: n.links}
		}
		return nodes[n]
	}
	for name, dir := range d.dirs {
		to := newDirectory(dir.made)
		for base, n := range dir.names {
			to.names[base] = copied(n)
		}
		for base, n := range dir.synced {
			to.synced[base] = copied(n)
		}
		for _, op := range dir.ops {
			op.node = copied(op.node)
			to.ops = append(to.ops, op)
		}
		c.dirs[name] = to
	}
	c.count()
	return c
}

// count adds up the space of all files anew.
func (d *Disk) count() {
	d.used = 0
	seen := map[*inode]bool{}
	for _, dir := range d.dirs {
		for _, n := range dir.names {
			if !seen[n] {
				seen[n] = true
				d.used += n.now.blocks() * pageSize
			}
		}
	}
}

// crash leaves what is on the medium, and some of what is not.
func (d *Disk) crash() {
	kind := d.rand.IntN(loseKinds)
	last := d.writes
	behind := uint64(0) // the last write that is kept whole
	if oldest := d.oldestWrite(); oldest <= last {
		behind = oldest - 1 + d.rand.Uint64N(last-oldest+2)
	}
	share := d.rand.Float64()
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) {
		d.crashNames(name, kind)
	}
	// Processes that are gone still hold the former inodes.
	nodes := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) {
		dir := d.dirs[name]
		if !dir.made {
			delete(d.dirs, name)
			continue
		}
		dir.ops = nil
		for _, base := range slices.Sorted(maps.Keys(dir.synced)) {
			was := dir.synced[base]
			n := nodes[was]
			if n == nil {
				n = d.crashed(was, kind, behind, share)
				nodes[was] = n
			}
			n.links++
			dir.synced[base] = n
		}
		dir.names = maps.Clone(dir.synced)
	}
	d.count()
}

// oldestWrite is the number of the first write that is not synced.
func (d *Disk) oldestWrite() uint64 {
	oldest := d.writes + 1
	for _, dir := range d.dirs {
		for _, names := range []map[string]*inode{dir.names, dir.synced} {
			for _, n := range names {
				if len(n.ops) > 0 {
					oldest = min(oldest, n.ops[0].number)
				}
			}
		}
	}
	return oldest
}

// crashNames keeps or loses the changes of names in a directory that are not
// synced. Those that are kept are the first ones, as journals of file systems have
// it, or any.
func (d *Disk) crashNames(name string, kind int) {
	dir := d.dirs[name]
	n := len(dir.ops)
	switch kind {
	case loseAll:
		n = 0
	case loseBehind:
		n = d.rand.IntN(n + 1)
	case loseSome:
		dir.ops = slices.DeleteFunc(dir.ops, func(entryOp) bool { return d.rand.IntN(2) == 0 })
		n = len(dir.ops)
	}
	d.syncDir(name, dir, n)
	if !dir.made {
		return
	}
	// A directory that is on the medium has its parents there.
	for parent := path.Dir(name); ; parent = path.Dir(parent) {
		if p := d.dirs[parent]; p == nil || !p.made {
			dir.made = false
		}
		if parent == "/" {
			return
		}
	}
}

// crashed is what becomes of a file.
func (d *Disk) crashed(was *inode, kind int, behind uint64, share float64) *inode {
	n := &inode{medium: was.medium.clone(), ops: was.ops}
	switch kind {
	case loseNone:
		for i := range n.ops {
			n.ops[i].apply(&n.medium)
		}
	case loseBehind:
		for i := range n.ops {
			if n.ops[i].number <= behind {
				n.ops[i].apply(&n.medium)
			} else if n.ops[i].number == behind+1 && len(n.ops[i].data) > 0 {
				n.medium.write(n.ops[i].data[:d.rand.IntN(len(n.ops[i].data))], n.ops[i].off)
			}
		}
	case loseSome:
		d.scatter(&n.medium, n.ops, share)
	}
	n.ops, n.now = nil, n.medium.clone()
	return n
}

// scatter puts each sector of some changes onto the medium, or not. One of them may
// be torn.
func (d *Disk) scatter(c *content, ops []change, share float64) {
	for i := range ops {
		if ops[i].data == nil {
			if d.rand.Float64() < share {
				ops[i].apply(c)
			}
			continue
		}
		for data, off := ops[i].data, ops[i].off; len(data) > 0; {
			n := min(len(data), int(Sector-off%Sector))
			if d.rand.Float64() < share {
				part := data[:n]
				if d.rand.IntN(64) == 0 {
					part = data[:d.rand.IntN(n)]
				}
				c.write(part, off)
			}
			data, off = data[n:], off+int64(n)
		}
	}
}
