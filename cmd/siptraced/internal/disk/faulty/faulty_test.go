package faulty

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
)

// fill is n bytes that tell where they stand.
func fill(n int, salt byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i/Sector) + salt
	}
	return b
}

func create(t *testing.T, fsys disk.FS, name string) disk.File {
	t.Helper()
	f, err := fsys.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t *testing.T, f disk.File, b []byte, off int64) {
	t.Helper()
	if n, err := f.WritevAt([][]byte{b[:len(b)/3], b[len(b)/3:]}, off); n != len(b) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(b), err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLikeOS does the same to a real directory and to a disk of ours.
func TestLikeOS(t *testing.T) {
	steps := func(fsys disk.FS, root string) (log []string) {
		note := func(what string, err error) {
			var errno syscall.Errno
			if errors.As(err, &errno) {
				err = errno
			}
			log = append(log, fmt.Sprint(what, " ", err))
		}
		note("mkdir", fsys.MkdirAll(root+"/a/b"))
		_, err := fsys.Open(root+"/a/none", os.O_RDWR)
		note("open", err)
		f, err := fsys.Open(root+"/a/f", os.O_RDWR|os.O_CREATE|os.O_EXCL)
		note("create", err)
		_, err = fsys.Open(root+"/a/f", os.O_RDWR|os.O_CREATE|os.O_EXCL)
		note("create again", err)
		n, err := f.WritevAt([][]byte{[]byte("hello "), nil, []byte("world")}, 4090)
		note(fmt.Sprint("write ", n), err)
		note("allocate", f.Allocate(10000))
		size, err := f.Size()
		note(fmt.Sprint("size ", size), err)
		b := make([]byte, 20)
		n, err = f.ReadAt(b, 4085)
		note(fmt.Sprintf("read %d %q", n, b[:n]), err)
		note("truncate", f.Truncate(4093))
		n, err = f.ReadAt(b, 4085)
		note(fmt.Sprintf("read %d %q %t", n, b[:n], errors.Is(err, io.EOF)), nil)
		note("longer", f.Truncate(4099))
		n, _ = f.ReadAt(b, 4085)
		note(fmt.Sprintf("read %d %q", n, b[:n]), nil)
		note("sync", f.Sync())
		create(t, fsys, root+"/a/g").Close()
		note("rename", fsys.Rename(root+"/a/g", root+"/a/b/h"))
		note("rename over", fsys.Rename(root+"/a/f", root+"/a/b/h"))
		note("rename none", fsys.Rename(root+"/a/f", root+"/a/b/h"))
		names, err := fsys.List(root + "/a/b")
		note(fmt.Sprint("list ", names), err)
		names, err = fsys.List(root + "/a")
		note(fmt.Sprint("list ", names), err)
		_, err = fsys.List(root + "/none")
		note("list none", err)
		note("remove full", fsys.Remove(root+"/a/b"))
		note("remove", fsys.Remove(root+"/a/b/h"))
		note("remove again", fsys.Remove(root+"/a/b/h"))
		note("remove dir", fsys.Remove(root+"/a/b"))
		n, err = f.ReadAt(b[:3], 4090)
		note(fmt.Sprintf("read unlinked %d %q", n, b[:n]), err)
		note("close", f.Close())
		note("syncdir", fsys.SyncDir(root+"/a"))
		return log
	}
	want := steps(disk.OS, t.TempDir())
	d := New(1)
	got := steps(d.Start(), "root")
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if used := d.Used(); used != 0 {
		t.Errorf("nothing is left, and %d bytes are used", used)
	}
}

// TestPowerLoss asks over many seeds what a loss of power leaves.
func TestPowerLoss(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(300) {
		d := New(seed)
		p := d.Start()
		must(t, p.MkdirAll("s"))
		must(t, p.SyncDir("/"))
		f := create(t, p, "s/f")
		synced, later := fill(3000, 1), fill(6000, 100)
		write(t, f, synced, 0)
		must(t, f.Sync())
		must(t, p.SyncDir("s"))
		write(t, f, later, 2000)
		create(t, p, "s/g")
		d.PowerLoss()
		if _, err := f.WritevAt([][]byte{later}, 0); !errors.Is(err, ErrKilled) {
			t.Fatalf("seed %d: a process that is gone writes: %v", seed, err)
		}
		b, err := d.Contents("s/f")
		must(t, err)
		if !bytes.Equal(b[:2000], synced[:2000]) {
			t.Fatalf("seed %d: what was synced is not there", seed)
		}
		tail := make([]byte, 6000)
		copy(tail, b[2000:])
		old := make([]byte, 6000)
		copy(old, synced[2000:])
		switch {
		case bytes.Equal(tail, later):
			outcomes["all"]++
		case bytes.Equal(tail, old):
			outcomes["nothing"]++
		default:
			outcomes["some"]++
			for i := range tail {
				if tail[i] != later[i] && tail[i] != old[i] && tail[i] != 0 {
					t.Fatalf("seed %d: byte %d is neither old nor new: %d", seed, i, tail[i])
				}
			}
		}
		if slices.Contains(d.Files(), "/s/g") {
			outcomes["name"]++
		}
	}
	t.Log(outcomes)
	for _, kind := range []string{"all", "nothing", "some", "name"} {
		if outcomes[kind] < 30 {
			t.Errorf("%q came %d times of 300", kind, outcomes[kind])
		}
	}
}

func TestNamesNotSynced(t *testing.T) {
	lost := 0
	for seed := range uint64(100) {
		d := New(seed)
		p := d.Start()
		must(t, p.MkdirAll("s"))
		must(t, p.SyncDir("/"))
		f := create(t, p, "s/f")
		write(t, f, fill(1000, 1), 0)
		must(t, f.Sync())
		if after := d.CrashClone(seed); len(after.Files()) == 0 {
			lost++
		}
		must(t, p.SyncDir("s"))
		if after := d.CrashClone(seed); len(after.Files()) != 1 {
			t.Fatalf("seed %d: the name was synced and is gone", seed)
		}
		if len(d.Files()) != 1 {
			t.Fatal("the clone's loss of power was the disk's")
		}
	}
	if lost < 20 || lost > 80 {
		t.Errorf("a file whose name was not synced was lost %d times of 100", lost)
	}
}

func TestKill(t *testing.T) {
	d := New(1)
	p := d.Start()
	f := create(t, p, "f")
	write(t, f, fill(1000, 1), 0)
	p.Kill()
	if err := f.Sync(); !errors.Is(err, ErrKilled) {
		t.Errorf("sync of a process that is gone: %v", err)
	}
	got, err := d.Contents("f")
	must(t, err)
	if !bytes.Equal(got, fill(1000, 1)) {
		t.Error("what was written is not there after a kill")
	}
}

func TestLock(t *testing.T) {
	d := New(1)
	p, q := d.Start(), d.Start()
	l, err := p.Lock("lock")
	must(t, err)
	held := func(want bool) {
		t.Helper()
		other, err := q.Lock("lock")
		if got := errors.As(err, new(*disk.LockedError)); got != want {
			t.Errorf("locked: got %t, want %t (%v)", got, want, err)
		}
		if err == nil {
			must(t, other.Close())
		}
	}
	held(true)
	must(t, l.Close())
	held(false)
	_, err = p.Lock("lock")
	must(t, err)
	held(true)
	p.Kill()
	held(false)
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name  string
		fault Fault
		want  []error // of three times write and sync
	}{
		{"none", Fault{Ops: List, Err: syscall.EIO}, []error{nil, nil, nil, nil, nil, nil}},
		{"write, once", Fault{Ops: Write, Err: syscall.EIO, Times: 1}, []error{syscall.EIO, nil, nil, nil, nil, nil}},
		{"the second sync", Fault{Ops: Sync, Err: syscall.EIO, After: 1, Times: 1}, []error{nil, nil, nil, syscall.EIO, nil, nil}},
		{"all, for good", Fault{Path: "f", Err: syscall.ENOSPC}, slices.Repeat([]error{syscall.ENOSPC}, 6)},
		{"another file", Fault{Path: "g", Err: syscall.ENOSPC}, make([]error, 6)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := New(1)
			f := create(t, d.Start(), "f")
			remove := d.Inject(tt.fault)
			for i := range 3 {
				_, err := f.WritevAt([][]byte{fill(100, 1)}, 0)
				if !errors.Is(err, tt.want[2*i]) {
					t.Errorf("write %d: got %v, want %v", i, err, tt.want[2*i])
				}
				if err := f.Sync(); !errors.Is(err, tt.want[2*i+1]) {
					t.Errorf("sync %d: got %v, want %v", i, err, tt.want[2*i+1])
				}
			}
			remove()
			must(t, f.Sync())
		})
	}
}

