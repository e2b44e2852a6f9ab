package hep_test

import (
	"bytes"
	"strings"
	"testing"

	"siptraced/hep"
)

func TestSplit(t *testing.T) {
	one := hep3(chunk(0, 15, "x"))
	tests := []struct {
		name string
		in   string
		n    int
	}{
		{"nothing", "", 0},
		{"first byte", "H", 0},
		{"header but the last byte", "HEP3\x00", 0},
		{"header", "HEP3\x00\x07", 0},
		{"one byte missing", string(one[:len(one)-1]), 0},
		{"one", string(one), len(one)},
		{"no chunks", "HEP3\x00\x06", 6},
		{"one and a bit", string(one) + "HE", len(one)},
		{"what follows is not looked at", string(one) + "\x01", len(one)},
		{"largest, incomplete", "HEP3\xff\xff" + strings.Repeat("x", 65528), 0},
		{"largest", "HEP3\xff\xff" + strings.Repeat("x", 65529), hep.MaxPacket},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n, err := hep.Split([]byte(tt.in)); n != tt.n || err != nil {
				t.Errorf("got %d, %v, want %d", n, err, tt.n)
			}
		})
	}
}

func TestSplitErrors(t *testing.T) {
	tests := []struct {
		name  string
		in    string
		err   error
		cause string
		text  string
	}{
		{"HEP1", "\x01", hep.ErrVersion, "hep_bad_version", "hep: version 1 packet: no length, can't be found in a stream"},
		{"HEP2", "\x02\x10\x02\x11", hep.ErrVersion, "hep_bad_version", "hep: version 2 packet: no length, can't be found in a stream"},
		{"SIP", "SIP/2.0 200 OK", hep.ErrVersion, "hep_bad_version", "hep: packet: neither HEP1, HEP2 nor HEP3 (0x53)"},
		{"second byte", "HI", hep.ErrVersion, "hep_bad_version", "hep: packet: neither HEP1, HEP2 nor HEP3 (0x49)"},
		{"length 5", "HEP3\x00\x05", hep.ErrLength, "hep_bad_length", "hep: version 3 packet: length 5, want 6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := hep.Split([]byte(tt.in))
			checkError(t, err, tt.err, tt.cause, tt.text)
			if n != 0 {
				t.Errorf("n = %d", n)
			}
		})
	}
}

// A stream arriving byte by byte gives the packets that were put in.
func TestSplitStream(t *testing.T) {
	packets := captured(t)
	var want [][]byte
	for _, name := range []string{"hep3-tcp/1", "hlog/3", "hep3-tls/1"} {
		want = append(want, packets[name])
	}
	var got [][]byte
	var buf []byte
	for _, c := range bytes.Join(want, nil) {
		buf = append(buf, c)
		n, err := hep.Split(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			got = append(got, bytes.Clone(buf[:n]))
			buf = buf[n:]
		}
	}
	if len(buf) != 0 || len(got) != len(want) {
		t.Fatalf("%d packets, %d bytes left", len(got), len(buf))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("packet %d: got %x", i, got[i])
		}
	}
}
