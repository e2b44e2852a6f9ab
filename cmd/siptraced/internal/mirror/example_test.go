package mirror_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// A collector gets each traced message as HEP3 over UDP.
func Example() {
	ctx, log := context.Background(), slog.New(slog.DiscardHandler)
	collector, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer collector.Close()

	sc := spool.DefaultConfig()
	if sc.Dir, err = os.MkdirTemp("", "spool"); err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(sc.Dir)
	sp, err := spool.Open(ctx, sc, log)
	if err != nil {
		fmt.Println(err)
		return
	}

	settings := mirror.Destination{
		Static: true, Protocol: mirror.HEP3, CaptureID: 2001, Time: mirror.TimeOriginal, Ack: mirror.AckTCP,
		MaxBytes: 1 << 30, MaxAge: time.Hour,
	}
	d, err := settings.At("sip:" + collector.LocalAddr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	c := counters.New()
	m, err := mirror.Open(ctx, mirror.Config{Destinations: []mirror.Destination{d}}, sp, c, log)
	if err != nil {
		fmt.Println(err)
		return
	}
	rec := siptrace.Record{Time: time.Now(), Msg: []byte("OPTIONS sip:b@example.com SIP/2.0\r\n\r\n")}
	rec.Sinks = siptrace.ToListed
	if err := sp.Put(&rec); err != nil {
		fmt.Println(err)
	}

	buf := make([]byte, 1<<16)
	n, err := collector.Read(buf)
	var p hep.Packet
	if err == nil {
		err = p.Decode(buf[:n])
	}
	fmt.Printf("HEP%d from node %d: %.33s %v\n", p.Version, p.CaptureID, p.Payload, err)

	sp.Flush(ctx)
	m.Stop(ctx)
	fmt.Println(m.Pending(), "left")
	if err := sp.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// HEP3 from node 2001: OPTIONS sip:b@example.com SIP/2.0 <nil>
	// 0 left
}
