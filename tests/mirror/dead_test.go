package mirror

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestDead has destinations that are no good beside one that lives: names that do
// not resolve, an address that takes connections and nothing else, and some that
// do not even take connections. The live one and the database must not be later
// for it: the same messages go by turns to one daemon with the dead destinations
// and to one without.
func TestDead(t *testing.T) {
	t.Parallel()
	const rounds, size = 10, 100
	dead := []string{
		"sip:collector.nowhere.invalid:9060;transport=tcp;name=name", "sip:other.nowhere.invalid;name=name-udp",
		fmt.Sprintf("sip:%s;transport=tcp;name=silent", silent(t)), fmt.Sprintf("sip:%s;transport=tcp;name=full", full(t)),
		fmt.Sprintf("sip:%s;transport=tls;name=full-tls", full(t)),
		fmt.Sprintf("sip:127.0.0.1:%d;name=nobody", servers.FreePort(t)),
	}
	type side struct {
		d      *daemon
		sink   *vectors.Sink
		feeder *vectors.UDPFeeder
		sent   map[string]time.Time // by message
		rows   []time.Duration      // from the last message of a round to its row
	}
	var sides [2]*side
	for i := range sides {
		s := &side{sink: collect(t, "udp", "127.0.0.1"), sent: map[string]time.Time{}}
		destinations := []string{uri(s.sink, "udp") + ";name=live"}
		if i == 0 {
			destinations = append(destinations, dead...)
		}
		// What can't be delivered need not be waited for in the end.
		s.d = start(t, options{yaml: "destinations: [" + quoted(destinations...) + "]\n"})
		var err error
		if s.feeder, err = vectors.NewUDPFeeder(s.d.addr); err != nil {
			t.Fatal(err)
		}
		defer s.feeder.Close()
		sides[i] = s
	}
	list := load.Calls(rounds*size, time.Now().Add(-time.Hour))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for round := range rounds {
		for _, m := range list[round*size : (round+1)*size] {
			for _, s := range sides {
				s.sent[m.Payload] = time.Now()
				if err := s.feeder.Send(ctx, m.Packet); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Millisecond)
		}
		last := time.Now()
		servers.WaitFor(t, patience, "the rows of a round", func() bool {
			done := 0
			for _, s := range sides {
				if len(s.rows) == round && s.d.table.number("SELECT COUNT(*) FROM sip_trace") == (round+1)*size {
					s.rows = append(s.rows, time.Since(last))
				}
				done += len(s.rows)
			}
			return done == 2*(round+1)
		})
	}
	var arrival, row [2]time.Duration
	for i, s := range sides {
		await(t, s.d, len(list), s.sink)
		var delays []time.Duration
		for _, r := range s.sink.Received() {
			p, err := vectors.Decode(r.Packet)
			if err != nil {
				t.Fatal(err)
			}
			delays = append(delays, r.At.Sub(s.sent[string(p.Payload)]))
		}
		slices.Sort(delays)
		slices.Sort(s.rows)
		arrival[i], row[i] = delays[len(delays)/2], s.rows[rounds/2]
	}
	t.Logf("median of %d messages: at the live one after %v with the dead ones, %v without; in the database after %v and %v", len(list), arrival[0], arrival[1], row[0], row[1])
	for what, d := range map[string][2]time.Duration{"the live one": arrival, "the database": row} {
		if ratio := d[0].Seconds() / d[1].Seconds(); ratio > 3 {
			t.Errorf("dead destinations make %s %.1f times as late: %v against %v", what, ratio, d[0], d[1])
		}
	}
	c := sides[0].d.CountersNow(t)
	// Of the silent one, the kernel took a little; over UDP nothing is kept back.
	for name, places := range map[string][]string{
		"name": {"pending"}, "full": {"pending"}, "full-tls": {"pending"}, "silent": {"pending", "sent"},
		"name-udp": {"pending", "failed"}, "nobody": {"sent", "failed"},
	} {
		var got int64
		for _, p := range places {
			got += c["mirror."+name+"."+p]
		}
		if got != int64(len(list)) {
			t.Errorf("%s: %d %s, want %d (%v)", name, got, strings.Join(places, " or "), len(list), c)
		}
	}
	if c["mirror.nobody.refused"] == 0 {
		t.Errorf("no refusal counted where nobody listens: %v", c)
	}
	for _, s := range sides {
		s.d.stop(t)
		got, err := payloads(closed(t, s.sink))
		if err != nil {
			t.Error(err)
		}
		report(t, "the live one", inOrder(list, got))
		report(t, "database", inOrder(list, messagesOf(s.d.table.rows(t))))
	}
}

func quoted(list ...string) string {
	text := ""
	for _, s := range list {
		text += fmt.Sprintf("%q, ", s)
	}
	return text
}

// silent is the address of a socket that takes connections and reads nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if err := c.(*net.TCPConn).SetReadBuffer(1); err != nil {
				t.Error(err)
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return l.Addr().String()
}

// full is the address of a socket whose backlog is full and stays so: the kernel
// answers no further connection.
func full(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	port := servers.FreePort(t)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for range 8 {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		cancel()
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("a backlog of no connections takes eight")
	return ""
}
