package scope

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"siptraced/compat/sipmsg"
)

// forked is a call to three phones: re-INVITE, REFER, a BYE that crosses with
// the other side's, and what the proxy makes of it all.
var forked = strings.Fields(strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(`
A>P INVITE 1 a a -
P>A 100 1INVITE a a -
P>B INVITE 1 p1,a a -
P>C INVITE 1 p2,a a -
P>D INVITE 1 p3,a a -
D>P 486 1INVITE p3,a a d
P>D ACK 1 p3 a d
B>P 180 1INVITE p1,a a b
P>A 180 1INVITE a a b
C>P 180 1INVITE p2,a a c
P>A 180 1INVITE a a c
B>P 200 1INVITE p1,a a b
P>A 200 1INVITE a a b
P>C CANCEL 1 p2 a -
C>P 200 1CANCEL p2 a c
C>P 487 1INVITE p2,a a c
P>C ACK 1 p2 a c
A>P ACK 1 a2 a b
P>B ACK 1 p4,a2 a b
B>P INVITE 1 b1 b a
P>A INVITE 1 p5,b1 b a
A>P 200 1INVITE p5,b1 b a
P>B 200 1INVITE b1 b a
B>P ACK 1 b2 b a
P>A ACK 1 p6,b2 b a
B>P REFER 2 b3 b a
P>A REFER 2 p7,b3 b a
A>P 202 2REFER p7,b3 b a
P>B 202 2REFER b3 b a
A>P NOTIFY 2 a3 a b Subscription-State:active
P>B NOTIFY 2 p8,a3 a b Subscription-State:active
B>P 200 2NOTIFY p8,a3 a b
P>A 200 2NOTIFY a3 a b
A>P NOTIFY 3 a4 a b Subscription-State:terminated
P>B NOTIFY 3 p9,a4 a b Subscription-State:terminated
B>P 200 3NOTIFY p9,a4 a b
P>A 200 3NOTIFY a4 a b
A>P BYE 4 a5 a b
B>P BYE 3 b4 b a
P>B BYE 4 pa,a5 a b
P>A BYE 3 pb,b4 b a
B>P 200 4BYE pa,a5 a b
P>A 200 4BYE a5 a b
A>P 481 3BYE pb,b4 b a
P>B 481 3BYE b4 b a
`, " ", "_")), "\n", " "))

// check holds the lists, the chains and the books of a tracker against each other.
func check(t testing.TB, tr *Tracker) {
	t.Helper()
	var open, bytes, chained int64
	for i := range tr.shards {
		sh := &tr.shards[i]
		sh.mu.Lock()
		for l := range sh.lists {
			var before *scope
			for s := sh.lists[l].oldest; s != nil; before, s = s, s.newer {
				if s.older != before || int(s.list) != l || s.list != s.waitsFor() {
					t.Fatalf("list %d is broken", l)
				}
				if s.size != s.bytes() || len(s.legs) > maxLegs || len(s.peers) > maxPeers || len(s.hops) > maxLegs {
					t.Fatalf("a scope of %d bytes is said to have %d", s.bytes(), s.size)
				}
				open++
				bytes += int64(s.size)
			}
			if sh.lists[l].newest != before {
				t.Fatalf("list %d has another end", l)
			}
		}
		for call, s := range sh.calls {
			n := 0
			for ; s != nil; s = s.next {
				if s.call != call {
					t.Fatal("a scope is in a foreign chain")
				}
				n++
				chained++
			}
			if n == 0 || n > maxPerCall {
				t.Fatalf("%d scopes with one Call-ID", n)
			}
		}
		sh.mu.Unlock()
	}
	if open != chained || open != tr.open() || bytes != tr.bytes.Load() {
		t.Fatalf("%d scopes in lists, %d in chains, %d counted; %d bytes, %d counted", open, chained, tr.open(), bytes, tr.bytes.Load())
	}
	s := Stats{Open: open, Started: tr.started.Load(), Ended: tr.ended.Load(), TimedOut: tr.timedOut.Load(), Evicted: tr.evicted.Load(), Stopped: tr.stopped.Load()}
	if uint64(s.Open)+s.Ended+s.TimedOut+s.Evicted+s.Stopped != s.Started {
		t.Fatalf("the books do not balance: %+v", s)
	}
}

// pass turns the clock on.
func (t *Tracker) pass(d time.Duration) { t.epoch = t.epoch.Add(-d) }

