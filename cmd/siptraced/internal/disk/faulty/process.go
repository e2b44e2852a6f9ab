package faulty

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"siptraced/cmd/siptraced/internal/disk"
)

var _ disk.FS = (*Process)(nil)

// Open opens a file, as disk.FS says.
func (p *Process) Open(name string, flag int) (disk.File, error) {
	act := p.begin(Call{Op: Open, Path: name})
	if act.err != nil {
		return nil, pathError("open", name, act.err)
	}
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	name = clean(name)
	dir, base := d.dirs[path.Dir(name)], path.Base(name)
	if dir == nil {
		return nil, pathError("open", name, syscall.ENOENT)
	}
	n := dir.names[base]
	switch {
	case d.dirs[name] != nil:
		return nil, pathError("open", name, syscall.EISDIR)
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathError("open", name, syscall.ENOENT)
	case n != nil && flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, pathError("open", name, syscall.EEXIST)
	case n == nil:
		n = &inode{links: 1}
		dir.names[base] = n
		dir.ops = append(dir.ops, entryOp{to: base, node: n})
	}
	n.opened++
	f := &file{process: p, node: n, name: name, write: flag&(os.O_WRONLY|os.O_RDWR) != 0}
	if f.write && flag&os.O_TRUNC != 0 {
		f.truncate(0)
	}
	return f, nil
}

// List is the names in a directory, sorted.
func (p *Process) List(dir string) ([]string, error) {
	if act := p.begin(Call{Op: List, Path: dir}); act.err != nil {
		return nil, pathError("readdir", dir, act.err)
	}
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	dir = clean(dir)
	entries := d.dirs[dir]
	if entries == nil {
		return nil, pathError("open", dir, syscall.ENOENT)
	}
	var names []string
	for name := range entries.names {
		names = append(names, name)
	}
	for name := range d.dirs {
		if name != "/" && path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// MkdirAll makes a directory and those above it.
func (p *Process) MkdirAll(dir string) error {
	if act := p.begin(Call{Op: Mkdir, Path: dir}); act.err != nil {
		return pathError("mkdir", dir, act.err)
	}
	p.disk.mu.Lock()
	defer p.disk.mu.Unlock()
	p.disk.mkdirAll(clean(dir), false)
	return nil
}

// Rename gives a file another name in the same directory, or in another one.
func (p *Process) Rename(from, to string) error {
	if act := p.begin(Call{Op: Rename, Path: from}); act.err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: act.err}
	}
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	from, to = clean(from), clean(to)
	source, target := d.dirs[path.Dir(from)], d.dirs[path.Dir(to)]
	if source == nil || target == nil || source.names[path.Base(from)] == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.ENOENT}
	}
	if from == to {
		return nil
	}
	n := source.names[path.Base(from)]
	if old := target.names[path.Base(to)]; old != nil {
		d.unlinked(old)
	}
	delete(source.names, path.Base(from))
	target.names[path.Base(to)] = n
	if source == target {
		source.ops = append(source.ops, entryOp{to: path.Base(to), from: path.Base(from), node: n})
		return nil
	}
	target.ops = append(target.ops, entryOp{to: path.Base(to), node: n})
	source.ops = append(source.ops, entryOp{to: path.Base(from)})
	return nil
}

// Remove removes a file, or a directory that is empty.
func (p *Process) Remove(name string) error {
	if act := p.begin(Call{Op: Remove, Path: name}); act.err != nil {
		return pathError("remove", name, act.err)
	}
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	name = clean(name)
	if dir := d.dirs[name]; dir != nil && name != "/" {
		if len(dir.names) > 0 {
			return pathError("remove", name, syscall.ENOTEMPTY)
		}
		delete(d.dirs, name)
		return nil
	}
	n := d.lookup(name)
	if n == nil {
		return pathError("remove", name, syscall.ENOENT)
	}
	dir := d.dirs[path.Dir(name)]
	delete(dir.names, path.Base(name))
	dir.ops = append(dir.ops, entryOp{to: path.Base(name)})
	d.unlinked(n)
	return nil
}

