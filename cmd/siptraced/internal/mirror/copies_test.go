package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/hep"
)

// peer is a siptraced that takes what it is sent, by Config.Dial.
type peer struct {
	mu       sync.Mutex // covers what follows
	away     bool
	deaf     bool // it acknowledges nothing
	streams  *loop.Streams
	got      []string // messages that it did not have
	repeated int
	conns    []*peerConn
}

func (p *peer) dial(_ context.Context, _ string, _, remote netip.AddrPort) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, errors.New("the peer is away")
	}
	c := &peerConn{peer: p, remote: net.TCPAddrFromAddrPort(remote), ended: make(chan struct{})}
	p.conns = append(p.conns, c)
	return c, nil
}

// set changes how it behaves, and cuts its connections.
func (p *peer) set(away, deaf bool) {
	p.mu.Lock()
	p.away, p.deaf = away, deaf
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (p *peer) received() (got []string, repeated int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got), p.repeated
}

// peerConn is a StreamConn to a peer.
type peerConn struct {
	net.Conn // nothing of it is called
	peer     *peer
	remote   net.Addr
	once     sync.Once
	ended    chan struct{}
	buf      []byte
	unheard  int // bytes
}

func (c *peerConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5060} }
func (c *peerConn) RemoteAddr() net.Addr             { return c.remote }
func (c *peerConn) SetWriteDeadline(time.Time) error { return nil }

func (c *peerConn) Write(b []byte) (int, error) {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	if c.Dead() {
		return 0, net.ErrClosed
	}
	if c.peer.deaf {
		c.unheard += len(b)
	}
	c.buf = append(c.buf, b...)
	for {
		n, err := hep.Split(c.buf)
		if err != nil || n == 0 {
			return len(b), err
		}
		var p hep.Packet
		if err := p.Decode(c.buf[:n]); err != nil {
			return 0, err
		}
		for _, chunk := range p.Vendor {
			if chunk.Vendor != hepmap.Vendor || chunk.Type != hepmap.ChunkOrigin {
				continue
			}
			if c.peer.streams.Repeated(chunk.Data) {
				c.peer.repeated++
			} else {
				c.peer.got = append(c.peer.got, string(p.Payload))
			}
		}
		c.buf = c.buf[n:]
	}
}

func (c *peerConn) Read([]byte) (int, error) {
	<-c.ended
	return 0, net.ErrClosed
}

func (c *peerConn) Close() error {
	c.once.Do(func() { close(c.ended) })
	return nil
}

func (c *peerConn) Unacknowledged() (int, error) {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.unheard, nil
}

func (c *peerConn) Dead() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Two spools are copies of one. What waited in it comes to the peer once, and so does
// what each of them took in on its own, although the copies go on with the same
// numbers; and what is sent again after a connection that broke is known as such.
func TestCopies(t *testing.T) {
	p := &peer{streams: loop.NewStreams(), away: true}
	id := loop.NewID()
	dirs := []string{t.TempDir(), t.TempDir()}
	open := func(dir string) *rig {
		c := counters.New()
		return newRig(t, dir, func(_ *spool.Config, mc *Config) {
			mc.Dial, mc.Loops = p.dial, loop.New(id, "", c, slog.New(slog.DiscardHandler))
		}, to(t, "sip:192.0.2.9:9060;transport=tcp", nil))
	}
	const n = 100
	r := open(dirs[0])
	r.put(t, n, nil)
	r.stop(t, false)
	if err := os.CopyFS(dirs[1], os.DirFS(dirs[0])); err != nil {
		t.Fatal(err)
	}
	p.set(false, true) // all is sent, and nothing acknowledged: it goes again
	rigs := []*rig{open(dirs[0]), open(dirs[1])}
	for i, r := range rigs {
		r.n = (i + 1) * n
		r.put(t, n, nil)
	}
	waitFor(t, "all messages", func() bool { got, _ := p.received(); return len(got) >= 3*n })
	p.set(false, false)
	for _, r := range rigs {
		r.stop(t, true)
	}
	got, repeated := p.received()
	var want []string
	for i := range 3 * n {
		want = append(want, fmt.Sprintf("OPTIONS sip:b SIP/2.0\r\nCall-ID: call-%d\r\nn: %d\r\n\r\n", i%10, i))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d messages, want %d, each once", len(got), len(want))
	}
	if repeated < 2*n {
		t.Errorf("%d came again, want at least %d: the test shows nothing", repeated, 2*n)
	}
}
