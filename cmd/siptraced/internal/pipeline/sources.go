package pipeline

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
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
	addr    netip.AddrPort
	packets atomic.Uint64
	last    atomic.Int64 // Unix nanoseconds
}

// Source is one sender.
type Source struct {
	Addr     netip.AddrPort
	Packets  uint64
	LastSeen time.Time
}

// count counts a packet. Most packets come from the sender of the one before.
func (s *Sources) count(w *work, in *ingest.Packet) {
	if w.source == nil || w.source.addr != in.Source {
		w.source = s.find(in.Source)
	}
	w.source.packets.Add(1)
	w.source.last.Store(in.Time.UnixNano())
}

func (s *Sources) find(addr netip.AddrPort) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.seen[addr]; src != nil {
		return src
	}
	src := &source{addr: addr}
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
		out = append(out, Source{addr, src.packets.Load(), time.Unix(0, src.last.Load())})
	}
	slices.SortFunc(out, func(a, b Source) int {
		if a.Packets != b.Packets {
			return int(min(1, max(-1, int64(b.Packets)-int64(a.Packets))))
		}
		return a.Addr.Compare(b.Addr)
	})
	return out
}
