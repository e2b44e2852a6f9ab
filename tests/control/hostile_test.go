package control

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// binrpc is a BINRPC request: method and parameters are strings.
func binrpc(cookie byte, words ...string) []byte {
	var body []byte
	for _, w := range words {
		body = append(body, 0x91, byte(len(w)+1))
		body = append(append(body, w...), 0)
	}
	return append([]byte{0xA1, 0x00, byte(len(body)), cookie}, body...)
}

// document is a request as kamctl writes it.
func document(method, replyName string) string {
	return fmt.Sprintf(`{"jsonrpc": "2.0", "method": "%s", "params": ["check"], "reply_name": "%s", "id": 1}`+"\n", method, replyName)
}

// TestHostileClients has clients misbehave on every listener. Each time the real
// programs work right after, and what was refused is counted.
func TestHostileClients(t *testing.T) {
	d := start(t, options{})
	// kamctl makes its reply FIFOs in /tmp, so that is where these are, too.
	prefix := fmt.Sprintf("control-test-%d-", os.Getpid())
	path := func(name string) string { return "/tmp/" + prefix + name }
	for _, name := range []string{"plain", "link", "unread", "hard2"} {
		t.Cleanup(func() { _ = os.Remove(path(name)) })
	}
	reply := replyFIFO(t, path("real"))
	hard := replyFIFO(t, path("hard"))
	replyFIFO(t, path("stuck")) // opened, never read
	for _, err := range []error{
		os.WriteFile(path("plain"), []byte("plain"), 0o600),
		os.Symlink(path("real"), path("link")),
		os.Link(path("hard"), path("hard2")),
		syscall.Mkfifo(path("unread"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}

	whole := binrpc(1, "siptrace.status", "check")
	for _, tc := range []struct {
		name, fifo, text, cause string
	}{
		{"odd quote", d.fifo, `{"jsonrpc": "2.0", "method": "siptrace.status", "params": ["o"n"], "reply_name": "x", "id": 1}` + "\n", ""},
		{"over-long document", d.fifo, `{"jsonrpc":"2.0","pad":"` + strings.Repeat("x", 9000) + `"}` + "\n", "jsonrpc.too_long"},
		{"over-long without end", d.fifo, `{"jsonrpc":"2.0","pad":"` + strings.Repeat("x", 60000), "jsonrpc.too_long"},
		{"half a document", d.fifo, `{"jsonrpc": "2.0", "method": "siptra`, ""},
		{"a bracket", d.fifo, "]", ""},
		{"a batch", d.fifo, `[{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"reply_name":"x","id":1}]`, ""},
		{"a line of text", d.fifo, "hello\n", ""},
		{"bytes", d.fifo, "\x00\xff\x01\"'\\", ""},
		{"braces", d.fifo, strings.Repeat("{", 3000) + "\n", ""},
		{"reply FIFO that nobody reads", d.fifo, document("siptrace.status", prefix+"unread"), "jsonrpc.no_reader"},
		{"plain file", d.fifo, document("siptrace.status", prefix+"plain"), "jsonrpc.reply_fifo"},
		{"symbolic link", d.fifo, document("siptrace.status", prefix+"link"), "jsonrpc.reply_fifo"},
		{"hard link", d.fifo, document("siptrace.status", prefix+"hard2"), "jsonrpc.reply_fifo"},
		{"no such reply FIFO", d.fifo, document("siptrace.status", prefix+"nothing"), "jsonrpc.reply_fifo"},
		{"name with dots", d.fifo, document("siptrace.status", "../"+prefix+"real"), "jsonrpc.reply_name"},
		{"name with a slash", d.fifo, document("siptrace.status", path("real")), "jsonrpc.reply_name"},
		{"long name", d.fifo, document("siptrace.status", strings.Repeat("n", 130)), "jsonrpc.reply_name"},
		{"2,000 requests, replies not read", d.fifo, strings.Repeat(document("system.listMethods", prefix+"stuck"), 2000), ""},
		{"MI, half a request", d.mi, ":sip_trace:" + prefix + "real\noff\n", ""},
		{"MI, odd quote", d.mi, ":sip_trace:" + prefix + "real\n\"off\n", ""},
		{"MI, over-long", d.mi, ":sip_trace:" + prefix + "real\n" + strings.Repeat("x", 60000) + "\n" + strings.Repeat("y", 6000), "mi.too_long"},
		{"MI, garbage", d.mi, "\x00\xff hello\n\n", "mi.bad"},
		{"MI, symbolic link", d.mi, ":sip_trace:" + prefix + "link\noff\n\n", "mi.reply_fifo"},
		{"MI, nobody reads", d.mi, ":sip_trace:" + prefix + "unread\noff\n\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := d.CountersNow(t)
			before, unfinished := c["rpc.refused."+tc.cause], c["rpc.refused.mi.unfinished"]
			for text := tc.text; text != ""; { // a FIFO holds 64 KiB
				n := min(len(text), 32<<10)
				writeFIFO(t, tc.fifo, text[:n])
				text = text[n:]
				time.Sleep(10 * time.Millisecond)
			}
			d.works(t, tc.name)
			d.refused(t, tc.cause, before)
			switch tc.name {
			case "MI, half a request", "MI, odd quote", "MI, over-long":
				d.refused(t, "mi.unfinished", unfinished) // what is left of it is forgotten then
			}
		})
	}
	if b := readFile(t, path("plain")); string(b) != "plain" {
		t.Errorf("the plain file holds %q", b)
	}
	if got := readReply(t, hard, 0); got != "" {
		t.Errorf("the FIFO with two names got %q", got)
	}
	readReply(t, reply, 0) // what MI answered to
	writeFIFO(t, d.mi, ":sip_trace:"+prefix+"real\n\n")
	if got := readReply(t, reply, 1); !strings.HasSuffix(got, "200 OK\non\n\n") {
		t.Errorf("MI: got %q, want that tracing is on", got)
	}

	post := "POST /RPC HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "
	for _, tc := range []struct {
		name, network, address string
		send                   []byte
		cause                  string
	}{
		{"half a packet", "unix", d.ctl, whole[:10], ""},
		{"half a packet, TCP", "tcp", d.tcp, whole[:10], ""},
		{"nothing", "tcp", d.tcp, nil, ""},
		{"2 GiB announced", "tcp", d.tcp, []byte{0xA1, 0x0F, 0x7F, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4}, "ctl.too_long"},
		{"not BINRPC", "tcp", d.tcp, []byte("GET / HTTP/1.0\r\n\r\n"), "ctl.bad"},
		{"structs without end", "unix", d.ctl, append([]byte{0xA1, 0x04, 0xEA, 0x60, 1}, bytes.Repeat([]byte{3}, 60000)...), "ctl.bad"},
		{"half a datagram", "udp", d.udp, whole[:9], "ctl.unfinished"},
		{"half a datagram, unixd", "unixgram", d.ctlGram, whole[:9], "ctl.unfinished"},
		{"no address to reply to", "unixgram", d.gram, []byte(`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`), "jsonrpc.reply_dropped"},
		{"numeric jsonrpc", "udp", d.gramUDP, []byte(`{"jsonrpc":2.0,"method":"siptrace.status","params":["off"],"id":1}`), ""},
		{"deep JSON", "udp", d.gramUDP, bytes.Repeat([]byte(`[`), 60000), "jsonrpc.bad"},
		{"half a document over TCP", "tcp", d.jsonTCP, []byte(`{"jsonrpc":`), ""},
		{"half a POST", "tcp", d.http, []byte(post + "100\r\n\r\n{"), ""},
		{"too long a POST", "tcp", d.http, []byte(post + "100000\r\n\r\n{"), "http.too_long"},
		{"not HTTP", "tcp", d.http, []byte("hello\r\n\r\n"), "http.bad"},
		{"a page's request", "tcp", d.http, []byte("POST /RPC HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}"), "http.origin"},
		{"2,000 requests, replies not read", "unix", d.ctl, bytes.Repeat(binrpc(1, "system.listMethods"), 1900), ""},
		{"2,000 requests, replies not read, TCP", "tcp", d.tcp, bytes.Repeat(binrpc(1, "system.listMethods"), 1900), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := d.CountersNow(t)["rpc.refused."+tc.cause]
			c := dial(t, tc.network, tc.address)
			_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)) // the server may stop reading
			_, _ = c.Write(tc.send)
			d.works(t, tc.name)
			d.refused(t, tc.cause, before)
		})
	}

	t.Run("a byte at a time", func(t *testing.T) {
		c := dial(t, "tcp", d.tcp)
		for i := range whole {
			write(t, c, whole[i:i+1])
			if i == len(whole)/2 {
				d.works(t, "half of a slow request")
			}
			time.Sleep(5 * time.Millisecond)
		}
		if got, _ := readQuiet(t, c, 1); !bytes.Contains(got, []byte("Enabled")) {
			t.Errorf("got %q", got)
		}
	})
	if c := d.CountersNow(t); c.Balanced() != nil {
		t.Errorf("books: %v", c.Balanced())
	}
	d.MustStop(t)
	// The two listeners with a client that takes no replies may give up on it.
	if n := strings.Count(d.Stderr(), `msg="rpc: closing"`); n > 2 {
		t.Errorf("one client that takes no replies had all others cut off:\n%s", linesWith(d.Stderr(), `msg="rpc: closing"`))
	}
	for _, p := range []string{d.ctl, d.ctlGram, d.fifo, d.gram, d.mi} {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s was left behind", filepath.Base(p))
		}
	}
}