// SyncDir puts the names of a directory onto the medium.
func (p *Process) SyncDir(dir string) error {
	d := p.disk
	d.mu.Lock()
	entries := d.dirs[clean(dir)]
	var n int
	if entries != nil {
		n = len(entries.ops)
	}
	d.mu.Unlock()
	if act := p.begin(Call{Op: SyncDir, Path: dir}); act.err != nil {
		return pathError("sync", dir, act.err)
	}
	if entries == nil {
		return pathError("open", dir, syscall.ENOENT)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncDir(clean(dir), entries, min(n, len(entries.ops)))
	return nil
}

// Space is the size of the file system and what is free.
func (p *Process) Space(dir string) (size, free uint64, err error) {
	if act := p.begin(Call{Op: Space, Path: dir}); act.err != nil {
		return 0, 0, pathError("statfs", dir, act.err)
	}
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	return uint64(d.size), uint64(max(0, d.size-d.used-d.others)), nil
}

// Lock keeps other processes off a file, until it is closed or the process is killed.
func (p *Process) Lock(name string) (io.Closer, error) {
	if act := p.begin(Call{Op: Lock, Path: name}); act.err != nil {
		return nil, pathError("flock", name, act.err)
	}
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	name = clean(name)
	dir, base := d.dirs[path.Dir(name)], path.Base(name)
	if dir == nil {
		return nil, pathError("open", name, syscall.ENOENT)
	}
	if l := d.locks[name]; l != nil && !l.process.killed() {
		return nil, &disk.LockedError{Name: name}
	}
	if dir.names[base] == nil {
		n := &inode{links: 1}
		dir.names[base] = n
		dir.ops = append(dir.ops, entryOp{to: base, node: n})
	}
	l := &lock{p, name}
	d.locks[name] = l
	return l, nil
}

type lock struct {
	process *Process
	name    string
}

func (l *lock) Close() error {
	d := l.process.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locks[l.name] == l {
		delete(d.locks, l.name)
	}
	return nil
}

// file is an open file of a process.
type file struct {
	process *Process
	node    *inode
	name    string
	write   bool
	closed  bool
}

func (f *file) Close() error {
	d := f.process.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	if f.node.opened--; f.node.opened == 0 && f.node.links == 0 {
		d.used -= f.node.now.blocks() * pageSize
	}
	return nil
}

func (f *file) begin(c Call) (action, error) {
	c.Path = f.name
	act := f.process.begin(c)
	f.process.disk.mu.Lock()
	defer f.process.disk.mu.Unlock()
	if f.closed && act.err == nil {
		act.err = fs.ErrClosed
	}
	if act.err != nil {
		return act, pathError(c.Op.String(), f.name, act.err)
	}
	return act, nil
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	act, err := f.begin(Call{Op: Read, Off: off, Len: len(b)})
	if err != nil {
		return 0, err
	}
	d := f.process.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	n := int(max(0, min(int64(len(b)), f.node.now.size-off)))
	f.node.now.read(b[:n], off)
	if act.rot && n > 0 {
		b[d.rand.IntN(n)] ^= 1 << d.rand.IntN(8)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Size() (int64, error) {
	if _, err := f.begin(Call{Op: Size}); err != nil {
		return 0, err
	}
	f.process.disk.mu.Lock()
	defer f.process.disk.mu.Unlock()
	return f.node.now.size, nil
}

// WritevAt writes the buffers. A fault may have a part of them written.
func (f *file) WritevAt(bufs [][]byte, off int64) (int, error) {
	data := slices.Concat(bufs...)
	act, err := f.begin(Call{Op: Write, Off: off, Len: len(data)})
	d := f.process.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && !f.write {
		err = pathError("write", f.name, syscall.EBADF)
	}
	if err != nil && !act.partial {
		return 0, err
	}
	if act.partial && len(data) > 0 {
		data = data[:d.rand.IntN(len(data))]
	}
	for len(data) > 0 && !d.room(f.node.now.missing(off, int64(len(data)))) {
		data = data[:(len(data)-1)/Sector*Sector]
		if err == nil {
			err = pathError("write", f.name, syscall.ENOSPC)
		}
	}
	if len(data) == 0 {
		return 0, err
	}
	at := off
	if act.misdirect {
		// It says that it wrote here, and wrote there.
		at = d.rand.Int64N(f.node.now.size/Sector+1) * Sector
	}
	d.writes++
	d.used += f.node.now.write(data, at)
	f.node.ops = append(f.node.ops, change{number: d.writes, off: at, data: data})
	return len(data), err
}

func (f *file) Allocate(n int64) error {
	act, err := f.begin(Call{Op: Allocate, Len: int(n)})
	d := f.process.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && !d.room(f.node.now.missing(0, n)) {
		err = pathError("fallocate", f.name, syscall.ENOSPC)
	}
	if err != nil && act.partial && d.room(f.node.now.missing(0, n/2)) {
		n /= 2
	} else if err != nil {
		return err
	}
	d.writes++
	d.used += f.node.now.allocate(n)
	f.node.ops = append(f.node.ops, change{number: d.writes, size: n, blocks: true})
	return err
}

func (f *file) Truncate(n int64) error {
	if _, err := f.begin(Call{Op: Truncate, Len: int(n)}); err != nil {
		return err
	}
	f.process.disk.mu.Lock()
	defer f.process.disk.mu.Unlock()
	f.truncate(n)
	return nil
}

func (f *file) truncate(n int64) {
	d := f.process.disk
	d.writes++
	d.used -= f.node.now.truncate(n)
	f.node.ops = append(f.node.ops, change{number: d.writes, size: n})
}

// Sync puts onto the medium what was written before it began.
func (f *file) Sync() error {
	d, n := f.process.disk, f.node
	d.mu.Lock()
	var last uint64
	if len(n.ops) > 0 {
		last = n.ops[len(n.ops)-1].number
	}
	d.mu.Unlock()
	act, err := f.begin(Call{Op: Sync})
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, ErrKilled) {
		return err
	}
	upTo := len(n.ops)
	if i := slices.IndexFunc(n.ops, func(ch change) bool { return ch.number > last }); i >= 0 {
		upTo = i
	}
	if err == nil {
		for i := range n.ops[:upTo] {
			n.ops[i].apply(&n.medium)
		}
		n.ops = slices.Clone(n.ops[upTo:])
		return nil
	}
	if act.lose {
		d.lose(n, upTo)
	}
	return err
}

// lose is what a failed Sync does: the first changes count as clean, and only some
// of them came to the medium. What is read afterwards is what was written, or what
// is on the medium.
func (d *Disk) lose(n *inode, upTo int) {
	d.lost++
	dirty := n.ops[:upTo]
	n.ops = slices.Clone(n.ops[upTo:])
	d.scatter(&n.medium, dirty, 0.5)
	if d.rand.IntN(2) == 0 {
		return
	}
	// The pages were needed for something else, and are read again.
	was := n.now.blocks()
	n.now = n.medium.clone()
	for i := range n.ops {
		n.ops[i].apply(&n.now)
	}
	d.used += (n.now.blocks() - was) * pageSize
}
