package loop

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/xheaders"
)

const (
	// maxAsked is how often a sender is asked, as datagrams get lost, every askAgain.
	// Its packets are parked meanwhile: two seconds, and more where the machine is
	// too busy to ask.
	maxAsked = 20
	askAgain = 100 * time.Millisecond
	// mirrorFor is how long a sender counts as a mirror after its answer. Its port
	// may be somebody else's one day.
	mirrorFor = time.Minute
	// agentFor is how long a sender that did not answer counts as an agent; twice as
	// long each time, up to maxAgentFor.
	agentFor    = 2 * time.Second
	maxAgentFor = time.Hour
	// maxPeers bounds the senders that are remembered, maxParked and maxParkedBytes
	// what is parked for all of them.
	maxPeers       = 4096
	maxParked      = 1 << 15
	maxParkedBytes = 32 << 20
)

// Verdict is what Check says of a packet.
type Verdict uint8

// The verdicts.
const (
	Passed    Verdict = iota
	Returned          // it came from here: drop it
	Parked            // its sender is being asked; the packet comes again
	StoreOnly         // it comes over and over: store it, and mirror it no more
)

// Detector finds messages that come back. Safe for concurrent use.
type Detector struct {
	id      ID
	file    string
	log     *slog.Logger
	cutOff  *atomic.Uint64 // messages that are not mirrored again
	buffers sync.Pool      // *[]byte
	sent    *memory
	laps    *laps
	byPath  notice
	byText  notice
	cut     notice

	parking atomic.Int64  // senders whose packets are parked
	wake    chan struct{} // Run has something to do

	mu     sync.Mutex // covers what follows
	room   sync.Cond  // there may be room for what is parked
	peers  map[netip.AddrPort]*peer
	due    []*peer // releasing, and nobody has begun
	parked int
	bytes  int
}

// peer is a sender of something that may have come from here.
type peer struct {
	state  peerState
	until  time.Time // end of the state
	agent  time.Duration
	ask    func(to netip.AddrPort, b []byte) error
	text   question
	asked  int
	next   time.Time // when to ask again
	parked []*ingest.Packet
	// releasing: the asking has ended, and what was parked is on its way. What comes
	// meanwhile is parked behind it, which keeps the order.
	releasing bool
}

// parks reports whether what the sender sends is parked.
func (p *peer) parks() bool { return p.state == asking || p.releasing }

type peerState uint8

const (
	unknown peerState = iota
	asking
	isMirror
	isAgent
)

// New makes a detector. What may still come back after a restart is kept in file;
// "" keeps nothing.
func New(id ID, file string, c *counters.Set, log *slog.Logger) *Detector {
	d := &Detector{
		id: id, file: file, log: log, cutOff: c.Counter("mirrors.cut_off"), sent: newMemory(), laps: newLaps(),
		buffers: sync.Pool{New: func() any { return new([]byte) }},
		wake:    make(chan struct{}, 1), peers: map[netip.AddrPort]*peer{},
	}
	d.room.L = &d.mu
	if file != "" {
		if err := d.sent.load(file); err != nil {
			log.Warn("loop: what was mirrored before the restart is not known: of that, what comes back is stored again", "file", file, "err", err)
		}
	}
	return d
}

// Close writes down what may still come back. Nothing is sent any more.
func (d *Detector) Close() error {
	if d.file == "" {
		return nil
	}
	return d.sent.save(d.file)
}

// Path appends the path of a message that is sent from here to dst: that with
// which it came, and this instance.
func (d *Detector) Path(dst, path []byte) []byte { return d.id.AppendTo(dst, path) }

// Sent notes that a copy of a message is about to be sent; hasPath: with the path
// of instances.
func (d *Detector) Sent(text []byte, hasPath bool) {
	unit := bareUnit
	if hasPath {
		unit = pathUnit
	}
	d.sent.add(uint64(d.Text(text)), unit, 1)
}

// Sending notes that n copies of a message will be sent with the path of
// instances. Whoever takes it in does so before the spool has it, which costs
// little there: Check has just looked for the same text.
func (d *Detector) Sending(t Text, n int) {
	if n > 0 {
		d.sent.add(uint64(t), pathUnit, uint64(n))
	}
}

// NotSending takes back what Sending noted.
func (d *Detector) NotSending(t Text, n int) {
	for range n {
		d.sent.take(uint64(t), pathUnit)
	}
}

