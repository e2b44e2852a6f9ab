package durable

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// TestStartWithBacklog kills a daemon with a large spool, empties the page cache, and
// starts it again: it takes new messages at once, without having read what waits.
func TestStartWithBacklog(t *testing.T) {
	parallel(t)
	away := fmt.Sprintf("mysql://nobody:nothing@127.0.0.1:%d/none", servers.FreePort(t))
	// A shard has some ten segments, of which one was being written.
	p := newPlace(t, away, servers.Pick("spool.max_bytes=512MiB", "spool.max_bytes=16GiB"), "shutdown_timeout=1s")
	run := p.start(t)
	backlog := int64(servers.Pick(320, 8192)) * mib
	n := fillSpool(t, p.addr, backlog)
	servers.WaitFor(t, 10*time.Minute, "all messages in the spool", func() bool { return run.CountersNow(t)[servers.Spooled] == n })
	run.Kill()
	dropCaches(t)

	began := time.Now()
	run = p.start(t)
	ready := time.Since(began)
	memory := run.memory(t, "VmRSS")
	s := send(t, 1, 1000, p.addr)
	servers.WaitFor(t, time.Minute, "the first acknowledgement", func() bool { n, _ := s.progress(); return n > 0 })
	accepted, read := time.Since(began), run.bytesRead(t)
	s.upTo(1000)
	<-s.done
	time.Sleep(2 * time.Second)
	most := run.memory(t, "VmHWM")
	c := run.stop(t)
	t.Logf("%d messages, %.1f GiB: ready after %v, the first new message accepted after %v, %.0f MiB read from the disk by then; memory %.0f MiB when ready, %.0f MiB at most",
		n, float64(backlog)/(1<<30), ready.Round(time.Millisecond), accepted.Round(time.Millisecond), float64(read)/mib, float64(memory)/mib, float64(most)/mib)
	if c[servers.Backlog] != n {
		t.Errorf("backlog: got %d, want %d: %v", c[servers.Backlog], n, c)
	}
	if read > backlog/2 {
		t.Errorf("%d MiB of %d were read before the first message was accepted", read/mib, backlog/mib)
	}
	if most >= 128*mib {
		t.Errorf("memory: %d MiB, want less than 128", most/mib)
	}
}

// fillSpool sends large messages until the spool has so many bytes; n is how many.
func fillSpool(tb testing.TB, addr string, total int64) (n int64) {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	body := bytes.Repeat([]byte("a line of forty characters, with its end\r\n"), 1400)
	src, dst := netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("192.0.2.2:5060")
	for sent := int64(0); sent < total; n++ {
		msg := fmt.Appendf(nil, "MESSAGE sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%d\r\nFrom: <sip:a@example.com>;tag=%d\r\nTo: <sip:b@example.com>\r\n"+
			"Call-ID: backlog-%d\r\nCSeq: 1 MESSAGE\r\nContent-Length: %d\r\n\r\n", n, n, n, len(body))
		packet := load.HEP3(17, src, dst, time.Now(), append(msg, body...))
		if _, err := c.Write(packet); err != nil {
			tb.Fatal(err)
		}
		sent += int64(len(packet))
	}
	return n
}

// dropCaches has the kernel forget what it knows of files.
func dropCaches(tb testing.TB) {
	tb.Helper()
	root(tb, "sync")
	root(tb, "sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
}

// bytesRead is what the process had the disk read, in bytes (proc(5), read_bytes).
func (d *daemon) bytesRead(tb testing.TB) int64 {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.PID()), "io"))
	if err != nil {
		tb.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "\nread_bytes: ")
	n, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), 10, 64)
	if err != nil {
		tb.Fatalf("%v in %s", err, b)
	}
	return n
}
