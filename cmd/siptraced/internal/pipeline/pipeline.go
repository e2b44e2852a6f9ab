// Package pipeline takes a packet from its bytes to the spool: decode, the
// module's rules, record. Every packet ends in exactly one counted place:
// rejected, dropped or spooled.
//
//	p := pipeline.New(rules, spool, counters.New())
//	p.Handle(&packet)   // from any goroutine
//	p.SetRules(rules)   // while it runs
//	p.Emit(&rec)        // what was not received: a log line, a message of the operator's
//
// What it leaves out: sockets (package ingest) and sinks.
package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
	"siptraced/hep"
	"siptraced/xheaders"
)

// Spool takes copies of records, and says when they are safe.
type Spool interface {
	Put(rec *siptrace.Record) error
	Mark() uint64
	Sync(ctx context.Context, mark uint64) error
}

// Rules are what the configuration says about every message.
type Rules struct {
	Params  siptrace.Params
	Own     *siptrace.Sockets
	Routing siptrace.Routing
	// NewDecision makes what decides on messages; nil: all are treated alike.
	NewDecision func() Decision
	// Mirrors is where messages go onwards; nil: nowhere.
	Mirrors Mirrors
}

// Mirrors are the destinations of what is mirrored onwards.
type Mirrors interface {
	// EnsureDestination gets the URI of a destination that a rule named, before the
	// record goes to the spool. It does no I/O.
	EnsureDestination(uri string)
	// IsOwnSocket reports whether mirrors are sent from that address.
	IsOwnSocket(netip.AddrPort) bool
	// MarkedCopies is how many copies of a record will be sent with the path of
	// instances.
	MarkedCopies(rec *siptrace.Record) int
}

// Decision decides on messages (package rules), one after the other. It belongs
// to one goroutine at a time.
type Decision interface {
	// Decide may set Route and CorrelationID of rec: Users in row order, the row
	// without a user left out. Any outcome but Spooled ends the message; trace_on is
	// asked afterwards. The message gave rise to further records, which go before
	// it, since most of them came before it. All is valid until the next call.
	Decide(rec *siptrace.Record, msg *sipmsg.Message) (o counters.Outcome, further []siptrace.Record)
}

// Pipeline is the way of a message into the spool.
type Pipeline struct {
	rules atomic.Pointer[state]
	spool Spool
	work  sync.Pool

	outcomes                     *counters.Outcomes
	trailing, padded             *atomic.Uint64
	acknowledged, unacknowledged *atomic.Uint64
	requests, replies            *atomic.Uint64
	made                         *atomic.Uint64
	defects                      defects

	pairs atomic.Pointer[pairs] // made when they are needed
	// Loops knows what was mirrored from here and comes back; nil: nothing is looked
	// for. Streams knows deliveries that are repeated; nil: likewise.
	Loops   *loop.Detector
	Streams *loop.Streams
	// Rejects takes what was refused for its X-Siptrace headers; nil: nobody.
	Rejects *rejects.File
	// Sources are the senders of what was read.
	Sources Sources
}

// state is the rules in the form that Handle uses.
type state struct {
	Rules
	builder siptrace.Builder
	// pairs: the proxy mirrors each message by HEP and as SIP. watch: something may
	// be mirrored onwards, and come back.
	pairs, watch bool
}

// put sends a record on its way; text is what Loops knows of its message.
func (p *Pipeline) put(st *state, rec *siptrace.Record, text loop.Text) counters.Outcome {
	if rec.Sinks == 0 {
		return counters.NoSink
	}
	if st.Mirrors != nil && rec.Sinks&siptrace.Mirrored != 0 {
		for _, d := range rec.Destinations {
			st.Mirrors.EnsureDestination(d)
		}
		if p.Loops != nil {
			p.Loops.Sending(text, st.Mirrors.MarkedCopies(rec))
		}
	}
	if err := p.spool.Put(rec); err != nil {
		p.Refused(rec)
		return p.rejected(err, "spool")
	}
	return counters.Spooled
}

