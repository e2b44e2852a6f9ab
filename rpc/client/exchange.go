package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxReply bounds what is read of a reply, in bytes.
const maxReply = 16 << 20

var (
	errReplyTooBig = fmt.Errorf("reply of more than %d bytes", maxReply)
	errNoReader    = errors.New("no server reads this FIFO")
	errNotFIFO     = errors.New("not a FIFO")
	errClosed      = errors.New("connection closed before the reply was whole")
)

// whole tells how long the reply at the start of b is; 0 = more is needed. nil =
// all up to the end of the stream.
type whole func(b []byte) (int, error)

// stream sends a request over a connection of its own and reads the reply.
func (c *Client) stream(ctx context.Context, request []byte, done whole) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, c.addr.Network, c.addr.Host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if c.cfg.TLS != nil && c.addr.Network == "tcp" {
		config := c.cfg.TLS.Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(c.addr.Host)
		}
		conn = tls.Client(conn, config)
	}
	deadline(ctx, conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	return readAll(conn, done)
}

// readAll reads a reply up to where done says that it is whole.
func readAll(r io.Reader, done whole) ([]byte, error) {
	var reply []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		reply = append(reply, buf[:n]...)
		if done != nil && n > 0 {
			if size, err := done(reply); size > 0 || err != nil {
				return reply[:size], err
			}
		}
		switch {
		case len(reply) > maxReply:
			return nil, errReplyTooBig
		case err == nil:
		case errors.Is(err, io.EOF) && done == nil && len(reply) > 0:
			return reply, nil
		case errors.Is(err, io.EOF):
			return nil, errClosed
		default:
			return nil, err
		}
	}
}

// datagram sends a request as one datagram and takes those that come back until
// one is accepted: a late answer to an earlier call is not.
func (c *Client) datagram(ctx context.Context, request []byte, accept func([]byte) bool) ([]byte, error) {
	conn, err := c.dialDatagram(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline(ctx, conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if accept(buf[:n]) {
			return buf[:n], nil
		}
	}
}

func (c *Client) dialDatagram(ctx context.Context) (net.Conn, error) {
	if c.addr.Network == "udp" {
		var d net.Dialer
		return d.DialContext(ctx, "udp", c.addr.Host)
	}
	// An abstract address needs no folder that both sides may write to, and
	// leaves nothing behind.
	name := "@siptraced-rpc-" + rand.Text()
	if c.cfg.ReplyDir != "" {
		name = filepath.Join(c.cfg.ReplyDir, "siptraced-rpc-"+rand.Text())
	}
	conn, err := net.DialUnix("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"}, &net.UnixAddr{Name: c.addr.Host, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if name[0] == '@' {
		return conn, nil
	}
	// The server may run as another user.
	if err := os.Chmod(name, 0o622); err != nil {
		return nil, errors.Join(err, conn.Close(), os.Remove(name))
	}
	return unlinkingConn{conn, name}, nil
}

// unlinkingConn removes its file when it is closed.
type unlinkingConn struct {
	net.Conn
	path string
}

func (c unlinkingConn) Close() error { return errors.Join(c.Conn.Close(), os.Remove(c.path)) }

func deadline(ctx context.Context, conn net.Conn) {
	if t, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(t)
	}
}

// fifo makes a reply FIFO, writes what request makes of its name to the command
// FIFO, and reads the reply up to its end.
func (c *Client) fifo(ctx context.Context, request func(replyName string) ([]byte, error)) ([]byte, error) {
	dir := c.cfg.ReplyDir
	if dir == "" {
		dir = "/tmp"
	}
	name := "siptraced_receiver_" + rand.Text()
	path := filepath.Join(dir, name)
	text, err := request(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	defer os.Remove(path)
	// Read here is from before the request is sent: the server need not wait.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	reply := os.NewFile(uintptr(fd), path)
	defer reply.Close()
	// The server may run as another user; nobody else is to read the reply.
	if err := reply.Chmod(0o622); err != nil {
		return nil, err
	}
	if err := writeFIFO(ctx, c.addr.Host, text); err != nil {
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		_ = reply.SetReadDeadline(t)
	}
	stop := context.AfterFunc(ctx, func() { _ = reply.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		b, err := readAll(reply, nil)
		if !errors.Is(err, errClosed) {
			return b, err
		}
		// No writer yet.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// writeFIFO writes a request in one call. It never creates the file, as the
// shell scripts do, and never waits for a reader.
func writeFIFO(ctx context.Context, path string, text []byte) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.Mode().Type() != os.ModeNamedPipe {
		return &os.PathError{Op: "open", Path: path, Err: errNotFIFO}
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) {
		err = errNoReader
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if t, ok := ctx.Deadline(); ok {
		_ = f.SetWriteDeadline(t)
	}
	_, err = f.Write(text)
	return err
}
