package sipmsg_test

import (
	"errors"
	"fmt"

	"siptraced/compat/sipmsg"
)

func ExampleMessage_Parse() {
	datagram := []byte("SIP/2.0 180 Ringing\r\n" +
		"v: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK77\r\n" +
		"f: \"Alice\" <sip:alice@example.com>;tag=a1\r\n" +
		"t: <sip:bob@example.com>;tag=b2\r\n" +
		"i: 843817637684230@192.0.2.1\r\n" +
		"CSeq: 22 INVITE\r\n\r\n")
	var m sipmsg.Message
	if err := m.Parse(datagram); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %s %s from=%s to=%s via %s\n", m.CallID, m.MethodName(), m.Status, m.From.Tag, m.To.Tag, m.Via.Transport)

	err := m.Parse([]byte("GET / HTTP/1.1\r\n\r\n"))
	fmt.Println(errors.Is(err, sipmsg.ErrNotSIP))
	// Output:
	// 843817637684230@192.0.2.1 INVITE 180 from=a1 to=b2 via TLS
	// true
}

func ExampleMessage_Header() {
	var m sipmsg.Message
	if err := m.Parse([]byte("OPTIONS sip:b SIP/2.0\r\ns: lunch\r\nX-Tenant: blue\r\nbroken\r\n\r\n")); err != nil {
		fmt.Println(err)
		return
	}
	subject, ok := m.Header("Subject")
	fmt.Printf("%s %v\n", subject, ok)
	for h := range m.Headers() {
		fmt.Printf("%s = %s\n", h.Name, h.Value())
	}
	fmt.Println(m.Defects&sipmsg.BadHeader != 0)
	// Output:
	// lunch true
	// s = lunch
	// X-Tenant = blue
	// true
}

func ExampleMessage_Vias() {
	var m sipmsg.Message
	if err := m.Parse([]byte("BYE sip:b SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1;branch=b1, SIP/2.0/TCP 192.0.2.2\r\nVia: SIP/2.0/TLS c;branch=b3\r\n\r\n")); err != nil {
		fmt.Println(err)
		return
	}
	for via := range m.Vias() {
		fmt.Printf("%s %q\n", via.Host, via.Branch)
	}
	// Output:
	// 192.0.2.1 "b1"
	// 192.0.2.2 ""
	// c "b3"
}

func ExampleDefect() {
	var m sipmsg.Message
	if err := m.Parse([]byte("BYE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCSeq: 1 BYE\r\nf: a\r\nt: b\r\nl: 9\r\n\r\ncut")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Defects)
	// Output: missing_call_id,short_body
}

func ExampleParseURI() {
	u, ok := sipmsg.ParseURI([]byte("sip:bob@[2001:db8::1]:5070;transport=tcp"))
	fmt.Printf("%s %s %s %s %v\n", u.User, u.Host, u.Port, u.Params, ok)
	// Output: bob [2001:db8::1] 5070 transport=tcp true
}

func ExampleSplit() {
	buf := []byte("\r\n\r\n" +
		"MESSAGE sip:bob@example.com SIP/2.0\r\nContent-Length: 2\r\n\r\nhi" +
		"BYE sip:bob@exam")
	for {
		skip, n, err := sipmsg.Split(buf)
		if err != nil {
			fmt.Println(err) // the stream can't be read any further: close it
			return
		}
		if n == 0 {
			fmt.Printf("%d bytes wait for more\n", len(buf)-skip)
			return
		}
		fmt.Printf("a message of %d bytes\n", n)
		buf = buf[skip+n:]
	}
	// Output:
	// a message of 60 bytes
	// 16 bytes wait for more
}
