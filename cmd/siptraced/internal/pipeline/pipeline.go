// Package pipeline takes a packet from its bytes to the spool: decode, the
// module's rules, record. Every packet ends in exactly one counted place:
// rejected, dropped or spooled.
//
//	p := pipeline.New(rules, spool, counters)
//	p.Handle(&packet)   // from any goroutine
//	p.SetRules(rules)   // while it runs
//
// What it leaves out: sockets (package ingest) and sinks.
package pipeline

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/ingest"
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
	Params siptrace.Params
	Own    *siptrace.Sockets
	// Judge decides on each message; nil: all are treated alike.
	Judge Judge
	// Mirrors is where messages go onwards; nil: nowhere.
	Mirrors Mirrors
	// HasDuplicateURI: duplicate_uri names a destination. DuplicateAll: it takes the
	// messages for which no rule named an address, too. HasListed: there are
	// destinations that take every traced message.
	HasDuplicateURI, DuplicateAll, HasListed bool
}

// Mirrors are the destinations of what is mirrored onwards.
type Mirrors interface {
	// EnsureDestination gets the URI of a destination that a rule named, before the
	// record goes to the spool. It does no I/O.
	EnsureDestination(uri string)
	// IsOwnSocket reports whether mirrors are sent from that address.
	IsOwnSocket(netip.AddrPort) bool
	// IsDestinationHost reports whether a destination has that address.
	IsDestinationHost(netip.Addr) bool
}

// Judge decides on messages one by one (package rules). Safe for concurrent use.
type Judge interface {
	// Judge may set Users (in row order, the row without a user left out), Table,
	// Destinations, CorrelationID and Sinks of rec. It returns the counter of the
	// cause when the message goes no further; trace_on is asked afterwards. Further
	// records that the message gives rise to go to out. What rec is given may lie in
	// mem, which is the judge's own: one for each message that is being handled, used
	// again once that one is in the spool.
	Judge(mem *any, rec *siptrace.Record, msg *sipmsg.Message, out Maker) *atomic.Uint64
}

// Maker takes records that were not received as such.
type Maker interface {
	// Make puts a record of its own into the spool; one without Sinks goes where
	// the parameters say.
	Make(rec *siptrace.Record)
	// Log takes a log line (hlog): it goes to HEP mirrors, whatever the modes say.
	Log(rec *siptrace.Record)
}

// Pipeline is the way of a message into the spool.
type Pipeline struct {
	rules    atomic.Pointer[state]
	spool    Spool
	counters *counters.Set
	work     sync.Pool

	traceOff, noSink, keepalive, hepKeepalive, foreign, noHeaders, trailing *atomic.Uint64
	acknowledged, unacknowledged                                            *atomic.Uint64
	requests, replies                                                       *atomic.Uint64
	made, loop, duplicate                                                   *atomic.Uint64
	defects                                                                 defects

	// relayed are the messages that were mirrored onwards lately, and captured the
	// texts of those that came by HEP.
	relayed, captured *recent
	repeats           *repeats
	// refusals are the records that the spool refused, as of the last look, and
	// refused when their number grew last, in Unix nanoseconds.
	refusals atomic.Uint64
	refused  atomic.Int64

	// Rejects takes what was refused for its X-Siptrace headers; nil: nobody.
	Rejects *rejects.File
	// Sources are the senders of what was read.
	Sources Sources
}

// state is the rules in the form that Handle uses.
type state struct {
	Rules
	builder siptrace.Builder
	sinks   siptrace.Sinks // of a message for which no rule named a destination
	named   siptrace.Sinks // of one for which a rule did
	listed  siptrace.Sinks // of every message
	// pairs: the proxy mirrors each message by HEP and as SIP. watch: something may
	// be mirrored onwards, and come back.
	pairs, watch bool
}

