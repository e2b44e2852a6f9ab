package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// sinkPrefix begins the name of a destination in the spool and in the counters.
const sinkPrefix = "mirror."

// Mirrors are all destinations. Its locks are taken in the order applying, mu,
// those of the spool; mu is never held while anything waits.
type Mirrors struct {
	spool    *spool.Spool
	counters *counters.Set
	log      *slog.Logger
	sockets  ownSockets
	buffers  sync.Pool
	dial     func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error)
	isSelf   func(transport siptrace.Proto, addr netip.AddrPort) bool
	marking  atomic.Pointer[marking]

	tooMany, badURI *atomic.Uint64

	// routes are the URIs as rules wrote them. They are read for each message.
	routes   sync.Map // of string to *route
	routesNo atomic.Int64

	applying sync.Mutex // held while destinations are changed or removed

	mu       sync.RWMutex // covers what follows
	cfg      Config
	loops    *loop.Detector
	sinks    []*sink
	warnedAt time.Time
	stopped  bool

	stopRetiring context.CancelFunc
	retiring     sync.WaitGroup
}

// route is what became of a URI that a rule named.
type route struct {
	sink *sink // nil: refused
	// refusals counts the messages that named it in vain, until it is tried again.
	refusals *atomic.Uint64
	until    time.Time
}

// Open starts the mirrors: the destinations of the configuration, and those that
// a rule named before a restart. The destinations are connected to when there is
// something to send.
func Open(ctx context.Context, cfg Config, sp *spool.Spool, c *counters.Set, log *slog.Logger) (*Mirrors, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Mirrors{
		cfg: cfg, loops: cfg.Loops, spool: sp, counters: c, log: log, dial: cfg.Dial, isSelf: cfg.Self,
		tooMany: c.Counter("mirrors.too_many"), badURI: c.Counter("mirrors.bad_uri"),
		buffers: sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 2*chunkSize)} }},
	}
	if m.dial == nil {
		m.dial = systemDial
	}
	kept, err := sp.Meta(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]Destination{}
	var order []string
	for _, d := range cfg.Destinations {
		name := unique(d.Name, func(n string) bool { _, taken := names[n]; return taken })
		names[name], order = d, append(order, name)
	}
	remembered := m.remembered(kept, names)
	known := func(name string) bool {
		_, static := names[name]
		_, dynamic := remembered[name]
		return static || dynamic
	}
	sp.Forget(sinkPrefix, known)
	for _, name := range order {
		m.sinks = append(m.sinks, m.newSink(name, names[name], spool.Oldest, false))
	}
	for _, name := range slices.Sorted(maps.Keys(remembered)) {
		m.sinks = append(m.sinks, m.newSink(name, remembered[name], spool.Newest, true))
	}
	m.countMarking()
	var run context.Context
	run, m.stopRetiring = context.WithCancel(context.Background())
	m.retiring.Go(func() { m.retireIdle(run) })
	return m, nil
}

// remembered are the destinations by name that a rule named before a restart; one that
// the configuration has by now, or that can't be used any more, is forgotten.
func (m *Mirrors) remembered(kept map[string]string, configured map[string]Destination) map[string]Destination {
	out := map[string]Destination{}
	for _, key := range slices.Sorted(maps.Keys(kept)) {
		name, ok := strings.CutPrefix(key, sinkPrefix)
		if !ok {
			continue
		}
		d, err := m.cfg.dynamic(kept[key])
		_, taken := configured[name]
		if err != nil || taken || slices.ContainsFunc(m.cfg.Destinations, func(o Destination) bool { return o.Target == d.Target }) {
			m.spool.PutMeta(key, "")
			continue
		}
		out[name] = d
	}
	return out
}

// unique is name, or with a number behind it when that is taken.
func unique(name string, taken func(string) bool) string {
	n := name
	for i := 2; taken(n); i++ {
		n = name + "-" + strconv.Itoa(i)
	}
	return n
}

// find returns the first destination that takes new messages and of which ok is
// true; m.mu is held.
func (m *Mirrors) find(ok func(s *sink) bool) *sink {
	for _, s := range m.sinks {
		if s.used.Load() != retired && ok(s) {
			return s
		}
	}
	return nil
}

// add begins another destination, with what comes from now on; m.mu is held.
func (m *Mirrors) add(d Destination, dynamic bool) *sink {
	name := unique(d.Name, func(n string) bool {
		return slices.ContainsFunc(m.sinks, func(s *sink) bool { return s.name == sinkPrefix+n })
	})
	s := m.newSink(name, d, spool.Newest, dynamic)
	m.sinks = append(m.sinks, s)
	return s
}

