package pipeline

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/compat/siptrace"
)

// TestDefects: a message that is broken and traced all the same is counted by what is wrong with it; one that is
// dropped is not.
func TestDefects(t *testing.T) {
	params := siptrace.DefaultParams()
	params.TraceOn = true
	c := counters.New()
	p := New(rulesOf(params), &fakeSpool{}, c)
	send := func(text string) {
		p.Handle(&ingest.Packet{
			Data: []byte(text), Time: time.Unix(1800000000, 0), Net: "udp",
			Source: netip.MustParseAddrPort("198.51.100.1:5060"), Local: netip.MustParseAddrPort("198.51.100.2:9060"),
		})
	}
	const broken = "BYE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCSeq: 1 BYE\r\nf: a\r\nt: b\r\nl: 9\r\n\r\ncut"
	send(broken)
	send(broken)
	send("BYE sip:b SIP/2.0\r\nv: SIP/2.0/UDP h\r\nCSeq: 1 BYE\r\nf: a\r\nt: b\r\ni: c\r\n\r\n")
	params.TraceOn = false
	p.SetRules(rulesOf(params))
	send(broken)

	got := c.Snapshot()
	maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
	want := map[string]uint64{"traced_requests": 3, "dropped.trace_off": 1, "accepted.sip_defect.missing_call_id": 2, "accepted.sip_defect.short_body": 2}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
