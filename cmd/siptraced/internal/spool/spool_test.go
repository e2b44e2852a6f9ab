package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

func record(i int, callID string) siptrace.Record {
	return siptrace.Record{
		Time:   time.UnixMicro(1700000000_000001 + int64(i)),
		CallID: []byte(callID), Msg: fmt.Appendf(nil, "OPTIONS sip:a SIP/2.0\r\nn: %d\r\n\r\n", i), Method: []byte("OPTIONS"),
		From:      siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.1:5060")},
		To:        siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.2:5060")},
		Direction: siptrace.In, Route: siptrace.Route{Sinks: siptrace.ToStore},
	}
}

func TestCodec(t *testing.T) {
	v6 := netip.MustParseAddrPort("[2001:db8::1]:5061")
	tests := map[string]func(*siptrace.Record){
		"plain":      func(*siptrace.Record) {},
		"reply":      func(r *siptrace.Record) { r.Status, r.FromTag, r.ToTag = []byte("200"), []byte("f"), []byte("t") },
		"wss":        func(r *siptrace.Record) { r.From.Proto, r.To.Proto = siptrace.WSS, siptrace.WSS },
		"ipv6":       func(r *siptrace.Record) { r.From.Addr, r.To.Addr = v6, v6 },
		"mixed ends": func(r *siptrace.Record) { r.To.Addr = v6 },
		"no address": func(r *siptrace.Record) { r.From.Addr = netip.AddrPort{} },
		"address text": func(r *siptrace.Record) {
			r.From, r.To = siptrace.TextEndpoint("hello"), siptrace.TextEndpoint("tcp:192.0.2.9:5060")
		},
		"one as text": func(r *siptrace.Record) {
			r.From, r.To.Proto = siptrace.TextEndpoint("udp:192.0.2.9:5060"), siptrace.WSS
		},
		"users":        func(r *siptrace.Record) { r.Users = [][]byte{{}, []byte("sip:a@b"), []byte("sip:c@d")} },
		"no rows":      func(r *siptrace.Record) { r.Users = [][]byte{} },
		"table":        func(r *siptrace.Record) { r.Table = "sip_trace_alt" },
		"hep":          func(r *siptrace.Record) { r.CaptureID, r.CorrelationID = 70001, []byte("c-1") },
		"source":       func(r *siptrace.Record) { r.Source = v6 },
		"odd bytes":    func(r *siptrace.Record) { r.CallID, r.Msg = []byte("a\x00\xff"), []byte("\x00\xff\x00") },
		"100 KB":       func(r *siptrace.Record) { r.Msg = bytes.Repeat([]byte("0123456789"), 10000) },
		"one part":     func(r *siptrace.Record) { r.Msg = bytes.Repeat([]byte("x"), maxPart) },
		"one part + 1": func(r *siptrace.Record) { r.Msg = bytes.Repeat([]byte("x"), maxPart+1) },
		"nowhere":      func(r *siptrace.Record) { r.Sinks = 0 },
		"year 9999":    func(r *siptrace.Record) { r.Time = time.Unix(253402214399, 42000) },
		"year 2106":    func(r *siptrace.Record) { r.Time = time.Unix(1<<32, 0) },
		"year 1969":    func(r *siptrace.Record) { r.Time = time.Unix(-1, 999999000) },
		"meta": func(r *siptrace.Record) {
			r.NodeName, r.VLAN, r.Path, r.Origin = []byte("node"), 7, []byte("path"), []byte("origin")
		},
		"vendor": func(r *siptrace.Record) { r.Vendor = []byte("\x00\x03\x00\x01\x00\x09abc") },
		"long vendor": func(r *siptrace.Record) {
			r.Vendor, r.Msg = bytes.Repeat([]byte("v"), maxVendor), bytes.Repeat([]byte("x"), 100_000)
		},
		"many fields": func(r *siptrace.Record) {
			// What a HEP3 packet of 61,618 bytes may hold.
			long := func(c string) []byte { return bytes.Repeat([]byte(c), maxField) }
			r.CallID, r.Method, r.FromTag, r.ToTag, r.Status = long("i"), long("m"), long("f"), long("t"), long("s")
			r.CorrelationID, r.NodeName, r.Path, r.Origin = long("c"), long("n"), long("p"), long("o")
			r.Msg, r.Vendor = bytes.Repeat([]byte("x"), 50_000), long("v")
			for range 64 {
				r.Users, r.Destinations = append(r.Users, long("u")), append(r.Destinations, string(long("d")))
			}
		},
		"sinks":         func(r *siptrace.Record) { r.Sinks = siptrace.ToHEP | siptrace.ToSIP },
		"destinations":  func(r *siptrace.Record) { r.Destinations = []string{"sip:192.0.2.3:9060", "sip:h;transport=tcp"} },
		"log line":      func(r *siptrace.Record) { r.Type, r.Msg = siptrace.TypeLog, []byte("text") },
		"not SIP":       func(r *siptrace.Record) { r.Type, r.Packet, r.Msg = 5, []byte("HEP3..."), nil },
		"empty message": func(r *siptrace.Record) { r.Msg = []byte{} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			want := record(1, "a@b")
			change(&want)
			var c codec
			first := record(0, "first")
			data, err := c.append(nil, &first)
			if err != nil {
				t.Fatal(err)
			}
			if data, err = c.append(data, &want); err != nil {
				t.Fatal(err)
			}
			var got []siptrace.Record
			var raws [][]byte
			var d Decoder
			err = d.Each(&Batch{data: data}, func(r *siptrace.Record, raw []byte) error {
				copied := *r
				copied.Destinations = slices.Clone(r.Destinations)
				if r.Users != nil {
					copied.Users = append([][]byte{}, r.Users...)
				}
				got, raws = append(got, copied), append(raws, raw)
				return nil
			})
			if err != nil || len(got) != 2 {
				t.Fatalf("got %d records, error %v", len(got), err)
			}
			if !bytes.Equal(append(append([]byte{}, raws[0]...), raws[1]...), data) {
				t.Error("the raw records are not the batch")
			}
			if !got[1].Time.Equal(want.Time) {
				t.Errorf("time: got %v, want %v", got[1].Time, want.Time)
			}
			got[1].Time = want.Time
			if !reflect.DeepEqual(normal(got[1]), normal(want)) {
				t.Errorf("got  %+v\nwant %+v", normal(got[1]), normal(want))
			}
		})
	}
}

