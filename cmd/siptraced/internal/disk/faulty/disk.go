package faulty

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Sector is what the disk writes as a whole, in bytes, unless it tears it.
const Sector = 512

// pageSize is the unit in which space is given out.
const pageSize = 4096

type page [pageSize]byte

// zeros is what was allocated and not written.
var zeros = new(page)

// Disk is one disk with one file system on it. Its methods may be called
// concurrently.
type Disk struct {
	mu      sync.Mutex // covers all that follows, and the inodes
	rand    *rand.Rand
	dirs    map[string]*directory
	size    int64 // of the file system, in bytes
	others  int64 // what others use of it
	used    int64 // pages of our files, in bytes
	writes  uint64
	lost    int // syncs that failed and lost what they should have written
	faults  []*active
	healed  chan struct{} // closed by Heal
	latency func(Op) time.Duration
	watch   func(Call)
	calls   int
	alive   []*Process
	locks   map[string]*lock
}

// directory is names, as they are seen and as they are on the medium.
type directory struct {
	names, synced map[string]*inode
	made          bool // the directory itself is on the medium
	ops           []entryOp
}

// entryOp is a change of names that is not synced: to points to node (nil: it is
// removed), and from is gone if it is not "".
type entryOp struct {
	to, from string
	node     *inode
	parent   string // of a new directory
}

// New makes an empty disk of 1 GiB.
func New(seed uint64) *Disk {
	return &Disk{
		rand: rand.New(rand.NewPCG(seed, 0x5ec7)), size: 1 << 30, healed: make(chan struct{}),
		dirs: map[string]*directory{"/": newDirectory(true)}, locks: map[string]*lock{},
	}
}

func newDirectory(made bool) *directory {
	return &directory{names: map[string]*inode{}, synced: map[string]*inode{}, made: made}
}

// SetSize bounds the file system: its size, and what others use of it, in bytes.
func (d *Disk) SetSize(size, others int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size, d.others = size, others
}

// Used is what the files take, in bytes.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// SetLatency has calls take time, in which nothing else is held up.
func (d *Disk) SetLatency(f func(Op) time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latency = f
}

// Lost is how many calls of Sync failed that lost some of what they should have written
// (Fault.Lose).
func (d *Disk) Lost() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// Watch has f see each call before it is done. f may kill processes and inject
// faults.
func (d *Disk) Watch(f func(Call)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch = f
}

func clean(name string) string { return path.Clean("/" + name) }

// lookup is the file of a name, nil if there is none.
func (d *Disk) lookup(name string) *inode {
	name = clean(name)
	dir := d.dirs[path.Dir(name)]
	if dir == nil {
		return nil
	}
	return dir.names[path.Base(name)]
}

// Files are the names of all files, sorted.
func (d *Disk) Files() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir, entries := range d.dirs {
		for name := range entries.names {
			names = append(names, path.Join(dir, name))
		}
	}
	slices.Sort(names)
	return names
}

// Contents is what a file has, as a process would read it.
func (d *Disk) Contents(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.lookup(name)
	if n == nil {
		return nil, pathError("open", name, syscall.ENOENT)
	}
	b := make([]byte, n.now.size)
	n.now.read(b, 0)
	return b, nil
}

// SetContents makes a file, or replaces what it has; it is on the medium at once.
func (d *Disk) SetContents(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = clean(name)
	d.mkdirAll(path.Dir(name), true)
	dir := d.dirs[path.Dir(name)]
	if old := dir.names[path.Base(name)]; old != nil {
		d.unlinked(old)
	}
	n := &inode{links: 1}
	d.used += n.now.write(data, 0)
	n.medium = n.now.clone()
	dir.names[path.Base(name)], dir.synced[path.Base(name)] = n, n
	dir.ops = slices.DeleteFunc(dir.ops, func(op entryOp) bool { return op.to == path.Base(name) || op.from == path.Base(name) })
}

// Flip flips bits of one byte of a file, on the medium and in what is read.
func (d *Disk) Flip(name string, off int64, bits byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.lookup(name)
	if n == nil {
		return pathError("open", name, syscall.ENOENT)
	}
	n.flip(off, bits)
	return nil
}

// Rot flips one bit in a sector that chance chooses, of those that were written in
// the files whose name contains part. It says where; ok is false if there is none.
func (d *Disk) Rot(part string) (name string, off int64, ok bool) {
	names := slices.DeleteFunc(d.Files(), func(s string) bool { return !strings.Contains(s, part) })
	d.mu.Lock()
	defer d.mu.Unlock()
	type place struct {
		name string
		page int
	}
	var places []place
	for _, name := range names {
		for i, p := range d.lookup(name).now.pages {
			if p != nil && p != zeros {
				places = append(places, place{name, i})
			}
		}
	}
	if len(places) == 0 {
		return "", 0, false
	}
	at := places[d.rand.IntN(len(places))]
	off = int64(at.page)*pageSize + d.rand.Int64N(pageSize)
	n, bit := d.lookup(at.name), byte(1)<<d.rand.IntN(8)
	n.flip(off, bit)
	return at.name, off, true
}

func (d *Disk) mkdirAll(dir string, synced bool) {
	if dir == "/" {
		return
	}
	parent := path.Dir(dir)
	d.mkdirAll(parent, synced)
	if d.dirs[dir] == nil {
		d.dirs[dir] = newDirectory(synced)
		if !synced {
			p := d.dirs[parent]
			p.ops = append(p.ops, entryOp{to: path.Base(dir), parent: parent})
		}
	}
}

// unlinked gives back the space of a file that has no name any more.
func (d *Disk) unlinked(n *inode) {
	if n.links--; n.links == 0 && n.opened == 0 {
		d.used -= n.now.blocks() * pageSize
	}
}

// room reports whether the file system has n bytes more.
func (d *Disk) room(n int64) bool { return n <= 0 || d.used+d.others+n <= d.size }

func pathError(op, name string, err error) error {
	return &os.PathError{Op: op, Path: name, Err: err}
}

// apply does a change of names to what is on the medium. A file that did not get its
// former name has none that could be changed.
func (op entryOp) apply(names map[string]*inode) {
	if op.from != "" {
		if names[op.from] != op.node {
			return
		}
		delete(names, op.from)
	}
	if op.node == nil {
		delete(names, op.to)
	} else {
		names[op.to] = op.node
	}
}

// syncDir puts the first n changes of a directory onto the medium.
func (d *Disk) syncDir(name string, dir *directory, n int) {
	for _, op := range dir.ops[:n] {
		if op.parent == "" {
			op.apply(dir.synced)
		} else if made := d.dirs[path.Join(op.parent, op.to)]; made != nil {
			made.made = true
		}
	}
	dir.ops = dir.ops[n:]
}

// Process is what one process sees of the disk: a disk.FS.
type Process struct {
	disk *Disk
	dead chan struct{}
	once sync.Once
}

// Start is a process that begins to use the disk.
func (d *Disk) Start() *Process {
	p := &Process{disk: d, dead: make(chan struct{})}
	d.mu.Lock()
	d.alive = append(d.alive, p)
	d.mu.Unlock()
	return p
}

// ErrKilled is the answer to calls of a process that was killed. They do nothing.
var ErrKilled = fmt.Errorf("the process was killed: %w", fs.ErrClosed)

// Kill ends the process: what it wrote stays, calls under way come to nothing.
func (p *Process) Kill() { p.once.Do(func() { close(p.dead) }) }

func (p *Process) killed() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// Killed is closed when the process is killed.
func (p *Process) Killed() <-chan struct{} { return p.dead }
