package mirror

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"siptraced/cmd/siptraced/internal/datagram"
	"siptraced/cmd/siptraced/internal/spool"
)

const (
	// sendBatch is how many datagrams one system call sends at the most: many at once
	// are more than the buffer of a receiver with the kernel's defaults holds.
	sendBatch = 16
	// The largest payload of a datagram (RFC 768, RFC 8200).
	maxUDP4 = 65507
	maxUDP6 = 65527
	// refusedTries is how often a datagram is tried again: an error of the one
	// before it comes back with the next system call.
	refusedTries = 3
)

// datagrams gathers datagrams for one system call, sendmmsg(2).
type datagrams struct {
	socket  *datagram.Socket
	writer  *datagram.Writer
	most    int // bytes in one datagram
	data    []byte
	ends    []int // of each datagram in data
	records []int // that they belong to
	bufs    [sendBatch][]byte
	refused bool // nobody listens there
	err     error
}

func newDatagrams(s *datagram.Socket) (*datagrams, error) {
	d := &datagrams{socket: s, writer: s.Writer(sendBatch), most: maxUDP4}
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if !s.RemoteAddr().Addr().Is4() {
		d.most = maxUDP6
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	return d, s.Control(func(fd int) error { return unix.SetsockoptInt(fd, level, option, 1) })
}

// maxErrors bounds the ICMP errors that are read at once.
const maxErrors = 64

// icmp counts the ICMP errors that came in. They are read from the socket's
// error queue (ip(7), IP_RECVERR): sendmmsg keeps an error to itself that
// strikes in the middle of a batch.
func (d *datagrams) icmp() (n uint64) {
	var buf, control [512]byte
	_ = d.socket.Control(func(fd int) error {
		for n < maxErrors {
			if _, _, _, _, err := unix.Recvmsg(fd, buf[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	d.refused = d.refused || n > 0
	return n
}

func (d *datagrams) add(record int, p []byte) {
	d.data = append(d.data, p...)
	d.ends, d.records = append(d.ends, len(d.data)), append(d.records, record)
}

// flush sends what was gathered, and calls bad for each record of which a
// datagram was not taken.
func (d *datagrams) flush(bad func(record int, o outcome)) {
	start := 0
	for i, end := range d.ends {
		d.bufs[i] = d.data[start:end:end]
		start = end
	}
	tries := 0
	for at := 0; at < len(d.ends); {
		n, err := d.writer.Write(d.bufs[at:len(d.ends)])
		if n > 0 {
			at, tries = at+n, 0
		}
		if err == nil || at == len(d.ends) {
			continue
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			// ICMP's answer to an earlier datagram.
			if tries < refusedTries {
				tries++
				continue
			}
		}
		o := failed
		if errors.Is(err, syscall.EMSGSIZE) {
			o = tooLarge
		} else {
			d.err = err
		}
		bad(d.records[at], o)
		at, tries = at+1, 0
	}
	d.data, d.ends, d.records = d.data[:0], d.ends[:0], d.records[:0]
}

// udpWriter sends batches as datagrams (spool.Writer). They are done when the
// kernel took them: over UDP nobody knows more.
type udpWriter struct {
	connection
	*datagrams
	what      []outcome
	answering *answering
	bare      time.Time // when the last datagram without a path was sent
}

func newUDPWriter(c *net.UDPConn, conn connection) (*udpWriter, error) {
	s, err := datagram.Take(c)
	if err != nil {
		return nil, err
	}
	d, err := newDatagrams(s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &udpWriter{connection: conn, datagrams: d, answering: answer(s)}, nil
}

// Write sends a batch.
func (w *udpWriter) Write(_ context.Context, b *spool.Batch) error {
	if err := w.begin(); err != nil {
		return err
	}
	// A record with two datagrams may have lost its first one before it is noted.
	late, bare, size := sent, false, 0
	bad := func(record int, o outcome) {
		if record < len(w.what) {
			w.what[record] = max(w.what[record], o)
		} else {
			late = o
		}
	}
	var err error
	w.what, err = w.encode(b, w.what[:0], func(i int, p []byte) (outcome, error) {
		if len(p) > w.most {
			return tooLarge, nil
		}
		late = sent
		if len(w.ends) == sendBatch {
			w.flush(bad)
		}
		w.add(i, p)
		size += len(p)
		bare = bare || !w.encoder.marked
		return late, nil
	})
	if err != nil {
		return err
	}
	w.flush(bad)
	w.sink.bytes.Add(uint64(size))
	if bare {
		w.bare = time.Now()
	}
	var n [outcomes]int
	for _, o := range w.what {
		n[o]++
	}
	for o, n := range n {
		w.count(outcome(o), n)
	}
	b.Done()
	return nil
}

// Flush looks whether somebody else has to be tried: the name has other
// addresses now, nobody listens, or the kernel takes nothing.
func (w *udpWriter) Flush(context.Context) error {
	w.sink.refused.Add(w.icmp())
	addrs := w.sink.resolver.Load().get()
	switch {
	case w.refused && len(addrs) > 1:
		w.turn++
		return syscall.ECONNREFUSED
	case w.err != nil:
		return w.err
	case !slices.Contains(addrs, w.remote):
		return spool.ErrReopen
	}
	w.refused = false
	return w.begin()
}

// Close ends the socket.
func (w *udpWriter) Close() error {
	w.sink.m.sockets.remove(w.local)
	return w.answering.close(w.bare)
}
