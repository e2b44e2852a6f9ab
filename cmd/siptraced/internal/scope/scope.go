package scope

import (
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// Kind is how much of the traffic a rule takes beside the message it matched.
type Kind byte

// The kinds, by the letters of sip_trace() and sip_trace_mode().
const (
	Message     Kind = 'm'
	Transaction Kind = 't'
	Dialog      Kind = 'd'
)

// ParseKind reads a kind as Kamailio does: the first letter counts, in any case.
func ParseKind(s string) (Kind, error) {
	if s != "" {
		switch k := Kind(s[0] | 0x20); k {
		case Message, Transaction, Dialog:
			return k, nil
		}
	}
	return 0, fmt.Errorf("%q: want m (message), t (transaction) or d (dialog)", s)
}

func (k Kind) String() string { return string(rune(k)) }

// Config bounds a Tracker. The zero value takes the defaults.
type Config struct {
	Scopes        int           // scopes open at once; 100,000
	Bytes         int64         // memory of the scopes, what the caller ties to them left out; 32 MiB
	LookBack      time.Duration // how long a message can be looked back at; 2 s
	LookBackBytes int           // memory for that; 4 MiB
}

// Options can change while messages come.
type Options struct {
	LookBack   bool // keep recent messages for Start: as long as there are rules with a scope
	SkipACK    bool // trace_dialog_ack=0: no ACK for a 2xx in a dialog
	SkipSpiral bool // trace_dialog_spiral=0: what a dialog's requests do on their second way through the proxy is left out
	Skipped    bool // Find hands back what is left out as well
}

// Match is a scope that a message belongs to.
type Match struct {
	Rule uint64
	Kind Kind
	Skip bool // left out by the options, and shown for Options.Skipped
	ACK  bool // the message is an ACK for a 2xx, which is a transaction of its own (RFC 3261 §13.2.2.4)
	Data any  // given to Start
}

// Stats is the accounting: Started = Open + Ended + TimedOut + Evicted + Stopped.
type Stats struct {
	Open     int64
	Bytes    int64
	Started  uint64
	Ended    uint64 // by a final reply, BYE, or the end of a subscription
	TimedOut uint64 // nothing more was heard, and no end
	Evicted  uint64 // made room for newer ones
	Stopped  uint64
}

// How long a scope waits for its next message, by what it waits for.
const (
	lingering = iota // over; retransmissions and late branches may follow: 64*T1 (RFC 3261 §17)
	short            // a final reply is due: that, and as long for a proxy's own time-out
	ringing          // an INVITE without a final reply: over Timer C (RFC 3261 §16.6)
	talking          // an established dialog; Kamailio's default_timeout
	lists
)

var patience = [lists]int64{
	lingering: int64(32 * time.Second),
	short:     int64(64 * time.Second),
	ringing:   int64(5 * time.Minute),
	talking:   int64(12 * time.Hour),
}

const (
	shards = 16
	// maxPerCall bounds the scopes of one Call-ID: each message looks at all of them.
	maxPerCall = 64
	// sweepBatch is how many expired scopes one message clears away at most.
	sweepBatch = 32
	// watching in Tracker.busy: look-back is on.
	watching = 1 << 40
)

// Tracker holds the open scopes. Safe for concurrent use.
type Tracker struct {
	cfg     Config
	seed    maphash.Seed
	epoch   time.Time
	options atomic.Pointer[Options]
	busy    atomic.Int64 // open scopes, and watching
	bytes   atomic.Int64
	shards  [shards]shard

	started, ended, timedOut, evicted, stopped atomic.Uint64
}

// shard holds the scopes of some Call-IDs.
type shard struct {
	mu    sync.Mutex        // covers all below, and the scopes
	calls map[uint64]*scope // by hash of Call-ID, the first of a chain
	lists [lists]list
	ring  ring
	_     [64]byte // another core's shard is not on this cache line
}

// list has the scope that was heard of last at its end.
type list struct{ oldest, newest *scope }

// New makes a Tracker.
func New(c Config) *Tracker {
	if c.Scopes <= 0 {
		c.Scopes = 100_000
	}
	if c.Bytes <= 0 {
		c.Bytes = 32 << 20
	}
	if c.LookBack <= 0 {
		c.LookBack = 2 * time.Second
	}
	if c.LookBackBytes <= 0 {
		c.LookBackBytes = 4 << 20
	}
	t := &Tracker{cfg: c, seed: maphash.MakeSeed(), epoch: time.Now()}
	t.options.Store(&Options{})
	for i := range t.shards {
		t.shards[i].calls = map[uint64]*scope{}
	}
	return t
}

// SetOptions replaces the options.
func (t *Tracker) SetOptions(o Options) {
	old := t.options.Swap(&o)
	switch {
	case o.LookBack && !old.LookBack:
		t.busy.Add(watching)
	case !o.LookBack && old.LookBack:
		t.busy.Add(-watching)
		for i := range t.shards {
			sh := &t.shards[i]
			sh.mu.Lock()
			sh.ring = ring{}
			sh.mu.Unlock()
		}
	}
}

// Find appends the scopes that a message belongs to, in the order of their
// start, the first one of a rule that has several. With nothing open and no look-back it costs one atomic load. It keeps
// nothing of m and r but a copy for look-back: of r as it is now.
func (t *Tracker) Find(dst []Match, m *sipmsg.Message, r *siptrace.Record) []Match {
	if t.busy.Load() == 0 {
		return dst
	}
	call, ok := t.call(m)
	if !ok {
		return dst
	}
	sh := &t.shards[call%shards]
	now := t.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	o := t.options.Load()
	t.sweep(sh, now)
	if o.LookBack {
		sh.ring.put(call, now, now-int64(t.cfg.LookBack), t.cfg.LookBackBytes/shards, r)
	}
	s := sh.calls[call]
	if s == nil {
		return dst
	}
	v := t.view(m, r)
	for next := s; next != nil; {
		s, next = next, next.next
		if s.stale(now, v.packet) {
			t.expire(sh, s)
			continue
		}
		if !s.has(&v) {
			continue
		}
		ack := s.acknowledges(&v)
		skip := o.SkipACK && s.kind == Dialog && ack
		if o.SkipSpiral && s.kind == Dialog && s.spiral(t.seed, &v) {
			skip = true
		}
		t.update(sh, s, &v, now)
		if (!skip || o.Skipped) && !slices.ContainsFunc(dst, func(m Match) bool { return m.Rule == s.rule }) {
			dst = append(dst, Match{Rule: s.rule, Kind: s.kind, Skip: skip, ACK: ack, Data: s.data})
		}
	}
	return dst
}

// Start opens a scope around a message that a rule matched. It returns copies of
// what came before it and belongs to it, in order, if look-back is on; and
// whether the message itself is still to be dealt with: not if, between Find and
// Start, it was handed back to another caller for the same rule.
//
// No scope is opened for kind Message, for a message without Call-ID, and when
// the message is in a scope of that rule and kind already. A dialog that a
// request can't begin is traced as its transaction.
//
// Start may also come before Find of the same message, which then finds the scope.
func (t *Tracker) Start(kind Kind, rule uint64, data any, m *sipmsg.Message, r *siptrace.Record) (before []siptrace.Record, mine bool) {
	call, ok := t.call(m)
	if !ok || kind != Transaction && kind != Dialog {
		return nil, true
	}
	v := t.view(m, r)
	made := newScope(kind, &v)
	made.call, made.rule, made.data = call, rule, data

	sh := &t.shards[call%shards]
	now := t.now()
	sh.mu.Lock()
	t.sweep(sh, now)
	self := sh.ring.newest(call, r)
	mine = self == nil || !slices.Contains(self.given, rule)
	n := 0
	oldest := sh.calls[call]
	for o, next := oldest, (*scope)(nil); o != nil; o = next {
		next = o.next
		if o.rule == rule && o.kind == made.kind && !o.stale(now, v.packet) && o.has(&v) {
			sh.mu.Unlock()
			return nil, mine
		}
		if o.wall < oldest.wall {
			oldest = o
		}
		n++
	}
	if n >= maxPerCall {
		t.remove(sh, oldest)
		t.evicted.Add(1)
	}
	s := new(scope)
	*s = made
	t.started.Add(1)
	t.busy.Add(1)
	s.size = s.bytes()
	t.bytes.Add(int64(s.size))
	at := sh.calls[call]
	if at == nil {
		sh.calls[call] = s
	} else {
		for at.next != nil {
			at = at.next
		}
		at.next = s
	}
	sh.lists[s.list].add(s)

	if t.options.Load().LookBack {
		before = t.lookBack(sh, s, v.to, self, now)
	}
	t.update(sh, s, &v, now)
	sh.mu.Unlock()
	t.makeRoom(s)
	return before, mine
}

// lookBack copies what is in the ring beside self, belongs to s, and was in no
// scope of its rule before. To is the other end of the message that s began with.
func (t *Tracker) lookBack(sh *shard, s *scope, to uint64, self *entry, now int64) (out []siptrace.Record) {
	sh.ring.trim(now - int64(t.cfg.LookBack))
	type earlier struct {
		entry *entry
		view  view
	}
	var list []earlier
	for i := range sh.ring.n {
		e := sh.ring.at(i)
		if e.call != s.call || e == self {
			continue
		}
		m := new(sipmsg.Message)
		if m.Parse(e.rec.Msg) == nil {
			list = append(list, earlier{e, t.view(m, &e.rec)})
		}
	}
	for i := range list {
		if s.anchor(&list[i].view, to) {
			break
		}
	}
	for i := range list {
		e, v := list[i].entry, &list[i].view
		if !s.has(v) || slices.Contains(e.given, s.rule) || sh.taken(s, v) {
			continue
		}
		t.update(sh, s, v, now)
		e.given = append(e.given, s.rule)
		out = append(out, e.rec.Clone())
	}
	return out
}

// taken reports whether another scope of s's rule has the message.
func (sh *shard) taken(s *scope, v *view) bool {
	for o := sh.calls[s.call]; o != nil; o = o.next {
		if o != s && o.rule == s.rule && o.has(v) {
			return true
		}
	}
	return false
}

// Stop closes the scopes of a rule, and returns how many there were.
func (t *Tracker) Stop(rule uint64) int {
	n := 0
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for l := range sh.lists {
			for s := sh.lists[l].oldest; s != nil; {
				next := s.newer
				if s.rule == rule {
					t.remove(sh, s)
					n++
				}
				s = next
			}
		}
		sh.mu.Unlock()
	}
	t.stopped.Add(uint64(n))
	return n
}