// choose decides which sinks take rec, unless a rule did.
func (st *state) choose(rec *siptrace.Record) {
	switch {
	case rec.Sinks != 0:
	case rec.Destinations != nil:
		rec.Sinks = st.named
	default:
		rec.Sinks = st.sinks
	}
	rec.Sinks |= st.listed
}

// put sends a record on its way; it returns the counter of the place where the
// record ended when that is not the spool.
func (p *Pipeline) put(st *state, rec *siptrace.Record) *atomic.Uint64 {
	if rec.Sinks == 0 {
		return p.noSink
	}
	if st.Mirrors != nil && rec.Sinks&siptrace.Mirrored != 0 {
		for _, d := range rec.Destinations {
			st.Mirrors.EnsureDestination(d)
		}
	}
	if err := p.spool.Put(rec); err != nil {
		return p.rejected(err, "spool")
	}
	return nil
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
	judge   any
	source  *source // of the last packet
}

// New makes a pipeline into a spool.
func New(r Rules, s Spool, c *counters.Set) *Pipeline {
	p := &Pipeline{
		spool: s, counters: c, work: sync.Pool{New: func() any { return new(work) }},
		traceOff:     c.Counter("dropped.trace_off"),
		noSink:       c.Counter("dropped.no_sink"),
		keepalive:    c.Counter("dropped.keepalive"),
		hepKeepalive: c.Counter("dropped.hep_keepalive"),
		foreign:      c.Counter("dropped.hep_not_sip"),
		noHeaders:    c.Counter("dropped.no_xheaders"),
		trailing:     c.Counter("accepted.hep_trailing"),
		// Of the keep-alives over streams.
		acknowledged:   c.Counter("keepalives.acknowledged"),
		unacknowledged: c.Counter("keepalives.unacknowledged"),
		// The module's own statistics.
		requests: c.Counter("traced_requests"),
		replies:  c.Counter("traced_replies"),
		// Records beside those received: copies of messages looked back at, log lines.
		made: c.Counter("made"),
		// What came back to us, and the SIP duplicate of what came by HEP as well.
		loop:      c.Counter("dropped.loop"),
		duplicate: c.Counter("dropped.duplicate"),
		defects:   newDefects(c),
		relayed:   newRecent(),
		captured:  newRecent(),
		repeats:   newRepeats(),
	}
	p.refusals.Store(s.Mark())
	p.SetRules(r)
	return p
}

// SetRules replaces the rules for the messages that come from now on.
func (p *Pipeline) SetRules(r Rules) {
	st := &state{
		Rules:   r,
		builder: siptrace.Builder{Own: r.Own, LocalIP: siptrace.TextEndpoint(r.Params.LocalIP())},
		sinks:   r.Params.Sinks(r.DuplicateAll),
		named:   r.Params.Sinks(true),
		pairs:   r.Params.TraceMode&(siptrace.ModeHEP|siptrace.ModeSIP) == siptrace.ModeHEP|siptrace.ModeSIP,
	}
	if r.HasListed {
		st.listed = siptrace.ToListed
	}
	st.watch = r.Mirrors != nil && (r.HasDuplicateURI || r.HasListed || r.Judge != nil)
	p.rules.Store(st)
}

// Handle takes one packet.
func (p *Pipeline) Handle(in *ingest.Packet) {
	if in.Reply != nil && !in.Marked {
		in.Mark, in.Marked = p.spool.Mark(), true
	}
	w := p.work.Get().(*work)
	p.Sources.count(w, in)
	if count := p.handle(w, in); count != nil {
		count.Add(1)
	}
	p.work.Put(w)
}

