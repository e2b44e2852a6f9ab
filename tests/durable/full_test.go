package durable

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestSpoolDiskFull lets the spool fill up while the database is away: up to
// its bounds, and up to the end of the disk. The daemon lives, counts what it
// refused, acknowledges nothing that it does not have, and goes on once the
// database is back.
func TestSpoolDiskFull(t *testing.T) {
	parallel(t)
	for _, tt := range []struct {
		name   string
		disk   string // size of the file system
		set    []string
		gone   string // counter of the messages that were given up
		others bool   // take what the spool leaves of the disk
	}{
		{"bound", "96m", []string{"spool.max_bytes=24MiB"}, spoolFull, false},
		{"bound, oldest dropped", "96m", []string{"spool.max_bytes=24MiB", "spool.full=drop-oldest"}, missed, false},
		{"age", "96m", []string{"spool.max_age=2s"}, missed, false},
		{"disk", "32m", []string{"spool.max_bytes=8GiB"}, servers.Rejected, false},
		{"disk, oldest dropped", "32m", []string{"spool.max_bytes=8GiB", "spool.full=drop-oldest"}, missed, false},
		{"disk, others too", "32m", []string{"spool.max_bytes=8GiB"}, servers.Rejected, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := servers.StartMariaDB(t, servers.WithFsync())
			d := mariaDB(t, m)
			if tt.gone == servers.Rejected {
				// So slow that the spool gives up its files in parts.
				execute(t, d.db, "CREATE TRIGGER slow BEFORE INSERT ON sip_trace FOR EACH ROW SET @slept = SLEEP(0.0003)")
			}
			disk := t.TempDir()
			tmpfs(t, disk, tt.disk)
			p := newPlace(t, d.url, append(tt.set, "spool.dir="+disk+"/spool")...)
			run := p.start(t)
			s := send(t, 1, 2000, p.addr)
			s.setPatience(5 * time.Second)
			servers.WaitFor(t, 2*time.Minute, "the first acknowledgement", func() bool { n, _ := s.progress(); return n > 0 })
			m.Stop(t)

			// Until it is full for a while. The sender asks for what was refused
			// again and again, over new connections.
			s.setRate(12000)
			full := func() int64 {
				c := run.CountersNow(t)
				if tt.gone == missed { // counted when the database is back
					return c[servers.Spooled] - 40000 // far more than it can hold
				}
				return c.Sum(servers.Rejected)
			}
			for deadline := time.Now().Add(3 * time.Minute); run.Running() && full() <= 0; time.Sleep(500 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the spool is not full after three minutes: %v\n%s", run.Counters(t), run.Tail(30))
				}
			}
			if tt.others {
				fill(t, disk, 64<<10)
			}
			time.Sleep(servers.Pick(3*time.Second, 20*time.Second))
			if !run.Running() {
				t.Fatalf("the daemon ended when its spool was full\n%s", run.Tail(40))
			}
			used, of := usage(t, disk)
			c := run.CountersNow(t)
			t.Logf("full: %.1f of %.1f MiB of the disk in use, received %d, spooled %d, rejected %d", used, of, c[servers.Received], c[servers.Spooled], c.Sum(servers.Rejected))
			s.setRate(1000)

			m.Start(t)
			begin := time.Now()
			before, _ := s.progress()
			servers.WaitFor(t, 2*time.Minute, "an acknowledgement with the database back", func() bool { n, _ := s.progress(); return n > before })
			t.Logf("messages accepted again after %v", time.Since(begin).Round(time.Millisecond))
			time.Sleep(2 * time.Second)
			s.finish(t, 3*time.Minute)
			run.drained(t, 3*time.Minute)
			c = run.stop(t)
			t.Logf("%v", c)
			_, attempts := s.progress()
			t.Logf("%d connections, %d of them ended by the sender, %d marks without an answer", attempts, len(s.impatient), s.skipped)
			if c.Sum(tt.gone) == 0 {
				t.Errorf("%s: got 0: was the spool ever full?", tt.gone)
			}
			if log := run.Stderr(); !strings.Contains(log, "level=ERROR") && !strings.Contains(log, "level=WARN") {
				t.Error("nothing in the log about it")
			}
			o, err := judge(whole, []*sender{s}, d.each)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(o)
			if int64(o.rows) != c[servers.Written] {
				t.Errorf("rows: %d, but written: %d", o.rows, c[servers.Written])
			}
			if tt.gone == missed {
				// Acknowledged is not kept here, by the operator's choice; but counted.
				if o.lost == 0 || int64(o.lost) > c[missed] {
					t.Errorf("lost: %d, of them acknowledged: %d", c[missed], o.lost)
				}
				o.lost = 0
			}
			if o.lost+o.doubled+o.disordered+o.broken > 0 {
				t.Errorf("%v\n%s", o, strings.Join(o.examples, "\n"))
			}
		})
	}
}

