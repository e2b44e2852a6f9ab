package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/tests/servers"
)

// TestEngine is what needs a cluster and does it no harm; each test has a shard of its
// own.
func TestEngine(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, servers.NATSOptions{})
	for i, tt := range []struct {
		name string
		run  func(t *testing.T, url string, i int)
	}{
		{"former version", testFormerVersion},
		{"append and read", testAppendRead},
		{"two intakes at once", testTwoIntakes},
		{"waiting", testWaiting},
		{"trim", testTrim},
		{"forget", testForget},
		{"trim notes what it did not read", testTrimNotes},
		{"consumer lost", testConsumerLost},
		{"passed over", testPassedOver},
		{"limits", testLimits},
		{"drop oldest", testDropOldest},
		{"positions", testPositions},
		{"stream deleted", testStreamDeleted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, servers.NATSURL(nodes), i)
		})
	}
}

// testFormerVersion reads what a former version of siptraced left, which used the same
// streams, subjects, headers and keys, and leaves its stream as it is.
func testFormerVersion(t *testing.T, url string, i int) {
	ctx := within1(t)
	other, _ := connect(t, url) // makes the bucket
	js := other.js
	kv := other.positions.kv
	name, subject := "SIPTRACED_"+strconv.Itoa(i), "siptraced.trace."+strconv.Itoa(i)
	former := jetstream.StreamConfig{
		Name: name, Subjects: []string{subject, subject + ".*"}, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
		Discard: jetstream.DiscardNew, MaxBytes: 1 << 20, MaxAge: time.Hour, MaxMsgSize: -1, Replicas: 3, MaxMsgsPerSubject: -1,
	}
	stream, err := patiently(ctx, other, name, func(ctx context.Context) (jetstream.Stream, error) {
		return js.CreateOrUpdateStream(ctx, former)
	})
	if err != nil {
		t.Fatal(err)
	}
	before := stream.CachedInfo()
	for n, text := range []string{"a", "b", "c"} {
		msg := &nats.Msg{Subject: subject + ".SESSION", Data: []byte(text), Header: nats.Header{
			"Records": {"2"}, "Total": {strconv.Itoa(2 * (n + 1))}, "Intake": {"SESSION"}, "Nats-Msg-Id": {"SESSION." + strconv.Itoa(n)},
		}}
		if _, err := js.PublishMsg(ctx, msg); err != nil {
			t.Fatal(err)
		}
	}
	id := fmt.Sprintf("%s@%x", name, before.Created.UnixNano())
	if _, err := kv.PutString(ctx, "store."+strconv.Itoa(i), "1 2 "+id); err != nil {
		t.Fatal(err)
	}

	e, _ := connect(t, url)
	l := shard(t, e, i, journal.Limits{Bytes: 1 << 20, Age: time.Hour})
	if l.ID() != id {
		t.Errorf("ID = %s, want %s", l.ID(), id)
	}
	got := all(t, l, 0)
	if want := []string{"a", "b", "c"}; !slices.Equal(data(got), want) {
		t.Fatalf("read %q, want %q", data(got), want)
	}
	if c := got[2]; c.Seq != 3 || c.Records != 2 || c.Total != 6 || c.Intake != "SESSION" || c.Timeline != id || time.Since(c.Taken) > soon {
		t.Errorf("the third one is %+v", c)
	}
	text, found, err := e.Positions().Get(ctx, journal.PositionKey("store", i))
	at, ok := journal.ParsePosition(text)
	if err != nil || !found || !ok || at != (journal.Position{Seq: 1, Total: 2, Log: id}) {
		t.Errorf("position %q, %v, %v", text, found, err)
	}
	if w, err := l.Waiting(ctx, []uint64{0, 1, 3}); err != nil || !slices.Equal(w, []uint64{6, 4, 0}) {
		t.Errorf("waiting %v, %v", w, err)
	}
	// What the new version puts in is read by the former one in the same way.
	appendAll(t, l, entries(0, "d"))
	msg, err := stream.GetMsg(ctx, 4)
	if err != nil {
		t.Fatal(err)
	}
	intake := msg.Header.Get("Intake")
	if string(msg.Data) != "d" || msg.Header.Get("Records") != "1" || msg.Header.Get("Total") != "1" || intake == "" || msg.Subject != subject+"."+intake {
		t.Errorf("new message %q on %s: %v", msg.Data, msg.Subject, msg.Header)
	}
	after, err := stream.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", after.Config) != fmt.Sprintf("%+v", before.Config) {
		t.Errorf("the stream's configuration became\n%+v, was\n%+v", after.Config, before.Config)
	}
	if _, err := js.CreateOrUpdateStream(ctx, former); err != nil {
		t.Errorf("a former version does not start beside the new one: %v", err)
	}
}

