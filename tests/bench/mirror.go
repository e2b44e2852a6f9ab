package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"siptraced/tests/servers"
)

// mirrors measures how fast messages go onwards as HEP3, and at what cost, to one
// and to four destinations, over UDP and TCP. They come in over TCP as fast as
// they are taken; nothing is stored.
func mirrors(b *bench) {
	n := b.opt.messages
	t := table{
		title: fmt.Sprintf("%d messages mirrored as HEP3", n),
		head:  []string{"over", "destinations", "round", "messages/s", "packets/s out", "CPU s/100k", "arrived %", "peak MiB", "others %"},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, count := range []int{1, 4} {
			var rates, cpus []float64
			b.repeat(func() (float64, bool) {
				m := b.mirror(network, count, n)
				rates, cpus = append(rates, m.rate), append(cpus, m.cpu)
				t.add(network, count, len(rates), m.rate, m.rate*float64(count), m.cpu, m.arrived, m.peak, m.others)
				return m.others, true
			})
			name := fmt.Sprintf("HEP3 over %s to %d", network, count)
			b.add("-", name, median(rates), "messages/s")
			b.add("-", name+", CPU", median(cpus), "s/100000 messages")
		}
	}
	t.print(b.out)
}

// mirrored is one run.
type mirrored struct{ rate, cpu, arrived, peak, others float64 }

func (b *bench) mirror(network string, count, n int) (m mirrored) {
	b.Helper()
	b.section(func() {
		var sinks []*counter
		var uris []string
		for range count {
			s, err := newCounter(network)
			if err != nil {
				b.Fatal(err)
			}
			defer s.close()
			sinks = append(sinks, s)
			uris = append(uris, fmt.Sprintf("sip:%s;transport=%s;protocol=hep3", s.addr, network))
		}
		d := b.siptraced("", "--set", "siptrace.trace_to_database=0", "--set", "destinations="+strings.Join(uris, ","))
		feed, err := newTraffic(prepared)
		if err != nil {
			b.Fatal(err)
		}
		b.waitQuiet()
		before, err := d.cpu()
		if err != nil {
			b.Fatal(err)
		}
		other, begin := newStrangers(), time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		if err := feedTCP(ctx, d.addr, feed, n); err != nil {
			b.Fatalf("%v\n%s", err, d.Tail(20))
		}
		var c servers.Counters
		servers.WaitFor(b, 10*time.Minute, "all to be mirrored", func() bool {
			time.Sleep(50 * time.Millisecond)
			c = d.CountersNow(b)
			return !d.Running() || sum(c, "pending") == 0
		})
		took := time.Since(begin).Seconds()
		after, err := d.cpu()
		if err != nil {
			b.Fatal(err)
		}
		if m.peak, err = d.memory("VmHWM"); err != nil {
			b.Fatal(err)
		}
		m.rate, m.cpu, m.others = float64(n)/took, per100k(after-before, float64(n)), other.share(after-before)
		if sent := sum(c, "sent"); sent != int64(n*count) {
			b.Errorf("sent %d, want %d: %v", sent, n*count, c)
		}
		d.stop()
		var got int64
		for _, s := range sinks {
			s.close()
			got += s.bytes
		}
		m.arrived = 100 * float64(got) / float64(sum(c, "bytes"))
		if network == "tcp" && m.arrived != 100 {
			b.Errorf("%.3f %% of the bytes arrived", m.arrived)
		}
	})
	return m
}

// sum adds a counter over all mirrors.
func sum(c servers.Counters, name string) (n int64) {
	for _, m := range c.Mirrors() {
		n += c["mirror."+m+"."+name]
	}
	return n
}

// counter is a destination that counts bytes.
type counter struct {
	addr  string
	bytes int64 // when it is closed
	stop  func()
	once  sync.Once
	done  sync.WaitGroup
}

func newCounter(network string) (*counter, error) {
	s := &counter{}
	if network == "udp" {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		_ = c.SetReadBuffer(8 << 20)
		s.addr, s.stop = c.LocalAddr().String(), func() { c.Close() }
		s.done.Go(func() {
			buf := make([]byte, 1<<16)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				s.bytes += int64(n)
			}
		})
		return s, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr, s.stop = l.Addr().String(), func() { l.Close() }
	s.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, c)
			s.bytes += n
			c.Close()
		}
	})
	return s, nil
}

func (s *counter) close() {
	s.once.Do(func() {
		s.stop()
		s.done.Wait()
	})
}
