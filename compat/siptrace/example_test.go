package siptrace_test

import (
	"fmt"
	"net/netip"
	"time"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

func Example() {
	p := siptrace.DefaultParams()
	if err := p.Set("trace_mode", int64(3)); err != nil {
		fmt.Println(err)
		return
	}
	proxy := siptrace.Socket{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.1:5060")}
	own := siptrace.NewSockets([]siptrace.Socket{proxy}, p.AdvertisedData())
	b := siptrace.Builder{Own: own, LocalIP: siptrace.TextEndpoint(p.LocalIP())}

	capture := siptrace.Capture{
		Time: time.Unix(1700000000, 0), Proto: siptrace.UDP, Src: netip.MustParseAddrPort("198.51.100.7:5060"), Dst: proxy.Addr,
		Payload: []byte("OPTIONS sip:192.0.2.1 SIP/2.0\r\nCall-ID: 7@h\r\nFrom: <sip:a@h>;tag=1\r\n\r\n"),
	}
	var msg sipmsg.Message
	if err := msg.Parse(capture.Payload); err != nil {
		fmt.Println(err)
		return
	}
	var rec siptrace.Record
	b.Build(&rec, &capture, &msg)
	fmt.Printf("%s %s from %s to %s, %s\n", rec.Method, rec.CallID, rec.From, rec.To, rec.Direction)
	// Output: OPTIONS 7@h from udp:198.51.100.7:5060 to udp:192.0.2.1:5060, in
}

func ExampleParseSIPURI() {
	u, err := siptrace.ParseSIPURI([]byte("sips:[2001:db8::1];lr"))
	fmt.Println(u.HostName(), u.Port, u.Transport, err)
	_, err = siptrace.ParseSIPURI([]byte("10.0.0.1:9060"))
	fmt.Println(err)
	// Output:
	// 2001:db8::1 5061 tls <nil>
	// "10.0.0.1:9060" is not a SIP URI: want sip:host:port;transport=udp
}

// A copy outlives the memory that the message was read into.
func ExampleRecord_Clone() {
	buffer := []byte("OPTIONS sip:a SIP/2.0\r\n\r\n")
	rec := siptrace.Record{Msg: buffer, Method: buffer[:7]}
	kept := rec.Clone()
	copy(buffer, "INVITE  sip:b") // the next message
	fmt.Printf("%s %q\n", kept.Method, kept.Msg)
	// Output:
	// OPTIONS "OPTIONS sip:a SIP/2.0\r\n\r\n"
}

// Where a message goes: to the database, and as a SIP duplicate to duplicate_uri.
func ExampleParams_Routing() {
	p := siptrace.DefaultParams()
	if err := p.Set("duplicate_uri", "sip:192.0.2.50:9060"); err != nil {
		fmt.Println(err)
		return
	}
	r := p.Routing(siptrace.Mirroring{})
	var rec siptrace.Record
	r.Choose(&rec)
	fmt.Println("database:", rec.Sinks&siptrace.ToStore != 0, "SIP:", rec.Sinks&siptrace.ToSIP != 0, "HEP:", rec.Sinks&siptrace.ToHEP != 0)
	// Output: database: true SIP: true HEP: false
}
