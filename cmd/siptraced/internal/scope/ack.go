package scope

import (
	"hash/maphash"
	"sync"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// StatelessACKs tells which messages trace_sl_acks=0 leaves out: the ACK for a
// negative reply that the proxy made itself, and without a transaction. Those
// that answer a reply from further on are traced all the same.
//
// The replies of Kamailio's sl module (and of OpenSIPS and SER) are known by
// their To tag; others by an INVITE that came in, went nowhere and was refused.
// The zero value is ready, and safe for concurrent use.
type StatelessACKs struct {
	mu    sync.Mutex // covers all below
	seed  *maphash.Seed
	slots []refusal // by hash; a newer INVITE takes the place of an older one
}

// refusal is an INVITE that came in.
type refusal struct {
	key uint64
	// tag is the id of its reply's To tag; 0: no reply yet, forwarded: the proxy
	// sent it on.
	tag uint64
}

const (
	forwarded    = 1
	refusalSlots = 8192
)

// Has looks at each message, and reports whether it is such an ACK.
func (a *StatelessACKs) Has(m *sipmsg.Message, r *siptrace.Record) bool {
	kind := methodOf(m.MethodName())
	if kind != invite && kind != ack {
		return false
	}
	out := r.Direction == siptrace.Out
	if kind == ack && (!m.IsRequest || out) {
		return false
	}
	if AnsweredBySL(m, r) {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seed == nil {
		seed := maphash.MakeSeed()
		a.seed, a.slots = &seed, make([]refusal, refusalSlots)
	}
	key := mix(mix(maphash.Bytes(*a.seed, m.CallID), maphash.Bytes(*a.seed, m.From.Tag)), maphash.Bytes(*a.seed, m.CSeqNumber))
	s := &a.slots[key%refusalSlots]
	tag := maphash.Bytes(*a.seed, m.To.Tag) | 2
	switch {
	case kind == ack:
		return s.key == key && s.tag == tag
	case m.IsRequest && !out:
		if s.key != key {
			*s = refusal{key: key}
		}
	case s.key != key:
	case m.IsRequest, !out: // sent on; a reply came back
		s.tag = forwarded
	case s.tag == 0 && status(m.Status) >= 300 && !ownTag(m.To.Tag, '-'):
		s.tag = tag
	}
	return false
}

// AnsweredBySL reports whether a message is the ACK for a reply that Kamailio's module
// sl made, which is known by its To tag.
func AnsweredBySL(m *sipmsg.Message, r *siptrace.Record) bool {
	return m.IsRequest && methodOf(m.MethodName()) == ack && r.Direction != siptrace.Out && ownTag(m.To.Tag, '.')
}

// ownTag reports whether a To tag is one that Kamailio made for a reply of
// its own: an MD5 in hex, then a dot (module sl) or a dash (module tm), and more.
func ownTag(tag []byte, separator byte) bool {
	if len(tag) < 34 || tag[32] != separator {
		return false
	}
	for _, c := range tag[:32] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
