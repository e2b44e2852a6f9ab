package replay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/capture"
	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/cmd/siptraced/internal/store"
)

// Options are what to put back, and where to.
type Options struct {
	Config *config.Config
	File   string
	// To is host:port of a running siptraced; empty: the first TCP entry of listen.
	To string
	// Only is "hep" or "sip" to leave out the other kind: a capture may have each
	// message twice. Empty: both.
	Only string
	// Again: siptraced gets what it had from this file before once more.
	Again bool
	Out   io.Writer
	// Progress gets the bytes of the file that are dealt with; nil: nobody.
	Progress io.Writer
}

// ErrIncomplete is wrapped by the error of Run when something could not be put back.
var ErrIncomplete = errors.New("not everything was put back")

// rowsAtOnce is how many rows go into a transaction.
const rowsAtOnce = 200

// Run puts back everything that can be, and prints what became of it.
func Run(ctx context.Context, opt Options) error {
	// Opening a FIFO would wait for who writes it, and no signal would end that.
	if info, err := os.Stat(opt.File); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no plain file; copy what is to be put back into one", opt.File)
	}
	f, err := os.Open(opt.File)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := newRun(ctx, opt, f)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.File, err)
	}
	defer r.close()
	in := io.Reader(f)
	if opt.Progress != nil {
		in = io.TeeReader(f, opt.Progress)
	}
	var stopped error // else it is the file that can't be read on: what came before is put back
	err = capture.Read(in, func(i capture.Item) error {
		stopped = r.take(ctx, i)
		return stopped
	})
	if errors.Is(err, capture.ErrEmpty) {
		err = nil
	}
	if stopped == nil {
		err = errors.Join(err, r.flush(ctx))
	}
	r.print()
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w: ended at %d, what comes behind is not tried: %w", opt.File, ErrIncomplete, r.number, err)
	case len(r.failed) > 0:
		return fmt.Errorf("%s: %w", opt.File, ErrIncomplete)
	}
	return nil
}

// run is the work on one file.
type run struct {
	Options
	encoder encoder
	sender  sender
	rows    *store.PutBack // nil: not connected yet
	lines   []*rejects.Line
	numbers []int // of lines
	number  int   // of the item in hand

	put, there int // rows
	left       map[string]int
	failed     []failure
}

// failure is what could not be put back.
type failure struct {
	number int
	what   string
	err    error
}

// headBytes of a file tell it from others: they have the time of its first message.
const headBytes = 1024

func newRun(ctx context.Context, opt Options, f *os.File) (*run, error) {
	r := &run{Options: opt, left: map[string]int{}}
	head := make([]byte, headBytes)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head = head[:n]
	if bytes.HasPrefix(head, []byte("{")) {
		head, _, _ = bytes.Cut(head, []byte("\n")) // lines are added behind
	}
	sum := sha256.Sum256(head)
	if r.encoder.stream = binary.BigEndian.Uint64(sum[:]); opt.Again {
		r.encoder.stream = rand.Uint64()
	}
	if r.sender.address = opt.To; opt.To == "" {
		r.sender.address = listener(opt.Config)
	}
	if a, err := net.DefaultResolver.LookupNetIP(ctx, "ip", hostOf(r.sender.address)); err == nil && len(a) > 0 {
		r.encoder.to = netip.AddrPortFrom(a[0].Unmap(), portOf(r.sender.address))
	}
	return r, nil
}