func testAppendRead(t *testing.T, url string, i int) {
	e, _ := connect(t, url)
	l := shard(t, e, i, journal.Limits{})
	if l.Exclusive() {
		t.Error("Exclusive")
	}
	want := texts("m", 20)
	list := entries(0, want...)
	appendAll(t, l, list[:7])
	appendAll(t, l, list[7:])
	for n, e := range list {
		if e.Seq != uint64(n+1) || e.Timeline != l.ID() {
			t.Errorf("entry %d has number %d, timeline %s", n, e.Seq, e.Timeline)
		}
	}
	if got := data(all(t, l, 0)); !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	if got := data(all(t, l, 15)); !slices.Equal(got, want[15:]) {
		t.Errorf("behind 15: %q, want %q", got, want[15:])
	}
	b, err := l.Bounds(within1(t))
	if err != nil || b.First != 1 || b.Last != 20 || b.Total != 20 || b.Bytes == 0 || b.Oldest.IsZero() {
		t.Errorf("bounds %+v, %v", b, err)
	}
	c, err := l.Read(within1(t), 20)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next at the end: %v", err)
	}
	appendAll(t, l, entries(20, "late"))
	if got, err := c.Next(within1(t)); err != nil || string(got.Data) != "late" {
		t.Errorf("Next = %q, %v", got.Data, err)
	}
	c.Close()
	if _, err := c.Next(within1(t)); err == nil {
		t.Error("Next after Close: no error")
	}
	if n, err := e.Logs(within1(t)); err != nil || n <= i {
		t.Errorf("Logs = %d, %v", n, err)
	}
}

