package scope

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// The places of the tests: the proxy, the caller and three phones of the callee.
var places = map[string]netip.AddrPort{
	"P": netip.MustParseAddrPort("192.0.2.1:5060"),
	"A": netip.MustParseAddrPort("192.0.2.10:5060"),
	"B": netip.MustParseAddrPort("192.0.2.20:5060"),
	"C": netip.MustParseAddrPort("192.0.2.21:5060"),
	"D": netip.MustParseAddrPort("192.0.2.22:5060"),
}

// message is one line of hand-written traffic: FROM>TO WHAT CSEQ BRANCH[,BRANCH] FROMTAG TOTAG [HEADER].
//
// WHAT is a method, or a status with CSEQ naming the method ("180 1INVITE"). A
// tag of "-" is none. A branch without the cookie of RFC 3261 begins with "!";
// "-" is none at all.
type message struct {
	text string
	rec  siptrace.Record
	msg  sipmsg.Message
}

func parse(t testing.TB, call, line string) *message {
	t.Helper()
	f := strings.Fields(line)
	if len(f) < 6 {
		t.Fatalf("line %q", line)
	}
	from, to, _ := strings.Cut(f[0], ">")
	cseq := strings.TrimRight(f[2], "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	method := strings.TrimPrefix(f[2], cseq)
	start := "SIP/2.0 " + f[1] + " Because"
	if method == "" {
		method = f[1]
		start = method + " sip:bob@example.com SIP/2.0"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\r\n", start)
	for i, branch := range strings.Split(f[3], ",") {
		// The proxy's own branches begin with p.
		host := "192.0.2.1"
		if !strings.HasPrefix(strings.TrimPrefix(branch, "!"), "p") {
			host = fmt.Sprintf("192.0.2.%d", 10+i)
		}
		switch {
		case branch == "-":
			branch = ""
		case branch[0] == '!':
			branch = ";branch=" + branch[1:]
		default:
			branch = ";branch=z9hG4bK" + branch
		}
		fmt.Fprintf(&b, "Via: SIP/2.0/UDP %s:5060%s\r\n", host, branch)
	}
	tag := func(s string) string {
		if s == "-" {
			return ""
		}
		return ";tag=" + s
	}
	// Whoever speaks inside a dialog stands in From.
	fromURI, toURI := "alice", "bob"
	if strings.HasPrefix(f[4], "b") || f[4] == "-bob" {
		fromURI, toURI = toURI, fromURI
	}
	fmt.Fprintf(&b, "From: <sip:%s@example.com>%s\r\n", fromURI, tag(strings.TrimSuffix(f[4], "bob")))
	fmt.Fprintf(&b, "To: <sip:%s@example.com>%s\r\n", toURI, tag(f[5]))
	fmt.Fprintf(&b, "Call-ID: %s\r\nCSeq: %s %s\r\n", call, cseq, method)
	if len(f) > 6 {
		fmt.Fprintf(&b, "%s\r\n", strings.Join(f[6:], " "))
	}
	b.WriteString("Content-Length: 0\r\n\r\n")
	m := &message{text: line}
	raw := []byte(b.String())
	if err := m.msg.Parse(raw); err != nil {
		t.Fatal(err)
	}
	m.rec = siptrace.Record{
		Time: time.Now(), CallID: m.msg.CallID, Msg: raw, Method: m.msg.MethodName(), Status: m.msg.Status,
		From: siptrace.Endpoint{Proto: siptrace.UDP, Addr: places[from]}, To: siptrace.Endpoint{Proto: siptrace.UDP, Addr: places[to]},
		FromTag: m.msg.From.Tag, ToTag: m.msg.To.Tag, Direction: siptrace.In,
	}
	if from == "P" {
		m.rec.Direction = siptrace.Out
	}
	return m
}

// play sends lines through a tracker and returns those that were found in a scope.
// The line that begins with "*" starts a scope; "+DURATION" lets time pass.
func play(t testing.TB, tr *Tracker, kind Kind, script string) (found []string) {
	t.Helper()
	var before []siptrace.Record
	started := false
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if d, ok := strings.CutPrefix(line, "+"); ok {
			wait, err := time.ParseDuration(d)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			continue
		}
		line, start := strings.CutPrefix(line, "*")
		call := "call-1@example.com"
		if rest, ok := strings.CutPrefix(line, "other "); ok {
			line, call = rest, "call-2@example.com"
		}
		m := parse(t, call, line)
		matches := tr.Find(nil, &m.msg, &m.rec)
		if start {
			earlier, _ := tr.Start(kind, 1, t, &m.msg, &m.rec)
			before = append(before, earlier...)
			started = true
			matches = append(matches, Match{})
		}
		if len(matches) > 1 && !start {
			t.Errorf("%s: %d scopes, want one", line, len(matches))
		}
		if len(matches) > 0 {
			found = append(found, line)
		}
		time.Sleep(time.Millisecond)
	}
	if !started {
		t.Fatal("nothing starts the scope")
	}
	if len(before) > 0 {
		for i := range before {
			var m sipmsg.Message
			if err := m.Parse(before[i].Msg); err != nil {
				t.Fatal(err)
			}
			found = slices.Insert(found, i, "before: "+string(m.MethodName())+" "+string(m.Status))
		}
	}
	return found
}

func TestScopes(t *testing.T) {
	tests := []struct {
		name   string
		kind   Kind
		script string // lines of parse; those that begin with "other" are of another call, with "~" not expected
		open   int64  // scopes that stay open 33 s later
	}{
		{name: "transaction", kind: Transaction, script: `
			*A>P INVITE 1 a a -
			P>A 100 1INVITE a a -
			P>B INVITE 1 p1,a a -
			other A>P INVITE 1 a a -
			B>P 180 1INVITE p1,a a b
			P>A 180 1INVITE a a b
			+100s
			B>P 200 1INVITE p1,a a b
			P>A 200 1INVITE a a b
			A>P ACK 1 a2 a b
			P>B ACK 1 p2,a2 a b
			~A>P BYE 2 a3 a b
			~B>P BYE 1 b1 b a`},
		{name: "transaction that fails", kind: Transaction, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			B>P 486 1INVITE p1,a a b
			P>B ACK 1 p1 a b
			P>A 486 1INVITE a a b
			A>P ACK 1 a a b
			~A>P INVITE 2 a4 a -`},
		{name: "transaction inside a dialog", kind: Transaction, script: `
			*A>P PRACK 2 a a b
			P>B PRACK 2 p1,a a b
			~A>P PRACK 2 a2 a bb
			B>P 200 2PRACK p1,a a b
			P>A 200 2PRACK a a b
			~B>P PRACK 2 x b a`},
		{name: "forks and CANCEL", kind: Transaction, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			P>C INVITE 1 p2,a a -
			P>D INVITE 1 p3,a a -
			D>P 486 1INVITE p3,a a d
			P>D ACK 1 p3 a d
			+200s
			B>P 180 1INVITE p1,a a b
			P>A 180 1INVITE a a b
			C>P 180 1INVITE p2,a a c
			A>P CANCEL 1 a a -
			P>A 200 1CANCEL a a p
			P>B CANCEL 1 p1 a -
			P>C CANCEL 1 p2 a -
			B>P 200 1CANCEL p1 a b
			B>P 487 1INVITE p1,a a b
			P>B ACK 1 p1 a b
			C>P 487 1INVITE p2,a a c
			P>C ACK 1 p2 a c
			P>A 487 1INVITE a a b
			A>P ACK 1 a a b`},
		{name: "one after another", kind: Transaction, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			B>P 480 1INVITE p1,a a b
			P>B ACK 1 p1 a b
			P>C INVITE 1 p2,a a -
			+60s
			C>P 200 1INVITE p2,a a c
			P>A 200 1INVITE a a c
			A>P ACK 1 a2 a c`},
		{name: "before RFC 3261", kind: Transaction, script: `
			*A>P INVITE 1 - - -
			P>A 100 1INVITE - - -
			P>B INVITE 1 !p1,- - -
			B>P 404 1INVITE !p1,- - b
			P>B ACK 1 !p1 - b
			P>A 404 1INVITE - - b
			A>P ACK 1 - - b
			~A>P INVITE 2 - - -
			~B>P INVITE 1 - -bob -`},
		{name: "final reply first", kind: Transaction, script: `
			*P>A 486 1INVITE a a b
			A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			B>P 486 1INVITE p1,a a b
			A>P ACK 1 a a b`},
		{name: "no reply ever", kind: Transaction, open: 1, script: `
			*A>P MESSAGE 1 a a -
			P>B MESSAGE 1 p1,a a -
			+31s
			P>B MESSAGE 1 p1,a a -`},
		{name: "dialog", kind: Dialog, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			B>P 180 1INVITE p1,a a b
			A>P PRACK 2 a2 a b
			B>P 200 2PRACK p2,a2 a b
			+2m
			B>P 200 1INVITE p1,a a b
			P>A 200 1INVITE a a b
			A>P ACK 1 a3 a b
			~other A>P BYE 2 a4 a b
			~B>P MESSAGE 9 x q -
			+1h
			B>P INVITE 1 b1 b a
			P>A INVITE 1 p3,b1 b a
			A>P 491 1INVITE p3,b1 b a
			B>P ACK 1 b1 b a
			+1h
			A>P UPDATE 3 a5 a b
			P>A 200 3UPDATE a5 a b
			+9h
			A>P BYE 4 a6 a b
			+31s
			P>A 200 4BYE a6 a b
			A>P BYE 4 a6 a b`},
		{name: "dialog, refused BYE", kind: Dialog, open: 1, script: `
			*A>P INVITE 1 a a -
			P>A 200 1INVITE a a b
			A>P BYE 2 a2 a b
			P>A 407 2BYE a2 a b
			+3m
			A>P INFO 3 a3 a b`},
		{name: "dialog that fails and is tried again", kind: Dialog, script: `
			*A>P INVITE 1 a a -
			P>A 407 1INVITE a a p
			A>P ACK 1 a a p
			~A>P INVITE 2 a2 a -
			~P>A 200 2INVITE a2 a b
			~A>P ACK 2 a3 a b
			~A>P BYE 3 a4 a b`},
		{name: "dialog, forked", kind: Dialog, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			P>C INVITE 1 p2,a a -
			P>D INVITE 1 p3,a a -
			D>P 603 1INVITE p3,a a d
			B>P 180 1INVITE p1,a a b
			C>P 183 1INVITE p2,a a c
			+100s
			B>P 200 1INVITE p1,a a b
			P>A 200 1INVITE a a b
			P>C CANCEL 1 p2 a -
			C>P 200 1INVITE p2,a a c
			P>A 200 1INVITE a a c
			A>P ACK 1 a2 a b
			A>P ACK 1 a3 a c
			A>P BYE 2 a4 a c
			P>A 200 2BYE a4 a c
			+4h
			A>P INVITE 3 a5 a b
			P>A 200 3INVITE a5 a b
			A>P ACK 3 a6 a b
			B>P BYE 1 b1 b a
			P>B 200 1BYE b1 b a`},
		{name: "dialog, CANCEL too late", kind: Dialog, open: 1, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			A>P CANCEL 1 a a -
			B>P 200 1INVITE p1,a a b
			P>A 200 1CANCEL a a p
			P>B CANCEL 1 p1 a -
			B>P 481 1CANCEL p1 a b
			P>A 200 1INVITE a a b
			A>P ACK 1 a2 a b
			+2h
			A>P INFO 2 a3 a b`},
		{name: "dialog, time-out at the proxy and a late answer", kind: Dialog, open: 1, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			B>P 180 1INVITE p1,a a b
			+120s
			P>A 408 1INVITE a a p
			P>B CANCEL 1 p1 a -
			A>P ACK 1 a a p
			B>P 200 1INVITE p1,a a b
			P>A 200 1INVITE a a b
			A>P ACK 1 a2 a b
			+1h
			B>P OPTIONS 3 b1 b a`},
		{name: "REFER outlives the call", kind: Dialog, script: `
			*A>P INVITE 1 a a -
			P>A 200 1INVITE a a b
			A>P ACK 1 a2 a b
			A>P REFER 2 a3 a b
			P>A 202 2REFER a3 a b
			B>P NOTIFY 1 b1 b a Subscription-State: active;expires=60
			P>B 200 1NOTIFY b1 b a
			A>P BYE 3 a4 a b
			P>A 200 3BYE a4 a b
			+100s
			B>P NOTIFY 2 b2 b a Subscription-State: terminated;reason=noresource
			P>B 200 2NOTIFY b2 b a`},
		{name: "subscription", kind: Dialog, script: `
			*A>P SUBSCRIBE 1 a a -
			P>A 202 1SUBSCRIBE a a b
			B>P NOTIFY 1 b1 b a Subscription-State: active
			+1h
			A>P SUBSCRIBE 2 a2 a b
			P>A 200 2SUBSCRIBE a2 a b
			B>P NOTIFY 2 b2 b a Subscription-State: Terminated
			P>B 200 2NOTIFY b2 b a`},
		{name: "a dialog that REGISTER can't begin", kind: Dialog, script: `
			*A>P REGISTER 1 a a -
			P>A 401 1REGISTER a a p
			~A>P REGISTER 2 a2 a -`},
		{name: "dialog from the middle", kind: Dialog, script: `
			*B>P INFO 7 b1 b a
			A>P INFO 2 a2 a b
			~A>P INVITE 1 a3 a bb
			+1h
			A>P BYE 3 a2 a b
			P>A 200 3BYE a2 a b`},
		{name: "dialog from PRACK", kind: Dialog, script: `
			*A>P PRACK 2 a2 a b
			+2m
			B>P 200 1INVITE p1,a a b
			A>P ACK 1 a3 a b
			+1h
			A>P BYE 3 a4 a b
			P>A 200 3BYE a4 a b`},
		{name: "dialog from UPDATE", kind: Dialog, open: 1, script: `
			*A>P UPDATE 9 a2 a b
			+1h
			B>P UPDATE 9 b2 b a`},
		{name: "dialog by its reply", kind: Dialog, script: `
			*P>A 200 1INVITE a a b
			A>P ACK 1 a2 a b
			A>P INVITE 1 a a -
			B>P 200 1INVITE p1,a a b
			+1h
			B>P BYE 1 b1 b a
			+60s`},
		{name: "dialog, 2xx lost", kind: Dialog, script: `
			*A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			A>P ACK 1 a2 a b
			+1h
			B>P BYE 1 b1 b a
			P>B 200 1BYE b1 b a`},
		{name: "dialog, nothing but BYE got here", kind: Dialog, script: `
			*A>P INVITE 1 a a -
			+4m
			B>P BYE 1 b1 b a
			P>B 200 1BYE b1 b a`},
		{name: "dialog without tags", kind: Dialog, script: `
			*A>P INVITE 1 - - -
			P>B INVITE 1 !p1,- - -
			B>P 200 1INVITE !p1,- - -
			P>A 200 1INVITE - - -
			A>P ACK 1 - - -
			+1h
			B>P BYE 1 - -bob -
			P>B 200 1BYE - -bob -`},
		{name: "callee without a tag", kind: Dialog, script: `
			*A>P INVITE 1 a a -
			P>A 200 1INVITE a a -
			A>P ACK 1 a2 a -
			+1h
			A>P BYE 2 a3 a -
			P>A 200 2BYE a3 a -`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := New(Config{})
				var script strings.Builder
				var want []string
				for line := range strings.Lines(tt.script) {
					line = strings.TrimSpace(line)
					rest, unwanted := strings.CutPrefix(line, "~")
					script.WriteString(rest + "\n")
					if line = strings.TrimPrefix(rest, "*"); line != "" && line[0] != '+' && !unwanted && !strings.HasPrefix(line, "other") {
						want = append(want, line)
					}
				}
				got := play(t, tr, tt.kind, script.String())
				if !slices.Equal(got, want) {
					t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				if n := tr.Stats().Open; n != 1 {
					t.Errorf("%d open at the end, want 1", n)
				}
				time.Sleep(33 * time.Second)
				s := tr.Stats()
				if s.Open != tt.open {
					t.Errorf("%d open after 33 s, want %d", s.Open, tt.open)
				}
				time.Sleep(13 * time.Hour)
				if s = tr.Stats(); s.Open != 0 || s.Bytes != 0 || s.Ended+s.TimedOut != 1 {
					t.Errorf("after 13 h: %+v", s)
				}
			})
		})
	}
}