// Stats returns the accounting, without the scopes whose time is up.
func (t *Tracker) Stats() Stats {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for t.sweep(sh, t.now()) {
			continue
		}
		sh.mu.Unlock()
	}
	return Stats{
		Open: t.open(), Bytes: t.bytes.Load(), Started: t.started.Load(), Ended: t.ended.Load(), TimedOut: t.timedOut.Load(),
		Evicted: t.evicted.Load(), Stopped: t.stopped.Load(),
	}
}

func (t *Tracker) open() int64 { return t.busy.Load() & (watching - 1) }

// now is the wall clock: a packet's own time may stand still, or jump.
func (t *Tracker) now() int64 { return int64(time.Since(t.epoch)) }

func (t *Tracker) call(m *sipmsg.Message) (uint64, bool) {
	id := m.CallID
	for len(id) > 0 && (id[len(id)-1] == ' ' || id[len(id)-1] == '\t') {
		id = id[:len(id)-1]
	}
	return maphash.Bytes(t.seed, id), len(id) > 0
}

// update lets s learn from a message, and moves it to the end of its list.
func (t *Tracker) update(sh *shard, s *scope, v *view, now int64) {
	sh.lists[s.list].remove(s)
	s.learn(v)
	s.wall, s.packet, s.list = now, max(s.packet, v.packet), s.waitsFor()
	sh.lists[s.list].add(s)
	if n := s.bytes(); n != s.size {
		t.bytes.Add(int64(n) - int64(s.size))
		s.size = n
	}
}

