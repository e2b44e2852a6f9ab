package scope

import (
	"bytes"
	"hash/maphash"
	"unsafe"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// method is what a scope tells apart.
type method uint8

const (
	other method = iota
	invite
	ack
	cancel
	bye
	prack
	update
	refer
	subscribe
	notify
)

func methodOf(b []byte) method {
	switch string(b) {
	case "INVITE":
		return invite
	case "ACK":
		return ack
	case "CANCEL":
		return cancel
	case "BYE":
		return bye
	case "PRACK":
		return prack
	case "UPDATE":
		return update
	case "REFER":
		return refer
	case "SUBSCRIBE":
		return subscribe
	case "NOTIFY":
		return notify
	}
	return other
}

// view is what scopes ask about a message; ids are hashes.
type view struct {
	msg    *sipmsg.Message
	method method // of a reply: that of its CSeq
	status int    // 0: a request
	out    bool
	packet int64 // its time

	from  uint64 // From tag; without one, the URI
	to    uint64 // To tag; 0: none
	toURI uint64 // To URI, when there is no tag
	// tx is the transaction as the proxy sees it, all its legs: From, CSeq number
	// and method, ACK and CANCEL counted with their INVITE (RFC 3261 §9.1, §17.1.1.3).
	tx uint64
	// leg is one hop of it (RFC 3261 §17.2.3): branch and sent-by. Before RFC 3261
	// the top Via was all there was, and within a transaction it is enough.
	leg uint64
}

// uri keeps the id of an address apart from that of a tag of the same letters.
const uri = 0x9e3779b97f4a7c15

func (t *Tracker) view(m *sipmsg.Message, r *siptrace.Record) view {
	name := m.MethodName()
	v := view{msg: m, method: methodOf(name), out: r.Direction == siptrace.Out, packet: r.Time.UnixNano()}
	if !m.IsRequest {
		v.status = status(m.Status)
	}
	v.from, v.toURI = t.party(&m.From)
	if v.from == 0 {
		v.from, v.toURI = v.toURI, 0
	}
	v.to, v.toURI = t.party(&m.To)

	number := bytes.TrimLeft(m.CSeqNumber, "0")
	class := uint64(invite)
	switch v.method {
	case invite, ack, cancel:
	default:
		class = maphash.Bytes(t.seed, name)
	}
	v.tx = mix(mix(v.from, maphash.Bytes(t.seed, number)), class)
	v.leg = mix(mix(maphash.Bytes(t.seed, m.Via.Branch), maphash.Bytes(t.seed, m.Via.Host)), maphash.Bytes(t.seed, m.Via.Port))
	return v
}

// party returns the id of a tag, or, without one, of the address.
func (t *Tracker) party(a *sipmsg.Addr) (tag, address uint64) {
	if len(a.Tag) > 0 {
		return max(maphash.Bytes(t.seed, a.Tag), 2), 0
	}
	return 0, max(maphash.Bytes(t.seed, a.URI)^uri, 2)
}

func mix(a, b uint64) uint64 {
	a = (a ^ b) * 0xff51afd7ed558ccd
	return a ^ a>>32
}

// status reads a code of three digits; anything else stands for a provisional
// reply, which decides nothing.
func status(b []byte) int {
	if len(b) != 3 {
		return 100
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 100
		}
		n = n*10 + int(c-'0')
	}
	return max(n, 100)
}

type flags uint16

const (
	forInvite  flags = 1 << iota // begun by INVITE, or inside a call
	initial                      // tx is the transaction that began the dialog
	rooted                       // the leg by which the request came in is known
	over                         // tx has its final reply, upstream
	noTag                        // the callee's side has no tag
	old                          // nor has the caller's
	subscribed                   // a subscription is open: by SUBSCRIBE, or by REFER (RFC 3515 §2.4.4)
)

