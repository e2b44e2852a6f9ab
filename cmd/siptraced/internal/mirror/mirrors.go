package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/spool"
)

// sinkPrefix begins the name of a destination in the spool and in the counters.
const sinkPrefix = "mirror."

// Mirrors are all destinations.
type Mirrors struct {
	cfg      Config
	spool    *spool.Spool
	counters *counters.Set
	log      *slog.Logger
	xheaders atomic.Bool
	sockets  ownSockets
	buffers  sync.Pool

	tooMany, badURI *atomic.Uint64

	mu       sync.RWMutex // covers what follows
	sinks    []*sink
	texts    map[string]*sink // URIs as rules wrote them
	warnedAt time.Time
	started  bool
	stopped  bool

	janitor sync.WaitGroup
	stop    context.CancelFunc
}

// Open finds the place of each destination in the spool, those included that a
// rule named before a restart and that still have something waiting.
func Open(ctx context.Context, cfg Config, sp *spool.Spool, c *counters.Set, log *slog.Logger) (*Mirrors, error) {
	m := &Mirrors{
		cfg: cfg, spool: sp, counters: c, log: log, texts: map[string]*sink{},
		tooMany: c.Counter("mirrors.too_many"), badURI: c.Counter("mirrors.bad_uri"),
		buffers: sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 2*chunkSize)} }},
	}
	kept, err := sp.Kept(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range cfg.Destinations {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("mirror %s: %w", d.URI, err)
		}
		if _, err := m.add(ctx, d, false); err != nil {
			return nil, err
		}
	}
	for key, uri := range kept {
		name, ok := strings.CutPrefix(key, sinkPrefix)
		if !ok {
			continue
		}
		d, err := cfg.dynamic(uri)
		d.Name = name
		if err != nil || m.find(d.Target) != nil {
			_ = sp.Keep(ctx, key, "")
			continue
		}
		if _, err := m.add(ctx, d, true); err != nil {
			return nil, err
		}
	}
	return m, sp.Forget(ctx, sinkPrefix, func(name string) bool { return m.byName(name) != nil })
}

func (m *Mirrors) find(t Target) *sink {
	for _, s := range m.sinks {
		if s.Target == t {
			return s
		}
	}
	return nil
}

func (m *Mirrors) byName(name string) *sink {
	for _, s := range m.sinks {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// add opens a destination; m.mu is held, or nobody else is there yet.
func (m *Mirrors) add(ctx context.Context, d Destination, dynamic bool) (*sink, error) {
	if m.byName(d.Name) != nil {
		base := d.Name
		for i := 2; m.byName(d.Name) != nil; i++ {
			d.Name = base + "-" + strconv.Itoa(i)
		}
	}
	s := &sink{Destination: d, m: m, dynamic: dynamic, drain: make(chan struct{})}
	s.log = m.log.With("sink", sinkPrefix+d.Name)
	s.duplicate.Store(d.Duplicate)
	s.used.Store(time.Now().UnixNano())
	s.resolver = newResolver(d.Target, s.log)
	count := func(name string) *atomic.Uint64 { return m.counters.Counter(sinkPrefix + d.Name + "." + name) }
	for o := range outcomes {
		s.counts[o] = count(countNames[o])
	}
	s.missed, s.refused, s.connects, s.bytes, s.backlog = count("missed"), count("refused"), count("connects"), count("bytes"), count("backlog")
	open := m.spool.Reader
	if m.started || dynamic {
		open = m.spool.Join
	}
	for i := range m.spool.Shards() {
		r, err := open(ctx, sinkPrefix+d.Name, i)
		if err != nil {
			m.leave(ctx, s)
			return nil, fmt.Errorf("mirror %s: %w", d.Name, err)
		}
		waiting, before := r.Opened()
		s.backlog.Add(waiting)
		count("before").Add(before)
		s.readers = append(s.readers, r)
	}
	s.sender = newSender(s)
	m.counters.Func(sinkPrefix+d.Name+".pending", s.pending)
	m.counters.Func(sinkPrefix+d.Name+".lag_seconds", s.lagSeconds)
	m.sinks = append(m.sinks, s)
	if m.started {
		s.start()
	}
	return s, nil
}

func (m *Mirrors) leave(ctx context.Context, s *sink) {
	if err := m.spool.Leave(ctx, s.readers...); err != nil {
		m.log.Warn("mirror: the position stays behind", "sink", sinkPrefix+s.Name, "err", err)
	}
}

func (s *sink) start() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.done.Go(func() { s.resolver.run(ctx) })
	s.done.Go(func() {
		defer stop() // nobody connects any more
		s.sender.run(ctx)
	})
}

// Start starts the senders and returns.
func (m *Mirrors) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = true
	for _, s := range m.sinks {
		s.start()
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.janitor.Go(func() {
		tick := time.NewTicker(retireInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				m.retire(ctx)
			}
		}
	})
}

// Stop lets the senders send what the spool holds, until ctx ends, and waits for
// them. What is left stays in the spool.
func (m *Mirrors) Stop(ctx context.Context) {
	if m.stop != nil {
		m.stop()
	}
	m.janitor.Wait()
	m.mu.Lock()
	m.stopped = true
	sinks := m.sinks
	m.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range sinks {
		all.Go(func() { s.end(ctx) })
	}
	all.Wait()
}

