package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/hep"
)

// BenchmarkIntake measures how long Handle takes in a daemon without mirrors and
// in one with the worst of them: a name server that never answers, a peer that
// takes a connection and reads nothing, and rules that name more destinations
// than there may be, none of which takes a connection. The two get the same
// messages by turns, the ones that name a destination for the first time among
// them; handle-p99-ratio is what matters.
//
//	go test -run xxx -bench Intake -benchtime 20000x ./cmd/siptraced/internal/daemon
func BenchmarkIntake(b *testing.B) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { silent.Close() }) // accepted by the kernel, read by nobody
	const route = "event_route[siptrace:msg] {\n$var(to) = \"sip:127.0.0.1:\" + $rU + \";transport=tcp\";\n%s;\n}\n"
	sides := [2]*side{
		begin(b, fmt.Sprintf(route, "sip_trace()"), ""),
		begin(b, fmt.Sprintf(route, `sip_trace("$var(to)")`), fmt.Sprintf("sip:homer.example.com:9060;transport=tcp, sip:other.example.com, sip:%s;transport=tcp", silent.Addr())),
	}
	const calls, gap = 80, 20
	n := 0
	for b.Loop() {
		for i := range sides {
			s := sides[(n+i)%2]
			s.took = append(s.took, s.handle(b, n%calls))
		}
		if n++; n%gap == 0 {
			time.Sleep(5 * time.Millisecond) // 4,000 messages a second, and no more
		}
	}
	var p50, p99 [2]float64
	for i, name := range []string{"without", "with"} {
		took := sides[i].took
		slices.Sort(took)
		p50[i], p99[i] = float64(took[len(took)/2]), float64(took[len(took)*99/100])
		b.ReportMetric(p50[i], name+"-p50-ns")
		b.ReportMetric(p99[i], name+"-p99-ns")
		b.ReportMetric(float64(took[len(took)-1]), name+"-max-ns")
	}
	b.ReportMetric(p50[1]/p50[0], "handle-p50-ratio")
	b.ReportMetric(p99[1]/p99[0], "handle-p99-ratio")
	b.ReportMetric(0, "ns/op")
	c := sides[1].counters.Snapshot()
	if n >= calls && c["mirrors.too_many"] == 0 {
		b.Errorf("rules named no more destinations than there may be: %v", c)
	}
	names := sides[1].mirrors.Names()
	b.ReportMetric(float64(len(names)), "destinations")
}

// side is a daemon, and how long each Handle took in it.
type side struct {
	*daemon
	took []time.Duration
}

func begin(b *testing.B, route, destinations string) *side {
	b.Helper()
	dir := b.TempDir()
	load := func() (*config.Config, error) {
		cfg, err := config.Load(config.Sources{Set: []string{
			"listen=udp:127.0.0.1:0", "rpc.ctl=", "rpc.http=", "shutdown_timeout=1ms", "spool.dir=" + filepath.Join(dir, "spool"),
			"store.reject_file=" + filepath.Join(dir, "rejects"), "siptrace.db_url=mysql://siptraced@127.0.0.1:1/siptraced", "event_route=" + route, "destinations=" + destinations,
		}})
		if err == nil {
			cfg.Mirror.Lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		return cfg, err
	}
	cfg, err := load()
	if err != nil {
		b.Fatal(err)
	}
	d := newDaemon(Options{Load: load, Stdout: io.Discard, Stderr: io.Discard}, cfg)
	d.log = slog.New(slog.DiscardHandler)
	if err := d.start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.stop)
	return &side{daemon: d}
}

// handle has one message handled. Its request URI has the port of one of 80
// destinations.
func (s *side) handle(b *testing.B, call int) time.Duration {
	ends := [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("192.0.2.2:5060")}
	text := fmt.Sprintf("INVITE sip:%d@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%d\r\nFrom: <sip:a@example.com>;tag=1\r\n"+
		"To: <sip:b@example.com>\r\nCall-ID: %d@example.com\r\nCSeq: 1 INVITE\r\nContent-Length: 600\r\n\r\n%s", 20+call, len(s.took), call, strings.Repeat("v=0\r\n.", 100))
	p := hep.Packet{Version: 3, Type: hep.TypeSIP, Proto: hep.UDP, Src: ends[0], Dst: ends[1], CaptureID: 1, Payload: []byte(text)}
	data, err := p.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	in := ingest.Packet{Data: data, Time: time.Now(), Net: "udp", Source: netip.MustParseAddrPort("192.0.2.9:9060"), Local: netip.MustParseAddrPort("127.0.0.1:9060")}
	began := time.Now()
	s.pipeline.Handle(&in)
	return time.Since(began)
}
