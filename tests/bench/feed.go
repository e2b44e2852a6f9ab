package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// feedTCP brings n messages into the spool of a siptraced, over one connection,
// and returns when it said that it has them all.
func feedTCP(ctx context.Context, addr string, t *traffic, n int) error {
	const (
		chunk = 5000 // messages for one acknowledgement
		ahead = 2    // acknowledgements that may be under way
	)
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	want := (n + chunk - 1) / chunk
	acked := make(chan error, want)
	go func() {
		buf := make([]byte, len(keepAlive(0)))
		for i := range want {
			_, err := io.ReadFull(c, buf)
			if err == nil && !bytes.Equal(buf, keepAlive(uint32(i))) {
				err = fmt.Errorf("acknowledgement %d of %d: got packet %x, want number %d", i, want, buf, i)
			}
			acked <- err
			if err != nil {
				return
			}
		}
	}()
	out := make([]byte, 0, 256<<10)
	for i, number := 0, 0; i < n; number++ {
		if number >= ahead {
			if err := <-acked; err != nil {
				return fmt.Errorf("feed: after %d messages: %w", i, err)
			}
		}
		for last := min(i+chunk, n); i < last; i++ {
			out = append(out, t.at(i, time.Now()).packet...)
			if cap(out)-len(out) < 64<<10 {
				if _, err := c.Write(out); err != nil {
					return err
				}
				out = out[:0]
			}
		}
		out = append(out, keepAlive(uint32(number))...)
		if _, err := c.Write(out); err != nil {
			return err
		}
		out = out[:0]
	}
	for range min(ahead, want) {
		if err := <-acked; err != nil {
			return fmt.Errorf("feed: after all %d messages: %w", n, err)
		}
	}
	return nil
}

// number of a keep-alive, for tests that stand in for siptraced.
func keepAliveNumber(p []byte) uint32 { return binary.BigEndian.Uint32(p[len(p)-4:]) }