// scope is one transaction or dialog.
type scope struct {
	next         *scope // of the same Call-ID
	older, newer *scope // of the same list
	call         uint64
	rule         uint64
	data         any

	from, to, tx uint64 // as in view; to of a request that was not the first of its dialog
	wall, packet int64  // of the last message

	legs  []leg  // of the INVITE at hand
	peers []peer // far ends of the dialog
	hops  []hop  // branches, where spirals are skipped

	size  uint32
	flags flags
	kind  Kind
	list  uint8
}

// idMask is the part of a leg, peer or hop that is its id, a hash; the lowest bits
// say what is known of it.
const idMask = ^uint64(7)

// leg is a hop of a transaction.
type leg uint64

// What is known of a leg.
const (
	final leg = 1 << iota // has its final reply
	root                  // came in first
	sent                  // went out
)

const maxLegs = 64

// peer is a far end of a dialog, and its state.
type peer uint64

// state is where a far end stands.
type state uint64

// The states of a peer.
const (
	early state = iota
	established
	ending // BYE without a reply
	ended
)

const maxPeers = 32

func newPeer(id uint64, st state) peer { return peer(id&idMask | uint64(st)) }

func (p peer) state() state { return state(uint64(p) &^ idMask) }

// untagged is the id of a far end without a tag.
const untagged = 1 << 3

func newScope(kind Kind, v *view) scope {
	s := scope{kind: kind, from: v.from, tx: v.tx, packet: v.packet}
	switch v.method {
	case invite, ack, cancel, refer, subscribe:
	default:
		if v.to == 0 {
			s.kind = Transaction // RFC 3261 §12.1: others begin no dialog
		}
	}
	switch v.method {
	case invite, ack, cancel:
		s.flags |= forInvite
	}
	if s.kind == Transaction {
		if v.status == 0 && v.method != ack {
			s.to = v.to
		}
		s.list = s.waitsFor()
		return s
	}
	if len(v.msg.From.Tag) == 0 {
		s.flags |= old
	}
	switch {
	case v.to == 0, v.method == ack, v.method == cancel, v.method == invite && v.status != 0:
		s.flags |= initial
	case v.method == subscribe, v.method == notify:
		s.flags |= over | subscribed
	case v.method == prack: // RFC 3262 §3: it rings
		s.flags |= forInvite
	case v.method == bye:
		s.flags |= forInvite | over
	default:
		s.flags |= forInvite
		s.meet(s.far(v), established)
	}
	s.list = s.waitsFor()
	return s
}

// anchor corrects where a dialog stands by a message from before the one that
// it was met at, if that says more: the request that began it, between the same
// two ends; or a request inside it, where a reply to the first was assumed.
func (s *scope) anchor(v *view, to uint64) bool {
	switch {
	case s.kind != Dialog || s.flags&forInvite == 0 || v.status != 0:
		return false
	case s.flags&initial == 0 && v.to == 0 && (v.method == invite || v.method == cancel) && (v.from == s.from || v.from == to):
		s.from, s.tx = v.from, v.tx
		s.flags = s.flags&^over | initial
		s.peers = nil
		return true
	case s.flags&initial != 0 && v.tx == s.tx && v.to != 0 && v.method == invite:
		s.flags &^= initial
		return true
	}
	return false
}

// has reports whether a message of the same Call-ID belongs to the scope.
func (s *scope) has(v *view) bool {
	if s.kind == Transaction {
		// Requests in different dialogs of one fork may share all but the To tag.
		return v.tx == s.tx && (s.to == 0 || v.to == 0 || v.to == s.to)
	}
	if v.tx == s.tx && s.flags&initial != 0 {
		return true
	}
	far := s.far(v)
	if far == 0 || far == untagged && s.flags&(noTag|old) == 0 {
		return false
	}
	// An end that nobody has heard of is one whose replies were lost, unless the
	// dialog is over: then it is of the next INVITE with this Call-ID.
	return find(s.peers, far) >= 0 || s.flags&over == 0 || s.count(established) > 0 || s.flags&subscribed != 0
}