// Refused takes back what Streams and Loops were told of a record: the spool did
// not take it.
func (p *Pipeline) Refused(rec *siptrace.Record) {
	if p.Streams != nil {
		p.Streams.Refused(rec.Origin)
	}
	if m := p.rules.Load().Mirrors; m != nil && p.Loops != nil {
		p.Loops.NotSending(p.Loops.Text(rec.Msg), m.MarkedCopies(rec))
	}
}

// work is the memory for one message.
type work struct {
	packet  hep.Packet
	msg     sipmsg.Message
	headers xheaders.Headers
	capture siptrace.Capture
	record  siptrace.Record
	ends    siptrace.EndpointCache
	cut     []byte
	vendor  []byte // chunks of other vendors
	users   [][]byte
	source  *source // of the last packet
	// There are bytes behind the packet, NULs behind the message.
	trailing, padded bool
	// decision is what decides by the rules of state.
	decision Decision
	state    *state
}

// New makes a pipeline into a spool.
func New(r Rules, s Spool, c *counters.Set) *Pipeline {
	p := &Pipeline{
		spool: s, work: sync.Pool{New: func() any { return new(work) }},
		outcomes: c.Outcomes(),
		trailing: c.Counter("accepted.hep_trailing"),
		padded:   c.Counter("accepted.hep_padded"),
		// Of the keep-alives over streams.
		acknowledged:   c.Counter("keepalives.acknowledged"),
		unacknowledged: c.Counter("keepalives.unacknowledged"),
		// The module's own statistics.
		requests: c.Counter("traced_requests"),
		replies:  c.Counter("traced_replies"),
		// Records beside those received: copies of messages looked back at, log lines.
		made:    c.Counter("made"),
		defects: newDefects(c),
	}
	p.SetRules(r)
	return p
}

// SetRules replaces the rules for the messages that come from now on.
func (p *Pipeline) SetRules(r Rules) {
	st := &state{
		Rules:   r,
		builder: siptrace.Builder{Own: r.Own, LocalIP: siptrace.TextEndpoint(r.Params.LocalIP())},
		pairs:   r.Params.TraceMode&(siptrace.ModeHEP|siptrace.ModeSIP) == siptrace.ModeHEP|siptrace.ModeSIP,
		watch:   r.Mirrors != nil && (r.Routing.Onwards || r.NewDecision != nil),
	}
	if st.pairs {
		p.pairs.CompareAndSwap(nil, newPairs())
	}
	p.rules.Store(st)
}

// Handle takes one packet.
func (p *Pipeline) Handle(in *ingest.Packet) {
	if in.Reply != nil && !in.Marked {
		in.Mark, in.Marked = p.spool.Mark(), true
	}
	w := p.work.Get().(*work)
	p.Sources.count(w, in)
	o := p.handle(w, in)
	if o == counters.Rejected {
		w.source.rejected.Add(1)
	}
	p.outcomes.Add(o)
	p.work.Put(w)
}

// Resume takes a packet that [Pipeline.Handle] left parked with Loops.
func (p *Pipeline) Resume(in *ingest.Packet) {
	w := p.work.Get().(*work)
	p.outcomes.Add(p.handle(w, in))
	p.work.Put(w)
}

// Emit takes a record that was not received as such: a copy of a message looked
// back at, a message of sip_trace_msg, a log line (hlog). One without Sinks goes
// where the parameters say.
func (p *Pipeline) Emit(rec *siptrace.Record) { p.emit(p.rules.Load(), rec) }

func (p *Pipeline) emit(st *state, rec *siptrace.Record) {
	p.made.Add(1)
	if rec.Type == siptrace.TypeLog {
		rec.Sinks = st.Routing.OwnLog
	} else {
		st.Routing.Choose(rec)
	}
	var text loop.Text
	if p.Loops != nil && rec.Sinks&siptrace.Mirrored != 0 {
		text = p.Loops.Text(rec.Msg)
	}
	p.outcomes.Add(p.put(st, rec, text))
}

