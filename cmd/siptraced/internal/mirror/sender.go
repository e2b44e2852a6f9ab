package mirror

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// sender makes packets of what the spool holds for one destination. The
// Consumer's goroutine owns it.
type sender struct {
	sink    *sink
	encoder encoder
	decoder spool.Decoder
	buf     []byte
	streams []stretch // of each shard, what is sent now; nil: packets have no numbers
	begun   []uint64  // the last batch of each shard that was begun

	turn       int // of the addresses, the one in use
	portLogged bool
	warnedAt   [outcomes]time.Time

	// same are URIs as rules wrote them, and whether they name the destination of
	// these settings.
	same   map[string]bool
	sameAs *Destination
}

// Name is the sink's name (spool.Sink).
func (w *sender) Name() string { return w.sink.name }

// maxRecordBits is room for the number of a record in its batch, which has no
// more than 64 MiB.
const maxRecordBits = 20

// stretch is a timeline of a shard, and the number of its stream at the peer, which
// knows by it a packet that is sent again. What a copy of the spool takes in has
// another one.
type stretch struct {
	timeline string
	number   uint64
}

// setStreams decides whether packets have numbers: datagrams are not sent again.
func (w *sender) setStreams(d *Destination, shards []spool.Shard) {
	if w.streams = nil; w.sink.m.loops != nil && d.Stream() {
		w.streams = make([]stretch, len(shards))
	}
	if w.begun == nil {
		w.begun = make([]uint64, len(shards))
	}
}

// stream is the number of the stream that a batch is of, 0 for none: where other
// processes consume its shard, batches come from several of them, in any order.
func (w *sender) stream(b *spool.Batch) uint64 {
	if w.streams == nil || b.Contended {
		return 0
	}
	s := &w.streams[b.Shard]
	if s.number == 0 || s.timeline != b.Timeline {
		*s = stretch{b.Timeline, loop.Stream(w.sink.name, b.Timeline)}
	}
	return s.number
}

