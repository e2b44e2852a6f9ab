package hep_test

import (
	"fmt"
	"net/netip"

	"siptraced/hep"
)

func ExamplePacket_Decode() {
	datagram := []byte("\x02\x10\x02\x11" + // version 2, header of 16, IPv4, UDP
		"\x13\xc4\x13\xc4" + "\xc0\x00\x02\x01" + "\xc6\x33\x64\x02" + // ports, addresses
		"\x00\xf1\x53\x65" + "\x19\x0f\x00\x00" + "\x2a\x00\x00\x00" + // time, capture id
		"SIP/2.0 200 OK\r\n\r\n")
	var p hep.Packet
	if err := p.Decode(datagram); err != nil {
		fmt.Println(hep.Cause(err), err)
		return
	}
	fmt.Printf("HEP%d %v %v > %v\n", p.Version, p.Proto, p.Src, p.Dst)
	fmt.Printf("%d.%06d id %d %.14q\n", p.Sec, p.Usec, p.CaptureID, p.Payload)
	// Output:
	// HEP2 udp 192.0.2.1:5060 > 198.51.100.2:5060
	// 1700000000.003865 id 42 "SIP/2.0 200 OK"
}

func ExamplePacket_Append() {
	p := hep.Packet{
		Version: 3, Proto: hep.TLS, Type: hep.TypeSIP,
		Src:     netip.MustParseAddrPort("192.0.2.1:5061"),
		Dst:     netip.MustParseAddrPort("198.51.100.2:5061"),
		HasTime: true, Sec: 1700000000, Usec: 3865, CaptureID: 42,
		Payload: []byte("OPTIONS"),
	}
	out, err := p.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.4s, %d bytes, ends in %x\n", out, len(out), out[len(out)-13:])
	// Output:
	// HEP3, 106 bytes, ends in 0000000f000d4f5054494f4e53
}

func ExampleSplit() {
	p := hep.Packet{Version: 3, Payload: []byte("one")}
	stream, err := p.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	stream = append(stream, "HEP3"...) // the next one has begun
	for {
		n, err := hep.Split(stream)
		if err != nil {
			fmt.Println("close:", err)
			return
		}
		if n == 0 {
			fmt.Printf("read on, have %q\n", stream)
			return
		}
		fmt.Println("packet of", n)
		stream = stream[n:]
	}
	// Output:
	// packet of 62
	// read on, have "HEP3"
}

func ExampleCause() {
	var p hep.Packet
	err := p.Decode([]byte("HEP3\x00\x10" + "\x00\x00\x00\x0f\x03\x84" + "cut!"))
	fmt.Println(err)
	fmt.Println(hep.Cause(err))
	// Output:
	// hep: chunk 0x000f at 6: length 900, have 10
	// hep_truncated
}
