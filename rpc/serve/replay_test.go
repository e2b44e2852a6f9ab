package serve_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/rpc/serve"
)

const (
	// quiet is how long nothing has to come for "no answer".
	quiet = 100 * time.Millisecond
	// patience is how long an answer may take on a busy machine.
	patience = 30 * time.Second
)

// readQuiet reads what comes until nothing more does, and tells whether the
// other side has closed.
func readQuiet(t *testing.T, c net.Conn, want int) (got []byte, closed bool) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for {
		wait := quiet
		if len(got) < want {
			wait = patience
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return got, false
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			return got, true
		default:
			t.Fatal(err)
		}
	}
}

func dial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func write(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestBINRPCAsRecorded(t *testing.T) {
	for _, r := range recordings(t, 20, "raw_") {
		t.Run(r.Name, func(t *testing.T) {
			s := start(t, serve.Config{}, serve.Handlers{Registry: playback(t, r)})
			request, want := unhex(t, r.Request), unhex(t, r.Reply)
			if strings.HasPrefix(r.Name, "raw_udp") {
				c := dial(t, "udp", s.udp)
				write(t, c, request)
				if got, _ := readQuiet(t, c, len(want)); !bytes.Equal(got, want) {
					t.Errorf("got %x, want %x", got, want)
				}
				return
			}
			c := dial(t, "unix", s.ctl)
			half := len(request)
			if r.Name == "raw_split" {
				half = 20
			}
			write(t, c, request[:half])
			if half < len(request) {
				time.Sleep(20 * time.Millisecond)
				write(t, c, request[half:])
			}
			if r.Name == "raw_half_close" {
				if err := c.(*net.UnixConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			got, closed := readQuiet(t, c, len(want))
			// A length that can't be is refused at once; ctl waits for it.
			if wantClosed := r.Closed || r.Name == "raw_huge_len"; closed != wantClosed {
				t.Errorf("closed %v, want %v", closed, wantClosed)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
		})
	}
}

func TestDatagramsAsRecorded(t *testing.T) {
	for _, r := range recordings(t, 15, "dgram_", "udp_") {
		t.Run(r.Name, func(t *testing.T) {
			s := start(t, serve.Config{Compact: strings.HasPrefix(r.Name, "udp_")}, serve.Handlers{Registry: playback(t, r)})
			want := unhex(t, r.Reply)
			if r.Name == "dgram_jsonrpc_num" {
				// This one ended the real server; over HTTP it is as here.
				want = []byte("{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t{\n\t},\n\t\"id\":\t1\n}")
			}
			for network, address := range map[string]string{"unixgram": s.gram, "udp": s.jsonUDP} {
				var c net.Conn
				if network == "udp" {
					c = dial(t, network, address)
				} else {
					u, err := net.DialUnix(network, &net.UnixAddr{Name: s.dir + "/reply", Net: network}, &net.UnixAddr{Name: address, Net: network})
					if err != nil {
						t.Fatal(err)
					}
					defer u.Close()
					c = u
				}
				write(t, c, unhex(t, r.Request))
				if got, _ := readQuiet(t, c, len(want)); !bytes.Equal(got, want) {
					t.Errorf("%s: got %q, want %q", network, got, want)
				}
			}
		})
	}
}

// Over TCP newer servers take the same documents: one read, one write, close.
func TestJSONOverTCP(t *testing.T) {
	s := start(t, serve.Config{Compact: true}, serve.Handlers{})
	c := dial(t, "tcp", s.jsonTCP)
	write(t, c, []byte(`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":7}`))
	got, closed := readQuiet(t, c, 1)
	if want := `{"jsonrpc":"2.0","result":"Enabled","id":7}`; string(got) != want || !closed {
		t.Errorf("got %q, closed %v, want %q, closed", got, closed, want)
	}
}

func TestHTTPAsRecorded(t *testing.T) {
	for _, r := range recordings(t, 14, "http_") {
		t.Run(r.Name, func(t *testing.T) {
			s := start(t, serve.Config{}, serve.Handlers{Registry: playback(t, r)})
			c := dial(t, "tcp", s.http)
			write(t, c, unhex(t, r.Request))
			got, closed := readQuiet(t, c, len(unhex(t, r.Reply))/2)
			if r.Reply == "" {
				if len(got) > 0 || !closed {
					t.Errorf("got %q, closed %v, want nothing, closed", got, closed)
				}
				return
			}
			gotReader, wantReader := bufio.NewReader(bytes.NewReader(got)), bufio.NewReader(bytes.NewReader(unhex(t, r.Reply)))
			for range bytes.Count(unhex(t, r.Reply), []byte("HTTP/1.1 ")) {
				g, w := readHTTP(t, gotReader), readHTTP(t, wantReader)
				if r.Name == "http_other_path" { // its text is the route script's
					g, w = httpReply{status: g.status}, httpReply{status: w.status}
				}
				if g != w {
					t.Errorf("got %+v\nwant %+v", g, w)
				}
			}
		})
	}
}

// httpReply is what of an HTTP reply has to be as recorded.
type httpReply struct {
	status, contentType, body string
	sia, close                bool
}

func readHTTP(t *testing.T, r *bufio.Reader) httpReply {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return httpReply{resp.Status, resp.Header.Get("Content-Type"), string(body), resp.Header.Get("Sia") != "", resp.Close}
}

// There is nothing beside /RPC and what is below it.
func TestPaths(t *testing.T) {
	const parseError = `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}`
	s := start(t, serve.Config{Strict: true}, serve.Handlers{})
	for request, want := range map[string]string{
		"GET /x HTTP/1.1\r\nHost: trace.example\r\n\r\n":                              "Not Found",
		"POST /RPCx HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{":        "Not Found",
		"POST /RPC/../x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{":    "Not Found",
		"POST /RPC/a/b?c=d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{": parseError,
		"POST /RPC/ HTTP/1.1\r\nHost: trace.example\r\nContent-Length: 1\r\n\r\n{":    "Forbidden",
		"POST /RPC HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{":         parseError,
	} {
		c := dial(t, "tcp", s.http)
		write(t, c, []byte(request))
		got, _ := readQuiet(t, c, 1)
		r := readHTTP(t, bufio.NewReader(bytes.NewReader(got)))
		if body := strings.Join(strings.Fields(r.body), ""); body != strings.ReplaceAll(want, " ", "") {
			t.Errorf("%q: got %+v, want %q", request, r, want)
		}
	}
	notification := `{"jsonrpc":"2.0","method":"siptrace.status"}`
	c := dial(t, "tcp", s.http)
	write(t, c, fmt.Appendf(nil, "POST /RPC HTTP/1.1\r\nHost: [::1]:1\r\nContent-Length: %d\r\n\r\n%s", len(notification), notification))
	if got, _ := readQuiet(t, c, 1); !bytes.HasPrefix(got, []byte("HTTP/1.1 204 ")) {
		t.Errorf("notification: got %q", got)
	}
}

// replyFIFO makes a reply FIFO and opens it as its reader.
func replyFIFO(t testing.TB, path string) *os.File {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// readReply reads up to the end of a reply; without want it waits a little and
// expects none.
func readReply(t testing.TB, f *os.File, want bool) string {
	t.Helper()
	var got []byte
	buf := make([]byte, 64<<10)
	wait := quiet
	if want {
		wait = patience
	}
	end := time.Now().Add(wait)
	_ = f.SetReadDeadline(end)
	for time.Now().Before(end) {
		n, err := f.Read(buf)
		got = append(got, buf[:n]...)
		if errors.Is(err, io.EOF) && len(got) > 0 {
			return string(got)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			break
		}
		if n == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return string(got)
}

func writeFIFO(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, f, []byte(text))
}

var replyName = regexp.MustCompile(`"reply_name":"([^"]*)"`)

func TestFIFOAsRecorded(t *testing.T) {
	for _, r := range recordings(t, 24, "fifo_") {
		t.Run(r.Name, func(t *testing.T) {
			s := start(t, serve.Config{}, serve.Handlers{Registry: playback(t, r)})
			name := "none"
			if m := replyName.FindStringSubmatch(string(unhex(t, r.Request))); m != nil && m[1] != "" {
				name = filepath.Base(m[1])
			}
			path := s.replies + "/" + name
			if r.Name == "fifo_reply_name_not_fifo" {
				if err := os.WriteFile(path, []byte("plain"), 0o600); err != nil {
					t.Fatal(err)
				}
				writeFIFO(t, s.fifo2, string(unhex(t, r.Request)))
				s.wait(t, "jsonrpc.reply_fifo", 1)
				if text, err := os.ReadFile(path); string(text) != "plain" || err != nil {
					t.Errorf("plain file holds %q, %v", text, err)
				}
				return
			}
			reply := replyFIFO(t, path)
			writeFIFO(t, s.fifo2, string(unhex(t, r.Request)))
			if got, want := readReply(t, reply, r.Reply != ""), string(unhex(t, r.Reply)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// What openserctl sends and gets.
func TestMI(t *testing.T) {
	s := start(t, serve.Config{}, serve.Handlers{})
	reply := replyFIFO(t, s.replies+"/openser_receiver_77")
	for _, tc := range []struct{ name, request, want string }{
		{"state", ":sip_trace:openser_receiver_77\n\n", "200 OK\noff\n\n"},
		{"on", ":sip_trace:openser_receiver_77\non\n\n", "200 OK\n\n"},
		{"two", ":sip_trace:openser_receiver_77\noff\n\n:sip_trace:openser_receiver_77\n\n", "200 OK\n\n200 OK\noff\n\n"},
		{"other", ":sip_trace:openser_receiver_77\nonx\n\n", "400 Bad parameter\n\n"},
		{"unknown", ":no_such_cmd:openser_receiver_77\n\n", "500 command 'no_such_cmd' not available\n"},
		{"odd quote, and the next", ":sip_trace:openser_receiver_77\no\"n\n\n:sip_trace:openser_receiver_77\n\n", "400 parse error in command 'sip_trace'\n200 OK\noff\n\n"},
		{"dots in the name", ":sip_trace:../openser_receiver_77\non\n\n", ""},
		{"no name", ":sip_trace:\non\n\n", ""},
		{"no second colon", ":sip_trace\n\n", ""},
		{"none of these ran", ":sip_trace:openser_receiver_77\n\n", "200 OK\noff\n\n"},
	} {
		writeFIFO(t, s.mi, tc.request)
		if got := readReply(t, reply, tc.want != ""); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
	if s.get("mi.reply_name") != 2 || s.get("mi.bad") != 1 {
		t.Errorf("counted %v", s.counts)
	}
}

func TestFlexisipCLI(t *testing.T) {
	s := start(t, serve.Config{}, serve.Handlers{})
	for request, want := range map[string]string{
		"CONFIG_GET global/log-level":       "global/log-level: error",
		"CONFIG_SET global/log-level debug": "global/log-level: debug",
		"CONFIG_GET nothing":                "Error - Not found: nothing",
	} {
		c := dial(t, "unix", s.flexisip)
		write(t, c, []byte(request))
		if got, closed := readQuiet(t, c, len(want)); string(got) != want || !closed {
			t.Errorf("%s: got %q, closed %v, want %q, closed", request, got, closed, want)
		}
	}
}

// The peer is known where the kernel tells.
func TestPeer(t *testing.T) {
	s := start(t, serve.Config{}, serve.Handlers{})
	who := regexp.MustCompile(` uid=\d+ gid=\d+ pid=\d+`)
	for _, args := range []string{"unixs:" + s.ctl, "unixd:" + s.ctlGram} {
		stdout, stderr, exit := run(t, kamcmd+" -s "+args+" test.peer", "")
		if !who.MatchString(stdout) || exit != 0 {
			t.Errorf("%s: got %q, %q, %d", args, stdout, stderr, exit)
		}
	}
	stdout, _, _ := run(t, kamcmd+" -s tcp:"+s.tcp+" test.peer", "")
	if !strings.HasPrefix(stdout, "tcp:127.0.0.1:") {
		t.Errorf("tcp: got %q", stdout)
	}
}
