package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
	"siptraced/rpc/serve"
)

func packet(t testing.TB, method string, params ...any) []byte {
	t.Helper()
	b, err := binrpc.Request{Cookie: 1, Method: method, Params: params}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// document is a request as kamctl writes it.
func document(method, replyName string) string {
	return fmt.Sprintf(`{"jsonrpc": "2.0", "method": "%s", "params": ["check"], "reply_name": "%s", "id": 1}`+"\n", method, replyName)
}

func TestHostileFIFO(t *testing.T) {
	s := start(t, serve.Config{Limits: serve.Limits{Write: time.Second}}, serve.Handlers{})
	link := s.replies + "/link"
	real := replyFIFO(t, s.replies+"/real")
	hard := replyFIFO(t, s.replies+"/hard")
	if err := errors.Join(os.WriteFile(s.replies+"/plain", []byte("plain"), 0o600), os.Symlink(s.replies+"/real", link),
		os.Link(s.replies+"/hard", s.replies+"/hard2"), syscall.Mkfifo(s.replies+"/unread", 0o600), os.Symlink("/dev/null", s.replies+"/dev")); err != nil {
		t.Fatal(err)
	}
	replyFIFO(t, s.replies+"/stuck") // opened, never read
	for _, tc := range []struct {
		name, fifo, write, cause string
	}{
		{"odd quote", s.fifo, `{"jsonrpc": "2.0", "method": "siptrace.status", "params": ["o"n"], "reply_name": "x", "id": 1}` + "\n", ""},
		{"over-long document", s.fifo, `{"jsonrpc":"2.0","pad":"` + strings.Repeat("x", 9000) + `"}` + "\n", "jsonrpc.too_long"},
		{"over-long, no end", s.fifo, `{"jsonrpc":"2.0","pad":"` + strings.Repeat("x", 60000), "jsonrpc.too_long"},
		{"half a document", s.fifo, `{"jsonrpc": "2.0", "method": "siptra`, ""},
		{"braces", s.fifo, strings.Repeat("{", 3000) + "\n", ""},
		{"not JSON", s.fifo, "{'a': 1}\n", "jsonrpc.bad"},
		{"nobody reads", s.fifo2, document("siptrace.status", "unread"), "jsonrpc.no_reader"},
		{"reads no further", s.fifo2, document("test.big", "stuck"), "jsonrpc.reply_dropped"},
		{"plain file", s.fifo2, document("siptrace.status", "plain"), "jsonrpc.reply_fifo"},
		{"symbolic link", s.fifo2, document("siptrace.status", "link"), "jsonrpc.reply_fifo"},
		{"link to a device", s.fifo2, document("siptrace.status", "dev"), "jsonrpc.reply_fifo"},
		{"hard link", s.fifo2, document("siptrace.status", "hard"), "jsonrpc.reply_fifo"},
		{"not there", s.fifo2, document("siptrace.status", "nothing"), "jsonrpc.reply_fifo"},
		{"dots", s.fifo2, document("siptrace.status", "../fifo"), "jsonrpc.reply_name"},
		{"slash", s.fifo2, document("siptrace.status", "/tmp/x"), "jsonrpc.reply_name"},
		{"long name", s.fifo2, document("siptrace.status", strings.Repeat("n", 130)), "jsonrpc.reply_name"},
		{"MI half a request", s.mi, ":sip_trace:real\non\n", ""},
		{"MI odd quote", s.mi, ":sip_trace:real\n\"on\n", ""},
		{"MI over-long", s.mi, ":sip_trace:real\n" + strings.Repeat("x", 60000) + "\n" + strings.Repeat("y", 6000), "mi.too_long"},
		{"MI garbage", s.mi, "\x00\xff hello\n\n", "mi.bad"},
		{"MI link", s.mi, ":sip_trace:link\non\n\n", "mi.reply_fifo"},
		{"MI plain file", s.mi, ":sip_trace:plain\non\n\n", "mi.reply_fifo"},
		{"MI nobody reads", s.mi, ":sip_trace:unread\non\n\n", "mi.no_reader"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := s.get(tc.cause)
			writeFIFO(t, tc.fifo, tc.write)
			begin := time.Now()
			// Another client, at once.
			stdout, stderr, exit := run(t, kamctl+" rpc siptrace.status check", "", "RPCFIFOPATH="+s.fifo)
			if !strings.Contains(stdout, `"result": "Enabled"`) || exit != 0 {
				t.Errorf("kamctl: got %q, %q, %d", stdout, stderr, exit)
			}
			t.Logf("kamctl took %v", time.Since(begin))
			if tc.cause != "" {
				s.wait(t, tc.cause, before+1)
			}
			if tc.fifo == s.mi {
				writeFIFO(t, s.mi, ":sip_trace:real\n\n")
				got := readReply(t, real, true)
				// What was too long is told so first.
				if got = strings.TrimPrefix(got, "400 parse error in command 'sip_trace'\n"); got == "" {
					got = readReply(t, real, true)
				}
				if got != "200 OK\noff\n\n" {
					t.Errorf("MI: got %q", got)
				}
			}
		})
	}
	if text, err := os.ReadFile(s.replies + "/plain"); string(text) != "plain" || err != nil {
		t.Errorf("plain file holds %q, %v", text, err)
	}
	for _, f := range []*os.File{real, hard} {
		if got := readReply(t, f, false); got != "" {
			t.Errorf("%s got %q", f.Name(), got)
		}
	}
}

