package durable

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestFrozenDisk freezes the file system of the spool under load, as a snapshot or a
// path to the storage that is away does: every write and sync waits. Once it is thawed
// everything goes on, and nothing was lost or doubled meanwhile.
func TestFrozenDisk(t *testing.T) {
	parallel(t)
	for _, tt := range []struct {
		name string
		set  []string
	}{
		{"default", nil},
		{"always", []string{"spool.sync_interval=always"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parallel(t)
			disk := t.TempDir()
			ext4(t, disk, "256M")
			d := sqliteFile(t, filepath.Join(t.TempDir(), "trace.db"))
			p := newPlace(t, d.url, append(tt.set, "spool.dir="+disk+"/spool")...)
			run := p.start(t)
			s := send(t, 1, 2000, p.addr)
			servers.WaitFor(t, time.Minute, "the first acknowledgement", func() bool { n, _ := s.progress(); return n > 0 })
			time.Sleep(time.Second)

			thaw := freeze(t, disk)
			frozen := servers.Pick(5*time.Second, 140*time.Second)
			time.Sleep(frozen)
			thaw()
			before, _ := s.progress()
			servers.WaitFor(t, time.Minute, "an acknowledgement after the thaw", func() bool { n, _ := s.progress(); return n > before })
			s.finish(t, 3*time.Minute)
			run.drained(t, 3*time.Minute)
			c := run.stop(t)
			t.Logf("frozen for %v: %v", frozen, c)
			v := d.verify(t, whole, s)
			if int64(v.rows) != c[servers.Written] {
				t.Errorf("rows: %d, but written: %d", v.rows, c[servers.Written])
			}
		})
	}
}

// ext4 mounts a file system of that size, in a file; it goes with the test.
func ext4(tb testing.TB, dir, size string) {
	tb.Helper()
	image := filepath.Join(tb.TempDir(), "disk")
	root(tb, "truncate", "-s", size, image)
	root(tb, "mkfs.ext4", "-q", image)
	root(tb, "mount", "-o", "loop", image, dir)
	tb.Cleanup(func() { root(tb, "umount", "-l", dir) })
	root(tb, "chmod", "0777", dir)
}

// freeze holds up all writes to a file system, until thaw is called or the test ends.
func freeze(tb testing.TB, dir string) (thaw func()) {
	tb.Helper()
	root(tb, "fsfreeze", "-f", dir)
	frozen := true
	thaw = func() {
		if frozen {
			frozen = false
			root(tb, "fsfreeze", "-u", dir)
		}
	}
	tb.Cleanup(thaw)
	return thaw
}

// root runs a command that needs root, or sudo without a password.
func root(tb testing.TB, command ...string) {
	tb.Helper()
	if os.Getuid() != 0 {
		command = append([]string{"sudo", "-n"}, command...)
	}
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		tb.Errorf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}
