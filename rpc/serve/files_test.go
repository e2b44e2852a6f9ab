package serve_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"siptraced/rpc/serve"
)

// listen binds one listener; it is closed at the end of the test.
func listen(t *testing.T, l serve.Listener) error {
	t.Helper()
	s, err := serve.Listen(t.Context(), serve.Config{Listeners: []serve.Listener{l}},
		serve.Handlers{Registry: tracing(t), MI: miCommands(t), Flexisip: settings{}})
	if err != nil {
		return err
	}
	s.Serve()
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return nil
}

func TestModes(t *testing.T) {
	dir := shortDir(t)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, tc := range []struct {
		l    serve.Listener
		want fs.FileMode
	}{
		{serve.Listener{Protocol: serve.Ctl, Address: "unix:"}, fs.ModeSocket | 0o600},
		{serve.Listener{Protocol: serve.Ctl, Address: "unixd:"}, fs.ModeSocket | 0o600},
		{serve.Listener{Protocol: serve.JSONRPC, Address: "unixd:"}, fs.ModeSocket | 0o660},
		{serve.Listener{Protocol: serve.JSONRPC, Address: "fifo:"}, fs.ModeNamedPipe | 0o660},
		{serve.Listener{Protocol: serve.MI, Address: "fifo:"}, fs.ModeNamedPipe | 0o660},
		{serve.Listener{Protocol: serve.Flexisip, Address: "unix:"}, fs.ModeSocket | 0o600},
		{serve.Listener{Protocol: serve.Ctl, Address: "unix:", Mode: 0o666, User: "1234", Group: "5678"}, fs.ModeSocket | 0o666},
		{serve.Listener{Protocol: serve.JSONRPC, Address: "fifo:", Mode: 0o622, User: "root", Group: "daemon"}, fs.ModeNamedPipe | 0o622},
	} {
		path := fmt.Sprintf("%s/run/%s%d", dir, tc.l.Protocol, len(tc.l.User+tc.l.Address))
		tc.l.Address += path
		if err := listen(t, tc.l); err != nil {
			// Only root may give files away.
			if os.Getuid() == 0 || tc.l.User == "" || !errors.Is(err, syscall.EPERM) {
				t.Errorf("%v: %v", tc.l.Address, err)
			}
			continue
		}
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != tc.want {
			t.Errorf("%s: mode %v, want %v", tc.l.Address, fi.Mode(), tc.want)
		}
		owner := fi.Sys().(*syscall.Stat_t)
		switch {
		case tc.l.User == "1234" && (owner.Uid != 1234 || owner.Gid != 5678),
			tc.l.User == "root" && (owner.Uid != 0 || owner.Gid != 1),
			tc.l.User == "" && owner.Uid != uint32(os.Getuid()):
			t.Errorf("%s: owner %d:%d", tc.l.Address, owner.Uid, owner.Gid)
		}
	}
	err := listen(t, serve.Listener{Protocol: serve.Ctl, Address: "unix:" + dir + "/x", User: "no_such_user"})
	if e, ok := errors.AsType[*serve.ConfigError](err); !ok || !strings.Contains(e.Error(), "no_such_user") {
		t.Errorf("got %v", err)
	}
}