// handle returns the counter of the place where the packet ended, or nil when
// that is the spool, which counts for itself.
func (p *Pipeline) handle(w *work, in *ingest.Packet) *atomic.Uint64 {
	st := p.rules.Load()
	c := &w.capture
	if st.watch && st.Mirrors.IsOwnSocket(in.Source) {
		return p.loop
	}
	isHEP := hep.Detect(in.Data) != 0
	if isHEP {
		if count := p.unwrap(w, in); count != nil {
			return count
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
	if err := w.msg.Parse(c.Payload); err != nil {
		if !isHEP && blank(in.Data) {
			return p.keepalive
		}
		return p.rejected(err, "not_sip")
	}
	if !st.Params.TraceOn && st.Judge == nil {
		return p.traceOff
	}
	if st.pairs {
		text := p.captured.text(c.Payload, in.Source.Addr())
		if isHEP {
			p.captured.note(text, in.Source, in.Time, time.Time{})
		} else if p.captured.has(text, in.Time) {
			return p.duplicate
		}
	}
	rec := &w.record
	if !isHEP && st.Params.XHeadersRead {
		if count := p.readHeaders(w, in); count != nil {
			return count
		}
		st.builder.Build(rec, c, &w.msg)
		w.relayed()
	} else {
		st.builder.Build(rec, c, &w.msg)
	}
	if st.watch && (p.returned(w, st, in, isHEP) || p.repeats.tooMany(rec.Msg, in.Source, c.Time, in.Time, p.refusedAt(in.Time))) {
		return p.loop
	}
	if st.Judge != nil {
		if count := p.judge(w, st); count != nil {
			return count
		}
	}
	st.choose(rec)
	if count := p.put(st, rec); count != nil {
		return count
	}
	p.defects.add(w.msg.Defects)
	if w.msg.IsRequest {
		p.requests.Add(1)
	} else {
		p.replies.Add(1)
	}
	return nil
}

// judge has the rules decide, and makes one row more for nobody while trace_on
// is set (traced_user_avp: N+1 rows, or N).
func (p *Pipeline) judge(w *work, st *state) *atomic.Uint64 {
	rec := &w.record
	if count := st.Judge.Judge(&w.judge, rec, &w.msg, p); count != nil {
		return count
	}
	switch {
	case !st.Params.TraceOn && len(rec.Users) == 0:
		return p.traceOff
	case st.Params.TraceOn && len(rec.Users) > 0:
		w.users = append(append(w.users[:0], nil), rec.Users...)
		rec.Users = w.users
	}
	return nil
}

// Make implements [Maker].
func (p *Pipeline) Make(rec *siptrace.Record) {
	p.made.Add(1)
	st := p.rules.Load()
	st.choose(rec)
	if count := p.put(st, rec); count != nil {
		count.Add(1)
	}
}

// Log takes a log line that was made here (hlog): it goes to HEP mirrors, whatever
// the modes say, and is kept beside the messages.
func (p *Pipeline) Log(rec *siptrace.Record) {
	p.made.Add(1)
	st := p.rules.Load()
	rec.Type = siptrace.TypeLog
	rec.Sinks = p.ofOther(st, rec.Type)
	if st.HasDuplicateURI {
		rec.Sinks |= siptrace.ToHEP
	}
	if count := p.put(st, rec); count != nil {
		count.Add(1)
	}
}

// ofOther are the sinks of what came by HEP and is not SIP.
func (p *Pipeline) ofOther(st *state, typ uint8) siptrace.Sinks {
	sinks := st.sinks&siptrace.ToHEP | st.listed
	if typ == siptrace.TypeLog && st.Params.Stores() {
		sinks |= siptrace.ToStore
	}
	return sinks
}

// passOn takes what came by HEP and is not SIP: it goes to HEP mirrors as it is,
// and a log line is kept. Log lines are not asked for trace_on, as in the module.
func (p *Pipeline) passOn(w *work, st *state, in *ingest.Packet) *atomic.Uint64 {
	k := &w.packet
	sinks := p.ofOther(st, k.Type)
	switch {
	case sinks == 0:
		return p.foreign
	case k.Type != siptrace.TypeLog && !st.Params.TraceOn:
		return p.traceOff
	}
	data := in.Data
	if n, err := hep.Split(data); err == nil && n > 0 {
		data = data[:n]
	}
	if st.watch {
		if p.back(st, in, p.relayed.text(data, netip.Addr{})) {
			return p.loop
		}
	}
	w.record = siptrace.Record{
		Time: w.capture.Time, CallID: k.CorrelationID, Type: k.Type, Packet: data, Meta: w.capture.Meta, Route: siptrace.Route{Sinks: sinks},
	}
	return p.put(st, &w.record)
}

// returned reports whether a message is one that was mirrored onwards lately and
// comes back from somebody else: the same text between the same ends at the same
// microsecond.
func (p *Pipeline) returned(w *work, st *state, in *ingest.Packet, isHEP bool) bool {
	rec, h := &w.record, &w.headers
	switch {
	case isHEP && !w.packet.HasTime:
		return false
	case isHEP:
	case st.Params.XHeadersRead:
		if !h.HasTime {
			return false
		}
	default:
		// Headers of ours that nobody reads here.
		if xheaders.Read(rec.Msg, h) != nil || !h.HasTime {
			return false
		}
		own := siptrace.Record{
			Time: h.Time(), Msg: xheaders.Cut(w.cut[:0], rec.Msg),
			From: w.ends.Get(h.FromIP), To: w.ends.Get(h.ToIP),
		}
		w.cut = own.Msg
		return p.back(st, in, p.relayed.moment(&own))
	}
	return p.back(st, in, p.relayed.moment(rec))
}

// back reports whether a message came from elsewhere before, and comes from a
// destination's host now.
func (p *Pipeline) back(st *state, in *ingest.Packet, hash uint64) bool {
	return p.relayed.note(hash, in.Source, in.Time, p.refusedAt(in.Time)) && st.Mirrors.IsDestinationHost(in.Source.Addr())
}

// refusedAt is when the spool last refused something, as far as was seen. What
// came before may have been refused too: when it is sent again it is no loop.
func (p *Pipeline) refusedAt(now time.Time) time.Time {
	if n := p.spool.Mark(); p.refusals.Swap(n) != n {
		p.refused.Store(now.UnixNano())
	}
	return time.Unix(0, p.refused.Load())
}

// unwrap decodes a HEP packet into w.capture.
func (p *Pipeline) unwrap(w *work, in *ingest.Packet) *atomic.Uint64 {
	k := &w.packet
	if err := k.Decode(in.Data); err != nil {
		if !errors.Is(err, hep.ErrTrailing) {
			return p.rejected(err, "hep")
		}
		p.trailing.Add(1) // the packet itself is whole
	}
	if k.Payload == nil {
		p.acknowledge(in)
		return p.hepKeepalive
	}
	w.capture = siptrace.Capture{
		Time: in.Time, Proto: hepmap.Transport(k.Proto), Src: k.Src, Dst: k.Dst, Payload: k.Payload,
		Meta: siptrace.Meta{
			Source: in.Source, CorrelationID: k.CorrelationID, CaptureID: k.CaptureID, NodeName: k.NodeName, VLAN: k.VLAN,
		},
	}
	if k.HasTime {
		w.capture.Time = time.Unix(int64(k.Sec), int64(k.Usec)*1000)
	}
	if len(k.Vendor) > 0 {
		w.vendorChunks()
	}
	return nil
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
func (p *Pipeline) readHeaders(w *work, in *ingest.Packet) *atomic.Uint64 {
	c := &w.capture
	if err := xheaders.Read(c.Payload, &w.headers); err != nil {
		if errors.Is(err, xheaders.ErrNone) {
			return p.noHeaders
		}
		if p.Rejects != nil {
			p.Rejects.Note(rejects.Line{
				Time: in.Time, Reason: err.Error(), Cause: "rejected." + p.cause(err, "xheaders"), Source: in.Source.String(),
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
	return nil
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

func (p *Pipeline) rejected(err error, fallback string) *atomic.Uint64 {
	return p.counters.Counter("rejected." + p.cause(err, fallback))
}

func (p *Pipeline) cause(err error, fallback string) string {
	if cause := hep.Cause(err); cause != "" {
		return cause
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