// refused waits until a cause is counted once more.
func (d *daemon) refused(t *testing.T, cause string, before int64) {
	t.Helper()
	if cause == "" {
		return
	}
	servers.WaitFor(t, 30*time.Second, "rpc.refused."+cause+" to count", func() bool {
		return d.CountersNow(t)["rpc.refused."+cause] > before
	})
}

// flood opens idle connections, half of them over TCP.
func (d *daemon) flood(tb testing.TB, n int) {
	tb.Helper()
	for i := range n {
		network, address := "unix", d.ctl
		if i%2 == 1 {
			network, address = "tcp", d.tcp
		}
		dial(tb, network, address)
	}
}

// kamcmdTime is the median time of n runs of kamcmd.
func (d *daemon) kamcmdTime(tb testing.TB, n int) time.Duration {
	tb.Helper()
	var took []time.Duration
	for range n {
		p := d.kamcmd(tb, "unix", "siptrace.status", "check")
		if p.stdout != "Enabled\n" || p.exit != 0 {
			tb.Fatalf("kamcmd: %v", p)
		}
		took = append(took, p.took)
	}
	slices.Sort(took)
	return took[n/2]
}

// TestIdleConnections holds 2,000 connections that say nothing: kamcmd has to
// get in, and to be served as fast as without them.
func TestIdleConnections(t *testing.T) {
	d := start(t, options{})
	d.kamcmdTime(t, 10) // warm
	alone := d.kamcmdTime(t, 60)
	d.flood(t, 2000)
	flooded := d.kamcmdTime(t, 60)
	ratio := float64(flooded) / float64(alone)
	t.Logf("kamcmd: %v alone, %v with 2,000 idle connections, ratio %.2f", alone, flooded, ratio)
	if ratio > 2 && flooded-alone > 10*time.Millisecond {
		t.Errorf("kamcmd takes %.1f times as long with 2,000 idle connections", ratio)
	}
	d.works(t, "2,000 idle connections")
	for _, address := range []string{d.jsonTCP, d.http} {
		for range 300 {
			dial(t, "tcp", address)
		}
	}
	c := dial(t, "tcp", d.http)
	write(t, c, httpRequest)
	if got, _ := readQuiet(t, c, 1); !bytes.Contains(got, []byte("Enabled")) {
		t.Errorf("HTTP: got %q", got)
	}
	c = dial(t, "tcp", d.jsonTCP)
	write(t, c, jsonRequest)
	if got, _ := readQuiet(t, c, 1); !bytes.Contains(got, []byte("Enabled")) {
		t.Errorf("JSON-RPC over TCP: got %q", got)
	}
	d.works(t, "2,600 idle connections")
	d.MustStop(t)
}