// handle is the way of one packet.
func (p *Pipeline) handle(w *work, in *ingest.Packet) counters.Outcome {
	st := p.rules.Load()
	if st.watch && st.Mirrors.IsOwnSocket(in.Source) {
		return counters.Loop
	}
	c := &w.capture
	w.trailing, w.padded = false, false
	isHEP := hep.Detect(in.Data) != 0
	if isHEP {
		if o := p.unwrap(w, in); o != counters.Spooled {
			return o
		}
		// HEP3 agents that mirror SIP alone leave the chunk out.
		if t := w.packet.Type; t != hep.TypeSIP && t != 0 {
			return p.passOn(w, st, in)
		}
	} else {
		*c = siptrace.Capture{
			Time: in.Time, Proto: protoOf(in.Net), Src: in.Source, Dst: in.Local, Payload: in.Data, Meta: siptrace.Meta{Source: in.Source},
		}
	}
	if o := p.parse(w, in, isHEP); o != counters.Spooled {
		return o
	}
	if !st.Params.TraceOn && st.NewDecision == nil {
		return counters.TraceOff
	}
	if st.pairs && p.pairs.Load().seen(c.Payload, in, isHEP) {
		return counters.Duplicate
	}
	relayed := !isHEP && st.Params.XHeadersRead
	if relayed {
		if o := p.readHeaders(w, in); o != counters.Spooled {
			return o
		}
	}
	verdict, text := loop.Passed, loop.Text(0)
	if p.Loops != nil && (st.watch || p.Loops.IsOut()) {
		verdict, text = p.Loops.Check(in, c.Payload, c.Meta.Path)
	}
	switch verdict {
	case loop.Returned:
		return counters.Loop
	case loop.Parked:
		return counters.Parked
	}
	// Once for each packet: the builder tells the two copies of a spiral apart.
	st.builder.Build(&w.record, c, &w.msg)
	if relayed {
		w.relayed()
	}
	return p.trace(w, st, text, verdict == loop.StoreOnly)
}

// parse scans the message of w.capture.
func (p *Pipeline) parse(w *work, in *ingest.Packet, isHEP bool) counters.Outcome {
	c := &w.capture
	if err := w.msg.Parse(c.Payload); err != nil {
		if !isHEP && blank(in.Data) {
			p.answered(in, in.Data)
			return counters.Keepalive
		}
		return p.rejected(err, "not_sip")
	}
	// HEP1 and HEP2 have no length, and OpenSIPS sends them with NULs at the end.
	if isHEP && w.packet.Version < 3 && w.msg.CutNULs() > 0 {
		c.Payload, w.padded = w.msg.Raw, true
	}
	return counters.Spooled
}

// trace has the rules decide on a message, and sends it on its way; storeOnly: not
// to mirrors.
func (p *Pipeline) trace(w *work, st *state, text loop.Text, storeOnly bool) counters.Outcome {
	rec := &w.record
	if st.NewDecision != nil {
		if o := p.decide(w, st); o != counters.Spooled {
			return o
		}
	}
	st.Routing.Choose(rec)
	if storeOnly {
		if rec.Sinks &^= siptrace.Mirrored; rec.Sinks == 0 {
			return counters.Loop
		}
	}
	if o := p.put(st, rec, text); o != counters.Spooled {
		return o
	}
	p.accepted(w)
	p.defects.add(w.msg.Defects)
	if w.msg.IsRequest {
		p.requests.Add(1)
	} else {
		p.replies.Add(1)
	}
	return counters.Spooled
}