// sweep removes scopes whose time is up. It reports whether there may be more.
func (t *Tracker) sweep(sh *shard, now int64) bool {
	n := 0
	for l := range sh.lists {
		for s := sh.lists[l].oldest; s != nil && now-s.wall > patience[l]; s = sh.lists[l].oldest {
			if n++; n > sweepBatch {
				return true
			}
			t.expire(sh, s)
		}
	}
	return false
}

func (t *Tracker) expire(sh *shard, s *scope) {
	if s.list == lingering {
		t.ended.Add(1)
	} else {
		t.timedOut.Add(1)
	}
	t.remove(sh, s)
}

func (t *Tracker) remove(sh *shard, s *scope) {
	sh.lists[s.list].remove(s)
	if first := sh.calls[s.call]; first != s {
		for first.next != s {
			first = first.next
		}
		first.next = s.next
	} else if s.next != nil {
		sh.calls[s.call] = s.next
	} else {
		delete(sh.calls, s.call)
	}
	t.bytes.Add(-int64(s.size))
	t.busy.Add(-1)
}

// makeRoom removes scopes while there are too many: of the shard of s first,
// those that are over first, then those that were silent longest.
func (t *Tracker) makeRoom(s *scope) {
	for i := uint64(0); i < shards; {
		if t.open() <= int64(t.cfg.Scopes) && t.bytes.Load() <= t.cfg.Bytes {
			return
		}
		sh := &t.shards[(s.call+i)%shards]
		sh.mu.Lock()
		if o := sh.dispensable(s); o != nil {
			t.remove(sh, o)
			t.evicted.Add(1)
		} else {
			i++
		}
		sh.mu.Unlock()
	}
}

func (sh *shard) dispensable(not *scope) *scope {
	var found *scope
	for l := range sh.lists {
		o := sh.lists[l].oldest
		if o == not {
			o = o.newer
		}
		if o == nil {
			continue
		}
		if l == lingering {
			return o
		}
		if found == nil || o.wall < found.wall {
			found = o
		}
	}
	return found
}

func (l *list) add(s *scope) {
	s.older, s.newer = l.newest, nil
	if l.newest != nil {
		l.newest.newer = s
	} else {
		l.oldest = s
	}
	l.newest = s
}

func (l *list) remove(s *scope) {
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		l.oldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		l.newest = s.older
	}
}