// Thousands of calls at once, taken in by four readers; one message in twenty is
// lost, and neighbours change places. Whatever arrives belongs to the scope of
// its call, by Find or by look-back, once.
func TestManyDialogs(t *testing.T) {
	calls := 2_000
	if os.Getenv("SIPTEST_LONG") != "" {
		calls = 10_000
	}
	const (
		readers = 4
		loss    = 0.05
		block   = 400 // messages in the hands of the readers at once
		setUp   = 19  // lines until the ACK
		// together is how many calls are set up at once.
		together = 200
		// pace is the time that a block takes to come in, whatever it takes to work on.
		pace = 20 * time.Millisecond
	)
	rng := rand.New(rand.NewPCG(1, 2))
	lines := make([]*message, len(forked))
	for i, l := range forked {
		lines[i] = parse(t, callID(0), strings.ReplaceAll(l, "_", " "))
	}

	// Calls are set up a few hundred at a time, and then all of them go on.
	type event struct{ call, line int }
	var traffic []event
	lost := 0
	interleave := func(from, to, first, last int) {
		next := map[int]int{}
		active := make([]int, 0, to-from)
		for c := from; c < to; c++ {
			next[c], active = first, append(active, c)
		}
		for len(active) > 0 {
			i := rng.IntN(len(active))
			c := active[i]
			if rng.Float64() >= loss {
				traffic = append(traffic, event{c, next[c]})
			} else {
				lost++
			}
			if next[c]++; next[c] == last {
				active[i] = active[len(active)-1]
				active = active[:len(active)-1]
			}
		}
	}
	for c := 0; c < calls; c += together {
		interleave(c, c+together, 0, setUp)
	}
	interleave(0, calls, setUp, len(forked))
	swapped := 0
	last := map[int]int{}
	for i, e := range traffic {
		if j, ok := last[e.call]; ok && rng.Float64() < 0.1 {
			traffic[i], traffic[j] = traffic[j], traffic[i]
			swapped++
		}
		last[e.call] = i
	}

	tr := New(Config{LookBack: time.Minute, LookBackBytes: 64 << 20})
	tr.SetOptions(Options{LookBack: true})
	var (
		seen = make([]atomic.Int32, calls) // messages of a call that its scope had
		sent = make([]atomic.Int32, calls)
	)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for start := 0; start < len(traffic); start += block {
		part := traffic[start:min(start+block, len(traffic))]
		passed := time.Duration(start/block) * pace
		tr.epoch = time.Now().Add(-passed)
		var wg sync.WaitGroup
		for w := range readers {
			wg.Go(func() {
				var (
					found []Match
					m     message
				)
				for i := w; i < len(part); i += readers {
					e := part[i]
					lines[e.line].as(t, &m, e.call)
					m.rec.Time = began.Add(passed)
					found = tr.Find(found[:0], &m.msg, &m.rec)
					extra := 0
					// A rule that matches when it rings, or whatever comes after.
					if len(found) == 0 && (e.line >= setUp || string(m.rec.Status) == "180" || string(m.rec.Status) == "200") {
						before, mine := tr.Start(Dialog, 1, e.call, &m.msg, &m.rec)
						for _, r := range before {
							if string(r.CallID) != callID(e.call) {
								t.Errorf("look-back of call %d gave a message of %s", e.call, r.CallID)
							}
							extra++
						}
						if mine {
							extra++
						}
					}
					sent[e.call].Add(1)
					seen[e.call].Add(int32(len(found) + extra))
					for _, f := range found {
						if f.Data != e.call {
							t.Errorf("%s of call %d is in the scope of %v", lines[e.line].text, e.call, f.Data)
						}
					}
				}
			})
		}
		wg.Wait()
	}
	check(t, tr)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(traffic)

	incomplete := 0
	for c := range calls {
		if seen[c].Load() != sent[c].Load() {
			if incomplete++; incomplete < 5 {
				t.Errorf("call %d: %d messages, %d of them in its scope", c, sent[c].Load(), seen[c].Load())
			}
		}
	}
	if incomplete > 0 {
		t.Errorf("%d of %d scopes are not complete", incomplete, calls)
	}
	s := tr.Stats()
	if s.Open != int64(calls) || s.Evicted != 0 {
		t.Errorf("%+v, want %d open", s, calls)
	}
	rings := 0
	for i := range tr.shards {
		rings += len(tr.shards[i].ring.mem) * 8 / 5
	}
	var spent time.Duration
	var found []Match
	var m message
	for c := range calls {
		lines[setUp-1].as(t, &m, c)
		begin := time.Now()
		found = tr.Find(found[:0], &m.msg, &m.rec)
		spent += time.Since(begin)
	}
	t.Logf("%d calls, %d messages (%d lost, %d out of order)", calls, len(traffic), lost, swapped)
	t.Logf("%d bytes per dialog counted; heap grew by %d bytes per dialog beside %d MiB of look-back",
		s.Bytes/s.Open, (int64(after.HeapAlloc)-int64(before.HeapAlloc)-int64(rings))/int64(calls), rings>>20)
	t.Logf("%d ns per message, look-back among it", spent.Nanoseconds()/int64(calls))

	// Those whose BYE was heard and answered go first, those without a BYE last.
	tr.pass(33 * time.Second)
	ended := tr.Stats()
	tr.pass(32 * time.Second)
	short := tr.Stats()
	tr.pass(5 * time.Minute)
	long := tr.Stats()
	tr.pass(13 * time.Hour)
	end := tr.Stats()
	check(t, tr)
	t.Logf("ended by BYE %d; no reply to BYE %d; no end of the REFER %d; no BYE %d",
		ended.Ended, short.TimedOut-ended.TimedOut, long.TimedOut-short.TimedOut, end.TimedOut-long.TimedOut)
	if ended.Ended < uint64(calls)*8/10 || end.Open != 0 || end.Bytes != 0 {
		t.Errorf("after 33 s: %+v\nafter 13 h: %+v", ended, end)
	}
}

