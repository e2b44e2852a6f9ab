package mirror

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// nameServer answers lookups with what it was told to.
type nameServer struct {
	mu      sync.Mutex // covers what follows
	answer  []netip.Addr
	err     error
	lookups int
}

func (n *nameServer) set(err error, ips ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer, n.err = nil, err
	for _, ip := range ips {
		n.answer = append(n.answer, netip.MustParseAddr(ip))
	}
}

func (n *nameServer) lookup(ctx context.Context, _ string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookups++
	return n.answer, n.err
}

// Names are looked up at an interval, and soon after a refresh; the addresses
// stay while no name server answers.
func TestResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &nameServer{}
		server.set(errors.New("server misbehaving"))
		r := newResolver(Target{Host: "homer.example.com", Port: 9060}, server.lookup, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() { r.run(ctx) })
		defer done.Wait()
		defer stop()

		expect := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, a := range r.get() {
				got = append(got, a.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", when, got, want)
			}
		}
		expect("without an answer")
		server.set(nil, "192.0.2.1", "::ffff:192.0.2.2")
		time.Sleep(firstLookupRetry)
		expect("after a retry", "192.0.2.1:9060", "192.0.2.2:9060")
		select {
		case <-r.answers:
		default:
			t.Error("addresses are known, and it is not ready")
		}
		server.set(nil, "192.0.2.3")
		time.Sleep(lookupInterval - time.Millisecond)
		expect("before the interval is over", "192.0.2.1:9060", "192.0.2.2:9060")
		time.Sleep(time.Millisecond)
		expect("after the interval", "192.0.2.3:9060")

		server.set(errors.New("server misbehaving"))
		time.Sleep(10 * lookupInterval)
		expect("while the name server is away", "192.0.2.3:9060")
		if server.lookups > 30 {
			t.Errorf("%d lookups", server.lookups)
		}

		server.set(nil, "192.0.2.4")
		time.Sleep(lookupInterval)
		expect("when it is back", "192.0.2.4:9060")
		server.set(nil, "192.0.2.5")
		r.refresh()
		time.Sleep(firstLookupRetry)
		expect("after a refresh", "192.0.2.5:9060")
	})
}

// An address needs no lookup.
func TestResolverAddress(t *testing.T) {
	server := &nameServer{}
	r := newResolver(Target{Host: "2001:db8::1", Port: 9060}, server.lookup, slog.New(slog.DiscardHandler))
	r.run(context.Background())
	if got := r.get(); len(got) != 1 || got[0] != netip.MustParseAddrPort("[2001:db8::1]:9060") || server.lookups != 0 {
		t.Errorf("got %v, %d lookups", got, server.lookups)
	}
}