// A record that a HEP3 packet of 61,618 bytes made is taken, whatever its fields
// hold; what is over the bounds is clipped, and counted.
func TestClipped(t *testing.T) {
	s := open(t, testConfig(t))
	defer closeAll(t, s, nil)
	long := func(c string, n int) []byte { return bytes.Repeat([]byte(c), n) }
	r := record(1, "a@b")
	for _, step := range []struct {
		change  func()
		clipped uint64
	}{
		{func() {}, 0},
		{func() {
			r.CallID, r.Method, r.FromTag, r.ToTag = long("i", maxField), long("m", maxField), long("f", maxField), long("t", maxField)
		}, 0},
		{func() { r.CorrelationID, r.Msg = long("c", 28<<10), long("x", 17<<10) }, 1},
		{func() { r.CorrelationID, r.Vendor = nil, long("v", maxVendor+1) }, 2},
		{func() { r.Vendor, r.CallID = nil, long("i", 1<<20) }, 3},
		{func() { r.CallID, r.NodeName, r.Path = nil, long("n", 60<<10), long("p", 60<<10) }, 4},
		{func() { r.NodeName, r.Path = nil, nil }, 4},
	} {
		step.change()
		if err := s.Put(&r); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats.Clipped.Load(); got != step.clipped {
			t.Errorf("%d clipped, want %d", got, step.clipped)
		}
	}
}

// normal makes empty and absent text the same.
func normal(r siptrace.Record) siptrace.Record {
	for _, f := range []*[]byte{&r.CallID, &r.Msg, &r.Method, &r.Status, &r.FromTag, &r.ToTag} {
		if len(*f) == 0 {
			*f = nil
		}
	}
	return r
}

func TestDamagedBatch(t *testing.T) {
	var c codec
	r := record(1, "a@b")
	data, err := c.append(nil, &r)
	if err != nil {
		t.Fatal(err)
	}
	var d Decoder
	for n := 1; n < len(data); n++ {
		err := d.Each(&Batch{data: data[:n]}, func(*siptrace.Record, []byte) error { return nil })
		if err == nil {
			t.Fatalf("no error for %d of %d bytes", n, len(data))
		}
	}
}

func open(t *testing.T, cfg Config) *Spool {
	t.Helper()
	s, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testConfig(t *testing.T) Config {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	cfg.BatchAge = 5 * time.Millisecond
	return cfg
}

func put(t *testing.T, s *Spool, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		r := record(i, fmt.Sprintf("call-%d", i%10))
		if err := s.Put(&r); err != nil {
			t.Fatal(err)
		}
	}
}