// far returns the other end of a message to or from the caller, 0 for any other
// message.
func (s *scope) far(v *view) uint64 {
	var tag []byte
	id := v.to
	switch {
	case v.from == s.from:
		tag = v.msg.To.Tag
	case v.to == s.from, v.toURI == s.from:
		tag, id = v.msg.From.Tag, v.from
	default:
		return 0
	}
	if len(tag) == 0 {
		return untagged
	}
	return id
}

// acknowledges reports whether a message is the ACK for a 2xx: the one whose
// branch is not that of its INVITE (RFC 3261 §13.2.2.4).
func (s *scope) acknowledges(v *view) bool {
	return v.method == ack && v.status == 0 && find(s.legs, v.leg) < 0
}

// learn takes from a message of the scope what decides about its end.
func (s *scope) learn(v *view) {
	if s.kind == Transaction {
		s.transaction(v)
		return
	}
	if v.tx == s.tx && s.flags&initial != 0 {
		s.beginning(v)
		return
	}
	s.inside(v, s.far(v))
}

// transaction follows the legs of tx to the final reply on the one by which the
// request came in. Where that one was not seen, all have to have theirs.
func (s *scope) transaction(v *view) {
	if v.method == ack || v.method == cancel {
		return
	}
	i := s.legAt(v.leg)
	if i < 0 {
		return
	}
	if v.status == 0 {
		if v.out {
			s.legs[i] |= sent
		} else if s.flags&rooted == 0 && s.legs[i]&sent == 0 {
			s.flags |= rooted
			s.legs[i] |= root
		}
		return
	}
	if v.status < 200 {
		return
	}
	s.legs[i] |= final
	if s.legs[i]&root != 0 {
		s.flags |= over
	}
	if s.flags&rooted != 0 {
		return
	}
	if v.out && s.legs[i]&sent == 0 {
		s.flags |= over
		return
	}
	for _, l := range s.legs {
		if l&final == 0 {
			return
		}
	}
	s.flags |= over
}

// beginning follows the transaction that begins a dialog, and what forks of it
// there are.
func (s *scope) beginning(v *view) {
	if v.method == ack && v.to != 0 && s.acknowledges(v) {
		s.meet(v.to, established) // its 2xx was lost
	}
	s.transaction(v)
	if v.status <= 100 || v.method == cancel || v.method == ack {
		return
	}
	switch {
	case v.status >= 300:
	case v.status >= 200 && s.flags&forInvite == 0:
		s.flags |= subscribed
		if v.to != 0 {
			s.meet(v.to, early)
		}
	case v.status >= 200:
		if v.to == 0 {
			s.flags |= noTag
			s.meet(untagged, established)
			return
		}
		s.meet(v.to, established)
	case v.to != 0:
		s.meet(v.to, early)
	}
}

// inside follows a message between the caller and one far end.
func (s *scope) inside(v *view, far uint64) {
	now := early
	switch v.method {
	case bye:
		switch {
		case v.status == 0:
			now = ending
		case v.status == 401 || v.status == 407: // it comes again
			if i := find(s.peers, far); i >= 0 && s.peers[i].state() == ending {
				s.peers[i] = newPeer(far, established)
			}
		case v.status >= 200: // RFC 3261 §15.1.1: over, whatever the reply
			now = ended
		}
	case refer, subscribe:
		if v.status == 0 {
			s.flags |= subscribed
		} else if v.status >= 300 {
			s.flags &^= subscribed
		}
	case notify:
		if v.status != 0 {
			break
		}
		s.flags |= subscribed
		if value, _ := v.msg.Header("Subscription-State"); len(value) >= 10 && bytes.EqualFold(value[:10], []byte("terminated")) {
			s.flags &^= subscribed
		}
	case prack, update, cancel: // RFC 3262 §4, RFC 3311 §5.1: also while it rings
	case invite:
		if v.status == 0 {
			s.flags |= over
			if len(s.legs) == maxLegs {
				s.legs = s.legs[:0]
			}
			if i := s.legAt(v.leg); i >= 0 {
				s.legs[i] |= final
			}
		}
		fallthrough
	default:
		if s.flags&forInvite != 0 && (v.status == 0 || v.status/100 == 2) {
			now = established
		}
	}
	s.meet(far, now)
}

