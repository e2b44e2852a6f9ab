package capture

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"siptraced/hep"
)

// stream is HEP3 packets one after the other.
func stream(t testing.TB, texts ...string) (out []byte) {
	t.Helper()
	for _, text := range texts {
		p := hep.Packet{Version: 3, Type: hep.TypeSIP, Payload: []byte(text)}
		var err error
		if out, err = p.Append(out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string // an entry for each item
		err      string
	}{
		{"nothing", "", nil, "empty"},
		{"blanks", "  \n", nil, "empty"},
		{"a packet", `{"t": 1.5, "transport": "udp", "src": "192.0.2.1:5060", "dst": "192.0.2.2:5060", "hex": "414243"}`, []string{"1 packet ABC of 192.0.2.1:5060"}, ""},
		{"lines", "{\"hex\": \"41\"}\n\n{\"hex\": \"42\"}\n", []string{"1 packet A of invalid AddrPort", "3 packet B of invalid AddrPort"}, ""},
		{"a row that was refused", `{"id": "s/1/0", "reason": "no", "table": "sip_trace", "traced_user": "u", "packet": "QUJD"}`, []string{"1 refused s/1/0 sip_trace u ABC"}, ""},
		{"a message that was noted", `{"time": "2026-01-02T03:04:05Z", "reason": "no", "cause": "rejected.x", "source": "192.0.2.1:5060", "packet": "QUJD"}`, []string{"1 packet ABC of 192.0.2.1:5060"}, ""},
		{"half a line", "{\"hex\": \"41\"}\n{\"hex\": ", []string{"1 packet A of invalid AddrPort", "2 problem"}, ""},
		{"no hex", "{\"hex\": \"4x\"}\n{}\n", []string{"1 problem", "2 problem"}, ""},
		{"a stream", string(stream(t, "one", "two")), []string{"1 packet HEP3", "2 packet HEP3"}, ""},
		{"a stream that ends early", string(stream(t, "one", "two")[:len(stream(t, "one"))+10]), []string{"1 packet HEP3"}, "ends within a packet"},
		{"a stream with rubbish", string(stream(t, "one")) + "rubbish and more of it\r\n\r\n", []string{"1 packet HEP3"}, "sip"},
		{"something else", "something else", nil, "neither pcap"},
		{"a short one", "ab", nil, "EOF"},
		{"a pcap file without frames", "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			err := Read(strings.NewReader(tt.in), func(i Item) error {
				switch {
				case i.Packet != nil:
					source := " of " + i.Packet.Source.String()
					if hep.Detect(i.Packet.Data) != 0 {
						source = ""
					}
					got = append(got, fmt.Sprintf("%d packet %.4s%s", i.Number, i.Packet.Data, source))
				case i.Refused != nil:
					l := i.Refused
					got = append(got, fmt.Sprintf("%d refused %s %s %s %s", i.Number, l.ID, l.Table, l.User, l.Packet))
				default:
					got = append(got, fmt.Sprintf("%d problem", i.Number))
				}
				return nil
			})
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	stop := errors.New("stop")
	if err := Read(bytes.NewReader(stream(t, "one", "two")), func(Item) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the handler's error: %v", err)
	}
}

// FuzzRead: whatever a file has, reading it ends, and hands on what can be used.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"hex\": \"41\"}\n{}\n"))
	f.Add(stream(f, "one", "two"))
	// One frame with UDP, one with half a SIP message over TCP.
	for _, text := range []string{
		"d4c3b2a1020004000000000000000000ffff000065000000" + "0000000000000000" + "1f0000001f000000" + "4500001f00010000401100007f0000017f00000113c413c4000b0000414243",
		"d4c3b2a1020004000000000000000000ffff000065000000" + "0000000000000000" + "2e0000002e000000" + "4500002e00010000400600007f0000017f00000113c413c40000000100000001501000ff00000000494e56495445",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Read(bytes.NewReader(b), func(i Item) error {
			if i.Packet == nil && i.Refused == nil && i.Problem == nil {
				t.Error("an item of nothing")
			}
			return nil
		})
	})
}