// as makes dst the message with another Call-ID.
func (m *message) as(t testing.TB, dst *message, call int) {
	raw := append(dst.rec.Msg[:0], m.rec.Msg...)
	copy(raw[bytes.Index(raw, m.rec.CallID):], callID(call))
	dst.text, dst.rec = m.text, m.rec
	if err := dst.msg.Parse(raw); err != nil {
		t.Error(err)
	}
	dst.rec.Time, dst.rec.Msg, dst.rec.CallID = time.Now(), raw, dst.msg.CallID
}

func callID(c int) string { return fmt.Sprintf("%08x-call@pc33.atlanta.example.com", c) }

func TestBounds(t *testing.T) {
	start := func(tr *Tracker, call, line string) {
		m := parse(t, call, line)
		tr.Start(Dialog, 1, nil, &m.msg, &m.rec)
	}
	alive := func(tr *Tracker, call string) bool {
		m := parse(t, call, "P>A 180 1INVITE a a b")
		return len(tr.Find(nil, &m.msg, &m.rec)) == 1
	}

	tr := New(Config{Scopes: 100})
	for i := range 1000 {
		start(tr, callID(i), "A>P INVITE 1 a a -")
		check(t, tr)
	}
	if s := tr.Stats(); s.Open != 100 || s.Evicted != 900 {
		t.Errorf("bound by number: %+v", s)
	}
	if !alive(tr, callID(999)) || alive(tr, callID(0)) {
		t.Error("the newest was evicted, or the oldest was not")
	}

	tr = New(Config{Bytes: 20_000})
	for i := range 1000 {
		start(tr, callID(i), "A>P INVITE 1 a a -")
	}
	check(t, tr)
	if s := tr.Stats(); s.Bytes > 20_000 || s.Open < 50 {
		t.Errorf("bound by bytes: %+v", s)
	}

	// One that is over goes before all others.
	tr = New(Config{Scopes: 10})
	see := func(n int, line string) bool {
		m := parse(t, "same", fmt.Sprintf(line, n, n))
		return len(tr.Find(nil, &m.msg, &m.rec)) == 1
	}
	for i := range 11 {
		if i == 10 {
			see(5, "P>A 486 %dINVITE a%d a b")
		}
		m := parse(t, "same", fmt.Sprintf("A>P INVITE %d a%d a -", i, i))
		tr.Start(Transaction, 1, nil, &m.msg, &m.rec)
	}
	for i := range 11 {
		if got := see(i, "P>A 180 %dINVITE a%d a b"); got != (i != 5) {
			t.Errorf("scope %d is open: %v", i, got)
		}
	}

	// All with one Call-ID.
	tr = New(Config{})
	for i := range 1000 {
		m := parse(t, "same", fmt.Sprintf("A>P OPTIONS %d a%d a -", i, i))
		tr.Start(Transaction, 1, nil, &m.msg, &m.rec)
	}
	check(t, tr)
	if s := tr.Stats(); s.Open != maxPerCall || s.Evicted != 1000-maxPerCall {
		t.Errorf("one Call-ID: %+v", s)
	}

	// One dialog with any number of legs and far ends.
	tr = New(Config{})
	start(tr, "same", "A>P INVITE 1 a a -")
	for i := range 1000 {
		m := parse(t, "same", fmt.Sprintf("B>P 183 1INVITE p%d a b%d", i, i))
		if len(tr.Find(nil, &m.msg, &m.rec)) != 1 {
			t.Fatalf("fork %d is not in the dialog", i)
		}
	}
	check(t, tr)
	if s := tr.Stats(); s.Bytes > 2048 {
		t.Errorf("a dialog of %d bytes", s.Bytes)
	}
}