// Open waits for an address and connects to it (spool.Sink).
func (w *sender) Open(ctx context.Context, shards []spool.Shard) (spool.Writer, error) {
	d := w.sink.settings.Load()
	w.setStreams(d, shards)
	addrs, err := w.sink.resolver.Load().await(ctx)
	if err != nil {
		return nil, err
	}
	c, err := w.dial(ctx, d, addrs)
	if err != nil {
		w.turn++
		w.sink.resolver.Load().refresh() // the host may have moved
		return nil, err
	}
	conn := connection{sender: w, settings: d, local: addrOf(c.LocalAddr()), remote: addrOf(c.RemoteAddr())}
	var wr spool.Writer
	if d.Stream() {
		wr, err = newStreamWriter(c, conn)
	} else {
		wr, err = newUDPWriter(c.(*net.UDPConn), conn)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	w.sink.m.sockets.add(conn.local)
	w.sink.connects.Add(1)
	return wr, nil
}

// connection is what a Writer knows of its connection.
type connection struct {
	*sender
	settings      *Destination // those that it was opened with
	local, remote netip.AddrPort
}

// begin takes the settings of this moment for the next batch. It returns
// spool.ErrReopen when they want another connection.
func (c *connection) begin() error {
	d := c.sink.settings.Load()
	if d != c.settings {
		if !sameConnection(d, c.settings) {
			return spool.ErrReopen
		}
		c.settings = d
	}
	c.encoder.dst, c.encoder.local, c.encoder.remote, c.encoder.toSiptraced = d, c.local, c.remote, false
	return nil
}

// sameConnection reports whether two settings can share a connection.
func sameConnection(a, b *Destination) bool {
	return a.Target == b.Target && a.Local == b.Local && a.Ack == b.Ack && (a.Transport != siptrace.TLS || sameTLS(a.TLS, b.TLS))
}

// sameTLS compares what the settings of a destination say of TLS.
func sameTLS(a, b *tls.Config) bool {
	sameCertificate := func(a, b tls.Certificate) bool {
		return slices.EqualFunc(a.Certificate, b.Certificate, slices.Equal[[]byte])
	}
	sameRoots := a.RootCAs == b.RootCAs || a.RootCAs != nil && b.RootCAs != nil && a.RootCAs.Equal(b.RootCAs)
	return sameRoots && a.ServerName == b.ServerName && a.MinVersion == b.MinVersion && a.InsecureSkipVerify == b.InsecureSkipVerify &&
		slices.EqualFunc(a.Certificates, b.Certificates, sameCertificate)
}

// takes reports whether a record is meant for the destination.
func (w *sender) takes(d *Destination, rec *siptrace.Record) bool {
	switch {
	case d.Static:
		return rec.Sinks&siptrace.ToListed != 0
	case rec.Sinks&(siptrace.ToHEP|siptrace.ToSIP) == 0:
		return false
	case rec.Destinations == nil:
		return d.Duplicate
	}
	return slices.ContainsFunc(rec.Destinations, func(uri string) bool { return w.names(d, uri) })
}

// maxSame bounds the URIs that are remembered.
const maxSame = 256

// names reports whether a URI names the destination, in whatever way it is
// written.
func (w *sender) names(d *Destination, uri string) bool {
	if uri == d.URI {
		return true
	}
	if w.sameAs != d || len(w.same) >= maxSame {
		w.same, w.sameAs = map[string]bool{}, d
	}
	same, ok := w.same[uri]
	if !ok {
		t, _, err := ParseTarget(uri)
		same = err == nil && t == d.Target
		w.same[uri] = same
	}
	return same
}

// skip counts the records of a batch that has nothing for the destination
// (spool.Options).
func (w *sender) skip(b *spool.Batch) bool {
	d, found := w.sink.settings.Load(), false
	_ = w.decoder.Each(b, func(rec *siptrace.Record, _ []byte) error {
		found = found || w.takes(d, rec)
		return nil
	})
	if !found {
		w.sink.counts[skipped].Add(uint64(b.Records - b.Settled()))
	}
	return !found
}

// expired counts the records of a batch that are not settled and never will be
// (spool.Options).
func (w *sender) expired(b *spool.Batch, cause error) {
	o := expired
	if errors.Is(cause, spool.ErrDiscard) {
		o = failed
	}
	w.count(o, b.Records-b.Settled())
}

// warnInterval is how often one cause is logged.
const warnInterval = time.Minute

// count counts what became of n records.
func (w *sender) count(o outcome, n int) {
	w.sink.counts[o].Add(uint64(n))
	if o < tooLarge || n == 0 || time.Since(w.warnedAt[o]) < warnInterval {
		return
	}
	w.warnedAt[o] = time.Now()
	w.sink.log.Warn("mirror: messages are not sent", "cause", countNames[o], "so_far", w.sink.counts[o].Load())
}

// encode makes the packets of a batch, from its first record that is not
// settled on. put gets each packet, with the record's number from there on. The
// outcomes of the records are appended to what.
func (w *sender) encode(b *spool.Batch, what []outcome, put func(record int, p []byte) (outcome, error)) ([]outcome, error) {
	first, i := b.Settled(), 0
	w.encoder.uncounted = w.uncounted(b)
	w.encoder.stream = w.stream(b)
	var stopped error
	err := w.decoder.Each(b, func(rec *siptrace.Record, _ []byte) error {
		i++
		if i <= first {
			return nil
		}
		w.encoder.number = b.Seq<<maxRecordBits | uint64(i)
		o, err := w.encodeRecord(rec, len(what), put)
		if err != nil {
			stopped = err
			return err
		}
		what = append(what, o)
		return nil
	})
	if stopped != nil {
		return what, stopped
	}
	if err != nil {
		w.sink.log.Error("mirror: a damaged batch, what follows the damage is lost", "err", err)
	}
	for len(what) < b.Records-first {
		what = append(what, failed)
	}
	return what, nil
}

// uncounted reports whether MarkedCopies leaves out what is sent of a batch now: it
// is from before the destination was counted, somebody else took it in, or it is
// sent again.
func (w *sender) uncounted(b *spool.Batch) bool {
	again := b.Seq <= w.begun[b.Shard]
	w.begun[b.Shard] = max(b.Seq, w.begun[b.Shard])
	return again || b.Contended || b.Age() > time.Since(w.encoder.dst.marks)
}

func (w *sender) encodeRecord(rec *siptrace.Record, i int, put func(int, []byte) (outcome, error)) (outcome, error) {
	if !w.takes(w.encoder.dst, rec) {
		return skipped, nil
	}
	asHEP, asSIP := w.encoder.want(rec)
	if !asHEP && !asSIP {
		return skipped, nil
	}
	if !w.encoder.pass(rec) {
		return filtered, nil
	}
	all := sent
	if asHEP {
		var err error
		if w.buf, err = w.encoder.appendHEP(w.buf[:0], rec); err != nil {
			if all = failed; errors.Is(err, hep.ErrTooLarge) {
				all = tooLarge
			}
		} else {
			w.encoder.note(rec, w.encoder.marked)
			if all, err = put(i, w.buf); err != nil {
				return all, err
			}
		}
	}
	if asSIP {
		w.encoder.marked = false
		w.encoder.note(rec, false)
		w.buf = w.encoder.appendSIP(w.buf[:0], rec)
		o, err := put(i, w.buf)
		if err != nil {
			return o, err
		}
		all = max(all, o)
	}
	return all, nil
}