// Apply makes the destinations those of cfg. One that is new gets what comes from
// now on. One that is gone gets nothing more, and what waits for it is dropped,
// counted as mirror.retired.removed and logged; one of duplicate_uri stays until
// rules name it no more either. One that has other settings, or the same ones,
// goes on where it is: messages in flight are not sent twice, those that wait go
// out with the new settings. Destinations that rules named get the settings of
// cfg.Dynamic.
//
// Static destinations are known by their names, others by their targets. After an
// error nothing is changed.
func (m *Mirrors) Apply(_ context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	m.applying.Lock()
	defer m.applying.Unlock()
	for _, s := range m.change(cfg) {
		m.remove(s)
	}
	return nil
}

// change does what Apply does without waiting for anything, and returns the
// destinations that have to be removed.
func (m *Mirrors) change(cfg Config) (gone []*sink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil
	}
	m.cfg = cfg
	m.clearRoutes() // what was refused may be possible now
	wanted := map[*sink]bool{}
	for _, d := range cfg.Destinations {
		s := m.find(func(s *sink) bool {
			old := s.settings.Load()
			return old.Static == d.Static && (d.Static && old.Name == d.Name || !d.Static && old.Target == d.Target)
		})
		if s == nil {
			s = m.add(d, false)
			s.log.Info("mirror: a new destination", "uri", d.URI)
		} else {
			s.set(d)
			s.dynamic = false
		}
		wanted[s] = true
	}
	for _, s := range m.sinks {
		if wanted[s] || s.used.Load() == retired {
			continue
		}
		old := s.settings.Load()
		if d, err := cfg.dynamic(old.URI); err == nil && !old.Static {
			if !s.dynamic {
				s.used.Store(time.Now().UnixNano())
				m.spool.PutMeta(s.name, d.URI)
			}
			s.set(d)
			s.dynamic = true
			continue
		}
		s.used.Store(retired)
		gone = append(gone, s)
	}
	m.countMarking()
	return gone
}

// remove ends a retired destination; m.applying is held.
func (m *Mirrors) remove(s *sink) {
	if n := s.remove(); n > 0 {
		s.log.Warn("mirror: the destination is gone from the configuration, what waited for it is dropped", "messages", n)
		m.counters.Counter(s.name + ".removed").Add(n)
	}
	m.spool.PutMeta(s.name, "")
	m.counters.Fold(s.name+".", sinkPrefix+"retired.")
	m.mu.Lock()
	m.sinks = slices.DeleteFunc(m.sinks, func(o *sink) bool { return o == s })
	m.mu.Unlock()
}

// Stop lets the destinations take what the spool holds, until ctx ends. It waits
// for none that cannot be reached. What is left stays in the spool.
func (m *Mirrors) Stop(ctx context.Context) {
	m.stopRetiring()
	m.retiring.Wait()
	m.applying.Lock()
	defer m.applying.Unlock()
	m.mu.Lock()
	m.stopped = true
	sinks := m.sinks
	m.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range sinks {
		all.Go(func() { s.stop(ctx) })
	}
	all.Wait()
}

// Pending is how many messages wait, over all destinations.
func (m *Mirrors) Pending() (n uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.sinks {
		n += s.consumer.Pending()
	}
	return n
}

// Names returns the counter prefix of each destination.
func (m *Mirrors) Names() (names []string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.sinks {
		names = append(names, s.name)
	}
	return names
}

// Consumer is what carries the spool to a destination, by the prefix of its counters;
// byRules: only rules name it, and no configuration. nil: there is none of that name.
func (m *Mirrors) Consumer(name string) (c *spool.Consumer, byRules bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.sinks {
		if s.name == name {
			return s.consumer, s.dynamic
		}
	}
	return nil, false
}

const (
	// refuseAgain is how long a URI that can be no destination is not looked at
	// again.
	refuseAgain = 30 * time.Second
	// maxRoutes bounds the URIs that are remembered.
	maxRoutes = 1024
)

// EnsureDestination makes sure that a destination that a rule named gets what
// comes from now on. It is called before the record goes to the spool. It does no
// I/O, and takes a lock only for a URI that it sees for the first time, or that
// was refused half a minute ago.
func (m *Mirrors) EnsureDestination(uri string) {
	for {
		r, ok := m.routes.Load(uri)
		if !ok {
			r = m.newRoute(uri)
		}
		switch r := r.(*route); {
		case r.sink == nil && !ok:
			r.refusals.Add(1)
			return
		case r.sink != nil && r.sink.touch():
			return
		case r.sink == nil && time.Now().Before(r.until):
			r.refusals.Add(1)
			return
		default:
			m.routes.CompareAndDelete(uri, r) // retired meanwhile, or to be tried again
		}
	}
}

// newRoute finds the destination of a URI, or begins it.
func (m *Mirrors) newRoute(uri string) *route {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.routeTo(uri)
	if err != nil && time.Since(m.warnedAt) >= warnInterval {
		m.warnedAt = time.Now()
		m.log.Warn("mirror: a rule names a destination that cannot be used", "uri", uri, "err", err)
	}
	if m.routesNo.Add(1) > maxRoutes {
		m.clearRoutes()
	}
	m.routes.Store(uri, r)
	return r
}

