package loop_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/hep"
)

var (
	agent  = netip.MustParseAddrPort("127.0.0.1:5060")
	second = netip.MustParseAddrPort("127.0.0.1:5070")
	peer   = netip.MustParseAddrPort("127.0.0.1:40000")
)

// node is an instance's detector with what its pipeline does.
type node struct {
	t        *testing.T
	d        *loop.Detector
	counters *counters.Set
	stop     func()

	mu     sync.Mutex
	stored []string // text and sender
	asked  map[netip.AddrPort]int
	// mirrored is what becomes of what is stored and not StoreOnly.
	mirrored func(text string)
	// answers says how a sender takes a question.
	answers func(to netip.AddrPort, q []byte)
}

func newNode(t *testing.T, file string) *node {
	n := &node{t: t, counters: counters.New(), asked: map[netip.AddrPort]int{}}
	n.d = loop.New(loop.NewID(), file, n.counters, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { n.d.Run(ctx, func(in *ingest.Packet) { n.take(in, nil) }) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		done.Wait()
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) ask(to netip.AddrPort, q []byte) error {
	if !loop.IsQuestion(q) {
		n.t.Errorf("%q is no question", q)
	}
	n.mu.Lock()
	n.asked[to]++
	n.mu.Unlock()
	if n.answers != nil {
		n.answers(to, q)
	}
	return nil
}

// isMirror answers every question.
func (n *node) isMirror(to netip.AddrPort, q []byte) {
	var p hep.Packet
	if err := p.Decode(loop.AppendAnswer(nil, q)); err != nil {
		n.t.Error(err)
	}
	if !n.d.Answered(to, loop.Answer(p.Vendor), time.Now(), func(in *ingest.Packet) { n.take(in, nil) }) {
		n.t.Error("an answer that was not asked for")
	}
}

func (n *node) take(in *ingest.Packet, path []byte) loop.Verdict {
	v, _ := n.d.Check(in, in.Data, path)
	if v == loop.Passed || v == loop.StoreOnly {
		n.mu.Lock()
		n.stored = append(n.stored, fmt.Sprintf("%s from %d", in.Data, in.Source.Port()))
		n.mu.Unlock()
	}
	if v == loop.Passed && n.mirrored != nil {
		n.mirrored(string(in.Data))
	}
	return v
}

// come lets a text come from a sender.
func (n *node) come(from netip.AddrPort, text string, path ...byte) loop.Verdict {
	in := &ingest.Packet{Data: []byte(text), Time: time.Now(), Net: "udp", Source: from, Ask: n.ask}
	return n.take(in, path)
}

func (n *node) rows() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.stored)
}

func (n *node) wantRows(want int) {
	n.t.Helper()
	if got := n.rows(); got != want {
		n.t.Errorf("%d stored, want %d: %.20q", got, want, n.stored)
	}
}

// What a mirror returns is dropped, however much comes before it has answered;
// what it has of its own passes.
func TestReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		const messages = 2000
		for i := range messages {
			text := fmt.Sprint("message ", i)
			if v := n.come(agent, text); v != loop.Passed {
				t.Fatalf("message %d: %v", i, v)
			}
			n.d.Sent([]byte(text), false)
		}
		question := make(chan []byte, 1)
		n.answers = func(_ netip.AddrPort, q []byte) { question <- q }
		for i := range messages {
			if i == messages/2 {
				synctest.Wait()
				n.isMirror(peer, <-question)
			}
			n.come(peer, fmt.Sprint("message ", i))
			n.come(peer, fmt.Sprint("its own ", i))
		}
		n.wantRows(2 * messages)
		if n.asked[peer] != 1 {
			t.Errorf("asked %v", n.asked)
		}
	})
}

// Each copy that is sent excuses one that comes back: what is said twice is stored
// twice.
func TestCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		n.answers = n.isMirror
		for range 3 {
			n.come(agent, "retransmitted")
			n.d.Sent([]byte("retransmitted"), false)
		}
		time.Sleep(3 * time.Second) // the agent was asked, and answered nothing
		for range 4 {
			n.come(peer, "retransmitted")
			time.Sleep(time.Second)
		}
		n.wantRows(3 + 1)
	})
}