// listener is where this configuration takes TCP, "" if it does not.
func listener(c *config.Config) string {
	i := slices.IndexFunc(c.Ingest.Listen, func(a ingest.Address) bool { return a.Net == "tcp" })
	if i < 0 {
		return ""
	}
	a := c.Ingest.Listen[i]
	if ip, err := netip.ParseAddr(a.Host); a.Host == "" || err == nil && ip.IsUnspecified() {
		a.Host = "localhost"
	}
	return a.HostPort()
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

func portOf(address string) uint16 {
	_, port, _ := net.SplitHostPort(address)
	n, _ := net.LookupPort("tcp", port)
	return uint16(n)
}

func (r *run) close() {
	r.sender.close()
	if r.rows != nil {
		r.rows.Close()
	}
}

// take deals with one item. An error ends the run.
func (r *run) take(ctx context.Context, i capture.Item) error {
	r.number = i.Number
	if i.Refused != nil {
		r.lines, r.numbers = append(r.lines, i.Refused), append(r.numbers, i.Number)
		if len(r.lines) >= rowsAtOnce {
			return r.putRows(ctx)
		}
		return nil
	}
	packet, kind, problem := []byte(nil), "", i.Problem
	if problem == nil {
		packet, kind, problem = r.encoder.encode(i.Packet)
	}
	switch {
	case errors.Is(problem, capture.ErrOther):
		r.left[capture.ErrOther.Error()]++
		return nil
	case problem != nil:
		r.failed = append(r.failed, failure{i.Number, "message", problem})
		return nil //nolint:nilerr // it is among the failures, and the others go on
	case r.Only != "" && kind != r.Only:
		r.left[kind+", which was not asked for"]++
		return nil
	case r.sender.address == "":
		return errors.New("there is no TCP entry in listen: name the listener of the running siptraced with --to host:port")
	}
	return r.sender.send(ctx, packet)
}

// flush puts back what is gathered.
func (r *run) flush(ctx context.Context) error {
	return errors.Join(r.putRows(ctx), r.sender.flush(ctx))
}

// putRows puts the gathered rows back. When the connection is lost, it tries over
// another one: what was written is known.
func (r *run) putRows(ctx context.Context) (err error) {
	if len(r.lines) == 0 {
		return nil
	}
	var result []error
	for range 2 {
		if r.rows == nil {
			if r.rows, err = store.NewPutBack(ctx, r.Config.Store); err != nil {
				r.rows = nil
				return fmt.Errorf("database (key siptrace.db_url): %w", err)
			}
		}
		if result, err = r.rows.Put(ctx, r.lines); err == nil {
			break
		}
		r.rows.Close()
		r.rows = nil
	}
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	for i, refused := range result {
		switch {
		case refused == nil:
			r.put++
		case errors.Is(refused, store.ErrThere):
			r.there++
		default:
			l := r.lines[i]
			r.failed = append(r.failed, failure{r.numbers[i], fmt.Sprintf("row of call %q for %s", l.CallID, l.Table), refused})
		}
	}
	r.lines, r.numbers = r.lines[:0], r.numbers[:0]
	return nil
}

// mostFailures is how many failures are printed one by one.
const mostFailures = 100

func (r *run) print() {
	out := bufio.NewWriter(r.Out)
	defer out.Flush()
	if n := r.put + r.there; n > 0 || len(r.failed) > 0 {
		fmt.Fprintf(out, "rows: %d put back, %d were put back before\n", r.put, r.there)
	}
	if r.sender.acked > 0 {
		fmt.Fprintf(out, "messages: %d acknowledged by siptraced at tcp:%s (those that it has from an earlier replay of this file it drops, as dropped.repeated; --again sends them as new ones)\n", r.sender.acked, r.sender.address)
	}
	for _, why := range slices.Sorted(maps.Keys(r.left)) {
		fmt.Fprintf(out, "left out: %d (%s)\n", r.left[why], why)
	}
	for i, f := range r.failed {
		if i == mostFailures {
			fmt.Fprintf(out, "... and %d more\n", len(r.failed)-i)
			break
		}
		fmt.Fprintf(out, "NOT put back: %d: %s: %s\n", f.number, f.what, strings.ReplaceAll(f.err.Error(), "\n", "; "))
	}
	if waiting := r.sender.packets + len(r.lines); waiting > 0 {
		fmt.Fprintf(out, "NOT put back: the last %d, up to %d: they are not acknowledged\n", waiting, r.number)
	}
}