// end drains a destination until ctx ends.
func (s *sink) end(ctx context.Context) {
	close(s.drain)
	if s.stop != nil {
		ended := make(chan struct{})
		go func() {
			s.done.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		s.stop()
		<-ended
	}
	for _, r := range s.readers {
		r.Close()
	}
}

// Pending is how many messages wait, over all destinations.
func (m *Mirrors) Pending() (n uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.sinks {
		n += s.pending()
	}
	return n
}

// Names returns the counter prefix of each destination.
func (m *Mirrors) Names() (names []string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.sinks {
		names = append(names, sinkPrefix+s.Name)
	}
	return names
}

// SetXHeaders switches xheaders_write for the destinations of duplicate_uri and
// of rules.
func (m *Mirrors) SetXHeaders(on bool) { m.xheaders.Store(on) }

// SetDuplicates takes over another duplicate_uri. A destination that is no
// longer in it gets nothing more.
func (m *Mirrors) SetDuplicates(ctx context.Context, uris []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var targets []Target
	for _, uri := range uris {
		d, err := m.cfg.dynamic(uri)
		if err != nil {
			return err
		}
		targets = append(targets, d.Target)
		s := m.plain(d.Target)
		if s == nil {
			if s, err = m.add(ctx, d, true); err != nil {
				return err
			}
		}
		s.duplicate.Store(true)
	}
	for _, s := range m.sinks {
		if !s.Static && !slices.Contains(targets, s.Target) {
			s.duplicate.Store(false)
		}
	}
	return nil
}

// plain finds the destination that is not one of those that take everything.
func (m *Mirrors) plain(t Target) *sink {
	for _, s := range m.sinks {
		if s.Target == t && !s.Static {
			return s
		}
	}
	return nil
}

// EnsureDestination makes sure that a destination that a rule named has its place in the
// spool. It is called before the record is put there, and is cheap for one that
// is known.
func (m *Mirrors) EnsureDestination(uri string) {
	m.mu.RLock()
	s := m.texts[uri]
	if s != nil {
		s.used.Store(time.Now().UnixNano())
	}
	m.mu.RUnlock()
	if s != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ensure(uri); err != nil && time.Since(m.warnedAt) >= warnInterval {
		m.warnedAt = time.Now()
		m.log.Warn("mirror: a rule names a destination that cannot be opened", "uri", uri, "err", err)
	}
}

func (m *Mirrors) ensure(uri string) error {
	if m.stopped {
		return nil
	}
	d, err := m.cfg.dynamic(uri)
	if err != nil {
		m.badURI.Add(1)
		return err
	}
	s := m.find(d.Target)
	if s == nil {
		n := 0
		for _, s := range m.sinks {
			if s.dynamic {
				n++
			}
		}
		if n >= MaxDynamic {
			m.tooMany.Add(1)
			return fmt.Errorf("there are %d already", n)
		}
		// A crash must find it again.
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		if s, err = m.add(ctx, d, true); err != nil {
			m.badURI.Add(1)
			return err
		}
		if err := m.spool.Keep(ctx, sinkPrefix+s.Name, uri); err != nil {
			m.log.Warn("mirror: the destination is not known after a restart", "uri", uri, "err", err)
		}
		m.log.Info("mirror: a rule named a new destination", "uri", uri, "sink", sinkPrefix+s.Name)
	}
	s.used.Store(time.Now().UnixNano())
	if len(m.texts) >= maxTexts {
		clear(m.texts)
	}
	m.texts[uri] = s
	return nil
}

const (
	// retireAfter is how long a destination that a rule named stays without being
	// named again.
	retireAfter    = 5 * time.Minute
	retireInterval = 30 * time.Second
)

// retire ends the destinations that nobody names any more and for which nothing
// waits.
func (m *Mirrors) retire(ctx context.Context) {
	m.mu.Lock()
	var idle []*sink
	m.sinks = slices.DeleteFunc(m.sinks, func(s *sink) bool {
		if !s.dynamic || s.duplicate.Load() || time.Since(time.Unix(0, s.used.Load())) < retireAfter || s.pending() > 0 {
			return false
		}
		idle = append(idle, s)
		return true
	})
	for uri, s := range m.texts {
		if slices.Contains(idle, s) {
			delete(m.texts, uri)
		}
	}
	m.mu.Unlock()
	for _, s := range idle {
		s.end(ctx)
		m.leave(ctx, s)
		if err := m.spool.Keep(ctx, sinkPrefix+s.Name, ""); err != nil {
			m.log.Warn("mirror: a destination is not forgotten", "sink", sinkPrefix+s.Name, "err", err)
		}
		m.counters.Fold(sinkPrefix+s.Name+".", sinkPrefix+"retired.")
	}
}

// limit is a destination's bound in bytes, per shard.
func (m *Mirrors) limit(bytes int64) int64 {
	if m.cfg.SpoolBytes > 0 {
		bytes = min(bytes, m.cfg.SpoolBytes/2)
	}
	return bytes / int64(m.spool.Shards())
}

// buffer gathers packets for one write.
type buffer struct{ b []byte }

func (m *Mirrors) buffer() *buffer { return m.buffers.Get().(*buffer) }

func (m *Mirrors) release(b *buffer) {
	b.b = b.b[:0]
	m.buffers.Put(b)
}

// IsOwnSocket reports whether mirrors are sent from that address.
func (m *Mirrors) IsOwnSocket(a netip.AddrPort) bool { return m.sockets.has(a) }

// IsDestinationHost reports whether an address is that of a destination's host, as far as
// names are known.
func (m *Mirrors) IsDestinationHost(ip netip.Addr) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.ContainsFunc(m.sinks, func(s *sink) bool {
		return slices.ContainsFunc(s.resolver.get(), func(a netip.AddrPort) bool { return a.Addr() == ip })
	})
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
