package scope

import (
	"strings"
	"testing"
)

func TestStatelessACKs(t *testing.T) {
	const (
		sl = "a45363010201c12697c26728a1ea42a4.4eb0f212"
		tm = "a45363010201c12697c26728a1ea42a4-4eb0f212"
	)
	tests := []struct{ name, script string }{ // what is one has a *
		{"refused by the proxy", `
			A>P INVITE 1 a a -
			P>A 404 1INVITE a a p
			*A>P ACK 1 a a p
			*A>P ACK 1 a a p`},
		{"refused by the callee", `
			A>P INVITE 1 a a -
			P>B INVITE 1 p1,a a -
			A>P INVITE 1 a a -
			B>P 486 1INVITE p1,a a b
			P>B ACK 1 p1 a b
			P>A 486 1INVITE a a b
			A>P ACK 1 a a b`},
		{"refused by the callee, the request that went out was lost", `
			A>P INVITE 1 a a -
			B>P 486 1INVITE p1,a a b
			P>A 486 1INVITE a a b
			A>P ACK 1 a a b`},
		{"accepted by the proxy", `
			A>P INVITE 1 a a -
			P>A 200 1INVITE a a p
			A>P ACK 1 a2 a p`},
		{"refused within a transaction", `
			A>P INVITE 1 a a -
			P>A 100 1INVITE a a -
			P>A 408 1INVITE a a ` + tm + `
			A>P ACK 1 a a ` + tm},
		{"known by its tag alone", `
			*A>P ACK 1 a a ` + sl + `
			A>P ACK 1 a a ` + tm + `
			A>P ACK 1 a a b
			A>P BYE 1 a a ` + sl + `
			P>B ACK 1 a a ` + sl},
		{"another tag", `
			A>P INVITE 1 a a -
			P>A 404 1INVITE a a p
			A>P ACK 1 a a q
			A>P ACK 2 a a p`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a StatelessACKs
			for line := range strings.Lines(tt.script) {
				if line = strings.TrimSpace(line); line == "" {
					continue
				}
				line, want := strings.CutPrefix(line, "*")
				m := parse(t, "c", line)
				if got := a.Has(&m.msg, &m.rec); got != want {
					t.Errorf("%s: %v", line, got)
				}
			}
		})
	}
}
