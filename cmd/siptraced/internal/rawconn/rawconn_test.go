package rawconn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pair is both ends of a connection.
func pair(t *testing.T, network string) (client, server net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "socket")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	l = Listener{l}
	defer l.Close()
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client = Wrap(c)
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	for _, c := range []net.Conn{client, server} {
		if _, ok := c.(*Conn); !ok {
			t.Fatalf("%T is not wrapped", c)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute)) // a test that waits for ever says nothing
	}
	return client, server
}

// TestTransfer: what is written is read, however much that is, up to the end.
func TestTransfer(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			client, server := pair(t, network)
			sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<17) // more than any socket buffer
			written := make(chan error)
			go func() {
				n, err := client.Write(sent)
				if err == nil && n != len(sent) {
					err = io.ErrShortWrite
				}
				written <- errors.Join(err, client.(*Conn).CloseWrite())
			}()
			got, err := io.ReadAll(server)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read %d of %d bytes, %v", len(got), len(sent), err)
			}
			if err := <-written; err != nil {
				t.Error(err)
			}
			if n, err := server.Write([]byte("answer")); n != 6 || err != nil {
				t.Errorf("answer: %d, %v", n, err)
			}
			b := make([]byte, 10)
			if n, err := client.Read(nil); n != 0 || err != nil {
				t.Errorf("reading nothing: %d, %v", n, err)
			}
			if n, err := client.Read(b); string(b[:n]) != "answer" || err != nil {
				t.Errorf("answer: %q, %v", b[:n], err)
			}
		})
	}
}

// TestErrors: they are those of package net.
func TestErrors(t *testing.T) {
	client, server := pair(t, "tcp")
	b := make([]byte, 10)
	_ = client.SetDeadline(time.Now().Add(-time.Second))
	var timeout net.Error
	if _, err := client.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a read after the deadline: %v", err)
	}
	if _, err := client.Write(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write after the deadline: %v", err)
	}
	_ = client.SetDeadline(time.Now().Add(100 * time.Millisecond))
	n, err := client.Write(make([]byte, 64<<20)) // nobody reads it
	if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write that nobody reads: %d, %v", n, err)
	}
	raw, err := client.(syscall.Conn).SyscallConn()
	if err != nil || raw.Control(func(uintptr) {}) != nil {
		t.Errorf("the descriptor: %v", err)
	}
	_ = server.(*Conn).Conn.(*net.TCPConn).SetLinger(0)
	_ = server.Close()
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	var op *net.OpError
	if _, err := client.Read(b); !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" {
		t.Errorf("a read after a reset: %v", err)
	}
	if _, err := client.Write(b); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write after a reset: %v", err)
	}
	waiting := make(chan error)
	other, _ := pair(t, "unix")
	go func() {
		_, err := other.Read(b)
		waiting <- err
	}()
	_ = other.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read when it is closed: %v", err)
	}
	if _, err := other.Write(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after Close: %v", err)
	}
}

// TestOthers: what is no socket stays as it is.
func TestOthers(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := Wrap(a); got != a {
		t.Errorf("got %T", got)
	}
	if err := (&Conn{Conn: a}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite: %v", err)
	}
}
