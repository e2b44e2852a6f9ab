package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

// maxRequest is the length of the longest request on any transport, in bytes:
// Kamailio's buffer of ctl.
const maxRequest = 65535

// Server owns the sockets and FIFOs of all listeners.
type Server struct {
	handlers Handlers
	limits   Limits
	rate     *rateLimiter
	json     jsonrpc.Server
	log      *slog.Logger

	services []service
	made     []made
	fifos    []identity // of the command FIFOs

	calls  context.Context // of every call; done when Close gives up
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// service is one bound listener.
type service interface {
	address() string // as bound: "tcp:127.0.0.1:2049"
	serve()          // until stop, and until what was begun is answered
	stop()           // no more requests
	kill()           // after stop: drop what is still under way
}

// Listen binds every listener. One that can't be bound, or must not, fails the
// whole call and leaves nothing behind.
func Listen(ctx context.Context, cfg Config, h Handlers) (*Server, error) {
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	if h.Refused == nil {
		h.Refused = func(string, rpc.Peer) {}
	}
	s := &Server{handlers: h, limits: cfg.Limits.withDefaults(), log: h.Log, json: newJSON(cfg, h.Registry)}
	s.rate = newRateLimiter(s.limits.Rate)
	s.calls, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, l := range cfg.Listeners {
		svc, err := s.bind(ctx, l)
		if err != nil {
			if _, ours := errors.AsType[*ConfigError](err); !ours {
				err = &ConfigError{l, err}
			}
			for _, svc := range s.services {
				svc.stop()
			}
			s.kill()
			s.cancel()
			return nil, errors.Join(err, s.removeFiles())
		}
		s.services = append(s.services, svc)
		s.announce(l)
	}
	return s, nil
}

func (s *Server) bind(ctx context.Context, l Listener) (service, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	network, address, _ := strings.Cut(l.Address, ":")
	if l.Mode == 0 {
		l.Mode = 0o660
		if l.Protocol == Ctl || l.Protocol == Flexisip {
			l.Mode = 0o600
		}
	}
	l.ReplyDir = strings.TrimRight(cmp.Or(l.ReplyDir, "/tmp"), "/") + "/"
	if missing := s.missingHandler(l.Protocol); missing != "" {
		return nil, fmt.Errorf("nothing to answer with: Handlers.%s is nil", missing)
	}
	a, err := resolveAccess(l.Mode, l.User, l.Group)
	if err != nil {
		return nil, err
	}
	switch network {
	case "fifo":
		return s.bindFIFO(l, address, a)
	case "unixd", "udp":
		return s.bindDatagram(ctx, l, network, address, a)
	}
	return s.bindStream(ctx, l, network, address, a)
}

// announce says at start who can reach what.
func (s *Server) announce(l Listener) {
	switch network, _, _ := strings.Cut(l.Address, ":"); {
	case network != "tcp" || !l.Remote():
		s.log.Info("rpc listener bound", "listener", l)
	case l.TLS == nil:
		s.log.Warn("rpc listener bound, other hosts can reach it, and its token crosses the network in the clear", "listener", l)
	default:
		s.log.Warn("rpc listener bound, other hosts can reach it", "listener", l)
	}
}

func (s *Server) missingHandler(p Protocol) string {
	switch {
	case p == MI && s.handlers.MI == nil:
		return "MI"
	case p == Flexisip && s.handlers.Flexisip == nil:
		return "Flexisip"
	case p != MI && p != Flexisip && s.handlers.Registry == nil:
		return "Registry"
	}
	return ""
}

// SetToken replaces the token of every HTTP listener at once: the next request that
// brings the old one is refused, on an open connection too. Other hosts must not
// be able to reach a listener without a token, as in [Listener.Validate]. After an
// error nothing is changed.
func (s *Server) SetToken(token string) error {
	var list []*httpService
	for _, svc := range s.services {
		h, ok := svc.(*httpService)
		if !ok {
			continue
		}
		l := h.l
		l.Token = token
		if err := l.Validate(); err != nil {
			return err
		}
		list = append(list, h)
	}
	for _, h := range list {
		h.setToken(token)
	}
	return nil
}

// Addresses are the bound listeners, as PROTOCOL and address:
// "ctl unix:/run/siptraced/ctl".
func (s *Server) Addresses() []string {
	out := make([]string, len(s.services))
	for i, svc := range s.services {
		out[i] = svc.address()
	}
	return out
}

// Serve starts the listeners and returns.
func (s *Server) Serve() {
	for _, svc := range s.services {
		s.wg.Go(svc.serve)
	}
}

// Close stops all listeners, removes their files, lets the calls under way
// finish until ctx is done, and waits for every goroutine. The error is ctx's
// when calls had to be given up.
func (s *Server) Close(ctx context.Context) error {
	err := s.removeFiles() // first: clients that come now must not find them
	for _, svc := range s.services {
		svc.stop()
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
		s.cancel()
		s.kill()
		<-done
	}
	s.cancel()
	s.kill()
	return err
}

func (s *Server) kill() {
	for _, svc := range s.services {
		svc.kill()
	}
}

func (s *Server) removeFiles() error {
	var errs []error
	for _, m := range s.made {
		errs = append(errs, m.remove())
	}
	s.made = nil
	return errors.Join(errs...)
}

func (s *Server) refuse(l Listener, cause string, peer rpc.Peer) {
	s.handlers.Refused(string(l.Protocol)+"."+cause, peer)
}

// call returns the context of one call. It does not end with the connection: a
// client that has half-closed its side still wants the answer.
func (s *Server) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.calls, s.limits.Call)
}

// tooFast takes a request off its peer's rate. With wait it returns after the
// time that the peer is ahead; else it reports whether to drop the request.
func (s *Server) tooFast(l Listener, peer rpc.Peer, wait bool) bool {
	d := s.rate.take(rateKey(peer), time.Now(), !wait)
	if d == 0 {
		return false
	}
	s.refuse(l, CauseRate, peer)
	if wait {
		select {
		case <-time.After(d):
		case <-s.calls.Done():
		}
	}
	return true
}

// rateKey is the peer without what changes from connection to connection.
func rateKey(peer rpc.Peer) string {
	if peer.UID >= 0 {
		return "uid " + strconv.Itoa(peer.UID)
	}
	if host, _, err := net.SplitHostPort(peer.Addr); err == nil {
		return host
	}
	return peer.Addr
}
