package scope

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"siptraced/compat/siptrace"
)

func TestLookBack(t *testing.T) {
	tests := []struct {
		name, script string
		want         []string
	}{
		{
			"the call before the reply that a rule matches", `
			A>P INVITE 1 a a -
			other A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			P>B INVITE 1 p1,a a -
			*B>P 486 1INVITE p1,a a b
			P>B ACK 1 p1 a b`,
			[]string{"before: INVITE ", "before: INVITE ", "before: INVITE ", "B>P 486 1INVITE p1,a a b", "P>B ACK 1 p1 a b"},
		},
		{
			"not longer than two seconds", `
			A>P INVITE 1 a a -
			+1s
			P>A 100 1INVITE a a -
			+1500ms
			*P>B INVITE 1 p1,a a -`,
			[]string{"before: INVITE 100", "P>B INVITE 1 p1,a a -"},
		},
		{
			"nothing of what a scope of the rule had", `
			A>P INVITE 1 a a -
			*P>A 407 1INVITE a a p
			A>P ACK 1 a a p
			A>P INVITE 2 a2 a -
			*P>A 200 2INVITE a2 a b`,
			[]string{"before: INVITE ", "before: INVITE ", "P>A 407 1INVITE a a p", "A>P ACK 1 a a p", "P>A 200 2INVITE a2 a b"},
		},
		{
			"a refused re-INVITE, and the call goes on", `
			B>P INVITE 1 b1 b a
			*P>B 488 1INVITE b1 b a
			B>P ACK 1 b1 b a
			+1h
			A>P BYE 2 a2 a b`,
			[]string{"before: INVITE ", "P>B 488 1INVITE b1 b a", "B>P ACK 1 b1 b a", "A>P BYE 2 a2 a b"},
		},
		{
			"a short call, from its BYE by the callee", `
			A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			C>P 486 1INVITE p2,a a c
			P>A 200 1INVITE a a b
			A>P ACK 1 a2 a b
			*B>P BYE 1 b1 b a
			P>B 200 1BYE b1 b a`,
			[]string{"before: INVITE ", "before: INVITE ", "before: INVITE 486", "before: INVITE 200", "before: ACK ", "B>P BYE 1 b1 b a", "P>B 200 1BYE b1 b a"},
		},
		{
			"started twice", `
			A>P INVITE 1 a a -
			*P>A 100 1INVITE a a -
			*P>A 180 1INVITE a a b`,
			[]string{"before: INVITE ", "P>A 100 1INVITE a a -", "P>A 180 1INVITE a a b"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := New(Config{})
				tr.SetOptions(Options{LookBack: true})
				got := play(t, tr, Dialog, tt.script)
				if !slices.Equal(got, tt.want) {
					t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
			})
		})
	}
}

// What comes back is a copy of all that a record holds, and shares nothing.
func TestLookBackCopies(t *testing.T) {
	tr := New(Config{})
	tr.SetOptions(Options{LookBack: true})
	m := parse(t, "c", "A>P INVITE 1 a a -")
	m.rec.CorrelationID, m.rec.Users, m.rec.Table = []byte("corr"), [][]byte{[]byte("alice"), nil}, "t2"
	m.rec.Destinations, m.rec.Sinks, m.rec.CaptureID = []string{"sip:d"}, siptrace.ToHEP, 7
	m.rec.Method = []byte("invite of elsewhere")
	want := m.rec.Clone()
	tr.Find(nil, &m.msg, &m.rec)
	clear(m.rec.Msg)
	m.rec.CorrelationID[0], m.rec.Users[0][0], m.rec.Destinations[0], m.rec.Method[0] = 'x', 'x', "x", 'x'

	n := parse(t, "c", "P>A 200 1INVITE a a b")
	got, _ := tr.Start(Transaction, 1, nil, &n.msg, &n.rec)
	if len(got) != 1 || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for range 10_000 {
		m := parse(t, "c2", "A>P OPTIONS 1 a a -")
		tr.Find(nil, &m.msg, &m.rec)
	}
	if string(got[0].Msg) != string(want.Msg) {
		t.Error("the copy changed")
	}
}

// The ring stays within its bytes, whatever the sizes, and what it has is whole.
func TestRing(t *testing.T) {
	const limit = 20_000
	var g ring
	var kept [][]byte
	for i := range 3000 {
		r := siptrace.Record{Msg: []byte(strings.Repeat(string(rune('a'+i%26)), 1+i*7919%3000)), CallID: []byte(fmt.Sprint(i))}
		g.put(uint64(i), int64(i), int64(i-50), limit, &r)
		kept = append(kept, r.Msg)
		for j := range g.n {
			e := g.at(j)
			if string(e.rec.Msg) != string(kept[e.call]) || string(e.rec.CallID) != fmt.Sprint(e.call) {
				t.Fatalf("after %d: message %d is not what it was", i, e.call)
			}
			if j > 0 && e.call <= g.at(j-1).call || e.wall < int64(i-50) {
				t.Fatalf("after %d: message %d at place %d", i, e.call, j)
			}
		}
		if g.n == 0 || g.at(g.n-1).call != uint64(i) {
			t.Fatalf("message %d is not in", i)
		}
	}
	if len(g.mem) > limit*5/8 || g.n < 2 {
		t.Errorf("%d bytes, %d messages", len(g.mem), g.n)
	}
	big := siptrace.Record{Msg: make([]byte, limit)}
	if g.put(1, 3000, 0, limit, &big); g.n == 0 {
		t.Error("a message too large for the ring emptied it")
	}
}

func TestLookBackOff(t *testing.T) {
	tr := New(Config{})
	m := parse(t, "c", "A>P INVITE 1 a a -")
	n := parse(t, "c", "P>A 200 1INVITE a a b")
	tr.Find(nil, &m.msg, &m.rec)
	if got, _ := tr.Start(Transaction, 1, nil, &n.msg, &n.rec); got != nil {
		t.Errorf("off: %d records", len(got))
	}
	tr.SetOptions(Options{LookBack: true})
	tr.Find(nil, &m.msg, &m.rec)
	tr.SetOptions(Options{})
	for i := range tr.shards {
		if tr.shards[i].ring.mem != nil {
			t.Error("memory is kept")
		}
	}
	tr.SetOptions(Options{LookBack: true})
	if got, _ := tr.Start(Transaction, 2, nil, &n.msg, &n.rec); got != nil {
		t.Errorf("on again: %d records of before", len(got))
	}
}
