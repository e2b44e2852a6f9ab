package pipeline_test

import (
	"context"
	"fmt"
	"net/netip"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/pipeline"
	"siptraced/compat/siptrace"
)

// printer is a spool that prints.
type printer struct{}

func (printer) Put(rec *siptrace.Record) error {
	fmt.Printf("%s %s > %s\n", rec.Method, rec.From, rec.To)
	return nil
}
func (printer) Mark() uint64                       { return 0 }
func (printer) Sync(context.Context, uint64) error { return nil }

// Two datagrams: a SIP duplicate, and a keep-alive.
func Example() {
	params := siptrace.DefaultParams()
	params.TraceOn = true
	count := counters.New()
	p := pipeline.New(pipeline.Rules{
		Params: params, Own: siptrace.NewSockets(nil, false), Routing: params.Routing(siptrace.Mirroring{}),
	}, printer{}, count)
	for _, text := range []string{"OPTIONS sip:a SIP/2.0\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n", "\r\n\r\n"} {
		p.Handle(&ingest.Packet{
			Data: []byte(text), Net: "udp", Source: netip.MustParseAddrPort("192.0.2.9:5060"), Local: netip.MustParseAddrPort("192.0.2.1:9060"),
		})
	}
	fmt.Println("keep-alives:", count.Snapshot()["dropped.keepalive"])
	fmt.Println(counters.Accounting()[0])
	// Output:
	// OPTIONS udp:192.0.2.9:5060 > udp:192.0.2.1:9060
	// keep-alives: 1
	// received + made = rejected.* + dropped.* + spooled
}