// Agents don't answer. Whatever they repeat is stored, in order.
func TestAgents(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(n *node)
		want int
	}{
		{"one text 11 times", func(n *node) {
			for range 11 {
				for _, from := range []netip.AddrPort{agent, second, netip.MustParseAddrPort("127.0.0.1:5080")} {
					n.come(from, "INVITE")
					n.d.Sent([]byte("INVITE"), false)
				}
				time.Sleep(500 * time.Millisecond)
			}
		}, 33},
		{"a static text at a second capture point", func(n *node) {
			for range 5 {
				n.come(agent, "OPTIONS")
				n.d.Sent([]byte("OPTIONS"), false)
				n.come(second, "OPTIONS")
				n.d.Sent([]byte("OPTIONS"), false)
				time.Sleep(50 * time.Millisecond)
			}
		}, 10},
		{"a second capture point sees everything, later", func(n *node) {
			for i := range 1000 {
				n.come(agent, fmt.Sprint(i))
				n.d.Sent(fmt.Append(nil, i), false)
			}
			for i := range 1000 {
				n.come(second, fmt.Sprint(i))
				n.d.Sent(fmt.Append(nil, i), false)
			}
		}, 2000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, "")
				tt.send(n)
				time.Sleep(3 * time.Second)
				n.wantRows(tt.want)
				var from []string
				for i, s := range n.stored {
					if i >= len(n.stored)-1000 && tt.want == 2000 {
						from = append(from, s)
					}
				}
				for i, s := range from {
					if want := fmt.Sprintf("%d from %d", i, second.Port()); s != want {
						t.Fatalf("number %d: %s, want %s", i, s, want)
					}
				}
			})
		})
	}
}

// A sender that does not answer is asked again, less and less often.
func TestAskedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		n.d.Sent([]byte("text"), false)
		for range 24 * 60 {
			n.come(agent, "text")
			time.Sleep(time.Minute)
		}
		n.wantRows(24 * 60)
		if asked := n.asked[agent]; asked < 200 || asked > 800 {
			t.Errorf("asked %d times in a day, 20 times on each occasion", asked)
		}
	})
}

// A question or an answer may get lost.
func TestLostQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		n.d.Sent([]byte("text"), false)
		n.answers = func(to netip.AddrPort, q []byte) {
			if n.asked[to] == 5 {
				n.isMirror(to, q)
			}
		}
		if v := n.come(peer, "text"); v != loop.Parked {
			t.Errorf("verdict %v", v)
		}
		time.Sleep(time.Second)
		n.wantRows(0)
	})
}

// An answer counts for the sender that was asked, and for what it was asked.
func TestFalseAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		n.d.Sent([]byte("text"), false)
		n.answers = func(to netip.AddrPort, q []byte) {
			other := []byte("\r\n\r\n\r\r\r\r\r\r\r\r\r\r\r\r")
			for _, answer := range [][]byte{nil, other, q[:8]} {
				if n.d.Answered(to, answer, time.Now(), func(*ingest.Packet) { t.Error("let go") }) && string(other) != string(q) {
					t.Errorf("%q answers %q", answer, q)
				}
			}
			if n.d.Answered(second, q, time.Now(), func(*ingest.Packet) { t.Error("let go") }) {
				t.Error("another sender's answer")
			}
		}
		n.come(peer, "text")
		time.Sleep(3 * time.Second)
		n.wantRows(1)
	})
}

// A path with this instance in it is certain, whatever was forgotten.
func TestPath(t *testing.T) {
	n, others := newNode(t, ""), loop.NewID()
	here := n.d.Path(nil, nil)
	for _, tt := range []struct {
		path []byte
		want loop.Verdict
	}{
		{nil, loop.Passed},
		{here, loop.Returned},
		{others.AppendTo(nil, here), loop.Returned},
		{n.d.Path(nil, others.AppendTo(nil, nil)), loop.Returned},
		{others.AppendTo(nil, nil), loop.Passed},
		{here[:7], loop.Passed},
		{append([]byte{0}, here...), loop.Passed},
		{make([]byte, 8*loop.MaxHops), loop.Passed},
		{make([]byte, 8*loop.MaxHops+1), loop.Returned},
	} {
		if got := n.come(peer, "text", tt.path...); got != tt.want {
			t.Errorf("path %x: %v, want %v", tt.path, got, tt.want)
		}
	}
}

// What was sent with a path comes back with it: a mirror's own message with the
// same text is not dropped. What was sent without one is known by its text.
func TestPathAndText(t *testing.T) {
	n, other := newNode(t, ""), loop.NewID()
	path := other.AppendTo(nil, nil)
	n.d.Sent([]byte("by HEP3"), true)
	n.d.Sent([]byte("by HEP1"), false)
	if v := n.come(peer, "by HEP3", path...); v != loop.Passed {
		t.Errorf("a message of its own: %v", v)
	}
	if v := n.come(peer, "by HEP1", path...); v != loop.Returned {
		t.Errorf("a message that went by HEP1: %v", v)
	}
	if v := n.come(peer, "by HEP1", path...); v != loop.Passed {
		t.Errorf("a second one: %v", v)
	}
}