var (
	jsonRequest = []byte(`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`)
	httpRequest = fmt.Appendf(nil, "POST /RPC HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", len(jsonRequest), jsonRequest)
)

// BenchmarkRPC is requests per second on each transport, one client, one request
// at a time; and the time of a run of kamcmd with and without idle connections.
func BenchmarkRPC(b *testing.B) {
	replies := servers.ShortDir(b)
	d := start(b, options{set: []string{"rpc.reply_dir=" + replies}})
	request := binrpc(1, "siptrace.status", "check")
	// A peer may make 2,000 requests at once, and then as many a second; so that
	// it is not the limit that is measured, requests come in bursts of fewer.
	const burst = 1500
	bursts := func(b *testing.B, once func()) {
		n := 0
		for b.Loop() {
			b.StopTimer()
			time.Sleep(1100 * time.Millisecond)
			b.StartTimer()
			for range burst {
				once()
			}
			n += burst
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "requests/s")
		b.ReportMetric(0, "ns/op")
	}
	buf := make([]byte, 4096)
	ask := func(b *testing.B, c net.Conn, request []byte) {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		write(b, c, request)
		n, err := c.Read(buf)
		if err != nil || !bytes.Contains(buf[:n], []byte("Enabled")) {
			b.Fatalf("got %q, %v", buf[:n], err)
		}
	}
	exchange := func(b *testing.B, c net.Conn, request []byte) {
		bursts(b, func() { ask(b, c, request) })
	}
	b.Run("ctl/unix", func(b *testing.B) { exchange(b, dial(b, "unix", d.ctl), request) })
	b.Run("ctl/unixd", func(b *testing.B) { exchange(b, dialGram(b, d.ctlGram), request) })
	b.Run("ctl/tcp", func(b *testing.B) { exchange(b, dial(b, "tcp", d.tcp), request) })
	b.Run("ctl/udp", func(b *testing.B) { exchange(b, dial(b, "udp", d.udp), request) })
	b.Run("jsonrpc/unixd", func(b *testing.B) { exchange(b, dialGram(b, d.gram), jsonRequest) })
	b.Run("jsonrpc/udp", func(b *testing.B) { exchange(b, dial(b, "udp", d.gramUDP), jsonRequest) })
	b.Run("jsonrpc/http", func(b *testing.B) { exchange(b, dial(b, "tcp", d.http), httpRequest) })
	b.Run("jsonrpc/tcp", func(b *testing.B) { // a connection for each request
		bursts(b, func() {
			c, err := net.Dial("tcp", d.jsonTCP)
			if err != nil {
				b.Fatal(err)
			}
			ask(b, c, jsonRequest)
			_ = c.Close()
		})
	})
	fifo := func(b *testing.B, path, text, want string) {
		f := replyFIFO(b, filepath.Join(replies, "bench"))
		w, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer w.Close()
		bursts(b, func() {
			write(b, w, []byte(text))
			for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Microsecond) {
				if n, _ := f.Read(buf); n > 0 {
					if !bytes.Contains(buf[:n], []byte(want)) {
						b.Fatalf("got %q", buf[:n])
					}
					return
				}
				if time.Now().After(end) { // no writer yet, and none to come
					b.Fatal("no reply")
				}
			}
		})
	}
	b.Run("jsonrpc/fifo", func(b *testing.B) { fifo(b, d.fifo, document("siptrace.status", "bench"), "Enabled") })
	b.Run("mi/fifo", func(b *testing.B) { fifo(b, d.mi, ":sip_trace:bench\n\n", "200 OK\non\n\n") })
	b.Run("kamcmd", func(b *testing.B) {
		var alone, flooded time.Duration
		for b.Loop() {
			alone = d.kamcmdTime(b, 40)
			d.flood(b, 2000)
			flooded = d.kamcmdTime(b, 40)
		}
		b.ReportMetric(float64(alone.Microseconds()), "µs/run-alone")
		b.ReportMetric(float64(flooded.Microseconds()), "µs/run-flooded")
		b.ReportMetric(float64(flooded)/float64(alone), "flooded/alone")
	})
}