// waitsFor returns the list that the scope belongs into.
func (s *scope) waitsFor() uint8 {
	if s.kind == Transaction {
		switch {
		case s.flags&over != 0:
			return lingering
		case s.flags&forInvite != 0:
			return ringing
		}
		return short
	}
	switch {
	case s.count(established) > 0:
		return talking
	case s.flags&subscribed != 0 && s.flags&forInvite == 0:
		return talking
	case s.flags&(subscribed|over) != over:
		return ringing
	case s.count(ending) > 0:
		return short
	}
	return lingering
}

func (s *scope) stale(now, packet int64) bool {
	return now-s.wall > patience[s.list] || packet-s.packet > patience[s.list]
}

// legAt returns the place of a leg, and makes it if there is room; -1: none.
func (s *scope) legAt(id uint64) int {
	i := find(s.legs, id)
	if i < 0 && len(s.legs) < maxLegs {
		i, s.legs = len(s.legs), append(s.legs, leg(id&idMask))
	}
	return i
}

// meet notes the state of a far end, which goes forward only.
func (s *scope) meet(id uint64, now state) {
	i := find(s.peers, id)
	switch {
	case i < 0 && len(s.peers) == maxPeers:
	case i < 0:
		s.peers = append(s.peers, newPeer(id, now))
	case now > s.peers[i].state():
		s.peers[i] = newPeer(id, now)
	}
	// No other fork rings on after a 2xx: the proxy cancels them.
	if now == established || now == ended && s.count(early) == 0 {
		s.flags |= over
	}
}

func (s *scope) count(st state) (n int) {
	for _, p := range s.peers {
		if p.state() == st {
			n++
		}
	}
	return n
}

func find[T ~uint64](ids []T, id uint64) int {
	for i, x := range ids {
		if uint64(x)&idMask == id&idMask {
			return i
		}
	}
	return -1
}

// bytes is the memory of s: what the runtime takes for it, and its place in the map.
func (s *scope) bytes() uint32 {
	const place = 32
	return uint32(unsafe.Sizeof(*s)) + place + 8*uint32(cap(s.legs)+cap(s.peers)+cap(s.hops))
}

// hop is a branch that a request has on its way.
type hop uint64

// What is known of a hop.
const (
	went   hop = 1 << iota // the proxy sent a request with this branch
	looped                 // and got it back
	inner                  // the proxy sent it on after that
)

// spiral reports whether a message is of a request's second way through the
// proxy: from where it comes back in to where it leaves for good, and the
// replies on the same stretch.
func (s *scope) spiral(seed maphash.Seed, v *view) bool {
	branch := v.msg.Via.Branch
	if len(branch) == 0 {
		return false
	}
	id := maphash.Bytes(seed, branch)
	i := find(s.hops, id)
	switch {
	case v.status != 0 && i < 0:
		return false
	case v.status != 0 && v.out:
		return s.hops[i]&looped != 0
	case v.status != 0:
		return s.hops[i]&inner != 0
	case !v.out && i < 0:
		return false
	case !v.out:
		s.hops[i] |= looped
		return true
	case i < 0:
		bits := went
		if b := secondBranch(v.msg); b != nil {
			if j := find(s.hops, maphash.Bytes(seed, b)); j >= 0 && s.hops[j]&looped != 0 {
				bits |= inner
			}
		}
		if len(s.hops) == maxLegs {
			s.hops = append(s.hops[:0], s.hops[maxLegs/2:]...)
		}
		i, s.hops = len(s.hops), append(s.hops, hop(id&idMask)|bits)
	}
	return s.hops[i]&inner != 0
}

// secondBranch returns the branch of the second Via: in a request that a proxy
// sends, that of the request as it came in.
func secondBranch(m *sipmsg.Message) []byte {
	top := true
	for via := range m.Vias() {
		if !top {
			return via.Branch
		}
		top = false
	}
	return nil
}