func TestStop(t *testing.T) {
	tr := New(Config{})
	for i := range 100 {
		m := parse(t, callID(i), "A>P INVITE 1 a a -")
		rule := uint64(i % 4)
		tr.Start(Dialog, rule, "data", &m.msg, &m.rec)
		tr.Start(Transaction, rule+4, "more", &m.msg, &m.rec)
		want := []Match{{Rule: rule, Kind: Dialog, Data: "data"}, {Rule: rule + 4, Kind: Transaction, Data: "more"}}
		if got := tr.Find(nil, &m.msg, &m.rec); !slices.Equal(got, want) {
			t.Fatalf("found %v, want %v", got, want)
		}
		// Two scopes of one rule are one match.
		tr.Start(Transaction, rule, "again", &m.msg, &m.rec)
		if got := tr.Find(nil, &m.msg, &m.rec); !slices.Equal(got, want) {
			t.Fatalf("found %v, want %v", got, want)
		}
	}
	if n := tr.Stop(3) + tr.Stop(7); n != 75 {
		t.Errorf("stopped %d", n)
	}
	check(t, tr)
	m := parse(t, callID(3), "A>P INVITE 1 a a -")
	if got := tr.Find(nil, &m.msg, &m.rec); len(got) != 0 {
		t.Errorf("found %v", got)
	}
}

func TestNothingToStart(t *testing.T) {
	tr := New(Config{})
	m := parse(t, "c", "A>P INVITE 1 a a -")
	tr.Start(Message, 1, nil, &m.msg, &m.rec)
	m = parse(t, "", "A>P INVITE 1 a a -")
	tr.Start(Dialog, 1, nil, &m.msg, &m.rec)
	if s := tr.Stats(); s != (Stats{}) {
		t.Errorf("%+v", s)
	}
}

func TestParseKind(t *testing.T) {
	for s, want := range map[string]Kind{"m": Message, "T": Transaction, "d": Dialog, "Dialog": Dialog, "transaction": Transaction} {
		if k, err := ParseKind(s); k != want || err != nil {
			t.Errorf("%q: %v, %v", s, k, err)
		}
	}
	for _, s := range []string{"", "x", " d"} {
		if k, err := ParseKind(s); err == nil {
			t.Errorf("%q: %v", s, k)
		}
	}
}