// TestFullDiskEmptied has others take the last byte of the file system while
// messages wait in the spool. Once the database has them the spool gives their room
// back, and takes new messages, although nobody freed anything.
func TestFullDiskEmptied(t *testing.T) {
	parallel(t)
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m)
	disk := t.TempDir()
	tmpfs(t, disk, "96m")
	p := newPlace(t, d.url, "spool.dir="+disk+"/spool")
	run := p.start(t)
	m.Stop(t)
	const messages = 15000
	s := send(t, 1, 10000, p.addr)
	s.upTo(messages)
	<-s.done
	servers.WaitFor(t, time.Minute, "all messages in the spool", func() bool { return run.CountersNow(t)[servers.Spooled] == messages })
	fill(t, disk, 0)
	_, of := usage(t, disk)

	m.Start(t)
	run.drained(t, 3*time.Minute)
	again := send(t, 2, 2000, p.addr)
	servers.WaitFor(t, time.Minute, "an acknowledgement of a new message", func() bool { n, _ := again.progress(); return n > 0 })
	again.finish(t, 3*time.Minute)
	run.drained(t, 3*time.Minute)
	used, _ := usage(t, disk)
	c := run.stop(t)
	t.Logf("%.1f of %.1f MiB in use at the end; %v", used, of, c)
	d.verify(t, whole, s, again)
}

// setPatience changes how long a mark may go without its answer.
func (s *sender) setPatience(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patience = d
}

// tmpfs mounts a file system of that size; it goes with the test.
func tmpfs(tb testing.TB, dir, size string) {
	tb.Helper()
	if err := syscall.Mount("siptraced-test", dir, "tmpfs", 0, "mode=0777,size="+size); err != nil {
		out, err2 := exec.Command("sudo", "-n", "mount", "-t", "tmpfs", "-o", "mode=0777,size="+size, "siptraced-test", dir).CombinedOutput()
		if err2 != nil {
			tb.Fatalf("a file system of limited size can't be had: this test needs root, or sudo without a password: %v; %v: %s", err, err2, out)
		}
	}
	tb.Cleanup(func() {
		if syscall.Unmount(dir, syscall.MNT_DETACH) != nil {
			if out, err := exec.Command("sudo", "-n", "umount", "-l", dir).CombinedOutput(); err != nil {
				tb.Errorf("umount %s: %v: %s", dir, err, out)
			}
		}
	})
}

// fill takes all of the file system but so many bytes.
func fill(tb testing.TB, dir string, left int64) {
	tb.Helper()
	f, err := os.Create(filepath.Join(dir, "others"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var size int64
	for page := make([]byte, 4096); err == nil; size += int64(len(page)) {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		tb.Fatal(err)
	}
	if err := f.Truncate(max(0, size-left)); err != nil {
		tb.Fatal(err)
	}
}

// usage is what is in use of the file system, and its size, in MiB.
func usage(tb testing.TB, dir string) (used, of float64) {
	tb.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		tb.Fatal(err)
	}
	unit := float64(st.Bsize) / mib
	return float64(st.Blocks-st.Bfree) * unit, float64(st.Blocks) * unit
}
