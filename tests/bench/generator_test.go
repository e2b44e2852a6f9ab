package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// sink is a UDP socket that hands on what it reads until the test ends.
func sink(t *testing.T, f func(conn net.PacketConn, from net.Addr, b []byte)) (addr string, stop func()) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read: %v", err)
				}
				return
			}
			f(conn, from, buf[:n])
		}
	}()
	stop = func() {
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		<-done
		_ = conn.Close()
	}
	return conn.LocalAddr().String(), stop
}

func TestSend(t *testing.T) {
	received, probes := 0, 0
	var last time.Duration
	addr, stop := sink(t, func(_ net.PacketConn, _ net.Addr, b []byte) {
		received++
		id := header(string(b), "Call-ID")
		if !strings.HasPrefix(id, probePrefix) {
			return
		}
		n, since, err := parseProbe(id)
		if err != nil || n != probes || since < last {
			t.Errorf("probe %d: got %d, %v, %v", probes, n, since, err)
		}
		probes, last = n+1, since
	})
	o := order{To: addr, Length: 500 * time.Millisecond, Rate: 4000, Probes: 100, Epoch: time.Now().UnixMicro()}
	out, err := o.run()
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if received != out.Sent || probes != out.Probes {
		t.Errorf("sent %d with %d probes, received %d with %d", out.Sent, out.Probes, received, probes)
	}
	// A busy machine can only keep it below the rate.
	if most := 4000/2 + 4000*slack.Seconds() + burst; float64(out.Sent) > most || out.Sent == 0 {
		t.Errorf("sent %d messages in %v at %d/s", out.Sent, o.Length, o.Rate)
	}
	if want := out.Sent/40 + 1; out.Probes < want-1 || out.Probes > want {
		t.Errorf("%d probes in %d messages, want %d", out.Probes, out.Sent, want)
	}
}

func TestPace(t *testing.T) {
	start := time.Now()
	p := &pace{rate: 10000, start: start}
	at := func(d time.Duration) time.Time { return start.Add(d) }
	steps := []struct {
		after      time.Duration
		want, sent int
	}{
		{0, 0, 0},
		{time.Millisecond, 10, 10},
		{2 * time.Millisecond, 10, 4}, // not all of them
		{3 * time.Millisecond, 16, 16},
		{time.Second, 200, 200}, // held up: only the slack is made up for
		{time.Second, 0, 0},
		{time.Second + time.Millisecond, 10, 10},
	}
	for i, s := range steps {
		if got := p.due(at(s.after)); got != s.want && got != s.want-1 {
			t.Errorf("step %d: got %d due, want %d", i, got, s.want)
		}
		p.sent(s.sent)
	}
}

func TestAsk(t *testing.T) {
	for _, tt := range []struct {
		name string
		loss float64
	}{{"all answered", 0}, {"some lost", 0.02}} {
		t.Run(tt.name, func(t *testing.T) {
			seen := map[string]bool{}
			answered := 0
			addr, stop := sink(t, func(conn net.PacketConn, from net.Addr, b []byte) {
				text := string(b)
				_, body, _ := strings.Cut(text, "\r\n\r\n")
				if id := header(text, "Call-ID"); seen[id] || len(body) != bodySize || !strings.HasPrefix(text, "MESSAGE sip:") {
					t.Errorf("request %q", text)
				} else {
					seen[id] = true
				}
				if rand.Float64() < tt.loss {
					return
				}
				answered++
				if _, err := conn.WriteTo([]byte("SIP/2.0 200 OK\r\n\r\n"), from); err != nil {
					t.Error(err)
				}
			})
			out, err := order{To: addr, Length: 300 * time.Millisecond, Window: 8}.run()
			if err != nil {
				t.Fatal(err)
			}
			stop()
			if out.Answered != answered || out.Sent != len(seen) || out.Sent < 8 {
				t.Errorf("sent %d, %d arrived; %d answers read, %d sent", out.Sent, len(seen), out.Answered, answered)
			}
			if tt.loss == 0 && out.Answered != out.Sent {
				t.Errorf("%d of %d answered, want all", out.Answered, out.Sent)
			}
		})
	}
}

// collector stands in for siptraced's TCP socket.
func collector(t *testing.T, f func(c net.Conn, packet []byte) error) (addr string, wait func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ended := make(chan error, 1)
	go func() {
		ended <- func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			head := make([]byte, 6)
			for {
				if _, err := io.ReadFull(c, head); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				p := append(bytes.Clone(head), make([]byte, int(binary.BigEndian.Uint16(head[4:]))-len(head))...)
				if _, err := io.ReadFull(c, p[len(head):]); err != nil {
					return err
				}
				if err := f(c, p); err != nil {
					return err
				}
			}
		}()
	}()
	return l.Addr().String(), func() error { return <-ended }
}

func TestFeed(t *testing.T) {
	const n = 12345
	messages, alive := 0, uint32(0)
	addr, wait := collector(t, func(c net.Conn, p []byte) error {
		if len(p) != len(keepAlive(0)) {
			messages++
			return nil
		}
		if got := keepAliveNumber(p); got != alive {
			t.Errorf("keep-alive %d, want %d", got, alive)
		}
		alive++
		_, err := c.Write(p)
		return err
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := feedTCP(ctx, addr, newTestTraffic(t, prepared), n); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if messages != n || alive != 3 {
		t.Errorf("got %d messages and %d keep-alives, want %d and 3", messages, alive, n)
	}
}

// TestFeedNotTaken is a collector that ends without an acknowledgement.
func TestFeedNotTaken(t *testing.T) {
	gone := errors.New("gone")
	addr, wait := collector(t, func(_ net.Conn, p []byte) error {
		if len(p) == len(keepAlive(0)) {
			return gone
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := feedTCP(ctx, addr, newTestTraffic(t, prepared), 1000); err == nil {
		t.Error("no error although nothing was acknowledged")
	}
	if err := wait(); !errors.Is(err, gone) {
		t.Errorf("collector: %v", err)
	}
}