// TestFailedSync: what a failed sync was to write may be lost although the next one
// succeeds.
func TestFailedSync(t *testing.T) {
	lost, seen := 0, 0
	for seed := range uint64(100) {
		d := New(seed)
		p := d.Start()
		f := create(t, p, "f")
		must(t, p.SyncDir("/"))
		d.Inject(Fault{Ops: Sync, Err: syscall.EIO, Times: 1, Lose: true})
		write(t, f, fill(1000, 1), 0)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		write(t, f, fill(1000, 9), 5000)
		must(t, f.Sync())
		now, err := d.Contents("f")
		must(t, err)
		if bytes.Equal(now[:1000], fill(1000, 1)) {
			seen++
		}
		d.PowerLoss()
		got, err := d.Contents("f")
		must(t, err)
		if !bytes.Equal(got[5000:], fill(1000, 9)) {
			t.Fatalf("seed %d: what the good sync wrote is gone", seed)
		}
		if !bytes.Equal(got[:1000], fill(1000, 1)) {
			lost++
		}
	}
	if lost < 40 || lost == 100 || seen < 20 || seen == 100 {
		t.Errorf("of 100: lost %d times, still read %d times", lost, seen)
	}
}

func TestRoom(t *testing.T) {
	d := New(1)
	d.SetSize(64<<10, 32<<10)
	p := d.Start()
	f := create(t, p, "f")
	must(t, f.Allocate(16<<10))
	if err := f.Allocate(40 << 10); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocate: %v", err)
	}
	write(t, f, fill(16<<10, 1), 0) // has its space
	n, err := f.WritevAt([][]byte{fill(20<<10, 1)}, 16<<10)
	if n != 16<<10 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d: %v", n, err)
	}
	if _, free, err := p.Space("/"); free != 0 || err != nil {
		t.Errorf("free %d: %v", free, err)
	}
	must(t, f.Close())
	must(t, p.Remove("f"))
	if _, free, _ := p.Space("/"); free != 32<<10 {
		t.Errorf("free after the removal: %d", free)
	}
}

