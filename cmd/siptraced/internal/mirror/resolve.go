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

	mu      sync.Mutex // covers what follows
	addrs   []netip.AddrPort
	err     error         // of the last lookup
	answers chan struct{} // closed when the first lookup ended
}

// newResolver makes the resolver of a target; lookup may be nil.
func newResolver(t Target, lookup func(context.Context, string) ([]netip.Addr, error), log *slog.Logger) *resolver {
	if lookup == nil {
		lookup = systemLookup
	}
	r := &resolver{host: t.Host, port: t.Port, log: log, lookup: lookup, again: make(chan struct{}, 1), answers: make(chan struct{})}
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		r.set([]netip.Addr{ip}, nil)
	}
	return r
}

// get returns the addresses that are known.
func (r *resolver) get() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs
}

// await returns the addresses, once the host was looked up for the first time.
func (r *resolver) await(ctx context.Context) ([]netip.AddrPort, error) {
	select {
	case <-r.answers:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.addrs) == 0 {
		return nil, r.err
	}
	return r.addrs, nil
}

var errNoAnswer = errors.New("no name server answered so far")

// giveUp ends the wait for a first answer.
func (r *resolver) giveUp() {
	select {
	case <-r.answers:
	default:
		r.set(nil, errNoAnswer)
	}
}

// set notes the answer to a lookup. Without one the old addresses stay.
func (r *resolver) set(ips []netip.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addrs == nil && r.err == nil {
		close(r.answers)
	}
	r.err = err
	if err != nil {
		return
	}
	r.addrs = make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		r.addrs = append(r.addrs, netip.AddrPortFrom(ip.Unmap(), r.port))
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
		attempt, cancel := context.WithTimeout(ctx, lookupTimeout)
		ips, err := r.lookup(attempt, r.host)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			r.set(ips, nil)
			if lastErr != "" {
				r.log.Info("mirror: the name is known again", "host", r.host)
			}
			retry, lastErr = firstLookupRetry, ""
		default:
			r.set(nil, err)
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

// systemLookup asks the system's name servers and hosts file. It is Go's own
// resolver that does: a lookup by the C library can't be cancelled.
func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ips, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, errors.New("no address")
	}
	return slices.Compact(ips), nil
}
