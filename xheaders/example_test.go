package xheaders_test

import (
	"errors"
	"fmt"
	"strings"

	"siptraced/xheaders"
)

const duplicate = "BYE sip:bob@vec.example SIP/2.0\r\n" +
	"Call-ID: 1@vec.example\r\n" +
	"X-Siptrace-Fromip: udp:192.0.2.10:5060\r\n" +
	"X-Siptrace-Toip: udp:198.51.100.20:5080\r\n" +
	"X-Siptrace-Time: 1700000000 3865\r\n" +
	"X-Siptrace-Method: BYE\r\n" +
	"X-Siptrace-Dir: in\r\n" +
	"Content-Length: 0\r\n\r\n"

func show(msg []byte) { fmt.Println(strings.TrimSpace(strings.ReplaceAll(string(msg), "\r", ""))) }

func ExampleRead() {
	var h xheaders.Headers
	if err := xheaders.Read([]byte(duplicate), &h); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s > %s %s %s\n", h.FromIP, h.ToIP, h.Method, h.Dir)
	fmt.Println(h.HasTime, h.Time().UTC())
	// Output:
	// udp:192.0.2.10:5060 > udp:198.51.100.20:5080 BYE in
	// true 2023-11-14 22:13:20.003865 +0000 UTC
}

func ExampleRead_errors() {
	var h xheaders.Headers
	for _, msg := range []string{
		strings.Replace(duplicate, " 3865", "", 1),
		strings.ReplaceAll(duplicate, "X-Siptrace", "X-Other"),
	} {
		err := xheaders.Read([]byte(msg), &h)
		var malformed *xheaders.MalformedError
		switch {
		case errors.As(err, &malformed):
			fmt.Println("count", malformed.Cause)
		case errors.Is(err, xheaders.ErrNone):
			fmt.Println("a message of its own")
		}
	}
	// Output:
	// count xheaders_bad_time
	// a message of its own
}

func ExampleCut() {
	show(xheaders.Cut(nil, []byte(duplicate)))
	// Output:
	// BYE sip:bob@vec.example SIP/2.0
	// Call-ID: 1@vec.example
	// Content-Length: 0
}

func ExampleAppend() {
	msg := []byte("BYE sip:bob@vec.example SIP/2.0\r\nContent-Length: 0\r\n\r\n")
	marked, err := xheaders.Append(nil, msg, &xheaders.Headers{
		FromIP: []byte("udp:192.0.2.10:5060"), ToIP: []byte("udp:198.51.100.20:5080"),
		HasTime: true, Sec: 1700000000, Usec: 3865,
		Method: []byte("BYE"), Dir: xheaders.Out,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	show(marked)
	// Output:
	// BYE sip:bob@vec.example SIP/2.0
	// Content-Length: 0
	// X-Siptrace-Fromip: udp:192.0.2.10:5060
	// X-Siptrace-Toip: udp:198.51.100.20:5080
	// X-Siptrace-Time: 1700000000 3865
	// X-Siptrace-Method: BYE
	// X-Siptrace-Dir: out
}