// Text is what is known of the text of a message, a hash.
type Text uint64

// Text is that of a message without the X-Siptrace headers, which may be read and
// cut at one end alone.
func (d *Detector) Text(text []byte) Text {
	if !bytes.Contains(text, []byte("X-Siptrace")) {
		return Text(d.sent.hash(text))
	}
	b := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(b)
	*b = xheaders.Cut((*b)[:0], text)
	return Text(d.sent.hash(*b))
}

// HasPassed reports whether a packet with this path was here before.
func (d *Detector) HasPassed(in *ingest.Packet, path []byte) bool {
	if len(path) == 0 || !d.id.In(path) {
		return false
	}
	if n, due := d.byPath.count(in.Time); due {
		d.log.Warn("loop: messages that were mirrored from here come back and are dropped, by their path", "sender", in.Source.String(), "so_far", n)
	}
	return true
}

// IsOut reports whether anything was sent from here that may come back. What has a
// path is known by that, see HasPassed.
func (d *Detector) IsOut() bool { return d.sent.added.Load() > 0 || d.parking.Load() > 0 }

// Check judges a packet that came in, by its text and its path. It keeps a copy
// of a packet that it parks. The Text is that of a packet that is to be stored.
func (d *Detector) Check(in *ingest.Packet, text, path []byte) (Verdict, Text) {
	if d.HasPassed(in, path) {
		return Returned, 0
	}
	hasPath := len(path) > 0
	if !hasPath && d.parking.Load() > 0 && d.park(in) {
		return Parked, 0
	}
	t := d.Text(text)
	hash := uint64(t)
	switch {
	case !hasPath && d.sent.has(hash):
		return d.suspect(in, hash), t
	case hasPath && d.sent.take(hash, bareUnit):
		// Whoever writes paths is a mirror. What was sent with a path came back with it.
		return d.returned(in), t
	case !hasPath:
		d.laps.first(hash, in.Source)
	}
	return Passed, t
}

// returned counts a packet whose text came back.
func (d *Detector) returned(in *ingest.Packet) Verdict {
	if n, due := d.byText.count(in.Time); due {
		d.log.Warn("loop: messages that were mirrored from here come back and are dropped, by their text", "sender", in.Source.String(), "so_far", n)
	}
	return Returned
}

// park keeps a packet of a sender whose packets are parked.
func (d *Detector) park(in *ingest.Packet) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[in.Source]
	return p != nil && in.Ask != nil && d.keep(p, in)
}

// suspect judges a packet without a path whose text was sent from here.
func (d *Detector) suspect(in *ingest.Packet, hash uint64) Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[in.Source]
	if p == nil {
		if len(d.peers) >= maxPeers && !d.forget(in.Time) {
			return Passed
		}
		p = &peer{agent: agentFor}
		d.peers[in.Source] = p
	}
	if !p.parks() && in.Ask != nil && in.Time.After(p.until) {
		p.state, p.ask, p.text, p.asked, p.next = asking, in.Ask, newQuestion(), 0, time.Time{}
		d.parking.Add(1)
		d.signal()
	}
	switch {
	case in.Ask != nil && d.keep(p, in):
		return Parked
	case p.state == isMirror && (d.sent.take(hash, bareUnit) || d.sent.take(hash, pathUnit)):
		return d.returned(in)
	case p.state != isMirror && d.laps.tooMany(hash, in.Source, in.Time):
		d.cutOff.Add(1)
		if n, due := d.cut.count(in.Time); due {
			d.log.Warn("loop: a sender that is no siptraced returns messages over and over; they are stored, and mirrored no more", "sender", in.Source.String(), "so_far", n)
		}
		return StoreOnly
	}
	return Passed
}

// forget makes room among the senders.
func (d *Detector) forget(now time.Time) bool {
	for addr, p := range d.peers {
		if !p.parks() && now.After(p.until) {
			delete(d.peers, addr)
		}
	}
	return len(d.peers) < maxPeers
}