// A document left half-written, and nothing after it, is forgotten.
func TestHalfWrittenIsForgotten(t *testing.T) {
	s := start(t, serve.Config{}, serve.Handlers{})
	writeFIFO(t, s.fifo2, `{"jsonrpc":"2.0","method":"x","params":["`)
	writeFIFO(t, s.mi, ":sip_trace:real\n\"on\n")
	s.wait(t, "jsonrpc.unfinished", 1)
	s.wait(t, "mi.unfinished", 1)
}

// A reply into a command FIFO would be read as a command.
func TestReplyIntoOwnFIFO(t *testing.T) {
	dir := shortDir(t)
	var refused refusals
	s, err := serve.Listen(t.Context(), serve.Config{Listeners: []serve.Listener{
		{Protocol: serve.MI, Address: "fifo:" + dir + "/one", ReplyDir: dir},
		{Protocol: serve.MI, Address: "fifo:" + dir + "/two", ReplyDir: dir + "/"},
	}}, serve.Handlers{MI: miCommands(t), Refused: refused.add})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	writeFIFO(t, dir+"/one", ":sip_trace:two\n\n:sip_trace:one\n\n")
	refused.wait(t, "mi.reply_fifo", 2)
}

// Requests that name the same reply FIFO are answered in order, and others are
// not held up by them.
func TestFIFOOrder(t *testing.T) {
	hold := make(chan struct{})
	reg := tracing(t)
	err := reg.Register(rpc.Method{Name: "test.hold", Handler: func(ctx context.Context, _ *rpc.Call) (any, error) {
		select {
		case <-ctx.Done():
		case <-hold:
		}
		return "done", nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, serve.Config{Compact: true}, serve.Handlers{Registry: reg})
	first, second := replyFIFO(t, s.replies+"/first"), replyFIFO(t, s.replies+"/second")
	writeFIFO(t, s.fifo2, document("test.hold", "first")+document("siptrace.status", "first")+document("siptrace.status", "second"))
	if got := readReply(t, second, true); !strings.Contains(got, "Enabled") {
		t.Errorf("second: got %q", got)
	}
	close(hold)
	if got, want := readReply(t, first, true), `{"jsonrpc":"2.0","result":"done","id":1}{"jsonrpc":"2.0","result":"Enabled","id":1}`; got != want {
		t.Errorf("first: got %q, want %q", got, want)
	}
}

func TestHostileStreams(t *testing.T) {
	limits := serve.Limits{Read: 500 * time.Millisecond, Write: time.Second, Idle: time.Second}
	s := start(t, serve.Config{Limits: limits}, serve.Handlers{})
	whole := packet(t, "siptrace.status", "check")
	post := "POST /RPC HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "
	for _, tc := range []struct {
		name, network, address string
		write                  []byte
		cause                  string
	}{
		{"half a packet", "unix", s.ctl, whole[:10], "ctl.unfinished"},
		{"half a packet, TCP", "tcp", s.tcp, whole[:10], "ctl.unfinished"},
		{"two bytes", "unix", s.ctl, whole[:2], "ctl.unfinished"},
		{"nothing", "tcp", s.tcp, nil, "ctl.idle"},
		{"2 GiB announced", "tcp", s.tcp, []byte{0xA1, 0x0F, 0x7F, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4}, "ctl.too_long"},
		{"not BINRPC", "tcp", s.tcp, []byte("GET / HTTP/1.0\r\n\r\n"), "ctl.bad"},
		{"structs without end", "tcp", s.tcp, binrpcBody(bytes.Repeat([]byte{3}, 60000)), "ctl.bad"},
		{"half a document", "tcp", s.jsonTCP, []byte(`{"jsonrpc":`), "jsonrpc.bad"},
		{"too long a document", "tcp", s.jsonTCP, bytes.Repeat([]byte("["), 60000), "jsonrpc.bad"},
		{"no document", "tcp", s.jsonTCP, nil, "jsonrpc.idle"},
		{"no command", "unix", s.flexisip, nil, "flexisip_cli.idle"},
		{"half a POST", "tcp", s.http, []byte(post + "100\r\n\r\n{"), "http.unfinished"},
		{"too long a body", "tcp", s.http, []byte(post + "100000\r\n\r\n{"), "http.too_long"},
		{"not HTTP", "tcp", s.http, []byte("hello\r\n\r\n"), "http.bad"},
		{"a page's request", "tcp", s.http, []byte("POST /RPC HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}"), "http.origin"},
		{"a page's own name", "tcp", s.http, []byte("POST /RPC HTTP/1.1\r\nHost: evil.example:8060\r\nOrigin: http://evil.example:8060\r\nContent-Length: 2\r\n\r\n{}"), "http.origin"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := s.get(tc.cause)
			c := dial(t, tc.network, tc.address)
			write(t, c, tc.write)
			works(t, s)
			s.wait(t, tc.cause, before+1)
			if strings.HasSuffix(tc.cause, ".origin") {
				return // told so, and may go on
			}
			if _, closed := readQuiet(t, c, 1<<20); !closed {
				t.Error("not closed")
			}
		})
	}
}

// binrpcBody is a packet with that body.
func binrpcBody(body []byte) []byte {
	n := len(body)
	return append([]byte{0xA1, 0x04, byte(n >> 8), byte(n), 1}, body...)
}

// Who doesn't take his replies is dropped.
func TestSlowReaders(t *testing.T) {
	s := start(t, serve.Config{Limits: serve.Limits{Write: time.Second}}, serve.Handlers{})
	for _, address := range []string{"unix " + s.ctl, "tcp " + s.tcp} {
		network, host, _ := strings.Cut(address, " ")
		before := s.get("ctl.reply_dropped")
		c := dial(t, network, host)
		write(t, c, bytes.Repeat(packet(t, "test.big"), 200))
		works(t, s)
		s.wait(t, "ctl.reply_dropped", before+1)
	}
	// Datagrams: the reader's queue is ten long.
	for address, cause := range map[string]string{s.ctlGram: "ctl.reply_dropped", s.gram: "jsonrpc.reply_dropped"} {
		before := s.get(cause)
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address + "-r", Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		request := packet(t, "siptrace.status", "check")
		if address == s.gram {
			request = []byte(document("siptrace.status", ""))
		}
		for range 40 {
			if _, err := c.WriteTo(request, &net.UnixAddr{Name: address, Net: "unixgram"}); err != nil {
				t.Fatal(err)
			}
		}
		s.wait(t, cause, before+1)
	}
	works(t, s)
}

func TestDatagramsRefused(t *testing.T) {
	s := start(t, serve.Config{}, serve.Handlers{})
	c := dial(t, "unixgram", s.gram) // without an address
	write(t, c, []byte(`{"jsonrpc":"2.0","method":"siptrace.status","params":["off"],"id":1}`))
	s.wait(t, "jsonrpc.reply_dropped", 1)
	write(t, c, []byte(`{"jsonrpc":"2.0","method":"siptrace.status","params":["on"],"id":1}`))
	s.wait(t, "jsonrpc.reply_dropped", 2)
	write(t, c, bytes.Repeat([]byte("x"), 70000))
	s.wait(t, "jsonrpc.too_long", 1)
	write(t, dial(t, "unixgram", s.ctlGram), packet(t, "siptrace.status", "check")[:9])
	s.wait(t, "ctl.unfinished", 1)
	works(t, s)
}

// With all places taken, a new client gets in: the idle ones make room. And it
// is served as fast as without them.
func TestIdleFlood(t *testing.T) {
	s := start(t, serve.Config{}, serve.Handlers{})
	command := kamcmd + " -s unixs:" + s.ctl + " siptrace.status check"
	best := func() time.Duration {
		least := time.Hour
		for range 20 {
			begin := time.Now()
			if stdout, stderr, exit := run(t, command, ""); stdout != "Enabled\n" {
				t.Fatalf("got %q, %q, %d", stdout, stderr, exit)
			}
			least = min(least, time.Since(begin))
		}
		return least
	}
	alone := best()
	for i := range 2000 {
		if i%2 == 0 {
			dial(t, "unix", s.ctl)
		} else {
			dial(t, "tcp", s.tcp)
		}
	}
	s.wait(t, "ctl.connections", 2000-2*128)
	flooded := best()
	t.Logf("kamcmd: %v alone, %v with 2000 idle connections", alone, flooded)
	if flooded > 3*alone+10*time.Millisecond {
		t.Errorf("kamcmd took %v, and %v alone", flooded, alone)
	}
	for _, address := range []string{s.jsonTCP, s.http} {
		for range 300 {
			dial(t, "tcp", address)
		}
	}
	resp, err := http.Post("http://"+s.http+"/RPC", "application/json", strings.NewReader(`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("http: %s", resp.Status)
	}
	works(t, s)
}

// Connections that are being answered don't make room.
func TestBusyConnectionsStay(t *testing.T) {
	s := start(t, serve.Config{Limits: serve.Limits{Connections: 2}}, serve.Handlers{})
	var busy []net.Conn
	for range 2 {
		c := dial(t, "unix", s.ctl)
		write(t, c, packet(t, "test.slow"))
		busy = append(busy, c)
	}
	time.Sleep(50 * time.Millisecond)
	if _, closed := readQuiet(t, dial(t, "unix", s.ctl), 0); !closed {
		t.Error("a third one was let in")
	}
	for _, c := range busy {
		if got, _ := readQuiet(t, c, 1); !bytes.Contains(got, []byte("done")) {
			t.Errorf("got %q", got)
		}
	}
	s.wait(t, "ctl.connections", 1)
	works(t, s)
}

func TestRate(t *testing.T) {
	s := start(t, serve.Config{Limits: serve.Limits{Rate: 50}}, serve.Handlers{})
	c := dial(t, "udp", s.udp)
	for range 60 {
		write(t, c, packet(t, "siptrace.status", "check"))
	}
	s.wait(t, "ctl.rate", 1)
	for range 60 {
		resp, err := http.Post("http://"+s.http+"/RPC", "", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	s.wait(t, "http.rate", 1)
	// A stream is made to wait instead.
	c = dial(t, "unix", s.ctl)
	begin := time.Now()
	write(t, c, bytes.Repeat(packet(t, "siptrace.status", "check"), 60))
	got, _ := readQuiet(t, c, 60*len("\xa1\x10\x0a\x01\x91\x08Enabled\x00"))
	if n, d := bytes.Count(got, []byte("Enabled")), time.Since(begin); n != 60 || d < 150*time.Millisecond {
		t.Errorf("%d answers in %v", n, d)
	}
	s.wait(t, "ctl.rate", 2)
}

// Close lets calls finish, takes no more, and leaves nothing behind.
func TestClose(t *testing.T) {
	dir := shortDir(t)
	list := []serve.Listener{
		{Protocol: serve.Ctl, Address: "unix:" + dir + "/ctl"},
		{Protocol: serve.JSONRPC, Address: "fifo:" + dir + "/fifo", ReplyDir: dir},
		{Protocol: serve.HTTP, Address: "tcp:127.0.0.1:0"},
	}
	for _, tc := range []struct {
		method string
		wait   time.Duration
		want   string
		err    error
	}{
		{"test.slow", time.Minute, "done", nil},
		{"test.stuck", 100 * time.Millisecond, "", context.DeadlineExceeded},
	} {
		t.Run(tc.method, func(t *testing.T) {
			begun := make(chan struct{}, 2)
			reg := register(t, map[string]rpc.Handler{tc.method: func(ctx context.Context, _ *rpc.Call) (any, error) {
				begun <- struct{}{}
				if tc.want == "" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				time.Sleep(300 * time.Millisecond)
				return tc.want, nil
			}})
			s, err := serve.Listen(t.Context(), serve.Config{Listeners: list}, serve.Handlers{Registry: reg})
			if err != nil {
				t.Fatal(err)
			}
			s.Serve()
			idle := dial(t, "unix", dir+"/ctl")
			c := dial(t, "unix", dir+"/ctl")
			write(t, c, packet(t, tc.method))
			reply := replyFIFO(t, dir+"/reply-"+tc.method[5:])
			writeFIFO(t, dir+"/fifo", document(tc.method, "reply-"+tc.method[5:]))
			<-begun
			<-begun
			ctx, cancel := context.WithTimeout(t.Context(), tc.wait)
			defer cancel()
			if err := s.Close(ctx); !errors.Is(err, tc.err) {
				t.Errorf("Close: got %v, want %v", err, tc.err)
			}
			if got, closed := readQuiet(t, c, 1); !bytes.Contains(got, []byte(tc.want)) || !closed {
				t.Errorf("got %q, closed %v", got, closed)
			}
			if got := readReply(t, reply, tc.want != ""); !strings.Contains(got, tc.want) {
				t.Errorf("fifo: got %q", got)
			}
			if _, closed := readQuiet(t, idle, 1); !closed {
				t.Error("idle connection was left open")
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 1 { // the client's reply FIFO
				t.Errorf("left %v, %v", left, err)
			}
			_ = os.Remove(reply.Name())
		})
	}
}

// What the methods are told of the caller goes with the cause, too.
func TestRefusedPeer(t *testing.T) {
	dir := shortDir(t)
	got := make(chan rpc.Peer, 1)
	s, err := serve.Listen(t.Context(), serve.Config{Listeners: []serve.Listener{{Protocol: serve.Ctl, Address: "unix:" + dir + "/ctl"}}},
		serve.Handlers{Registry: tracing(t), Refused: func(_ string, p rpc.Peer) { got <- p }})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	write(t, dial(t, "unix", dir+"/ctl"), []byte("hello"))
	if p := <-got; p.UID != os.Getuid() || p.PID != os.Getpid() || p.Addr != dir+"/ctl" {
		t.Errorf("got %v", p)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
