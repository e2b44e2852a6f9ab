package servers

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"
)

// Wire is a way to a TCP port of this machine that can be cut, and that can lose what
// is sent.
type Wire struct {
	Addr string // of its near end

	mu      sync.Mutex // covers what follows
	port    int
	conns   []net.Conn // near and far ends in turn
	up      bool       // what goes to the port is lost
	down    bool       // what comes from it is
	closed  bool
	trigger []byte
	do      func()
}

// NewWire leads to a port, until the end of the test.
func NewWire(tb testing.TB, port int) *Wire {
	tb.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", FreePort(tb)))
	if err != nil {
		tb.Fatal(err)
	}
	w := &Wire{Addr: l.Addr().String(), port: port}
	tb.Cleanup(func() {
		_ = l.Close()
		w.Cut()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(c)
		}
	}()
	return w
}

func (w *Wire) serve(near net.Conn) {
	w.mu.Lock()
	port, closed := w.port, w.closed
	w.mu.Unlock()
	if closed {
		_ = near.Close()
		return
	}
	far, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		_ = near.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, near, far)
	w.mu.Unlock()
	go w.pass(far, near, &w.up)
	w.pass(near, far, &w.down)
}

// pass carries bytes from one end to the other.
func (w *Wire) pass(to, from net.Conn, lose *bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			_ = to.Close()
			return
		}
		w.mu.Lock()
		if w.do != nil && bytes.Contains(buf[:n], w.trigger) {
			w.do()
			w.do = nil
		}
		lost := *lose
		w.mu.Unlock()
		if lost {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			_ = from.Close()
			return
		}
	}
}

// LoseAt has the wire lose what comes from the port, and what goes to it if up is set,
// from the next bytes on that have a text in them. They pass if up is not set. do is
// called at that moment, and may be nil.
func (w *Wire) LoseAt(text string, up bool, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trigger = []byte(text)
	w.do = func() {
		w.down, w.up = true, up
		if do != nil {
			do()
		}
	}
}

// Cut ends the connections of this moment; there are no others until Mend.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// Mend has the wire take connections, and lose nothing.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed, w.up, w.down = false, false, false
}

// Leave leads to another port from now on. The near ends of the connections of this
// moment are closed; the far ones stay with what was sent on them.
func (w *Wire) Leave(port int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.port, w.up, w.down = port, false, false
	for i := 0; i < len(w.conns); i += 2 {
		_ = w.conns[i].Close()
	}
}