func (d *Detector) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// keep parks a packet, if its sender's are parked. Without room the sender is asked
// no longer, and the packet waits until some of its sender's are released.
func (d *Detector) keep(p *peer, in *ingest.Packet) bool {
	for p.parks() && (d.parked >= maxParked || d.bytes+len(in.Data) > maxParkedBytes) {
		if p.state == asking {
			d.settle(p, isAgent, in.Time.Add(agentFor))
			d.signal()
		}
		d.room.Wait()
	}
	if !p.parks() {
		return false
	}
	// Without Ask and Reply: it is not parked again, and nobody waits for it.
	p.parked = append(p.parked, &ingest.Packet{Data: bytes.Clone(in.Data), Time: in.Time, Net: in.Net, Source: in.Source, Local: in.Local})
	d.parked++
	d.bytes += len(in.Data)
	return true
}

// settle ends the asking of a sender.
func (d *Detector) settle(p *peer, s peerState, until time.Time) {
	p.state, p.until, p.releasing = s, until, true
	d.due = append(d.due, p)
}

// Answered takes what a sender says when it may have been asked: the body of an
// answer, or the question itself, which whoever reflects everything sends back.
// It reports whether it was asked, and hands the packets that were parked for it
// to handle.
func (d *Detector) Answered(from netip.AddrPort, answer []byte, now time.Time, handle func(*ingest.Packet)) bool {
	if len(answer) != questionSize {
		return false
	}
	d.mu.Lock()
	p := d.peers[from]
	known := p != nil && p.text == question(answer)
	if known {
		if p.state == asking {
			d.settle(p, isMirror, now.Add(mirrorFor))
		} else {
			p.state, p.until = isMirror, now.Add(mirrorFor) // late
		}
		p.agent = agentFor
	}
	d.mu.Unlock()
	d.release(handle)
	return known
}

// Acknowledging is called before a sender gets the acknowledgement that it asked for.
// It hands to handle what is parked of it, and returns when all that is dealt with.
// Who sends SIP and asks for acknowledgements on one stream is a mirror of siptraced.
func (d *Detector) Acknowledging(from netip.AddrPort, now time.Time, handle func(*ingest.Packet)) {
	if d.parking.Load() == 0 {
		return
	}
	d.mu.Lock()
	p := d.peers[from]
	if p != nil && p.state == asking {
		d.settle(p, isMirror, now.Add(mirrorFor))
	}
	d.mu.Unlock()
	d.release(handle)
	d.mu.Lock()
	for p != nil && p.releasing {
		d.room.Wait()
	}
	d.mu.Unlock()
}

// release hands on what is parked for senders that are asked no longer.
func (d *Detector) release(handle func(*ingest.Packet)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.due) > 0 {
		p := d.due[0]
		d.due = d.due[1:]
		for len(p.parked) > 0 {
			batch := p.parked
			p.parked = nil
			for _, in := range batch {
				d.parked--
				d.bytes -= len(in.Data)
			}
			d.room.Broadcast()
			d.mu.Unlock()
			for _, in := range batch {
				handle(in)
			}
			d.mu.Lock()
		}
		p.releasing = false
		d.parking.Add(-1)
		d.room.Broadcast()
	}
}

// Run asks senders, and hands the packets of those that do not answer to handle,
// until ctx ends; then it hands on all that is parked. Nothing may come in once it
// has returned.
func (d *Detector) Run(ctx context.Context, handle func(*ingest.Packet)) {
	tick := time.NewTimer(askAgain)
	defer tick.Stop()
	for {
		ended := ctx.Err() != nil
		d.question(time.Now(), ended)
		d.release(handle)
		if ended {
			return
		}
		if d.parking.Load() > 0 {
			tick.Reset(askAgain)
		} else {
			tick.Stop()
		}
		select {
		case <-d.wake:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// question asks whoever is to be asked, and gives up on those that do not answer;
// all: on everybody.
func (d *Detector) question(now time.Time, all bool) {
	type one struct {
		to  netip.AddrPort
		ask func(netip.AddrPort, []byte) error
		q   question
	}
	var list []one
	d.mu.Lock()
	for addr, p := range d.peers {
		switch {
		case p.state != asking || !all && now.Before(p.next):
		case all || p.asked == maxAsked:
			d.settle(p, isAgent, now.Add(p.agent))
			p.agent = min(2*p.agent, maxAgentFor)
		default:
			p.asked++
			p.next = now.Add(askAgain)
			list = append(list, one{addr, p.ask, p.text})
		}
	}
	d.mu.Unlock()
	for _, o := range list {
		// Whether it gets there shows when it answers.
		_ = o.ask(o.to, o.q[:])
	}
}