// take reads n records of all shards, done with each batch, and checks the
// order in each call.
func take(t *testing.T, s *Spool, readers []*reader, n int, seen map[string][]string) {
	t.Helper()
	var d Decoder
	deadline := time.After(20 * time.Second)
	for n > 0 {
		var b *Batch
		r := readers[0]
		select {
		case b = <-readers[0].Batches():
		case b = <-readers[1].Batches():
			r = readers[1]
		case <-deadline:
			t.Fatalf("%d records missing", n)
		}
		err := d.Each(b, func(rec *siptrace.Record, _ []byte) error {
			seen[string(rec.CallID)] = append(seen[string(rec.CallID)], string(rec.Msg))
			n--
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Done(b)
	}
}

// readers reads all shards for a sink; the caller closes them.
func readers(t *testing.T, s *Spool) []*reader {
	t.Helper()
	var rs []*reader
	for _, sh := range s.shards {
		r := s.reserve("test", sh, Oldest)
		if err := r.resume(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.register([]*reader{r})
		r.start(context.Background())
		rs = append(rs, r)
	}
	return rs
}

func closeAll(t *testing.T, s *Spool, rs []*reader) {
	t.Helper()
	for _, r := range rs {
		r.Close()
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestOrderAndRestart(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	rs := readers(t, s)
	seen := map[string][]string{}
	put(t, s, 0, 1000)
	s.Flush(context.Background())
	take(t, s, rs, 1000, seen)
	closeAll(t, s, rs)

	// What one run left is there for the next one; what was done is not.
	s = open(t, cfg)
	put(t, s, 1000, 1500)
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	rs = readers(t, s)
	var pending uint64
	for _, r := range rs {
		pending += r.Pending()
	}
	if pending != 500 {
		t.Errorf("pending after restart: got %d, want 500", pending)
	}
	take(t, s, rs, 500, seen)
	for _, r := range rs {
		if r.Pending() != 0 {
			t.Errorf("pending at the end: got %d", r.Pending())
		}
	}
	closeAll(t, s, rs)

	for call, msgs := range seen {
		if len(msgs) != 150 {
			t.Errorf("%s: got %d records, want 150", call, len(msgs))
		}
		var n, last int
		for i, m := range msgs {
			if _, err := fmt.Sscanf(m, "OPTIONS sip:a SIP/2.0\r\nn: %d", &n); err != nil {
				t.Fatal(err)
			}
			if i > 0 && n <= last {
				t.Fatalf("%s: %d after %d", call, n, last)
			}
			last = n
		}
	}
}

func TestPutAfterClose(t *testing.T) {
	s := open(t, testConfig(t))
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := record(1, "a")
	if err := s.Put(&r); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestFull(t *testing.T) {
	for _, policy := range []string{RefuseNew, DropOldest} {
		t.Run(policy, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.MaxBytes, cfg.Full = 16<<20, policy
			s := open(t, cfg)
			rs := readers(t, s)
			const n = 500
			big := bytes.Repeat([]byte("x"), 100<<10)
			for i := range n {
				r := record(i, "call")
				r.Msg = big
				if err := s.Put(&r); err != nil {
					t.Fatal(err)
				}
			}
			s.Flush(context.Background())
			spooled, refused := s.Stats.Spooled.Load(), s.Stats.Refused.Load()
			if spooled+refused != n {
				t.Fatalf("spooled %d + refused %d, want %d", spooled, refused, n)
			}
			var got, missed uint64
			timeout := time.After(20 * time.Second)
			for got+missed < spooled {
				var b *Batch
				select {
				case b = <-rs[0].Batches():
				case b = <-rs[1].Batches():
				case <-timeout:
					t.Fatalf("got %d, missed %d of %d", got, missed, spooled)
				}
				got, missed = got+uint64(b.Records), missed+b.Missed
			}
			switch policy {
			case RefuseNew:
				if refused == 0 || missed != 0 || got != spooled {
					t.Errorf("refused %d, missed %d, got %d of %d", refused, missed, got, spooled)
				}
			case DropOldest:
				if refused != 0 || missed == 0 || got == 0 {
					t.Errorf("refused %d, got %d, missed %d", refused, got, missed)
				}
			}
			closeAll(t, s, rs)
		})
	}
}

// What expires while nobody reads is told when it is all gone.
func TestExpired(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxAge = 200 * time.Millisecond
	s := open(t, cfg)
	rs := readers(t, s)
	for _, r := range rs {
		r.Close()
	}
	const n = 200
	put(t, s, 0, n)
	s.Flush(context.Background())
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * cfg.MaxAge)
	s = open(t, cfg)
	rs = readers(t, s)
	var got, missed uint64
	timeout := time.After(20 * time.Second)
	for got+missed < n {
		var b *Batch
		r := rs[0]
		select {
		case b = <-rs[0].Batches():
		case b = <-rs[1].Batches():
			r = rs[1]
		case <-timeout:
			t.Fatalf("got %d, missed %d of %d", got, missed, n)
		}
		got, missed = got+uint64(b.Records), missed+b.Missed
		r.Done(b)
	}
	if missed == 0 || rs[0].Pending()+rs[1].Pending() != 0 {
		t.Errorf("got %d, missed %d, pending %d", got, missed, rs[0].Pending()+rs[1].Pending())
	}
	closeAll(t, s, rs)
}

// What can't be read any more is counted before the batch that follows, and at the
// end of the log by a batch of its own.
func TestGaps(t *testing.T) {
	const n = 40
	for name, gone := range map[string][]uint64{
		"nothing":               nil,
		"one":                   {3},
		"several, and the last": {1, 9, 10, n},
		"all":                   nil,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Shards, cfg.BatchBytes = 1, 1<<10
			s := open(t, cfg)
			for i := range n {
				rec := record(i, "call")
				rec.Msg = make([]byte, cfg.BatchBytes) // a batch each
				if err := s.Put(&rec); err != nil {
					t.Fatal(err)
				}
			}
			closeAll(t, s, nil)
			s, disk := onDisk(t, cfg)
			disk.mu.Lock()
			for i := range uint64(n) {
				disk.gone[i+1] = name == "all" || slices.Contains(gone, i+1)
			}
			disk.mu.Unlock()
			r := readers(t, s)[0]
			var got, missed uint64
			for last := uint64(0); got+missed < n; {
				var b *Batch
				select {
				case b = <-r.Batches():
				case <-time.After(20 * time.Second):
					t.Fatalf("got %d, missed %d of %d", got, missed, n)
				}
				if want := b.Seq - uint64(b.Records) - last; b.Seq < last || b.Missed != want || b.Timeline == "" {
					t.Errorf("batch %d of %q behind %d: %d missed, want %d", b.Seq, b.Timeline, last, b.Missed, want)
				}
				got, missed, last = got+uint64(b.Records), missed+b.Missed, b.Seq
				r.Done(b)
			}
			want := uint64(len(gone))
			if name == "all" {
				want = n
			}
			if missed != want || r.Pending() != 0 {
				t.Errorf("missed %d, want %d; %d wait", missed, want, r.Pending())
			}
			closeAll(t, s, []*reader{r})
		})
	}
}

// What all sinks are done with is given up, and nothing else.
func TestTrim(t *testing.T) {
	cfg := testConfig(t)
	cfg.Shards, cfg.MaxBytes = 1, 16<<20
	s := open(t, cfg)
	r := readers(t, s)[0]
	const n = 45
	for i := range n {
		rec := record(i, "call")
		rec.Msg = make([]byte, cfg.BatchBytes) // a batch each
		if err := s.Put(&rec); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush(context.Background())
	full := s.Usage().Bytes
	for i := range uint64(n) {
		r.Done(<-r.Batches())
		if err := s.savePositions(context.Background()); err != nil {
			t.Fatal(err)
		}
		b, err := s.shards[0].log.Bounds(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if b.First > i+2 || b.Last != n {
			t.Errorf("%d batches done: %d to %d are there", i+1, b.First, b.Last)
		}
	}
	if u := s.Usage(); u.Bytes > full/4 {
		t.Errorf("%d of %d bytes are kept for nobody", u.Bytes, full)
	}
	closeAll(t, s, []*reader{r})
}

// Call-IDs that differ in their last byte alone are spread too.
func TestShardOf(t *testing.T) {
	for _, format := range []string{"call-%d", "%d@192.0.2.1", "%08x"} {
		count := [4]int{}
		for i := range 1000 {
			count[shardOf(fmt.Appendf(nil, format, i), 4)]++
		}
		for _, n := range count {
			if n < 200 {
				t.Errorf("%s: got %v of 1000", format, count)
			}
		}
	}
}

func BenchmarkCodec(b *testing.B) {
	r := record(1, "3848276298220188511@atlanta.example.com")
	r.Msg = bytes.Repeat([]byte("x"), 900)
	r.FromTag, r.ToTag = []byte("9fxced76sl"), []byte("8321234356")
	var c codec
	data, err := c.append(nil, &r)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if data, err = c.append(data[:0], &r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("next", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.next(data, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
