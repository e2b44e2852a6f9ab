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
)

const (
	// lookupTimeout bounds one lookup, over all name servers and tries.
	lookupTimeout = 10 * time.Second
	// lookupInterval is how long addresses are used before the name is looked up
	// again; a connection that fails asks at once.
	lookupInterval = 30 * time.Second
	// A lookup that failed is repeated after firstLookupRetry, and then after twice
	// as long each time up to lookupInterval. Lookups are at least so far apart.
	firstLookupRetry = time.Second
)

// resolver keeps the addresses of one host, looked up in the background.
type resolver struct {
	host   string
	port   uint16
	log    *slog.Logger
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	again  chan struct{} // asks for a lookup now

	mu    sync.Mutex // covers addrs
	addrs []netip.AddrPort
	ready chan struct{} // closed when there are addresses
}

func newResolver(t Target, log *slog.Logger) *resolver {
	r := &resolver{host: t.Host, port: t.Port, log: log, lookup: lookup, again: make(chan struct{}, 1), ready: make(chan struct{})}
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		r.set([]netip.Addr{ip})
	}
	return r
}

// get returns the addresses that are known.
func (r *resolver) get() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs
}

func (r *resolver) set(ips []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.addrs == nil
	r.addrs = nil
	for _, ip := range ips {
		r.addrs = append(r.addrs, netip.AddrPortFrom(ip.Unmap(), r.port))
	}
	if first && r.addrs != nil {
		close(r.ready)
	}
}

// refresh asks for a lookup: the addresses may be out of date.
func (r *resolver) refresh() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// run keeps the addresses up to date until ctx ends. While no name server
// answers, the old ones stay.
func (r *resolver) run(ctx context.Context) {
	if _, err := netip.ParseAddr(r.host); err == nil {
		return
	}
	retry, lastErr := firstLookupRetry, ""
	for {
		wait := lookupInterval
		ips, err := r.lookup(ctx, r.host)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			r.set(ips)
			if lastErr != "" {
				r.log.Info("mirror: the name is known again", "host", r.host)
			}
			retry, lastErr = firstLookupRetry, ""
		default:
			wait, retry = retry, min(2*retry, lookupInterval)
			if text := err.Error(); text != lastErr {
				r.log.Warn("mirror: the name can't be looked up, trying again", "host", r.host, "err", err)
				lastErr = text
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(firstLookupRetry):
		}
		select {
		case <-ctx.Done():
			return
		case <-r.again:
		case <-time.After(wait - firstLookupRetry):
		}
	}
}

// lookup asks the system's name servers and hosts file for the addresses of a
// host. Go's own resolver: a lookup by the C library can't be cancelled.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, errors.New("no address")
	}
	return slices.Compact(ips), nil
}
