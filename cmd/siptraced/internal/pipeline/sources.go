package pipeline

import (
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/hep"
)

// maxSources bounds how many senders are told apart: beyond it nobody would
// look, and the addresses of datagrams can be forged.
const maxSources = 4096

// Sources counts packets by sender. The zero value is ready; safe for concurrent
// use.
type Sources struct {
	mu   sync.Mutex // covers seen
	seen map[netip.AddrPort]*source
}

type source struct {
	addr              netip.AddrPort
	first             time.Time
	packets, rejected atomic.Uint64
	last              atomic.Int64 // Unix nanoseconds
	kind              atomic.Pointer[kind]
}

// kind is how packets come.
type kind struct {
	transport string
	version   int // of HEP; 0: SIP
}

// Source is one sender.
type Source struct {
	Addr                netip.AddrPort
	Packets, Rejected   uint64
	Transport, Protocol string // of the last packet: "udp", "tcp" or "tls"; "hep1" to "hep3" or "sip"
	FirstSeen, LastSeen time.Time
}

// count counts a packet. Most packets come from the sender of the one before.
func (s *Sources) count(w *work, in *ingest.Packet) {
	if w.source == nil || w.source.addr != in.Source {
		w.source = s.find(in.Source, in.Time)
	}
	src := w.source
	src.packets.Add(1)
	src.last.Store(in.Time.UnixNano())
	k := kind{in.Net, hep.Detect(in.Data)}
	if now := src.kind.Load(); now == nil || *now != k {
		src.kind.Store(&k)
	}
}

func (s *Sources) find(addr netip.AddrPort, at time.Time) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.seen[addr]; src != nil {
		return src
	}
	src := &source{addr: addr, first: at}
	if s.seen == nil {
		s.seen = map[netip.AddrPort]*source{}
	}
	if len(s.seen) < maxSources {
		s.seen[addr] = src
	}
	return src
}

// List is every sender, the busiest first.
func (s *Sources) List() []Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Source, 0, len(s.seen))
	for addr, src := range s.seen {
		e := Source{
			Addr: addr, Packets: src.packets.Load(), Rejected: src.rejected.Load(), Protocol: "sip",
			FirstSeen: src.first, LastSeen: time.Unix(0, src.last.Load()),
		}
		if k := src.kind.Load(); k != nil {
			if e.Transport = k.transport; k.version > 0 {
				e.Protocol = "hep" + strconv.Itoa(k.version)
			}
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Source) int {
		if a.Packets != b.Packets {
			return int(min(1, max(-1, int64(b.Packets)-int64(a.Packets))))
		}
		return a.Addr.Compare(b.Addr)
	})
	return out
}
