package mirror

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// lookupTimeout bounds one question, over all servers and tries.
	lookupTimeout = 10 * time.Second
	// An answer is kept for its TTL within these bounds; without one (a hosts
	// file) for defaultTTL.
	minTTL     = 5 * time.Second
	maxTTL     = time.Hour
	defaultTTL = time.Minute
	// A name without answer is asked for again after this, and then twice as
	// long each time.
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// names keeps the addresses of a destination, looked up in the background.
type names struct {
	host string
	port uint16
	log  *slog.Logger

	mu    sync.Mutex // covers addrs
	addrs []netip.AddrPort
	ready chan struct{} // closed when there are addresses
}

func newNames(t Target, log *slog.Logger) *names {
	n := &names{host: t.Host, port: t.Port, log: log, ready: make(chan struct{})}
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		n.set([]netip.Addr{ip})
	}
	return n
}

// get is the addresses as far as they are known.
func (n *names) get() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addrs
}

func (n *names) set(ips []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := n.addrs == nil
	n.addrs = nil
	for _, ip := range ips {
		n.addrs = append(n.addrs, netip.AddrPortFrom(ip.Unmap(), n.port))
	}
	if first && n.addrs != nil {
		close(n.ready)
	}
}

// run keeps the addresses up to date until ctx ends. Old ones stay while nobody
// answers.
func (n *names) run(ctx context.Context) {
	if _, err := netip.ParseAddr(n.host); err == nil {
		return
	}
	retry, said := firstRetry, ""
	for {
		ips, wait, err := lookup(ctx, n.host)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			n.set(ips)
			if retry = firstRetry; said != "" {
				n.log.Info("mirror: the name is known again", "host", n.host)
				said = ""
			}
		default:
			wait, retry = retry, min(2*retry, maxRetry)
			if text := err.Error(); text != said {
				n.log.Warn("mirror: the name can't be looked up, trying again", "host", n.host, "err", err)
				said = text
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// lookup asks for the addresses of a host, and says how long the answer holds:
// Go's resolver keeps the TTL to itself, so it is read from what passes by.
func lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	t := &ttlReader{}
	r := &net.Resolver{PreferGo: true, Dial: t.dial}
	ips, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, 0, err
	}
	if len(ips) == 0 {
		return nil, 0, errors.New("no address")
	}
	return slices.Compact(ips), t.ttl(), nil
}

// ttlReader notes the least TTL of the answers that its connections carry.
type ttlReader struct {
	mu    sync.Mutex // covers least and found
	least time.Duration
	found bool
}

func (t *ttlReader) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UDPConn); ok {
		return &ttlConn{UDPConn: u, t: t}, nil
	}
	return c, nil // too long for UDP: rare, and defaultTTL does
}

// ttlConn stays a net.PacketConn: by that the resolver tells UDP from TCP.
type ttlConn struct {
	*net.UDPConn
	t *ttlReader
}

func (c *ttlConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil {
		c.t.note(b[:n])
	}
	return n, err
}

func (t *ttlReader) note(msg []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(msg); err != nil || p.SkipAllQuestions() != nil {
		return
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			return
		}
		t.mu.Lock()
		if ttl := time.Duration(h.TTL) * time.Second; !t.found || ttl < t.least {
			t.least, t.found = ttl, true
		}
		t.mu.Unlock()
		if p.SkipAnswer() != nil {
			return
		}
	}
}

func (t *ttlReader) ttl() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.found {
		return defaultTTL
	}
	return min(max(t.least, minTTL), maxTTL)
}