// FuzzTraffic plays any messages of a few calls in any order, and lets any time
// pass: three bytes each.
func FuzzTraffic(f *testing.F) {
	var lines []string
	for _, l := range forked {
		lines = append(lines, strings.ReplaceAll(l, "_", " "))
	}
	lines = append(lines, "A>P SUBSCRIBE 1 a a -", "P>A 200 1SUBSCRIBE a a b", "A>P INVITE 1 - - -", "P>A 200 1INVITE - - -", "B>P BYE 1 - -bob -",
		"A>P BYE 2 - - -", "A>P PRACK 2 a6 a b", "A>P REGISTER 1 a a -", "P>A 401 1REGISTER a a p", "P>A 407 4BYE a5 a b", "P>P INVITE 1 pc,p1,a a -", "A>P ACK 1 a a p")
	var messages [3][]*message
	for c := range messages {
		for _, l := range lines {
			messages[c] = append(messages[c], parse(f, callID(c), l))
		}
	}
	all := []byte{}
	for i := range lines {
		all = append(all, byte(i), byte(i%4), byte(i*5))
	}
	f.Add(all, false)
	f.Add([]byte{0, 1, 0, 1, 0, 255, 2, 2, 0, 40, 1, 128}, true)
	f.Fuzz(func(t *testing.T, data []byte, skip bool) {
		const most = 5
		tr := New(Config{Scopes: most, Bytes: 1 << 20, LookBackBytes: shards * 8192})
		tr.SetOptions(Options{LookBack: true, SkipACK: skip, SkipSpiral: skip})
		var acks StatelessACKs
		var found []Match
		for ; len(data) >= 3; data = data[3:] {
			calls := messages[data[1]%3]
			m := calls[int(data[0])%len(calls)]
			if data[2] >= 128 {
				tr.pass(time.Duration(data[2]-127) * time.Duration(data[2]) * 100 * time.Millisecond)
			}
			rec := m.rec
			rec.Time = rec.Time.Add(time.Duration(data[1]) * time.Second)
			acks.Has(&m.msg, &rec)
			found = tr.Find(found[:0], &m.msg, &rec)
			for _, f := range found {
				if f.Data != string(m.msg.CallID) {
					t.Fatalf("%s in the scope of %v", m.msg.CallID, f.Data)
				}
			}
			switch data[1] / 16 % 8 {
			case 0, 1:
				before, mine := tr.Start(Dialog, uint64(data[2]%2), string(m.msg.CallID), &m.msg, &rec)
				if !mine {
					t.Fatal("one reader, and the message is taken")
				}
				for _, r := range before {
					if string(r.CallID) != string(m.msg.CallID) {
						t.Fatal("look-back gave another call")
					}
				}
			case 2:
				tr.Start(Transaction, uint64(data[2]%2), string(m.msg.CallID), &m.msg, &rec)
			case 3:
				tr.Stop(uint64(data[2] % 2))
			}
			if tr.open() > most {
				t.Fatalf("%d scopes, at most %d", tr.open(), most)
			}
			check(t, tr)
		}
		tr.pass(25 * time.Hour)
		if s := tr.Stats(); s.Open != 0 || s.Bytes != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

// The message is in the cache, having just been read; its dialog is one of many.
func BenchmarkFind(b *testing.B) {
	const calls = 10_000
	find := func(b *testing.B, tr *Tracker, first int) {
		m := parse(b, callID(0), "A>P INFO 2 a2 a b")
		ids := make([]string, calls)
		for i := range ids {
			ids[i] = callID(first + i*7919%calls)
		}
		var found []Match
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			copy(m.msg.CallID, ids[i%calls])
			found = tr.Find(found[:0], &m.msg, &m.rec)
			i++
		}
	}
	open := func(lookBack bool) *Tracker {
		tr := New(Config{})
		for i := range calls {
			for _, l := range []string{"A>P INVITE 1 a a -", "P>B INVITE 1 p1,a a -", "B>P 200 1INVITE p1,a a b", "P>A 200 1INVITE a a b"} {
				m := parse(b, callID(i), l)
				tr.Start(Dialog, 1, tr, &m.msg, &m.rec)
				tr.Find(nil, &m.msg, &m.rec)
			}
		}
		tr.SetOptions(Options{LookBack: lookBack})
		return tr
	}
	b.Run("nothing open", func(b *testing.B) { find(b, New(Config{}), 0) })
	b.Run("of 10000 dialogs", func(b *testing.B) { find(b, open(false), 0) })
	b.Run("of none of 10000 dialogs", func(b *testing.B) { find(b, open(false), calls) })
	b.Run("of 10000 dialogs with look-back", func(b *testing.B) { find(b, open(true), 0) })
	b.Run("look-back alone", func(b *testing.B) {
		tr := New(Config{})
		tr.SetOptions(Options{LookBack: true})
		find(b, tr, 0)
	})
	b.Run("stateless ACKs", func(b *testing.B) {
		var a StatelessACKs
		m := parse(b, "c", "A>P INVITE 1 a a -")
		b.ReportAllocs()
		for b.Loop() {
			a.Has(&m.msg, &m.rec)
		}
	})
}

// Lookups take no memory.
func TestFindAllocates(t *testing.T) {
	tr := New(Config{})
	tr.SetOptions(Options{LookBack: true})
	m := parse(t, "c", "A>P INVITE 1 a a -")
	tr.Start(Dialog, 1, tr, &m.msg, &m.rec)
	found := make([]Match, 0, 4)
	var again sipmsg.Message
	if n := testing.AllocsPerRun(1000, func() {
		if again.Parse(m.rec.Msg) != nil {
			t.Fatal("not SIP")
		}
		if found = tr.Find(found[:0], &again, &m.rec); len(found) != 1 {
			t.Fatal("not found")
		}
		if before, _ := tr.Start(Dialog, 1, tr, &again, &m.rec); before != nil {
			t.Fatal("started twice")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