func TestDamage(t *testing.T) {
	d := New(1)
	p := d.Start()
	f := create(t, p, "f")
	want := fill(4000, 1)
	write(t, f, want, 0)
	must(t, d.Flip("f", 17, 0x10))
	got, _ := d.Contents("f")
	if got[17] != want[17]^0x10 {
		t.Error("the bit is as it was")
	}
	if name, off, ok := d.Rot("f"); name != "/f" || off >= pageSize || !ok {
		t.Errorf("rot at %s %d %t", name, off, ok)
	}
	d.Inject(Fault{Ops: Write, Misdirect: true, Times: 1})
	before, _ := d.Contents("f")
	write(t, f, fill(Sector, 200), 9*Sector)
	after, _ := d.Contents("f")
	if bytes.Equal(before, after) || len(after) > 5000 {
		t.Error("the write went where it should")
	}
}

// TestSlowAndStuck: a call that is stuck ends when the disk heals, or with the
// process.
func TestSlowAndStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(1)
		p := d.Start()
		f := create(t, p, "f")
		began := time.Now()
		d.Inject(Fault{Ops: Sync, Delay: 5 * time.Second, Times: 1})
		must(t, f.Sync())
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("a slow sync took %s", took)
		}
		d.Inject(Fault{Ops: Sync, Delay: 1000 * time.Hour})
		done := make(chan error)
		go func() { done <- f.Sync() }()
		time.Sleep(time.Minute)
		write(t, f, fill(10, 1), 0) // is not held up
		d.Heal()
		must(t, <-done)
		d.Inject(Fault{Ops: Sync, Delay: 1000 * time.Hour})
		go func() { done <- f.Sync() }()
		time.Sleep(time.Minute)
		p.Kill()
		if err := <-done; !errors.Is(err, ErrKilled) {
			t.Error(err)
		}
	})
}

// TestSeed: the same seed does the same.
func TestSeed(t *testing.T) {
	run := func(seed uint64) (states [][]byte) {
		d := New(seed)
		p := d.Start()
		f := create(t, p, "f")
		must(t, p.SyncDir("/"))
		d.Inject(Fault{Ops: Write, Err: syscall.EIO, Partial: true, Chance: 0.3})
		for i := range 20 {
			_, _ = f.WritevAt([][]byte{fill(3000, byte(i))}, int64(i)*1000)
		}
		for i := range uint64(5) {
			b, err := d.CrashClone(i).Contents("f")
			must(t, err)
			states = append(states, b)
		}
		return states
	}
	if a, b := run(5), run(5); !slices.EqualFunc(a, b, bytes.Equal) {
		t.Error("two runs of a seed differ")
	}
	if a, b := run(5), run(6); slices.EqualFunc(a, b, bytes.Equal) {
		t.Error("two seeds are the same")
	}
	d := New(1)
	p := d.Start()
	if _, err := p.Open("none", os.O_RDONLY); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