// decide has the rules decide, and makes one row more for nobody while trace_on
// is set (traced_user_avp: N+1 rows, or N).
func (p *Pipeline) decide(w *work, st *state) counters.Outcome {
	if w.state != st {
		w.state, w.decision = st, st.NewDecision()
	}
	rec := &w.record
	o, further := w.decision.Decide(rec, &w.msg)
	for i := range further {
		p.emit(st, &further[i])
	}
	switch {
	case o != counters.Spooled:
		return o
	case !st.Params.TraceOn && len(rec.Users) == 0:
		return counters.TraceOff
	case st.Params.TraceOn && len(rec.Users) > 0:
		w.users = append(append(w.users[:0], nil), rec.Users...)
		rec.Users = w.users
	}
	return counters.Spooled
}

// passOn takes what came by HEP and is not SIP: it goes to HEP mirrors as it is,
// and a log line is kept. Log lines are not asked for trace_on, as in the module.
func (p *Pipeline) passOn(w *work, st *state, in *ingest.Packet) counters.Outcome {
	k := &w.packet
	sinks := st.Routing.Other
	if k.Type == siptrace.TypeLog {
		sinks = st.Routing.Log
	}
	switch {
	case sinks == 0:
		return counters.HEPNotSIP
	case k.Type != siptrace.TypeLog && !st.Params.TraceOn:
		return counters.TraceOff
	}
	data := in.Data
	if n, err := hep.Split(data); err == nil && n > 0 {
		data = data[:n]
	}
	w.record = siptrace.Record{
		Time: w.capture.Time, CallID: k.CorrelationID, Type: k.Type, Packet: data, Meta: w.capture.Meta, Route: siptrace.Route{Sinks: sinks},
	}
	o := p.put(st, &w.record, 0)
	if o == counters.Spooled {
		p.accepted(w)
	}
	return o
}

// accepted counts what is odd with the packet of a message that was taken.
func (p *Pipeline) accepted(w *work) {
	if w.trailing {
		p.trailing.Add(1)
	}
	if w.padded {
		p.padded.Add(1)
	}
}

// answered takes what may be the answer to a question of Loops.
func (p *Pipeline) answered(in *ingest.Packet, answer []byte) {
	if p.Loops != nil {
		p.Loops.Answered(in.Source, answer, in.Time, p.Resume)
	}
}

// cameBefore finds a HEP packet that was here already: by its path, or because its
// delivery is repeated.
func (p *Pipeline) cameBefore(w *work, in *ingest.Packet) counters.Outcome {
	m := &w.capture.Meta
	switch {
	case p.Loops != nil && p.Loops.HasPassed(in, m.Path):
		return counters.Loop
	case p.Streams != nil && p.Streams.Repeated(m.Origin):
		return counters.Repeated
	}
	return counters.Spooled
}

// unwrap decodes a HEP packet into w.capture.
func (p *Pipeline) unwrap(w *work, in *ingest.Packet) counters.Outcome {
	k := &w.packet
	if err := k.Decode(in.Data); err != nil {
		if !errors.Is(err, hep.ErrTrailing) {
			return p.rejected(err, "hep")
		}
		w.trailing = true // the packet itself is whole
	}
	if k.Payload == nil {
		if answer := loop.Answer(k.Vendor); answer != nil {
			p.answered(in, answer)
		} else {
			p.acknowledge(in)
		}
		return counters.HEPKeepalive
	}
	w.capture = siptrace.Capture{
		Time: in.Time, Proto: hepmap.Transport(k.Proto), Src: k.Src, Dst: k.Dst, Payload: k.Payload, HEP: true,
		Meta: siptrace.Meta{
			Source: in.Source, CorrelationID: k.CorrelationID, CaptureID: k.CaptureID, NodeName: k.NodeName, VLAN: k.VLAN,
		},
	}
	if k.HasTime {
		w.capture.Time = time.Unix(int64(k.Sec), int64(k.Usec)*1000)
	}
	if len(k.Vendor) == 0 {
		return counters.Spooled
	}
	w.vendorChunks()
	return p.cameBefore(w, in)
}

