package replay

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"siptraced/hep"
)

const (
	// A question goes after so many packets, or bytes.
	windowPackets = 256
	windowBytes   = 1 << 20
	// ackTimeout bounds how long siptraced may take to answer: longer than it waits for
	// its spool.
	ackTimeout = 45 * time.Second
	attempts   = 6
	firstPause = 250 * time.Millisecond
)

// sender sends packets over TCP and asks with a HEP3 keep-alive whether they were
// taken. siptraced closes the connection if they were not all taken; then they go
// again over another one, and those that were taken are known by their origin.
type sender struct {
	address string // host:port
	conn    net.Conn
	window  []byte // sent or to be sent, and not acknowledged
	packets int    // in it
	acked   int
}

// send adds a packet, and sends those that are due.
func (s *sender) send(ctx context.Context, packet []byte) error {
	s.window = append(s.window, packet...)
	s.packets++
	if s.packets < windowPackets && len(s.window) < windowBytes {
		return nil
	}
	return s.flush(ctx)
}

// flush sends what waits, until it is acknowledged. The error says that it is not.
func (s *sender) flush(ctx context.Context) error {
	if s.packets == 0 {
		return nil
	}
	var err error
	pause := firstPause
	for i := range attempts {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
			pause *= 2
		}
		if err = s.attempt(ctx); err == nil {
			s.acked += s.packets
			s.window, s.packets = s.window[:0], 0
			return nil
		}
		s.close()
	}
	return err
}

func (s *sender) attempt(ctx context.Context) (err error) {
	if s.conn == nil {
		d := net.Dialer{Timeout: 5 * time.Second}
		if s.conn, err = d.DialContext(ctx, "tcp", s.address); err != nil {
			s.conn = nil
			return fmt.Errorf("%w; start siptraced, or name its listener with --to host:port", err)
		}
	}
	defer context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })()
	_ = s.conn.SetDeadline(time.Now().Add(ackTimeout))
	question := hep.Packet{Version: 3, KeepAlive: 1}
	ask, err := question.Append(nil)
	if err != nil {
		return err
	}
	if _, err = s.conn.Write(s.window); err == nil {
		_, err = s.conn.Write(ask)
	}
	if err == nil {
		_, err = io.ReadFull(s.conn, make([]byte, len(ask)))
	}
	if err != nil {
		return fmt.Errorf("tcp:%s does not acknowledge (its log says why; it closes the connection when its spool is full): %w", s.address, err)
	}
	return nil
}

func (s *sender) close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}