// The X-Siptrace headers are cut at one end, and not at the other.
func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		n.answers = n.isMirror
		const plain = "OPTIONS sip:x SIP/2.0\r\nCall-ID: 1\r\n\r\n"
		const headers = "OPTIONS sip:x SIP/2.0\r\nX-Siptrace-Fromip: udp:192.0.2.1:5060\r\nX-Siptrace-Toip: udp:192.0.2.2:5060\r\nX-Siptrace-Time: 1 2\r\nX-Siptrace-Method: OPTIONS\r\nX-Siptrace-Dir: in\r\nCall-ID: 1\r\n\r\n"
		n.d.Sent([]byte(plain), false)
		n.come(peer, headers)
		n.d.Sent([]byte(headers), false)
		n.come(peer, plain)
		time.Sleep(time.Second)
		n.wantRows(0)
	})
}

// A loop by way of a program that does not answer ends, and what a sender was the
// first to say never counts.
func TestStoreOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		n.come(agent, "text")
		n.d.Sent([]byte("text"), false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		// Every copy that is mirrored comes back after 10 ms.
		laps := 0
		n.mirrored = func(text string) {
			laps++
			n.d.Sent([]byte(text), false)
			time.AfterFunc(10*time.Millisecond, func() { n.come(peer, text) })
		}
		n.come(peer, "text")
		time.Sleep(time.Minute / 2)
		synctest.Wait()
		n.mirrored = nil
		if laps > 64 {
			t.Errorf("%d laps", laps)
		}
		if got := n.counters.Counter("mirrors.cut_off").Load(); got != 1 {
			t.Errorf("cut off %d", got)
		}
		before := n.rows()
		for range 1000 {
			if v := n.come(agent, "text"); v == loop.StoreOnly {
				t.Fatal("the first sender's repetition is not mirrored")
			}
			n.d.Sent([]byte("text"), false)
		}
		time.Sleep(3 * time.Second)
		n.wantRows(before + 1000)
	})
}

// A restart in order forgets nothing; a crash leaves nothing that is out of date.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "sent")
		n := newNode(t, file)
		for i := range 60000 {
			n.d.Sent(fmt.Append(nil, i), false)
			n.d.Sent(fmt.Append(nil, "by path", i), true)
		}
		n.stop()
		if err := n.d.Close(); err != nil {
			t.Fatal(err)
		}
		n = newNode(t, file)
		n.answers = n.isMirror
		for i := range 60000 {
			n.come(peer, fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		if got := n.rows(); got > 60 { // where a bucket was full
			t.Errorf("%d of 60000 were forgotten", got)
		}
		n.stop()
		n = newNode(t, file) // after a crash
		n.answers = n.isMirror
		n.come(peer, "1")
		time.Sleep(time.Second)
		n.wantRows(1)
	})
}

// The end hands on what is parked.
func TestStopReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		n.d.Sent([]byte("text"), false)
		n.come(peer, "text")
		n.wantRows(0)
		n.stop()
		n.wantRows(1)
	})
}

// More than there is room for is not parked, and not lost.
func TestParkedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "")
		const messages = 50000
		n.d.Sent([]byte("0"), false)
		for i := range messages {
			n.come(agent, fmt.Sprint(i))
		}
		time.Sleep(3 * time.Second)
		n.wantRows(messages)
	})
}

// What a sender sends is stored in its order, whatever ends the asking, while what
// was parked is still on its way.
func TestOrder(t *testing.T) {
	// More than is parked at a time, and that twice over.
	const tooMany, all = 40_000, 90_000
	for _, c := range []struct {
		name   string
		parked int // before the asking ends
		end    func(n *node, q []byte)
	}{
		{"no answer", 10, func(*node, []byte) { time.Sleep(2 * time.Second) }},
		{"an answer", 10, func(n *node, q []byte) {
			go n.isMirror(agent, q)
			synctest.Wait()
		}},
		{"no room", tooMany, func(*node, []byte) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, "")
				question := make(chan []byte, 100)
				n.answers = func(_ netip.AddrPort, q []byte) { question <- q }
				n.mirrored = func(text string) {
					if strings.HasSuffix(text, "5") {
						time.Sleep(time.Millisecond)
					}
				}
				n.d.Sent([]byte("copy"), false)
				n.come(agent, "copy") // stored unless it is a mirror that answers
				for i := range all {
					if i == c.parked {
						c.end(n, <-question)
					}
					n.come(agent, fmt.Sprint(i))
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				rows := n.stored[max(len(n.stored)-all, 0):]
				if len(rows) != all {
					t.Fatalf("%d stored, want %d", len(rows), all)
				}
				for i, row := range rows {
					if want := fmt.Sprintf("%d from %d", i, agent.Port()); row != want {
						t.Fatalf("row %d: %s, want %s", i, row, want)
					}
				}
			})
		})
	}
}