// What a crash has left is replaced; nothing else is.
func TestStale(t *testing.T) {
	dir := shortDir(t)
	stale := func(network, path string) {
		t.Helper()
		fd, err := syscall.Socket(syscall.AF_UNIX, map[string]int{"unix": syscall.SOCK_STREAM, "unixgram": syscall.SOCK_DGRAM}[network], 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Close(fd)); err != nil {
			t.Fatal(err)
		}
	}
	live := func(network, path string) {
		t.Helper()
		var c interface{ Close() error }
		var err error
		if network == "unix" {
			c, err = net.Listen(network, path)
		} else {
			c, err = net.ListenPacket(network, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	fifo := func(path string, read bool) {
		t.Helper()
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if read {
			f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
		}
	}
	for i, tc := range []struct {
		name    string
		p       serve.Protocol
		network string
		prepare func(path string)
		reason  string // "" = replaced
	}{
		{"dead socket", serve.Ctl, "unix", func(p string) { stale("unix", p) }, ""},
		{"dead datagram socket", serve.Ctl, "unixd", func(p string) { stale("unixgram", p) }, ""},
		{"FIFO without a reader", serve.JSONRPC, "fifo", func(p string) { fifo(p, false) }, ""},
		{"socket of a server", serve.Ctl, "unix", func(p string) { live("unix", p) }, "another program answers"},
		{"socket of a datagram server", serve.Ctl, "unix", func(p string) { live("unixgram", p) }, "another program answers"},
		{"datagram socket of a server", serve.JSONRPC, "unixd", func(p string) { live("unixgram", p) }, "another program answers"},
		{"FIFO with a reader", serve.MI, "fifo", func(p string) { fifo(p, true) }, "another program answers"},
		{"FIFO where a socket is to be", serve.Ctl, "unix", func(p string) { fifo(p, false) }, "is a FIFO"},
		{"socket where a FIFO is to be", serve.MI, "fifo", func(p string) { stale("unix", p) }, "is a socket"},
		{"plain file", serve.Ctl, "unix", func(p string) { _ = os.WriteFile(p, nil, 0o600) }, "is a plain file"},
		{"directory", serve.MI, "fifo", func(p string) { _ = os.Mkdir(p, 0o700) }, "is a directory"},
		{"symbolic link", serve.JSONRPC, "fifo", func(p string) { _ = os.Symlink("/tmp/x", p) }, "is a symbolic link"},
		{"no run folder's folder", serve.Ctl, "unix", nil, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := dir + "/" + strconv.Itoa(i)
			if tc.prepare == nil {
				path += "/run/ctl"
			} else {
				tc.prepare(path)
			}
			before, _ := os.Lstat(path)
			err := listen(t, serve.Listener{Protocol: tc.p, Address: tc.network + ":" + path})
			if tc.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*serve.ConfigError](err); !ok || !strings.Contains(err.Error(), tc.reason) {
				t.Errorf("got %v, want %q", err, tc.reason)
			}
			if after, err := os.Lstat(path); tc.prepare != nil && (err != nil || !os.SameFile(before, after)) {
				t.Errorf("what was there is gone: %v", err)
			}
		})
	}
}

// One address that can't be bound fails the start, and what was bound is given
// back.
func TestListenFailsAsAWhole(t *testing.T) {
	dir := shortDir(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = serve.Listen(t.Context(), serve.Config{Listeners: []serve.Listener{
		{Protocol: serve.Ctl, Address: "unix:" + dir + "/ctl"},
		{Protocol: serve.Ctl, Address: "unixd:" + dir + "/ctld"},
		{Protocol: serve.JSONRPC, Address: "fifo:" + dir + "/fifo"},
		{Protocol: serve.Flexisip, Address: "unix:" + dir + "/flexisip", PIDFile: dir + "/pid"},
		{Protocol: serve.HTTP, Address: "tcp:" + taken.Addr().String()},
	}}, serve.Handlers{Registry: tracing(t), Flexisip: settings{}})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A file that another program has put in our place stays at the end.
func TestOthersFileStays(t *testing.T) {
	dir := shortDir(t)
	s, err := serve.Listen(t.Context(), serve.Config{Listeners: []serve.Listener{{Protocol: serve.Ctl, Address: "unix:" + dir + "/ctl"}}},
		serve.Handlers{Registry: tracing(t)})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	if err := errors.Join(os.Remove(dir+"/ctl"), os.WriteFile(dir+"/ctl", []byte("other"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/ctl"); err != nil {
		t.Error(err)
	}
}

func TestPIDFile(t *testing.T) {
	dir := shortDir(t)
	path := dir + "/flexisip-proxy.pid"
	own := fmt.Sprintf("%s/flexisip-proxy-%d", dir, os.Getpid())
	l := serve.Listener{Protocol: serve.Flexisip, Address: "unix:" + own, PIDFile: path}
	for _, tc := range []struct {
		name, content string
		refused       bool
	}{
		{"none", "", false},
		{"of a process that is gone", "999999\n", false},
		{"of a process that is no server", "1\n", false},
		{"not a number", "x", false},
		{"of a server", "77\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.content != "" {
				if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.refused {
				other, err := net.Listen("unix", dir+"/flexisip-proxy-77")
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close()
			}
			err := listen(t, l)
			if (err != nil) != tc.refused {
				t.Fatalf("got %v", err)
			}
			got, err := os.ReadFile(path)
			if want := strconv.Itoa(os.Getpid()) + "\n"; !tc.refused && string(got) != want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	mutual := &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
	for _, tc := range []struct {
		l    serve.Listener
		want string // "" = may be
	}{
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp:127.0.0.1:0"}, ""},
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp:localhost:0"}, ""},
		{serve.Listener{Protocol: serve.Ctl, Address: "udp:127.0.0.2:0"}, ""},
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp:0.0.0.0:0"}, "client certificates"},
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp::0"}, "client certificates"},
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp:0.0.0.0:0", Token: "secret"}, "no place for a token"},
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp:0.0.0.0:0", TLS: &tls.Config{}}, "client certificates"},
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp:0.0.0.0:0", TLS: mutual}, ""},
		{serve.Listener{Protocol: serve.Ctl, Address: "udp:0.0.0.0:0", TLS: mutual}, "UDP"},
		{serve.Listener{Protocol: serve.JSONRPC, Address: "udp:[::]:0"}, "UDP"},
		{serve.Listener{Protocol: serve.JSONRPC, Address: "tcp:192.0.2.1:0"}, "client certificates"},
		{serve.Listener{Protocol: serve.HTTP, Address: "tcp:0.0.0.0:0"}, "token"},
		{serve.Listener{Protocol: serve.HTTP, Address: "tcp:[::ffff:127.0.0.1]:0"}, ""},
		{serve.Listener{Protocol: serve.HTTP, Address: "tcp:0.0.0.0:0", Token: "secret"}, ""},
		{serve.Listener{Protocol: serve.HTTP, Address: "tcp:0.0.0.0:0", TLS: mutual}, ""},
		{serve.Listener{Protocol: serve.HTTP, Address: "udp:127.0.0.1:0"}, "must begin with tcp:"},
		{serve.Listener{Protocol: serve.MI, Address: "unix:/tmp/x"}, "must begin with fifo:"},
		{serve.Listener{Protocol: serve.Ctl, Address: "unixd:/" + strings.Repeat("x", 107)}, "107 at most"},
		{serve.Listener{Protocol: serve.Ctl, Address: "/run/x"}, "must begin with unix:"},
		{serve.Listener{Protocol: serve.Ctl, Address: "tcp:127.0.0.1"}, "HOST:PORT"},
		{serve.Listener{Protocol: "soap", Address: "tcp:127.0.0.1:0"}, "unknown protocol"},
	} {
		err := tc.l.Validate()
		switch _, typed := errors.AsType[*serve.ConfigError](err); {
		case tc.want == "" && err != nil:
			t.Errorf("%s %s: %v", tc.l.Protocol, tc.l.Address, err)
		case tc.want != "" && (!typed || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s %s: got %v, want %q", tc.l.Protocol, tc.l.Address, err, tc.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("the token is in %q", err)
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("listener", "listener", tc.l)
		if strings.Contains(b.String(), "secret") {
			t.Errorf("the token is in %q", b.String())
		}
	}
	_, err := serve.Listen(t.Context(), serve.Config{Listeners: []serve.Listener{{Protocol: serve.MI, Address: "fifo:/tmp/x"}}}, serve.Handlers{})
	if err == nil || !strings.Contains(err.Error(), "Handlers.MI") {
		t.Errorf("got %v", err)
	}
}

func TestToken(t *testing.T) {
	var refused refusals
	s, err := serve.Listen(t.Context(), serve.Config{Listeners: []serve.Listener{{Protocol: serve.HTTP, Address: "tcp:127.0.0.1:0", Token: "s3cret"}}},
		serve.Handlers{Registry: tracing(t), Refused: refused.add})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	_, address, _ := strings.Cut(s.Addresses()[0], ":")
	for header, want := range map[string]string{
		"Authorization: Bearer s3cret":  "HTTP/1.1 200 OK",
		"Authorization: bearer s3cret":  "HTTP/1.1 200 OK",
		"Authorization: Bearer s3cre":   "HTTP/1.1 401 Unauthorized",
		"Authorization: Bearer s3cret ": "HTTP/1.1 200 OK", // blanks at the end are not part of a header
		"Authorization: Basic s3cret":   "HTTP/1.1 401 Unauthorized",
		"X-None: 1":                     "HTTP/1.1 401 Unauthorized",
	} {
		c := dial(t, "tcp", address)
		body := `{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`
		write(t, c, fmt.Appendf(nil, "POST /RPC HTTP/1.1\r\nHost: trace.example\r\n%s\r\nContent-Length: %d\r\n\r\n%s", header, len(body), body))
		if got, _ := readQuiet(t, c, 1); !strings.HasPrefix(string(got), want+"\r\n") {
			t.Errorf("%s: got %q, want %s", header, got, want)
		}
	}
	refused.wait(t, "http.auth", 3)
}

// The programs that the tests drive have to be there.
func TestPrograms(t *testing.T) {
	for _, program := range []string{kamcmd, kamctl} {
		if _, err := exec.LookPath(program); err != nil {
			t.Errorf("%v: install Debian's kamailio", err)
		}
	}
}