func (m *Mirrors) clearRoutes() {
	m.routes.Clear()
	m.routesNo.Store(0)
}

func (m *Mirrors) routeTo(uri string) (*route, error) {
	refused := &route{refusals: m.badURI, until: time.Now().Add(refuseAgain)}
	d, err := m.cfg.dynamic(uri)
	if err != nil {
		return refused, err
	}
	if s := m.find(func(s *sink) bool { return s.settings.Load().Target == d.Target }); s != nil {
		return &route{sink: s}, nil
	}
	if m.stopped {
		return &route{refusals: new(atomic.Uint64), until: refused.until}, nil
	}
	n := 0
	for _, s := range m.sinks {
		if s.dynamic {
			n++
		}
	}
	if n >= MaxDynamic {
		refused.refusals = m.tooMany
		return refused, fmt.Errorf("there are %d already", n)
	}
	s := m.add(d, true)
	m.spool.PutMeta(s.name, uri) // a restart must find it again
	m.log.Info("mirror: a rule named a new destination", "uri", uri, "sink", s.name)
	return &route{sink: s}, nil
}

const (
	// retireAfter is how long a destination that a rule named stays without being
	// named again.
	retireAfter    = 5 * time.Minute
	retireInterval = 30 * time.Second
)

func (m *Mirrors) retireIdle(ctx context.Context) {
	tick := time.NewTicker(retireInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.retire()
		}
	}
}

// retire removes the destinations that nobody names any more and for which
// nothing waits.
func (m *Mirrors) retire() {
	m.applying.Lock()
	defer m.applying.Unlock()
	m.mu.RLock()
	var idle []*sink
	for _, s := range m.sinks {
		last := s.used.Load()
		if s.dynamic && last != retired && time.Since(time.Unix(0, last)) >= retireAfter && s.consumer.Pending() == 0 && s.used.CompareAndSwap(last, retired) {
			idle = append(idle, s)
		}
	}
	m.mu.RUnlock()
	for _, s := range idle {
		m.remove(s)
	}
}

// buffer gathers packets for one write.
type buffer struct{ b []byte }

func (m *Mirrors) buffer() *buffer { return m.buffers.Get().(*buffer) }

func (m *Mirrors) release(b *buffer) {
	b.b = b.b[:0]
	m.buffers.Put(b)
}

// marking is how many destinations send HEP3: of what is listed, and of what is
// meant for duplicate_uri.
type marking struct{ listed, duplicate int }

// countMarking does so; m.mu is held, or m is new.
func (m *Mirrors) countMarking() {
	var n marking
	for _, s := range m.sinks {
		switch d := s.settings.Load(); {
		case d.hepVersion() != 3 || s.used.Load() == retired:
		case d.Static:
			n.listed++
		case d.Duplicate:
			n.duplicate++
		}
	}
	m.marking.Store(&n)
}

// MarkedCopies is how many destinations will send a record with the path of
// instances, at the most: a filter may say no. What others of a cluster may send
// is not counted.
func (m *Mirrors) MarkedCopies(rec *siptrace.Record) (copies int) {
	if rec.Sinks&siptrace.Mirrored == 0 || rec.Packet != nil || rec.Type == siptrace.TypeLog || m.spool.Contended() {
		return 0
	}
	n := m.marking.Load()
	if rec.Sinks&siptrace.ToListed != 0 {
		copies = n.listed
	}
	switch {
	case rec.Sinks&siptrace.ToHEP == 0:
	case rec.Destinations == nil:
		copies += n.duplicate
	default:
		copies += len(rec.Destinations)
	}
	return copies
}

// IsOwnSocket reports whether mirrors are sent from that address.
func (m *Mirrors) IsOwnSocket(a netip.AddrPort) bool { return m.sockets.has(a) }

// IsDestinationHost reports whether an address is that of a destination's host,
// as far as names are known.
func (m *Mirrors) IsDestinationHost(ip netip.Addr) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.find(func(s *sink) bool {
		return slices.ContainsFunc(s.resolver.Load().get(), func(a netip.AddrPort) bool { return a.Addr() == ip })
	}) != nil
}

// ownSockets are the local addresses of open sockets. Read for each packet,
// changed rarely.
type ownSockets struct {
	mu  sync.Mutex // covers changes
	now atomic.Pointer[map[netip.AddrPort]int]
}

func (o *ownSockets) has(a netip.AddrPort) bool {
	m := o.now.Load()
	return m != nil && (*m)[a] > 0
}

func (o *ownSockets) add(a netip.AddrPort)    { o.change(a, 1) }
func (o *ownSockets) remove(a netip.AddrPort) { o.change(a, -1) }

func (o *ownSockets) change(a netip.AddrPort, by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := map[netip.AddrPort]int{}
	if m := o.now.Load(); m != nil {
		for k, n := range *m {
			next[k] = n
		}
	}
	if next[a] += by; next[a] == 0 {
		delete(next, a)
	}
	o.now.Store(&next)
}
