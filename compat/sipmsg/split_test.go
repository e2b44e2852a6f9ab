package sipmsg

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	const start = "OPTIONS sip:a SIP/2.0\r\n"
	tests := []struct {
		name string
		in   string
		skip int
		n    int
	}{
		{"nothing", "", 0, 0},
		{"pong", "\r\n", 2, 0},
		{"ping", "\r\n\r\n", 4, 0},
		{"half a start line", "OPTIONS sip:a", 0, 0},
		{"half a header", start + "l: 1", 0, 0},
		{"header that may be folded", start + "l: 1\r\n", 0, 0},
		{"half a blank line", start + "l: 1\r\n\r", 0, 0},
		{"half a body", start + "l: 2\r\n\r\na", 0, 0},
		{"whole", start + "l: 2\r\n\r\nab", 0, len(start) + 10},
		{"and more", start + "l: 2\r\n\r\nabOPT", 0, len(start) + 10},
		{"keepalives before", "\r\n\r\n\n" + start + "l: 2\r\n\r\nabOPT", 5, len(start) + 10},
		{"keepalive before half", "\r\n" + start, 2, 0},
		{"LF", "OPTIONS sip:a SIP/2.0\nContent-Length: 1\n\nab", 0, 42},
		{"no Content-Length", start + "To: b\r\n\r\nOPTIONS", 0, len(start) + 9},
		{"no headers", start + "\r\nOPTIONS", 0, len(start) + 2},
		{"folded", start + "Content-Length:\r\n 2\r\n\r\nabc", 0, len(start) + 25},
		{"blank before the colon", start + "CONTENT-LENGTH : 2\r\n\r\nabc", 0, len(start) + 24},
		{"twice the same", start + "l: 2\r\nContent-Length: 02\r\n\r\nabc", 0, len(start) + 30},
		{"in another header", start + "X: l: 5\r\nl: 0\r\n\r\nabc", 0, len(start) + 17},
		{"line without a colon", start + "Content-Length 5\r\nl: 1\r\n\r\nabc", 0, len(start) + 27},
		{"reply", "SIP/2.0 200 OK\r\nl: 0\r\n\r\n", 0, 24},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			skip, n, err := Split([]byte(tt.in))
			if skip != tt.skip || n != tt.n || err != nil {
				t.Errorf("got %d, %d, %v, want %d, %d", skip, n, err, tt.skip, tt.n)
			}
		})
	}
}

func TestSplitErrors(t *testing.T) {
	const start = "\r\nOPTIONS sip:a SIP/2.0\r\n"
	long := strings.Repeat("x", MaxHeaders)
	fits := "l: 0\r\nX: " + strings.Repeat("x", MaxHeaders-len(start)+len("\r\n")-len("l: 0\r\nX: \r\n\r\n")) + "\r\n\r\n"
	tests := []struct {
		name string
		in   string
		want string // "" = no error, a whole message
	}{
		{"not SIP", "\r\nGET / HTTP/1.1\r\n", "sipmsg: not SIP: first line neither begins nor ends with SIP/2.0 (first line at byte 2 of 18)"},
		{"negative", start + "l: -1\r\n\r\n", `sipmsg: Content-Length "-1" at byte 28: not a number of bytes`},
		{"garbage", start + "To: a\r\nContent-Length : 5;x\r\nX", `sipmsg: Content-Length "5;x" at byte 49: not a number of bytes`},
		{"empty", start + "l:\r\nX", `sipmsg: Content-Length "" at byte 29: not a number of bytes`},
		{"long garbage", start + "l: " + long[:40] + "\r\nX", `sipmsg: Content-Length "` + long[:32] + `" at byte 28: not a number of bytes`},
		{"two that differ", start + "l: 1\r\nl: 2\r\nX", `sipmsg: Content-Length "2" at byte 34: differs from the one before it`},
		{"endless start line", long, "sipmsg: header section of at least 65537 bytes, at most 65536"},
		{"endless header", start + "X: " + long, "sipmsg: header section of at least 65537 bytes, at most 65536"},
		{"endless headers", start + strings.Repeat("X: y\r\n", MaxHeaders/6), "sipmsg: header section of at least 65537 bytes, at most 65536"},
		{"largest header section", start + fits, ""},
		{"header section one byte too large", start + "X" + fits, "sipmsg: header section of at least 65537 bytes, at most 65536"},
		{"message too large", start + "l: 1048576\r\n\r\n", "sipmsg: message of at least 1048613 bytes, at most 1048576"},
		{"far too large", start + "l: 2147483648\r\n\r\n", `sipmsg: Content-Length "2147483648" at byte 28: not a number of bytes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, n, err := Split([]byte(tt.in))
			if tt.want == "" {
				if err != nil || n != len(tt.in)-2 {
					t.Errorf("got %d, %v", n, err)
				}
				return
			}
			if n != 0 || err == nil || err.Error() != tt.want {
				t.Fatalf("got %d, %v, want %s", n, err, tt.want)
			}
			var notSIP *NotSIPError
			var length *LengthError
			var size *SizeError
			if !errors.As(err, &notSIP) && !errors.As(err, &length) && !errors.As(err, &size) {
				t.Errorf("%T is no error of ours", err)
			}
		})
	}
}

// Whatever the size of the reads, the same messages come out, and keepalives are gone.
func TestSplitStream(t *testing.T) {
	messages := torture(t)
	var stream []byte
	var want [][]byte
	for _, name := range []string{"wsinv", "esc01", "mpart01", "longreq", "unreason", "bcast"} {
		stream = append(stream, "\r\n\r\n"...)
		stream = append(stream, messages[name]...)
		want = append(want, messages[name])
	}
	// dblreq is two requests in one datagram, and so on a stream.
	stream = append(stream, messages["dblreq"]...)
	second := bytes.Index(messages["dblreq"], []byte("INVITE"))
	want = append(want, messages["dblreq"][:second], messages["dblreq"][second:])

	for _, size := range []int{1, 7, 1000, len(stream)} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			var got [][]byte
			var buf []byte
			for rest := stream; len(rest) > 0; {
				k := min(size, len(rest))
				buf, rest = append(buf, rest[:k]...), rest[k:]
				for {
					skip, n, err := Split(buf)
					if err != nil {
						t.Fatal(err)
					}
					if n > 0 {
						got = append(got, bytes.Clone(buf[skip:skip+n]))
					}
					buf = buf[skip+n:]
					if n == 0 {
						break
					}
				}
			}
			if len(buf) != 0 || len(got) != len(want) {
				t.Fatalf("%d messages, %d bytes left, want %d", len(got), len(buf), len(want))
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("message %d: got %q, want %q", i, got[i], want[i])
				}
			}
		})
	}
}
