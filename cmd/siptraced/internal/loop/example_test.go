package loop_test

import (
	"fmt"
	"log/slog"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/loop"
)

func ExampleDetector() {
	d := loop.New(loop.NewID(), "", counters.New(), slog.New(slog.DiscardHandler))
	text := []byte("OPTIONS sip:b.example.org SIP/2.0\r\n\r\n")
	in := &ingest.Packet{Data: text, Time: time.Now(), Source: agent}
	verdict, t := d.Check(in, text, nil)
	fmt.Println(verdict == loop.Passed)

	// A mirror sends it over HEP3, and it comes back.
	d.Sending(t, 1)
	path := d.Path(nil, nil)
	verdict, _ = d.Check(in, text, path)
	fmt.Println(verdict == loop.Returned)
	// Output:
	// true
	// true
}

func ExampleStreams() {
	s := loop.NewStreams()
	packet := loop.AppendOrigin(nil, 0xfeed, 1)
	fmt.Println(s.Repeated(packet), s.Repeated(packet))
	// Output: false true
}