// testTwoIntakes: each begins with a subject that has no message, and is the faster one
// now and then.
func testTwoIntakes(t *testing.T, url string, i int) {
	const each = 100
	var intakes sync.WaitGroup
	var logs [2]*Log
	for n := range logs {
		e, _ := connect(t, url)
		logs[n] = shard(t, e, i, journal.Limits{})
	}
	for n, l := range logs {
		intakes.Go(func() {
			for k, e := range entries(0, texts(strconv.Itoa(n)+".", each)...) {
				if m, err := l.Append(within1(t), []*journal.Entry{e}); m != 1 || err != nil {
					t.Errorf("%d: %v", k, err)
					return
				}
				if k%10 == 9 { // the subject is empty again
					if err := l.Trim(within1(t), e.Seq); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	c, err := logs[0].Read(within1(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	intakes.Wait()
	e, _ := connect(t, url)
	seen := shard(t, e, i, journal.Limits{})
	gone, err := seen.readGone(within1(t))
	if err != nil {
		t.Fatal(err)
	}
	for n, l := range logs {
		b, err := l.Bounds(within1(t))
		if err != nil || b.Last != 2*each || b.Total != each {
			t.Errorf("intake %d: %+v, %v, want %d messages", n, b, err, 2*each)
		}
		if gone[l.engine.session].number < each/10 {
			t.Errorf("of intake %d is noted %+v", n, gone[l.engine.session])
		}
	}
}

func testWaiting(t *testing.T, url string, i int) {
	ea, _ := connect(t, url)
	eb, _ := connect(t, url)
	a, b := shard(t, ea, i, journal.Limits{}), shard(t, eb, i, journal.Limits{})
	for n := range 5 { // numbers 1 to 10 in turn
		appendAll(t, a, entries(uint64(n), "a"))
		appendAll(t, b, entries(uint64(n), "b"))
	}
	for _, l := range []*Log{a, b} {
		got, err := l.Waiting(within1(t), []uint64{0, 1, 4, 9, 10, 11, 4})
		if want := []uint64{10, 9, 6, 1, 0, 0, 6}; err != nil || !slices.Equal(got, want) {
			t.Errorf("waiting %v, %v, want %v", got, err, want)
		}
	}
	if err := a.Trim(within1(t), 4); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Waiting(within1(t), []uint64{0, 4, 9}); err != nil || !slices.Equal(got, []uint64{6, 6, 1}) {
		t.Errorf("after a trim: %v, %v", got, err)
	}
}

func position(t *testing.T, e *Engine, sink string, l *Log, seq uint64) {
	t.Helper()
	if err := e.Positions().Put(within1(t), journal.PositionKey(sink, l.index), journal.Position{Seq: seq, Log: l.ID()}.String()); err != nil {
		t.Fatal(err)
	}
}

// testTrim: an instance gives up nothing that a sink of another one is not done with.
func testTrim(t *testing.T, url string, i int) {
	ea, _ := connect(t, url)
	eb, _ := connect(t, url)
	a, b := shard(t, ea, i, journal.Limits{}), shard(t, eb, i, journal.Limits{})
	appendAll(t, a, entries(0, texts("m", 10)...))
	first := func() uint64 {
		t.Helper()
		bounds, err := a.Bounds(within1(t))
		if err != nil {
			t.Fatal(err)
		}
		return bounds.First
	}
	position(t, ea, "store", a, 10)
	position(t, ea, "mirror.m", a, 3) // its destination is away; b has no such sink
	for _, step := range []struct {
		what  string
		moves func()
		trim  uint64
		first uint64
	}{
		{"the mirror has three", func() {}, 10, 4},
		{"again", func() {}, 10, 4},
		{"the mirror has five", func() { position(t, ea, "mirror.m", a, 5) }, 10, 6},
		{"the asking one has less", func() { position(t, ea, "mirror.m", a, 9) }, 8, 9},
		{"another stream's position", func() {
			if err := ea.Positions().Put(within1(t), journal.PositionKey("old", i), "1 1 SIPTRACED_99@1"); err != nil {
				t.Fatal(err)
			}
		}, 9, 10},
		{"the mirror is done", func() { position(t, ea, "mirror.m", a, 10) }, 10, 11},
	} {
		step.moves()
		if err := b.Trim(within1(t), step.trim); err != nil {
			t.Fatal(err)
		}
		if got := first(); got != step.first {
			t.Errorf("%s: the first message is %d, want %d", step.what, got, step.first)
		}
	}
}

// testForget: what a sink keeps is told, and it keeps nothing once it is forgotten.
func testForget(t *testing.T, url string, i int) {
	e, out := connect(t, url)
	l := shard(t, e, i, journal.Limits{})
	appendAll(t, l, entries(0, texts("m", 10)...))
	position(t, e, "forget-store", l, 10)
	position(t, e, "forget-gone", l, 2)
	all, err := e.Backlogs(within1(t))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]journal.Backlog{}
	for _, b := range all {
		got[b.Sink] = b
	}
	if b := got["forget-gone"]; b.Shard != i || b.Seq != 2 || b.Records != 8 || b.Bytes == 0 || time.Since(b.Moved) > soon {
		t.Errorf("backlog %+v", b)
	}
	if b := got["forget-store"]; b.Seq != 10 || b.Records != 0 || b.Bytes != 0 {
		t.Errorf("backlog %+v", b)
	}
	for range 2 { // the second one finds it as old as it is
		if err := l.Trim(within1(t), 10); err != nil {
			t.Fatal(err)
		}
		l.held.since = time.Now().Add(-heldPatience - time.Second)
	}
	if !out.has("sink=forget-gone") || !out.has("messages=8") || !out.has("spool forget") {
		t.Errorf("not said that the sink keeps messages: %s", out.text.String())
	}
	for _, want := range []bool{true, false} {
		if found, err := e.Forget(within1(t), "forget-gone"); err != nil || found != want {
			t.Errorf("Forget = %v, %v, want %v", found, err, want)
		}
	}
	if err := l.Trim(within1(t), 10); err != nil {
		t.Fatal(err)
	}
	if b, err := l.Bounds(within1(t)); err != nil || b.First != 11 || b.Last != 10 {
		t.Errorf("bounds %+v, %v", b, err)
	}
}

// testTrimNotes: who gives up messages that he never read notes how far their intakes
// came all the same.
func testTrimNotes(t *testing.T, url string, i int) {
	ea, _ := connect(t, url)
	eb, _ := connect(t, url)
	a, b := shard(t, ea, i, journal.Limits{}), shard(t, eb, i, journal.Limits{})
	appendAll(t, a, entries(0, texts("m", 5)...))
	if err := b.Trim(within1(t), 5); err != nil {
		t.Fatal(err)
	}
	gone, err := a.readGone(within1(t))
	if want := (mark{number: 5, seq: 5}); err != nil || gone[ea.session] != want {
		t.Errorf("noted %+v, %v, want %+v", gone[ea.session], err, want)
	}
	appendAll(t, a, entries(5, "again"))
	if b, err := a.Bounds(within1(t)); err != nil || b.First != 6 || b.Last != 6 {
		t.Errorf("bounds %+v, %v", b, err)
	}
}

// testConsumerLost: the consumer of a cursor is gone, with its server say, and the
// cursor goes on behind the last message.
func testConsumerLost(t *testing.T, url string, i int) {
	e, _ := connect(t, url)
	l := shard(t, e, i, journal.Limits{})
	appendAll(t, l, entries(0, texts("m", 50)...))
	c, err := l.Read(within1(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := range 50 {
		got, err := c.Next(within1(t))
		if err != nil || string(got.Data) != "m"+strconv.Itoa(n) {
			t.Fatalf("%d: %q, %v", n, got.Data, err)
		}
		if n%20 != 10 {
			continue
		}
		names := e.js
		s, err := names.Stream(within1(t), l.name)
		if err != nil {
			t.Fatal(err)
		}
		for name := range s.ConsumerNames(within1(t)).Name() {
			if err := s.DeleteConsumer(within1(t), name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				t.Fatal(err)
			}
		}
	}
}

// testPassedOver: what a consumer does not have, and the stream has, is read from there.
func testPassedOver(t *testing.T, url string, i int) {
	e, _ := connect(t, url)
	l := shard(t, e, i, journal.Limits{})
	appendAll(t, l, entries(0, texts("m", 10)...))
	trim(t, l, 2)
	if err := l.handle().DeleteMsg(within1(t), 5); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(t.Context())
	defer stop()
	for _, tt := range []struct {
		last, next uint64
		want       []string
	}{
		{0, 1, nil},
		{0, 8, []string{"m2", "m3", "m5", "m6"}},
		{4, 6, nil},
		{4, 7, []string{"m5"}},
		{7, 100, []string{"m7", "m8", "m9"}},
	} {
		c := &cursor{log: l, out: make(chan journal.Entry, 10), run: run, stop: stop, last: tt.last}
		if err := c.between(tt.next, l.ID()); err != nil {
			t.Fatal(err)
		}
		close(c.out)
		var got []journal.Entry
		for e := range c.out {
			got = append(got, e)
		}
		if !slices.Equal(data(got), tt.want) {
			t.Errorf("between %d and %d: %q, want %q", tt.last, tt.next, data(got), tt.want)
		}
	}
	if got, want := data(all(t, l, 0)), []string{"m2", "m3", "m5", "m6", "m7", "m8", "m9"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

// testLimits: what the bounds don't take is told apart from what fails.
func testLimits(t *testing.T, url string, i int) {
	e, _ := connect(t, url)
	l := shard(t, e, i, journal.Limits{Bytes: 64 << 10})
	list := entries(0, texts("m", 10)...)
	for _, e := range list {
		e.Data = make([]byte, 16<<10)
	}
	n, err := l.Append(within1(t), list)
	if n != 3 || !errors.Is(err, journal.ErrFull) || errors.Is(err, journal.ErrUncertain) {
		t.Fatalf("Append = %d, %v, want 3 and %v", n, err, journal.ErrFull)
	}
	if err := e.SetLimits(within1(t), i, journal.Limits{Bytes: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, list[n:])
	large := entries(10, "large")
	large[0].Data = make([]byte, e.MaxEntry()+headroom+1)
	if n, err := l.Append(within1(t), large); n != 0 || !errors.Is(err, journal.ErrTooLarge) || errors.Is(err, journal.ErrUncertain) {
		t.Errorf("Append = %d, %v, want %v", n, err, journal.ErrTooLarge)
	}
	large[0].Data = make([]byte, e.MaxEntry())
	if err := e.SetLimits(within1(t), i, journal.Limits{Bytes: 8 << 20, Age: time.Hour}); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, large)
	info, err := l.info(within1(t))
	if err != nil || info.Config.MaxAge != time.Hour || info.Config.MaxBytes != 8<<20 {
		t.Errorf("bounds %v, %d, %v", info.Config.MaxAge, info.Config.MaxBytes, err)
	}
	if err := e.SetLimits(within1(t), 1000, journal.Limits{}); err == nil {
		t.Error("the bounds of a stream that is not open are changed")
	}
}

func testDropOldest(t *testing.T, url string, i int) {
	e, _ := connect(t, url)
	l := shard(t, e, i, journal.Limits{Bytes: 64 << 10, DropOldest: true})
	if any, err := l.DropOldest(within1(t)); any || err != nil {
		t.Errorf("DropOldest of nothing = %v, %v", any, err)
	}
	list := entries(0, texts("m", 10)...)
	for _, e := range list {
		e.Data = make([]byte, 16<<10)
	}
	appendAll(t, l, list) // the stream makes room itself
	b, err := l.Bounds(within1(t))
	if err != nil || b.Last != 10 || b.First <= 1 || b.Bytes > 64<<10 {
		t.Errorf("bounds %+v, %v", b, err)
	}
	position(t, e, "drop-store", l, 0) // keeps nothing now
	if any, err := l.DropOldest(within1(t)); !any || err != nil {
		t.Errorf("DropOldest = %v, %v", any, err)
	}
	if after, err := l.Bounds(within1(t)); err != nil || after.First != b.First+1 {
		t.Errorf("bounds %+v, %v, were %+v", after, err, b)
	}
}

func testPositions(t *testing.T, url string, _ int) {
	ctx := within1(t)
	var engines [3]*Engine
	for n := range engines {
		engines[n], _ = connect(t, url)
	}
	p := engines[0].Positions()
	if _, found, err := p.Get(ctx, "none"); found || err != nil {
		t.Errorf("Get of nothing: %v, %v", found, err)
	}
	if err := p.Remove(ctx, "none"); err != nil {
		t.Error(err)
	}
	if err := p.Put(ctx, "kept.x", "1"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if value, found, err := p.Get(ctx, "kept.x"); found != want || err != nil || found && value != "1" {
			t.Errorf("Get = %q, %v, %v", value, found, err)
		}
		servers.WaitFor(t, soon, "the keys", func() bool { // the list may be a moment old
			keys, err := p.Keys(ctx)
			return err == nil && slices.Contains(keys, "kept.x") == want
		})
		if err := p.Remove(ctx, "kept.x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
	// One of those that claim succeeds, and all know which.
	var held [3]string
	var all sync.WaitGroup
	for n, e := range engines {
		all.Go(func() {
			var err error
			if held[n], err = e.Positions().Claim(ctx, "claimed", strconv.Itoa(n)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if held[0] == "" || held[0] != held[1] || held[0] != held[2] {
		t.Errorf("claimed by %q", held)
	}
	if got, err := p.Claim(ctx, "claimed", "late"); err != nil || got != held[0] {
		t.Errorf("claimed late: %q, %v, want %q", got, err, held[0])
	}
	// No change is lost.
	const each = 10
	for _, e := range engines {
		all.Go(func() {
			for range each {
				err := e.positions.change(ctx, "changed", func(value string) string {
					n, _ := strconv.Atoi(value)
					return strconv.Itoa(n + 1)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	last := ""
	if err := p.(*positions).change(ctx, "changed", func(value string) string { last = value; return value }); err != nil || last != strconv.Itoa(3*each) {
		t.Errorf("changed %s times, %v, want %d", last, err, 3*each)
	}
}

// testStreamDeleted: a stream that somebody deletes is made anew, its numbers go on, and
// who reads does so.
func testStreamDeleted(t *testing.T, url string, i int) {
	ea, out := connect(t, url)
	eb, _ := connect(t, url)
	a, b := shard(t, ea, i, journal.Limits{}), shard(t, eb, i, journal.Limits{})
	appendAll(t, a, entries(0, texts("m", 5)...))
	c, err := b.Read(within1(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 5 {
		if _, err := c.Next(within1(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ea.js.DeleteStream(within1(t), a.name); err != nil {
		t.Fatal(err)
	}
	list := entries(5, texts("n", 3)...)
	for _, e := range list {
		servers.WaitFor(t, soon, "the stream to be there again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			n, _ := a.Append(ctx, []*journal.Entry{e})
			if n == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			return n == 1
		})
	}
	for n := range 3 {
		got, err := c.Next(within1(t))
		if err != nil || string(got.Data) != "n"+strconv.Itoa(n) || got.Seq != uint64(6+n) || got.Timeline != a.ID() {
			t.Fatalf("read %q, number %d, timeline %s, %v", got.Data, got.Seq, got.Timeline, err)
		}
	}
	if l := a.Timelines(); len(l) != 2 || l[0].Last != 5 || l[1].Last != 8 || l[0].ID == l[1].ID {
		t.Errorf("timelines %+v", l)
	}
	if !out.has("the stream is gone") || !out.has("made anew: what waited in it is lost") {
		t.Errorf("not said: %s", out.text.String())
	}
	// A process that starts now, or one that was away, finds the numbers going on.
	position(t, ea, "deleted-store", a, 8)
	if err := ea.js.DeleteStream(within1(t), a.name); err != nil {
		t.Fatal(err)
	}
	e3, _ := connect(t, url)
	l := shard(t, e3, i, journal.Limits{})
	one := entries(0, "o")
	appendAll(t, l, one)
	if one[0].Seq != 9 {
		t.Errorf("number %d, want 9", one[0].Seq)
	}
	if got, err := c.Next(within1(t)); err != nil || string(got.Data) != "o" {
		t.Errorf("read %q, %v", got.Data, err)
	}
}

// TestAccountFull: the bounds of the account, and those of the servers, are no room as
// well.
func TestAccountFull(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, servers.NATSOptions{Server: `accounts {
  SPOOL { jetstream { max_file: 8388608 }, users: [ { user: u, password: p } ] }
}
no_auth_user: u`})
	e, _ := connect(t, servers.NATSURL(nodes))
	l := shard(t, e, 0, journal.Limits{})
	position(t, e, "store", l, 0)
	list := entries(0, texts("m", 20)...)
	for _, e := range list {
		e.Data = make([]byte, 512<<10)
	}
	n, err := 0, error(nil)
	for deadline := time.Now().Add(soon); err == nil || !errors.Is(err, journal.ErrFull); {
		m := 0
		m, err = l.Append(within1(t), list[n:])
		if n += m; n == len(list) || time.Now().After(deadline) {
			t.Fatalf("%d of %d taken, %v, want %v", n, len(list), err, journal.ErrFull)
		}
	}
	if n < 2 {
		t.Fatalf("%d were taken", n)
	}
	// What a sink is done with makes room, although there is none to say so.
	at := journal.Position{Seq: l.tail() - 1, Log: l.ID()}.String()
	var full error
	servers.WaitFor(t, soon, "the cluster to be full for a position as well", func() bool {
		for total := l.total; ; total++ {
			if _, err := l.Append(within1(t), entries(total, "small")); err != nil {
				break
			}
		}
		full = e.Positions().Put(within1(t), journal.PositionKey("store", 0), at)
		return full != nil
	})
	if !errors.Is(full, journal.ErrFull) {
		t.Fatalf("Put = %v, want %v", full, journal.ErrFull)
	}
	servers.WaitFor(t, soon, "a trim, and a note of it", func() bool { return l.Trim(within1(t), l.tail()) == nil })
	servers.WaitFor(t, soon, "room for a position", func() bool {
		return e.Positions().Put(within1(t), journal.PositionKey("store", 0), at) == nil
	})
	b, err := l.Bounds(within1(t))
	kept, ok := journal.ParsePosition(at)
	if !ok || err != nil || b.First != kept.Seq+1 {
		t.Errorf("bounds %+v, %v, want them to begin behind %d", b, err, kept.Seq)
	}
	servers.WaitFor(t, soon, "a note of what is gone", func() bool {
		err := l.Trim(within1(t), kept.Seq)
		gone, err2 := l.readGone(within1(t))
		return err == nil && err2 == nil && gone[e.session].number >= kept.Seq
	})
	servers.WaitFor(t, soon, "room for a batch", func() bool {
		n, _ := l.Append(within1(t), list[n:n+1])
		return n == 1
	})
	if any, err := l.DropOldest(within1(t)); !any || err != nil {
		t.Errorf("DropOldest = %v, %v", any, err)
	}
}