// vendorChunks takes what siptraced and others add to HEP3. Chunks of ours that
// are not for the wire, as the spool has them, are left out.
func (w *work) vendorChunks() {
	m := &w.capture.Meta
	w.vendor = hepmap.AppendForeign(w.vendor[:0], w.packet.Vendor)
	m.Vendor = w.vendor
	for _, c := range w.packet.Vendor {
		switch {
		case c.Vendor != hepmap.Vendor:
		case c.Type == hepmap.ChunkPath:
			m.Path = c.Data
		case c.Type == hepmap.ChunkOrigin:
			m.Origin = c.Data
		}
	}
}

// syncTimeout bounds how long an acknowledgement may take; none comes then.
const syncTimeout = 30 * time.Second

// acknowledge sends a HEP3 keep-alive back over the stream that it came on, once
// everything before it on the stream is in the spool: a sender that wants to
// know what was accepted asks so. If anything since the connection's first
// packet was not taken, it is closed instead.
func (p *Pipeline) acknowledge(in *ingest.Packet) {
	if in.Reply == nil {
		return
	}
	if p.Loops != nil {
		p.Loops.Acknowledging(in.Source, in.Time, p.Resume)
	}
	ctx, cancel := context.WithTimeout(context.Background(), syncTimeout)
	defer cancel()
	if p.spool.Sync(ctx, in.Mark) != nil || in.Reply(in.Data) != nil {
		in.Close = true
		p.unacknowledged.Add(1)
		return
	}
	p.acknowledged.Add(1)
}

// readHeaders takes the X-Siptrace headers of a SIP duplicate and cuts them.
func (p *Pipeline) readHeaders(w *work, in *ingest.Packet) counters.Outcome {
	c := &w.capture
	if err := xheaders.Read(c.Payload, &w.headers); err != nil {
		if errors.Is(err, xheaders.ErrNone) {
			return counters.NoXHeaders
		}
		if p.Rejects != nil {
			p.Rejects.Note(rejects.Line{
				Time: in.Time, Reason: err.Error(), Cause: "rejected." + cause(err, "xheaders"), Source: in.Source.String(),
				CallID: string(w.msg.CallID), Method: string(w.msg.MethodName()), Packet: in.Data,
			})
		}
		return p.rejected(err, "xheaders")
	}
	if w.headers.HasTime {
		c.Time = w.headers.Time()
	}
	w.cut = xheaders.Cut(w.cut[:0], c.Payload)
	c.Payload = w.cut
	if err := w.msg.Parse(c.Payload); err != nil {
		return p.rejected(err, "not_sip")
	}
	return counters.Spooled
}

// relayed gives the record what the first node knew of the message.
func (w *work) relayed() {
	rec, h := &w.record, &w.headers
	rec.From, rec.To = w.ends.Get(h.FromIP), w.ends.Get(h.ToIP)
	rec.Direction = h.Dir
	if len(h.Method) > 0 {
		rec.Method = h.Method
	}
}

func (p *Pipeline) rejected(err error, fallback string) counters.Outcome {
	return p.outcomes.Reject(cause(err, fallback))
}

func cause(err error, fallback string) string {
	if c := hep.Cause(err); c != "" {
		return c
	}
	if errors.Is(err, fs.ErrClosed) {
		return "shutdown"
	}
	if malformed := (*xheaders.MalformedError)(nil); errors.As(err, &malformed) {
		return string(malformed.Cause)
	}
	return fallback
}

func protoOf(network string) siptrace.Proto {
	if p, ok := siptrace.ParseProto(network); ok {
		return p
	}
	return siptrace.Any
}

// blank reports whether a datagram is a keepalive: nothing but line ends, blanks
// and NULs (RFC 5626 §3.5.1, and what NAT devices are fed with).
func blank(b []byte) bool {
	for _, c := range b {
		if c != '\r' && c != '\n' && c != ' ' && c != 0 {
			return false
		}
	}
	return true
}
