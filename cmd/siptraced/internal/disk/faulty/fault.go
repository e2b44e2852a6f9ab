package faulty

import (
	"slices"
	"strings"
	"time"
)

// Op is a kind of call, or several of them.
type Op uint

// The calls of disk.FS and disk.File.
const (
	Open Op = 1 << iota
	Read
	Write
	Sync
	Allocate
	Truncate
	Size
	List
	Mkdir
	Rename
	Remove
	SyncDir
	Space
	Lock
	Any Op = 1<<iota - 1
)

var opNames = []string{"open", "read", "write", "sync", "allocate", "truncate", "size", "list", "mkdir", "rename", "remove", "syncdir", "space", "lock"}

func (o Op) String() string {
	var names []string
	for i, name := range opNames {
		if o&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// Call is one call of a process.
type Call struct {
	Op   Op
	Path string
	Off  int64
	Len  int // in bytes
	// Number counts the calls of all processes, from 1.
	Number int
}

// Fault is what goes wrong with some calls.
type Fault struct {
	Ops Op // 0: any
	// Path is a part of the file's name; "": any file.
	Path string
	// After calls that match are left alone, then it happens Times times (0: each
	// time, until it is taken back), with this Chance (0: 1).
	After, Times int
	Chance       float64

	// Err is the call's answer; nil: it is done, after Delay.
	Err error
	// Delay is how long the call takes in addition. Heal ends it.
	Delay time.Duration
	// Partial: a part of what should be written is, before the error.
	Partial bool
	// Lose: a Sync that fails has lost some of what it should have written, and the
	// next one does not know of it.
	Lose bool
	// Misdirect: what is written goes to another place of the file.
	Misdirect bool
	// Rot: one bit of what is read is another one, this time.
	Rot bool
	// Kill: the process is killed before the call; with Partial, a part of what it
	// was about to write is written.
	Kill bool
}

type active struct {
	Fault
	seen, done int
}

// Inject has a fault happen from now on; the function that it returns takes it back.
func (d *Disk) Inject(f Fault) (remove func()) {
	a := &active{Fault: f}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, a)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.faults = slices.DeleteFunc(d.faults, func(b *active) bool { return a == b })
	}
}

// Heal takes back all faults, and ends their delays.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
	close(d.healed)
	d.healed = make(chan struct{})
}

// action is what a call is to do.
type action struct {
	err                           error
	partial, lose, misdirect, rot bool
}

// begin decides about a call, and takes the time that it needs.
func (p *Process) begin(c Call) (act action) {
	d := p.disk
	d.mu.Lock()
	d.calls++
	c.Number = d.calls
	watch := d.watch
	d.mu.Unlock()
	if watch != nil {
		watch(c)
	}
	d.mu.Lock()
	var delay time.Duration
	if d.latency != nil {
		delay = d.latency(c.Op)
	}
	kill := false
	for _, a := range d.faults {
		if !a.matches(c) || a.Chance > 0 && d.rand.Float64() >= a.Chance {
			continue
		}
		if a.seen++; a.seen <= a.After || a.Times > 0 && a.done >= a.Times {
			continue
		}
		a.done++
		delay += a.Delay
		if a.Err != nil {
			act.err = a.Err
		}
		kill = kill || a.Kill
		act.partial, act.lose = act.partial || a.Partial, act.lose || a.Lose
		act.misdirect, act.rot = act.misdirect || a.Misdirect, act.rot || a.Rot
	}
	healed := d.healed
	d.mu.Unlock()
	if p.killed() {
		return action{err: ErrKilled} // it was dead before: nothing is written any more
	}
	if delay > 0 {
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-healed:
		case <-p.dead:
		}
		t.Stop()
	}
	if kill {
		p.Kill()
		return action{err: ErrKilled, partial: act.partial}
	}
	if p.killed() {
		return action{err: ErrKilled}
	}
	if act.err == nil {
		act.partial, act.lose = false, false
	}
	return act
}

func (a *active) matches(c Call) bool {
	return (a.Ops == 0 || a.Ops&c.Op != 0) && strings.Contains(c.Path, a.Path)
}
