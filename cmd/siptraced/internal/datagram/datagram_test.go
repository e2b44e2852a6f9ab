package datagram

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// listen is a socket on the loopback interface.
func listen(t *testing.T, addr string) *Socket {
	t.Helper()
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp", a)
	if err != nil {
		t.Fatal(err)
	}
	return take(t, c)
}

// dial is a socket that is connected to another one.
func dial(t *testing.T, to *Socket) *Socket {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	return take(t, c)
}

func take(t *testing.T, c *net.UDPConn) *Socket {
	t.Helper()
	s, err := Take(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	_ = s.SetReadDeadline(time.Now().Add(time.Minute)) // a test that waits for ever says nothing
	return s
}

func TestWriteAndRead(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) {
			server := listen(t, addr)
			client := dial(t, server)
			if got, want := client.RemoteAddr().Port(), server.LocalAddr().Port(); got != want || server.RemoteAddr().IsValid() {
				t.Errorf("remote addresses: got port %d and %v, want %d and none", got, server.RemoteAddr(), want)
			}
			w, r := client.Writer(3), server.Reader(8, 4)
			sent := [][]byte{[]byte("a"), nil, []byte("longer"), []byte("d")}
			var got []string
			for rest := sent; len(rest) > 0; {
				n, err := w.Write(rest)
				if err != nil || n < 1 || n > 3 {
					t.Fatalf("wrote %d of %d: %v", n, len(rest), err)
				}
				rest = rest[n:]
			}
			for len(got) < len(sent) {
				n, err := r.Read()
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					data, from := r.Datagram(i)
					if from != client.LocalAddr() {
						t.Errorf("from %v, want %v", from, client.LocalAddr())
					}
					if r.Len(i) != len(data) {
						t.Errorf("length %d, want %d", r.Len(i), len(data))
					}
					got = append(got, string(data))
				}
			}
			if want := []string{"a", "", "long", "d"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if n := r.ReadNow(); n != 0 {
				t.Errorf("%d more", n)
			}
			if err := server.SendTo(client.LocalAddr(), []byte("back")); err != nil {
				t.Error(err)
			}
			back := client.Reader(1, 16)
			if n, err := back.Read(); n != 1 || err != nil {
				t.Fatalf("the answer: %d, %v", n, err)
			}
			if data, from := back.Datagram(0); string(data) != "back" || from.Port() != server.LocalAddr().Port() {
				t.Errorf("the answer: %q from %v", data, from)
			}
			if n, err := client.Write([]byte("e")); n != 1 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			if n, err := w.Write(nil); n != 0 || err != nil {
				t.Errorf("nothing to write: %d, %v", n, err)
			}
		})
	}
}

// TestPause: whatever comes before, in and after a pause is read.
func TestPause(t *testing.T) {
	server := listen(t, "127.0.0.1:0")
	client := dial(t, server)
	const count = 2000
	go func() {
		for i := range uint32(count) {
			_, _ = client.Write(binary.BigEndian.AppendUint32(nil, i))
			if i%64 == 0 {
				time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			}
		}
	}()
	r := server.Reader(4, 16)
	for next := uint32(0); next < count; {
		n, err := r.Read()
		if err != nil {
			t.Fatalf("after %d: %v", next, err)
		}
		for i := range n {
			data, _ := r.Datagram(i)
			if got := binary.BigEndian.Uint32(data); got != next {
				t.Fatalf("got %d, want %d", got, next)
			}
			next++
		}
		if n < 4 {
			r.Pause(time.Duration(rand.IntN(1000)) * time.Microsecond)
		}
	}
}

// TestEnd: a deadline and Close end the waiting; what is there can still be read after
// the deadline, and nothing is done with a descriptor after Close.
func TestEnd(t *testing.T) {
	server := listen(t, "127.0.0.1:0")
	client := dial(t, server)
	r := server.Reader(4, 16)
	ended := make(chan error)
	read := func() {
		_, err := r.Read()
		ended <- err
	}
	go read()
	if err := server.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if _, err := client.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if n := r.ReadNow(); n != 1 {
		t.Errorf("after the deadline %d can be read, want 1", n)
	}
	if err := server.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go read()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if n := r.ReadNow(); n != 0 {
		t.Errorf("after Close: %d", n)
	}
	for name, err := range map[string]error{
		"SendTo":  server.SendTo(client.LocalAddr(), []byte("x")),
		"Control": server.Control(func(int) error { return nil }),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if server.Close() == nil {
		t.Error("Close twice: no error")
	}
}

// TestRefused: the answer of a host where nobody listens comes with a later call.
func TestRefused(t *testing.T) {
	server := listen(t, "127.0.0.1:0")
	client := dial(t, server)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	w := client.Writer(1)
	if _, err := w.Write([][]byte{[]byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reader(1, 16).Read(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("reading: %v", err)
	}
}
