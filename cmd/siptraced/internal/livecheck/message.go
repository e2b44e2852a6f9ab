package livecheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/pipeline"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// rowTimeout bounds how long the message may take to its row.
const rowTimeout = 30 * time.Second

// messageInFile sends the message into a new SQLite file.
func (c *check) messageInFile(ctx context.Context) {
	dir, err := os.MkdirTemp("", "siptraced-check-")
	if err != nil {
		c.say(failed, "message", "%v; set TMPDIR to a directory that can be written", err)
		return
	}
	defer os.RemoveAll(dir)
	cfg := c.cfg.Store
	cfg.Rejects, cfg.Table, cfg.Columns = nil, "sip_trace", siptrace.DefaultColumns()
	cfg.URL = siptrace.DBURL{Driver: siptrace.DriverSQLite, Database: filepath.Join(dir, "siptraced.db")}
	e, err := store.Examine(ctx, cfg)
	if err == nil {
		defer e.Close()
		err = c.message(ctx, cfg, e)
	}
	c.verdict("message", "one went through socket and spool into a SQLite file of its own, and came back as it was", err, "spool.dir", "see the error")
}

// message sends one message through sockets, spool and store, and reads it back.
func (c *check) message(ctx context.Context, cfg store.Config, e *store.Exam) (err error) {
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "siptraced-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg.RejectFile, cfg.RowsOnly = filepath.Join(dir, "rejects"), true
	w := way{counters: counters.New(), errors: &lastError{}}
	if err := w.open(ctx, filepath.Join(dir, "spool"), cfg); err != nil {
		return errors.Join(err, w.close())
	}
	callID := fmt.Sprintf("siptraced-check-%016x@localhost", rand.Uint64())
	text, err := w.send(callID)
	if err == nil {
		err = w.await(ctx)
	}
	if err = errors.Join(err, w.close()); err != nil {
		return err
	}
	list, err := e.Messages(ctx, cfg.Table, callID)
	if err == nil && (len(list) != 1 || list[0] != text) {
		err = fmt.Errorf("the table has %q, and %q was sent", list, text)
	}
	return err
}

// way is the way of a message through siptraced, with ends of its own.
type way struct {
	counters *counters.Set
	errors   *lastError
	spool    *spool.Spool
	store    *store.Store
	ingest   *ingest.Server
}

func (w *way) open(ctx context.Context, dir string, cfg store.Config) (err error) {
	log := slog.New(w.errors)
	sc := spool.DefaultConfig()
	sc.Dir, sc.Shards = dir, 1
	if w.spool, err = spool.Open(ctx, sc, log); err != nil {
		return err
	}
	params := siptrace.DefaultParams()
	params.TraceOn, params.TraceToDatabase = true, true
	rules := pipeline.Rules{Params: params, Own: siptrace.NewSockets(nil, false), Routing: params.Routing(siptrace.Mirroring{})}
	ic := ingest.DefaultConfig()
	ic.Listen = []ingest.Address{{Net: "udp", Host: "127.0.0.1", Port: "0"}}
	if w.ingest, err = ingest.Listen(ic, pipeline.New(rules, w.spool, w.counters), w.counters, log); err != nil {
		return err
	}
	if w.store, err = store.Open(ctx, cfg, w.spool, w.counters, log); err != nil {
		return err
	}
	w.store.Start()
	w.ingest.Serve()
	return nil
}

// send sends a message as a proxy does, and returns its text.
func (w *way) send(callID string) (text string, err error) {
	text = "OPTIONS sip:siptraced@localhost SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKsiptraced\r\nFrom: <sip:check@localhost>;tag=check\r\n" +
		"To: <sip:siptraced@localhost>\r\nCall-ID: " + callID + "\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
	now := time.Now()
	end := netip.MustParseAddrPort("127.0.0.1:5060")
	p := hep.Packet{
		Version: 3, Type: hep.TypeSIP, Proto: hep.UDP, Src: end, Dst: end,
		HasTime: true, Sec: uint32(now.Unix()), Usec: uint32(now.Nanosecond() / 1000), Payload: []byte(text),
	}
	packet, err := p.Append(nil)
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("udp", w.ingest.Sockets()[0].Addr.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_, err = conn.Write(packet)
	return text, err
}

// await waits for the row.
func (w *way) await(ctx context.Context) error {
	for {
		n := w.counters.Snapshot()
		switch {
		case n["store.rows"] > 0:
			return nil
		case n["store.set_aside"] > 0:
			return fmt.Errorf("the table does not take the row: %s", w.errors)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no row within %s: %s", rowTimeout, w.errors)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// endTimeout bounds how long the way may take to close.
const endTimeout = 10 * time.Second

func (w *way) close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if w.ingest != nil {
		w.ingest.Close(ctx)
	}
	if w.spool == nil {
		return nil
	}
	w.spool.Flush(ctx)
	if w.store != nil {
		err = w.store.Stop(ctx)
	}
	return errors.Join(err, w.spool.Close(ctx))
}

// lastError is a log of which only the last error counts (slog.Handler).
type lastError struct {
	mu   sync.Mutex // covers text
	text string
}

func (l *lastError) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}

func (l *lastError) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = text
	return nil
}

func (l *lastError) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *lastError) WithGroup(string) slog.Handler      { return l }

// String is the last error, or that there was none.
func (l *lastError) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text == "" {
		return "the log has no error"
	}
	return l.text
}
