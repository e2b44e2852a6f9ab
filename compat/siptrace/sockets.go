package siptrace

import "net/netip"

// Socket is one of the proxy's own sockets.
type Socket struct {
	Proto Proto // Any: every transport
	Addr  netip.AddrPort
	// Advertised is what the proxy writes of itself in place of Addr; zero:
	// the same.
	Advertised netip.AddrPort
}

// Sockets tells the proxy's own end of a message from the other one.
type Sockets struct {
	own        map[socketKey]struct{}
	hosts      map[netip.Addr]struct{}
	advertised map[socketKey]netip.AddrPort
}

type socketKey struct {
	kind byte
	addr netip.AddrPort
}

func keyOf(proto Proto, a netip.AddrPort) socketKey {
	return socketKey{proto.kind(), netip.AddrPortFrom(hostOf(a), a.Port())}
}

func hostOf(a netip.AddrPort) netip.Addr { return a.Addr().Unmap().WithZone("") }

// NewSockets indexes the proxy's sockets. With useAdvertised (data_mode bit 1)
// the advertised address stands in the rows in place of the bound one.
func NewSockets(list []Socket, useAdvertised bool) *Sockets {
	s := &Sockets{own: map[socketKey]struct{}{}, hosts: map[netip.Addr]struct{}{}, advertised: map[socketKey]netip.AddrPort{}}
	for _, k := range list {
		s.hosts[hostOf(k.Addr)] = struct{}{}
		if k.Advertised.IsValid() {
			s.hosts[hostOf(k.Advertised)] = struct{}{}
		}
		protos := []Proto{k.Proto}
		if k.Proto == Any || k.Proto == "" {
			protos = []Proto{UDP, TCP, SCTP}
		}
		for _, p := range protos {
			bound := keyOf(p, k.Addr)
			s.own[bound] = struct{}{}
			if !k.Advertised.IsValid() {
				continue
			}
			s.own[keyOf(p, k.Advertised)] = struct{}{}
			if useAdvertised {
				s.advertised[bound] = k.Advertised
			}
		}
	}
	return s
}

// Len is the number of addresses known.
func (s *Sockets) Len() int { return len(s.own) }

// Own reports whether the address is one of the proxy's sockets. A wildcard
// address can be nobody else's: Kamailio reports a socket that listens on
// 0.0.0.0 as just that.
func (s *Sockets) Own(proto Proto, a netip.AddrPort) bool {
	if a.Addr().IsUnspecified() {
		return true
	}
	_, ok := s.own[keyOf(proto, a)]
	return ok
}

// OwnHost reports whether the proxy has a socket with that address, whatever the
// port and the transport.
func (s *Sockets) OwnHost(a netip.AddrPort) bool {
	_, ok := s.hosts[hostOf(a)]
	return ok
}

// advertise replaces a bound address where data_mode asks for it.
func (s *Sockets) advertise(proto Proto, a netip.AddrPort) netip.AddrPort {
	if len(s.advertised) == 0 {
		return a
	}
	if adv, ok := s.advertised[keyOf(proto, a)]; ok {
		return adv
	}
	return a
}
